//! What goes wrong.

use rand::Rng as _;

use super::{Event, Simulation, trace};
use crate::model::{Ending, Mirror};
use crate::violation::Checked;

/// How long a broker that wants to stop waits to be let go.
const SHUTDOWN_MS: i64 = 500;

impl Simulation {
    pub(super) fn fault(&mut self) -> Checked {
        if self.settling {
            return Ok(());
        }
        if self.is_calm {
            self.plan(50, Event::Fault);
            return Ok(());
        }
        let again = self.between(1, self.profile.fault_every_ms * 2);
        self.plan(again, Event::Fault);
        let node = self.random.random_range(0..self.nodes.len());
        let Some(kind) = self.weighted(&self.profile.faults.weights()) else { return Ok(()) };
        match kind {
            0 => self.kill(node),
            1 => self.crash(node),
            2 => self.crash_midway(node),
            3 => self.stop(node),
            4 => self.pause(node),
            5 => self.isolate(node),
            6 => self.cut(node, false),
            7 => self.cut(node, true),
            8 => self.disturb_clock(node),
            9 => self.fill_disk(node),
            10 => self.break_disk(node),
            11 => {
                trace!(self, "another controller is elected");
                self.elect_controller(self.quorum.active);
            }
            _ => {
                let until = self.now + self.between(20, self.profile.disturbed_ms);
                self.nodes[node].deaf_until = until;
                trace!(self, "node {node} hears of no metadata until {until}");
            }
        }
        Ok(())
    }

    fn plan_restart(&mut self, node: usize) {
        let after = self.between(5, self.profile.down_ms);
        self.plan(after, Event::Restart(node));
        if self.chance(500) {
            let after = self.between(1, 20);
            self.plan(after, Event::Probe(node));
        }
    }

    pub(super) fn restart(&mut self, node: usize) -> Checked {
        if self.nodes[node].process.is_some() {
            return Ok(());
        }
        self.nodes[node].storage.set_space(None);
        self.nodes[node].storage.fail_write_after(u64::MAX);
        self.nodes[node].storage.fail_sync_after(u64::MAX);
        self.start_node(node)
    }

    /// kill -9.
    pub(super) fn kill(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_ref() else { return };
        if process.is_offline() {
            // Something was left half done.
            self.nodes[node].ending = Ending::Lost;
        } else {
            self.nodes[node].ending = Ending::Kept;
        }
        trace!(self, "node {node} is killed");
        self.counters.kills += 1;
        self.nodes[node].end_process();
        self.nodes[node].storage.kill();
        self.plan_restart(node);
    }

    /// The machine loses its power.
    pub(super) fn crash(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_ref() else { return };
        let number = process.number;
        for topic in 0..self.names.len() {
            let partition = process.partition(&self.slots[topic]).filter(|_| !process.is_offline());
            if let Some(partition) = partition {
                self.models[topic].durable(node, partition.log().recovery_point().get());
            }
        }
        let loses = |mirror: &Mirror| mirror.durable < mirror.end();
        let has_lost = self.models.iter().any(|model| model.mirror(node).is_some_and(loses));
        trace!(
            self,
            "node {node} crashes{}",
            if has_lost { ", with records that were not synced" } else { "" }
        );
        self.counters.crashes += 1;
        let node_state = &mut self.nodes[node];
        if has_lost {
            node_state.lost_since_registration = true;
            node_state.has_ever_lost = true;
            node_state.lost_by = number;
        }
        node_state.ending = Ending::Lost;
        node_state.end_process();
        node_state.storage.crash();
        self.plan_restart(node);
    }

    fn crash_midway(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        let operations = self.random.random_range(0..12);
        self.nodes[node].storage.stop_after(operations);
        self.nodes[node].is_doomed = true;
        trace!(self, "node {node}'s disk stops after {operations} operations");
        let after = self.between(1, 60);
        self.plan(after, Event::Crash(node));
    }

    /// Asks a broker to stop in good order.
    pub(super) fn stop(&mut self, node: usize) {
        let Some(process) = self.nodes[node].running() else { return };
        process.is_stopping = true;
        trace!(self, "node {node} is asked to stop");
        self.plan(SHUTDOWN_MS, Event::Repair(node));
    }

    /// A broker stops in good order.
    pub(super) fn stop_cleanly(&mut self, node: usize) -> Checked {
        let Some(process) = self.nodes[node].process.as_ref() else { return Ok(()) };
        let closed = process.manager.close(process.epoch.get());
        for topic in 0..self.names.len() {
            if let Some(partition) = process.partition(&self.slots[topic]) {
                self.models[topic].durable(node, partition.log().recovery_point().get());
            }
        }
        if closed.is_err() {
            self.kill(node);
            return Ok(());
        }
        self.counters.clean_stops += 1;
        let loses_power = self.chance(200);
        trace!(self, "node {node} stops{}", if loses_power { ", and loses its power" } else { "" });
        let node_state = &mut self.nodes[node];
        node_state.ending = Ending::Kept;
        node_state.end_process();
        if loses_power {
            node_state.storage.crash();
        } else {
            node_state.storage.kill();
        }
        self.plan_restart(node);
        Ok(())
    }

    fn pause(&mut self, node: usize) {
        if !self.nodes[node].is_running() {
            return;
        }
        self.nodes[node].is_paused = true;
        self.counters.pauses += 1;
        let after = self.between(20, self.profile.disturbed_ms);
        trace!(self, "node {node} is stopped for {after} ms");
        self.plan(after, Event::Resume(node));
    }

    pub(super) fn resume(&mut self, node: usize) {
        self.nodes[node].is_paused = false;
        for event in std::mem::take(&mut self.nodes[node].held) {
            self.plan(0, event);
        }
    }

    fn isolate(&mut self, node: usize) {
        let until = self.now + self.between(20, self.profile.disturbed_ms);
        trace!(self, "node {node} is alone until {until}");
        self.counters.links_cut += 1;
        for other in 0..self.nodes.len() {
            self.links.cut(node, other, until);
            self.links.cut(other, node, until);
        }
    }

    fn cut(&mut self, node: usize, both: bool) {
        let other = self.random.random_range(0..self.nodes.len());
        let until = self.now + self.between(20, self.profile.disturbed_ms);
        trace!(
            self,
            "the link from {node} to {other} is cut until {until}{}",
            if both { ", and back" } else { "" }
        );
        self.counters.links_cut += 1;
        self.links.cut(node, other, until);
        if both {
            self.links.cut(other, node, until);
        }
    }

    fn disturb_clock(&mut self, node: usize) {
        self.counters.clock_jumps += 1;
        let (jump, wall, rate) = (self.between(0, 800), self.between(-5_000, 5_000), self.between(900, 1100));
        // The monotonic clock goes on from where it is.
        let before = self.nodes[node].clock_ms(self.now);
        let node_state = &mut self.nodes[node];
        node_state.rate = rate;
        node_state.jumped_ms = before + jump - self.now * rate / 1000;
        node_state.wall_jumped_ms = wall;
        trace!(self, "node {node}'s clocks jump by {jump} and {wall} ms, and run at {rate} per mille");
    }

    fn fill_disk(&mut self, node: usize) {
        let room = self.random.random_range(0..600);
        let used = self.nodes[node].storage.used();
        self.nodes[node].storage.set_space(Some(used + room));
        trace!(self, "node {node}'s disk has {room} bytes left");
        let after = self.between(20, 300);
        self.plan(after, Event::Repair(node));
    }

    fn break_disk(&mut self, node: usize) {
        let after = self.random.random_range(0..10);
        if self.chance(500) {
            self.nodes[node].storage.fail_write_after(after);
        } else {
            self.nodes[node].storage.fail_sync_after(after);
        }
        trace!(self, "node {node}'s disk fails after {after} operations");
    }

    /// An operator looks after a node: a directory that is offline, or a stop that takes too long.
    pub(super) fn repair(&mut self, node: usize) {
        self.nodes[node].storage.set_space(None);
        let process = self.nodes[node].process.as_ref();
        if process.is_some_and(|process| process.is_offline() || process.is_stopping) {
            self.kill(node);
        }
    }
}
