//! Field tables: what the attributes of a struct say, as data.

use crate::VersionRange;

/// The fields of a struct.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StructDescriptor {
    /// Kafka's name of the struct.
    pub name: &'static str,
    /// The fields in the order in which they travel (tagged ones come last on the wire).
    pub fields: &'static [FieldDescriptor],
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FieldDescriptor {
    /// Kafka's name in snake case.
    pub name: &'static str,
    /// What the field holds.
    pub field_type: FieldType,
    /// The versions that have it; `0+` when all of the struct's do.
    pub versions: VersionRange,
    /// The versions in which it may be null.
    pub nullable: Option<VersionRange>,
    /// Its tag, when it travels in the tagged section.
    pub tag: Option<u32>,
    /// Whether a value may be dropped in versions without the field.
    pub ignorable: bool,
    /// Its default as the schema writes it; `None` for the type's own.
    pub default: Option<&'static str>,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldType {
    /// One byte, zero or one.
    Bool,
    /// A signed byte.
    Int8,
    /// Two bytes, signed.
    Int16,
    /// Two bytes, unsigned.
    Uint16,
    /// Four bytes, signed.
    Int32,
    /// Four bytes, unsigned.
    Uint32,
    /// Eight bytes, signed.
    Int64,
    /// IEEE 754, eight bytes.
    Float64,
    /// UTF-8.
    String,
    /// A byte string.
    Bytes,
    /// Record batches.
    Records,
    /// Sixteen bytes.
    Uuid,
    /// Elements of one type.
    Array(&'static FieldType),
    /// Another struct.
    Struct(&'static StructDescriptor),
}
