//! One file a subcommand.

mod broker;
mod check;
mod cluster;
mod completions;
pub(crate) mod connection;
mod connectors;
mod consume;
mod groups;
mod mirror;
mod nodes;
mod pipelines;
mod plugin;
mod produce;
mod schema;
mod start;
mod topics;
mod transactions;
mod up;
mod validate;
mod verify;

use super::cli::{Arguments, Command};
use super::failure::Failure;

/// Runs what was asked for.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.json;
    match arguments.command {
        Command::Up(up) => up::run(up, json).await,
        Command::Broker(files) => broker::run(&files, json).await,
        Command::Validate(files) => validate::run(&files, json),
        Command::Check(files) => check::run(&files, json).await,
        Command::Schema => schema::run(),
        Command::Topics(command) => topics::run(command, json).await,
        Command::Groups(command) => groups::run(command, json).await,
        Command::Transactions(command) => transactions::run(command, json).await,
        Command::Cluster(command) => cluster::run(command, json).await,
        Command::Mirror(mirror) => mirror::run(mirror, json).await,
        Command::Verify(verify) => verify::run(verify, json).await,
        Command::Produce(produce) => produce::run(produce, json).await,
        Command::Consume(consume) => consume::run(consume, json).await,
        Command::Pipelines(command) => pipelines::run(command, json).await,
        Command::Connectors(command) => connectors::run(&command, json),
        Command::Plugin(command) => plugin::run(command, json).await,
        Command::Completions { shell } => completions::run(shell),
    }
}
