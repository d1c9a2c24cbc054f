//! A leader that is known to be gone need not be waited for.
//!
//! Raft waits for a leader's lease to end and then for a random time, since silence may mean anything. A connection
//! that breaks and a port that refuses say more. Members that have seen that themselves say so to each other; when most
//! voters have, one of them stands for election at once, and the others do not hold the lease against it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use openraft::ServerState;

use super::Node;
use super::message::{Reply, Request};

/// Between the first and the second voter's attempt: an election takes a few syncs of a disk.
const TURN: Duration = Duration::from_millis(60);
/// How long another member's opinion is waited for.
const OPINION_TIMEOUT: Duration = Duration::from_millis(150);
/// An election is asked for again after this time.
const ATTEMPT: Duration = Duration::from_millis(500);
/// How often the others are asked.
const ROUNDS: u32 = 4;

/// A leader that was seen to go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    pub(crate) leader: u64,
    term: u64,
    /// When that was last seen.
    since: Instant,
    /// When an election was last asked for because of that.
    stood: Instant,
}

impl Node {
    /// The leader that is known to be gone, if that is the one that this member still follows.
    fn current_lost(&self) -> Option<Lost> {
        let (leader, term) = self.leader_and_term();
        let lost = *self.lost.lock();
        // What was seen is worth nothing once the lease has ended anyway.
        lost.filter(|lost| {
            leader == Some(lost.leader) && term == lost.term && lost.since.elapsed() < self.lease() * 2
        })
    }

    pub(crate) fn is_leader_lost(&self) -> bool {
        self.current_lost().is_some()
    }

    /// Whether this member thinks so too.
    pub(crate) fn has_lost(&self, leader: u64, term: u64) -> bool {
        let (current, current_term) = self.leader_and_term();
        match current {
            _ if current_term > term || leader == self.peers.id => false,
            Some(current) if current == leader => self.is_leader_lost(),
            Some(_) => false,
            None => true,
        }
    }

    /// Takes note that the connection to `peer` is gone; if it led, an election may follow.
    pub(crate) fn peer_lost(
        self: &Arc<Self>,
        peer: u64,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let (leader, term) = self.leader_and_term();
        if leader != Some(peer) || peer == self.peers.id {
            return None;
        }
        let now = Instant::now();
        {
            let mut lost = self.lost.lock();
            // Everybody who calls the leader sees that it is gone, again and again; one election at a time is enough.
            let stood = lost
                .filter(|lost| lost.leader == peer && lost.term == term)
                .map(|lost| lost.stood)
                .filter(|stood| now.duration_since(*stood) < ATTEMPT);
            *lost = Some(Lost { leader: peer, term, since: now, stood: stood.unwrap_or(now) });
            if stood.is_some() {
                return None;
            }
        }
        let voters: Vec<u64> = self.membership().voter_ids().collect();
        // Voters take turns, so that they do not stand against each other.
        let others = voters.iter().filter(|id| **id != peer);
        let rank = others.take_while(|id| **id != self.peers.id).count();
        if !voters.contains(&self.peers.id) {
            return None;
        }
        let node = Arc::clone(self);
        Some(async move {
            let jitter = Duration::from_millis(rand::random_range(0..10));
            tokio::time::sleep(TURN * u32::try_from(rank).unwrap_or(u32::MAX) + jitter).await;
            for _ in 0..ROUNDS {
                if node.current_lost().is_none() {
                    return;
                }
                if node.most_have_lost(peer, term).await && node.current_lost().is_some() {
                    tracing::info!(leader = peer, term, "the controller is gone; standing for election");
                    // Without a pre-vote, which would respect the lease; the question before was one.
                    let _ = node.raft.trigger().elect(false).await;
                    return;
                }
                tokio::time::sleep(TURN).await;
            }
        })
    }

    async fn most_have_lost(&self, leader: u64, term: u64) -> bool {
        let membership = self.membership();
        let voters: Vec<u64> =
            membership.voter_ids().filter(|id| *id != leader && *id != self.peers.id).collect();
        let asked = voters.iter().map(|id| async {
            let request = Request::LeaderLost { leader, term };
            let member = membership.get_node(id);
            match self.peers.ask(*id, member, &request, OPINION_TIMEOUT).await {
                Ok(Reply::LeaderLost(true)) => Some(*id),
                _ => None,
            }
        });
        let mut agree: Vec<u64> = join_all(asked).await.into_iter().flatten().collect();
        agree.push(self.peers.id);
        membership
            .get_joint_config()
            .iter()
            .all(|voters| voters.iter().filter(|id| agree.contains(id)).count() > voters.len() / 2)
    }

    /// The leader that this member follows or is, and the term.
    pub(crate) fn leader_and_term(&self) -> (Option<u64>, u64) {
        self.with_metrics(|metrics| (metrics.current_leader, metrics.current_term))
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.with_metrics(|metrics| metrics.state == ServerState::Leader && metrics.running_state.is_ok())
    }
}
