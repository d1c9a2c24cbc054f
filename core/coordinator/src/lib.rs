//! Group coordination as pure state machines.
