//! What the Redis plugins share: options, a connection, and the protocol (RESP2) over the host's TCP.

mod connection;
mod reply;
mod settings;

pub use connection::Redis;
pub use reply::{Reply, parse};
pub use settings::{Settings, options};
