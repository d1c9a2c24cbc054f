//! `towpath consume`: records to standard output.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value as Json, json};
use towpath_client::{
    Client, Consumer, ConsumerConfig, ConsumerEvent, OffsetReset, PartitionRecords, Record, StartAt,
    Subscription,
};
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

use super::cluster::{all_done, connect};
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
        return Err(Failure::new(format!("{topic} has no such partition")));
    }
    let start = match consume.offset {
        Some(offset) => StartAt::Offset(Offset::new(offset)),
        None if consume.from_beginning => StartAt::Earliest,
        None => StartAt::Latest,
    };
    let consumer = client.consumer(ConsumerConfig::default());
    let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    if consume.exit_at_end {
        ends = consumer.end_offsets(&wanted).await?;
        let begins = consumer.beginning_offsets(&wanted).await?;
        ends.retain(|partition, end| {
            let first = match start {
                StartAt::Offset(offset) => Some(offset),
                StartAt::Earliest => begins.get(partition).copied(),
                _ => None,
            };
            first.is_some_and(|first| first < *end)
        });
        if ends.is_empty() {
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

/// Reads as a member of a group, and commits what was printed.
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
    let mut printed = BTreeMap::new();
    let mut quiet = 0;
    loop {
        match consumer.poll_event(Duration::from_millis(500)).await? {
            ConsumerEvent::Records(batches) => {
                quiet = if batches.is_empty() && !consumer.assignment().is_empty() { quiet + 1 } else { 0 };
                for records in batches {
                    let enough = printer.print(&records)?;
                    printed.insert((*records.partition).clone(), enough.unwrap_or(records.next_offset));
                    if enough.is_some() {
                        consumer.commit(&printed).await?;
                        consumer.close().await;
                        return Ok(());
                    }
                }
            }
            ConsumerEvent::Revoked(_) | ConsumerEvent::Lost(_) | ConsumerEvent::Assigned(_) => quiet = 0,
        }
        commit(&consumer, &mut printed).await?;
        if consume.exit_at_end && quiet >= 2 {
            consumer.close().await;
            return Ok(());
        }
    }
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
            write!(out, "{partition} @{} {} ", record.offset, record.timestamp_ms)?;
            for header in record.headers {
                let value = header.value.map_or("null".into(), String::from_utf8_lossy);
                write!(out, "{}={value} ", String::from_utf8_lossy(header.key))?;
            }
            out.write_all(record.key.unwrap_or(b"null"))?;
            out.write_all(b" | ")?;
        }
        out.write_all(record.value.unwrap_or(b"null"))?;
        out.write_all(b"\n")?;
        Ok(())
    }
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
