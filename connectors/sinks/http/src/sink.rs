//! The open sink.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Client;
use tokio_util::sync::CancellationToken;
use towpath_api::{ConnectorError, Durability, Op, Rejected, Sink, SinkBatch, Written};
use towpath_types::{Offset, TopicId, TopicPartition};

use super::config::Config;
use super::delivery::{Delivery, Item, write_item};

/// What the receiver has of a partition.
#[derive(Debug, Default)]
struct Sent {
    /// Every record before this offset was taken or refused.
    next: i64,
    /// Those that were refused: when the rest of their batch comes again, it is not sent twice.
    refused: BTreeSet<i64>,
    /// What a flush tells.
    durable: Option<i64>,
}

/// A task's sink.
#[derive(Debug)]
pub(crate) struct HttpTask {
    delivery: Delivery,
    sent: HashMap<TopicPartition, Sent>,
}

impl HttpTask {
    pub(crate) fn new(config: Config, client: Client, stop: CancellationToken) -> Self {
        Self { delivery: Delivery { config, client, stop }, sent: HashMap::new() }
    }

    /// Records of the batch that the receiver does not have yet.
    fn items(&self, batch: &SinkBatch, sent: &Sent) -> Vec<Item> {
        let full = self.delivery.config.full;
        let mut buffer = Vec::new();
        let mut items = Vec::with_capacity(batch.batch.len());
        for (index, record) in batch.batch.records().enumerate() {
            let offset = record.offset();
            let is_known = offset < sent.next && !sent.refused.contains(&offset);
            if is_known || (!full && record.op() == Some(Op::Tombstone)) {
                continue;
            }
            buffer.clear();
            write_item(&mut buffer, &batch.partition, &record, full);
            items.push(Item { index, offset, json: Bytes::copy_from_slice(&buffer) });
        }
        items
    }

    /// Sends `items` in order. A request that is refused is halved until the records at fault are found.
    async fn deliver(
        &self,
        partition: &TopicPartition,
        items: &[Item],
    ) -> Result<Vec<(i64, Rejected)>, ConnectorError> {
        let mut rejected = Vec::new();
        let mut rest = items;
        while !rest.is_empty() {
            let (request, after) = rest.split_at(self.delivery.fill(rest));
            rest = after;
            let mut parts = vec![request];
            while let Some(part) = parts.pop() {
                let Some(error) = self.delivery.send(partition, part).await? else { continue };
                match part {
                    [item] => rejected.push((item.offset, Rejected { index: item.index, error })),
                    _ => {
                        let (left, right) = part.split_at(part.len() / 2);
                        parts.push(right);
                        parts.push(left);
                    }
                }
            }
        }
        Ok(rejected)
    }
}

#[async_trait]
impl Sink for HttpTask {
    async fn assign(
        &mut self,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        for (partition, _) in added {
            self.sent.insert(partition.clone(), Sent::default());
        }
        // The receiver keeps no positions: the group's committed offsets count.
        Ok(BTreeMap::new())
    }

    async fn write(&mut self, batch: SinkBatch) -> Result<Written, ConnectorError> {
        let partition = batch.partition.as_ref();
        let sent = self.sent.get(partition).ok_or_else(|| {
            ConnectorError::bug("SINK_NOT_ASSIGNED", format!("{partition} is not this task's"))
        })?;
        let items = self.items(&batch, sent);
        let rejected = self.deliver(partition, &items).await?;
        let next = batch.next_offset.get();
        let Some(sent) = self.sent.get_mut(partition) else {
            return Err(ConnectorError::bug("SINK_NOT_ASSIGNED", format!("{partition} went away")));
        };
        sent.next = sent.next.max(next);
        sent.refused = rejected.iter().map(|(offset, _)| *offset).collect();
        if rejected.is_empty() {
            sent.durable = Some(next);
            return Ok(Written::durable());
        }
        let mut rejected: Vec<_> = rejected.into_iter().map(|(_, rejected)| rejected).collect();
        rejected.sort_by_key(|rejected| rejected.index);
        // R5: the position stays before them until they are durable in the dead-letter topic.
        Ok(Written { durability: Durability::Accepted, rejected })
    }

    async fn flush(&mut self) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        // Every write was taken by the receiver when it returned.
        let durable = |(partition, sent): (&TopicPartition, &Sent)| {
            Some((partition.clone(), Offset::new(sent.durable?)))
        };
        Ok(self.sent.iter().filter_map(durable).collect())
    }

    async fn revoke(&mut self, removed: &[TopicPartition]) -> Result<(), ConnectorError> {
        for partition in removed {
            self.sent.remove(partition);
        }
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), ConnectorError> {
        Ok(())
    }
}
