//! `towpath consume`: records to standard output.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::signal::unix::{SignalKind, signal};
use towpath_client::{
    Client, Consumer, ConsumerConfig, ConsumerEvent, OffsetReset, PartitionRecords, Record, StartAt,
    Subscription,
};
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

use super::connection::{all_done, connect};
use crate::cli::Consume;
use crate::failure::Failure;

pub(super) async fn run(consume: Consume, json: bool) -> Result<(), Failure> {
    let client = connect(&consume.cluster.bootstrap_server).await?;
    let topic = TopicName::new(&consume.topic)?;
    let mut printer = Printer { json, verbose: consume.verbose, left: consume.max_records };
    if printer.left == Some(0) {
        return Ok(());
    }
    match &consume.group {
        Some(group) => as_member(&client, &consume, topic, GroupId::new(group)?, &mut printer).await,
        None => alone(&client, &consume, &topic, &mut printer).await,
    }
}

/// Reads partitions by themselves.
async fn alone(
    client: &Client,
    consume: &Consume,
    topic: &TopicName,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let described = all_done(client.admin().describe_topics(std::slice::from_ref(topic)).await?)?;
    let all =
        described.iter().flat_map(|(_, topic)| topic.partitions.iter().map(|partition| partition.partition));
    let wanted: Vec<_> = all
        .filter(|partition| consume.partition.is_none_or(|only| only == *partition))
        .map(|partition| TopicPartition::new(topic.clone(), partition))
        .collect();
    if wanted.is_empty() {
        return Err(Failure::new(format!("{topic} has no such partition"))
            .with_hint(format!("`towpath topics describe {topic}` shows them")));
    }
    let start = match consume.offset {
        Some(offset) => StartAt::Offset(Offset::new(offset)),
        None if consume.from_beginning => StartAt::Earliest,
        None => StartAt::Latest,
    };
    let consumer = client.consumer(ConsumerConfig::default());
    let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    if consume.exit_at_end || consume.offset.is_some() {
        ends = consumer.end_offsets(&wanted).await?;
        let begins = consumer.beginning_offsets(&wanted).await?;
        check_offset(consume, &begins, &ends)?;
        ends.retain(|partition, end| {
            let first = match start {
                StartAt::Offset(offset) => Some(offset),
                StartAt::Earliest => begins.get(partition).copied(),
                _ => None,
            };
            first.is_some_and(|first| first < *end)
        });
        if consume.exit_at_end && ends.is_empty() {
            return Ok(());
        }
    }
    consumer.assign(&wanted.into_iter().map(|partition| (partition, start)).collect::<Vec<_>>())?;
    loop {
        for records in consumer.poll(Duration::from_millis(500)).await? {
            if printer.print(&records)?.is_some() {
                return Ok(());
            }
            if ends.get(&*records.partition).is_some_and(|end| records.next_offset >= *end) {
                ends.remove(&*records.partition);
            }
        }
        if consume.exit_at_end && ends.is_empty() {
            return Ok(());
        }
    }
}

/// An offset that the partition does not have is a slip, and not the end.
fn check_offset(
    consume: &Consume,
    begins: &BTreeMap<TopicPartition, Offset>,
    ends: &BTreeMap<TopicPartition, Offset>,
) -> Result<(), Failure> {
    let Some(offset) = consume.offset.map(Offset::new) else { return Ok(()) };
    for (partition, end) in ends {
        let begin = begins.get(partition).copied().unwrap_or(Offset::ZERO);
        if offset < begin || offset > *end {
            let message =
                format!("{partition} has no offset {offset}: it begins at {begin} and ends before {end}");
            return Err(
                Failure::new(message).with_hint("--from-beginning begins at the first record there is")
            );
        }
    }
    Ok(())
}

/// Reads as a member of a group, and commits what was printed. Ctrl-C leaves the group, so that the others need not
/// wait for it.
async fn as_member(
    client: &Client,
    consume: &Consume,
    topic: TopicName,
    group: GroupId,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let consumer = client.consumer(ConsumerConfig {
        group_id: Some(group),
        auto_offset_reset: if consume.from_beginning { OffsetReset::Earliest } else { OffsetReset::Latest },
        ..ConsumerConfig::default()
    });
    consumer.subscribe(Subscription::Topics(vec![topic]))?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut printed = BTreeMap::new();
    let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    loop {
        let event = tokio::select! {
            event = consumer.poll_event(Duration::from_millis(500)) => event?,
            _ = interrupts.recv() => break,
        };
        match event {
            ConsumerEvent::Records(batches) => {
                for records in batches {
                    let enough = printer.print(&records)?;
                    printed.insert((*records.partition).clone(), enough.unwrap_or(records.next_offset));
                    if enough.is_some() {
                        commit(&consumer, &mut printed).await?;
                        consumer.close().await;
                        return Ok(());
                    }
                }
            }
            ConsumerEvent::Assigned(_) => ends = consumer.end_offsets(&consumer.assignment()).await?,
            ConsumerEvent::Revoked(_) => {}
            ConsumerEvent::Lost(lost) => printed.retain(|partition, _| !lost.contains(partition)),
        }
        commit(&consumer, &mut printed).await?;
        let at_end = |partition: &TopicPartition| {
            ends.get(partition).is_some_and(|end| consumer.position(partition).is_some_and(|at| at >= *end))
        };
        let mine = consumer.assignment();
        if consume.exit_at_end && !mine.is_empty() && mine.iter().all(at_end) {
            break;
        }
    }
    commit(&consumer, &mut printed).await?;
    consumer.close().await;
    Ok(())
}

async fn commit(consumer: &Consumer, printed: &mut BTreeMap<TopicPartition, Offset>) -> Result<(), Failure> {
    if !printed.is_empty() {
        consumer.commit(printed).await?;
        printed.clear();
    }
    Ok(())
}

struct Printer {
    json: bool,
    verbose: bool,
    left: Option<u64>,
}

impl Printer {
    /// Prints records; when that makes enough of them, returns the offset after the last one printed.
    fn print(&mut self, records: &PartitionRecords) -> Result<Option<Offset>, Failure> {
        let mut out = std::io::stdout().lock();
        for record in records.records() {
            let record = record?;
            if self.json {
                writeln!(out, "{}", as_json(&records.partition, &record))?;
            } else {
                self.as_text(&mut out, &records.partition, &record)?;
            }
            if let Some(left) = &mut self.left {
                *left -= 1;
                if *left == 0 {
                    out.flush()?;
                    return Ok(Some(record.offset.next()));
                }
            }
        }
        out.flush()?;
        Ok(None)
    }

    fn as_text(
        &self,
        out: &mut impl std::io::Write,
        partition: &TopicPartition,
        record: &Record<'_>,
    ) -> Result<(), Failure> {
        if self.verbose {
            write!(out, "{partition} @{} {} ", record.offset, time(record.timestamp_ms))?;
            for header in record.headers {
                write!(out, "{}={} ", String::from_utf8_lossy(header.key), header_text(header.value))?;
            }
            out.write_all(record.key.unwrap_or(b"null"))?;
            out.write_all(b" | ")?;
        }
        out.write_all(record.value.unwrap_or(b"null"))?;
        out.write_all(b"\n")?;
        Ok(())
    }
}

/// A header's value for people: what is no text is shown in hexadecimal digits.
fn header_text(value: Option<&[u8]>) -> String {
    let Some(bytes) = value else { return "null".to_owned() };
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

/// A record's time for people, in UTC; what is no time stays a number.
fn time(timestamp_ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    // The last millisecond of the year 9999.
    if !(0..253_402_300_800_000).contains(&timestamp_ms) {
        return timestamp_ms.to_string();
    }
    // Howard Hinnant's `civil_from_days`, for days since 1970 only.
    let days = timestamp_ms / DAY_MS + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, milliseconds) = (timestamp_ms % DAY_MS / 1_000, timestamp_ms % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// One record as a JSON object; bytes that are no text are shown as base64 under `…_base64`.
fn as_json(partition: &TopicPartition, record: &Record<'_>) -> Json {
    let mut object = serde_json::Map::new();
    object.insert("topic".to_owned(), json!(partition.topic.as_str()));
    object.insert("partition".to_owned(), json!(partition.partition));
    object.insert("offset".to_owned(), json!(record.offset.get()));
    object.insert("timestamp_ms".to_owned(), json!(record.timestamp_ms));
    insert_bytes(&mut object, "key", record.key);
    insert_bytes(&mut object, "value", record.value);
    let headers: Vec<_> = record
        .headers
        .into_iter()
        .map(|header| {
            let mut object = serde_json::Map::new();
            object.insert("name".to_owned(), json!(String::from_utf8_lossy(header.key)));
            insert_bytes(&mut object, "value", header.value);
            Json::Object(object)
        })
        .collect();
    object.insert("headers".to_owned(), Json::Array(headers));
    Json::Object(object)
}

fn insert_bytes(object: &mut serde_json::Map<String, Json>, name: &str, bytes: Option<&[u8]>) {
    use base64::Engine as _;
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => object.insert(name.to_owned(), Json::Null),
        Some((_, Ok(text))) => object.insert(name.to_owned(), json!(text)),
        Some((bytes, Err(_))) => {
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            object.insert(format!("{name}_base64"), json!(text))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_for_people() {
        let shown = [Some(&b"me"[..]), Some(&[0, 255]), Some(b"a\x1b[31m"), None].map(header_text);
        assert_eq!(shown, ["me", "0x00ff", "0x611b5b33316d", "null"]);
    }

    #[test]
    fn times_are_for_people() {
        for (timestamp_ms, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789, "2000-02-29T12:34:56.789Z"),
            (1_795_939_276_371, "2026-11-29T08:01:16.371Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-1, "-1"),
        ] {
            assert_eq!(time(timestamp_ms), shown);
        }
    }
}
