//! Records that cannot be processed, kept with the reason and their bytes.

use std::time::SystemTime;

use towpath_api::{ConnectorError, PipelineSpec, Redactor};
use towpath_client::{Ack, ClientError, Producer, ProducerRecord};
use towpath_formats::header::ERROR_PREFIX;
use towpath_types::TopicName;

use crate::env::Env;
use crate::error::cluster_error;
use crate::status::unix_ms;
use crate::topics::TopicKind;

/// Bytes of a key or value that are kept of a record which does not fit one; of its own headers as much together.
const TRUNCATED_BYTES: usize = 64 * 1024;

/// A record on its way out.
#[derive(Debug, Default)]
pub(crate) struct DeadLetter<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// Its own headers.
    pub(crate) headers: Headers,
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
        let own = headers.len();
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
        let sent = match send(producer, topic, letter.key, letter.value, &headers).await {
            // With what is added to it, it is more than a record can be: it is kept as far as that goes.
            Err(ClientError::RecordTooLarge { .. }) => {
                let (key, value) = (letter.key.map(shortened), letter.value.map(shortened));
                truncate_headers(&mut headers, own);
                let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len).to_string();
                let name = format!("{ERROR_PREFIX}truncated");
                headers.push((name, Some(length(letter.value).into_bytes())));
                send(producer, topic, key, value, &headers).await
            }
            sent => sent,
        };
        sent.map_err(|error| cluster_error(&format!("writing to {topic}"), error))
    }
}

type Headers = Vec<(String, Option<Vec<u8>>)>;

async fn send(
    producer: &Producer,
    topic: &TopicName,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &Headers,
) -> Result<Ack, ClientError> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    let partition = Some(0);
    producer
        .send_with_ack(ProducerRecord {
            partition,
            key,
            value,
            headers: &headers,
            ..ProducerRecord::new(topic)
        })
        .await
}

fn shortened(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(TRUNCATED_BYTES)]
}

/// Drops the record's own headers, the first `own` ones, where they are the reason.
fn truncate_headers(headers: &mut Headers, own: usize) {
    let size = |(name, value): &(String, Option<Vec<u8>>)| name.len() + value.as_ref().map_or(0, Vec::len);
    if headers[..own].iter().map(size).sum::<usize>() > TRUNCATED_BYTES {
        headers.drain(..own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_headers_give_way_only_where_they_are_large() {
        let header = |name: &str, bytes| (name.to_owned(), Some(vec![7; bytes]));
        let mut headers = vec![header("a", 100), header("towpath.error.code", 5)];
        truncate_headers(&mut headers, 1);
        assert_eq!(headers.len(), 2);
        let mut headers = vec![header("a", TRUNCATED_BYTES), header("b", 1), header("towpath.error.code", 5)];
        truncate_headers(&mut headers, 2);
        assert_eq!(headers, [header("towpath.error.code", 5)]);
        assert_eq!(shortened(&[1; 100]).len(), 100);
        assert_eq!(shortened(&vec![1; TRUNCATED_BYTES + 1]).len(), TRUNCATED_BYTES);
    }
}
