//! The compacted topic of source offsets.
//!
//! Keys are JSON: `["pipeline", task, "source partition"]` for the source's own documents, and
//! `["pipeline", task, "topic", partition]` for the next offset in a target partition after the last record that the
//! stored source offsets cover: where a restarted task begins to look for what it has already written. Before that
//! place there may be records that are not covered: a predecessor's, in lanes that the source had not replayed yet
//! when others had gone on. How far those reach is stored beside the offset.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use towpath_api::{ConnectorError, SourceOffsets};
use towpath_client::{Ack, Client, Producer, ProducerRecord};
use towpath_formats::header::OFFSETS_TOPIC;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use crate::error::cluster_error;
use crate::predecessor::Predecessor;
use crate::reader::read_to_end;
use crate::topics::{TopicKind, Topics};

/// A place in a target partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetOffset {
    pub(crate) id: TopicId,
    pub(crate) next: Offset,
    /// Lane → the highest position before `next`, where that is not covered.
    pub(crate) ahead: Lanes,
}

/// Lane → position.
pub(crate) type Lanes = BTreeMap<u64, Vec<u8>>;

/// What is stored for a task.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stored {
    pub(crate) offsets: SourceOffsets,
    pub(crate) targets: BTreeMap<TopicPartition, TargetOffset>,
}

fn offsets_topic() -> Result<TopicName, ConnectorError> {
    TopicName::new(OFFSETS_TOPIC).map_err(|error| ConnectorError::bug("TOPIC_NAME", error.to_string()))
}

/// Reads what is stored for a task, once its predecessor can store nothing any more. Source partitions that another task of the pipeline stored are there too, the
/// newest document of each: when the number of tasks changes, work moves with its offsets.
pub(crate) async fn load(
    client: &Client,
    topics: &Topics,
    pipeline: &str,
    task: u32,
    predecessor: &mut Predecessor,
) -> Result<Stored, ConnectorError> {
    let topic = offsets_topic()?;
    let info = topics.ensure(&topic, TopicKind::State).await?;
    predecessor.of_topic(&topic, info.partitions).await?;
    let mut stored = Stored::default();
    let partition = TopicPartition::new(topic, 0);
    let extent = read_to_end(client, &partition, None, |record| {
        stored.learn(pipeline, task, record.key, record.value).map_err(|what| {
            // R7: a stored position that cannot be decoded is never replaced by an end.
            let message = format!("the record at offset {} of {OFFSETS_TOPIC} {what}", record.offset);
            ConnectorError::terminal("OFFSETS_UNREADABLE", message)
                .with_hint("restore the topic, or remove the record: a null value for its key")
        })
    })
    .await?;
    if extent.begin > Offset::ZERO {
        // R7: compaction leaves the newest offset of everything; what was cut off may have held ours, and without them
        // a source would silently begin anew.
        let message = format!("the records before offset {} of {OFFSETS_TOPIC} were removed", extent.begin);
        return Err(ConnectorError::terminal("OFFSETS_TRUNCATED", message).with_hint(
            "its cleanup.policy has to be `compact` alone; restore the topic, or let every source begin anew: delete \
             it, and type `towpath pipelines pause NAME`, `reset NAME` and `resume NAME` for each pipeline that has one",
        ));
    }
    Ok(stored)
}

/// What is stored for a pipeline, by all of its tasks.
#[derive(Debug, Default)]
pub(crate) struct StoredKeys {
    /// The keys of the source's own documents.
    pub(crate) documents: BTreeSet<String>,
    /// Target partitions.
    pub(crate) targets: BTreeSet<TopicPartition>,
}

/// Looks at what is stored for a pipeline.
pub(crate) async fn keys(
    client: &Client,
    topics: &Topics,
    pipeline: &str,
) -> Result<StoredKeys, ConnectorError> {
    let topic = offsets_topic()?;
    topics.ensure(&topic, TopicKind::State).await?;
    let mut keys = StoredKeys::default();
    read_to_end(client, &TopicPartition::new(topic, 0), None, |record| {
        keys.learn(pipeline, record.key);
        Ok(())
    })
    .await?;
    Ok(keys)
}

impl StoredKeys {
    /// Whatever is no key of this pipeline is left alone.
    fn learn(&mut self, pipeline: &str, key: Option<&[u8]>) -> Option<()> {
        let key = std::str::from_utf8(key?).ok()?;
        let parts: Vec<Json> = serde_json::from_str(key).ok()?;
        match parts.as_slice() {
            [name, _, Json::String(_)] if name == pipeline => {
                self.documents.insert(key.to_owned());
            }
            [name, _, Json::String(topic), partition] if name == pipeline => {
                let partition = i32::try_from(partition.as_i64()?).ok()?;
                self.targets.insert(TopicPartition::new(TopicName::new(topic).ok()?, partition));
            }
            _ => {}
        }
        Some(())
    }
}

/// Writes a tombstone for each key, durably.
pub(crate) async fn forget(producer: &Producer, keys: &BTreeSet<String>) -> Result<(), ConnectorError> {
    let topic = offsets_topic()?;
    let failed = |error| cluster_error("forgetting the source's offsets", error);
    let mut acks: Vec<Ack> = Vec::with_capacity(keys.len());
    for key in keys {
        let record =
            ProducerRecord { partition: Some(0), key: Some(key.as_bytes()), ..ProducerRecord::new(&topic) };
        acks.push(producer.send_with_ack(record).await.map_err(failed)?);
    }
    for ack in acks {
        ack.await.map_err(failed)?;
    }
    Ok(())
}

impl Stored {
    fn learn(
        &mut self,
        pipeline: &str,
        task: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), &'static str> {
        let key: Json =
            serde_json::from_slice(key.ok_or("has no key")?).map_err(|_| "has a key that is no JSON")?;
        let parts = key.as_array().ok_or("has a key that is no array")?;
        if parts.first().and_then(Json::as_str) != Some(pipeline) {
            return Ok(());
        }
        let value: Option<Json> =
            value.map(serde_json::from_slice).transpose().map_err(|_| "has a value that is no JSON")?;
        match parts.as_slice() {
            [_, _, Json::String(partition)] => {
                let document = value.unwrap_or(Json::Null);
                self.offsets.merge(SourceOffsets { partitions: [(partition.clone(), document)].into() });
            }
            [_, index, Json::String(topic), partition] if index.as_u64() == Some(task.into()) => {
                let topic = TopicName::new(topic).map_err(|_| "names no topic")?;
                let partition = partition.as_i64().and_then(|partition| i32::try_from(partition).ok());
                let target = TopicPartition::new(topic, partition.ok_or("names no partition")?);
                match value {
                    None => {
                        self.targets.remove(&target);
                    }
                    Some(value) => {
                        let offset = target_offset(&value).ok_or("holds no target offset")?;
                        self.targets.insert(target, offset);
                    }
                }
            }
            [_, _, Json::String(_), _] => {}
            _ => return Err("has a key of an unknown form"),
        }
        Ok(())
    }
}

fn target_offset(value: &Json) -> Option<TargetOffset> {
    let id = value.get("topic_id")?.as_str()?.parse().ok()?;
    let next = value.get("next_offset")?.as_i64()?;
    let ahead = match value.get("ahead") {
        None => Lanes::new(),
        Some(lanes) => lanes.as_object()?.iter().map(lane).collect::<Option<_>>()?,
    };
    Some(TargetOffset { id, next: Offset::new(next), ahead })
}

fn lane((lane, position): (&String, &Json)) -> Option<(u64, Vec<u8>)> {
    let digits = position.as_str()?.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let position = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<_>>()?;
    Some((lane.parse().ok()?, position))
}

fn target_document(target: &TargetOffset) -> Json {
    let mut document = json!({"topic_id": target.id.to_string(), "next_offset": target.next.get()});
    if !target.ahead.is_empty() {
        let hex = |position: &[u8]| position.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let lanes = target.ahead.iter().map(|(lane, position)| (lane.to_string(), hex(position)));
        document["ahead"] = lanes.collect::<BTreeMap<_, _>>().into_iter().collect();
    }
    document
}

/// What is to be stored.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Source partition → document; null forgets it.
    pub(crate) offsets: BTreeMap<String, Json>,
    pub(crate) targets: BTreeMap<TopicPartition, TargetOffset>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.targets.is_empty()
    }
}

/// Sends the changes; they are durable when all acks say so. The source's offsets go first: a target offset that is
/// ahead of them would hide records that are going to be read again.
pub(crate) async fn store(
    producer: Producer,
    pipeline: std::sync::Arc<str>,
    task: u32,
    changes: std::sync::Arc<Changes>,
) -> Result<(), ConnectorError> {
    let topic = offsets_topic()?;
    let failed = |error| cluster_error("storing the source's offsets", error);
    let mut acks: Vec<Ack> = Vec::with_capacity(changes.offsets.len() + changes.targets.len());
    let source = changes.offsets.iter().map(|(partition, document)| {
        let value = (!document.is_null()).then(|| document.to_string());
        (json!([&*pipeline, task, partition]).to_string(), value)
    });
    let targets = changes.targets.iter().map(|(target, offset)| {
        let key = json!([&*pipeline, task, target.topic.as_str(), target.partition]).to_string();
        (key, Some(target_document(offset).to_string()))
    });
    for (key, value) in source.chain(targets) {
        let record = ProducerRecord {
            partition: Some(0),
            key: Some(key.as_bytes()),
            value: value.as_deref().map(str::as_bytes),
            ..ProducerRecord::new(&topic)
        };
        acks.push(producer.send_with_ack(record).await.map_err(failed)?);
    }
    for ack in acks {
        ack.await.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(stored: &mut Stored, key: &Json, value: Option<&Json>) -> Result<(), &'static str> {
        let value = value.map(Json::to_string);
        stored.learn("p", 1, Some(key.to_string().as_bytes()), value.as_deref().map(str::as_bytes))
    }

    #[test]
    fn the_newest_document_of_each_partition_counts() {
        let mut stored = Stored::default();
        let id = TopicId::random();
        let target = json!({"topic_id": id.to_string(), "next_offset": 7});
        learn(&mut stored, &json!(["p", 1, "a"]), Some(&json!(1))).unwrap();
        learn(&mut stored, &json!(["p", 1, "a"]), Some(&json!({"lsn": 2}))).unwrap();
        learn(&mut stored, &json!(["p", 0, "b"]), Some(&json!(3))).unwrap();
        learn(&mut stored, &json!(["q", 1, "a"]), Some(&json!(9))).unwrap();
        learn(&mut stored, &json!(["p", 1, "t", 0]), Some(&target)).unwrap();
        learn(&mut stored, &json!(["p", 0, "t", 1]), Some(&target)).unwrap();
        assert_eq!(
            stored.offsets.partitions,
            [("a".to_owned(), json!({"lsn": 2})), ("b".to_owned(), json!(3))].into()
        );
        let partition = TopicPartition::new(TopicName::new("t").unwrap(), 0);
        let stored_target = |ahead| TargetOffset { id, next: Offset::new(7), ahead };
        assert_eq!(stored.targets[&partition], stored_target(Lanes::new()));
        let ahead = stored_target([(u64::MAX, vec![0, 255, 16]), (3, vec![])].into());
        learn(&mut stored, &json!(["p", 1, "t", 0]), Some(&target_document(&ahead))).unwrap();
        assert_eq!(stored.targets, [(partition, ahead)].into());
        learn(&mut stored, &json!(["p", 1, "a"]), None).unwrap();
        assert_eq!(stored.offsets.partitions.len(), 1);
    }

    #[test]
    fn everything_that_is_stored_for_a_pipeline_is_found() {
        let mut keys = StoredKeys::default();
        for key in [r#"["p",0,"a"]"#, r#"["p",1,"b"]"#, r#"["q",0,"a"]"#, r#"["p",0,"t",2]"#, "rubbish"] {
            keys.learn("p", Some(key.as_bytes()));
        }
        assert_eq!(keys.documents.iter().collect::<Vec<_>>(), [r#"["p",0,"a"]"#, r#"["p",1,"b"]"#]);
        assert_eq!(keys.targets, [TopicPartition::new(TopicName::new("t").unwrap(), 2)].into());
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut stored = Stored::default();
        assert!(stored.learn("p", 0, Some(b"rubbish"), None).is_err());
        assert!(stored.learn("p", 0, Some(br#"["p",0,"a"]"#), Some(b"{")).is_err());
        assert!(learn(&mut stored, &json!(["p", 1, "t", 0]), Some(&json!({"next_offset": "x"}))).is_err());
        for ahead in [json!(7), json!({"x": "00"}), json!({"1": "0g"}), json!({"1": 5})] {
            let target = json!({"topic_id": TopicId::random().to_string(), "next_offset": 7, "ahead": ahead});
            assert!(learn(&mut stored, &json!(["p", 1, "t", 0]), Some(&target)).is_err(), "{target}");
        }
        assert!(stored.learn("p", 0, Some(br#"["p"]"#), None).is_err());
        assert!(stored.learn("p", 0, Some(br#"["other"]"#), None).is_ok());
    }
}
