//! The source.

use std::collections::VecDeque;

use resp::{Redis, Reply, Settings, options};
use towpath_sdk::{
    Budget, Config, Descriptor, Element, Error, Offsets, OptionSpec, Polled, Position, Problem, Records,
    Rejection, Source, Task,
};

use crate::entry::{Entry, schema, write};
use crate::place::{Id, Place};

/// Entries that are asked for at once.
const COUNT_MAX: usize = 1_000;
/// How long the server waits for entries before it says that there are none.
const BLOCK_MS: u32 = 80;
const ANSWER_MS: u32 = 10_000;

struct Stream {
    name: String,
    /// Where the next entries are asked for.
    asked: Id,
    /// What has been told.
    told: Place,
}

/// An open task.
pub struct RedisStreams {
    redis: Redis,
    streams: Vec<Stream>,
    key: Option<String>,
    pending: VecDeque<Entry>,
}

/// A stream as the server describes it.
struct Info {
    added: u64,
    length: u64,
    last_generated: Id,
    /// The last entry that is there.
    last: Option<Id>,
}

fn unexpected() -> Error {
    Error::needs_operator("REDIS_REPLY", "Redis answers otherwise than Redis 7 does")
}

fn settings(config: &Config) -> Result<Settings, Error> {
    Settings::read(config).map_err(|problem| Error::terminal("REDIS_ADDRESS", problem.message))
}

/// What the server knows of a stream; `None` if there is none.
fn info(redis: &mut Redis, stream: &str) -> Result<Option<Info>, Error> {
    redis.push(&[b"XINFO", b"STREAM", stream.as_bytes()]);
    let reply = match redis.answer_or_error(ANSWER_MS)? {
        Reply::Error(text) if text.contains("no such key") => return Ok(None),
        Reply::Error(text) => {
            let message = format!("`{stream}` cannot be read as a stream: {text}");
            return Err(Error::needs_operator("REDIS_STREAM", message));
        }
        reply => reply,
    };
    let number = |name: &str| match reply.field(name) {
        Some(Reply::Integer(number)) => u64::try_from(*number).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    };
    let id = |reply: &Reply| reply.as_string().and_then(|text| Id::parse(&text));
    let last_generated = reply.field("last-generated-id").and_then(id).ok_or_else(unexpected)?;
    let last = reply.field("last-entry").and_then(|entry| id(entry.array()?.first()?));
    Ok(Some(Info { added: number("entries-added")?, length: number("length")?, last_generated, last }))
}

fn lost(stream: &str, what: &str) -> Error {
    let mut why = Rejection::new("REDIS_LOST", format!("the stream `{stream}` {what}: entries are lost"));
    why.hint = Some("if that is so, `towpath pipelines reset` lets the source begin anew".to_owned());
    Error::Terminal(why)
}

/// Where to begin in a stream: what is stored must still be there.
fn begin(redis: &mut Redis, stream: &str, offsets: &Offsets) -> Result<Place, Error> {
    let info = info(redis, stream)?;
    let Some(stored) = offsets.get(stream) else {
        // What was trimmed before the first start is nobody's loss.
        let added = info.map_or(0, |info| info.added.saturating_sub(info.length));
        return Ok(Place { id: Id::default(), added });
    };
    let stored = Place::parse(stored).ok_or_else(|| {
        let message = format!("the stored place in the stream `{stream}` cannot be read: `{stored}`");
        Error::terminal("REDIS_OFFSET", message)
    })?;
    match info {
        None if stored.id == Id::default() => Ok(stored),
        None => Err(lost(stream, "is gone")),
        Some(info) if info.last_generated < stored.id => Err(lost(stream, "has begun anew")),
        Some(info) if info.added.saturating_sub(info.length) > stored.added => {
            Err(lost(stream, "was trimmed beyond what has been read"))
        }
        Some(_) => Ok(stored),
    }
}

impl RedisStreams {
    /// Asks for entries, if none are pending.
    fn fill(&mut self, budget: Budget) -> Result<(), Error> {
        if !self.pending.is_empty() || self.streams.is_empty() {
            return Ok(());
        }
        let count = (budget.records / self.streams.len()).clamp(1, COUNT_MAX).to_string();
        let block = BLOCK_MS.to_string();
        let ids: Vec<_> = self.streams.iter().map(|stream| stream.asked.to_string()).collect();
        let mut words: Vec<&[u8]> =
            vec![b"XREAD", b"COUNT", count.as_bytes(), b"BLOCK", block.as_bytes(), b"STREAMS"];
        words.extend(self.streams.iter().map(|stream| stream.name.as_bytes()));
        words.extend(ids.iter().map(String::as_bytes));
        let reply = self.redis.ask(&words)?;
        let Reply::Array(streams) = reply else { return Ok(()) };
        for reply in &streams {
            let Some([name, entries]) = reply.array() else { return Err(unexpected()) };
            let at = self.streams.iter().position(|stream| name.text() == Some(stream.name.as_bytes()));
            let at = at.ok_or_else(unexpected)?;
            for entry in entries.array().ok_or_else(unexpected)? {
                let entry = Entry::read(at, entry).ok_or_else(unexpected)?;
                self.streams[at].asked = entry.id;
                self.pending.push_back(entry);
            }
        }
        Ok(())
    }
}

impl Source for RedisStreams {
    fn descriptor() -> Descriptor {
        let summary = "Redis streams: every entry once, in order";
        let mut descriptor =
            Descriptor::new("redis_streams", env!("CARGO_PKG_VERSION"), summary).exactly_once();
        descriptor.options = options();
        let streams = OptionSpec::required("streams", Element::NonEmptyText, "The streams to read.").many();
        let key = "The field of an entry that is the record's key. Without it records have no key.";
        descriptor.option(streams).option(OptionSpec::optional("key", Element::NonEmptyText, key))
    }

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems: Vec<_> = Settings::read(config).err().into_iter().collect();
        let streams = config.texts("streams");
        if streams.is_empty() {
            problems.push(Problem::new("streams", "no stream is named"));
        }
        for (index, stream) in streams.iter().enumerate() {
            if streams[..index].contains(stream) {
                problems
                    .push(Problem::new(format!("streams[{index}]"), format!("`{stream}` is named twice")));
            }
            if stream.contains('\n') {
                problems
                    .push(Problem::new(format!("streams[{index}]"), "a stream's name cannot have two lines"));
            }
        }
        problems
    }

    fn probe(config: &Config) -> Result<Vec<String>, Vec<Error>> {
        let mut redis = settings(config).and_then(|it| Redis::open(&it)).map_err(|error| vec![error])?;
        let mut lines = vec![redis.version().map_err(|error| vec![error])?];
        let mut errors = Vec::new();
        for stream in config.texts("streams") {
            match info(&mut redis, &stream) {
                Ok(Some(info)) => lines.push(format!("{stream} has {} entries", info.length)),
                Ok(None) => lines.push(format!("{stream} is not there yet")),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(lines) } else { Err(errors) }
    }

    fn plan(config: &Config, tasks_max: u32) -> Result<Vec<Task>, Error> {
        let streams = config.texts("streams");
        let tasks = streams.len().clamp(1, tasks_max as usize);
        let share = |index: usize| streams.iter().skip(index).step_by(tasks).cloned().collect::<Vec<_>>();
        Ok((0..tasks)
            .map(|index| Task { index: index as u32, assignment: share(index).join("\n") })
            .collect())
    }

    fn open(config: &Config, task: &Task, offsets: &Offsets) -> Result<Self, Error> {
        let mut redis = Redis::open(&settings(config)?)?;
        let mut streams = Vec::new();
        for name in task.assignment.lines() {
            let told = begin(&mut redis, name, offsets)?;
            streams.push(Stream { name: name.to_owned(), asked: told.id, told });
        }
        Ok(Self { redis, streams, key: config.text("key"), pending: VecDeque::new() })
    }

    fn poll(&mut self, budget: Budget, out: &mut Records<'_>) -> Result<Polled, Error> {
        self.fill(budget)?;
        let mut numbers: Vec<Option<u32>> = vec![None; self.streams.len()];
        while let Some(entry) = self.pending.front() {
            let full = out.len() >= budget.records || out.bytes() + entry.bytes() > budget.bytes;
            if full && !out.is_empty() {
                break;
            }
            let Some(entry) = self.pending.pop_front() else { break };
            let stream = &mut self.streams[entry.stream];
            let number = match numbers[entry.stream] {
                Some(number) => number,
                None => {
                    let number = out.define(schema(&stream.name, self.key.as_deref()));
                    number.ok_or_else(|| Error::terminal("REDIS_SCHEMAS", "there are too many streams"))?
                }
            };
            numbers[entry.stream] = Some(number);
            write(out, number, &stream.name, self.key.as_deref(), &entry);
            stream.told = Place { id: entry.id, added: stream.told.added + 1 };
        }
        for (stream, _) in self.streams.iter().zip(&numbers).filter(|(_, number)| number.is_some()) {
            out.offset(&stream.name, stream.told.to_string());
        }
        Ok(Polled::Open)
    }

    fn upstream_end(&mut self) -> Result<Option<Position>, Error> {
        let mut lines = Vec::new();
        for at in 0..self.streams.len() {
            let name = self.streams[at].name.clone();
            if let Some(last) = info(&mut self.redis, &name)?.and_then(|info| info.last) {
                lines.push(format!("{last} {name}"));
            }
        }
        let text = if let [line] = &lines[..] {
            line.clone()
        } else {
            format!("the ends of {} streams", lines.len())
        };
        Ok(Some(Position { document: lines.join("\n"), text }))
    }

    fn has_passed(&self, durable: &Offsets, end: &Position) -> bool {
        end.document.lines().filter_map(|line| line.split_once(' ')).all(|(id, stream)| {
            let reached = durable.get(stream).and_then(Place::parse).map(|place| place.id);
            reached.zip(Id::parse(id)).is_some_and(|(reached, end)| reached >= end)
        })
    }

    fn status(&self) -> String {
        match &self.streams[..] {
            [stream] => format!("{} at {}", stream.name, stream.told.id),
            streams => format!("{} streams", streams.len()),
        }
    }
}
