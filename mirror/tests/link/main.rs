//! Links between two brokers of our own: everything arrives once and in order, whatever happens to the link.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

mod active;
mod copying;
mod groups;
mod support;
mod topics;
mod verify;
