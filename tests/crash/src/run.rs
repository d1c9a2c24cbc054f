//! A whole cluster test: nodes, clients, faults, the last read and the verdict.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use towpath_harness::cluster::{self, Cluster, Node, Peer, clock_library};
use towpath_harness::disk::Disk;
use towpath_harness::paths;

use crate::check::{Report, check};
use crate::history::{History, Writer};
use crate::nemesis::{Fault, Nemesis, schedule};
use crate::workload::{Load, Workload};

/// How long the nodes have for a graceful end when all of them end.
const NODE_END_TIMEOUT: Duration = Duration::from_secs(15);

/// How a test is run, from the environment.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `TOWPATH_CLUSTER_PEER`: `towpath` (the default) or `kafka`.
    pub peer: Peer,
    /// `TOWPATH_SEED`; random without one.
    pub seed: u64,
    /// `TOWPATH_CLUSTER_SECONDS`: how long faults strike.
    pub length: Duration,
    /// `TOWPATH_CLUSTER_FAULTS`: names of faults; all that this machine can do, without it.
    pub faults: Vec<Fault>,
    /// The clients; `TOWPATH_CLUSTER_PROTOCOL` is the group's protocol.
    pub load: Load,
}

impl Plan {
    /// Reads the environment; `length` and `faults` are what it is without it.
    ///
    /// # Errors
    /// If a variable makes no sense.
    pub fn from_environment(length: Duration, faults: &[Fault]) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let seed = match variable("TOWPATH_SEED") {
            Some(text) => text.parse().context("TOWPATH_SEED is no number")?,
            None => rand::random(),
        };
        let length = match variable("TOWPATH_CLUSTER_SECONDS") {
            Some(text) => Duration::from_secs(text.parse().context("TOWPATH_CLUSTER_SECONDS is no number")?),
            None => length,
        };
        let faults = match variable("TOWPATH_CLUSTER_FAULTS") {
            Some(text) => Fault::list(&text)?,
            None => faults.to_vec(),
        };
        let mut load = Load::default();
        if let Some(protocol) = variable("TOWPATH_CLUSTER_PROTOCOL") {
            load.protocol = protocol;
        }
        Ok(Self { peer: peer()?, seed, length, faults, load })
    }
}

/// Whose nodes are tested: `TOWPATH_CLUSTER_PEER`.
///
/// # Errors
/// If it names nobody.
pub fn peer() -> Result<Peer> {
    match std::env::var("TOWPATH_CLUSTER_PEER").unwrap_or_default().as_str() {
        "" | "towpath" => Ok(Peer::Towpath),
        "kafka" => Ok(Peer::Kafka),
        other => bail!("TOWPATH_CLUSTER_PEER is {other}; it may be towpath or kafka"),
    }
}

/// A cluster under clients. Its files lie under `target/cluster`, and stay there if the test fails.
#[derive(Debug)]
pub struct Trial {
    /// The clients.
    pub workload: Workload,
    /// The nodes.
    pub cluster: Cluster,
    /// What the test itself does is written here.
    pub writer: Writer,
    load: Load,
    folder: PathBuf,
}

impl Trial {
    /// Starts nodes and clients.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start(name: &str, options: cluster::Options, load: Load) -> Result<Self> {
        let target = paths::profile_dir()?;
        let target = target.parent().context("a target folder has a parent")?;
        let folder = target.join("cluster").join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let writer = Writer::create(&folder.join("nemesis.jsonl"))?;
        writer.nemesis(&format!("{name}: {:?}, files in {}", options.peer, folder.display()))?;
        let cluster = Cluster::start(options)?;
        let mut workload = Workload::create(load.clone(), &cluster.bootstrap(), &folder)?;
        workload.start()?;
        writer.nemesis("nodes and clients run")?;
        Ok(Self { workload, cluster, writer, load, folder })
    }

    /// Ends the clients, has every partition read to its end, and checks the histories.
    ///
    /// # Errors
    /// If a client does not come to its end.
    pub fn check(&mut self) -> Result<Report> {
        self.workload.stop_producers()?;
        self.writer.nemesis("the producers have ended")?;
        self.workload.finish()?;
        self.writer.nemesis("the consumers have ended")?;
        Ok(check(&History::read(&self.folder)?))
    }

    /// Fails if anything was found; then ends the nodes and compares their replicas, octet by octet.
    ///
    /// # Errors
    /// If so, if a node does not end, or if replicas differ.
    pub fn demand_clean(mut self, report: &Report) -> Result<()> {
        self.writer.nemesis(&format!("the checker says:\n{report}"))?;
        let there = format!("the histories are in {}", self.folder.display());
        if !report.is_clean() {
            bail!("{there}\n{report}");
        }
        self.end_nodes()?;
        let folders: Vec<_> =
            self.cluster.nodes().iter().map(|n| (n.id(), n.data_dir().to_owned())).collect();
        same_replicas(&folders, &self.load).context(there)?;
        self.writer.nemesis("the replicas are equal")?;
        std::fs::remove_dir_all(&self.folder).context("cannot remove the histories")
    }

    /// All at once: the last node has no majority to ask for a controlled shutdown, and may wait for one in vain.
    fn end_nodes(&mut self) -> Result<()> {
        let running = || |node: &&mut Node| node.process().is_some();
        for node in self.cluster.nodes_mut().iter_mut().filter(running()) {
            node.ask_to_end()?;
        }
        for node in self.cluster.nodes_mut().iter_mut().filter(running()) {
            if node.terminate(NODE_END_TIMEOUT).is_err() {
                node.kill9()?;
            }
        }
        Ok(())
    }
}

/// The faults of a plan that this machine can do, as far as that is known before a cluster runs; what it cannot is said.
/// `options` are set up for them.
///
/// # Errors
/// If nothing can be written.
pub(crate) fn possible(plan: &Plan, options: &mut cluster::Options) -> Result<Vec<Fault>> {
    let mut faults = plan.faults.clone();
    let clock = match (options.peer, clock_library()) {
        // Its timers run late by seconds under libfaketime.
        (Peer::Kafka, _) => Some("the Java machine does not bear libfaketime"),
        (Peer::Towpath, None) => Some("libfaketime is not installed"),
        (Peer::Towpath, Some(_)) => None,
    };
    if let Some(reason) = clock
        && faults.contains(&Fault::Clock)
    {
        faults.retain(|fault| *fault != Fault::Clock);
        say(&format!("NOT TESTED: clocks that jump; {reason}"))?;
    }
    options.clock = faults.contains(&Fault::Clock);
    if faults.contains(&Fault::Disk) && !Disk::can_mount(&std::env::temp_dir().join("towpath-probe")) {
        faults.retain(|fault| *fault != Fault::Disk);
        say("NOT TESTED: full disks; this process may not mount")?;
    }
    if faults.contains(&Fault::Disk) {
        // A node's share of the records with their indexes, the group's offsets and the metadata log.
        options.disk_mib = Some(512 + plan.length.as_secs() / 4);
    }
    Ok(faults)
}

/// Has the nemesis strike a cluster with those of the faults that its network can do, by the plan's seed.
///
/// # Errors
/// As [`Nemesis::run`].
pub(crate) fn strike(
    cluster: &mut Cluster,
    writer: &Writer,
    plan: &Plan,
    mut faults: Vec<Fault>,
) -> Result<()> {
    if !cluster.network().has_links() {
        // The network has said so.
        faults.retain(|fault| !matches!(fault, Fault::Cut | Fault::OneWay | Fault::Isolate | Fault::Slow));
    }
    if faults.contains(&Fault::Slow) && !cluster.network().can_slow() {
        faults.retain(|fault| *fault != Fault::Slow);
        say("NOT TESTED: slow links; the kernel has no htb")?;
    }
    let nodes = u8::try_from(cluster.nodes().len())?;
    let steps = schedule(plan.seed, plan.length, &faults, nodes);
    let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
    writer.nemesis(&format!("seed {}, {} faults of {}", plan.seed, steps.len(), names.join(",")))?;
    Nemesis::new(cluster, writer).run(&steps, plan.length)
}

/// Starts a cluster, has the nemesis strike it, and asks the checker.
///
/// # Errors
/// If anything does not start, heal or end; the seed is in the error. The trial's nodes still run
/// when this returns.
pub fn run(name: &str, plan: &Plan, mut options: cluster::Options) -> Result<(Trial, Report)> {
    let faults = possible(plan, &mut options)?;
    let mut trial = Trial::start(name, options, plan.load.clone())?;
    let seed = || format!("repeat it with TOWPATH_SEED={}", plan.seed);
    let struck = strike(&mut trial.cluster, &trial.writer, plan, faults);
    struck.with_context(|| format!("the histories are in {}", trial.folder.display())).with_context(seed)?;
    // All clients go on for a moment.
    std::thread::sleep(Duration::from_secs(5));
    let report = trial.check().with_context(seed)?;
    Ok((trial, report))
}

fn say(text: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{text}").context("cannot write")
}

/// Every replica of every partition holds the same octets: batches are copied as they are, offsets and leader epochs
/// included. Segments may begin at different offsets.
fn same_replicas(folders: &[(u8, PathBuf)], load: &Load) -> Result<()> {
    for partition in 0..load.partitions {
        let name = format!("{}-{partition}", load.topic);
        let mut replicas: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        for (node, folder) in folders {
            if let Some(found) = find(folder, &name)? {
                replicas.insert(*node, octets(&found)?);
            }
        }
        if replicas.len() != load.replicas as usize {
            bail!("{name} has replicas on {:?}", replicas.keys());
        }
        let mut all = replicas.iter();
        let Some((first, expected)) = all.next() else { continue };
        for (node, other) in all {
            if expected != other {
                let at = expected.iter().zip(other).position(|(a, b)| a != b);
                bail!(
                    "{name}: {} octets on node {first}, {} on node {node}; they differ from {at:?} on",
                    expected.len(),
                    other.len()
                );
            }
        }
    }
    Ok(())
}

/// The folder of that name, at any depth.
fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.file_name().is_some_and(|n| n == name) {
            return Ok(Some(path));
        }
        if let Some(found) = find(&path, name)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The segments' octets, in the order of their base offsets.
fn octets(partition: &Path) -> Result<Vec<u8>> {
    let mut segments: Vec<_> = std::fs::read_dir(partition)
        .with_context(|| format!("cannot list {}", partition.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    segments.sort();
    let mut all = Vec::new();
    for segment in segments {
        all.extend(std::fs::read(&segment).with_context(|| format!("cannot read {}", segment.display()))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use towpath_harness::TempDir;

    use super::*;

    #[test]
    fn replicas_that_differ_are_found() {
        let folder = TempDir::new("replicas").unwrap();
        let load = Load { partitions: 1, replicas: 2, ..Load::default() };
        let folders = [1, 2].map(|id| (id, folder.join(format!("n{id}"))));
        let write = |id: usize, name: &str, octets: &[u8]| {
            let partition = folders[id - 1].1.join("deep/history-0");
            std::fs::create_dir_all(&partition).unwrap();
            std::fs::write(partition.join(name), octets).unwrap();
        };
        write(1, "0.log", b"abcdef");
        std::fs::create_dir_all(&folders[1].1).unwrap();
        let error = same_replicas(&folders, &load).unwrap_err().to_string();
        assert!(error.contains("has replicas on [1]"), "{error}");
        // Segments may begin elsewhere; other files do not count.
        write(2, "0.log", b"abc");
        write(2, "3.log", b"def");
        write(2, "0.index", b"x");
        same_replicas(&folders, &load).unwrap();
        write(2, "3.log", b"dxf");
        let error = same_replicas(&folders, &load).unwrap_err().to_string();
        assert!(error.contains("differ from Some(4) on"), "{error}");
        write(2, "3.log", b"de");
        assert!(same_replicas(&folders, &load).is_err());
    }
}
