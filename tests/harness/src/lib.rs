//! Real servers and processes for the tests: PostgreSQL, Apache Kafka, Redis, towpath itself, client environments, a
//! fault proxy.
//!
//! Everything started here lives in a temporary folder on free ports (a cluster: in network namespaces) and ends with
//! the test: on drop, and, through [`watchdog`], also when the test process itself dies in whatever way. Calls block
//! unless they say `async`; a failed start carries the end of the server's log in its error.

pub mod child;
pub mod cluster;
pub mod connect;
pub mod disk;
pub mod envs;
pub mod http;
pub mod kafka;
pub mod metadata;
pub mod mirror_maker;
pub mod network;
pub mod paths;
pub mod peers;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod stats;
pub mod temp;
pub mod watchdog;
pub mod web;

pub use child::Guarded;
pub use cluster::Cluster;
pub use kafka::Kafka;
pub use mirror_maker::MirrorMaker;
pub use postgres::Postgres;
pub use process::Towpath;
pub use proxy::TcpProxy;
pub use redis::Redis;
pub use temp::TempDir;
