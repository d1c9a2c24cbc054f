//! The active controller's driver: it lets time pass for the machine that remembers who lives, and commits what is
//! decided.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use towpath_controller::decide::{self, AdminError, ClusterPolicy, Decision};
use towpath_controller::{ControllerError, Liveness, MetadataImage, MetadataRecord, Quorum};
use towpath_types::{BrokerEpoch, BrokerId, Offset, TopicId};
use towpath_wire::{BrokerRegistrationRequest, ErrorCode, Request};
use uuid::Uuid;

use super::peer::{Lane, PeerAddress};
use super::{ClusterNode, ReplicationSettings};
use crate::connection::ErrorChain;

/// How often it is looked whether a broker has been silent for too long.
const TICK: Duration = Duration::from_millis(100);
/// How far from its preferred leaders the cluster may be (`leader.imbalance.per.broker.percentage`).
const IMBALANCE_PERCENT: u32 = 10;
/// How long it is looked whether a process is gone, and how often.
const PROBING: Duration = Duration::from_millis(500);
const PROBE_AGAIN: Duration = Duration::from_millis(20);
/// How often partitions without a leader are looked at whose topics allow an unclean election.
const UNCLEAN_CHECK: Duration = Duration::from_secs(5);
/// Leaders that move in one step.
const REBALANCE_STEP: usize = 1000;

/// A request of a node to the active controller.
pub(crate) trait ControllerRequest: Request + Send + Sync {
    /// The connection that it goes over.
    const LANE: Lane;

    /// The error of the whole answer.
    fn code(response: &Self::Response) -> ErrorCode;

    /// The controller's answer.
    fn answer(self, controller: &ActiveController) -> impl Future<Output = Self::Response> + Send;
}

/// This node as the active controller, or as one that may become it.
#[derive(Debug)]
pub(crate) struct ActiveController {
    quorum: Arc<Quorum>,
    policy: ClusterPolicy,
    liveness: Mutex<Liveness>,
    started: Instant,
}

impl ActiveController {
    pub(crate) fn new(quorum: Arc<Quorum>, policy: ClusterPolicy, settings: &ReplicationSettings) -> Self {
        let session_ms = i64::try_from(settings.session_timeout.as_millis()).unwrap_or(i64::MAX);
        Self { quorum, policy, liveness: Mutex::new(Liveness::new(session_ms)), started: Instant::now() }
    }

    pub(crate) const fn policy(&self) -> &ClusterPolicy {
        &self.policy
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// A broker was heard.
    pub(crate) fn heard(&self, broker: BrokerId, epoch: BrokerEpoch, next: Offset) {
        self.liveness.lock().heard(broker, epoch, self.now_ms(), next);
    }

    /// Leaders of a broker that stops were moved.
    pub(crate) fn moved_leaders(&self, broker: BrokerId, offset: Offset) {
        self.liveness.lock().moved_leaders(broker, offset);
    }

    /// An incarnation's session is over.
    pub(crate) fn ended(&self, broker: BrokerId, epoch: BrokerEpoch) {
        self.liveness.lock().ended(broker, epoch);
    }

    /// Commits a decision that may be refused.
    ///
    /// # Errors
    /// The refusal's code; `NOT_CONTROLLER` also where the outcome is unknown: the node asks again, and what was done is
    /// then seen.
    pub(crate) async fn decide<T: Send>(
        &self,
        mut decide: impl FnMut(&MetadataImage, &Liveness, i64) -> Result<Decision<T>, AdminError> + Send,
    ) -> Result<(T, Arc<MetadataImage>), ErrorCode> {
        told(self.quorum.change(|image| self.decision(image, &mut decide)).await)
    }

    /// As [`Self::decide`], where a refusal has to be as certain as a change (rule 9).
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn decide_or_confirm<T: Send>(
        &self,
        mut decide: impl FnMut(&MetadataImage, &Liveness, i64) -> Result<Decision<T>, AdminError> + Send,
    ) -> Result<(T, Arc<MetadataImage>), ErrorCode> {
        told(self.quorum.change_or_confirm(|image| self.decision(image, &mut decide)).await)
    }

    fn decision<T>(
        &self,
        image: &MetadataImage,
        decide: &mut impl FnMut(&MetadataImage, &Liveness, i64) -> Result<Decision<T>, AdminError>,
    ) -> Decision<Result<T, AdminError>> {
        let liveness = self.liveness.lock();
        match decide(image, &liveness, self.now_ms()) {
            Ok(Decision { records, answer }) => Decision { records, answer: Ok(answer) },
            Err(error) => Decision::unchanged(Err(error)),
        }
    }

    /// Takes an incarnation of a broker out of everything that it leads and is in sync with (rule 10).
    async fn fence(&self, broker: BrokerId, epoch: BrokerEpoch, why: &str) {
        let policy = &self.policy;
        let decide = |image: &MetadataImage| decide::fence_incarnation(image, policy, broker, epoch);
        match self.quorum.change(decide).await {
            Ok(_) => {
                self.liveness.lock().ended(broker, epoch);
                tracing::warn!(%broker, %epoch, why, "fenced");
            }
            Err(error) => tracing::debug!(%broker, error = %ErrorChain(&error), "cannot be fenced"),
        }
    }

    /// Fences a broker that has been silent for too long, unless it is heard meanwhile.
    async fn fence_silent(&self, broker: BrokerId) {
        let Some(epoch) = self.quorum.image().broker(broker).map(|known| known.epoch) else { return };
        let policy = &self.policy;
        let decide = |image: &MetadataImage| {
            // A commit takes its time: whoever came back while others were fenced is not fenced in turn.
            let is_due = self.liveness.lock().due(self.now_ms()).contains(&broker);
            if is_due {
                decide::fence_incarnation(image, policy, broker, epoch)
            } else {
                Decision::unchanged(())
            }
        };
        match self.quorum.change(decide).await {
            Ok(((), image))
                if image.broker(broker).is_none_or(|known| known.fenced || known.epoch != epoch) =>
            {
                self.liveness.lock().ended(broker, epoch);
                tracing::warn!(%broker, %epoch, "fenced: no heartbeat in time");
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%broker, error = %ErrorChain(&error), "cannot be fenced"),
        }
    }
}

type Decided<T> = Result<(Result<T, AdminError>, Arc<MetadataImage>), ControllerError>;

fn told<T>(decided: Decided<T>) -> Result<(T, Arc<MetadataImage>), ErrorCode> {
    match decided {
        Ok((Ok(answer), image)) => Ok((answer, image)),
        Ok((Err(error), _)) => {
            tracing::debug!(%error, "refused");
            Err(error.code)
        }
        Err(ControllerError::Image(_) | ControllerError::Record(_)) => Err(ErrorCode::UnknownServerError),
        Err(_) => Err(ErrorCode::NotController),
    }
}

/// Runs on every node until the task is aborted; acts while this node is the active controller.
pub(crate) async fn run(node: Arc<ClusterNode>) {
    let mut views = node.quorum.controller();
    loop {
        let view = views.borrow_and_update().clone();
        if !view.is_self {
            if views.changed().await.is_err() {
                return;
            }
            continue;
        }
        let is_still = || {
            let now = node.quorum.controller().borrow().clone();
            now.is_self && now.term == view.term
        };
        // Nothing is done before the beginning is: without sessions nobody would ever be found silent.
        if !begin(&node).await {
            tokio::time::sleep(TICK).await;
            continue;
        }
        let (mut rebalanced, mut uncleanly) = (Instant::now(), Instant::now());
        while is_still() {
            let controller = &node.controller;
            let due = {
                let mut liveness = controller.liveness.lock();
                liveness.cover(&node.image(), controller.now_ms());
                liveness.due(controller.now_ms())
            };
            for broker in due {
                controller.fence_silent(broker).await;
            }
            if uncleanly.elapsed() >= UNCLEAN_CHECK {
                uncleanly = Instant::now();
                elect_uncleanly(&node).await;
            }
            if rebalanced.elapsed() >= node.replication.leader_imbalance_check_interval {
                rebalanced = Instant::now();
                rebalance(&node).await;
            }
            tokio::time::sleep(TICK).await;
        }
        tracing::info!("this node is not the active controller any more");
    }
}

/// This node has become the active controller; whether it is so.
async fn begin(node: &Arc<ClusterNode>) -> bool {
    let controller = &node.controller;
    let id = TopicId::random().to_string();
    let first = |image: &MetadataImage| {
        let mut records = Vec::new();
        if image.cluster_id().is_empty() {
            records.push(MetadataRecord::Cluster { cluster_id: id.clone() });
        }
        Decision { records, answer: () }
    };
    let image = match controller.quorum.change(first).await {
        Ok(((), image)) => image,
        Err(error) => {
            tracing::debug!(error = %ErrorChain(&error), "not the active controller, or not yet");
            return false;
        }
    };
    tracing::info!(node = %node.me, "this node is the active controller");
    controller.liveness.lock().became_active(&image, controller.now_ms());
    // Leaders and the controller go by the same defaults, whatever stands in the files of single nodes.
    let policy = &controller.policy;
    let defaults =
        |image: &MetadataImage| decide::set_cluster_defaults(image, policy, &policy.defaults.configs);
    if let Err(error) = controller.quorum.change(defaults).await {
        tracing::debug!(error = %ErrorChain(&error), "the cluster's defaults cannot be set");
        return false;
    }
    // The last controller may have ended together with a broker: whoever is gone is found now, not after a timeout.
    for broker in image.brokers().filter(|broker| !broker.fenced && broker.id != node.me) {
        tokio::spawn(look_for(Arc::clone(node), broker.id));
    }
    true
}

/// A broker's connection has ended: if nobody listens there any more, its process is gone.
pub(crate) async fn look_for(node: Arc<ClusterNode>, broker: BrokerId) {
    let should_look = node.controller.liveness.lock().lost_connection(broker, node.controller.now_ms());
    if should_look {
        fence_if_gone(&node, broker).await;
    }
}

/// Another incarnation of a broker registers. If the one that is registered is gone, nobody waits for its session to end.
pub(crate) async fn make_way(node: &Arc<ClusterNode>, registering: &BrokerRegistrationRequest) {
    let id = BrokerId::new(registering.broker_id);
    let image = node.image();
    let in_the_way =
        image.broker(id).filter(|known| !known.fenced && known.incarnation != registering.incarnation_id);
    if in_the_way.is_some() && node.is_active_controller() {
        fence_if_gone(node, id).await;
    }
}

/// Fences a broker whose listener refuses connections, or belongs to another incarnation of it by now. If it answers, or
/// nobody can tell, its session decides.
async fn fence_if_gone(node: &Arc<ClusterNode>, broker: BrokerId) {
    let image = node.image();
    let Some(known) = image.broker(broker).filter(|known| !known.fenced) else { return };
    let Some(peer) = node.peer_of(broker) else { return };
    let is_gone = if broker == node.me {
        // Whoever asks is this process.
        known.incarnation != node.peers.hello().incarnation_id
    } else {
        is_gone(node, &peer, known.incarnation).await
    };
    // It may have registered again meanwhile: then the new incarnation is not fenced in its stead.
    let is_same = node.image().broker(broker).is_some_and(|now| now.epoch == known.epoch);
    if is_gone && is_same && node.is_active_controller() {
        node.controller.liveness.lock().probe_failed(broker, node.controller.now_ms());
        node.controller.fence(broker, known.epoch, "its process is gone").await;
    }
}

/// Whether a process is gone: its listener refuses, or another incarnation answers. A process that is being killed closes its
/// sockets one after the other, and the listener may come after the connection whose end was seen: it resets once more
/// before it refuses.
async fn is_gone(node: &ClusterNode, peer: &PeerAddress, incarnation: Uuid) -> bool {
    let begun = Instant::now();
    loop {
        match peer.connect(&node.peers.hello()).await {
            Ok((_, answer)) => return answer.incarnation_id != incarnation,
            Err(error) if error.is_refused_connection() => return true,
            Err(_) if begun.elapsed() >= PROBING => return false,
            Err(_) => tokio::time::sleep(PROBE_AGAIN).await,
        }
    }
}

/// Topics that are configured so get a leader that may lack records, where there is no other.
async fn elect_uncleanly(node: &ClusterNode) {
    let policy = &node.controller.policy;
    let decide =
        |image: &MetadataImage| decide::elect_where_unclean_is_allowed(image, policy, REBALANCE_STEP);
    match node.quorum.change(decide).await {
        Ok((elected, _)) => {
            for (topic, partition) in elected {
                tracing::warn!(%topic, partition, "unclean election: a leader that may lack records, as configured");
            }
        }
        Err(error) => tracing::debug!(error = %ErrorChain(&error), "cannot look for unclean elections"),
    }
}

/// Preferred leaders lead again where they can (`auto.leader.rebalance.enable`).
async fn rebalance(node: &ClusterNode) {
    if !node.replication.auto_leader_rebalance {
        return;
    }
    let policy = &node.controller.policy;
    let decide =
        |image: &MetadataImage| decide::rebalance_leaders(image, policy, IMBALANCE_PERCENT, REBALANCE_STEP);
    match node.quorum.change(decide).await {
        Ok((moved, _)) if moved > 0 => tracing::info!(moved, "preferred leaders lead again"),
        Ok(_) => {}
        Err(error) => tracing::debug!(error = %ErrorChain(&error), "leaders cannot be balanced"),
    }
}
