//! What runs on a node because it belongs to a cluster, from its registration to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use towpath_controller::MetadataImage;

use super::lifecycle::{self, Registration};
use super::{ClusterNode, Fetchers, Joined, isr, publish, replica_reports};
use crate::error::BrokerError;
use crate::listener::Acceptor;
use crate::open::{OpenedMember, remove_strays};
use crate::state::BrokerState;

/// How often it is said what a start waits for.
const REPEAT: Duration = Duration::from_secs(10);
/// How often it is looked whether all tasks run.
const SUPERVISE: Duration = Duration::from_secs(1);
/// How often it is looked whether this node is a voter.
const LOOK: Duration = Duration::from_millis(20);

/// What runs on a node because it belongs to a cluster.
#[derive(Debug)]
pub(crate) struct Membership {
    node: Arc<ClusterNode>,
    fetchers: Arc<Fetchers>,
    /// The heartbeats.
    beating: Mutex<Option<JoinHandle<()>>>,
    /// What applies metadata and asks for changes.
    following: Mutex<Vec<JoinHandle<()>>>,
    /// What serves other nodes.
    serving: Mutex<Vec<JoinHandle<()>>>,
}

impl Membership {
    /// Registers the broker, brings its partitions in line with the metadata, and begins to follow, to lead and to send
    /// heartbeats; returns when the controller has let it in.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub(crate) async fn begin(
        joined: Joined,
        opened: OpenedMember,
        acceptor: &Arc<Acceptor>,
    ) -> Result<Self, BrokerError> {
        let Joined { node, peer, incarnation, directory, tasks } = joined;
        let OpenedMember { state, previous_epoch, further_directories } = opened;
        node.opened(&state, acceptor);
        let fetchers = Arc::new(Fetchers::new(
            Arc::clone(&node) as Arc<dyn super::fetcher::FetchContext>,
            node.replication().fetchers,
        ));
        let membership = Self {
            node: Arc::clone(&node),
            fetchers: Arc::clone(&fetchers),
            beating: Mutex::new(None),
            following: Mutex::default(),
            serving: Mutex::new(tasks),
        };
        if !node.settings().roles.broker {
            membership.wait_to_vote().await?;
            membership.following.lock().push(tokio::spawn(publish::run(node, state, fetchers)));
            return Ok(membership);
        }
        let registration = Registration {
            incarnation,
            advertised: state.advertised.clone(),
            peer,
            rack: state.config.rack.clone(),
            directory,
            further_directories,
            previous_epoch,
            cluster_id: state.cluster_id.clone(),
        };
        lifecycle::register(&node, &registration).await?;
        // The image has this registration in it: what is on disk and not in it is nobody's any more.
        let image = node.image();
        let (removing, metadata) = (Arc::clone(&state), Arc::clone(&image));
        let removed = tokio::task::spawn_blocking(move || {
            removing.replicas.dirs().begin()?;
            remove_strays(&removing, &metadata)
        })
        .await;
        removed.map_err(|error| BrokerError::Thread(std::io::Error::other(error)))??;
        publish::apply(&state, &fetchers, image).await;
        state.replicas.started();
        replica_reports::report_lost(&node, &state).await?;
        membership.following.lock().extend([
            tokio::spawn(publish::run(Arc::clone(&node), Arc::clone(&state), fetchers)),
            tokio::spawn(isr::run(Arc::clone(&node), Arc::clone(&state))),
        ]);
        // First the vote: from the first heartbeat on this broker may be given leaders, and has to serve.
        membership.wait_to_vote().await?;
        let beating = tokio::spawn(lifecycle::run(Arc::clone(&node), Arc::clone(&state)));
        *membership.beating.lock() = Some(beating);
        membership.wait_to_be_let_in(&state).await?;
        Ok(membership)
    }

    /// A controller that came back with an empty disk votes again only when it has caught up. It is not ready before:
    /// whoever replaces one node after the other would else take the majority away.
    async fn wait_to_vote(&self) -> Result<(), BrokerError> {
        let me = self.node.me();
        if !self.node.settings().controllers.iter().any(|(id, _)| *id == me) {
            return Ok(());
        }
        let mut said = Instant::now();
        while !self.node.quorum().status().voters.iter().any(|voter| voter.id == me) {
            if said.elapsed() >= REPEAT {
                tracing::info!(node = %me, "waiting to be a voter of the metadata quorum again");
                said = Instant::now();
            }
            self.node.wait_or_fail(tokio::time::sleep(LOOK)).await?;
        }
        Ok(())
    }

    async fn wait_to_be_let_in(&self, state: &BrokerState) -> Result<(), BrokerError> {
        let mut published = state.published.subscribe();
        let me = self.node.me();
        let epoch = self.node.broker_epoch();
        let is_in = |image: &Arc<MetadataImage>| {
            image.broker(me).is_some_and(|broker| !broker.fenced && broker.epoch == epoch)
        };
        loop {
            let waited = tokio::time::timeout(REPEAT, published.wait_for(is_in));
            if self.node.wait_or_fail(waited).await?.is_ok() {
                return Ok(());
            }
            tracing::info!(node = %me, "waiting to be let in by the active controller");
        }
    }

    /// Resolves when this node can be no member any more: its part in the quorum has failed for good, another incarnation
    /// has taken its place, or one of the tasks that it lives by has ended.
    pub(crate) async fn failed(&self) -> String {
        tokio::select! {
            reason = self.node.failed() => reason,
            () = self.task_ended() => "a task that the node lives by has ended; its log says why".to_owned(),
        }
    }

    async fn task_ended(&self) {
        let has_ended = |tasks: &Mutex<Vec<JoinHandle<()>>>| tasks.lock().iter().any(JoinHandle::is_finished);
        loop {
            let beating = self.beating.lock().as_ref().is_some_and(JoinHandle::is_finished);
            if beating || has_ended(&self.following) || has_ended(&self.serving) {
                return;
            }
            tokio::time::sleep(SUPERVISE).await;
        }
    }

    /// Lets others lead in this broker's place.
    pub(crate) async fn hand_over(&self, state: &BrokerState) {
        let beating = self.beating.lock().take();
        if let Some(beating) = beating {
            beating.abort();
            lifecycle::shut_down_in_order(&self.node, state).await;
        }
        self.node.hand_over_controller().await;
    }

    /// Ends what changes partitions.
    pub(crate) fn stop_following(&self) {
        self.fetchers.stop();
        self.following.lock().drain(..).for_each(|task| task.abort());
    }

    /// Leaves the quorum in order: another node decides.
    pub(crate) async fn leave(&self) {
        self.node.close().await;
        self.serving.lock().drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let tasks = [&self.following, &self.serving];
        tasks.into_iter().for_each(|tasks| tasks.lock().drain(..).for_each(|task| task.abort()));
        if let Some(beating) = self.beating.lock().take() {
            beating.abort();
        }
        self.fetchers.stop();
    }
}
