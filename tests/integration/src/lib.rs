//! Whole-process tests against real servers.

pub mod suite;
