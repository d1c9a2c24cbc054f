//! How a cluster is formed, and how nodes come into it and go.
//!
//! Only the configured controller with the lowest id makes a cluster, and only when all configured controllers say that
//! they have nothing. Everybody else asks to be taken in. A node whose data directory is another one than the membership
//! says is not the member that it was: had it acknowledged entries and lost them, and voted or acknowledged again under
//! the old identity, a quorum could commit without them. So the old member is first voted out, by those that have what
//! was committed; only then does the new one come in, as a learner, and becomes a voter when it has caught up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use openraft::{ChangeMembers, Instant as _};

use super::message::{Envelope, Greeting, Reply, Request};
use super::network::PeerAddress;
use super::types::{Member, broker_id};
use super::{Node, QuorumError};

/// How long a greeting is waited for.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a change of the membership may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often what is waited for is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at the membership.
const STEP: Duration = Duration::from_millis(100);
/// Between two requests to be taken in.
const JOIN_INTERVAL: Duration = Duration::from_millis(400);
/// Without a word from a leader for so long, a node asks whether it is still a member.
const SILENCE: Duration = Duration::from_secs(3);
/// Entries that a learner may lack and still become a voter.
const PROMOTION_LAG: u64 = 64;
/// Nodes that may wait to be taken in.
const JOINING_MAX: usize = 1024;

/// What one node remembers between two looks.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    asked: Option<Instant>,
    logged: Option<Instant>,
    /// The other controllers know where this node is now.
    greeted: bool,
    /// It was a voter once since its start. If it is none any more, somebody wanted that.
    was_voter: bool,
}

impl Keeper {
    fn log(&mut self, message: impl FnOnce() -> String) {
        if self.logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            tracing::info!("{}", message());
        }
    }
}

fn list(ids: &[u64]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Node {
    /// Forms, joins and keeps up the membership until the task is ended.
    pub(crate) async fn keep_membership(self: Arc<Self>) {
        let mut keeper = Keeper::default();
        loop {
            self.step(&mut keeper).await;
            if self.is_leader() {
                self.maintain().await;
            }
            tokio::time::sleep(STEP).await;
        }
    }

    async fn step(&self, keeper: &mut Keeper) {
        let membership = self.membership();
        let is_configured = self.peers.voters.contains_key(&self.peers.id);
        let is_formed = membership.voter_ids().next().is_some();
        let is_voter = membership.voter_ids().any(|id| id == self.peers.id);
        keeper.was_voter |= is_voter;
        let wants_vote = is_configured && !keeper.was_voter;
        if is_formed && !keeper.greeted {
            // It may have moved, and the others with it: the addresses in the membership are of no use then.
            keeper.greeted = true;
            self.greet().await;
        }
        if self.is_leader() && is_voter {
            return;
        }
        let is_known = membership.get_node(&self.peers.id) == Some(&self.peers.this);
        let is_silent = self.last_contact.lock().unwrap_or(self.started).elapsed() >= SILENCE;
        if is_formed && is_known && !wants_vote && !is_silent {
            return;
        }
        if keeper.asked.is_some_and(|asked| asked.elapsed() < JOIN_INTERVAL) {
            return;
        }
        keeper.asked = Some(Instant::now());
        if is_configured && !is_formed {
            self.form_or_join(keeper).await;
        } else {
            self.ask_to_join(keeper, wants_vote, self.leader()).await;
        }
    }

    async fn greet(&self) {
        let others = self.peers.voters.keys().filter(|id| **id != self.peers.id);
        join_all(others.map(|id| self.peers.ask(*id, None, &Request::Hello, GREETING_TIMEOUT))).await;
    }

    /// Asks all other configured controllers what they have.
    async fn form_or_join(&self, keeper: &mut Keeper) {
        let others: Vec<u64> = self.peers.voters.keys().copied().filter(|id| *id != self.peers.id).collect();
        let asked = others.iter().map(|id| async {
            match self.peers.ask(*id, None, &Request::Hello, GREETING_TIMEOUT).await {
                Ok(Reply::Hello(greeting)) => Ok((*id, greeting)),
                Ok(_) => Err((*id, "an answer to something else".to_owned())),
                Err(error) => Err((*id, error.to_string())),
            }
        });
        let (mut greetings, mut missing) = (BTreeMap::new(), Vec::new());
        for answer in join_all(asked).await {
            match answer {
                Ok((id, greeting)) => drop(greetings.insert(id, greeting)),
                Err((id, error)) => {
                    tracing::debug!(id, error, "a controller does not answer");
                    missing.push(id);
                }
            }
        }
        if let Some(formed) = greetings.values().find(|greeting| greeting.initialized) {
            if formed.known_as.is_some_and(|directory| directory != self.peers.this.directory) {
                keeper.log(|| {
                    let cluster = &self.peers.cluster;
                    format!("the cluster {cluster} knows this node by another data directory; with this empty one it begins anew")
                });
            }
            self.ask_to_join(keeper, true, formed.leader.clone()).await;
        } else if missing.is_empty() {
            self.form(keeper, &greetings).await;
        } else {
            keeper.log(|| {
                format!(
                    "waiting for controllers {} to form the cluster {}",
                    list(&missing),
                    self.peers.cluster
                )
            });
        }
    }

    async fn form(&self, keeper: &mut Keeper, greetings: &BTreeMap<u64, Greeting>) {
        let configured: Vec<u64> = self.peers.voters.keys().copied().collect();
        if let Some((id, greeting)) = greetings.iter().find(|(_, greeting)| greeting.voters != configured) {
            keeper.log(|| {
                let (theirs, ours) = (list(&greeting.voters), list(&configured));
                format!("controller {id} is configured with the controllers {theirs}, and this node with {ours}; they must be the same")
            });
            return;
        }
        if configured.first() != Some(&self.peers.id) {
            return;
        }
        let member = |id: &u64| match greetings.get(id) {
            Some(greeting) => {
                let configured = self.peers.voters.get(id).cloned().unwrap_or_default();
                let address = self.peers.seen(*id).map_or(configured, |seen| seen.address);
                Member { address, directory: greeting.directory }
            }
            None => self.peers.this.clone(),
        };
        let members: BTreeMap<u64, Member> = configured.iter().map(|id| (*id, member(id))).collect();
        tracing::info!(cluster = self.peers.cluster, controllers = list(&configured), "forming the cluster");
        if let Err(error) = self.raft.initialize(members).await {
            tracing::warn!(%error, "the cluster could not be formed");
        }
    }

    /// Asks the leader, whoever it is, to take this node in.
    async fn ask_to_join(&self, keeper: &mut Keeper, wants_vote: bool, leader: Option<(u64, String)>) {
        let request = Request::Join { wants_vote };
        let mut refused = None;
        let mut hint = leader.filter(|(id, _)| *id != self.peers.id);
        let mut others = self.peers.voters.keys().copied().filter(|id| *id != self.peers.id);
        for _ in 0..=self.peers.voters.len() + 1 {
            let reply = match hint.take() {
                Some((id, address)) => {
                    let to = PeerAddress { id: broker_id(id), address };
                    self.peers.call(to, None, &request, GREETING_TIMEOUT).await
                }
                None => match others.next() {
                    Some(id) => self.peers.ask(id, None, &request, GREETING_TIMEOUT).await,
                    None => break,
                },
            };
            match reply {
                Ok(Reply::Joining) => return,
                Ok(Reply::NotLeader(other)) => hint = other.filter(|(id, _)| *id != self.peers.id),
                Ok(_) => {}
                Err(error) => refused = Some(error),
            }
        }
        keeper.log(|| {
            let cause = refused.map(|error| format!(" ({error})")).unwrap_or_default();
            format!(
                "waiting for a controller of the cluster {} to take this node in{cause}",
                self.peers.cluster
            )
        });
    }

    /// Answers a node that wants to be taken in.
    pub(crate) fn join(self: &Arc<Self>, envelope: &Envelope, wants_vote: bool) -> Reply {
        if !self.is_leader() {
            return Reply::NotLeader(self.leader());
        }
        let (id, member) = (envelope.from, envelope.sender.clone());
        let known = self.membership().get_node(&id).cloned();
        if known.is_some_and(|known| known.directory != member.directory) && self.is_alive(id) {
            return Reply::Refused(format!("node {id} is alive, with another data directory"));
        }
        let mut joining = self.joining.lock();
        if joining.len() >= JOINING_MAX && !joining.contains_key(&id) {
            return Reply::Refused("too many nodes are waiting to be taken in".to_owned());
        }
        joining.insert(id, (member, wants_vote));
        Reply::Joining
    }

    /// Whether a member has answered this leader lately.
    fn is_alive(&self, id: u64) -> bool {
        let last = self.with_metrics(|metrics| {
            metrics
                .heartbeat
                .as_ref()
                .and_then(|heard| heard.get(&id))
                .and_then(|heard| heard.as_ref().map(|at| at.elapsed()))
        });
        last.is_some_and(|last| last < self.lease() * 2)
    }

    /// What the leader does about the membership.
    async fn maintain(&self) {
        let Ok(_changing) = self.changing_members.try_lock() else { return };
        let joining = std::mem::take(&mut *self.joining.lock());
        let result = async {
            if self.membership().get_joint_config().len() > 1 {
                // Another leader began a change of the voters, or this one gave up waiting: it is finished first.
                self.change_members(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await?;
            }
            for (id, (member, wants_vote)) in joining {
                self.take_in(id, &member).await?;
                let is_voter = self.membership().voter_ids().any(|voter| voter == id);
                if wants_vote && !is_voter && self.peers.voters.contains_key(&id) {
                    self.promoting.lock().insert(id);
                }
            }
            self.update_addresses().await?;
            self.promote().await
        };
        if let Err(error) = result.await {
            tracing::warn!(%error, "the membership of the metadata quorum could not be changed");
        }
    }

    async fn take_in(&self, id: u64, member: &Member) -> Result<(), QuorumError> {
        let membership = self.membership();
        match membership.get_node(&id) {
            Some(known) if known == member => return Ok(()),
            Some(known) if known.directory == member.directory => {
                tracing::info!(id, address = member.address, "a member has moved");
                return self
                    .change_members(ChangeMembers::SetNodes([(id, member.clone())].into()), true)
                    .await;
            }
            Some(_) if self.is_alive(id) => return Ok(()),
            Some(_) => {
                tracing::warn!(id, "a member has come back with another data directory; it begins anew");
                self.remove(id).await?;
            }
            None => {}
        }
        tracing::info!(id, address = member.address, "a member is taken in");
        self.change_members(ChangeMembers::AddNodes([(id, member.clone())].into()), true).await
    }

    async fn remove(&self, id: u64) -> Result<(), QuorumError> {
        if self.membership().voter_ids().any(|voter| voter == id) {
            self.change_members(ChangeMembers::RemoveVoters([id].into()), false).await?;
        }
        if self.membership().get_node(&id).is_some() {
            self.change_members(ChangeMembers::RemoveNodes([id].into()), false).await?;
        }
        Ok(())
    }

    /// Members that speak from elsewhere than the membership says.
    async fn update_addresses(&self) -> Result<(), QuorumError> {
        let membership = self.membership();
        let moved: BTreeMap<u64, Member> = membership
            .nodes()
            .filter_map(|(id, known)| {
                let now =
                    if *id == self.peers.id { self.peers.this.clone() } else { self.peers.seen(*id)? };
                (now.directory == known.directory && now.address != known.address).then_some((*id, now))
            })
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        self.change_members(ChangeMembers::SetNodes(moved), true).await
    }

    /// Makes voters of those that are to be and have caught up.
    async fn promote(&self) -> Result<(), QuorumError> {
        let waiting: Vec<u64> = self.promoting.lock().iter().copied().collect();
        for id in waiting {
            let membership = self.membership();
            if membership.get_node(&id).is_none() || membership.voter_ids().any(|voter| voter == id) {
                self.promoting.lock().remove(&id);
                continue;
            }
            let caught_up = self.with_metrics(|metrics| {
                let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
                matched.is_some_and(|at| at.index() + PROMOTION_LAG >= metrics.last_log_index.unwrap_or(0))
            });
            if caught_up && self.is_alive(id) {
                tracing::info!(id, "a member has caught up and becomes a voter");
                self.change_members(ChangeMembers::AddVoterIds([id].into()), true).await?;
                self.promoting.lock().remove(&id);
            }
        }
        Ok(())
    }

    async fn change_members(
        &self,
        change: ChangeMembers<u64, Member>,
        retain: bool,
    ) -> Result<(), QuorumError> {
        let changed = tokio::time::timeout(CHANGE_TIMEOUT, self.raft.change_membership(change, retain)).await;
        match changed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(QuorumError::Membership(error.to_string())),
            Err(_) => Err(QuorumError::Membership("it takes too long".to_owned())),
        }
    }

    /// Changes the membership on somebody's order, on the leader.
    pub(crate) async fn order(&self, order: Order, id: u64) -> Result<(), QuorumError> {
        let _changing = self.changing_members.lock().await;
        self.promoting.lock().remove(&id);
        match order {
            Order::AddVoter => self.change_members(ChangeMembers::AddVoterIds([id].into()), true).await,
            Order::RemoveVoter => self.change_members(ChangeMembers::RemoveVoters([id].into()), true).await,
            Order::RemoveMember => self.remove(id).await,
        }
    }
}

/// What an operator wants of the membership.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    AddVoter,
    RemoveVoter,
    RemoveMember,
}
