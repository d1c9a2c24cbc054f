//! What a node knows of the quorum.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, RaftMetrics, ServerState};
use tokio::sync::watch;
use towpath_types::BrokerId;
use uuid::Uuid;

use super::Node;
use super::types::{Types, broker_id};

/// Who is the active controller, as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControllerView {
    /// The active controller, if there is one that this node knows.
    pub leader: Option<BrokerId>,
    /// The host and port of its peer listener.
    pub address: Option<String>,
    /// Raft's term: it grows with every election, and has at most one leader.
    pub term: u64,
    /// This node is it: a majority answers, and everything of earlier terms is applied.
    pub is_self: bool,
}

/// The quorum, as DescribeQuorum tells it. Offsets are those of the Raft log, which also has entries without records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumStatus {
    /// The leader, if known.
    pub leader: Option<BrokerId>,
    /// The term.
    pub leader_epoch: u64,
    /// The offset after the last entry that is known to be committed.
    pub high_watermark: u64,
    /// The voters, as of the last change that is complete.
    pub voters: Vec<QuorumMember>,
    /// The learners.
    pub observers: Vec<QuorumMember>,
}

/// One member of the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumMember {
    /// The node.
    pub id: BrokerId,
    /// The identity of its data directory.
    pub directory: Uuid,
    /// The host and port of its peer listener.
    pub address: String,
    /// The offset after its last entry; only the leader knows that of others.
    pub log_end_offset: Option<u64>,
    /// When it last answered (ms since 1970); only the leader knows.
    pub last_fetch_timestamp_ms: Option<i64>,
    /// When it last had all of the leader's log (ms since 1970); only the leader knows.
    pub last_caught_up_timestamp_ms: Option<i64>,
}

fn ms_since_1970(ago: Duration) -> i64 {
    let at = SystemTime::now().checked_sub(ago).and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    at.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Node {
    /// Whether this member leads, a majority has answered it within its lease, and it has applied all of earlier terms:
    /// its own first entry comes after them.
    pub(crate) fn is_ready(&self) -> bool {
        self.with_metrics(|metrics| self.is_ready_in(metrics))
    }

    fn is_ready_in(&self, metrics: &RaftMetrics<Types>) -> bool {
        let leads = metrics.running_state.is_ok() && metrics.state == ServerState::Leader;
        let applied = metrics.last_applied.as_ref().map(|id| id.committed_leader_id().term);
        leads && applied == Some(metrics.current_term) && self.has_majority(metrics)
    }

    fn has_majority(&self, metrics: &RaftMetrics<Types>) -> bool {
        let membership = metrics.membership_config.membership();
        let alone = membership.voter_ids().all(|id| id == self.peers.id);
        alone || metrics.last_quorum_acked.as_ref().is_some_and(|at| at.elapsed() < self.lease())
    }

    fn view(&self) -> ControllerView {
        let leader = self.leader();
        // Until it speaks, the leader of before the start may be long gone; so may one whose connection broke.
        let is_silent = !self.is_leader() && (self.last_contact.lock().is_none() || self.is_leader_lost());
        self.with_metrics(|metrics| {
            let is_lost = is_silent
                || metrics.running_state.is_err()
                || (metrics.state == ServerState::Leader && !self.has_majority(metrics));
            let leader = leader.filter(|_| !is_lost);
            ControllerView {
                leader: leader.as_ref().map(|(id, _)| broker_id(*id)),
                address: leader.map(|(_, address)| address),
                term: metrics.current_term,
                is_self: self.is_ready_in(metrics),
            }
        })
    }

    /// Keeps up what [`super::Quorum::controller`] and [`super::Quorum::failed`] show.
    pub(crate) async fn keep_view(
        self: Arc<Self>,
        view: watch::Sender<ControllerView>,
        failure: watch::Sender<Option<String>>,
    ) {
        let mut metrics = self.metrics.clone();
        loop {
            let now = self.view();
            view.send_if_modified(|old| {
                let is_new = *old != now;
                *old = now;
                is_new
            });
            self.note_caught_up();
            if let Err(fatal) = self.with_metrics(|metrics| metrics.running_state.clone()) {
                let reason = fatal.to_string();
                tracing::error!(reason, "this member of the metadata quorum has stopped");
                failure.send_replace(Some(reason));
                return std::future::pending().await;
            }
            // The lease ends without any news.
            let changed = tokio::time::timeout(self.timing.heartbeat, metrics.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                failure.send_replace(Some("the metadata quorum's task has ended".to_owned()));
                return std::future::pending().await;
            }
        }
    }

    // The metrics are behind a lock, too: neither is held while the other is taken.
    fn note_caught_up(&self) {
        let now = Instant::now();
        let (replication, last) =
            self.with_metrics(|metrics| (metrics.replication.clone(), metrics.last_log_index));
        let mut caught_up = self.caught_up.lock();
        let Some(replication) = replication else { return caught_up.clear() };
        caught_up.retain(|id, _| replication.contains_key(id));
        for (id, matched) in replication {
            if matched.as_ref().map(|at| at.index()) >= last {
                caught_up.insert(id, now);
            }
        }
    }

    /// The voter that has the most of the log.
    pub(crate) fn successor(&self) -> Option<u64> {
        let caught_up = self.caught_up.lock().clone();
        self.with_metrics(|metrics| {
            let replication = metrics.replication.as_ref()?;
            let voters = metrics.membership_config.membership().voter_ids();
            let others = voters.filter(|id| *id != self.peers.id);
            others
                .filter(|id| caught_up.contains_key(id))
                .max_by_key(|id| replication.get(id).copied().flatten().map(|at| at.index()))
        })
    }

    pub(crate) fn status(&self) -> super::QuorumStatus {
        let caught_up = self.caught_up.lock().clone();
        self.with_metrics(|metrics| {
            let leads = metrics.state == ServerState::Leader;
            // What is settled: a change of the voters shows when it is complete.
            let membership = metrics.committed_membership_config.membership();
            let voters = membership.get_joint_config().first().cloned().unwrap_or_default();
            let learners = membership.nodes().map(|(id, _)| *id).filter(|id| !voters.contains(id));
            let member = |id: u64| {
                let known = membership.get_node(&id).cloned().unwrap_or_default();
                let is_self = id == self.peers.id;
                let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
                let end = if is_self { metrics.last_log_index } else { matched.map(|at| at.index()) };
                let heard =
                    metrics.heartbeat.as_ref().and_then(|all| all.get(&id)?.as_ref().map(|at| at.elapsed()));
                let heard = if is_self && leads { Some(Duration::ZERO) } else { heard };
                let caught = caught_up.get(&id).map(Instant::elapsed);
                let caught = if is_self && leads { Some(Duration::ZERO) } else { caught };
                QuorumMember {
                    id: broker_id(id),
                    directory: known.directory,
                    address: known.address,
                    log_end_offset: end.map(|index| index + 1),
                    last_fetch_timestamp_ms: heard.map(ms_since_1970),
                    last_caught_up_timestamp_ms: caught.map(ms_since_1970),
                }
            };
            QuorumStatus {
                leader: metrics.current_leader.map(broker_id),
                leader_epoch: metrics.current_term,
                high_watermark: metrics.local_committed.as_ref().map_or(0, |id| id.index() + 1),
                voters: voters.iter().copied().map(member).collect(),
                observers: learners.map(member).collect(),
            }
        })
    }
}
