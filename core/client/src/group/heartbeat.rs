//! Heartbeats in the background, and what the coordinator says of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use towpath_wire::ErrorCode;
use towpath_wire::messages::heartbeat::HeartbeatRequest;

use super::{Coordinator, MembershipIdentity};

/// How the membership stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Stable,
    /// The group rebalances: join again.
    Rebalancing,
    /// The group has gone on without this member.
    Lost(ErrorCode),
}

/// Sends heartbeats until dropped, or until the membership is lost.
#[derive(Debug)]
pub(super) struct Heartbeats {
    task: JoinHandle<()>,
    pub(super) standing: watch::Receiver<Standing>,
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Heartbeats {
    pub(super) fn start(
        coordinator: Arc<Coordinator>,
        identity: &MembershipIdentity,
        interval: Duration,
        session_timeout: Duration,
    ) -> Self {
        let (sender, standing) = watch::channel(Standing::Stable);
        let request = HeartbeatRequest {
            group_id: coordinator.group.as_str().to_owned(),
            generation_id: identity.generation.get(),
            member_id: identity.member_id.to_string(),
            group_instance_id: identity.group_instance_id.as_ref().map(ToString::to_string),
        };
        let task = tokio::spawn(run(coordinator, request, interval, session_timeout, sender));
        Self { task, standing }
    }
}

async fn run(
    coordinator: Arc<Coordinator>,
    request: HeartbeatRequest,
    interval: Duration,
    session_timeout: Duration,
    standing: watch::Sender<Standing>,
) {
    let mut last_good = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        let limit = session_timeout.min(coordinator.client.request_timeout());
        let code = match coordinator.call(&request, i16::MAX, limit).await {
            Ok((response, _)) => ErrorCode::from_code(response.error_code),
            Err(error) => {
                tracing::debug!(group = %coordinator.group, %error, "heartbeat failed");
                ErrorCode::NetworkException
            }
        };
        match code {
            ErrorCode::None => {
                last_good = Instant::now();
                // A rebalance that ended without this member's join cannot be: the coordinator would say so.
                standing.send_if_modified(|now| {
                    *now != Standing::Stable && {
                        *now = Standing::Stable;
                        true
                    }
                });
            }
            ErrorCode::RebalanceInProgress => {
                last_good = Instant::now();
                standing.send_replace(Standing::Rebalancing);
            }
            ErrorCode::IllegalGeneration
            | ErrorCode::UnknownMemberId
            | ErrorCode::FencedInstanceId
            | ErrorCode::GroupAuthorizationFailed => {
                standing.send_replace(Standing::Lost(code));
                return;
            }
            code => {
                coordinator.note(code);
                // R6: without an answer for this long the group has gone on; whoever cannot ask must assume it.
                if last_good.elapsed() >= session_timeout {
                    standing.send_replace(Standing::Lost(code));
                    return;
                }
            }
        }
    }
}
