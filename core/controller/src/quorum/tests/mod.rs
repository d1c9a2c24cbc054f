//! The quorum over links that can be cut, and disks that can fail.

mod cluster;
mod store;
