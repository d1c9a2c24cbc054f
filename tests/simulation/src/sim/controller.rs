//! The active controller, and those that believe to be it.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::Rng as _;
use towpath_controller::decide::{self, AdminError, Decision, Heartbeat};
use towpath_controller::{ImageError, Liveness, MetadataImage, MetadataRecord};
use towpath_replica::ProposalAnswer;
use towpath_types::{BrokerId, Offset, Rule};
use towpath_wire::ErrorCode;

use super::event::{Asked, Proposal};
use super::{Event, Simulation, trace};
use crate::net::{Call, CallAnswer, Caller, Message, Party};
use crate::node::ActiveController;
use crate::profile::SESSION_MS;
use crate::violation::{Checked, METADATA, Violation};

/// How long a controller may be cut off before another is elected.
const ELECTION_MS: i64 = 120;

/// Requests that wait for a decision.
const WAITING_MAX: usize = 64;

/// A decision, and what the node that asked is told.
type Decided = Decision<Option<CallAnswer>>;

fn unchanged(answer: Option<CallAnswer>) -> Decided {
    Decision { records: Vec::new(), answer }
}

pub(super) fn extended(
    image: &MetadataImage,
    records: &[MetadataRecord],
) -> Result<MetadataImage, ImageError> {
    let mut next = image.clone();
    for record in records {
        next.apply(next.next_offset(), record)?;
    }
    Ok(next)
}

impl Simulation {
    /// Nodes that run and hear each other with this one, itself included, are more than half.
    fn has_majority(&self, node: usize) -> bool {
        let hears =
            |other: &usize| self.nodes[*other].is_running() && self.links.connects(node, *other, self.now);
        let count = (0..self.nodes.len()).filter(hears).count();
        self.nodes[node].is_running() && count * 2 > self.nodes.len()
    }

    pub(super) fn quorum_tick(&mut self) -> Checked {
        let again = self.between(20, 50);
        self.plan(again, Event::QuorumTick);
        let works = self.quorum.active.is_some_and(|active| {
            let process = self.nodes[active].process.as_ref();
            let term = process.and_then(|process| process.controller.as_ref()).map(|c| c.term);
            term == Some(self.quorum.term) && self.has_majority(active)
        });
        if works {
            self.quorum.stuck_since = None;
            return Ok(());
        }
        let since = *self.quorum.stuck_since.get_or_insert(self.now);
        if self.now - since >= ELECTION_MS {
            self.elect_controller(None);
        }
        Ok(())
    }

    /// Makes another node the active controller, if one can be. The last one is not told.
    pub(super) fn elect_controller(&mut self, except: Option<usize>) {
        let candidates: Vec<usize> = (0..self.nodes.len())
            .filter(|node| Some(*node) != except && (self.has_majority(*node) || self.quorum.term == 0))
            .collect();
        if candidates.is_empty() {
            return;
        }
        let chosen = candidates[self.random.random_range(0..candidates.len())];
        let Some(image) = self.quorum.head().cloned() else { return };
        self.quorum.term += 1;
        self.quorum.active = Some(chosen);
        self.quorum.stuck_since = None;
        self.counters.controllers_elected += 1;
        let (now, term) = (self.nodes[chosen].clock_ms(self.now), self.quorum.term);
        let mut liveness = Liveness::new(SESSION_MS);
        liveness.became_active(&image, now);
        // Whatever it had made of the metadata as a deposed controller is gone.
        self.quorum.forks.remove(&chosen);
        if let Some(process) = self.nodes[chosen].process.as_mut() {
            let waiting = VecDeque::new();
            process.controller =
                Some(ActiveController { term, image, liveness, is_deciding: false, waiting });
        }
        trace!(self, "node {chosen} is the active controller in term {term}");
    }

    /// A node's process has ended: the controller's connection to it breaks, and nobody listens there any more.
    pub(super) fn probe(&mut self, node: usize) -> Checked {
        let Some(active) = self.quorum.active.filter(|active| self.nodes[*active].is_running()) else {
            return Ok(());
        };
        if self.nodes[node].process.is_some() || !self.links.connects(active, node, self.now) {
            return Ok(());
        }
        let (broker, now) = (self.nodes[node].id, self.nodes[active].clock_ms(self.now));
        if let Some(controller) = self.nodes[active].process.as_mut().and_then(|p| p.controller.as_mut())
            && controller.liveness.lost_connection(broker, now)
        {
            controller.liveness.probe_failed(broker, now);
        }
        Ok(())
    }

    /// Lets time pass for a node that is, or believes to be, the active controller.
    pub(super) fn act_as_controller(&mut self, node: usize) -> Checked {
        let now = self.nodes[node].clock_ms(self.now);
        let term = self.quorum.term;
        let hears = self.quorum.active.is_some_and(|active| self.links.connects(node, active, self.now));
        let learns = hears && self.chance(250);
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let Some(controller) = process.controller.as_mut() else { return Ok(()) };
        if controller.term < term && learns {
            process.controller = None;
            self.quorum.forks.remove(&node);
            trace!(self, "node {node} hears that it is not the active controller any more");
            return Ok(());
        }
        controller.liveness.cover(&Arc::clone(&controller.image), now);
        for (broker, epoch) in controller.liveness.due_incarnations(now) {
            self.decide(node, Asked::Fence(broker, epoch))?;
        }
        if self.profile.unclean && self.chance(100) {
            self.decide(node, Asked::UncleanElections)?;
        }
        Ok(())
    }

    pub(super) fn take_call(&mut self, node: usize, caller: Caller, call: Call) -> Checked {
        // Requests that the caller does not wait for any more came over a connection that is closed.
        if let Call::Alter { number, .. } = &call {
            let process = self.nodes[caller.node].process.as_ref();
            let waits = process.is_some_and(|process| {
                process.number == caller.process
                    && process.isr.as_ref().is_some_and(|out| out.number == *number)
            });
            if !waits {
                return Ok(());
            }
        }
        let now = self.nodes[node].clock_ms(self.now);
        let broker = self.nodes[caller.node].id;
        let process = self.nodes[node].process.as_mut();
        let Some(controller) = process.and_then(|process| process.controller.as_mut()) else { return Ok(()) };
        if let Call::Heartbeat { epoch, next, .. } = &call {
            controller.liveness.heard(broker, *epoch, now, *next);
        }
        self.decide(node, Asked::Call(caller, call))
    }

    /// Decides, and proposes what was decided to the quorum.
    pub(super) fn decide(&mut self, node: usize, asked: Asked) -> Checked {
        let now = self.nodes[node].clock_ms(self.now);
        let head = self.head()?;
        let is_active = self.quorum.active == Some(node);
        let policy = self.policy.clone();
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let number = process.number;
        let Some(controller) = process.controller.as_mut() else { return Ok(()) };
        if controller.is_deciding {
            let is_fence = matches!(asked, Asked::Fence(..) | Asked::UncleanElections);
            if controller.waiting.len() < WAITING_MAX && !is_fence {
                controller.waiting.push_back(asked);
            }
            return Ok(());
        }
        if is_active && controller.term == self.quorum.term {
            controller.image = head;
        }
        let (term, image) = (controller.term, Arc::clone(&controller.image));
        let decided = match &asked {
            Asked::Call(caller, call) => {
                let broker = BrokerId::new(i32::try_from(caller.node).unwrap_or(0) + 1);
                decide_call(&image, &policy, &controller.liveness, (broker, now), call)
            }
            Asked::Fence(broker, epoch) => {
                let decision = decide::fence_incarnation(&image, &policy, *broker, *epoch);
                if decision.records.is_empty() {
                    controller.liveness.ended(*broker, *epoch);
                }
                Decision { records: decision.records, answer: None }
            }
            Asked::UncleanElections => {
                let decision = decide::elect_where_unclean_is_allowed(&image, &policy, 10);
                Decision { records: decision.records, answer: None }
            }
            Asked::Admin(call) => call.decide(&image, &policy),
        };
        if decided.records.is_empty() {
            self.reply(node, &asked, decided.answer);
            return Ok(());
        }
        controller.is_deciding = true;
        let proposal = Proposal {
            node,
            process: number,
            term,
            base: image.next_offset(),
            records: decided.records,
            asked,
            answer: decided.answer,
        };
        let after = self.between(1, 8);
        self.plan(after, Event::Commit(Box::new(proposal)));
        Ok(())
    }

    fn reply(&mut self, node: usize, asked: &Asked, answer: Option<CallAnswer>) {
        if let (Asked::Call(caller, _), Some(answer)) = (asked, answer) {
            let message = Message::Answered { caller: *caller, answer };
            self.send(Party::Node(node), Party::Node(caller.node), message);
        }
    }

    /// A decision has come to its end; the next ones are made.
    pub(super) fn commit(&mut self, proposal: Proposal) -> Checked {
        let node = proposal.node;
        if let Some(controller) = self.controller_of(&proposal) {
            controller.is_deciding = false;
        }
        let term = proposal.term;
        self.come_to_an_end(proposal)?;
        loop {
            let process = self.nodes[node].process.as_mut();
            let controller = process.and_then(|process| process.controller.as_mut());
            let Some(controller) = controller.filter(|known| known.term == term && !known.is_deciding) else {
                return Ok(());
            };
            let Some(next) = controller.waiting.pop_front() else { return Ok(()) };
            self.decide(node, next)?;
        }
    }

    fn controller_of(&mut self, proposal: &Proposal) -> Option<&mut ActiveController> {
        let process = self.nodes[proposal.node].process.as_mut()?;
        let is_same = process.number == proposal.process;
        process.controller.as_mut().filter(|known| is_same && known.term == proposal.term)
    }

    /// Rule 14: what the quorum commits takes effect, and only on the image that it was decided on.
    fn come_to_an_end(&mut self, proposal: Proposal) -> Checked {
        let node = proposal.node;
        let running = self.nodes[node].process.as_ref().filter(|p| p.number == proposal.process);
        if running.is_none() || self.nodes[node].is_paused {
            return Ok(());
        }
        let head = self.head()?;
        let is_active = self.quorum.active == Some(node) && self.quorum.term == proposal.term;
        let can_commit = is_active && self.has_majority(node);
        if can_commit && proposal.base == head.next_offset() {
            return self.committed(&proposal, &head);
        }
        self.counters.proposals_refused += 1;
        if can_commit {
            // Decided again on what is there now.
            return self.decide(node, proposal.asked);
        }
        if !self.rules.holds(Rule::Controller) {
            return self.committed_alone(&proposal);
        }
        trace!(self, "node {node}'s proposal in term {} comes to nothing", proposal.term);
        if !is_active && let Some(process) = self.nodes[node].process.as_mut() {
            process.controller = None;
        }
        Ok(())
    }

    fn committed(&mut self, proposal: &Proposal, head: &Arc<MetadataImage>) -> Checked {
        let next = extended(head, &proposal.records)
            .map_err(|error| Violation::new(METADATA, format!("{error} in {:?}", proposal.records)))?;
        let next = Arc::new(next);
        for record in &proposal.records {
            trace!(self, "committed: {record:?}");
        }
        self.quorum.images.push((self.now, Arc::clone(&next)));
        self.after_commit(proposal, &next);
        self.check_head(head, &next)
    }

    /// Without rule 14: a controller that nobody follows any more goes by its own decisions, and so does who hears it.
    fn committed_alone(&mut self, proposal: &Proposal) -> Checked {
        let node = proposal.node;
        let process = self.nodes[node].process.as_mut();
        let Some(controller) = process.and_then(|process| process.controller.as_mut()) else { return Ok(()) };
        if controller.image.next_offset() != proposal.base {
            return Ok(());
        }
        let next = extended(&controller.image, &proposal.records)
            .map_err(|error| Violation::new(METADATA, error.to_string()))?;
        let next = Arc::new(next);
        controller.image = Arc::clone(&next);
        trace!(self, "node {node} goes by {:?} without the quorum", proposal.records);
        self.quorum.forks.insert(node, Arc::clone(&next));
        self.after_commit(proposal, &next);
        Ok(())
    }

    /// What the controller remembers of a decision, and the answer.
    fn after_commit(&mut self, proposal: &Proposal, next: &Arc<MetadataImage>) {
        let node = proposal.node;
        let now = self.nodes[node].clock_ms(self.now);
        let process = self.nodes[node].process.as_mut();
        if let Some(controller) = process.and_then(|process| process.controller.as_mut()) {
            controller.image = Arc::clone(next);
            match &proposal.asked {
                Asked::Call(caller, Call::Register(_)) => {
                    let broker = BrokerId::new(i32::try_from(caller.node).unwrap_or(0) + 1);
                    if let Some(registered) = next.broker(broker) {
                        controller.liveness.heard(broker, registered.epoch, now, Offset::ZERO);
                    }
                }
                Asked::Call(caller, Call::Heartbeat { epoch, .. }) => {
                    let broker = BrokerId::new(i32::try_from(caller.node).unwrap_or(0) + 1);
                    if next.broker(broker).is_some_and(|broker| broker.in_controlled_shutdown) {
                        controller.liveness.moved_leaders(broker, next.next_offset());
                    }
                    if matches!(proposal.answer, Some(CallAnswer::Heartbeat(Ok(true)))) {
                        controller.liveness.ended(broker, *epoch);
                    }
                }
                Asked::Fence(broker, epoch) => controller.liveness.ended(*broker, *epoch),
                _ => {}
            }
        }
        self.reply(node, &proposal.asked, proposal.answer.clone());
    }
}

fn decide_call(
    image: &MetadataImage,
    policy: &decide::ClusterPolicy,
    liveness: &Liveness,
    (broker, now): (BrokerId, i64),
    call: &Call,
) -> Decided {
    match call {
        Call::Register(registration) => {
            let is_alive = liveness.session_alive(broker, now);
            match decide::register_broker(image, policy, registration, is_alive) {
                Ok(Decision { records, answer }) => {
                    Decision { records, answer: Some(CallAnswer::Registered(Ok(answer))) }
                }
                Err(error) => unchanged(Some(CallAnswer::Registered(Err(error.code)))),
            }
        }
        Call::Heartbeat { epoch, next, want_fence, want_shutdown } => {
            let beat = Heartbeat {
                broker_id: broker,
                broker_epoch: *epoch,
                metadata_offset: *next,
                want_fence: *want_fence,
                want_shutdown: *want_shutdown,
                lowest_offset_of_others: liveness.lowest_offset_of_others(image, broker),
                shutdown_offset: liveness.shutdown_offset(broker),
            };
            match decide::heartbeat(image, policy, &beat) {
                Ok(Decision { records, answer }) => {
                    Decision { records, answer: Some(CallAnswer::Heartbeat(Ok(answer.should_shut_down))) }
                }
                Err(error) => unchanged(Some(CallAnswer::Heartbeat(Err(error.code)))),
            }
        }
        Call::Alter { number, request } => match decide::alter_partition(image, policy, request) {
            Ok(Decision { records, answer }) => {
                let answers = answer.into_iter().flatten().map(|answer| match answer {
                    Ok(_) => ProposalAnswer::Accepted,
                    Err(code) => proposal_answer(code),
                });
                let answer = CallAnswer::Altered { number: *number, answers: answers.collect() };
                Decision { records, answer: Some(answer) }
            }
            Err(AdminError { .. }) => {
                let answers = vec![ProposalAnswer::Retry; request.topics.len()];
                unchanged(Some(CallAnswer::Altered { number: *number, answers }))
            }
        },
    }
}

/// What a leader makes of a code: as the broker does.
const fn proposal_answer(code: ErrorCode) -> ProposalAnswer {
    match code {
        // Rule 9: only these say that nothing has changed.
        ErrorCode::IneligibleReplica | ErrorCode::OperationNotAttempted => ProposalAnswer::Refused,
        ErrorCode::FencedLeaderEpoch
        | ErrorCode::InvalidUpdateVersion
        | ErrorCode::InvalidRequest
        | ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnknownTopicId
        | ErrorCode::NewLeaderElected => ProposalAnswer::Unknown,
        _ => ProposalAnswer::Retry,
    }
}
