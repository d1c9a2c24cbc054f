//! Which partitions a sink task reads, from where, and how far the sink holds them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use towpath_api::{ConnectorError, Sink, TopicPattern};
use towpath_client::{Client, ClientError, CommittedOffset, Consumer, PartitionRecords, StartAt, murmur2};
use towpath_types::{LeaderEpoch, Offset, TopicId, TopicName, TopicPartition};

use crate::error::cluster_error;
use crate::sink_task::SinkUnit;

/// Positions of more partitions are not shown one by one.
const SHOWN_PARTITIONS: usize = 4;

/// Durable next offsets of all partitions of a pipeline's sink, from all its tasks here.
#[derive(Debug, Default)]
pub(crate) struct Held {
    tasks: Mutex<HashMap<u32, BTreeMap<TopicPartition, Offset>>>,
}

impl Held {
    pub(crate) fn forget(&self, task: u32) {
        self.tasks.lock().remove(&task);
    }

    fn set(&self, task: u32, partition: TopicPartition, offset: Offset) {
        self.tasks.lock().entry(task).or_default().insert(partition, offset);
    }

    fn remove(&self, task: u32, partition: &TopicPartition) {
        if let Some(held) = self.tasks.lock().get_mut(&task) {
            held.remove(partition);
        }
    }

    /// Whether the sink holds everything before `end`.
    pub(crate) fn has(&self, partition: &TopicPartition, end: Offset) -> bool {
        self.tasks.lock().values().any(|held| held.get(partition).is_some_and(|offset| *offset >= end))
    }
}

/// The partitions that match the patterns and belong to task `index` of `tasks`. Which task a partition belongs to
/// does not depend on what other partitions there are: growth moves nothing.
pub(crate) fn share(
    topics: &[(TopicName, TopicId, usize)],
    patterns: &[TopicPattern],
    index: u32,
    tasks: u32,
) -> BTreeMap<TopicPartition, TopicId> {
    let mut mine = BTreeMap::new();
    for (topic, id, partitions) in topics {
        if !patterns.iter().any(|pattern| pattern.matches(topic.as_str())) {
            continue;
        }
        let hash = (murmur2(topic.as_str().as_bytes()) & i32::MAX) as u32;
        for partition in 0..*partitions {
            let owner = (hash.wrapping_add(partition as u32)) % tasks.max(1);
            if owner == index {
                mine.insert(TopicPartition::new(topic.clone(), partition as i32), *id);
            }
        }
    }
    mine
}

/// All topics of the cluster.
pub(crate) async fn list_topics(client: &Client) -> Result<Vec<(TopicName, TopicId, usize)>, ConnectorError> {
    let listed = client.admin().list_topics().await;
    let listed = listed.map_err(|error| cluster_error("listing the topics", error))?;
    Ok(listed.into_iter().map(|topic| (topic.name, topic.id, topic.partitions)).collect())
}

pub(crate) struct Assignment {
    client: Client,
    consumer: Arc<Consumer>,
    patterns: Vec<TopicPattern>,
    index: u32,
    tasks: u32,
    held: Arc<Held>,
    wanted: BTreeMap<TopicPartition, TopicId>,
    current: BTreeMap<TopicPartition, TopicId>,
    durable: BTreeMap<TopicPartition, Offset>,
    /// Written, not durable yet.
    accepted: BTreeMap<TopicPartition, Offset>,
    committed: BTreeMap<TopicPartition, Offset>,
}

impl Assignment {
    pub(crate) fn new(unit: &SinkUnit, consumer: Consumer) -> Self {
        let tasks = unit.spec.sink.as_ref().map_or(1, |sink| sink.tasks_max.get());
        Self {
            client: unit.env.client.clone(),
            consumer: Arc::new(consumer),
            patterns: unit.spec.sink_topics(),
            index: unit.index,
            tasks,
            held: Arc::clone(&unit.held),
            wanted: BTreeMap::new(),
            current: BTreeMap::new(),
            durable: BTreeMap::new(),
            accepted: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    pub(crate) fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// Looks for topics and partitions; tells whether [`Assignment::apply`] has something to do.
    pub(crate) async fn changed(&mut self) -> Result<bool, ConnectorError> {
        let topics = list_topics(&self.client).await?;
        self.wanted = share(&topics, &self.patterns, self.index, self.tasks);
        for (partition, id) in &self.wanted {
            let known = self.current.get(partition);
            if let Some(known) = known.filter(|known| *known != id && !known.is_zero()) {
                // R7: positions in the old topic mean nothing in the new one.
                return Err(recreated(&partition.topic, &known.to_string(), *id));
            }
        }
        Ok(self.wanted != self.current)
    }

    /// Gives and takes partitions.
    pub(crate) async fn apply(&mut self, sink: &mut dyn Sink) -> Result<(), ConnectorError> {
        let gone: Vec<_> =
            self.current.keys().filter(|known| !self.wanted.contains_key(known)).cloned().collect();
        if !gone.is_empty() {
            sink.revoke(&gone).await?;
            for partition in &gone {
                let position = self.durable.get(partition).copied().unwrap_or(Offset::ZERO);
                tracing::warn!(%partition, %position, "the partition is gone: nothing behind this position was delivered");
                self.current.remove(partition);
                self.durable.remove(partition);
                self.accepted.remove(partition);
                self.committed.remove(partition);
                self.held.remove(self.index, partition);
            }
        }
        let added: Vec<_> = self
            .wanted
            .iter()
            .filter(|(partition, _)| !self.current.contains_key(partition))
            .map(|(partition, id)| (partition.clone(), *id))
            .collect();
        let starts = self.starts(sink, &added).await?;
        for (partition, start) in &starts {
            self.durable.insert(partition.clone(), *start);
            self.held.set(self.index, partition.clone(), *start);
        }
        self.current.extend(added);
        let assigned: Vec<_> = self
            .current
            .keys()
            .map(|partition| {
                let written = self.accepted.get(partition).or_else(|| self.durable.get(partition));
                (partition.clone(), written.map_or(StartAt::Earliest, |offset| StartAt::Offset(*offset)))
            })
            .collect();
        tracing::info!(partitions = assigned.len(), "a sink task reads other partitions");
        self.consumer.assign(&assigned).map_err(|error| cluster_error("assigning partitions", error))
    }

    /// Where to begin: what the sink itself holds; else what the group has committed; else the first record.
    async fn starts(
        &self,
        sink: &mut dyn Sink,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut starts = sink.assign(added).await?;
        // A sink with positions of its own that holds nothing of a partition may begin where the partition does.
        let holds = |partition| starts.get(partition).is_some_and(|start| *start > Offset::ZERO);
        let rest: Vec<_> = added.iter().filter(|(partition, _)| !holds(partition)).collect();
        if rest.is_empty() {
            return Ok(starts);
        }
        let partitions: Vec<_> = rest.iter().map(|(partition, _)| partition.clone()).collect();
        let committed = self.consumer.committed(&partitions).await;
        let mut committed = committed.map_err(|error| cluster_error("reading committed offsets", error))?;
        let beginnings = self.consumer.beginning_offsets(&partitions).await;
        let beginnings = beginnings.map_err(|error| cluster_error("looking up first offsets", error))?;
        for (partition, id) in rest {
            let begin = beginnings.get(partition).copied().unwrap_or(Offset::ZERO);
            let start = match (committed.remove(partition), starts.contains_key(partition)) {
                (Some(known), true) => empty_sink_start(&known, *id, begin),
                (Some(known), false) if belongs_to(&known, *id) => known.offset,
                // R7: an offset of a topic that no longer exists.
                (Some(known), false) => return Err(recreated(&partition.topic, &known.metadata, *id)),
                (None, _) => begin,
            };
            starts.insert(partition.clone(), start);
        }
        Ok(starts)
    }

    /// R7: records of another topic of the same name have nothing to do with the position that was asked for.
    pub(crate) fn check_identity(&self, records: &PartitionRecords) -> Result<(), ConnectorError> {
        match self.current.get(&*records.partition) {
            Some(id) if *id != records.topic_id && !id.is_zero() && !records.topic_id.is_zero() => {
                Err(recreated(&records.partition.topic, &id.to_string(), records.topic_id))
            }
            _ => Ok(()),
        }
    }

    /// The sink has taken everything before `next`.
    pub(crate) fn accepted(&mut self, partition: &TopicPartition, next: Offset) {
        match self.accepted.get_mut(partition) {
            Some(known) => *known = next,
            None => {
                self.accepted.insert(partition.clone(), next);
            }
        }
    }

    pub(crate) fn take_accepted(&mut self) -> BTreeMap<TopicPartition, Offset> {
        std::mem::take(&mut self.accepted)
    }

    /// Checks what a flush says: it must cover everything accepted, and nothing beyond.
    pub(crate) fn flushed(
        &mut self,
        flushed: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), ConnectorError> {
        for (partition, next) in self.take_accepted() {
            if flushed.get(&partition) != Some(&next) {
                let says = flushed.get(&partition).map_or_else(|| "nothing".to_owned(), Offset::to_string);
                let message =
                    format!("the sink was given {partition} up to {next}, and flushed up to {says}");
                return Err(ConnectorError::bug("SINK_FLUSH", message));
            }
        }
        Ok(())
    }

    pub(crate) fn durable(&mut self, positions: BTreeMap<TopicPartition, Offset>) {
        for (partition, offset) in positions {
            // A sink that has written nothing yet may tell less than where it began.
            let moves = self.durable.get(&partition).is_some_and(|known| *known < offset);
            if moves && self.current.contains_key(&partition) {
                self.held.set(self.index, partition.clone(), offset);
                self.durable.insert(partition, offset);
            }
        }
    }

    /// What is durable and not committed.
    fn uncommitted(&self) -> BTreeMap<TopicPartition, CommittedOffset> {
        self.durable
            .iter()
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .map(|(partition, offset)| {
                let id = self.current.get(partition).copied().unwrap_or(TopicId::ZERO);
                let metadata = if id.is_zero() { String::new() } else { id.to_string() };
                let committed =
                    CommittedOffset { offset: *offset, leader_epoch: LeaderEpoch::NONE, metadata };
                (partition.clone(), committed)
            })
            .collect()
    }

    /// Commits what is durable and has changed.
    pub(crate) async fn commit(&mut self) -> Result<(), ConnectorError> {
        let committed = commit(&self.consumer, self.uncommitted()).await?;
        self.committed.extend(committed);
        Ok(())
    }

    /// Commits, and asks where the partitions end; goes on by itself.
    pub(crate) fn look(&self) -> impl Future<Output = Result<Looked, ConnectorError>> + Send + 'static {
        let consumer = Arc::clone(&self.consumer);
        let uncommitted = self.uncommitted();
        let partitions: Vec<_> = self.current.keys().cloned().collect();
        async move {
            let committed = commit(&consumer, uncommitted).await?;
            let ends = consumer.end_offsets(&partitions).await;
            Ok(Looked { committed, ends })
        }
    }

    /// Takes over what a look has found: the records between what is durable and the ends, if those are known.
    pub(crate) fn learn(&mut self, looked: Looked) -> Option<i64> {
        self.committed.extend(looked.committed);
        let ends = looked
            .ends
            .inspect_err(|error| tracing::debug!(%error, "the ends of the partitions are not known"))
            .ok()?;
        let behind = |(partition, end): (&TopicPartition, &Offset)| {
            let durable = self.durable.get(partition).copied().unwrap_or(Offset::ZERO);
            end.get().saturating_sub(durable.get()).max(0)
        };
        Some(ends.iter().map(behind).sum())
    }

    pub(crate) async fn revoke_all(&mut self, sink: &mut dyn Sink) -> Result<(), ConnectorError> {
        let all: Vec<_> = self.current.keys().cloned().collect();
        if all.is_empty() { Ok(()) } else { sink.revoke(&all).await }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let topics: BTreeSet<_> = self.current.keys().map(|partition| &partition.topic).collect();
        match self.current.len() {
            0 => "no topic matches yet".to_owned(),
            1..=SHOWN_PARTITIONS => {
                let at = |(partition, offset): (&TopicPartition, &Offset)| format!("{partition} at {offset}");
                self.durable.iter().map(at).collect::<Vec<_>>().join(", ")
            }
            count => format!("{count} partitions of {} topics", topics.len()),
        }
    }
}

/// What [`Assignment::look`] found.
pub(crate) struct Looked {
    committed: BTreeMap<TopicPartition, Offset>,
    ends: Result<BTreeMap<TopicPartition, Offset>, ClientError>,
}

async fn commit(
    consumer: &Consumer,
    offsets: BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
    if !offsets.is_empty() {
        let outcome = consumer.commit_with_metadata(&offsets).await;
        outcome.map_err(|error| cluster_error("committing offsets", error))?;
    }
    Ok(offsets.into_iter().map(|(partition, known)| (partition, known.offset)).collect())
}

/// Where to begin for a sink with positions of its own that holds nothing of a partition, although the group has
/// committed an offset there: where it began before, unless there is more to read. R7: if that is gone meanwhile,
/// reading there fails.
fn empty_sink_start(committed: &CommittedOffset, id: TopicId, begin: Offset) -> Offset {
    if !belongs_to(committed, id) {
        // It was another topic, of which the sink keeps apart what it holds.
        begin
    } else if committed.offset <= begin {
        committed.offset
    } else {
        // The target was emptied: everything again.
        Offset::ZERO
    }
}

/// Offsets that others committed carry no id, and are believed.
fn belongs_to(committed: &CommittedOffset, id: TopicId) -> bool {
    id.is_zero()
        || committed.metadata.parse::<TopicId>().is_ok_and(|known| known == id)
        || committed.metadata.parse::<TopicId>().is_err()
}

fn recreated(topic: &TopicName, before: &str, now: TopicId) -> ConnectorError {
    let message = format!("topic `{topic}` was deleted and created again: its id was {before} and is {now}");
    ConnectorError::terminal("KAFKA_TOPIC_RECREATED", message).with_hint(
        "reset the group's offsets of the topic (`towpath groups reset`), then restart the pipeline",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_owner_and_growth_moves_nothing() {
        let topic = |name: &str, partitions| (TopicName::new(name).unwrap(), TopicId::ZERO, partitions);
        let patterns = [TopicPattern::parse("shop.*").unwrap()];
        let before = [topic("shop.a", 3), topic("other", 5), topic("shop.dead-letter", 1)];
        let after = [topic("shop.a", 6), topic("shop.b", 2), topic("other", 5)];
        let mut all = BTreeSet::new();
        for index in 0..4 {
            let old = share(&before, &patterns, index, 4);
            let new = share(&after, &patterns, index, 4);
            assert!(old.keys().all(|partition| new.contains_key(partition)));
            assert!(new.keys().all(|partition| all.insert(partition.clone())), "two owners");
        }
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn a_committed_offset_of_another_incarnation_is_not_believed() {
        let id = TopicId::random();
        let committed = |metadata: String| CommittedOffset { metadata, ..Offset::ZERO.into() };
        assert!(belongs_to(&committed(id.to_string()), id));
        assert!(belongs_to(&committed(String::new()), id));
        assert!(!belongs_to(&committed(TopicId::random().to_string()), id));
    }

    #[test]
    fn an_empty_sink_begins_where_it_began_or_with_everything() {
        let id = TopicId::random();
        let at =
            |offset, id: TopicId| CommittedOffset { metadata: id.to_string(), ..Offset::new(offset).into() };
        let begin = Offset::new(100);
        assert_eq!(empty_sink_start(&at(100, id), id, begin), begin, "it had begun there");
        assert_eq!(empty_sink_start(&at(40, id), id, begin).get(), 40, "retention has overtaken it");
        assert_eq!(empty_sink_start(&at(250, id), id, begin).get(), 0, "the target was emptied");
        assert_eq!(empty_sink_start(&at(250, TopicId::random()), id, begin), begin, "another topic");
    }

    #[test]
    fn what_any_task_holds_is_held() {
        let held = Held::default();
        let partition = TopicPartition::new(TopicName::new("t").unwrap(), 0);
        assert!(!held.has(&partition, Offset::ZERO), "an unassigned partition is not known to be empty");
        held.set(1, partition.clone(), Offset::new(5));
        assert!(held.has(&partition, Offset::new(5)) && !held.has(&partition, Offset::new(6)));
        held.forget(1);
        assert!(!held.has(&partition, Offset::ZERO));
    }
}
