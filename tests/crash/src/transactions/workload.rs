//! The clients of a test with transactions, and a whole such test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use towpath_harness::cluster::{self, Cluster, Peer};
use towpath_harness::{Guarded, envs, paths};

use super::{History, check};
use crate::check::Report;
use crate::history::Writer;
use crate::run::{Plan, possible, strike};

const END_TIMEOUT: Duration = Duration::from_secs(300);
/// What is read; the script knows the same.
const FIGHTERS_ID: &str = "fighters";

/// How many clients there are of each kind.
const CLIENTS: [(&str, u32); 6] =
    [("read", 1), ("bank", 3), ("append", 3), ("fight", 3), ("late", 2), ("generate", 1)];

/// One process of `workload/transactions.py`.
#[derive(Debug)]
struct Client {
    what: &'static str,
    number: u32,
    starts: u32,
    process: Guarded,
}

/// All of them.
#[derive(Debug)]
struct Clients {
    python: PathBuf,
    bootstrap: String,
    folder: PathBuf,
    protocol: String,
    running: Vec<Client>,
}

impl Clients {
    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(paths::workspace().join("tests/crash/workload/transactions.py")).arg(what);
        command.args(["--bootstrap", &self.bootstrap, "--protocol", &self.protocol]);
        command.env("PYTHONUNBUFFERED", "1");
        command
    }

    fn spawn(&self, what: &'static str, number: u32, starts: u32) -> Result<Guarded> {
        // Each start is a process of its own in the histories; its transactional id stays.
        let name = format!("{what}-{number}r{starts}");
        let mut command = self.command(what);
        command.args(["--name", &name, "--history"]).arg(self.folder.join(format!("{name}.jsonl")));
        let id = if what == "fight" { FIGHTERS_ID.to_owned() } else { format!("{what}-{number}") };
        command.args(["--transactional-id", &id]);
        let output = self.folder.join(format!("{name}.out"));
        Guarded::spawn(&format!("transactions.py {name}"), command, &output, &output)
    }

    fn create(&self, options: &cluster::Options) -> Result<()> {
        let mut create = self.command("create");
        create.args(["--replicas", &options.nodes.min(3).to_string(), "--config", "retention.ms=-1"]);
        create.args(["--config", &format!("min.insync.replicas={}", options.min_insync_replicas)]);
        Guarded::run("transactions.py create", create, END_TIMEOUT).map(drop)
    }

    fn start(&mut self) -> Result<()> {
        for (what, count) in CLIENTS {
            for number in 0..count {
                let process = self.spawn(what, number, 1)?;
                self.running.push(Client { what, number, starts: 1, process });
            }
        }
        Ok(())
    }

    /// `kill -9` of one client that transacts, and another one in its place.
    fn replace(&mut self, dice: &mut StdRng, writer: &Writer) -> Result<()> {
        let mortal = |client: &&mut Client| !matches!(client.what, "read" | "generate");
        let Some(client) = self.running.iter_mut().filter(mortal).choose(dice) else { return Ok(()) };
        client.process.kill9()?;
        client.starts += 1;
        let (what, number, starts) = (client.what, client.number, client.starts);
        writer.nemesis(&format!("client {what}-{number} killed, start {starts}"))?;
        let process = self.spawn(what, number, starts)?;
        let place = self.running.iter_mut().find(|c| c.what == what && c.number == number);
        place.context("the client is gone")?.process = process;
        Ok(())
    }

    /// Ends all clients of some kinds.
    fn stop(&mut self, is_one: impl Fn(&str) -> bool) -> Result<()> {
        let (mut ending, left) = std::mem::take(&mut self.running).into_iter().partition(|c| is_one(c.what));
        self.running = left;
        let ending: &mut Vec<Client> = &mut ending;
        for client in ending.iter_mut() {
            if !client.process.is_running()? {
                bail!("{}-{} ended by itself\n{}", client.what, client.number, client.process.log_tail());
            }
            client.process.signal(Signal::TERM)?;
        }
        for client in ending.iter_mut() {
            let status = client.process.wait(END_TIMEOUT)?;
            if !status.success() {
                bail!("{}-{} ended with {status}\n{}", client.what, client.number, client.process.log_tail());
            }
        }
        Ok(())
    }

    fn step(&self, what: &'static str) -> Result<()> {
        let mut process = self.spawn(what, 0, 1)?;
        let status = process.wait(END_TIMEOUT * 2)?;
        if !status.success() {
            bail!("{what} ended with {status}\n{}", process.log_tail());
        }
        Ok(())
    }
}

/// Kills a client every few seconds until it is told to stop.
fn kill_clients(clients: &mut Clients, seed: u64, stop: &AtomicBool, writer: &Writer) -> Result<()> {
    let mut dice = StdRng::seed_from_u64(seed ^ 0x5eed);
    while !stop.load(Ordering::Acquire) {
        let until = std::time::Instant::now() + Duration::from_millis(dice.random_range(1_500..7_000));
        while std::time::Instant::now() < until && !stop.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(50));
        }
        if !stop.load(Ordering::Acquire) {
            clients.replace(&mut dice, writer)?;
        }
    }
    Ok(())
}

/// The nodes: transactions that take too long are looked for every two seconds.
#[must_use]
pub fn options(peer: Peer) -> cluster::Options {
    let mut options = cluster::Options::three(peer);
    for (name, value) in [
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "2000"),
        ("transaction.state.log.min.isr", "2"),
    ] {
        options.settings.push((name.to_owned(), value.to_owned()));
    }
    options
}

/// Starts a cluster and the clients, has the nemesis strike both, waits until all is done, and asks the checker. The
/// histories stay in the folder that the report's error names if something was found.
///
/// # Errors
/// If anything does not start, heal or end, or the checker found something; the seed is in the error.
pub fn run(name: &str, plan: &Plan, mut options: cluster::Options) -> Result<Report> {
    let faults = possible(plan, &mut options)?;
    let target = paths::profile_dir()?;
    let target = target.parent().context("a target folder has a parent")?;
    let folder = target.join("cluster").join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let tried = under(plan, options, faults, &folder);
    let said = || format!("TOWPATH_SEED={}; the histories are in {}", plan.seed, folder.display());
    let report = tried.with_context(said)?;
    if !report.is_clean() {
        bail!("{}\n{report}", said());
    }
    std::fs::remove_dir_all(&folder).context("cannot remove the histories")?;
    Ok(report)
}

fn under(
    plan: &Plan,
    options: cluster::Options,
    faults: Vec<crate::nemesis::Fault>,
    folder: &Path,
) -> Result<Report> {
    let writer = Writer::create(&folder.join("nemesis.jsonl"))?;
    let mut cluster = Cluster::start(options.clone())?;
    let mut clients = Clients {
        python: envs::python()?,
        bootstrap: cluster.bootstrap(),
        folder: folder.to_owned(),
        protocol: plan.load.protocol.clone(),
        running: Vec::new(),
    };
    clients.create(&options)?;
    clients.start()?;
    writer.nemesis("nodes and clients run")?;
    std::thread::sleep(Duration::from_secs(5));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let killer = scope.spawn(|| kill_clients(&mut clients, plan.seed, &stop, &writer));
        let struck = strike(&mut cluster, &writer, plan, faults);
        stop.store(true, Ordering::Release);
        let killed = killer.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the killer panicked")));
        struck.and(killed)
    })?;
    // All clients go on for a moment, some of them after a transaction of 15 seconds.
    std::thread::sleep(Duration::from_secs(8));
    clients.stop(|what| what == "generate")?;
    clients.step("settle")?;
    writer.nemesis("all requests are answered")?;
    clients.stop(|what| what != "read")?;
    clients.step("final")?;
    clients.stop(|_| true)?;
    let report = check(&History::read(folder)?);
    writer.nemesis(&format!("the checker says:\n{report}"))?;
    if !report.is_clean() {
        writer.nemesis(&cluster.log_tails())?;
    }
    Ok(report)
}
