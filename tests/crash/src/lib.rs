//! kill -9 and its kin, with a checker.
