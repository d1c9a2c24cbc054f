//! A transform without the SDK, whose answers are what its option says: none that an honest one would give.

wit_bindgen::generate!({ path: "../../../../wit", world: "transform", generate_all });

use exports::towpath::plugin::{plugin, transforms};
use towpath::plugin::schemas::{self, Field, FieldType, Refusal, Scalar, Schema};
use towpath::plugin::{config, types};

const ENTRY_BYTES: usize = 96;

struct Forger;

impl plugin::Guest for Forger {
    fn descriptor() -> types::Description {
        let (name, version) = ("forger".to_owned(), "0.1.0".to_owned());
        types::Description { name, version, summary: "Answers as its option says".to_owned() }
    }

    fn config_spec() -> Vec<types::OptionSpec> {
        vec![types::OptionSpec {
            name: "how".to_owned(),
            doc: "What to answer.".to_owned(),
            shape: types::Shape::One,
            element: types::Element::Text,
            required: true,
            default: None,
            secret: false,
        }]
    }

    fn check_config() -> Vec<types::Problem> {
        let problem = |_| types::Problem { path: "how".to_owned(), message: "no".to_owned(), hint: None };
        if config::text("how").as_deref() == Some("problems") {
            (0..10_000).map(problem).collect()
        } else {
            Vec::new()
        }
    }
}

fn put(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |raw| u32::from_le_bytes(*raw))
}

fn rejection(index: u32, message: &str) -> types::Rejection {
    let (code, message) = ("FORGED".to_owned(), message.to_owned());
    types::Rejection { index, details: types::Details { code, message, hint: None, path: None } }
}

/// A schema whose name takes half a megabyte.
fn large(number: u32) -> Schema {
    let field_type = FieldType { scalar: Scalar::Text, dimensions: 0 };
    let (source_type, renamed_from, initial, id) = (None, None, None, None);
    let field =
        Field { name: "a".to_owned(), field_type, nullable: true, source_type, renamed_from, initial, id };
    let name = format!("{number} {}", "x".repeat(512 << 10));
    Schema { name, variables: Vec::new(), key: None, value: vec![field], computed: Vec::new(), source: None }
}

fn schemas_until_refused() -> u32 {
    let mut number = 0;
    while number < 10_000 {
        match schemas::define(&large(number)) {
            Ok(_) => number += 1,
            Err(Refusal::TooMany | Refusal::TooLarge) => break,
        }
    }
    number
}

impl transforms::Guest for Forger {
    fn open() -> Result<(), types::Error> {
        Ok(())
    }

    fn process(mut batch: Vec<u8>) -> Result<transforms::Outcome, types::Error> {
        let mut rejected = Vec::new();
        let entries = word(&batch, 8) as usize;
        let last = batch.len() - ENTRY_BYTES;
        match config::text("how").unwrap_or_default().as_str() {
            "nothing" => batch.clear(),
            "letters" => batch[3] = b'9',
            "short" => batch.truncate(batch.len() - 1),
            "long" => batch.push(0),
            "many" => put(&mut batch, 4, u32::MAX),
            "entries" => put(&mut batch, 8, 4),
            "outside" => put(&mut batch, last + 56, entries as u32),
            "far" => put(&mut batch, last + 60, u32::MAX),
            "header" => {
                put(&mut batch, last + 72, 0);
                put(&mut batch, last + 76, 16);
            }
            "shared" => {
                for at in [last + 40, last + 48, last + 56, last + 64, last + 72, last + 88] {
                    put(&mut batch, at, 16);
                    put(&mut batch, at + 4, entries as u32 - 16);
                }
            }
            "origin" => put(&mut batch, last + 12, 1),
            "index" => rejected.push(rejection(u32::MAX, "a record that never was")),
            "rejections" => {
                let message = "x".repeat(64 << 10).leak();
                let (start, length) = (message.as_mut_ptr(), message.len());
                rejected = (0..4_000)
                    .map(|_| {
                        let mut one = rejection(0, "");
                        // Unsound, as it is meant to be: it never comes to freeing what all of them share.
                        one.details.message = unsafe { String::from_raw_parts(start, length, length) };
                        one
                    })
                    .collect();
            }
            "schemas" => {
                let count = schemas_until_refused();
                batch.truncate(entries);
                put(&mut batch, 4, 0);
                rejected.push(rejection(0, &format!("{count} schemas")));
            }
            _ => {}
        }
        Ok(transforms::Outcome { batch, rejected })
    }
}

export!(Forger);
