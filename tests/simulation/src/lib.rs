//! A replicated cluster from a seed.
//!
//! The machines are the real ones: replicas over the real log on a simulated disk, the controller's decisions, the group
//! coordinator. Around them everything is simulated, on one thread and without a clock of its own: messages that get lost,
//! come late, twice, or in another order; nodes that are stopped, killed, or lose their power; disks that are full or fail;
//! clocks that jump; controllers that do not know that they are deposed; metadata that arrive late. The invariants are
//! checked after every event, and at the end everything is healed and must come to rest.
//!
//! A run is its seed: [`Run::command`] repeats it. The metadata quorum is modelled (one list of committed decisions, one
//! active controller to a term), since Raft has its own tests. As TCP does, links between nodes do not deliver an answer or
//! a request for the controller whose sender has given up waiting; everything else may come at any time.
#![forbid(unsafe_code)]

mod coordination;
mod counters;
mod fates;
mod groups;
mod ledger;
mod model;
mod net;
mod node;
mod profile;
mod records;
mod run;
mod scripts;
mod sim;
mod transactions;
mod violation;

pub use counters::{Counters, REQUIRED};
pub use profile::{Administration, Faults, Profile, TopicProfile};
pub use run::{Outcome, Run};
pub use scripts::Script;
pub use sim::{Simulation, Tracer};
pub use violation::{Checked, INTERNAL, LIVENESS, Violation};
