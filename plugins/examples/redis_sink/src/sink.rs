//! The sink.

use std::collections::BTreeMap;

use resp::{Redis, Reply, Settings, options};
use towpath_sdk::{
    Assigned, Config, Delivery, Descriptor, Element, Error, OptionSpec, Positions, Problem, Sink,
    TopicPartition, Written, random,
};

use crate::row::{Change, change, key};

const ANSWER_MS: u32 = 10_000;

/// A partition of this task.
struct Held {
    /// The hash in Redis that holds its position.
    place: String,
    next: i64,
    written: bool,
}

/// An open task.
pub struct RedisSink {
    redis: Redis,
    prefix: String,
    positions: String,
    /// Who we are: in the place of a partition that somebody else has taken stands another one.
    owner: String,
    held: BTreeMap<TopicPartition, Held>,
}

fn settings(config: &Config) -> Result<Settings, Error> {
    Settings::read(config).map_err(|problem| Error::terminal("REDIS_ADDRESS", problem.message))
}

fn fenced(partition: &TopicPartition) -> Error {
    let TopicPartition { topic, partition } = partition;
    Error::retry("REDIS_FENCED", format!("another task has taken partition {partition} of {topic}"))
}

/// The number in a reply; 0 where there is nothing.
fn offset(reply: Option<&Reply>) -> Result<i64, Error> {
    let unreadable = || Error::terminal("REDIS_POSITION", "a position in Redis is no number");
    match reply {
        None | Some(Reply::Nil) => Ok(0),
        Some(reply) => reply.as_string().and_then(|text| text.parse().ok()).ok_or_else(unreadable),
    }
}

/// What a delivery does, key by key; or the records that cannot be taken.
type Changes = Vec<(Vec<u8>, Change)>;

impl RedisSink {
    fn changes(&self, delivery: &Delivery<'_>) -> Result<Changes, Written> {
        let (mut changes, mut rejected) = (Vec::with_capacity(delivery.batch.len()), Vec::new());
        for (index, record) in delivery.batch.records().enumerate() {
            match key(&self.prefix, &record).and_then(|key| Ok((key, change(&record)?))) {
                Ok(change) => changes.push(change),
                Err(why) => rejected.push((index as u32, why)),
            }
        }
        if rejected.is_empty() { Ok(changes) } else { Err(Written { durable: false, rejected }) }
    }

    /// One transaction: what was looked at before must be so until it ends.
    fn transact(&mut self, place: &str, next: i64, changes: &Changes) -> Result<bool, Error> {
        let redis = &mut self.redis;
        redis.push(&[b"MULTI"]);
        for (key, change) in changes {
            match change {
                Change::Delete => redis.push(&[b"DEL", key]),
                Change::Put { set, removed } => {
                    let mut words: Vec<&[u8]> = vec![b"HSET", key];
                    words.extend(set.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_slice()]));
                    redis.push(&words);
                    if !removed.is_empty() {
                        let mut words: Vec<&[u8]> = vec![b"HDEL", key];
                        words.extend(removed.iter().map(String::as_bytes));
                        redis.push(&words);
                    }
                }
            }
        }
        redis.push(&[b"HSET", place.as_bytes(), b"next", next.to_string().as_bytes()]);
        redis.push(&[b"EXEC"]);
        let replies = redis.good_answers()?;
        match replies.last() {
            Some(Reply::Nil) => Ok(false),
            Some(Reply::Array(done)) => match done.iter().find(|reply| matches!(reply, Reply::Error(_))) {
                None => Ok(true),
                Some(error) => {
                    Err(Error::terminal("REDIS_PARTLY", format!("a part of a transaction failed: {error:?}")))
                }
            },
            _ => Err(Error::needs_operator(
                "REDIS_REPLY",
                "Redis answers a transaction otherwise than Redis does",
            )),
        }
    }

    /// Keys that hold something else than a hash: `HSET` on them would fail, and Redis takes nothing back.
    fn wrong_keys(&mut self, changes: &Changes) -> Result<Written, Error> {
        let puts = changes.iter().enumerate().filter(|(_, (_, it))| matches!(it, Change::Put { .. }));
        let asked: Vec<_> = puts.map(|(index, _)| index).collect();
        for index in &asked {
            self.redis.push(&[b"TYPE", &changes[*index].0]);
        }
        let replies = self.redis.good_answers()?;
        let mut rejected = Vec::new();
        for (index, reply) in asked.iter().zip(&replies) {
            let kind = reply.as_string().unwrap_or_default();
            if kind != "hash" && kind != "none" {
                let key = String::from_utf8_lossy(&changes[*index].0).chars().take(200).collect::<String>();
                let message = format!("`{key}` holds a {kind}, and not a hash");
                rejected.push((*index as u32, towpath_sdk::Rejection::new("REDIS_TYPE", message)));
            }
        }
        Ok(Written { durable: false, rejected })
    }

    fn unwatch<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.redis.ask(&[b"UNWATCH"])?;
        result
    }
}

impl Sink for RedisSink {
    fn descriptor() -> Descriptor {
        let summary = "Redis: a hash for each key, exactly once";
        let mut descriptor = Descriptor::new("redis_sink", env!("CARGO_PKG_VERSION"), summary).exactly_once();
        descriptor.options = options();
        let prefix = "What keys begin with; behind it come the values of the record's key, joined by colons.";
        let positions =
            "What the keys begin with under which the positions stand: another one for each pipeline.";
        descriptor.option(OptionSpec::optional("prefix", Element::Text, prefix).default_json("\"\"")).option(
            OptionSpec::optional("positions", Element::NonEmptyText, positions)
                .default_json("\"towpath:positions\""),
        )
    }

    fn check(config: &Config) -> Vec<Problem> {
        Settings::read(config).err().into_iter().collect()
    }

    fn probe(config: &Config) -> Result<Vec<String>, Vec<Error>> {
        let opened = settings(config).and_then(|it| Redis::open(&it));
        let version = opened.and_then(|mut redis| redis.version());
        version.map(|version| vec![version]).map_err(|error| vec![error])
    }

    fn open(config: &Config) -> Result<Self, Error> {
        let owner = random(16).iter().map(|byte| format!("{byte:02x}")).collect();
        let text = |name| config.text(name).unwrap_or_default();
        let (prefix, positions) = (text("prefix"), text("positions"));
        Ok(Self { redis: Redis::open(&settings(config)?)?, prefix, positions, owner, held: BTreeMap::new() })
    }

    fn assign(&mut self, added: &[Assigned]) -> Result<Positions, Error> {
        let mut starts = Positions::new();
        for Assigned { partition, topic_id } in added {
            let place = format!("{}:{topic_id}:{}", self.positions, partition.partition);
            // R6 of Towpath: from now on the older owner's transactions fail.
            self.redis.push(&[b"HSET", place.as_bytes(), b"owner", self.owner.as_bytes()]);
            self.redis.push(&[b"HGET", place.as_bytes(), b"next"]);
            let replies = self.redis.good_answers()?;
            let next = offset(replies.get(1))?;
            starts.insert(partition.clone(), next);
            self.held.insert(partition.clone(), Held { place, next, written: false });
        }
        Ok(starts)
    }

    fn write(&mut self, delivery: &Delivery<'_>) -> Result<Written, Error> {
        let partition = &delivery.partition;
        let Some(held) = self.held.get(partition) else {
            return Err(Error::terminal("REDIS_PARTITION", "records of a partition that is not this task's"));
        };
        let (place, known) = (held.place.clone(), held.next);
        let changes = match self.changes(delivery) {
            Ok(changes) => changes,
            Err(rejected) => return Ok(rejected),
        };
        self.redis.push(&[b"WATCH", place.as_bytes()]);
        self.redis.push(&[b"HMGET", place.as_bytes(), b"owner", b"next"]);
        let looked = self.redis.good_answers()?;
        let fields = looked.get(1).and_then(Reply::array).unwrap_or_default();
        if fields.first().and_then(Reply::text) != Some(self.owner.as_bytes()) {
            return self.unwatch(Err(fenced(partition)));
        }
        let next = offset(fields.get(1))?;
        // A Redis that has lost its end stands before what was told; the task is opened again, and asks it.
        if next != known || delivery.first_offset < next {
            let message = format!(
                "Redis is at offset {next}, the task at {known}, and records from {} are to be written",
                delivery.first_offset
            );
            return self.unwatch(Err(Error::retry("REDIS_POSITION", message)));
        }
        let wrong = self.wrong_keys(&changes)?;
        if !wrong.rejected.is_empty() {
            return self.unwatch(Ok(wrong));
        }
        if !self.transact(&place, delivery.next_offset, &changes)? {
            return Err(fenced(partition));
        }
        if let Some(held) = self.held.get_mut(partition) {
            held.next = delivery.next_offset;
            held.written = true;
        }
        Ok(Written::durable())
    }

    fn flush(&mut self) -> Result<Positions, Error> {
        // What is written is safe at once; a server that is gone shows here, also while nothing comes.
        self.redis.push(&[b"PING"]);
        self.redis.answer(ANSWER_MS)?;
        let written = self.held.iter().filter(|(_, held)| held.written);
        Ok(written.map(|(partition, held)| (partition.clone(), held.next)).collect())
    }

    fn revoke(&mut self, removed: &[TopicPartition]) -> Result<(), Error> {
        self.held.retain(|partition, _| !removed.contains(partition));
        Ok(())
    }
}
