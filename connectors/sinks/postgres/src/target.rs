//! PostgreSQL as the target of an SQL sink's task.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_api::{ConnectorError, EventSchema, Rejected, TaskContext};
use towpath_sql::sink::{Fault, Owned, Planned, Step, Target, Work};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use super::apply::Applier;
use super::config::Config;
use super::offsets::Offsets;
use super::plan::{Plan, Planner};
use super::remembered::Remembered;
use super::session::Session;

/// A connection with everything that a task remembers.
#[derive(Debug)]
pub(crate) struct PostgresTarget {
    session: Session,
    offsets: Offsets,
    planner: Planner,
    /// `COPY` text of one step.
    buffer: Vec<u8>,
}

impl PostgresTarget {
    /// Connects, and makes sure that there is a table for the positions.
    pub(crate) async fn open(config: Arc<Config>, context: &TaskContext) -> Result<Self, ConnectorError> {
        let mut session = Session::open(&config.connect, &context.stop).await?;
        let offsets = Offsets::new(&config.schema, &context.pipeline);
        offsets.ensure(&mut session).await?;
        let remembered = Remembered::new(&config.schema);
        remembered.ensure(&mut session).await?;
        let planner = Planner::new(config, Arc::clone(&context.pipeline), remembered);
        Ok(Self { session, offsets, planner, buffer: Vec::new() })
    }
}

#[async_trait]
impl Target for PostgresTarget {
    type Plan = Plan;

    async fn take(&mut self, partition: &TopicPartition, id: TopicId) -> Result<Owned, ConnectorError> {
        self.offsets.take(&mut self.session, partition, id).await
    }

    async fn begin(&mut self, owned: &Owned, next_offset: Offset) -> Result<(), ConnectorError> {
        self.offsets.begin(&mut self.session, owned, next_offset).await
    }

    async fn script(&mut self, what: &str, sql: &'static str) -> Result<(), Fault> {
        self.session.script(what, sql.to_owned()).await.map(drop)
    }

    async fn begin_search(&mut self) -> Result<(), Fault> {
        // Deferred constraints speak up where the record at fault can still be found.
        self.script("check constraints at once", "SET CONSTRAINTS ALL IMMEDIATE").await
    }

    fn knows(&self, topic: &TopicName, schema: &EventSchema) -> bool {
        self.planner.knows(topic, schema)
    }

    async fn plan(
        &mut self,
        topic: &TopicName,
        schema: &EventSchema,
        empties: bool,
    ) -> Result<Planned<Plan>, ConnectorError> {
        self.planner.plan(&mut self.session, topic, schema, empties).await
    }

    async fn plan_deletions(
        &mut self,
        topic: &TopicName,
        schema: &EventSchema,
    ) -> Result<Option<Planned<Plan>>, ConnectorError> {
        self.planner.plan_deletions(&mut self.session, topic, schema).await
    }

    async fn step(
        &mut self,
        work: &Work<'_, Plan>,
        step: Step,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(), Fault> {
        let mut applier = Applier { session: &mut self.session, buffer: &mut self.buffer, rejected };
        applier.step(work, step).await
    }

    async fn close(self) {
        self.session.close().await;
    }
}
