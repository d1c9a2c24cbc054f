//! The factory and the configured, unopened connector.

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use towpath_api::{
    ConfigProblems, ConnectorError, Descriptor, RawConfig, Source, SourceConnector, SourceFactory,
    SourceOffsets, TaskContext, TaskSpec,
};

use super::catalog::{find_slot, find_tables};
use super::check::{self, problems, slot_exists};
use super::config::{Config, SnapshotMode, descriptor};
use super::errors::classify;
use super::offsets::{Offsets, Setup};
use super::session::Session;
use super::setup::{ensure_publications, identify};
use super::shape::Origin;
use super::slot;
use super::source::{Opened, PostgresSource};

static DESCRIPTOR: LazyLock<Descriptor> = LazyLock::new(descriptor);

/// Makes `postgres_cdc` sources.
#[derive(Debug, Clone, Copy, Default)]
pub struct PostgresCdcFactory;

impl SourceFactory for PostgresCdcFactory {
    fn descriptor(&self) -> &Descriptor {
        &DESCRIPTOR
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SourceConnector>, ConfigProblems> {
        Ok(Box::new(PostgresCdc { config: Arc::new(Config::parse(config)?) }))
    }
}

#[derive(Debug)]
struct PostgresCdc {
    config: Arc<Config>,
}

impl PostgresCdc {
    fn session(&self, context: &TaskContext) -> Session {
        Session::new(&self.config.endpoint, &format!("towpath/{}", context.pipeline))
    }
}

#[async_trait]
impl SourceConnector for PostgresCdc {
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        let mut session = self.session(context);
        let names = self.config.names(&context.pipeline);
        let findings = check::check(&mut session, &self.config, &names).await;
        session.close().await;
        if findings.bad.is_empty() { Ok(findings.good) } else { Err(findings.bad) }
    }

    /// One task: a slot can be read by one reader only.
    async fn plan(&self, _tasks_max: NonZeroU32) -> Result<Vec<TaskSpec>, ConnectorError> {
        Ok(vec![TaskSpec::default()])
    }

    async fn open(
        &self,
        _task: TaskSpec,
        resume: SourceOffsets,
        context: TaskContext,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        let mut offsets = Offsets::read(&resume)?;
        let mut session = self.session(&context);
        let names = self.config.names(&context.pipeline);
        let target = session.endpoint().target();
        let connecting = format!("connect to {target}");
        let version =
            session.connection().await.map_err(|error| classify(&connecting, error))?.server_version;
        if !check::is_supported(version) {
            return Err(check::too_old(version));
        }
        let system =
            identify(&session).await.map_err(|error| classify("open a replication connection", error))?;
        let streams = self.config.snapshot != SnapshotMode::Only;
        match &offsets.stream {
            Some(stream) if stream.setup == Setup::Ready => {
                if streams {
                    slot::verify(&mut session, &system, &names.slot, stream).await?;
                }
            }
            // An intent that was never carried out, perhaps under another name or at another server.
            Some(stream) if stream.slot == names.slot && stream.system_id == system.id => {}
            _ => {
                offsets.stream = None;
                if streams && find_slot(&mut session, &names.slot).await?.is_some() {
                    return Err(slot_exists(&names.slot));
                }
            }
        }
        let found = find_tables(&mut session, &self.config.selection).await?;
        for table in &found.unlogged {
            tracing::warn!(%table, "the table matches, but it is unlogged: its changes are not in the log, it is not captured");
        }
        let bad = problems(&self.config, &found);
        let count = bad.len();
        if let Some(first) = bad.into_iter().next() {
            if count > 1 {
                tracing::error!(problems = count, "towpath check tells all of them");
            }
            return Err(first);
        }
        if streams {
            ensure_publications(&mut session, &names, &found.tables).await?;
        }
        let origin = Origin {
            pipeline: Arc::clone(&context.pipeline),
            database: system.database.clone(),
            system: system.id.clone(),
        };
        let opened = Opened {
            config: Arc::clone(&self.config),
            names,
            context,
            origin,
            system,
            session,
            tables: found.tables,
            offsets,
        };
        Ok(Box::new(PostgresSource::new(opened)))
    }
}
