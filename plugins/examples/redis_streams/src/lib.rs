//! Redis streams as a source: every entry once, in order.
//!
//! A source partition is a stream; its place is the id of the last entry, and how many entries there had ever been up to
//! it, by which an entry that was trimmed before it was read is noticed.

mod entry;
mod place;
mod source;

pub use source::RedisStreams;

towpath_sdk::export_source!(RedisStreams);
