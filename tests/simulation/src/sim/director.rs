//! What scripts do with a cluster: they let time pass, break single things, and look.

use towpath_controller::PartitionImage;
use towpath_replica::FetchPlan;
use towpath_types::BrokerId;

use super::event::Planned;
use super::{AdminCall, Event, Simulation, trace};
use crate::net::{Envelope, Message};
use crate::records::{LOOSE, batch, id};
use crate::violation::{Checked, MISSED, Violation};

/// A message that a script holds back.
#[derive(Debug)]
pub(crate) struct Held(Envelope);

/// Cut for as long as a script wants.
const FOR_EVER: i64 = 1 << 40;

impl Simulation {
    /// Lets time pass.
    pub(crate) fn run_for(&mut self, ms: i64) -> Checked {
        let end = self.now + ms;
        while self.planned.peek().is_some_and(|planned| planned.at <= end) {
            self.step()?;
        }
        self.now = self.now.max(end);
        Ok(())
    }

    /// Lets time pass until something is so.
    pub(crate) fn run_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Checked {
        let end = self.now + 5_000;
        while !holds(self) {
            if self.now > end {
                let detail = format!("the script waits for ever until {what}: {:?}", self.state(0));
                return Err(Violation::new(MISSED, detail));
            }
            self.step()?;
        }
        trace!(self, "script: {what}");
        Ok(())
    }

    /// Faults and operators come by the script only, and the first topic lies on the first nodes.
    pub(crate) fn calm(&mut self) {
        self.is_calm = true;
    }

    /// Producers are at rest, or not.
    pub(crate) fn be_quiet(&mut self, is_quiet: bool) {
        self.is_quiet = is_quiet;
    }

    /// The controller's state of a topic's partition.
    pub(crate) fn state(&self, topic: usize) -> Option<PartitionImage> {
        let head = self.quorum.head()?;
        self.slots[topic].state(head).cloned()
    }

    /// Who leads, by the controller.
    pub(crate) fn leader(&self, topic: usize) -> Option<usize> {
        self.state(topic)?.leader.and_then(|leader| self.index_of(leader))
    }

    /// The nodes in sync, by the controller.
    pub(crate) fn in_sync(&self, topic: usize) -> Vec<usize> {
        let members = self.state(topic).map(|state| state.isr).unwrap_or_default();
        members.into_iter().filter_map(|member| self.index_of(member)).collect()
    }

    /// The partition of the transactions' state.
    pub(crate) fn state_slot(&self) -> usize {
        self.coordination.unwrap_or_default()
    }

    /// Whether every partition has all its replicas in sync.
    pub(crate) fn all_in_sync(&self) -> bool {
        (0..self.slots.len())
            .all(|slot| self.in_sync(slot).len() == self.profile.topics[self.slots[slot].topic].factor)
    }

    /// Whether all replicas of the first partition have all that is committed, and nothing else.
    pub(crate) fn is_still(&self) -> bool {
        let replicas = self.replicas(0).into_iter().filter_map(|replica| self.index_of(replica));
        replicas.into_iter().all(|node| self.log_end(node, 0) == self.committed_end(0))
    }

    /// Whether a transaction is open in each of these partitions.
    pub(crate) fn has_open_transactions(&self, slots: &[usize]) -> bool {
        slots.iter().all(|slot| self.models[*slot].fates.has_open())
    }

    /// Whether a node, as the transaction coordinator, has markers to send.
    pub(crate) fn has_markers(&self, node: usize) -> bool {
        let process = self.nodes[node].process.as_ref();
        process.and_then(|process| process.transactions.as_ref()).is_some_and(|it| !it.markers.is_empty())
    }

    /// Whether a broker is fenced.
    pub(crate) fn is_fenced(&self, node: usize) -> bool {
        let id = self.nodes[node].id;
        self.quorum.head().and_then(|head| head.broker(id)).is_none_or(|broker| broker.fenced)
    }

    /// Where a node's log ends.
    pub(crate) fn log_end(&self, node: usize, topic: usize) -> i64 {
        self.models[topic].mirror(node).map_or(0, crate::model::Mirror::end)
    }

    /// What is committed.
    pub(crate) fn committed_end(&self, topic: usize) -> i64 {
        self.models[topic].committed_end()
    }

    /// Whether a node's replica leads, by its own account.
    pub(crate) fn leads(&self, node: usize, topic: usize) -> bool {
        let process = self.nodes[node].process.as_ref();
        process.and_then(|process| process.partition(&self.slots[topic])).is_some_and(|p| p.is_leader())
    }

    /// A record at whoever is asked, with `acks=1`.
    pub(crate) fn append_at(&mut self, node: usize, topic: usize) -> Checked {
        let number = self.next_request;
        self.next_request += 1;
        let bytes = batch(1 << 20, number, 1, None, self.slots[topic].is_compacted)?;
        let ids = vec![id(1 << 20, number) | LOOSE];
        self.nodes[node].pass_time(self.now);
        self.take_produce(node, 0, 0, topic, (bytes, ids), false)?;
        self.look()
    }

    /// Checks what the script has touched.
    pub(crate) fn look(&mut self) -> Checked {
        while let Some((node, topic)) = self.touched.pop() {
            self.observe(node, topic)?;
        }
        Ok(())
    }

    /// Nothing goes from one node to another any more.
    pub(crate) fn cut_link(&mut self, from: usize, to: usize) {
        self.links.cut(from, to, FOR_EVER);
    }

    /// What two nodes say to each other arrives again.
    pub(crate) fn join(&mut self, a: usize, b: usize) {
        self.links.heal_between(a, b);
        trace!(self, "script: {a} and {b} hear each other");
    }

    /// A node hears nobody and is heard by nobody.
    pub(crate) fn cut_off(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            self.links.cut(node, other, FOR_EVER);
            self.links.cut(other, node, FOR_EVER);
        }
        trace!(self, "script: node {node} is cut off");
    }

    /// All links of a node work again.
    pub(crate) fn reconnect(&mut self, node: usize) {
        self.links.heal_node(node);
        trace!(self, "script: node {node} is connected again");
    }

    /// A node hears of no metadata, or does again.
    pub(crate) fn deafen(&mut self, node: usize, is_deaf: bool) {
        self.nodes[node].deaf_until = if is_deaf { FOR_EVER } else { 0 };
        trace!(self, "script: node {node} hears of {} metadata", if is_deaf { "no" } else { "new" });
    }

    /// The machine loses its power, and starts again at once; its controller hears of it.
    pub(crate) fn crash_and_start(&mut self, node: usize) -> Checked {
        self.crash(node);
        self.probe(node)?;
        self.restart(node)
    }

    /// kill -9; the node stays away until [`Self::start`].
    pub(crate) fn kill_for_good(&mut self, node: usize) -> Checked {
        self.kill(node);
        self.forget(|event| matches!(event, Event::Restart(of) if *of == node));
        self.probe(node)
    }

    /// Starts a node that was killed.
    pub(crate) fn start(&mut self, node: usize) -> Checked {
        self.restart(node)
    }

    /// Another active controller, none of these.
    pub(crate) fn move_controller_to(&mut self, node: usize) {
        while self.quorum.active != Some(node) {
            self.elect_controller(self.quorum.active);
        }
    }

    /// The records of a topic are deleted up to the high watermark, or to an offset.
    pub(crate) fn delete_to(&mut self, node: usize, topic: usize, to: Option<i64>) -> Checked {
        self.delete_at(node, topic, to)?;
        self.look()
    }

    /// An operator reassigns the topic's partition.
    pub(crate) fn reassign(&mut self, topic: usize, nodes: &[usize]) -> Checked {
        let replicas = nodes.iter().map(|node| self.nodes[*node].id).collect();
        let topic = (self.slots[topic].name.clone(), self.slots[topic].index);
        self.ask_as_operator(AdminCall::Reassign { topic, replicas: Some(replicas) })
    }

    /// An operator sets `min.insync.replicas`.
    pub(crate) fn raise_minimum(&mut self, topic: usize, value: usize) -> Checked {
        let topic = (self.slots[topic].name.clone(), self.slots[topic].index);
        self.ask_as_operator(AdminCall::MinIsr { topic, value })
    }

    /// A broker begins to stop in good order.
    pub(crate) fn stop_in_order(&mut self, node: usize) {
        self.stop(node);
    }

    /// Whom the metadata name as the partition's replicas.
    pub(crate) fn replicas(&self, topic: usize) -> Vec<BrokerId> {
        self.state(topic).map(|state| state.replicas).unwrap_or_default()
    }

    /// Takes events out of the queue.
    fn forget(&mut self, is_one: impl Fn(&Event) -> bool) -> Vec<Planned> {
        let all = std::mem::take(&mut self.planned).into_vec();
        let (out, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|planned| is_one(&planned.event));
        self.planned = kept.into();
        out
    }

    /// Holds a follower's next fetch back that says that it has all before `offset`.
    pub(crate) fn hold_fetch(&mut self, node: usize, topic: usize, offset: i64) -> Checked<Held> {
        let is_one = |event: &Event| match event {
            Event::Deliver(envelope) => match &envelope.message {
                Message::Fetch { caller, topic: of, plan: FetchPlan { offset: at, .. }, .. } => {
                    caller.node == node && *of == topic && at.get() == offset
                }
                _ => false,
            },
            _ => false,
        };
        for _ in 0..10_000 {
            if let Some(found) = self.forget(is_one).pop()
                && let Event::Deliver(envelope) = found.event
            {
                trace!(self, "script: node {node}'s fetch from {offset} is held back");
                return Ok(Held(*envelope));
            }
            self.step()?;
        }
        Err(Violation::new(MISSED, format!("node {node} does not fetch from {offset}")))
    }

    /// Delivers what was held back.
    pub(crate) fn let_go(&mut self, held: Held) -> Checked {
        trace!(self, "script: what was held back arrives");
        self.plan(0, Event::Deliver(Box::new(held.0)));
        self.run_for(0)
    }
}
