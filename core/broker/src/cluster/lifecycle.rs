//! This broker's life in its cluster: registration, heartbeats, and a stop in good order.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use towpath_types::BrokerEpoch;
use towpath_wire::broker_registration::{Feature, Listener};
use towpath_wire::{BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest, ErrorCode};
use uuid::Uuid;

use super::{ClusterNode, controller, replica_reports};
use crate::config::Endpoint;
use crate::error::BrokerError;
use crate::handlers::api_versions::FEATURES;
use crate::state::BrokerState;

/// How long one round of asking the controller takes at most.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long until the next attempt.
const RETRY: Duration = Duration::from_millis(100);
/// How often a broker asks that waits for something: to be unfenced, or to be let go.
const EAGER: Duration = Duration::from_millis(50);
/// How often it is looked whether a directory has failed.
const DIR_CHECK: Duration = Duration::from_millis(200);
/// How often it is said again what a start waits for.
const REPEAT: Duration = Duration::from_secs(10);

/// The listener of clients.
pub(crate) const CLIENTS: &str = "PLAINTEXT";
/// The listener of nodes.
pub(crate) const NODES: &str = "CONTROLLER";

/// What a registration says.
pub(crate) struct Registration {
    pub(crate) incarnation: Uuid,
    pub(crate) advertised: Endpoint,
    pub(crate) peer: Endpoint,
    pub(crate) rack: Option<String>,
    pub(crate) directory: Uuid,
    /// The ids of its further directories.
    pub(crate) further_directories: Vec<Uuid>,
    /// The epoch of the last clean shutdown; -1 if there was none.
    pub(crate) previous_epoch: BrokerEpoch,
    pub(crate) cluster_id: String,
}

impl Registration {
    fn request(&self, node: &ClusterNode) -> BrokerRegistrationRequest {
        let listener = |name: &str, endpoint: &Endpoint| Listener {
            name: name.to_owned(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            security_protocol: 0,
        };
        BrokerRegistrationRequest {
            broker_id: node.me().get(),
            cluster_id: self.cluster_id.clone(),
            incarnation_id: self.incarnation,
            listeners: vec![listener(CLIENTS, &self.advertised), listener(NODES, &self.peer)],
            features: FEATURES
                .iter()
                .map(|feature| Feature {
                    name: feature.name.to_owned(),
                    min_supported_version: feature.min,
                    max_supported_version: feature.max,
                })
                .collect(),
            rack: self.rack.clone(),
            log_dirs: [&[self.directory], &self.further_directories[..]].concat(),
            previous_broker_epoch: self.previous_epoch.get(),
            ..BrokerRegistrationRequest::default()
        }
    }
}

/// Registers this broker, however long that takes, and waits until its own registration has arrived (rule 12).
///
/// # Errors
/// [`BrokerError::Registration`] for a refusal that time does not change.
pub(crate) async fn register(
    node: &Arc<ClusterNode>,
    registration: &Registration,
) -> Result<(), BrokerError> {
    let request = registration.request(node);
    let mut said = None;
    let epoch = loop {
        // Where this node is the active controller itself; another one does the same.
        controller::make_way(node, &request).await;
        let outcome = match node.ask_controller(&request, PATIENCE).await {
            Ok(response) => match ErrorCode::from_code(response.error_code) {
                ErrorCode::None => break BrokerEpoch::new(response.broker_epoch),
                // The last incarnation's session lives for some seconds.
                code @ (ErrorCode::DuplicateBrokerRegistration | ErrorCode::NotController) => code.message(),
                code => return Err(BrokerError::Registration(code.message().to_owned())),
            },
            Err(_) => "no active controller answers",
        };
        if said.is_none_or(|at: Instant| at.elapsed() >= REPEAT) {
            tracing::info!(node = %node.me(), outcome, "waiting to be registered");
            said = Some(Instant::now());
        }
        node.wait_or_fail(tokio::time::sleep(RETRY)).await?;
    };
    node.set_broker_epoch(epoch);
    let mut images = node.quorum().images();
    let arrived = images.wait_for(|image| image.broker(node.me()).is_some_and(|known| known.epoch >= epoch));
    let arrived = node.wait_or_fail(arrived).await?;
    arrived.map(drop).map_err(|_| BrokerError::Registration("the quorum has ended".to_owned()))
}

fn heartbeat(node: &ClusterNode, broker: &BrokerState, want_shut_down: bool) -> BrokerHeartbeatRequest {
    let dirs = broker.replicas.dirs();
    let failed_dirs = dirs.all().iter().filter(|dir| dir.offline_reason().is_some());
    BrokerHeartbeatRequest {
        broker_id: node.me().get(),
        broker_epoch: node.broker_epoch().get(),
        // What this broker goes by, not what has only arrived.
        current_metadata_offset: broker.image().next_offset().get() - 1,
        // R14: a broker without a disk leads nothing and is in no ISR.
        want_fence: dirs.offline_reason().is_some(),
        want_shut_down,
        offline_log_dirs: failed_dirs.map(|dir| dir.directory_id().get()).collect(),
        ..BrokerHeartbeatRequest::default()
    }
}

/// Sends heartbeats until the task is aborted.
pub(crate) async fn run(node: Arc<ClusterNode>, broker: Arc<BrokerState>) {
    let mut views = node.quorum().controller();
    loop {
        let failed = broker.replicas.dirs().offline_count();
        replica_reports::report(&node, &broker).await;
        let request = heartbeat(&node, &broker, false);
        let wait = match node.ask_controller(&request, PATIENCE).await {
            Ok(response) => after(&node, &response),
            Err(_) => RETRY,
        };
        // A new controller hears of this broker at once, and any of a directory that has failed.
        let until = Instant::now() + wait;
        while broker.replicas.dirs().offline_count() == failed && Instant::now() < until {
            let slice = until.saturating_duration_since(Instant::now()).min(DIR_CHECK);
            if tokio::time::timeout(slice, views.changed()).await.is_ok() {
                break;
            }
        }
    }
}

fn after(node: &ClusterNode, response: &BrokerHeartbeatResponse) -> Duration {
    match ErrorCode::from_code(response.error_code) {
        ErrorCode::None if response.is_fenced => EAGER,
        ErrorCode::None => node.replication().heartbeat_interval,
        code @ (ErrorCode::StaleBrokerEpoch | ErrorCode::BrokerIdNotRegistered) => {
            // Another incarnation of this broker has registered, or somebody has unregistered it (R6).
            tracing::error!(?code, "the controller does not take this broker's heartbeats");
            node.is_replaced(&format!(
                "the cluster does not know this process as broker {} any more ({}): another one has its id, or it was \
                 unregistered",
                node.me(),
                code.name()
            ));
            node.replication().heartbeat_interval
        }
        _ => RETRY,
    }
}

/// Asks to be let go, and waits until others lead what this broker led.
pub(crate) async fn shut_down_in_order(node: &ClusterNode, broker: &BrokerState) {
    let deadline = Instant::now() + node.replication().controlled_shutdown_max;
    while Instant::now() < deadline {
        let request = heartbeat(node, broker, true);
        let left = deadline.saturating_duration_since(Instant::now()).min(PATIENCE);
        match node.ask_controller(&request, left).await {
            Ok(response) if response.error_code == ErrorCode::None.code() && response.should_shut_down => {
                tracing::info!("others lead in this broker's place");
                return;
            }
            Ok(response) if response.error_code == ErrorCode::None.code() => {}
            Ok(response) => {
                tracing::warn!(code = response.error_code, "the controller does not let this broker go");
                return;
            }
            Err(_) => break,
        }
        tokio::time::sleep(EAGER).await;
    }
    tracing::warn!("this broker stops without others in its place: no controller lets it go");
}
