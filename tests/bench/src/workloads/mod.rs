//! The workloads.

mod capture;
mod consume;
mod failover;
mod latency;
mod mirror;
mod partitions;
mod plugin;
mod plugin_native;
mod produce;
mod replicated;
mod sink;
mod snapshot;
mod start;
mod stored;

use anyhow::{Result, bail};

use crate::cli::{Arguments, Workload};
use crate::report::{Report, say};

/// Runs what the command line asks for, and prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    use Workload::W1;
    if cfg!(debug_assertions) {
        bail!("figures of an unoptimised build mean nothing: cargo run --release -p towpath-bench -- …");
    }
    if arguments.nodes != 1 && (arguments.workloads != [W1] || arguments.nodes != 3) {
        bail!("`--nodes 3` is for w1 alone, and no other number of nodes is measured");
    }
    let chosen: Vec<Workload> =
        arguments.workloads.iter().flat_map(|workload| workload.parts()).copied().collect();
    for workload in chosen {
        say(&format!("{workload:?}"));
        for report in one(workload, arguments)? {
            report.print(arguments.json)?;
        }
    }
    Ok(())
}

fn one(workload: Workload, arguments: &Arguments) -> Result<Vec<Report>> {
    match workload {
        Workload::W1 if arguments.nodes == 3 => replicated::w1(arguments),
        Workload::W1 => produce::w1(arguments),
        Workload::W2 => produce::w2(arguments),
        Workload::W3 => consume::w3(arguments),
        Workload::W4 => latency::w4(arguments),
        Workload::W5 => mirror::w5(arguments),
        Workload::W6 => capture::w6(arguments),
        Workload::W7 => snapshot::w7(arguments),
        Workload::W8 => sink::w8(arguments),
        Workload::W9 => start::w9(arguments),
        Workload::W10 => plugin::w10(arguments),
        Workload::Failover => failover::failover(arguments),
        Workload::Partitions => partitions::partitions(arguments),
        Workload::Stored => stored::stored(arguments),
        Workload::All => bail!("all is not one"),
    }
}
