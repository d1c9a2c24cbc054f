//! Writes what MirrorMaker 2's clients look for (`mirrormaker_topics`): checkpoints at the target, and heartbeats at the source,
//! which are mirrored like any topic and show at the target that the link is alive.

use std::collections::BTreeMap;

use towpath_client::{Client, ClientError, Producer, ProducerConfig, ProducerRecord};
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

use super::status::now_ms;
use super::{LinkConfig, LinkError, state};
use crate::mm2;
use crate::naming::HEARTBEATS;

/// Where a group stands, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Translated {
    pub(super) group: GroupId,
    /// The target's partition.
    pub(super) target: TopicPartition,
    pub(super) upstream: Offset,
    pub(super) downstream: Offset,
}

/// See the module.
pub(super) struct Announcer {
    key: Vec<u8>,
    heartbeats: TopicName,
    checkpoints: TopicName,
    source: Producer,
    target: Producer,
    /// What was told last.
    told: BTreeMap<(GroupId, TopicPartition), (Offset, Offset)>,
}

impl Announcer {
    pub(super) async fn begin(
        config: &LinkConfig,
        source: &Client,
        target: &Client,
    ) -> Result<Self, LinkError> {
        let heartbeats = TopicName::new(HEARTBEATS).map_err(LinkError::Link)?;
        let checkpoints = mm2::checkpoints_topic(&config.from).map_err(LinkError::Link)?;
        state::create(source, &heartbeats).await.map_err(LinkError::Source)?;
        state::create(target, &checkpoints).await.map_err(LinkError::Target)?;
        Ok(Self {
            key: mm2::heartbeat_key(&config.from, &config.to),
            heartbeats,
            checkpoints,
            source: source.producer(ProducerConfig::default()),
            target: target.producer(ProducerConfig::default()),
            told: BTreeMap::new(),
        })
    }

    /// Tells that the link is alive, and of the groups what has changed. They never go back: whoever reads may have gone on
    /// from there already.
    pub(super) async fn tell(&mut self, translated: Vec<Translated>) -> Result<(), LinkError> {
        let value = mm2::heartbeat(now_ms());
        write(&self.source, &self.heartbeats, &[(&self.key, &value)]).await.map_err(LinkError::Source)?;
        let mut records = Vec::new();
        for it in translated {
            let key = (it.group, it.target);
            // What is mirrored only now is translated better than before.
            let now = (it.upstream, it.downstream);
            let goes_on = |told: &(Offset, Offset)| *told != now && told.0 <= now.0 && told.1 <= now.1;
            if self.told.get(&key).is_none_or(goes_on) {
                let bytes = mm2::checkpoint_key(&key.0, &key.1);
                records.push((bytes, mm2::checkpoint(it.upstream, it.downstream)));
                self.told.insert(key, now);
            }
        }
        let records: Vec<_> = records.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
        write(&self.target, &self.checkpoints, &records).await.map_err(LinkError::Target)
    }
}

async fn write(
    producer: &Producer,
    topic: &TopicName,
    records: &[(&[u8], &[u8])],
) -> Result<(), ClientError> {
    for (key, value) in records {
        let record = ProducerRecord {
            partition: Some(0),
            key: Some(key),
            value: Some(value),
            ..ProducerRecord::new(topic)
        };
        producer.send(record).await?;
    }
    if records.is_empty() { Ok(()) } else { producer.flush().await }
}
