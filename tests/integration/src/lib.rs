//! Whole-process tests against real servers.
