//! The nemesis: does to a cluster what a schedule says, writes down what it did, and heals all of it.

mod schedule;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use towpath_harness::cluster::{Cluster, Node, Peer};

use crate::history::Writer;
pub use schedule::{Fault, Step, schedule};

/// What may still be written to a disk that is full.
const LEFT_BYTES: u64 = 16 << 10;
/// How long a graceful end may take under faults, before it is made a `kill -9`.
const END_TIMEOUT: Duration = Duration::from_secs(45);
const HEAL_TIMEOUT: Duration = Duration::from_secs(240);

/// Strikes a cluster.
#[derive(Debug)]
pub struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    writer: &'a Writer,
    slowed: Vec<u8>,
    full: Vec<u8>,
    /// Nodes that ended though nothing had ended them.
    ended: Vec<String>,
}

impl<'a> Nemesis<'a> {
    /// A nemesis for a cluster, with its history.
    #[must_use]
    pub fn new(cluster: &'a mut Cluster, writer: &'a Writer) -> Self {
        Self { cluster, writer, slowed: Vec::new(), full: Vec::new(), ended: Vec::new() }
    }

    /// Runs a schedule for `length`, heals everything, and waits until the cluster is whole.
    ///
    /// # Errors
    /// If the machine refuses something, the cluster does not become whole again, or (towpath only) a node ended by
    /// itself while its disk was not full.
    pub fn run(mut self, steps: &[Step], length: Duration) -> Result<()> {
        let mut acts: Vec<(Duration, bool, &Step)> = Vec::new();
        for step in steps {
            acts.extend([(step.begin, true, step), (step.end, false, step)]);
        }
        acts.sort_by_key(|(at, begins, _)| (*at, *begins));
        let begin = Instant::now();
        for (at, begins, step) in acts {
            self.sleep_until(begin + at)?;
            let words = format!("{} {}", if begins { "begin:" } else { "end:  " }, step.words());
            self.writer.nemesis(&words)?;
            if begins { self.begin(step) } else { self.end(step) }.with_context(|| words)?;
        }
        self.sleep_until(begin + length)?;
        self.heal()
    }

    /// Looks after nodes that end by themselves meanwhile.
    fn sleep_until(&mut self, time: Instant) -> Result<()> {
        loop {
            self.revive()?;
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(500)));
        }
    }

    /// Starts those again that ended by themselves. Apache Kafka does so when it cannot register within a minute, and
    /// when its only log directory fails.
    fn revive(&mut self) -> Result<()> {
        for node in self.cluster.nodes_mut() {
            if !node.should_run() || node.is_running()? || self.full.contains(&node.id()) {
                continue;
            }
            let tail = node.log_tail();
            self.writer.nemesis(&format!("node {} ended by itself; started again", node.id()))?;
            self.ended.push(format!("node {} ended by itself\n{tail}", node.id()));
            node.kill9()?;
            node.spawn()?;
        }
        Ok(())
    }

    fn begin(&mut self, step: &Step) -> Result<()> {
        let links = self.links(step);
        let node = self.cluster.node_mut(step.node)?;
        match step.fault {
            Fault::Kill => node.kill9()?,
            Fault::Power => self.cluster.power_cut()?,
            Fault::Stop => node.pause()?,
            Fault::Restart => node.ask_to_end()?,
            Fault::Cut | Fault::OneWay | Fault::Isolate => {
                for (from, to) in links {
                    self.cluster.network().cut(from, to)?;
                }
            }
            Fault::Slow => {
                self.slowed.push(step.node);
                self.cluster.network().slow(step.node, u32::try_from(step.measure)?)?;
            }
            Fault::Disk => {
                node.disk().context("the node has no disk of its own")?.fill(LEFT_BYTES)?;
                self.full.push(step.node);
            }
            Fault::Clock => node.set_clock(step.measure)?,
        }
        Ok(())
    }

    fn end(&mut self, step: &Step) -> Result<()> {
        let links = self.links(step);
        let node = self.cluster.node_mut(step.node)?;
        match step.fault {
            Fault::Kill => node.spawn()?,
            Fault::Power => self.cluster.nodes_mut().iter_mut().try_for_each(Node::spawn)?,
            Fault::Stop => node.resume()?,
            Fault::Restart => restart(node, self.writer)?,
            Fault::Cut | Fault::OneWay | Fault::Isolate => {
                for (from, to) in links {
                    self.cluster.network().join(from, to)?;
                }
            }
            Fault::Slow => {
                self.slowed.retain(|id| *id != step.node);
                self.cluster.network().unslow(step.node)?;
            }
            Fault::Disk => self.empty(step.node)?,
            Fault::Clock => node.set_clock(0)?,
        }
        Ok(())
    }

    /// A node whose disk was full has stopped writing to it, or has ended: it begins anew.
    fn empty(&mut self, id: u8) -> Result<()> {
        self.full.retain(|full| *full != id);
        let node = self.cluster.node_mut(id)?;
        node.disk().context("the node has no disk of its own")?.clear()?;
        if node.is_running()? {
            node.ask_to_end()?;
        } else {
            self.writer.nemesis(&format!("node {id} had ended on its full disk"))?;
        }
        restart(node, self.writer)
    }

    fn links(&self, step: &Step) -> Vec<(u8, u8)> {
        let Step { node, other, .. } = *step;
        match step.fault {
            Fault::Cut => vec![(node, other), (other, node)],
            Fault::OneWay => vec![(node, other)],
            Fault::Isolate => {
                let others = self.cluster.nodes().iter().map(Node::id).filter(|id| *id != node);
                others.flat_map(|id| [(node, id), (id, node)]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Undoes whatever may still be there, and waits until every replica is in sync.
    fn heal(&mut self) -> Result<()> {
        self.writer.nemesis("heal")?;
        let ids: Vec<u8> = self.cluster.nodes().iter().map(Node::id).collect();
        for from in &ids {
            for to in ids.iter().filter(|to| *to != from) {
                self.cluster.network().join(*from, *to)?;
            }
        }
        for id in std::mem::take(&mut self.slowed) {
            self.cluster.network().unslow(id)?;
        }
        for id in self.full.clone() {
            self.empty(id)?;
        }
        for node in self.cluster.nodes_mut() {
            node.set_clock(0)?;
            if node.is_paused() {
                node.resume()?;
            }
            if !node.should_run() {
                restart(node, self.writer)?;
            }
        }
        self.wait_whole()?;
        self.writer.nemesis("whole again")?;
        self.writer.healed()?;
        if self.cluster.peer() == Peer::Towpath && !self.ended.is_empty() {
            bail!("{}", self.ended.join("\n"));
        }
        Ok(())
    }

    fn wait_whole(&mut self) -> Result<()> {
        let deadline = Instant::now() + HEAL_TIMEOUT;
        loop {
            self.revive()?;
            match self.cluster.wait_whole(Duration::from_secs(5)) {
                Ok(()) => return Ok(()),
                Err(_) if Instant::now() < deadline => {}
                Err(e) => return Err(e.context(format!("not whole {HEAL_TIMEOUT:?} after the last fault"))),
            }
        }
    }
}

/// Waits for an end that was asked for, and starts the node again.
fn restart(node: &mut Node, writer: &Writer) -> Result<()> {
    if node.is_running()? && node.terminate(END_TIMEOUT).is_err() {
        writer
            .nemesis(&format!("node {} has not ended {END_TIMEOUT:?} after SIGTERM: kill -9", node.id()))?;
    }
    node.kill9()?;
    node.spawn()
}
