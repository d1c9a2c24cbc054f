//! MirrorMaker 2, from one broker to another.

use std::net::SocketAddr;
use std::time::Duration;

use crate::child::Guarded;
use crate::peers;
use crate::temp::TempDir;
use anyhow::{Result, bail};

/// Its name in tables.
#[must_use]
pub fn name() -> String {
    format!("MirrorMaker 2 of Kafka {}", peers::KAFKA_VERSION)
}

/// A running MirrorMaker.
#[derive(Debug)]
pub struct MirrorMaker {
    process: Guarded,
    folder: TempDir,
}

impl MirrorMaker {
    /// Starts it with its defaults, four tasks and a heap of 1 GB, for topics that begin so.
    ///
    /// # Errors
    /// If the jars cannot be resolved, or it cannot be started.
    pub fn start(from: SocketAddr, to: SocketAddr, prefix: &str) -> Result<Self> {
        let folder = TempDir::new("mirror-maker")?;
        let mut lines = vec![
            "clusters = us, eu".to_owned(),
            format!("us.bootstrap.servers = {from}"),
            format!("eu.bootstrap.servers = {to}"),
            "us->eu.enabled = true".to_owned(),
            format!("us->eu.topics = {prefix}.*"),
            "eu->us.enabled = false".to_owned(),
            "tasks.max = 4".to_owned(),
            // New topics are found as soon as by its peer.
            "refresh.topics.interval.seconds = 1".to_owned(),
        ];
        let topics = [
            "",
            "checkpoints.topic.",
            "heartbeats.topic.",
            "offset-syncs.topic.",
            "offset.storage.",
            "status.storage.",
            "config.storage.",
        ];
        lines.extend(topics.map(|topic| format!("{topic}replication.factor = 1")));
        let file = folder.join("mm2.properties");
        std::fs::write(&file, lines.join("\n"))?;
        let jvm = ["-Xmx1024m".to_owned(), "-Xms1024m".to_owned()];
        let log = folder.join("log");
        let mut command = peers::java("org.apache.kafka.connect.mirror.MirrorMaker", &jvm, &log)?;
        command.arg(&file);
        let out = folder.join("out");
        Ok(Self { process: Guarded::spawn("MirrorMaker 2", command, &out, &out)?, folder })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it gracefully.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(mut self, within: Duration) -> Result<()> {
        self.process.terminate(within).map(drop)
    }

    /// That it still runs.
    ///
    /// # Errors
    /// If not, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        if self.process.is_running()? {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(20).collect();
        bail!("MirrorMaker 2 has ended: {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }
}

/// How long it may take until it copies, from its start on.
pub const START_WITHIN: Duration = Duration::from_secs(180);
