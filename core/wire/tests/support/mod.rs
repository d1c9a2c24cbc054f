//! What the tests share: an encoder that works from the field tables instead of the derived code.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use bytes::{BufMut, BytesMut};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use towpath_wire::Message;
use towpath_wire::codec::{FieldDescriptor, FieldType, StructDescriptor, Value};

/// Writes a message of random content at one version, byte by byte from the field table. It is an implementation of
/// its own, so that it finds mistakes of the derived one.
pub(crate) struct Scribe<'a> {
    pub(crate) rng: &'a mut ChaCha8Rng,
    pub(crate) version: i16,
    pub(crate) flexible: bool,
    /// Whether to put unknown tagged fields beside the known ones.
    pub(crate) unknown_tags: bool,
}

/// The field table of a message.
pub(crate) fn table<M: Value>() -> &'static StructDescriptor {
    match M::TYPE {
        FieldType::Struct(table) => table,
        other => panic!("a message is a struct, not {other:?}"),
    }
}

/// Random bytes of a message at a version.
pub(crate) fn random_bytes<M: Message>(rng: &mut ChaCha8Rng, version: i16, unknown_tags: bool) -> BytesMut {
    let mut scribe = Scribe { rng, version, flexible: M::is_flexible(version), unknown_tags };
    let mut out = BytesMut::new();
    scribe.put_struct(&mut out, table::<M>());
    out
}

impl Scribe<'_> {
    fn put_struct(&mut self, out: &mut BytesMut, table: &StructDescriptor) {
        let (version, flexible) = (self.version, self.flexible);
        let present = |field: &&FieldDescriptor| field.versions.contains(version);
        for field in table.fields.iter().filter(present).filter(|field| field.tag.is_none()) {
            self.put_field(out, field, true);
        }
        if !flexible {
            return;
        }
        let mut tagged: Vec<(u32, BytesMut)> = Vec::new();
        for field in table.fields.iter().filter(present) {
            let Some(tag) = field.tag else { continue };
            if self.rng.random_bool(0.6) {
                let mut content = BytesMut::new();
                self.put_field(&mut content, field, false);
                tagged.push((tag, content));
            }
        }
        if self.unknown_tags {
            for tag in [100, 20_000] {
                let content = (0..self.rng.random_range(0..200)).map(|_| self.rng.random::<u8>());
                tagged.push((tag, content.collect::<Vec<u8>>().as_slice().into()));
            }
        }
        tagged.sort_by_key(|(tag, _)| *tag);
        put_uvarint(out, tagged.len());
        for (tag, content) in tagged {
            put_uvarint(out, tag as usize);
            put_uvarint(out, content.len());
            out.put_slice(&content);
        }
    }

    /// `any` allows null and the default; a tagged field that is written has something else.
    fn put_field(&mut self, out: &mut BytesMut, field: &FieldDescriptor, any: bool) {
        let nullable = field.nullable.is_some_and(|versions| versions.contains(self.version));
        if any && nullable && self.rng.random_bool(0.25) {
            return self.put_null(out, field.field_type);
        }
        if nullable && matches!(field.field_type, FieldType::Struct(_)) {
            out.put_i8(1);
        }
        if !any && field.field_type == FieldType::Bool {
            return out.put_u8(u8::from(field.default != Some("true")));
        }
        self.put_value(out, field.field_type, if any { 0 } else { 1 });
    }

    fn put_null(&mut self, out: &mut BytesMut, field_type: FieldType) {
        match field_type {
            FieldType::Struct(_) => out.put_i8(-1),
            _ if self.flexible => out.put_u8(0),
            FieldType::String => out.put_i16(-1),
            FieldType::Bytes | FieldType::Records | FieldType::Array(_) => out.put_i32(-1),
            other => panic!("{other:?} has no null"),
        }
    }

    fn put_value(&mut self, out: &mut BytesMut, field_type: FieldType, at_least: usize) {
        match field_type {
            FieldType::Bool => out.put_u8(u8::from(self.rng.random::<bool>())),
            FieldType::Int8 => out.put_i8(self.rng.random()),
            FieldType::Int16 => out.put_i16(self.rng.random()),
            FieldType::Uint16 => out.put_u16(self.rng.random()),
            FieldType::Int32 => out.put_i32(self.rng.random()),
            FieldType::Uint32 => out.put_u32(self.rng.random()),
            FieldType::Int64 => out.put_i64(self.rng.random()),
            FieldType::Float64 => out.put_f64(self.rng.random::<f64>()),
            FieldType::Uuid => out.put_u128(self.rng.random()),
            FieldType::String => {
                let length = self.rng.random_range(at_least..12);
                let text: String = (0..length).map(|_| self.rng.random_range('a'..='ž')).collect();
                self.put_length(out, text.len(), 2);
                out.put_slice(text.as_bytes());
            }
            FieldType::Bytes | FieldType::Records => {
                // Above 127 and 1023: lengths of two bytes, and segments that are shared.
                let most = [8, 200, 1500][self.rng.random_range(0..3)];
                let length = self.rng.random_range(at_least..most);
                self.put_length(out, length, 4);
                (0..length).for_each(|_| out.put_u8(self.rng.random()));
            }
            FieldType::Array(element) => {
                let count = self.rng.random_range(at_least..4);
                self.put_length(out, count, 4);
                (0..count).for_each(|_| self.put_value(out, *element, 0));
            }
            FieldType::Struct(table) => self.put_struct(out, table),
        }
    }

    fn put_length(&self, out: &mut BytesMut, length: usize, width: usize) {
        match (self.flexible, width) {
            (true, _) => put_uvarint(out, length + 1),
            (false, 2) => out.put_i16(length.try_into().unwrap()),
            (false, _) => out.put_i32(length.try_into().unwrap()),
        }
    }
}

pub(crate) fn put_uvarint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value % 0x80) as u8 | 0x80);
        value /= 0x80;
    }
    out.put_u8(value as u8);
}
