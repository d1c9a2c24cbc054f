//! Sessions with the leaders of partitions, and what they have given out; pure: what is to be sent comes out, answers go
//! in.
//!
//! A leader has one session with the member; its epoch goes up by one with every request, so that one request is on its
//! way at a time. When a session breaks, what the leader had given out is given back there (or its locks end), and counts
//! for nothing here.

mod answers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};
use towpath_wire::ApiKey;
use towpath_wire::messages::share_fetch::AcquiredRecords;

use super::fetched::{Fetched, Reading};
use super::lease::{Batch, Leases, Lost};
use super::{Acknowledgement, ShareRecords};
use crate::ClientError;
use crate::admin::PerItem;
use crate::backoff::Backoff;
use crate::metadata::Cluster;

pub(super) use answers::Source;

/// A topic's id and a partition's number.
pub(super) type Place = (TopicId, i32);

/// The epoch that ends a session.
const FINAL_EPOCH: i32 = -1;
/// How long it takes until what cannot succeed by itself is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Partitions whose results are kept until the application asks (R10).
const RESULTS_MAX: usize = 20_000;

/// What holds for a consumer.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The next poll accepts.
    pub(super) is_implicit: bool,
    /// One broker is asked at a time.
    pub(super) is_strict: bool,
    pub(super) records_max: usize,
    pub(super) held_max: usize,
    pub(super) buffer_bytes: usize,
    pub(super) fetch_bytes_max: usize,
    /// How long acknowledgements that fail for a while are sent again.
    pub(super) patience: Duration,
    pub(super) reading: Reading,
    pub(super) backoff: Backoff,
}

/// A partition to fetch from.
#[derive(Debug)]
struct Assigned {
    key: Arc<TopicPartition>,
    /// Node and epoch, as metadata has it.
    leader: Option<(i32, i32)>,
    /// As a broker told that leads it no more.
    told: Option<(i32, i32)>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    error: Option<ClientError>,
}

impl Assigned {
    fn leader(&self) -> Option<i32> {
        let newer = self.told.filter(|(_, epoch)| self.leader.is_none_or(|(_, known)| known < *epoch));
        newer.or(self.leader).map(|(node, _)| node)
    }
}

/// Partitions by topic id and number.
type Places = BTreeMap<Place, Arc<TopicPartition>>;

/// A broker behind a connection, and what its versions know.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) broker: Arc<str>,
    /// Locks can be renewed (KIP-1222).
    pub(super) may_renew: bool,
    /// The number of records can be bounded strictly (KIP-1206).
    pub(super) may_limit: bool,
}

/// What is on its way to a leader.
#[derive(Debug)]
struct Sent {
    /// Of the order.
    id: u64,
    is_fetch: bool,
    ends: bool,
    /// What the session has once it is answered.
    places: Places,
    /// Partitions of which something is acknowledged, and whether the application said it.
    said: BTreeMap<Place, bool>,
    /// Bytes that may come.
    room: usize,
}

#[derive(Debug)]
struct Node {
    /// Of the next request; 0 begins a session.
    epoch: i32,
    places: Places,
    sent: Option<Sent>,
    is_connecting: bool,
    not_before: Option<Instant>,
    backoff: Backoff,
    buffered: VecDeque<Fetched>,
}

impl Node {
    fn new(backoff: Backoff) -> Self {
        Self {
            epoch: 0,
            places: Places::new(),
            sent: None,
            is_connecting: false,
            not_before: None,
            backoff,
            buffered: VecDeque::new(),
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.sent.is_none() && !self.is_connecting && self.not_before.is_none_or(|at| at <= now)
    }

    fn is_fetching(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.is_fetch)
    }
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Step {
    /// A connection to a broker is needed.
    Connect(i32),
    Send(Order),
}

/// A request to a leader.
#[derive(Debug)]
pub(super) struct Order {
    /// No other order has it.
    pub(super) id: u64,
    pub(super) node: i32,
    pub(super) epoch: i32,
    /// `None` only acknowledges.
    pub(super) fetch: Option<FetchOrder>,
    pub(super) said: Vec<(Place, Vec<Batch>)>,
    pub(super) renews: bool,
}

/// What is fetched.
#[derive(Debug)]
pub(super) struct FetchOrder {
    /// Partitions that are new in the session.
    pub(super) add: Vec<Place>,
    /// Partitions that are no longer in it.
    pub(super) forget: Vec<Place>,
    pub(super) bytes_max: usize,
}

/// What a leader says of a partition.
#[derive(Debug)]
pub(super) struct ToldPartition {
    pub(super) place: Place,
    /// Of the fetch.
    pub(super) code: i16,
    /// Of the acknowledgements.
    pub(super) said_code: i16,
    pub(super) message: Option<String>,
    /// Who leads it now, and since which epoch.
    pub(super) leader: Option<(i32, i32)>,
    pub(super) records: Bytes,
    pub(super) acquired: Vec<AcquiredRecords>,
}

impl ToldPartition {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            code: 0,
            said_code: 0,
            message: None,
            leader: None,
            records: Bytes::new(),
            acquired: Vec::new(),
        }
    }
}

/// What a leader answers.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) code: i16,
    pub(super) message: Option<String>,
    /// For how long records are locked; 0 when it does not say.
    pub(super) lock_ms: i32,
    pub(super) partitions: Vec<ToldPartition>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    settings: Settings,
    assigned: BTreeMap<Place, Assigned>,
    leases: BTreeMap<Place, (Arc<TopicPartition>, Leases)>,
    nodes: BTreeMap<i32, Node>,
    /// What became of what the application said, until it asks.
    results: PerItem<TopicPartition, ()>,
    /// What no partition is to blame for.
    error: Option<ClientError>,
    /// Polls that wait.
    pub(super) waiting: usize,
    /// One that waited in vain, perhaps for no time at all, lets the next one have something.
    pub(super) is_asked: bool,
    /// No more is fetched, and the sessions end.
    is_closing: bool,
    /// The leader that was asked last.
    turn: i32,
    /// How many orders there were.
    orders: u64,
    /// Acknowledgements that count for nothing, since it was last asked.
    pub(super) failures: u64,
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            assigned: BTreeMap::new(),
            leases: BTreeMap::new(),
            nodes: BTreeMap::new(),
            results: BTreeMap::new(),
            error: None,
            waiting: 0,
            is_asked: false,
            is_closing: false,
            turn: -1,
            orders: 0,
            failures: 0,
        }
    }

    /// The partitions to fetch from are others. What the application has not been given of those that go is given back.
    pub(super) fn assign(&mut self, places: Vec<(Place, Arc<TopicPartition>)>) {
        let mut before = std::mem::take(&mut self.assigned);
        for (place, key) in places {
            let known = before.remove(&place).unwrap_or_else(|| Assigned {
                key,
                leader: None,
                told: None,
                retry_at: None,
                backoff: self.settings.backoff.clone(),
                error: None,
            });
            self.assigned.insert(place, known);
        }
        for place in before.keys() {
            for node in self.nodes.values_mut() {
                node.buffered.retain(|fetched| fetched.place != *place);
            }
            if let Some((_, leases)) = self.leases.get_mut(place) {
                leases.release_waiting();
            }
        }
    }

    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        self.assigned.values().map(|it| (*it.key).clone()).collect()
    }

    /// Takes the leaders from metadata; whether some are not known.
    pub(super) fn follow(&mut self, cluster: &Cluster) -> bool {
        let mut is_stale = false;
        for ((topic_id, _), assigned) in &mut self.assigned {
            let topic = cluster.topics.get(&assigned.key.topic).filter(|topic| topic.id == *topic_id);
            let found = topic.and_then(|topic| topic.partition(assigned.key.partition));
            assigned.leader = found.filter(|it| it.leader >= 0).map(|it| (it.leader, it.leader_epoch));
            let is_known = assigned.leader().is_some_and(|node| cluster.nodes.contains_key(&node));
            if !is_known {
                assigned.leader = None;
                assigned.told = None;
            }
            is_stale |= !is_known;
        }
        is_stale
    }

    /// The topics to fetch from.
    pub(super) fn topics(&self) -> Vec<TopicName> {
        let mut topics: Vec<_> = self.assigned.values().map(|it| it.key.topic.clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// What is to be done now.
    pub(super) fn next(&mut self, now: Instant, peer_of: impl Fn(i32) -> Option<Peer>) -> Vec<Step> {
        self.expire(now);
        let mut by_node: BTreeMap<i32, Places> = BTreeMap::new();
        let mut leads: BTreeSet<i32> = BTreeSet::new();
        for (place, assigned) in &self.assigned {
            let Some(leader) = assigned.leader() else { continue };
            leads.insert(leader);
            if assigned.error.is_none() && assigned.retry_at.is_none_or(|at| at <= now) {
                by_node.entry(leader).or_default().insert(*place, Arc::clone(&assigned.key));
            }
        }
        let mut ids: Vec<i32> = leads.iter().chain(self.nodes.keys()).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        // Nobody is always first.
        let first = ids.iter().position(|id| *id > self.turn).unwrap_or(0);
        ids.rotate_left(first);
        let mut steps = Vec::new();
        for id in ids {
            let wanted = by_node.remove(&id).unwrap_or_default();
            let backoff = &self.settings.backoff;
            let node = self.nodes.entry(id).or_insert_with(|| Node::new(backoff.clone()));
            if !node.is_idle(now) {
                continue;
            }
            let has_session = node.epoch != 0;
            let fetches = !wanted.is_empty() && self.may_fetch(id);
            match peer_of(id) {
                Some(peer) if has_session || fetches => {
                    let order = self.order(id, now, &peer, fetches.then_some(wanted), leads.contains(&id));
                    steps.extend(order.map(Step::Send));
                }
                None if fetches => {
                    self.nodes.entry(id).and_modify(|node| node.is_connecting = true);
                    steps.push(Step::Connect(id));
                }
                _ => {}
            }
        }
        if steps.iter().any(|step| matches!(step, Step::Send(order) if order.fetch.is_some())) {
            self.is_asked = false;
        }
        self.nodes.retain(|id, node| {
            leads.contains(id) || node.epoch != 0 || node.sent.is_some() || node.is_connecting
        });
        steps
    }

    fn may_fetch(&self, id: i32) -> bool {
        let is_busy =
            |other: (&i32, &Node)| other.1.is_fetching() && (self.settings.is_strict || *other.0 == id);
        (self.waiting > 0 || self.is_asked)
            && !self.is_closing
            && self.nodes.values().all(|node| node.buffered.is_empty())
            && !self.nodes.iter().any(is_busy)
            && self.held() < self.settings.held_max
            && self.room() > 0
    }

    /// Bytes for which there is room (R10).
    fn room(&self) -> usize {
        let buffered = self.nodes.values().flat_map(|node| &node.buffered).map(|fetched| fetched.bytes);
        let coming = self.nodes.values().filter_map(|node| node.sent.as_ref()).map(|sent| sent.room);
        self.settings.buffer_bytes.saturating_sub(buffered.chain(coming).sum())
    }

    /// The next request to a leader, if there is anything to say.
    fn order(
        &mut self,
        id: i32,
        now: Instant,
        peer: &Peer,
        fetch: Option<Places>,
        leads: bool,
    ) -> Option<Order> {
        if !peer.may_renew {
            self.refuse_renewals(id, peer);
        }
        let room = self.room().min(self.settings.fetch_bytes_max);
        let (mut said, mut spoken, mut renews) = (Vec::new(), BTreeMap::new(), false);
        for (place, (_, leases)) in &mut self.leases {
            let sending = leases.send(id);
            if !sending.batches.is_empty() {
                renews |= sending.renews;
                spoken.insert(*place, sending.is_said);
                said.push((*place, sending.batches));
            }
        }
        let holds = self.leases.values().any(|(_, leases)| leases.is_of(id));
        let node = self.nodes.get_mut(&id)?;
        // Who renews fetches nothing with the same request (KIP-1222).
        let mut fetch = fetch.filter(|_| !renews);
        if fetch.is_some() && self.settings.is_strict && !peer.may_limit {
            fetch = None;
            node.not_before = Some(now + TRY_AGAIN_AFTER);
            self.error = Some(ClientError::UnsupportedApi {
                api: ApiKey::ShareFetch,
                broker: Arc::clone(&peer.broker),
            });
        }
        let is_idle = fetch.is_none() && !leads && !holds && node.buffered.is_empty();
        let ends = node.epoch != 0 && (self.is_closing || is_idle);
        if said.is_empty() && fetch.is_none() && !ends {
            return None;
        }
        let epoch = if ends { FINAL_EPOCH } else { node.epoch };
        let fetch_order = fetch.as_ref().map(|wanted| FetchOrder {
            add: wanted.keys().filter(|place| !node.places.contains_key(place)).copied().collect(),
            // A partition that is only acknowledged would otherwise be fetched from again.
            forget: (node.places.keys().chain(spoken.keys()).copied().collect::<BTreeSet<_>>())
                .into_iter()
                .filter(|place| !wanted.contains_key(place))
                .collect(),
            bytes_max: room,
        });
        let is_fetch = fetch.is_some();
        let places = fetch.unwrap_or_else(|| node.places.clone());
        let room = if is_fetch { room } else { 0 };
        self.orders += 1;
        let id_of_order = self.orders;
        node.sent = Some(Sent { id: id_of_order, is_fetch, ends, places, said: spoken, room });
        if is_fetch {
            self.turn = id;
        }
        Some(Order { id: id_of_order, node: id, epoch, fetch: fetch_order, said, renews })
    }

    /// Whether an order is still on its way. (Not when its session has ended meanwhile: its answer means nothing.)
    pub(super) fn is_current(&self, node: i32, order: u64) -> bool {
        let sent = self.nodes.get(&node).and_then(|node| node.sent.as_ref());
        sent.is_some_and(|sent| sent.id == order)
    }

    /// Locks that the broker cannot renew are not renewed; everything else of the request is said.
    fn refuse_renewals(&mut self, id: i32, peer: &Peer) {
        let mut refused = Vec::new();
        for (key, leases) in self.leases.values_mut() {
            if leases.refuse_renewals(id) {
                refused.push(Arc::clone(key));
            }
        }
        for key in refused {
            let broker = Arc::clone(&peer.broker);
            self.settled(&key, Err(ClientError::UnsupportedApi { api: ApiKey::ShareAcknowledge, broker }));
        }
    }

    /// A connection that was needed is there, or not.
    pub(super) fn connected(&mut self, id: i32, now: Instant, is_open: bool) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.is_connecting = false;
            if !is_open {
                node.not_before = Some(now + node.backoff.next());
            }
        }
    }

    /// Forgets locks that have ended.
    fn expire(&mut self, now: Instant) {
        for node in self.nodes.values_mut() {
            node.buffered.retain(|fetched| fetched.until > now);
        }
        let mut lost: Vec<(Arc<TopicPartition>, Lost)> = Vec::new();
        self.leases.retain(|_, (key, leases)| {
            lost.push((Arc::clone(key), leases.expire(now)));
            !leases.is_empty()
        });
        for (key, lost) in lost {
            let offset = Offset::new(lost.first.unwrap_or(0));
            self.lost(&key, lost, || ClientError::NotAcquired { partition: (*key).clone(), offset });
        }
    }

    /// Keeps that something is lost, unless the application is told when it speaks of it.
    pub(super) fn lost(&mut self, key: &TopicPartition, lost: Lost, error: impl FnOnce() -> ClientError) {
        if lost.spoken > 0 || (self.settings.is_implicit && lost.held > 0) {
            self.settled(key, Err(error()));
        }
    }

    /// Keeps what became of what the application said; an error stays.
    fn settled(&mut self, key: &TopicPartition, result: Result<(), ClientError>) {
        if result.is_err() {
            self.failures += 1;
        }
        match self.results.get_mut(key) {
            Some(known) => {
                if known.is_ok() {
                    *known = result;
                }
            }
            None => {
                if self.results.len() >= RESULTS_MAX {
                    self.results.pop_first();
                }
                self.results.insert(key.clone(), result);
            }
        }
    }

    /// Something is wrong that the next poll is to tell.
    pub(super) fn fail(&mut self, error: ClientError) {
        self.error = Some(error);
    }

    /// What became of what the application said since it last asked.
    pub(super) fn results(&mut self) -> PerItem<TopicPartition, ()> {
        std::mem::take(&mut self.results)
    }

    /// The application polls or commits: what it has said is to be sent. How many records are accepted without a word.
    pub(super) fn speak(&mut self) -> usize {
        let mut accepted = 0;
        for (_, leases) in self.leases.values_mut() {
            if self.settings.is_implicit {
                accepted += leases.accept_held();
            }
            leases.make_due();
        }
        accepted
    }

    /// The application says what becomes of a record.
    ///
    /// # Errors
    /// [`ClientError::NotAcquired`].
    pub(super) fn say(
        &mut self,
        partition: &TopicPartition,
        topic: Option<TopicId>,
        offset: Offset,
        what: Acknowledgement,
    ) -> Result<(), ClientError> {
        let of = |((id, _), (key, leases)): (&Place, &mut (Arc<TopicPartition>, Leases))| {
            **key == *partition && topic.is_none_or(|topic| topic == *id) && leases.say(offset.get(), what)
        };
        match self.leases.iter_mut().any(of) {
            true => Ok(()),
            false => Err(ClientError::NotAcquired { partition: partition.clone(), offset }),
        }
    }

    /// Records that the application has.
    pub(super) fn held(&self) -> usize {
        self.leases.values().map(|(_, leases)| leases.held()).sum()
    }

    /// Whether the application has as many as it may.
    pub(super) fn is_full(&self) -> bool {
        self.held() >= self.settings.held_max
    }

    /// Bytes that wait for the application.
    pub(super) fn buffered(&self) -> usize {
        self.nodes.values().flat_map(|node| &node.buffered).map(|fetched| fetched.bytes).sum()
    }

    /// Whether acknowledgements are to be sent, or are on their way.
    pub(super) fn is_unsettled(&self) -> bool {
        self.leases.values().any(|(_, leases)| leases.is_unsettled())
    }

    /// Whether a poll has something to return.
    pub(super) fn has_news(&self) -> bool {
        self.error.is_some()
            || self.assigned.values().any(|it| it.error.is_some())
            || self.nodes.values().any(|node| !node.buffered.is_empty())
    }

    /// Records for the application, and how many; what is wrong, when there are none.
    pub(super) fn take(&mut self, now: Instant) -> Result<(Vec<ShareRecords>, usize), ClientError> {
        self.expire(now);
        let Reading { check_crcs, bytes_max } = self.settings.reading;
        let (mut taken, mut count, mut bytes) = (Vec::new(), 0, 0);
        for node in self.nodes.values_mut() {
            while let Some(fetched) = node.buffered.front_mut() {
                if count >= self.settings.records_max || bytes >= bytes_max.max(1) {
                    return Ok((taken, count));
                }
                let Some((_, leases)) = self.leases.get_mut(&fetched.place) else {
                    node.buffered.pop_front();
                    continue;
                };
                let reading = Reading { check_crcs, bytes_max: bytes_max.saturating_sub(bytes) };
                match fetched.take(leases, reading) {
                    Ok((records, held, size)) => {
                        if held > 0 {
                            taken.push(records);
                        }
                        count += held;
                        bytes += size;
                    }
                    Err(error) if taken.is_empty() => {
                        if fetched.is_empty() {
                            node.buffered.pop_front();
                        }
                        return Err(error);
                    }
                    Err(error) => {
                        self.error = Some(error);
                        return Ok((taken, count));
                    }
                }
                if fetched.is_empty() {
                    node.buffered.pop_front();
                }
            }
        }
        if taken.is_empty() {
            let of_partition = || self.assigned.values_mut().find_map(|it| it.error.take());
            if let Some(error) = self.error.take().or_else(of_partition) {
                return Err(error);
            }
        }
        Ok((taken, count))
    }

    /// No more is fetched, and the sessions end with the next requests: what the application has not acknowledged is
    /// given back with them.
    pub(super) fn close(&mut self) {
        for (_, leases) in self.leases.values_mut() {
            leases.make_due();
        }
        for node in self.nodes.values_mut() {
            node.buffered.clear();
        }
        self.assigned.clear();
        self.is_closing = true;
    }

    /// Whether all sessions have ended.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closing && self.nodes.values().all(|node| node.epoch == 0 && node.sent.is_none())
    }

    /// When to look again, if nothing happens before.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let retries = self.assigned.values().filter_map(|it| it.retry_at);
        let nodes = self.nodes.values().filter_map(|node| node.not_before);
        let locks = self.leases.values().filter_map(|(_, leases)| leases.expires_at());
        retries.chain(nodes).chain(locks).filter(|at| *at > now).min()
    }
}
