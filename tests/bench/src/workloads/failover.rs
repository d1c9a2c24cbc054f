//! How long nobody can write, or change metadata, after a node was killed with -9.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::cli::Arguments;
use crate::load::{Steady, settings};
use crate::nodes::Nodes;
use crate::report::{Report, lower};

/// Records per second.
const RATE: u64 = 1_000;
/// How long the client writes before the kill, and after the first acknowledgement.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(1);
/// An outage longer than this is an error.
const TIMEOUT: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(5);
/// Between two attempts to create a topic.
const AGAIN: Duration = Duration::from_millis(10);

/// The three kills, in turns.
pub(crate) fn failover(arguments: &Arguments) -> Result<Vec<Report>> {
    let mut clusters = Nodes::start_all(arguments)?;
    let setup = clusters.first().map(Nodes::setup).unwrap_or_default();
    let names: Vec<String> = clusters.iter().map(Nodes::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let figures = [
        lower("(a) leader, not the active controller: until the next acknowledged record", "ms"),
        lower("(b) leader that is the active controller: the same", "ms"),
        lower("(c) active controller: until a topic can be created through another node", "ms"),
    ];
    let title = format!(
        "failover after kill -9, 3 nodes, {RATE} records/s into 1 partition with 3 replicas, acks=all"
    );
    let report = Report::measure(title, &figures, &names, arguments.pairs(), |subject, pair| {
        let nodes = clusters.get_mut(subject).context("no subject")?;
        let all = [
            without_leader(nodes, false, pair).context("(a)"),
            without_leader(nodes, true, pair).context("(b)"),
            without_controller(nodes, pair).context("(c)"),
        ];
        let all: Result<Vec<f64>> = all.into_iter().collect();
        all.with_context(|| nodes.log_tails())
    })?;
    Ok(vec![
        report
            .note(setup)
            .note(settings())
            .note(
                "from the kill to the first acknowledgement of a record that was sent after it, as the client sees it; \
                 min.insync.replicas 2. After each kill the log must hold exactly the records that were sent, all of \
                 which must have been acknowledged; the node comes back, and all replicas are in sync, before the next",
            )
            .note(format!(
                "(c) is a CreateTopics to a node that is alive, sent at once; a failed attempt is made again after {AGAIN:?}"
            )),
    ])
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}

/// Another node than the active controller, each in its turn.
fn another(nodes: &Nodes, controller: u8, pair: usize) -> Result<u8> {
    let others: Vec<u8> = nodes.ids().into_iter().filter(|id| *id != controller).collect();
    others.get(pair % others.len().max(1)).copied().context("there is no other node")
}

/// Kills the leader of a partition that is written to.
fn without_leader(nodes: &mut Nodes, is_controller: bool, pair: usize) -> Result<f64> {
    let controller = nodes.admin()?.controller()?;
    let victim = if is_controller { controller } else { another(nodes, controller, pair)? };
    let topic = format!("failover-{pair}-{is_controller}");
    nodes.create_led_by(victim, &topic)?;
    let brokers = nodes.addresses();
    let steady = Steady::default();
    let (killed, sent) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| steady.run(&brokers, &topic, RATE));
        let killed = watched(&steady, || writer.is_finished(), || nodes.kill(victim));
        steady.stop();
        let sent = writer.join().map_err(|_| anyhow!("the writer panicked")).flatten();
        // What the writer says is nearer to the cause.
        let sent = sent?;
        anyhow::Ok((killed?, sent))
    })?;
    let first = steady.first_sent_after(killed).context("nothing was acknowledged after the kill")?;
    nodes.bring_back(victim)?;
    let admin = nodes.admin()?;
    admin.verify_records(&topic, 1, sent)?;
    admin.delete_topic(&topic)?;
    Ok(milliseconds(killed, first.acked))
}

/// Lets the writer write, kills, and waits until it writes again.
fn watched(
    steady: &Steady,
    ended: impl Fn() -> bool,
    kill: impl FnOnce() -> Result<Instant>,
) -> Result<Instant> {
    let before = usize::try_from(BEFORE.as_secs() * RATE)?;
    wait("no steady acknowledgements before the kill", &ended, || steady.count() >= before)?;
    let killed = kill()?;
    wait("no acknowledgement after the kill", &ended, || steady.first_sent_after(killed).is_some())?;
    std::thread::sleep(AFTER);
    Ok(killed)
}

fn wait(what: &str, ended: &impl Fn() -> bool, is_so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        if ended() {
            bail!("the writer has ended: {what}");
        }
        if Instant::now() >= deadline {
            bail!("{what} within {TIMEOUT:?}");
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Kills the active controller, and creates a topic through another node.
fn without_controller(nodes: &mut Nodes, pair: usize) -> Result<f64> {
    let controller = nodes.admin()?.controller()?;
    let via = another(nodes, controller, pair)?;
    let topic = format!("controller-{pair}");
    let killed = nodes.kill(controller)?;
    while let Err(error) = nodes.try_create(via, &topic) {
        if killed.elapsed() >= TIMEOUT {
            return Err(error.context(format!("no topic could be created within {TIMEOUT:?}")));
        }
        std::thread::sleep(AGAIN);
    }
    let created = Instant::now();
    nodes.bring_back(controller)?;
    nodes.admin()?.delete_topic(&topic)?;
    Ok(milliseconds(killed, created))
}
