//! One direction between two clusters: finds what is to be mirrored, and keeps it going.

mod announce;
mod begin;
mod gone;
mod groups;
mod inherit;
mod mover;
mod pacer;
mod plan;
mod provenance;
mod state;
mod status;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use towpath_client::{ClientConfig, ClientError};
use towpath_record::BatchError;
use towpath_types::{Filter, Offset, TopicName, TopicPartition};
use uuid::Uuid;

use crate::DecodeError;
use crate::flow::{FlowError, RecoverError};
use crate::naming::{NameError, Naming};

pub(crate) use state::maps;

pub use plan::{Change, Planned, Sync, plan};
use status::Progress;
pub use status::{GroupStatus, LinkState, LinkStatus, PartitionStatus};

/// How long a link waits before it starts again, after the first failure and at most.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);
/// A link that has run for so long is not one that fails again and again.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// Where a partition begins that the link has not mirrored before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// At its beginning.
    #[default]
    Anew,
    /// Where MirrorMaker 2 has left it.
    MirrorMaker,
}

/// Who writes to the target's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The link alone.
    #[default]
    ActivePassive,
    /// Others as well. With identical names neither settings nor groups' offsets follow: each side has its own.
    ActiveActive,
}

impl LinkConfig {
    /// Whether both sides write to topics of the same name.
    pub(crate) fn is_shared(&self) -> bool {
        self.mode == Mode::ActiveActive && self.naming == Naming::Identical
    }

    /// What is brought in line. Settings and deletions of topics that both sides write to would go to and fro.
    pub(crate) fn in_line(&self) -> Sync {
        Sync {
            configs: self.sync.configs && !self.is_shared(),
            // What is deleted on one side is deleted by whoever writes there.
            deletes: self.sync.deletes && !self.is_shared(),
            ..self.sync
        }
    }
}

/// What a link is to do.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Its name: the target's cluster knows by it how far it has come.
    pub name: String,
    /// The alias of the source's cluster.
    pub from: String,
    /// The alias of the target's cluster.
    pub to: String,
    /// How the source is reached.
    pub source: ClientConfig,
    /// How the target is reached.
    pub target: ClientConfig,
    /// Which topics.
    pub topics: Filter,
    /// What they are called at the target.
    pub naming: Naming,
    /// Whether the target's topics are written to by others, too.
    pub mode: Mode,
    /// With identical names: whether what came to the source from other clusters goes on to the target.
    pub forward: bool,
    /// Which groups' offsets are translated.
    pub groups: Filter,
    /// What is brought in line.
    pub sync: Sync,
    /// Where a partition begins that it has not mirrored before.
    pub begin: Begin,
    /// Whether it writes what MirrorMaker 2's clients look for: checkpoints at the target, heartbeats at the source.
    pub mirrormaker_topics: bool,
    /// How often the source is looked at for new topics and partitions, and for groups' offsets.
    pub refresh: Duration,
    /// How many movers share the partitions: each has connections of its own.
    pub tasks: usize,
    /// How many bytes a second it may fetch.
    pub bandwidth: Option<u64>,
}

/// What ends a link, or makes it start again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// Another process has taken over.
    #[error("another process mirrors this link now: it has taken over what this one wrote under")]
    Fenced,
    /// The source does not do what it is asked.
    #[error("the source: {0}")]
    Source(ClientError),
    /// The target does not do what it is asked.
    #[error("the target: {0}")]
    Target(ClientError),
    /// What the link knows can be neither read nor stored.
    #[error("what the link has stored at the target: {0}")]
    State(ClientError),
    /// What the link knows of a partition cannot be read (R7).
    #[error("what the link has stored of {what} cannot be read: {error}")]
    Stored {
        /// The key.
        what: String,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The target has what the link does not know of.
    #[error("{partition}: {error}")]
    Recover {
        /// The target's partition.
        partition: TopicPartition,
        /// What.
        error: RecoverError,
    },
    /// The target has lost what it had acknowledged.
    #[error("{partition} of the target does not follow what it had acknowledged: it is looked through again")]
    Lost {
        /// The target's partition.
        partition: TopicPartition,
    },
    /// The target's answers do not fit together.
    #[error("{partition}: {error}")]
    Flow {
        /// The target's partition.
        partition: TopicPartition,
        /// What.
        error: FlowError,
    },
    /// A topic of the target was deleted, as it was at the source: what was in use of it is left.
    #[error("{topic} was deleted at the target, since it is gone from the source")]
    Deleted {
        /// The target's topic.
        topic: TopicName,
    },
    /// A batch that has no header.
    #[error("{partition}: {error}")]
    Batch {
        /// The target's partition.
        partition: TopicPartition,
        /// What is wrong with it.
        error: Arc<BatchError>,
    },
    /// A topic cannot have its name at the target.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Both ends are the same cluster.
    #[error("source and target are the same cluster ({id}): its topics would be copied into themselves")]
    Itself {
        /// The cluster's id.
        id: String,
    },
    /// There is no MirrorMaker to go on from.
    #[error(
        "the source has no `{topic}`: MirrorMaker 2 has not mirrored to a cluster of this alias (`begin: mirrormaker`)"
    )]
    NoMaker {
        /// Where it would have kept how far it has come.
        topic: TopicName,
    },
    /// What the target has is not what MirrorMaker would have copied.
    #[error(
        "offset {offset} of {partition} is not what follows at the source: is MirrorMaker stopped, and did nobody else \
         write there (`begin: mirrormaker`)?"
    )]
    Inherit {
        /// The target's partition.
        partition: TopicPartition,
        /// The record there.
        offset: Offset,
    },
    /// There is nothing that it has mirrored.
    #[error("the target has no `{topic}`: this mirror has not run yet, or under another name")]
    Unborn {
        /// Where it would keep how far it has come.
        topic: TopicName,
    },
    /// A cluster has no id.
    #[error("the cluster `{alias}` does not tell its id, which identical names need: use `naming: prefixed`")]
    NoId {
        /// Its alias.
        alias: String,
    },
    /// The link cannot have its name.
    #[error("the link's name: {0}")]
    Link(towpath_types::InvalidName),
    /// A task of the link has ended that should not.
    #[error("a task of the link has ended by itself: {0}")]
    Task(String),
}

impl LinkError {
    /// What became of storing or reading what the link knows: whoever has taken over that has taken over all.
    fn state(error: ClientError) -> Self {
        if matches!(error, ClientError::ProducerFenced { .. }) { Self::Fenced } else { Self::State(error) }
    }

    /// Whether starting again may help.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        !matches!(
            self,
            Self::Fenced
                | Self::Stored { .. }
                | Self::Recover { .. }
                | Self::Name(_)
                | Self::Link(_)
                | Self::Itself { .. }
                | Self::NoId { .. }
                | Self::Unborn { .. }
                | Self::NoMaker { .. }
                | Self::Inherit { .. }
        )
    }
}

/// The partitions that a link knows, by the source's name: the target's, and how far it is.
type Known = Arc<Mutex<BTreeMap<TopicPartition, (TopicPartition, Arc<Progress>)>>>;

/// A link that runs.
#[derive(Debug)]
pub struct Link {
    config: Arc<LinkConfig>,
    known: Known,
    state: watch::Receiver<(LinkState, Option<String>)>,
    /// Topics that are left out although the filter takes them, and why.
    left_out: Arc<Mutex<BTreeMap<TopicName, String>>>,
    groups: Arc<Mutex<BTreeMap<String, GroupStatus>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What the tasks of one link share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    config: Arc<LinkConfig>,
    /// What tells this process's link from others', and whether it has stored that.
    owner: Uuid,
    owned: Arc<AtomicBool>,
    known: Known,
    left_out: Arc<Mutex<BTreeMap<TopicName, String>>>,
    groups: Arc<Mutex<BTreeMap<String, GroupStatus>>>,
    stop: watch::Receiver<bool>,
}

impl Link {
    /// Starts it. Must be called within a Tokio runtime.
    #[must_use]
    pub fn start(config: LinkConfig) -> Self {
        let config = Arc::new(config);
        let (told, state) = watch::channel((LinkState::Starting, None));
        let (stop, stopped) = watch::channel(false);
        let shared = Shared {
            config: Arc::clone(&config),
            owner: Uuid::new_v4(),
            owned: Arc::default(),
            known: Known::default(),
            left_out: Arc::default(),
            groups: Arc::default(),
            stop: stopped,
        };
        let (known, left_out) = (Arc::clone(&shared.known), Arc::clone(&shared.left_out));
        let groups = Arc::clone(&shared.groups);
        let task = tokio::spawn(supervise(shared, told));
        Self { config, known, state, left_out, groups, stop, task }
    }

    /// How far it has come.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        let (state, problem) = self.state.borrow().clone();
        let known = self.known.lock();
        let partitions =
            known.iter().map(|(source, (target, progress))| progress.told(source, target)).collect();
        let left_out =
            self.left_out.lock().iter().map(|(topic, why)| (topic.to_string(), why.clone())).collect();
        LinkStatus {
            link: self.config.name.clone(),
            from: self.config.from.clone(),
            to: self.config.to.clone(),
            state,
            problem,
            partitions,
            left_out,
            groups: self.groups.lock().clone(),
        }
    }

    /// Stops it: what is on its way is left to the next start.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.ended().await;
    }

    /// Ends it as a crash would: nothing is finished.
    pub fn kill(self) {
        self.task.abort();
    }

    /// Waits until it will not go on by itself any more.
    pub async fn ended(&self) {
        let ended =
            |told: &(LinkState, Option<String>)| matches!(told.0, LinkState::Failed | LinkState::Stopped);
        // It is gone with its sender.
        let mut state = self.state.clone();
        let _ = state.wait_for(ended).await;
    }
}

async fn supervise(shared: Shared, told: watch::Sender<(LinkState, Option<String>)>) {
    let mut stop = shared.stop.clone();
    let mut delay = AGAIN_AFTER;
    loop {
        let problem = told.borrow().1.clone();
        told.send_replace((LinkState::Starting, problem));
        let begun = tokio::time::Instant::now();
        let ended = begin::run(&shared, &told).await;
        let error = match ended {
            Ok(()) => {
                told.send_replace((LinkState::Stopped, None));
                return;
            }
            Err(error) => error,
        };
        let link = &shared.config.name;
        if !error.is_retriable() {
            tracing::error!(link, %error, "the link has ended");
            told.send_replace((LinkState::Failed, Some(error.to_string())));
            return;
        }
        if begun.elapsed() > WELL_AFTER {
            delay = AGAIN_AFTER;
        }
        tracing::warn!(link, %error, again_after_ms = delay.as_millis(), "the link starts again");
        told.send_replace((LinkState::Waiting, Some(error.to_string())));
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = stop.wait_for(|stop| *stop) => {
                told.send_replace((LinkState::Stopped, None));
                return;
            }
        }
        delay = (delay * 2).min(AGAIN_AFTER_MAX);
    }
}
