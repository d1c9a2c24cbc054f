//! A transform that does at a record what its text says: nothing good.

use std::sync::atomic::{AtomicU32, Ordering};

use towpath_sdk::{
    Batch, Config, Descriptor, Element, Error, Field, Level, OptionSpec, Output, Problem, Rejection, Scalar,
    Schema, Transform, Value, log,
};

struct Hostile {
    token: String,
    calls: u64,
}

/// Compares with a word that stands in the module as it is, so that tests can put another in its place.
fn is(how: &str, word: &'static str) -> bool {
    how == std::hint::black_box(word)
}

/// Loops in the call of `descriptor` whose number is in the module: 9, unless a test puts another in its place. The SDK
/// answers several exports with it.
fn perhaps_loop() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    if is(&format!("descriptor {call}"), "descriptor 9") {
        misbehave("loop");
    }
}

fn misbehave(how: &str) {
    match how {
        "loop" => loop {
            std::hint::black_box(0);
        },
        "panic" => panic!("on purpose"),
        "stack" => {
            std::hint::black_box(deep(std::hint::black_box(0)));
        }
        "hog" => {
            let mut held: Vec<Vec<u8>> = Vec::new();
            loop {
                held.push(vec![1; 1 << 20]);
                std::hint::black_box(&held);
            }
        }
        // All that there can be, at once.
        "giant" if core::arch::wasm32::memory_grow::<0>(65_000) == usize::MAX => panic!("it is not there"),
        "flood" => loop {
            std::hint::black_box(Config::default().text("token"));
        },
        "random" => drop(towpath_sdk::random(1 << 20)),
        "chatter" => (0..20_000).for_each(|number| log(Level::Debug, &format!("line {number}"))),
        _ => {}
    }
}

fn deep(depth: u64) -> u64 {
    let held = [depth; 64];
    std::hint::black_box(&held);
    if depth == u64::MAX { 0 } else { deep(depth + 1) + held[(depth % 64) as usize] }
}

impl Transform for Hostile {
    fn descriptor() -> Descriptor {
        perhaps_loop();
        Descriptor::new("hostile", "0.1.0", "Does what a record says")
            .option(OptionSpec::optional("at_open", Element::Text, "What to do when it is opened."))
            .option(OptionSpec::optional(
                "at_check",
                Element::Text,
                "What to do when its options are checked.",
            ))
            .option(OptionSpec::optional("token", Element::Text, "Something secret.").secret())
    }

    fn check(config: &Config) -> Vec<Problem> {
        let how = config.text("at_check").unwrap_or_default();
        misbehave(&how);
        if how == "problem" || is(&how, "harm at check") {
            vec![Problem::new("at_check", "it says so")]
        } else {
            Vec::new()
        }
    }

    fn open(config: &Config) -> Result<Self, Error> {
        let how = config.text("at_open").unwrap_or_default();
        misbehave(&how);
        match how.as_str() {
            _ if is(&how, "harm at open") => {
                return Err(Error::needs_operator("HOSTILE_OPEN", "not with these"));
            }
            "operator" => return Err(Error::needs_operator("HOSTILE_OPEN", "somebody has to act")),
            "retry" => return Err(Error::RetryAfter(7_000, Rejection::new("not a code", "later"))),
            _ => {}
        }
        Ok(Self { token: config.text("token").unwrap_or_default(), calls: 0 })
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Output<'_>) -> Result<(), Error> {
        self.calls += 1;
        for record in batch.records() {
            let text = record.after().and_then(|row| match row.get(0) {
                Value::Text(text) => Some(text),
                _ => None,
            });
            match text.unwrap_or_default() {
                "reject" => out
                    .reject(record, Rejection::new("HOSTILE_RECORD", format!("not this one {}", self.token))),
                "drop" => {}
                "twice" => {
                    out.keep(record);
                    out.keep(record);
                }
                "both" => {
                    out.keep(record);
                    out.reject(record, Rejection::new("HOSTILE_RECORD", "and yet it moves"));
                }
                "schema" => {
                    out.rewrite_as(record, 4_000, 1).after(|row| row.text("x")).finish();
                }
                "topic" => out.rewrite(record).topic("not a topic").finish(),
                "type" => out.rewrite(record).after(|row| row.value(Value::Bytes(&[0xff, 0xfe]))).finish(),
                "calls" => {
                    let calls = self.calls.to_string();
                    out.rewrite(record).after(|row| row.text(&calls)).finish();
                }
                "define" => {
                    let fields =
                        vec![Field::nullable("a", Scalar::Int64), Field::nullable("b", Scalar::Text)];
                    match out.define(Schema::plain("made", fields)) {
                        Some(number) => out
                            .rewrite_as(record, number, 2)
                            .after(|row| {
                                row.value(Value::Int(7));
                                row.text("seven");
                            })
                            .finish(),
                        None => out.reject(record, Rejection::new("HOSTILE_SCHEMA", "there are too many")),
                    }
                }
                "terminal" => return Err(Error::terminal("HOSTILE_END", format!("no more {}", self.token))),
                how => {
                    misbehave(how);
                    out.keep(record);
                }
            }
        }
        Ok(())
    }
}

towpath_sdk::export_transform!(Hostile);
