//! Databases that must end up equal, whatever was killed on the way; and clusters of nodes that are killed, stopped, cut
//! off and filled up under clients whose histories are checked afterwards. The tests are in `tests/`.
#![forbid(unsafe_code)]

pub mod check;
mod equality;
mod fire;
pub mod history;
pub mod nemesis;
pub mod run;
pub mod transactions;
pub mod workload;
mod world;

pub use equality::{Table, assert_equal};
pub use fire::{Fire, deliver};
pub use world::{Load, World};
