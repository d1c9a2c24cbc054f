//! What the database's catalog says about tables, types and slots.

mod relation;
mod slot;
mod tables;
mod types;

pub(crate) use relation::{described, snapshot_shapes};
pub(crate) use slot::{Slot, find_slot};
pub(crate) use tables::{Leaf, Selection, Table, Tables, Unmatched, find_tables};
