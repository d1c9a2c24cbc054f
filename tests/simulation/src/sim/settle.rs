//! The end of a run: everything is healed, and must come to rest.

use super::{Event, Simulation, trace};
use crate::violation::{Checked, HANGING, LIVENESS, Violation};

/// How long a healed cluster may take, in simulated time.
const REST_MS: i64 = 20_000;
/// How often it is looked whether it has come to rest.
const LOOK_MS: i64 = 60;

impl Simulation {
    /// Heals everything, lets the cluster come to rest, and looks at all of it.
    ///
    /// # Errors
    /// [`Violation`], also when it does not come to rest.
    pub fn settle(&mut self) -> Checked {
        self.heal()?;
        let end = self.now + REST_MS;
        let mut look = self.now + LOOK_MS;
        loop {
            if self.now >= look {
                look = self.now + LOOK_MS;
                match self.unrest()? {
                    None => break,
                    Some(unrest) if self.now > end => {
                        let is_hanging = self.is_closing;
                        return Err(Violation::new(if is_hanging { HANGING } else { LIVENESS }, unrest));
                    }
                    Some(_) => {}
                }
            }
            if !self.step()? {
                return Err(Violation::new(LIVENESS, "nothing happens any more"));
            }
        }
        trace!(self, "all is at rest");
        self.check_everything()
    }

    fn heal(&mut self) -> Checked {
        trace!(self, "everything is healed");
        (self.settling, self.is_quiet) = (true, false);
        // Whoever is far behind must have a chance.
        (self.profile.fetch_bytes, self.profile.produce_every_ms) = (1 << 20, 150);
        self.links.heal();
        for producer in &mut self.producers {
            producer.since_heal = 0;
        }
        for transactor in &mut self.transactors {
            transactor.since_heal = 0;
        }
        for node in 0..self.nodes.len() {
            let storage = self.nodes[node].storage.clone();
            storage.set_space(None);
            storage.fail_write_after(u64::MAX);
            storage.fail_sync_after(u64::MAX);
            self.nodes[node].deaf_until = 0;
            self.nodes[node].rate = 1000;
            if self.nodes[node].is_paused {
                self.resume(node);
            }
            if self.nodes[node].is_doomed && self.nodes[node].process.is_some() {
                // Its disk may have stopped on the way.
                self.crash(node);
            }
            self.plan(10, Event::Restart(node));
        }
        Ok(())
    }

    /// What keeps the cluster from being at rest.
    fn unrest(&mut self) -> Checked<Option<String>> {
        if let Some(node) = self.nodes.iter().position(|node| !node.is_running()) {
            return Ok(Some(format!("node {node} does not run")));
        }
        let head = self.head()?;
        for topic in 0..self.names.len() {
            let name = &self.names[topic];
            let Some(state) = self.slots[topic].state(&head) else {
                return Ok(Some(format!("{name} does not exist")));
            };
            if state.leader.is_none() || state.is_reassigning() || state.isr.len() < state.replicas.len() {
                return Ok(Some(format!("{name}: {state:?}")));
            }
            let end = self.models[topic].committed_end();
            for replica in state.replicas.clone() {
                let Some(node) = self.index_of(replica) else { continue };
                let process = self.nodes[node].process.as_ref();
                let Some(partition) = process.and_then(|process| process.partition(&self.slots[topic]))
                else {
                    return Ok(Some(format!("{name} is not at node {node}")));
                };
                let (high_watermark, log_end) =
                    (partition.high_watermark(), partition.log().log_end_offset());
                // New records come all the time.
                if end - high_watermark.get() > 12 || log_end.get() < end || self.models[topic].is_unsettled()
                {
                    let detail = format!(
                        "{name} at node {node} is at {high_watermark} and ends at {log_end} of {end}"
                    );
                    return Ok(Some(detail));
                }
            }
        }
        if let Some(index) = self.producers.iter().position(|producer| producer.since_heal == 0) {
            return Ok(Some(format!("producer {index} is not acknowledged: {:?}", self.producers[index])));
        }
        if self.ledger.acknowledged == 0 {
            return Ok(Some("no group offset is acknowledged".to_owned()));
        }
        self.unrest_of_transactions()
    }

    fn check_everything(&mut self) -> Checked {
        let head = self.head()?;
        for topic in 0..self.names.len() {
            let Some(state) = self.slots[topic].state(&head) else {
                continue;
            };
            for replica in state.replicas.clone() {
                let Some(node) = self.index_of(replica) else { continue };
                self.models[topic].check_end(node)?;
                self.check_content(node, topic)?;
            }
        }
        self.check_transactions()?;
        for node in 0..self.nodes.len() {
            self.check_offsets(node, self.offsets)?;
        }
        Ok(())
    }

    /// What is on the disk is what was written there.
    fn check_content(&self, node: usize, topic: usize) -> Checked {
        let process = self.nodes[node].process.as_ref();
        let Some(partition) = process.and_then(|process| process.partition(&self.slots[topic])) else {
            return Ok(());
        };
        let wrong =
            |what: String| Violation::new(LIVENESS, format!("{} at node {node}: {what}", self.names[topic]));
        let is_compacted = self.slots[topic].is_compacted;
        let (start, found) = crate::records::read_log(partition.log(), is_compacted).map_err(wrong)?;
        if !self.models[topic].is_content(node, start, &found) {
            return Err(wrong(format!("what is read from {start} on is not what was written")));
        }
        self.models[topic].check_compacted(node, start, &found)
    }
}
