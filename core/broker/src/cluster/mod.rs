//! This node as a member of a replicated cluster: what goes between nodes, and what follows from it.
//!
//! `server` answers other nodes and `peer` calls them; `controller` drives the active controller's decisions;
//! `lifecycle` registers this broker and sends its heartbeats; `fetcher` copies what other brokers lead; `isr` asks for
//! changes of in-sync replicas; `forward` passes clients' requests on. All of them are drivers: what they do was decided
//! by the machines in `towpath_controller` and `towpath_replica`.

pub(crate) mod controller;
mod fetch_session;
mod fetcher;
pub(crate) mod forward;
mod isr;
mod lifecycle;
mod membership;
mod peer;
pub(crate) mod publish;
mod replica_reports;
mod requests;
mod server;
mod settings;
mod start;
mod transport;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::time::Instant;
use towpath_controller::decide::{AdminError, NewTopic};
use towpath_controller::{MetadataImage, Quorum};
use towpath_types::{BrokerEpoch, BrokerId};
use towpath_wire::create_topics::{CreatableTopic, CreatableTopicConfig};
use towpath_wire::{CreateTopicsRequest, ErrorCode};

pub use settings::{ClusterSettings, ReplicationSettings, Roles};

pub(crate) use controller::ActiveController;
pub(crate) use fetcher::Fetchers;
pub(crate) use lifecycle::NODES;
pub(crate) use membership::Membership;
pub(crate) use start::{Joined, QUORUM_DIR, join};

/// What followers ask for, for the test that compares it with what is declared.
#[cfg(test)]
pub(crate) mod fetching {
    pub(crate) use super::fetch_session::{MIN_BYTES, PARTITION_BYTES, RESPONSE_BYTES, WAIT_MS};
    pub(crate) use super::fetcher::BACKOFF;
}

use self::controller::ControllerRequest;
use self::fetcher::FetchContext;
use self::peer::{PeerAddress, PeerError, Peers};
use crate::error::BrokerError;
use crate::listener::Acceptor;
use crate::state::BrokerState;
use crate::throttle::Throttles;

/// How long one attempt to ask the controller may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long until the next attempt.
const RETRY: Duration = Duration::from_millis(50);

/// No controller answered in time.
#[derive(Debug, thiserror::Error)]
#[error("no active controller answers")]
pub(crate) struct NoController;

/// This node in its cluster.
#[derive(Debug)]
pub(crate) struct ClusterNode {
    me: BrokerId,
    settings: ClusterSettings,
    replication: ReplicationSettings,
    peers: Arc<Peers>,
    quorum: Arc<Quorum>,
    controller: ActiveController,
    throttles: Arc<Throttles>,
    /// Why this incarnation is none of the cluster's any more.
    replaced: tokio::sync::watch::Sender<Option<String>>,
    broker_epoch: AtomicI64,
    broker: OnceLock<Weak<BrokerState>>,
    acceptor: OnceLock<Weak<Acceptor>>,
}

impl ClusterNode {
    pub(crate) const fn me(&self) -> BrokerId {
        self.me
    }

    pub(crate) const fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    pub(crate) const fn replication(&self) -> &ReplicationSettings {
        &self.replication
    }

    pub(crate) const fn quorum(&self) -> &Arc<Quorum> {
        &self.quorum
    }

    pub(crate) const fn controller(&self) -> &ActiveController {
        &self.controller
    }

    /// Bounds on what replication takes.
    pub(crate) const fn throttles(&self) -> &Arc<Throttles> {
        &self.throttles
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// This broker's incarnation; -1 before it is registered.
    pub(crate) fn broker_epoch(&self) -> BrokerEpoch {
        BrokerEpoch::new(self.broker_epoch.load(Ordering::Acquire))
    }

    fn set_broker_epoch(&self, epoch: BrokerEpoch) {
        self.broker_epoch.store(epoch.get(), Ordering::Release);
    }

    /// The broker, once it is open.
    pub(crate) fn broker(&self) -> Option<Arc<BrokerState>> {
        self.broker.get()?.upgrade()
    }

    /// Where connections for records go, once the broker is open.
    fn acceptor(&self) -> Option<Arc<Acceptor>> {
        self.acceptor.get()?.upgrade()
    }

    /// The broker is open: clients' requests that are passed on can be answered, and followers can fetch.
    pub(crate) fn opened(&self, broker: &Arc<BrokerState>, acceptor: &Arc<Acceptor>) {
        // Set once: there is one broker to a node.
        drop(self.broker.set(Arc::downgrade(broker)));
        drop(self.acceptor.set(Arc::downgrade(acceptor)));
    }

    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.quorum.image()
    }

    /// Whether this node decides.
    pub(crate) fn is_active_controller(&self) -> bool {
        self.quorum.controller().borrow().is_self
    }

    /// The active controller as far as is known here.
    pub(crate) fn controller_id(&self) -> Option<BrokerId> {
        self.quorum.controller().borrow().leader
    }

    fn active_controller(&self) -> Option<PeerAddress> {
        let view = self.quorum.controller().borrow().clone();
        let (node, address) = (view.leader?, view.address?);
        Some(PeerAddress { node, address: Arc::from(address) })
    }

    async fn wait_for_controller_change(&self, at_most: Duration) {
        let mut view = self.quorum.controller();
        // Only what is new from here on: a receiver that has seen nothing would resolve at once, every time.
        view.mark_unchanged();
        drop(tokio::time::timeout(at_most, view.changed()).await);
    }

    /// Waits until this node's partitions and answers go by the metadata before `offset`.
    pub(crate) async fn wait_for_metadata(&self, broker: &BrokerState, offset: i64, at_most: Duration) {
        let waited = tokio::time::timeout(at_most, broker.published_from(offset)).await;
        if waited.is_err() {
            tracing::debug!(offset, "this node is behind the metadata");
        }
    }

    /// Asks the active controller, whoever that is, until it answers or `patience` is over.
    ///
    /// # Errors
    /// [`NoController`]; whether the request was carried out is then unknown.
    pub(crate) async fn ask_controller<R: ControllerRequest + Clone>(
        &self,
        request: &R,
        patience: Duration,
    ) -> Result<R::Response, NoController> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = if self.is_active_controller() {
                Some(request.clone().answer(&self.controller).await)
            } else {
                self.call_controller(request, deadline).await
            };
            if let Some(answer) = answer.filter(|answer| R::code(answer) != ErrorCode::NotController) {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                return Err(NoController);
            }
            self.wait_for_controller_change(RETRY).await;
        }
    }

    async fn call_controller<R: ControllerRequest>(
        &self,
        request: &R,
        deadline: Instant,
    ) -> Option<R::Response> {
        let peer = self.active_controller().filter(|peer| peer.node != self.me)?;
        let within = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT).max(RETRY);
        match self.peers.call(&peer, R::LANE, request, within).await {
            Ok(response) => Some(response),
            Err(error) => {
                tracing::debug!(%error, "the controller does not answer");
                self.lost_node(peer.node, &error);
                None
            }
        }
    }

    /// A connection to a node broke. If it was the active controller and nobody listens there any more, the others need
    /// not wait for a timeout.
    fn lost_node(&self, node: BrokerId, error: &PeerError) {
        if error.is_refused_connection() {
            self.quorum.peer_lost(node);
        }
    }

    /// The connection over which a broker sent its heartbeats has ended.
    fn heartbeat_connection_ended(self: &Arc<Self>, node: BrokerId) {
        if self.is_active_controller() {
            tokio::spawn(controller::look_for(Arc::clone(self), node));
        }
    }

    /// Where a broker is reached by nodes.
    fn peer_of(&self, broker: BrokerId) -> Option<PeerAddress> {
        let image = self.quorum.image();
        let peer = image.broker(broker)?.peer.as_ref()?;
        Some(PeerAddress { node: broker, address: Arc::from(format!("{}:{}", peer.host, peer.port)) })
    }

    /// Has the active controller create a topic.
    ///
    /// # Errors
    /// [`AdminError`] with the protocol's code.
    pub(crate) async fn create_topic(
        &self,
        broker: &BrokerState,
        topic: &NewTopic,
    ) -> Result<(), AdminError> {
        let configs = topic.configs.iter();
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.clone(),
                num_partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                configs: configs
                    .map(|(name, value)| CreatableTopicConfig { name: name.clone(), value: value.clone() })
                    .collect(),
                ..CreatableTopic::default()
            }],
            timeout_ms: 10_000,
            ..CreateTopicsRequest::default()
        };
        let failed = |message: &str| AdminError::new(ErrorCode::NotController, message);
        let response = forward::ask(self, broker, &request)
            .await
            .ok_or_else(|| failed("no active controller answers"))?;
        let result =
            response.topics.into_iter().next().ok_or_else(|| failed("the controller answered nothing"))?;
        match ErrorCode::from_code(result.error_code) {
            // Someone else may have been faster.
            ErrorCode::None | ErrorCode::TopicAlreadyExists => Ok(()),
            code => Err(AdminError::new(code, result.error_message.unwrap_or_default())),
        }
    }

    /// Resolves when this node can be no member any more.
    pub(crate) async fn failed(&self) -> String {
        let mut replaced = self.replaced.subscribe();
        let replaced = async {
            loop {
                let reason = replaced.borrow_and_update().clone();
                if let Some(reason) = reason {
                    return reason;
                }
                if replaced.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            reason = self.quorum.failed() => format!("its part in the metadata quorum has failed: {reason}"),
            reason = replaced => reason,
        }
    }

    /// The controller does not know this incarnation any more: it leads nothing from here on.
    fn is_replaced(&self, reason: &str) {
        self.replaced.send_replace(Some(reason.to_owned()));
    }

    /// Waits for something while a node starts, unless the node fails meanwhile.
    ///
    /// # Errors
    /// [`BrokerError::Registration`].
    pub(crate) async fn wait_or_fail<T>(&self, what: impl Future<Output = T>) -> Result<T, BrokerError> {
        tokio::select! {
            result = what => Ok(result),
            reason = self.failed() => Err(BrokerError::Registration(reason)),
        }
    }

    /// Lets another controller decide, if this node does.
    pub(crate) async fn hand_over_controller(&self) {
        if self.is_active_controller()
            && let Err(error) = self.quorum.transfer_leadership(None).await
        {
            tracing::debug!(%error, "the controller's role cannot be handed over");
        }
    }

    /// Ends what this node says to others.
    pub(crate) async fn close(&self) {
        self.hand_over_controller().await;
        self.quorum.shutdown().await;
        self.peers.close();
    }
}

/// A broker was unregistered: its node is no member of the quorum either, unless it is a voter, which has to be removed
/// by name.
pub(crate) async fn forget_member(node: &ClusterNode, id: BrokerId) {
    if node.settings().controllers.iter().any(|(voter, _)| *voter == id) {
        return;
    }
    if let Err(error) = node.quorum().remove_member(id).await {
        tracing::debug!(%id, %error, "not removed from the quorum");
    }
}

impl FetchContext for ClusterNode {
    fn me(&self) -> BrokerId {
        self.me
    }

    fn broker_epoch(&self) -> BrokerEpoch {
        Self::broker_epoch(self)
    }

    fn hello(&self, broker: BrokerId) -> Option<(PeerAddress, towpath_wire::NodeHelloRequest)> {
        Some((self.peer_of(broker)?, self.peers.hello()))
    }

    fn lost(&self, broker: BrokerId, error: &PeerError) {
        self.lost_node(broker, error);
    }

    fn throttles(&self) -> &Throttles {
        &self.throttles
    }
}
