//! Records that cannot be processed, kept with the reason and their bytes.

use std::time::SystemTime;

use towpath_api::{ConnectorError, PipelineSpec, Redactor};
use towpath_client::{Ack, Producer, ProducerRecord};
use towpath_formats::header::ERROR_PREFIX;
use towpath_types::TopicName;

use crate::env::Env;
use crate::error::cluster_error;
use crate::status::unix_ms;
use crate::topics::TopicKind;

/// Bytes of a value that does not fit a record which are kept all the same.
pub(crate) const TRUNCATED_BYTES: usize = 64 * 1024;

/// A record on its way out.
#[derive(Debug, Default)]
pub(crate) struct DeadLetter<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// Its own headers.
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// Where it came from: `topic`, `partition`, `offset`, `position` …
    pub(crate) place: Vec<(&'static str, String)>,
}

/// A pipeline's dead-letter topic, for one task.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    topic: Option<TopicName>,
    task: String,
    redactor: Redactor,
    ready: bool,
}

impl DeadLetters {
    /// Nothing is created before the first dead letter.
    pub(crate) fn new(spec: &PipelineSpec, task: String, redactor: Redactor) -> Result<Self, ConnectorError> {
        let topic = spec
            .dead_letter_topic()
            .map_err(|error| ConnectorError::terminal("DEAD_LETTER_TOPIC", error.to_string()))?;
        Ok(Self { topic: spec.dead_letter.enabled.then_some(topic), task, redactor, ready: false })
    }

    /// Sends a record to the topic; it is durable when the ack says so. Without a dead-letter topic the task fails
    /// at the record.
    pub(crate) async fn send(
        &mut self,
        env: &Env,
        spec: &PipelineSpec,
        producer: &Producer,
        letter: DeadLetter<'_>,
        error: ConnectorError,
    ) -> Result<Ack, ConnectorError> {
        let Some(topic) = &self.topic else {
            let place: Vec<_> = letter.place.iter().map(|(name, value)| format!("{name} {value}")).collect();
            let message = format!("a record cannot be processed ({})", place.join(", "));
            return Err(ConnectorError::terminal(error.code(), message)
                .with_hint("repair the record, or allow a dead-letter topic: `dead_letter: {enabled: true}`")
                .with_cause(error));
        };
        if !self.ready {
            env.topics.ensure(topic, TopicKind::DeadLetter(&spec.new_topics)).await?;
            self.ready = true;
        }
        let message = self.redactor.redact(&error.full_message()).into_owned();
        tracing::warn!(task = self.task, code = error.code(), message, "a record goes to the dead letters");
        let mut headers = letter.headers;
        let mut add = |name: &str, value: String| {
            headers.push((format!("{ERROR_PREFIX}{name}"), Some(value.into_bytes())));
        };
        add("code", error.code().to_owned());
        add("message", message);
        if let Some(hint) = error.hint() {
            add("hint", self.redactor.redact(hint).into_owned());
        }
        add("pipeline", spec.name.clone());
        add("task", self.task.clone());
        add("at_ms", unix_ms(SystemTime::now()).to_string());
        letter.place.into_iter().for_each(|(name, value)| add(name, value));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let record = ProducerRecord {
            partition: Some(0),
            key: letter.key,
            value: letter.value,
            headers: &headers,
            ..ProducerRecord::new(topic)
        };
        producer
            .send_with_ack(record)
            .await
            .map_err(|error| cluster_error(&format!("writing to {topic}"), error))
    }
}
