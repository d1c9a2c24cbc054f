//! The assigned partitions: positions, what was fetched, what went wrong; pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use super::fetched::{Fetched, Reading};
use super::{PartitionRecords, StartAt};
use crate::backoff::Backoff;
use crate::metadata::{Cluster, TopicMeta};
use crate::{ClientError, OffsetReset};

/// How long a topic may be unknown before that is reported: one just created takes a while to be known everywhere.
const UNKNOWN_TOPIC_AFTER: Duration = Duration::from_secs(5);

/// Where a partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// To be looked up.
    Start(StartAt),
    /// The next offset to return.
    At(Offset),
}

/// One assigned partition.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) key: Arc<TopicPartition>,
    /// Another one after every move of the position: answers to older requests are dropped.
    pub(super) version: u64,
    pub(super) topic_id: Option<TopicId>,
    pub(super) position: Position,
    /// The next offset to fetch; ahead of the position by what is buffered.
    pub(super) fetch_offset: i64,
    /// The leader epoch of the last batch returned.
    pub(super) last_epoch: i32,
    pub(super) paused: bool,
    /// Surfaces in every poll until the partition is moved or unassigned.
    pub(super) error: Option<ClientError>,
    pub(super) retry_at: Option<Instant>,
    backoff: Backoff,
    unknown_since: Option<Instant>,
    /// A lookup of the position is under way.
    pub(super) looking_up: bool,
    /// Assigned by hand, not by a group.
    manual: bool,
    /// A nearer replica to fetch from, and until when (KIP-392).
    preferred: Option<(i32, Instant)>,
    /// The leader epoch of the last batch fetched; −1 for none.
    fetch_epoch: i32,
    /// The leader epoch under which `fetch_offset` is known to be in the log (KIP-320).
    validated: i32,
}

/// A question to a new leader: where does its log of `fetch_epoch` end?
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) partition: Arc<TopicPartition>,
    pub(super) version: u64,
    pub(super) leader: i32,
    pub(super) leader_epoch: i32,
    pub(super) fetch_epoch: i32,
    pub(super) fetch_offset: i64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) parts: BTreeMap<TopicPartition, Part>,
    ready: VecDeque<Fetched>,
    pub(super) buffered: usize,
    versions: u64,
    reset: OffsetReset,
    backoff: Backoff,
}

impl State {
    pub(super) fn new(reset: OffsetReset, backoff: Backoff) -> Self {
        Self { parts: BTreeMap::new(), ready: VecDeque::new(), buffered: 0, versions: 0, reset, backoff }
    }

    fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// Replaces the assignment; a partition that starts where it is keeps what was fetched.
    pub(super) fn assign(&mut self, partitions: &[(TopicPartition, StartAt)]) {
        let mut before = std::mem::take(&mut self.parts);
        for (partition, start) in partitions {
            match before.remove(partition) {
                Some(part) if part.error.is_none() && stays(part.position, *start) => {
                    self.parts.insert(partition.clone(), part);
                }
                _ => self.add(partition.clone(), *start, true),
            }
        }
        self.drop_stale();
    }

    /// Adds one partition.
    pub(super) fn add(&mut self, partition: TopicPartition, start: StartAt, manual: bool) {
        let part = Part {
            key: Arc::new(partition.clone()),
            version: self.next_version(),
            topic_id: None,
            position: start_position(start),
            fetch_offset: start_offset(start),
            last_epoch: -1,
            paused: false,
            error: None,
            retry_at: None,
            backoff: self.backoff.clone(),
            unknown_since: None,
            looking_up: false,
            manual,
            preferred: None,
            fetch_epoch: -1,
            validated: -1,
        };
        self.parts.insert(partition, part);
    }

    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.parts.remove(partition);
        }
        self.drop_stale();
    }

    /// Moves a position; false when the partition is not assigned.
    pub(super) fn seek(&mut self, partition: &TopicPartition, to: StartAt) -> bool {
        let version = self.next_version();
        let Some(part) = self.parts.get_mut(partition) else { return false };
        part.version = version;
        part.position = start_position(to);
        part.fetch_offset = start_offset(to);
        part.last_epoch = -1;
        part.fetch_epoch = -1;
        part.looking_up = false;
        part.preferred = None;
        // A topic that was created again is accepted by whoever chooses a position in it.
        if matches!(part.error, Some(ClientError::TopicRecreated { .. })) {
            part.topic_id = None;
        }
        part.error = None;
        part.retry_at = None;
        self.drop_stale();
        true
    }

    /// Drops what was fetched for positions that were moved.
    fn drop_stale(&mut self) {
        let parts = &self.parts;
        self.ready
            .retain(|fetched| parts.get(&*fetched.partition).is_some_and(|p| p.version == fetched.version));
        self.buffered = self.ready.iter().map(|fetched| fetched.bytes).sum();
    }

    /// The part that a request was about, unless it was moved since.
    pub(super) fn current(&mut self, partition: &TopicPartition, version: u64) -> Option<&mut Part> {
        self.parts.get_mut(partition).filter(|part| part.version == version)
    }

    /// Takes what was fetched at `offset`; an answer to anything but the part's present fetch is dropped.
    pub(super) fn fetched(&mut self, fetched: Fetched, offset: i64) {
        let Some(part) = self.current(&fetched.partition.clone(), fetched.version) else { return };
        if part.fetch_offset != offset {
            return;
        }
        part.backoff.reset();
        part.retry_at = None;
        if fetched.is_empty() {
            return;
        }
        if let Some(next) = fetched.next_offset {
            part.fetch_offset = next.max(offset);
            part.fetch_epoch = fetched.last_epoch;
        }
        self.buffered += fetched.bytes;
        self.ready.push_back(fetched);
    }

    /// What is there for the application, within the byte bound; an error of a partition comes first.
    pub(super) fn take(&mut self, reading: Reading) -> Result<Vec<PartitionRecords>, ClientError> {
        if let Some(error) = self.parts.values().find_map(|part| part.error.as_ref()) {
            return Err(error.clone());
        }
        let mut taken: Vec<PartitionRecords> = Vec::new();
        let mut left = reading.bytes_max;
        let mut at = 0;
        while at < self.ready.len() && (left > 0 || taken.is_empty()) {
            let fetched = &mut self.ready[at];
            let Some(part) = self.parts.get_mut(&*fetched.partition) else {
                at += 1;
                continue;
            };
            let Position::At(position) = part.position else {
                at += 1;
                continue;
            };
            if part.paused {
                at += 1;
                continue;
            }
            match fetched.take(position, Reading { bytes_max: left, ..reading }) {
                Ok((records, bytes, epoch)) => {
                    left = left.saturating_sub(bytes);
                    if records.next_offset > position {
                        part.position = Position::At(records.next_offset);
                        part.last_epoch = epoch;
                        taken.push(records);
                    }
                }
                Err(error) => {
                    part.error = Some(error.clone());
                    return if taken.is_empty() { Err(error) } else { Ok(taken) };
                }
            }
            if self.ready[at].is_empty() {
                if let Some(done) = self.ready.remove(at) {
                    self.buffered = self.buffered.saturating_sub(done.bytes);
                }
            } else {
                // Its remaining batches come first next time.
                break;
            }
        }
        Ok(taken)
    }

    /// Partitions whose position must be looked up now.
    pub(super) fn lookups(&mut self, now: Instant) -> Vec<(Arc<TopicPartition>, u64, StartAt)> {
        let mut lookups = Vec::new();
        for part in self.parts.values_mut() {
            let due = !part.looking_up && part.error.is_none() && part.retry_at.is_none_or(|at| at <= now);
            if let Position::Start(start) = part.position
                && due
            {
                part.looking_up = true;
                lookups.push((Arc::clone(&part.key), part.version, start));
            }
        }
        lookups
    }

    /// A lookup found the position, or that there is none.
    pub(super) fn looked_up(
        &mut self,
        partition: &TopicPartition,
        version: u64,
        result: Result<Option<Offset>, ClientError>,
        now: Instant,
    ) {
        let reset = self.reset;
        let Some(part) = self.current(partition, version) else { return };
        part.looking_up = false;
        match result {
            Ok(Some(offset)) => {
                part.position = Position::At(offset);
                part.fetch_offset = offset.get();
                part.retry_at = None;
            }
            Ok(None) => match reset.start() {
                Some(start) => part.position = Position::Start(start),
                None => part.error = Some(ClientError::NoOffset { partition: partition.clone() }),
            },
            Err(error) if error.is_retriable() => part.retry_later(now),
            Err(error) => part.error = Some(error),
        }
    }

    /// Partitions whose leader has changed since something was fetched: the new one is asked whether it has what the
    /// old one had (KIP-320). Nothing is fetched meanwhile.
    pub(super) fn validations(&mut self, cluster: &Cluster, now: Instant) -> Vec<Validation> {
        let mut validations = Vec::new();
        for (partition, part) in &mut self.parts {
            let meta = cluster.topics.get(&partition.topic).and_then(|t| t.partition(partition.partition));
            let Some(meta) = meta.filter(|meta| meta.leader >= 0 && meta.leader_epoch >= 0) else { continue };
            if meta.leader_epoch == part.validated || !part.wants_fetch(now) {
                continue;
            }
            if part.fetch_epoch < 0 || part.fetch_epoch == meta.leader_epoch {
                part.validated = meta.leader_epoch;
                continue;
            }
            part.looking_up = true;
            validations.push(Validation {
                partition: Arc::clone(&part.key),
                version: part.version,
                leader: meta.leader,
                leader_epoch: meta.leader_epoch,
                fetch_epoch: part.fetch_epoch,
                fetch_offset: part.fetch_offset,
            });
        }
        validations
    }

    /// The new leader told where the log of the epoch ends; `None` when it cannot tell.
    pub(super) fn validated(
        &mut self,
        asked: &Validation,
        result: Result<Option<Offset>, ClientError>,
        now: Instant,
    ) {
        let reset = self.reset;
        let Some(part) = self.current(&asked.partition, asked.version) else { return };
        part.looking_up = false;
        match result {
            Ok(Some(end_offset)) if end_offset.get() < asked.fetch_offset => {
                let partition = (*asked.partition).clone();
                tracing::warn!(%partition, %end_offset, offset = asked.fetch_offset, "log truncated");
                if part.manual || reset == OffsetReset::None {
                    let offset = Offset::new(asked.fetch_offset);
                    part.error = Some(ClientError::LogTruncated { partition, offset, end_offset });
                } else {
                    // What is read ahead is gone; what is not read yet may be there.
                    let position = match part.position {
                        Position::At(position) => position.min(end_offset),
                        Position::Start(_) => end_offset,
                    };
                    self.seek(&partition, StartAt::Offset(position));
                }
            }
            Ok(_) => part.validated = asked.leader_epoch,
            Err(error) if error.is_retriable() => part.retry_later(now),
            Err(error) => part.error = Some(error),
        }
    }

    /// The position is not in the log.
    pub(super) fn out_of_range(
        &mut self,
        partition: &TopicPartition,
        version: u64,
        offset: i64,
        now: Instant,
    ) {
        let reset = self.reset;
        let Some(part) = self.current(partition, version).filter(|part| part.fetch_offset == offset) else {
            return;
        };
        if part.preferred.take().is_some() {
            // A follower may be behind: the leader knows.
            return;
        }
        if part.position != Position::At(Offset::new(offset)) {
            // What was fetched before comes first; then it is asked again.
            part.retry_later(now);
            return;
        }
        let Some(start) = reset.start() else {
            let offset = Offset::new(offset);
            part.error = Some(ClientError::OffsetOutOfRange { partition: partition.clone(), offset });
            return;
        };
        self.seek(partition, start);
        tracing::warn!(%partition, offset, ?reset, "position out of range, reset");
    }

    /// A replica cannot be fetched from: whoever preferred it goes back to the leader.
    pub(super) fn back_to_leaders(&mut self, node: i32) {
        self.parts.values_mut().for_each(|part| part.back_to_leader(Some(node)));
    }

    /// Compares the parts with what the cluster says of their topics now; returns the topics to ask for.
    pub(super) fn follow(&mut self, cluster: &Cluster, now: Instant) -> Vec<TopicName> {
        let mut stale: Vec<TopicName> = Vec::new();
        let mut begun_anew: Vec<(TopicPartition, StartAt)> = Vec::new();
        let reset = self.reset;
        for (partition, part) in &mut self.parts {
            let topic = cluster.topics.get(&partition.topic);
            let known = topic.and_then(|topic| Some((topic, topic.partition(partition.partition)?)));
            match known {
                Some((topic, meta)) => {
                    part.unknown_since = None;
                    if matches!(
                        part.error,
                        Some(ClientError::UnknownTopic { .. } | ClientError::UnknownPartition { .. })
                    ) {
                        part.error = None;
                    }
                    begun_anew
                        .extend(part.follow_topic(topic, reset).map(|start| (partition.clone(), start)));
                    if meta.leader < 0 {
                        stale.push(partition.topic.clone());
                    }
                }
                None => {
                    stale.push(partition.topic.clone());
                    let since = *part.unknown_since.get_or_insert(now);
                    if part.error.is_none() && now - since >= UNKNOWN_TOPIC_AFTER {
                        part.error = Some(match topic {
                            None => ClientError::UnknownTopic { topic: partition.topic.clone() },
                            Some(topic) => ClientError::UnknownPartition {
                                partition: partition.clone(),
                                count: topic.partitions.len(),
                            },
                        });
                    }
                }
            }
        }
        for (partition, start) in begun_anew {
            self.seek(&partition, start);
        }
        stale.dedup();
        stale
    }

    /// Whether some partition has an error to report, or data to return.
    pub(super) fn has_news(&self) -> bool {
        self.parts.values().any(|part| part.error.is_some())
            || self
                .ready
                .iter()
                .any(|fetched| self.parts.get(&*fetched.partition).is_some_and(|part| !part.paused))
    }

    /// The earliest time from now on at which a partition may be tried again.
    pub(super) fn retry_at(&self, now: Instant) -> Option<Instant> {
        self.parts.values().filter_map(|part| part.retry_at).filter(|at| *at > now).min()
    }
}

impl Part {
    pub(super) fn retry_later(&mut self, now: Instant) {
        self.retry_at = Some(now + self.backoff.next());
    }

    /// Whether it is to be fetched now.
    pub(super) fn wants_fetch(&self, now: Instant) -> bool {
        matches!(self.position, Position::At(_))
            && !self.paused
            && self.error.is_none()
            && !self.looking_up
            && self.retry_at.is_none_or(|at| at <= now)
    }

    /// The broker to fetch from.
    pub(super) fn source(&self, leader: i32, now: Instant) -> i32 {
        self.preferred.filter(|(_, until)| *until > now).map_or(leader, |(node, _)| node)
    }

    /// The leader names a nearer replica, good until then.
    pub(super) fn prefer(&mut self, node: i32, until: Instant) {
        self.preferred = Some((node, until));
    }

    /// Goes back to the leader, from whichever replica or from this one.
    pub(super) fn back_to_leader(&mut self, from: Option<i32>) {
        self.preferred = self.preferred.filter(|(node, _)| from.is_some_and(|from| from != *node));
    }

    /// R7: a topic that was deleted and created again is never read on silently. Where to begin in the new one, if it
    /// is to be read.
    fn follow_topic(&mut self, topic: &TopicMeta, reset: OffsetReset) -> Option<StartAt> {
        if topic.id.is_zero() || self.error.is_some() {
            return None;
        }
        match self.topic_id {
            None => self.topic_id = Some(topic.id),
            Some(expected) if expected == topic.id => {}
            Some(expected) if self.manual || reset == OffsetReset::None => {
                let (topic, actual) = (topic.name.clone(), topic.id);
                self.error = Some(ClientError::TopicRecreated { topic, expected, actual });
            }
            Some(expected) => {
                // A group member begins the new topic as its configuration says.
                tracing::warn!(topic = %topic.name, %expected, actual = %topic.id, "topic created again");
                self.topic_id = Some(topic.id);
                return reset.start();
            }
        }
        None
    }
}

fn start_position(start: StartAt) -> Position {
    match start {
        StartAt::Offset(offset) => Position::At(offset),
        other => Position::Start(other),
    }
}

fn start_offset(start: StartAt) -> i64 {
    match start {
        StartAt::Offset(offset) => offset.get(),
        _ => -1,
    }
}

/// Whether a partition at `position` need not be touched to start at `start`.
fn stays(position: Position, start: StartAt) -> bool {
    match (position, start) {
        (Position::At(at), StartAt::Offset(offset)) => at == offset,
        (Position::Start(before), start) => before == start,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new(TopicName::new("t").unwrap(), index)
    }

    fn state(reset: OffsetReset) -> State {
        State::new(reset, Backoff::new(1, 1))
    }

    const READING: Reading = Reading { check_crcs: true, read_committed: false, bytes_max: 1000 };

    #[test]
    fn out_of_range_without_a_reset_is_reported_until_moved() {
        let mut state = state(OffsetReset::None);
        state.assign(&[(partition(0), StartAt::Offset(Offset::new(9)))]);
        let version = state.parts[&partition(0)].version;
        state.out_of_range(&partition(0), version, 9, Instant::now());
        for _ in 0..2 {
            let error = state.take(READING).unwrap_err();
            assert!(matches!(error, ClientError::OffsetOutOfRange { offset, .. } if offset.get() == 9));
        }
        assert!(state.seek(&partition(0), StartAt::Earliest));
        assert!(state.take(READING).unwrap().is_empty());
    }

    #[test]
    fn an_answer_for_an_old_position_is_dropped() {
        let mut state = state(OffsetReset::Earliest);
        state.assign(&[(partition(0), StartAt::Offset(Offset::new(9)))]);
        let old = state.parts[&partition(0)].version;
        state.seek(&partition(0), StartAt::Offset(Offset::new(3)));
        state.out_of_range(&partition(0), old, 9, Instant::now());
        assert_eq!(state.parts[&partition(0)].position, Position::At(Offset::new(3)));
        state.looked_up(&partition(0), old, Ok(Some(Offset::new(77))), Instant::now());
        assert_eq!(state.parts[&partition(0)].fetch_offset, 3);
    }

    #[test]
    fn without_a_committed_offset_the_reset_decides() {
        for (reset, expected) in [(OffsetReset::Earliest, Some(StartAt::Earliest)), (OffsetReset::None, None)]
        {
            let mut state = state(reset);
            state.assign(&[(partition(0), StartAt::Committed)]);
            let (_, version, _) = state.lookups(Instant::now()).remove(0);
            assert!(state.lookups(Instant::now()).is_empty(), "one lookup at a time");
            state.looked_up(&partition(0), version, Ok(None), Instant::now());
            let next = state.lookups(Instant::now()).first().map(|(_, _, start)| *start);
            assert_eq!(next, expected);
            assert_eq!(state.take(READING).is_err(), expected.is_none());
        }
    }

    #[test]
    fn assigning_again_at_the_position_keeps_it() {
        let mut state = state(OffsetReset::None);
        let at = |offset| StartAt::Offset(Offset::new(offset));
        state.assign(&[(partition(0), at(5)), (partition(1), at(5))]);
        let versions: Vec<u64> = state.parts.values().map(|part| part.version).collect();
        state.assign(&[(partition(0), at(5)), (partition(1), at(6))]);
        assert_eq!(state.parts[&partition(0)].version, versions[0]);
        assert_ne!(state.parts[&partition(1)].version, versions[1]);
    }

    #[test]
    fn a_recreated_topic_stops_a_manual_assignment() {
        let mut state = state(OffsetReset::Earliest);
        state.assign(&[(partition(0), StartAt::Offset(Offset::new(5)))]);
        let cluster = tests_cluster;
        assert!(state.follow(&cluster(1), Instant::now()).is_empty());
        assert!(state.take(READING).is_ok());
        state.follow(&cluster(2), Instant::now());
        assert!(matches!(state.take(READING), Err(ClientError::TopicRecreated { .. })));
        state.seek(&partition(0), StartAt::Earliest);
        state.follow(&cluster(2), Instant::now());
        assert!(state.take(READING).is_ok(), "whoever chooses a position accepts the new topic");
    }

    fn tests_cluster(id: u128) -> Cluster {
        let topic = TopicMeta {
            name: partition(0).topic,
            id: TopicId::new(uuid::Uuid::from_u128(id)),
            internal: false,
            partitions: vec![crate::metadata::PartitionMeta {
                leader: 1,
                leader_epoch: 0,
                replicas: vec![],
                isr: vec![],
                offline: vec![],
                error: towpath_wire::ErrorCode::None,
            }],
            version: 1,
        };
        let topics = [(partition(0).topic, Arc::new(topic))].into_iter().collect();
        Cluster { topics, ..Default::default() }
    }

    #[test]
    fn a_truncated_log_is_found_out_at_the_new_leader() {
        let mut state = state(OffsetReset::None);
        state.assign(&[(partition(0), StartAt::Offset(Offset::new(9)))]);
        let now = Instant::now();
        let cluster = |epoch| {
            let mut cluster = tests_cluster(1);
            for topic in cluster.topics.values_mut() {
                Arc::make_mut(topic).partitions[0].leader_epoch = epoch;
            }
            cluster
        };
        assert!(state.validations(&cluster(3), now).is_empty(), "nothing was fetched yet");
        state.parts.get_mut(&partition(0)).unwrap().fetch_epoch = 3;
        assert!(state.validations(&cluster(3), now).is_empty());
        let asked = state.validations(&cluster(5), now).remove(0);
        assert_eq!((asked.fetch_epoch, asked.fetch_offset, asked.leader_epoch), (3, 9, 5));
        assert!(!state.parts[&partition(0)].wants_fetch(now), "not before the answer");
        state.validated(&asked, Ok(Some(Offset::new(9))), now);
        assert!(state.parts[&partition(0)].wants_fetch(now));
        let asked = state.validations(&cluster(6), now).remove(0);
        state.validated(&asked, Ok(Some(Offset::new(7))), now);
        let error = state.take(READING).unwrap_err();
        assert!(matches!(error, ClientError::LogTruncated { end_offset, .. } if end_offset.get() == 7));
    }

    #[test]
    fn an_unknown_topic_is_reported_after_a_while_and_forgiven() {
        let mut state = state(OffsetReset::None);
        state.assign(&[(partition(0), StartAt::Offset(Offset::new(0)))]);
        let now = Instant::now();
        assert_eq!(state.follow(&Cluster::default(), now), [partition(0).topic]);
        assert!(state.take(READING).is_ok());
        state.follow(&Cluster::default(), now + UNKNOWN_TOPIC_AFTER);
        assert!(matches!(state.take(READING), Err(ClientError::UnknownTopic { .. })));
    }
}
