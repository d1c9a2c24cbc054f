//! Incremental fetch sessions (KIP-227): what a client fetches is remembered, so that it sends only changes, and gets
//! only partitions that have something new.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use towpath_wire::ErrorCode;
use uuid::Uuid;

/// The id that stands for "no session".
pub(crate) const NO_SESSION: i32 = 0;
/// The epoch of a request that begins a session.
pub(crate) const FIRST_EPOCH: i32 = 0;
/// The epoch of a request that ends its session, or has none.
pub(crate) const FINAL_EPOCH: i32 = -1;
/// How long a session must have been idle before another may take its place.
const EVICTION_MIN: Duration = Duration::from_secs(120);
/// Partitions that all sessions together remember (R10).
const PARTITIONS_MAX: usize = 500_000;

/// A topic as the client names it: by name up to version 12, by id from 13 on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Name(Arc<str>),
    Id(Uuid),
}

/// One partition of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) topic: TopicKey,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
    pub(crate) bytes_max: i32,
    /// Where a follower's log begins.
    pub(crate) log_start: i64,
    /// The high watermark that a follower knows.
    pub(crate) high_watermark: i64,
}

/// What the client was last told of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
}

#[derive(Debug)]
struct Cached {
    wanted: Wanted,
    told: Option<Told>,
}

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    id: i32,
    epoch: i32,
    uses_ids: bool,
    /// In the order in which they are served: who got data goes to the end.
    order: BTreeMap<u64, Cached>,
    places: HashMap<(TopicKey, i32), u64>,
    next_place: u64,
    last_used: Instant,
}

/// Sessions by id.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    capacity: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<i32, (Arc<Mutex<Session>>, Info)>,
    partitions: usize,
}

/// What eviction looks at without a session's lock.
#[derive(Debug, Clone, Copy)]
struct Info {
    partitions: usize,
    last_used: Instant,
}

/// What a request asks of its session.
pub(crate) struct SessionRequest {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    pub(crate) uses_ids: bool,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) forgotten: Vec<(TopicKey, i32)>,
}

/// How a fetch goes on.
pub(crate) enum FetchContext {
    /// No session: everything asked for is answered.
    Full(Vec<Wanted>),
    /// A new session: everything is answered, and remembered.
    New(Arc<Mutex<Session>>, Vec<Wanted>),
    /// A session: only what is new is answered.
    Incremental(Arc<Mutex<Session>>, Vec<Wanted>),
}

impl FetchSessions {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, table: Mutex::default() }
    }

    /// Finds out what a request fetches, and in which session.
    ///
    /// # Errors
    /// The protocol's code for the whole answer: the client then begins a new session.
    pub(crate) fn context(&self, request: SessionRequest) -> Result<FetchContext, ErrorCode> {
        match request.epoch {
            FINAL_EPOCH => {
                self.close(request.id);
                Ok(FetchContext::Full(request.wanted))
            }
            FIRST_EPOCH => {
                self.close(request.id);
                Ok(match self.create(request.uses_ids, &request.wanted) {
                    Some(session) => FetchContext::New(session, request.wanted),
                    None => FetchContext::Full(request.wanted),
                })
            }
            _ => self.resume(request),
        }
    }

    fn resume(&self, request: SessionRequest) -> Result<FetchContext, ErrorCode> {
        let found = self.table.lock().sessions.get(&request.id).map(|(session, _)| Arc::clone(session));
        let shared = found.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let mut session = shared.lock();
        if session.epoch != request.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_ids != request.uses_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.epoch = next_epoch(session.epoch);
        session.last_used = Instant::now();
        for forgotten in &request.forgotten {
            session.forget(forgotten);
        }
        request.wanted.into_iter().for_each(|wanted| session.want(wanted));
        let (size, last_used) = (session.order.len(), session.last_used);
        let wanted = session.order.values().map(|cached| cached.wanted.clone()).collect();
        drop(session);
        if !self.resized(request.id, Info { partitions: size, last_used }) {
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        Ok(FetchContext::Incremental(shared, wanted))
    }

    /// Takes note of a session's size. A session that would make all of them too large is dropped.
    fn resized(&self, id: i32, info: Info) -> bool {
        let mut table = self.table.lock();
        let others = table.partitions - table.sessions.get(&id).map_or(0, |(_, info)| info.partitions);
        if others + info.partitions > PARTITIONS_MAX {
            table.remove(id);
            return false;
        }
        if let Some((_, known)) = table.sessions.get_mut(&id) {
            *known = info;
            table.partitions = others + info.partitions;
        }
        true
    }

    fn create(&self, uses_ids: bool, wanted: &[Wanted]) -> Option<Arc<Mutex<Session>>> {
        let mut table = self.table.lock();
        let now = Instant::now();
        if wanted.is_empty() || table.partitions + wanted.len() > PARTITIONS_MAX {
            return None;
        }
        if table.sessions.len() >= self.capacity && !table.evict(now, wanted.len()) {
            // The client is not told: it goes on without a session.
            return None;
        }
        let mut id = random_id();
        while table.sessions.contains_key(&id) {
            id = random_id();
        }
        let mut session = Session {
            id,
            epoch: next_epoch(FIRST_EPOCH),
            uses_ids,
            order: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
            last_used: now,
        };
        wanted.iter().cloned().for_each(|wanted| session.want(wanted));
        let partitions = session.order.len();
        let session = Arc::new(Mutex::new(session));
        table.partitions += partitions;
        table.sessions.insert(id, (Arc::clone(&session), Info { partitions, last_used: now }));
        Some(session)
    }

    fn close(&self, id: i32) {
        if id != NO_SESSION {
            self.table.lock().remove(id);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.lock().sessions.len()
    }
}

impl Table {
    fn remove(&mut self, id: i32) {
        if let Some((_, info)) = self.sessions.remove(&id) {
            self.partitions -= info.partitions;
        }
    }

    /// Makes room for a session of `size` partitions: the one that was idle the longest goes, if that is long enough;
    /// else a smaller one that has lived for long enough without being used.
    fn evict(&mut self, now: Instant, size: usize) -> bool {
        let oldest = self.sessions.iter().min_by_key(|(_, (_, info))| info.last_used);
        let Some((&id, (_, info))) = oldest else { return false };
        let idle = now.saturating_duration_since(info.last_used);
        if idle < EVICTION_MIN && !(info.partitions < size && idle > EVICTION_MIN / 2) {
            return false;
        }
        self.remove(id);
        true
    }
}

/// A positive number. Random, so that a client which still has a session of an earlier life of this broker does not
/// come upon somebody else's.
fn random_id() -> i32 {
    let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
    (i32::from_be_bytes([a, b, c, d]) & i32::MAX).max(1)
}

/// Epochs go from the largest back to 1.
const fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

impl Session {
    /// The id that the client repeats.
    pub(crate) const fn id(&self) -> i32 {
        self.id
    }

    fn want(&mut self, wanted: Wanted) {
        let key = (wanted.topic.clone(), wanted.partition);
        match self.places.get(&key).and_then(|place| self.order.get_mut(place)) {
            Some(cached) => cached.wanted = wanted,
            None => {
                self.places.insert(key, self.next_place);
                self.order.insert(self.next_place, Cached { wanted, told: None });
                self.next_place += 1;
            }
        }
    }

    fn forget(&mut self, key: &(TopicKey, i32)) {
        if let Some(place) = self.places.remove(key) {
            self.order.remove(&place);
        }
    }

    /// Takes note of what is answered for a partition; whether it has to be answered at all. Partitions with data go
    /// to the end of the order, so that all get their turn.
    pub(crate) fn tell(
        &mut self,
        topic: &TopicKey,
        partition: i32,
        told: Told,
        has_data: bool,
        must: bool,
    ) -> bool {
        let key = (topic.clone(), partition);
        let Some(place) = self.places.get_mut(&key) else { return true };
        let Some(cached) = self.order.get_mut(place) else { return true };
        // An error is said again and again, and what was said before it no longer counts.
        let news = has_data || must || cached.told != Some(told);
        cached.told = (!must).then_some(told);
        if has_data && let Some(cached) = self.order.remove(place) {
            *place = self.next_place;
            self.order.insert(self.next_place, cached);
            self.next_place += 1;
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, partition: i32, offset: i64) -> Wanted {
        Wanted {
            topic: TopicKey::Name(name.into()),
            partition,
            offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            bytes_max: 100,
            log_start: 0,
            high_watermark: i64::MAX,
        }
    }

    fn request(id: i32, epoch: i32, wanted: Vec<Wanted>) -> SessionRequest {
        SessionRequest { id, epoch, uses_ids: false, wanted, forgotten: Vec::new() }
    }

    fn begin(sessions: &FetchSessions, wanted: Vec<Wanted>) -> Option<Arc<Mutex<Session>>> {
        match sessions.context(request(NO_SESSION, FIRST_EPOCH, wanted)).unwrap() {
            FetchContext::New(session, _) => Some(session),
            _ => None,
        }
    }

    fn resume(sessions: &FetchSessions, request: SessionRequest) -> Result<Vec<(i32, i64)>, ErrorCode> {
        match sessions.context(request)? {
            FetchContext::Incremental(_, wanted) => {
                Ok(wanted.iter().map(|w| (w.partition, w.offset)).collect())
            }
            _ => panic!("no session"),
        }
    }

    #[test]
    fn a_session_remembers_and_changes() {
        let sessions = FetchSessions::new(10);
        let id = begin(&sessions, vec![wanted("t", 0, 0), wanted("t", 1, 0)]).unwrap().lock().id();
        assert_eq!(resume(&sessions, request(id, 1, vec![])).unwrap(), [(0, 0), (1, 0)]);
        let mut change = request(id, 2, vec![wanted("t", 0, 7), wanted("t", 2, 0)]);
        change.forgotten = vec![(TopicKey::Name("t".into()), 1)];
        assert_eq!(resume(&sessions, change).unwrap(), [(0, 7), (2, 0)]);
    }

    #[test]
    fn wrong_ids_epochs_and_kinds_of_names_are_refused() {
        let sessions = FetchSessions::new(10);
        let id = begin(&sessions, vec![wanted("t", 0, 0)]).unwrap().lock().id();
        assert_eq!(
            resume(&sessions, request(id ^ 1, 1, vec![])).unwrap_err(),
            ErrorCode::FetchSessionIdNotFound
        );
        assert_eq!(
            resume(&sessions, request(id, 2, vec![])).unwrap_err(),
            ErrorCode::InvalidFetchSessionEpoch
        );
        let by_id = SessionRequest { uses_ids: true, ..request(id, 1, vec![]) };
        assert_eq!(resume(&sessions, by_id).unwrap_err(), ErrorCode::FetchSessionTopicIdError);
        assert!(resume(&sessions, request(id, 1, vec![])).is_ok(), "a refusal changes nothing");
        assert!(resume(&sessions, request(id, 1, vec![])).is_err(), "an epoch is used once");
    }

    #[test]
    fn a_session_of_an_earlier_life_is_not_taken_for_another() {
        let before = FetchSessions::new(10);
        let id = begin(&before, vec![wanted("mine", 0, 0)]).unwrap().lock().id();
        // The broker starts again, and other clients are faster.
        let after = FetchSessions::new(10);
        for _ in 0..10 {
            begin(&after, vec![wanted("theirs", 0, 0)]).unwrap();
        }
        assert_eq!(resume(&after, request(id, 1, vec![])).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    }

    #[test]
    fn the_epoch_wraps_to_one() {
        let sessions = FetchSessions::new(10);
        let session = begin(&sessions, vec![wanted("t", 0, 0)]).unwrap();
        let id = session.lock().id();
        session.lock().epoch = i32::MAX;
        assert!(resume(&sessions, request(id, i32::MAX, vec![])).is_ok());
        assert!(resume(&sessions, request(id, 1, vec![])).is_ok());
    }

    #[test]
    fn a_final_epoch_ends_and_a_first_one_replaces() {
        let sessions = FetchSessions::new(10);
        let id = begin(&sessions, vec![wanted("t", 0, 0)]).unwrap().lock().id();
        assert!(matches!(
            sessions.context(request(id, FIRST_EPOCH, vec![wanted("t", 0, 0)])),
            Ok(FetchContext::New(..))
        ));
        assert_eq!(sessions.len(), 1);
        let other = sessions.table.lock().sessions.keys().copied().next().unwrap();
        assert!(matches!(sessions.context(request(other, FINAL_EPOCH, vec![])), Ok(FetchContext::Full(_))));
        assert_eq!((sessions.len(), sessions.table.lock().partitions), (0, 0));
    }

    #[test]
    fn only_news_are_told_and_data_goes_to_the_end() {
        let sessions = FetchSessions::new(10);
        let session = begin(&sessions, vec![wanted("t", 0, 0), wanted("t", 1, 0)]).unwrap();
        let topic = TopicKey::Name("t".into());
        let told = Told { high_watermark: 5, log_start: 0 };
        {
            let mut session = session.lock();
            assert!(session.tell(&topic, 0, told, false, false), "the first time");
            assert!(!session.tell(&topic, 0, told, false, false), "nothing new");
            assert!(session.tell(&topic, 0, Told { high_watermark: 6, ..told }, false, false));
            assert!(session.tell(&topic, 0, told, false, true), "an error");
            assert!(session.tell(&topic, 0, told, false, false), "after an error everything is new");
            assert!(session.tell(&topic, 0, told, true, false), "data");
        }
        let id = session.lock().id();
        assert_eq!(resume(&sessions, request(id, 1, vec![])).unwrap(), [(1, 0), (0, 0)]);
    }

    #[test]
    fn a_full_cache_refuses_silently_until_someone_was_idle_for_long() {
        let sessions = FetchSessions::new(1);
        assert!(begin(&sessions, vec![wanted("t", 0, 0)]).is_some());
        assert!(begin(&sessions, vec![wanted("t", 0, 0)]).is_none());
        let Some(past) = Instant::now().checked_sub(EVICTION_MIN) else { return };
        sessions.table.lock().sessions.values_mut().for_each(|(_, info)| info.last_used = past);
        assert!(begin(&sessions, vec![wanted("t", 0, 0)]).is_some());
        assert_eq!(sessions.len(), 1);
    }
}
