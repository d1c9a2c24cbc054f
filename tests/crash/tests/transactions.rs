//! Transactions on three nodes, of which some are killed or cut off, by clients of which some are killed.
//!
//! `TOWPATH_CLUSTER_PEER=kafka cargo test -p towpath-crash --test transactions -- --nocapture` proves workload
//! and checker with Apache Kafka; `tests/soak/transactions` runs for longer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::time::Duration;

use towpath_crash::nemesis::Fault;
use towpath_crash::run::Plan;
use towpath_crash::transactions::{run, workload};

#[test]
fn transactions_are_whole_or_not_at_all() {
    let plan = Plan::from_environment(Duration::from_secs(45), &Fault::ALL).unwrap();
    if let Err(error) = run("transactions", &plan, workload::options(plan.peer)) {
        panic!("repeat it with TOWPATH_SEED={}: {error:#}", plan.seed);
    }
}
