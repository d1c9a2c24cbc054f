//! Sinks over whatever target their options point to.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_types::{TopicId, TopicName};

use super::super::Violation;
use super::super::sink::{SinkWorld, report};
use super::Report;
use crate::{ConnectorError, Guarantee, RowWriter, Sink, SinkConnector, TaskContext};

/// A target that nobody looks into.
struct Target {
    connector: Arc<dyn SinkConnector>,
    guarantee: Guarantee,
    topic: TopicName,
}

/// One connector for all of the suite.
struct Shared(Arc<dyn SinkConnector>);

#[async_trait]
impl SinkConnector for Shared {
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        self.0.check(context).await
    }

    async fn open(&self, context: TaskContext) -> Result<Box<dyn Sink>, ConnectorError> {
        self.0.open(context).await
    }
}

#[async_trait]
impl SinkWorld for Target {
    fn connector(&self) -> Box<dyn SinkConnector> {
        Box::new(Shared(Arc::clone(&self.connector)))
    }

    fn guarantee(&self) -> Guarantee {
        self.guarantee
    }

    async fn held(&mut self) -> Vec<i64> {
        Vec::new()
    }

    fn poison(&self, row: &mut RowWriter<'_>) -> bool {
        // A row of which nothing is told, whatever its fields.
        row.absent();
        row.absent();
        true
    }

    fn topic(&self) -> TopicName {
        self.topic.clone()
    }

    fn is_known(&self) -> bool {
        false
    }
}

/// Checks a sink over the target that its options point to. Some forty records of an id and a text are written there, as
/// those of a topic that has not been before (`towpath-check-…`).
pub async fn sink_as_given(connector: Box<dyn SinkConnector>, guarantee: Guarantee) -> Report {
    let name = format!("towpath-check-{}", TopicId::random().to_string().replace(['-', '_'], "."));
    let topic = match TopicName::new(&name) {
        Ok(topic) => topic,
        Err(error) => {
            let broken = Some(Violation::new("the suite names a topic", error.to_string()));
            return Report { broken, ..Report::default() };
        }
    };
    let mut target = Target { connector: connector.into(), guarantee, topic };
    let mut report = report(&mut target).await;
    let often = match guarantee {
        Guarantee::ExactlyOnce => "once",
        Guarantee::AtLeastOnce => "at least once",
    };
    let why = format!("only a look at the target tells: look for the records of {name}, each {often}");
    report.cannot_judge("what was flushed is in the target, as often as was promised", why);
    report
}
