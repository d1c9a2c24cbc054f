//! Redis as a sink: a hash for each key, exactly once.
//!
//! The next offset of each partition stands in Redis too, and moves in the transaction that writes the records: what
//! Redis loses it loses together with the offset, and is given it again.

mod row;
mod sink;

pub use sink::RedisSink;

towpath_sdk::export_sink!(RedisSink);
