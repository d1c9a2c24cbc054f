//! A sink that tells a collector by TCP what it takes, and does at a record what its text says, or in one of its functions
//! (`at`) what it is told (`how`): nothing good.

use std::collections::BTreeMap;

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

fn misbehave(how: &str) {
    match how {
        "loop" => loop {
            std::hint::black_box(0);
        },
        "panic" => panic!("on purpose"),
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
        let address = option("collector");
        let (host, port) = address.rsplit_once(':').unwrap_or((&address, "0"));
        let collector = tcp::Connection::open(host, port.parse().unwrap_or(0), 1_000)?;
        let durable = config.flag("durable").unwrap_or(false);
        Ok(Self { collector, accepted: BTreeMap::new(), waiting: Vec::new(), durable })
    }

    fn assign(&mut self, added: &[Assigned]) -> Result<Positions, Error> {
        act("assign");
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
