//! What the database's catalog says about tables, types and slots.

mod relation;
mod slot;
mod tables;
mod types;

pub(crate) use relation::{Described, keys_now, keys_told, observe, shape_of, snapshot_shapes, told};
pub(crate) use slot::{Slot, find_slot};
pub(crate) use tables::{
    Leaf, Selection, Table, Tables, Unmatched, find_tables, full_xmin, has_old_row, partitions_born_empty,
};
