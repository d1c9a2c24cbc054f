//! A source without the SDK, whose polls answer what its option says: nothing that an honest one would.

wit_bindgen::generate!({ path: "../../../../wit", world: "source", generate_all });

use exports::towpath::plugin::sources::{
    Budget, Found, Guest, Offset, Polled, Position, Records, RejectedInput, Task,
};
use towpath::plugin::config;
use towpath::plugin::schemas::{self, Field, FieldType, Scalar, Schema};
use towpath::plugin::types::{Description, Details, Element, Error, Guarantee, OptionSpec, Problem, Shape};

const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 96;
const NOT_THERE: u32 = u32::MAX;

struct Forger;

fn put(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

/// The number of a schema of one text.
fn lines() -> u32 {
    let field_type = FieldType { scalar: Scalar::Text, dimensions: 0 };
    let (source_type, renamed_from, initial, id) = (None, None, None, None);
    let name = "line".to_owned();
    let field = Field { name, field_type, nullable: true, source_type, renamed_from, initial, id };
    let (variables, computed) = (Vec::new(), Vec::new());
    let schema =
        Schema { name: "lines".to_owned(), variables, key: None, value: vec![field], computed, source: None };
    schemas::define(&schema).unwrap_or(NOT_THERE)
}

/// A batch of one record, as it should be: header, a row of the text `x`, its entry.
fn honest() -> Vec<u8> {
    let row = [&1u32.to_le_bytes()[..], b"x"].concat();
    let entries = HEADER_BYTES + row.len();
    let mut batch = b"TPB1".to_vec();
    for word in [1, entries as u32, 0] {
        batch.extend_from_slice(&u32::to_le_bytes(word));
    }
    batch.extend_from_slice(&row);
    batch.resize(entries + ENTRY_BYTES, 0);
    put(&mut batch, entries, lines());
    put(&mut batch, entries + 4, u32::MAX);
    for slot in [40, 48, 64, 72, 80, 88] {
        put(&mut batch, entries + slot, NOT_THERE);
    }
    put(&mut batch, entries + 56, HEADER_BYTES as u32);
    put(&mut batch, entries + 60, row.len() as u32);
    batch
}

/// Changes the batch as `how` says.
fn forge(batch: &mut Vec<u8>, how: &str) {
    let last = batch.len() - ENTRY_BYTES;
    match how {
        "nothing" => batch.clear(),
        "letters" => batch[3] = b'9',
        "short" => batch.truncate(batch.len() - 1),
        "long" => batch.push(0),
        "many" => put(batch, 4, u32::MAX),
        "entries" => put(batch, 8, 4),
        "beyond" => put(batch, 8, u32::MAX),
        "outside" => put(batch, last + 56, last as u32),
        "far" => put(batch, last + 60, u32::MAX),
        "before" => put(batch, last + 56, 0),
        "field" => put(batch, HEADER_BYTES, 1000),
        "schema" => put(batch, last, 4_000),
        "operation" => batch[last + 8] = 99,
        "partition" => put(batch, last + 4, 0x8000_0000),
        "text" => batch[last - 1] = 0xff,
        "shared" => {
            for slot in [40, 48, 56, 64, 72, 80, 88] {
                put(batch, last + slot, HEADER_BYTES as u32);
                put(batch, last + slot + 4, 5);
            }
        }
        _ => {}
    }
}

/// Rejected input of 64 KiB each, which all share their bytes.
fn shared_input() -> Vec<RejectedInput> {
    let bytes = vec![b'x'; 64 << 10].leak();
    let (start, length) = (bytes.as_mut_ptr(), bytes.len());
    let details = || Details { code: "FORGED".to_owned(), message: String::new(), hint: None, path: None };
    (0..4_000)
        .map(|_| RejectedInput {
            position: String::new(),
            // Unsound, as it is meant to be: it never comes to freeing what all of them share.
            bytes: unsafe { Vec::from_raw_parts(start, length, length) },
            details: details(),
        })
        .collect()
}

impl Guest for Forger {
    fn descriptor() -> Description {
        let (name, version) = ("forger_source".to_owned(), "0.1.0".to_owned());
        Description { name, version, summary: "Answers as its option says".to_owned() }
    }

    fn config_spec() -> Vec<OptionSpec> {
        let (name, doc) = ("how".to_owned(), "What to answer.".to_owned());
        let (shape, element) = (Shape::One, Element::Text);
        vec![OptionSpec { name, doc, shape, element, required: true, default: None, secret: false }]
    }

    fn check_config() -> Vec<Problem> {
        Vec::new()
    }

    fn promise() -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn check() -> Result<Vec<String>, Vec<Error>> {
        Ok(Vec::new())
    }

    fn plan(_: u32) -> Result<Vec<Task>, Error> {
        Ok(vec![Task { index: 0, assignment: String::new() }])
    }

    fn open(_: Task, _: Vec<Offset>) -> Result<String, Error> {
        Ok(String::new())
    }

    fn poll(_: Budget) -> Result<Polled, Error> {
        let how = config::text("how").unwrap_or_default();
        let mut batch = honest();
        forge(&mut batch, &how);
        let rejected = if how == "rejected" { shared_input() } else { Vec::new() };
        let offsets = vec![Offset { partition: "lines".to_owned(), place: Some("1".to_owned()) }];
        Ok(Polled { found: Found::Records(Records { batch, offsets, rejected }), status: String::new() })
    }

    fn commit(_: Vec<Offset>) -> Result<(), Error> {
        Ok(())
    }

    fn upstream_end() -> Result<Option<Position>, Error> {
        Ok(None)
    }

    fn has_passed(_: Vec<Offset>, _: Position) -> bool {
        false
    }

    fn close() -> Result<(), Error> {
        Ok(())
    }
}

export!(Forger);
