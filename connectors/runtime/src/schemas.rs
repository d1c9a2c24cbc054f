//! The compacted topic of schemas: written before the first record that needs them, read when a record names them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Mutex;
use towpath_api::{ConnectorError, EventSchema, SchemaId};
use towpath_client::{Client, Producer, ProducerRecord};
use towpath_formats::header::SCHEMAS_TOPIC;
use towpath_types::{Offset, TopicName, TopicPartition};

use crate::error::cluster_error;
use crate::reader::read_to_end;
use crate::topics::{TopicKind, Topics};

/// Bytes of schemas (as JSON) that are kept before the cache starts anew.
const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Schemas remembered as written before that starts anew; they are then written once more.
const WRITTEN_MAX: usize = 100_000;

#[derive(Debug, Default)]
struct Cache {
    schemas: HashMap<SchemaId, Arc<EventSchema>>,
    unreadable: HashSet<SchemaId>,
    bytes: usize,
    next: Offset0,
}

/// The next offset to read; nothing has been read at first.
type Offset0 = Option<Offset>;

#[derive(Debug)]
pub(crate) struct SchemaStore {
    client: Client,
    topics: Arc<Topics>,
    written: parking_lot::Mutex<HashSet<SchemaId>>,
    cache: Mutex<Cache>,
}

fn schemas_topic() -> Result<TopicName, ConnectorError> {
    TopicName::new(SCHEMAS_TOPIC).map_err(|error| ConnectorError::bug("TOPIC_NAME", error.to_string()))
}

impl SchemaStore {
    pub(crate) fn new(client: Client, topics: Arc<Topics>) -> Self {
        Self { client, topics, written: parking_lot::Mutex::default(), cache: Mutex::default() }
    }

    /// Makes sure that the schema is durable in the topic; called before the first record under it is sent.
    pub(crate) async fn ensure(
        &self,
        schema: &Arc<EventSchema>,
        producer: &Producer,
    ) -> Result<(), ConnectorError> {
        let id = schema.id();
        if self.written.lock().contains(&id) {
            return Ok(());
        }
        let topic = schemas_topic()?;
        self.topics.ensure(&topic, TopicKind::State).await?;
        let key = id.to_string();
        let value = schema.to_json();
        let record = ProducerRecord {
            partition: Some(0),
            key: Some(key.as_bytes()),
            value: Some(&value),
            ..ProducerRecord::new(&topic)
        };
        let failed = |error| cluster_error(&format!("storing the schema of {}", schema.name()), error);
        producer.send_with_ack(record).await.map_err(failed)?.await.map_err(failed)?;
        let mut written = self.written.lock();
        if written.len() >= WRITTEN_MAX {
            written.clear();
        }
        written.insert(id);
        Ok(())
    }

    /// The schema called `id`; `None` if the topic does not hold it.
    pub(crate) async fn get(&self, id: SchemaId) -> Result<Option<Arc<EventSchema>>, ConnectorError> {
        let mut cache = self.cache.lock().await;
        if let Some(known) = cache.schemas.get(&id) {
            return Ok(Some(Arc::clone(known)));
        }
        let topic = schemas_topic()?;
        if self.topics.describe(&topic).await?.is_none() {
            return Ok(None);
        }
        let partition = TopicPartition::new(topic, 0);
        let from = cache.next;
        let extent = read_to_end(&self.client, &partition, from, |record| {
            cache.learn(record.key, record.value);
            Ok(())
        })
        .await?;
        cache.next = Some(extent.end);
        if cache.unreadable.contains(&id) {
            // R7: a stored schema that cannot be read is never guessed.
            let message = format!("the schema {id} in {SCHEMAS_TOPIC} cannot be read");
            return Err(ConnectorError::terminal("SCHEMA_UNREADABLE", message)
                .with_hint("was it written by a newer version of Towpath?"));
        }
        let found = cache.schemas.get(&id).map(Arc::clone);
        if found.is_none() && extent.begin > Offset::ZERO {
            // R7: what was cut off may have held it; the records under it are no rubbish.
            let message = format!(
                "the schema {id} is missing, and {SCHEMAS_TOPIC} begins only at offset {}",
                extent.begin
            );
            return Err(ConnectorError::terminal("SCHEMAS_TRUNCATED", message)
                .with_hint("its cleanup.policy has to be `compact` alone; restore the topic"));
        }
        cache.shrink(id);
        Ok(found)
    }
}

impl Cache {
    fn learn(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let Some(id) = key.and_then(parse_id) else { return };
        let Some(value) = value else {
            self.schemas.remove(&id);
            return;
        };
        match EventSchema::from_json(value) {
            Ok(schema) => {
                self.unreadable.remove(&id);
                if self.schemas.insert(id, Arc::new(schema)).is_none() {
                    self.bytes += value.len();
                }
            }
            Err(error) => {
                tracing::warn!(%id, %error, "a stored schema cannot be read");
                self.unreadable.insert(id);
            }
        }
    }

    /// R10: above the bound only the schema just asked for stays; the next unknown one reads the topic again.
    fn shrink(&mut self, keep: SchemaId) {
        if self.bytes > CACHE_BYTES_MAX {
            self.schemas.retain(|id, _| *id == keep);
            self.bytes = 0;
            self.next = None;
        }
    }
}

fn parse_id(key: &[u8]) -> Option<SchemaId> {
    let text = std::str::from_utf8(key).ok()?;
    let raw = u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16)?;
    Some(SchemaId(raw.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_api::RowSchema;

    #[test]
    fn ids_come_back_from_their_keys() {
        let schema = EventSchema::new("t", Arc::new(RowSchema::default()));
        assert_eq!(parse_id(schema.id().to_string().as_bytes()), Some(schema.id()));
        for bad in [&b"12"[..], b"zzzzzzzzzzzzzzzz", b"\xff"] {
            assert_eq!(parse_id(bad), None);
        }
    }

    #[test]
    fn tombstones_and_rubbish_are_told_apart() {
        let schema = EventSchema::new("t", Arc::new(RowSchema::default()));
        let key = schema.id().to_string();
        let mut cache = Cache::default();
        cache.learn(Some(key.as_bytes()), Some(b"rubbish"));
        assert!(cache.unreadable.contains(&schema.id()) && cache.schemas.is_empty());
        cache.learn(Some(key.as_bytes()), Some(&schema.to_json()));
        assert!(cache.unreadable.is_empty() && cache.schemas.contains_key(&schema.id()));
        cache.learn(Some(key.as_bytes()), None);
        assert!(cache.schemas.is_empty());
    }
}
