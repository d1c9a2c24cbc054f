//! Produce requests that a client sends in one burst: those for one partition are appended together.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use towpath_record::{BatchHeader, Compression};
use towpath_replica::Partition;
use towpath_wire::produce::{PartitionProduceData, TopicProduceResponse};
use towpath_wire::{Message, ProduceRequest};

use super::{Work, begin_work, refusal_of};
use crate::connection::{ConnectionEnd, Peer};
use crate::handlers::{Begun, Opened, is_produce, open};
use crate::state::BrokerState;

/// Where a plain request goes: requests with the same target may be appended together.
struct Target {
    partition: Arc<Partition>,
    acks: i16,
}

impl Target {
    fn is(&self, other: Option<&Self>) -> bool {
        other.is_some_and(|it| Arc::ptr_eq(&self.partition, &it.partition) && self.acks == it.acks)
    }
}

/// Begins the first of `frames`, which are Produce requests, and those behind it that belong to the same burst; each with
/// the bytes of its frame, in their order. What is left in `frames` comes after them.
///
/// # Errors
/// [`ConnectionEnd`] for what cannot be read: the connection ends.
pub(crate) fn begin_burst(
    broker: &Arc<BrokerState>,
    peer: &Peer,
    frames: &mut VecDeque<Bytes>,
) -> Result<Vec<(usize, Begun)>, ConnectionEnd> {
    let mut together: Vec<(Bytes, Work)> = Vec::with_capacity(frames.len());
    let mut target: Option<Target> = None;
    while let Some(frame) = frames.front().filter(|frame| is_produce(frame)) {
        let work = match read(broker, peer, frame.clone()) {
            Ok(work) => work,
            Err(end) if together.is_empty() => return Err(end),
            // What came before it is begun first.
            Err(_) => break,
        };
        let this = plain(&work);
        if target.as_ref().is_some_and(|target| !target.is(this.as_ref())) {
            break;
        }
        let Some(frame) = frames.pop_front() else { break };
        if this.is_none() {
            return Ok(vec![(frame.len(), begin_work(work))]);
        }
        target = this;
        together.push((frame, work));
    }
    Ok(target.map_or_else(Vec::new, |target| append_together(&target, together, frames)))
}

fn read(broker: &Arc<BrokerState>, peer: &Peer, frame: Bytes) -> Result<Work, ConnectionEnd> {
    let Opened { cx, mut body, .. } = open(broker, peer, frame)?;
    let request = ProduceRequest::decode(&mut body, cx.version)?;
    Ok(Work::new(Arc::clone(broker), cx, request))
}

/// Appends them; or the first of them alone, and the others are left.
fn append_together(
    target: &Target,
    mut together: Vec<(Bytes, Work)>,
    frames: &mut VecDeque<Bytes>,
) -> Vec<(usize, Begun)> {
    let Target { partition, acks } = target;
    let batches: Vec<Bytes> = together.iter().filter_map(|(_, work)| only(work)?.records.clone()).collect();
    let appended = if batches.len() > 1 { partition.append_burst(&batches, *acks == -1) } else { None };
    let Some(results) = appended else {
        together.drain(1..).rev().for_each(|(frame, _)| frames.push_front(frame));
        return together.into_iter().map(|(frame, work)| (frame.len(), begin_work(work))).collect();
    };
    let finished = together.into_iter().zip(results).map(|((frame, mut work), result)| {
        if let Some(topic) = work.topics.next() {
            let index = topic.partition_data.first().map_or(0, |data| data.index);
            work.responses.push(TopicProduceResponse {
                name: topic.name,
                topic_id: topic.topic_id,
                partition_responses: Vec::with_capacity(1),
            });
            let result = result.map(|appended| (Arc::clone(partition), appended));
            let result = result.map_err(|error| refusal_of(partition, error, true));
            let response = work.told_of(index, result);
            work.respond(response);
        }
        (frame.len(), work.finish())
    });
    finished.collect()
}

/// The target of a request for one partition with one batch that is neither compressed nor of a transaction, where an
/// answer is wanted.
fn plain(work: &Work) -> Option<Target> {
    if work.refusal.is_some() || work.transactional_id.is_some() || work.acks == 0 {
        return None;
    }
    let data = only(work)?;
    let header = BatchHeader::parse(data.records.as_ref()?).ok()?;
    let is_one = header.size_in_bytes() == data.records.as_ref()?.len();
    if !is_one || header.is_transactional() || header.compression().ok()? != Compression::None {
        return None;
    }
    let replicas = work.find(work.topics.as_slice().first()?).ok()?;
    let partition = replicas.partition(data.index).ok()??;
    partition.log().config().compression.is_none().then_some(Target { partition, acks: work.acks })
}

fn only(work: &Work) -> Option<&PartitionProduceData> {
    match work.topics.as_slice() {
        [topic] => match topic.partition_data.as_slice() {
            [data] => Some(data),
            _ => None,
        },
        _ => None,
    }
}
