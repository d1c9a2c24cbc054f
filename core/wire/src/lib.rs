//! The Kafka protocol: messages, frames, error codes. No I/O.
