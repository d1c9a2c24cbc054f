//! Three nodes under clients and faults. The clients' histories are checked, and the nodes' replicas compared.
//!
//! `TOWPATH_CLUSTER_PEER=kafka` runs the same against Apache Kafka, which proves workload, nemesis and checker:
//! `TOWPATH_CLUSTER_PEER=kafka cargo test -p towpath-crash --test cluster -- --ignored --nocapture --test-threads 1`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use towpath_crash::check::Kind;
use towpath_crash::nemesis::Fault;
use towpath_crash::run::{Plan, Trial, peer, run};
use towpath_crash::workload::Load;
use towpath_harness::cluster::{Cluster, Options};

const PATIENCE: Duration = Duration::from_secs(180);

/// One cluster and its clients at a time: on two cores, two of them would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

fn trial(name: &str) -> Trial {
    let trial = Trial::start(name, Options::three(peer().unwrap()), Load::default()).unwrap();
    pause(4);
    trial
}

/// Lets the clients go on for a moment, and concludes.
fn conclude(mut trial: Trial) {
    trial.writer.healed().unwrap();
    pause(4);
    let report = trial.check().unwrap();
    trial.demand_clean(&report).unwrap();
}

/// Waits until only `left` are alive, and only they are in any ISR, in which they all are.
fn wait_shrunk(cluster: &mut Cluster, left: &[i32]) {
    let is_so = |metadata: &towpath_harness::metadata::Metadata, _: &[i32]| {
        metadata.brokers == left
            && metadata.partitions.iter().all(|p| {
                let mut isr = p.isr.clone();
                isr.sort_unstable();
                isr == left && p.leader >= 0
            })
    };
    cluster.wait(&format!("only {left:?} in sync"), PATIENCE, is_so).unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_under_faults() {
    let _alone = alone();
    let plan = Plan::from_environment(Duration::from_secs(120), &Fault::ALL).unwrap();
    let (trial, report) = run("faults", &plan, Options::three(plan.peer)).unwrap();
    if let Err(e) = trial.demand_clean(&report) {
        panic!("repeat it with TOWPATH_SEED={}: {e:#}", plan.seed);
    }
}

/// The same clients, nemesis and checker find losses where there have to be some: a leader that is alone, and then
/// killed, has acknowledged records that nobody else has.
#[test]
#[ignore = "shows that the checker can fail; by hand, with TOWPATH_CLUSTER_PEER=kafka"]
fn acks_of_the_leader_alone_are_lost() {
    let _alone = alone();
    let faults = [Fault::Kill, Fault::Isolate];
    let mut plan = Plan::from_environment(Duration::from_secs(120), &faults).unwrap();
    plan.load.acks = "1".to_owned();
    plan.load.min_insync_replicas = 1;
    let (_trial, report) = run("acks-1", &plan, Options::three(plan.peer)).unwrap();
    eprintln!("{report}");
    let lost = [Kind::Lost, Kind::Unseen, Kind::InconsistentOffset].map(|kind| report.found(kind));
    assert!(lost[0] + lost[1] > 0, "nothing was lost with acks=1 (seed {})\n{report}", plan.seed);
}

#[test]
fn one_of_three_replicas_is_enough() {
    let _alone = alone();
    let mut trial = trial("two-lost");
    let cluster = &mut trial.cluster;
    cluster.node_mut(1).unwrap().kill9().unwrap();
    wait_shrunk(cluster, &[2, 3]);
    // Records that are on 2 and 3 only.
    pause(3);
    let second = cluster.node_mut(2).unwrap();
    second.kill9().unwrap();
    second.wipe().unwrap();
    pause(3);
    // Node 1 brings a majority of controllers; only node 3 has all records.
    cluster.node_mut(1).unwrap().start().unwrap();
    wait_shrunk(cluster, &[1, 3]);
    trial.writer.healed().unwrap();
    pause(4);
    let report = trial.check().unwrap();
    trial.cluster.node_mut(2).unwrap().start().unwrap();
    trial.cluster.wait_whole(PATIENCE).unwrap();
    trial.demand_clean(&report).unwrap();
}

#[test]
fn a_rolling_restart_fails_no_request() {
    let _alone = alone();
    let mut trial = trial("rolling");
    for id in [1, 2, 3, 1] {
        trial.cluster.node_mut(id).unwrap().restart().unwrap();
        trial.cluster.wait_whole(PATIENCE).unwrap();
        trial.writer.nemesis(&format!("restarted {id}, whole")).unwrap();
        pause(2);
    }
    trial.writer.healed().unwrap();
    pause(4);
    let report = trial.check().unwrap();
    for what in ["failed for certain", "failed, perhaps", "commits that failed, perhaps", "errors polled"] {
        assert!(!report.counts.contains_key(what), "{what}\n{report}");
    }
    trial.demand_clean(&report).unwrap();
}

#[test]
fn a_node_joins_and_another_is_drained() {
    let _alone = alone();
    let mut trial = trial("drain");
    let added = trial.cluster.add_broker().unwrap();
    trial.writer.nemesis(&format!("added {added}")).unwrap();
    pause(2);
    trial.cluster.drain(3, PATIENCE).unwrap();
    trial.writer.nemesis("drained 3").unwrap();
    // It is no longer needed as a broker; two of three controllers are a majority.
    trial.cluster.node_mut(3).unwrap().kill9().unwrap();
    trial.cluster.wait_whole(PATIENCE).unwrap();
    conclude(trial);
}

#[test]
fn a_dead_node_is_replaced_by_an_empty_one() {
    let _alone = alone();
    let mut trial = trial("replaced");
    for id in [2, 3] {
        trial.cluster.node_mut(id).unwrap().kill9().unwrap();
        let left: Vec<i32> = (1..=3).filter(|other| *other != i32::from(id)).collect();
        wait_shrunk(&mut trial.cluster, &left);
        let node = trial.cluster.node_mut(id).unwrap();
        node.wipe().unwrap();
        node.start().unwrap();
        trial.cluster.wait_whole(PATIENCE).unwrap();
        trial.writer.nemesis(&format!("replaced {id}")).unwrap();
    }
    conclude(trial);
}

#[test]
fn all_nodes_killed_at_once_lose_nothing() {
    let _alone = alone();
    let mut trial = trial("power");
    for _ in 0..3 {
        trial.cluster.power_cut().unwrap();
        pause(1);
        for node in trial.cluster.nodes_mut() {
            node.spawn().unwrap();
        }
        trial.cluster.wait_whole(PATIENCE).unwrap();
        trial.writer.nemesis("all killed, whole again").unwrap();
        pause(3);
    }
    conclude(trial);
}
