//! Workloads W1 to W10, failover and many partitions, as ratios against a peer in the same run.
//!
//! One command: `cargo run --release -p towpath-bench -- w1` (… `w10`, `all`, or several: `w1 w2 w3 w4`),
//! `w1 --nodes 3`, `failover`, `partitions`. A workload starts its own servers,
//! warms them up, runs the subjects in turns (A B B A …), verifies after every run that the work was done, and prints
//! the median and range of each figure, and of the ratio pair by pair. CPU is the server's or worker's, from `/proc`.
#![forbid(unsafe_code)]

mod admin;
mod arrival;
mod broker;
mod cli;
mod debezium;
mod floor;
mod load;
mod machine;
mod meter;
mod nodes;
mod report;
mod series;
mod source;
mod sql;
mod workloads;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match workloads::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done when standard error is gone, too.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
