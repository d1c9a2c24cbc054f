//! The scripted connectors pass the contract suite themselves: what the other tests stand on is honest.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::world::{Target, Upstream};
use async_trait::async_trait;
use towpath_api::conformance::{self, SinkWorld, SourceWorld};
use towpath_api::{Guarantee, RowWriter, SinkConnector, SourceConnector};
use towpath_types::TopicName;

struct SourceSide(Arc<Upstream>);

#[async_trait]
impl SourceWorld for SourceSide {
    fn connector(&self) -> Box<dyn SourceConnector> {
        Box::new(crate::world::source::ScriptedSource(Arc::clone(&self.0)))
    }

    async fn produce(&mut self, count: usize) {
        self.0.happen(&["orders", "lines"], count);
    }
}

#[tokio::test]
async fn the_scripted_source_is_honest() {
    let upstream = Upstream::new();
    upstream.burst.store(5, Ordering::Relaxed);
    conformance::source(&mut SourceSide(upstream)).await.unwrap();
}

struct SinkSide(Arc<Target>);

#[async_trait]
impl SinkWorld for SinkSide {
    fn connector(&self) -> Box<dyn SinkConnector> {
        Box::new(crate::world::sink::ScriptedSink(Arc::clone(&self.0)))
    }

    fn guarantee(&self) -> Guarantee {
        if self.0.own_positions { Guarantee::ExactlyOnce } else { Guarantee::AtLeastOnce }
    }

    async fn held(&mut self) -> Vec<i64> {
        self.0.ids("contract")
    }

    fn poison(&self, row: &mut RowWriter<'_>) -> bool {
        row.int(-7);
        true
    }

    fn topic(&self) -> TopicName {
        TopicName::new("contract").unwrap()
    }
}

#[tokio::test]
async fn the_scripted_sinks_are_honest() {
    for target in [Target::exactly_once(), Target::at_least_once()] {
        *target.refuses.lock() = vec![-7];
        conformance::sink(&mut SinkSide(target)).await.unwrap();
    }
}
