//! PostgreSQL change data capture: a consistent snapshot by parallel COPY, then logical replication (`pgoutput`).
//!
//! What a user sees is in [`PostgresCdcFactory`]'s descriptor. Inside: `wire` talks to the server, `catalog` asks what
//! is there, `setup` keeps publication and slot, `snapshot` copies, `stream` follows, `source` ties them together,
//! `offsets` is what is stored and how positions are ordered, `evolution` what becomes of a table's columns.
//!
//! # Tables that change while they are captured
//! *Columns.* The stream describes a table by names and types whenever they change; what ALTER TABLE does to the rows that
//! are there, it does not tell. Every field of a schema therefore carries its column's identity, and, where the column
//! was added, the initial value of the rows before it: a sink renames and adds its own columns by that. Where no row
//! follows a change of columns, the catalog, which is looked at every few seconds, shows it, and a record without key
//! and value under the new schema tells it (a tombstone of nothing). What cannot be told that way is copied anew, after a
//! truncate: a table that was rewritten by a volatile default, by a change of type or by `USING`, and columns of
//! which the catalog no longer tells which is which (dropped and added again before anybody looked). With
//! `snapshot: never` that is an error in the log, and the stream goes on.
//!
//! *Computed columns* are not in the stream; their expressions are in the schema, and a sink of the same dialect can
//! compute them.
//!
//! *Tables* that are created later and match a glob are copied, then followed; so are tables that are renamed, under
//! their new name. One that is dropped is forgotten; what it sent stays where it is. One that is dropped and created again
//! is copied anew after a truncate.
//!
//! *Partitions* that are attached with rows of their own are copied. Partitions that are dropped, detached, or
//! truncated by themselves send nothing: the whole table is copied anew, unless `dropped_partitions: keep` says that
//! the rows of dropped ones may stay.
#![forbid(unsafe_code)]

mod catalog;
mod cells;
mod check;
mod config;
mod connector;
mod errors;
mod evolution;
mod lsn;
mod offsets;
mod pgoutput;
mod session;
mod setup;
mod shape;
mod slot;
mod snapshot;
mod source;
mod stream;
mod streaming;
mod tracked;
mod upkeep;
mod values;
mod wire;

pub use connector::PostgresCdcFactory;
