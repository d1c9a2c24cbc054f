//! A sink that tells a collector by TCP what it takes, and does at a record what its text says, or in one of its functions
//! (`at`) what it is told (`how`): nothing good.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use towpath_sdk::{
    Assigned, Config, Delivery, Descriptor, Element, Error, OptionSpec, Positions, Rejection, Sink,
    TopicPartition, Value, Written, tcp,
};

struct Hostile {
    collector: tcp::Connection,
    accepted: BTreeMap<TopicPartition, i64>,
    waiting: Vec<String>,
    durable: bool,
}

fn option(name: &str) -> String {
    Config::default().text(name).unwrap_or_default()
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
    while is(&format!("descriptor {call}"), "descriptor 9") {}
}

fn deep(depth: u64) -> u64 {
    let held = [depth; 64];
    std::hint::black_box(&held);
    if depth == u64::MAX { 0 } else { deep(depth + 1) + held[(depth % 64) as usize] }
}

fn misbehave(how: &str) {
    match how {
        "loop" => loop {
            std::hint::black_box(0);
        },
        "panic" => panic!("on purpose"),
        "stack" => drop(std::hint::black_box(deep(std::hint::black_box(0)))),
        // All that there can be, at once.
        "giant" if core::arch::wasm32::memory_grow::<0>(65_000) == usize::MAX => panic!("it is not there"),
        "flood" => loop {
            let _refused = tcp::Connection::open("203.0.113.1", 1, 1_000);
        },
        "hog" => {
            let mut held: Vec<Vec<u8>> = Vec::new();
            loop {
                held.push(vec![1; 1 << 20]);
                std::hint::black_box(&held);
            }
        }
        _ => {}
    }
}

fn act(at: &str) {
    if option("at") == at {
        misbehave(&option("how"));
    }
}

impl Hostile {
    fn tell(&mut self) -> Result<(), Error> {
        let lines: String = self.waiting.drain(..).map(|line| line + "\n").collect();
        self.collector.write(lines.as_bytes(), 5_000)
    }
}

impl Sink for Hostile {
    fn descriptor() -> Descriptor {
        perhaps_loop();
        Descriptor::new("hostile_sink", "0.1.0", "Does what it is told")
            .option(OptionSpec::required("collector", Element::Text, "Whom to tell what is taken."))
            .option(OptionSpec::optional("at", Element::Text, "Where to do it."))
            .option(OptionSpec::optional("how", Element::Text, "What to do."))
            .option(OptionSpec::optional("durable", Element::Boolean, "Whether a write is safe at once."))
    }

    fn probe(_: &Config) -> Result<Vec<String>, Vec<Error>> {
        act("check");
        Ok(Vec::new())
    }

    fn open(config: &Config) -> Result<Self, Error> {
        act("open");
        if is(&option("at"), "harm at open") {
            return Err(Error::needs_operator("HOSTILE_OPEN", "not with these"));
        }
        let address = option("collector");
        let (host, port) = address.rsplit_once(':').unwrap_or((&address, "0"));
        let collector = tcp::Connection::open(host, port.parse().unwrap_or(0), 1_000)?;
        let durable = config.flag("durable").unwrap_or(false);
        Ok(Self { collector, accepted: BTreeMap::new(), waiting: Vec::new(), durable })
    }

    fn assign(&mut self, added: &[Assigned]) -> Result<Positions, Error> {
        act("assign");
        if is(&option("at"), "harm at assign") {
            return Err(Error::terminal("HOSTILE_ASSIGN", "not with these"));
        }
        Ok(match option("how").as_str() {
            "stray" => [(TopicPartition { topic: "other".to_owned(), partition: 9 }, 5)].into(),
            "negative" => added.iter().map(|it| (it.partition.clone(), -5)).collect(),
            _ => Positions::new(),
        })
    }

    fn write(&mut self, delivery: &Delivery<'_>) -> Result<Written, Error> {
        act("write");
        let mut written = if self.durable { Written::durable() } else { Written::accepted() };
        let mut lines = Vec::new();
        for (index, record) in delivery.batch.records().enumerate() {
            let text = match record.after().map(|row| row.get(0)) {
                Some(Value::Text(text)) => text.to_owned(),
                _ => String::new(),
            };
            match text.as_str() {
                "reject" => {
                    written.rejected.push((index as u32, Rejection::new("HOSTILE_RECORD", "not this one")))
                }
                "forge" => written.rejected.push((4_000, Rejection::new("HOSTILE_RECORD", "none of yours"))),
                how => misbehave(how),
            }
            lines.push(text);
        }
        if written.rejected.is_empty() {
            self.waiting.extend(lines);
            self.accepted.insert(delivery.partition.clone(), delivery.next_offset);
            if self.durable {
                self.tell()?;
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> Result<Positions, Error> {
        act("flush");
        self.tell()?;
        Ok(match option("how").as_str() {
            "beyond" => self.accepted.iter().map(|(partition, next)| (partition.clone(), next + 1)).collect(),
            "silent" => Positions::new(),
            _ => self.accepted.clone(),
        })
    }

    fn revoke(&mut self, removed: &[TopicPartition]) -> Result<(), Error> {
        act("revoke");
        self.accepted.retain(|partition, _| !removed.contains(partition));
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        act("close");
        Ok(())
    }
}

towpath_sdk::export_sink!(Hostile);
