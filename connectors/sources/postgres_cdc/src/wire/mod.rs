//! A small PostgreSQL client for what capture needs: simple queries, COPY TO STDOUT and replication commands over
//! TCP, TLS or a Unix socket.
//!
//! Why not a general client: one connection has to create a slot, keep its snapshot and take replication commands;
//! COPY and the replication stream have to be read in large pieces without an allocation or a task switch per row;
//! and every kind of connection has to agree on address, TLS and authentication.

mod auth;
mod connection;
mod endpoint;
mod error;
mod tls;

pub(crate) use connection::{Connection, Duplex, Kind, Row, frame_length};
pub(crate) use endpoint::Endpoint;
pub(crate) use error::{PgError, ServerError};
