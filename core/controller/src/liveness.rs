//! The active controller's memory of which broker was heard when.
//!
//! Pure: events and the time of day go in, the brokers to fence come out. It is not part of the metadata; a node that
//! becomes the active controller begins with an empty one and gives everybody a fresh session.

use std::collections::BTreeMap;

use towpath_types::{BrokerEpoch, BrokerId, Offset};

use crate::{BrokerRegistration, MetadataImage};

/// Which broker was heard when. Times are milliseconds of a clock that does not go back, the same for all calls.
#[derive(Debug, Clone)]
pub struct Liveness {
    session_timeout_ms: i64,
    sessions: BTreeMap<BrokerId, Session>,
}

#[derive(Debug, Clone)]
struct Session {
    epoch: BrokerEpoch,
    heard_ms: i64,
    /// The offset of the next metadata record that the broker reads.
    metadata_offset: Offset,
    connection: Connection,
    /// The end of the metadata log when the last of its leaderships was moved.
    shutdown_offset: Option<Offset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// As far as one knows.
    Up,
    /// It broke; nothing was heard since.
    Lost,
    /// It broke, and the broker's listener refuses a new one: the process is gone.
    Refused,
}

impl Liveness {
    /// An empty memory. A broker that is not heard for `session_timeout_ms` (`broker.session.timeout.ms`) is to be
    /// fenced.
    #[must_use]
    pub const fn new(session_timeout_ms: i64) -> Self {
        Self { session_timeout_ms, sessions: BTreeMap::new() }
    }

    /// This node became the active controller: whoever is not fenced is taken to have been heard now, and to know
    /// nothing of the metadata but what was heard of the same incarnation before. `image` may be older than `now_ms`:
    /// what was heard of incarnations that it does not know yet stays.
    pub fn became_active(&mut self, image: &MetadataImage, now_ms: i64) {
        self.sessions.retain(|id, session| {
            let is_newer = session.epoch.get() >= image.next_offset().get();
            let is_this = |broker: &BrokerRegistration| !broker.fenced && broker.epoch == session.epoch;
            is_newer || image.broker(*id).is_some_and(is_this)
        });
        for broker in image.brokers().filter(|broker| !broker.fenced) {
            let fresh = Session::fresh(image, broker, now_ms);
            match self.sessions.get_mut(&broker.id) {
                None => {
                    self.sessions.insert(broker.id, fresh);
                }
                Some(session) if session.epoch == broker.epoch => {
                    if session.heard_ms < now_ms {
                        (session.heard_ms, session.connection) = (now_ms, Connection::Up);
                    }
                    session.shutdown_offset = session.shutdown_offset.max(fresh.shutdown_offset);
                }
                Some(_) => {}
            }
        }
    }

    /// Every broker that is not fenced has a session: one whose incarnation has none gets a fresh one, as if it had been
    /// heard now. Without one it would never be due, however long it is silent (rule 10). To be called from time to
    /// time while this node is the active controller.
    pub fn cover(&mut self, image: &MetadataImage, now_ms: i64) {
        for broker in image.brokers().filter(|broker| !broker.fenced) {
            if self.sessions.get(&broker.id).is_none_or(|session| session.epoch < broker.epoch) {
                self.sessions.insert(broker.id, Session::fresh(image, broker, now_ms));
            }
        }
    }

    /// An incarnation of a broker registered or sent a heartbeat; `metadata_offset` is the offset of the next
    /// metadata record that it reads. An older incarnation than one that was heard is not listened to (R6).
    pub fn heard(&mut self, broker: BrokerId, epoch: BrokerEpoch, now_ms: i64, metadata_offset: Offset) {
        let fresh = Session {
            epoch,
            heard_ms: now_ms,
            metadata_offset,
            connection: Connection::Up,
            shutdown_offset: None,
        };
        let session = self.sessions.entry(broker).or_insert_with(|| fresh.clone());
        if session.epoch < epoch {
            *session = fresh;
        } else if session.epoch == epoch {
            session.heard_ms = session.heard_ms.max(now_ms);
            session.metadata_offset = session.metadata_offset.max(metadata_offset);
            session.connection = Connection::Up;
        }
    }

    /// The connection of a broker broke. Answers whether its listener should be tried: a process that is gone is
    /// then known to be long before its session ends.
    pub fn lost_connection(&mut self, broker: BrokerId, now_ms: i64) -> bool {
        match self.sessions.get_mut(&broker) {
            Some(session) if session.connection == Connection::Up => {
                session.connection = Connection::Lost;
                !session.is_over(self.session_timeout_ms, now_ms)
            }
            _ => false,
        }
    }

    /// A broker's listener refused a connection. That says that the process is gone only if nothing was heard since
    /// its connection broke: otherwise it is back.
    pub fn probe_failed(&mut self, broker: BrokerId, _now_ms: i64) {
        if let Some(session) = self.sessions.get_mut(&broker)
            && session.connection == Connection::Lost
        {
            session.connection = Connection::Refused;
        }
    }

    /// The brokers to fence: not heard for too long, or gone. Each is named until [`Self::ended`] says that it is
    /// fenced.
    #[must_use]
    pub fn due(&self, now_ms: i64) -> Vec<BrokerId> {
        self.due_incarnations(now_ms).into_iter().map(|(broker, _)| broker).collect()
    }

    /// As [`Self::due`], with the incarnations that were not heard: only these are to be fenced
    /// ([`crate::decide::fence_incarnation`]), since another one may register meanwhile (R6).
    #[must_use]
    pub fn due_incarnations(&self, now_ms: i64) -> Vec<(BrokerId, BrokerEpoch)> {
        let over = self.sessions.iter().filter(|(_, s)| s.is_over(self.session_timeout_ms, now_ms));
        over.map(|(broker, session)| (*broker, session.epoch)).collect()
    }

    /// When [`Self::due`] is worth asking next if nothing happens before; none while there are no sessions.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<i64> {
        self.sessions.values().map(|session| session.ends_ms(self.session_timeout_ms)).min()
    }

    /// The session of an incarnation of a broker is over: it was fenced, stopped, or was unregistered. That of a newer
    /// one goes on (R6).
    pub fn ended(&mut self, broker: BrokerId, epoch: BrokerEpoch) {
        if self.sessions.get(&broker).is_some_and(|session| session.epoch <= epoch) {
            self.sessions.remove(&broker);
        }
    }

    /// Whether a broker was heard within the session timeout and is not known to be gone (rule 12).
    #[must_use]
    pub fn session_alive(&self, broker: BrokerId, now_ms: i64) -> bool {
        self.sessions.get(&broker).is_some_and(|s| !s.is_over(self.session_timeout_ms, now_ms))
    }

    /// What all active brokers but one know of the metadata at least: the offset of the next record that the slowest
    /// reads; none without others. One that was not heard yet knows nothing.
    #[must_use]
    pub fn lowest_offset_of_others(&self, image: &MetadataImage, broker: BrokerId) -> Option<Offset> {
        let others = image.brokers().filter(|other| other.id != broker && other.is_active());
        others
            .map(|other| {
                let session = self.sessions.get(&other.id).filter(|session| session.epoch == other.epoch);
                session.map_or(Offset::ZERO, |session| session.metadata_offset)
            })
            .min()
    }

    /// Leaderships of a broker in controlled shutdown were moved, and the metadata log ends at `offset` now.
    pub fn moved_leaders(&mut self, broker: BrokerId, offset: Offset) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.shutdown_offset = Some(offset);
        }
    }

    /// What all others must know before a broker in controlled shutdown may stop.
    #[must_use]
    pub fn shutdown_offset(&self, broker: BrokerId) -> Option<Offset> {
        self.sessions.get(&broker).and_then(|session| session.shutdown_offset)
    }
}

impl Session {
    /// That of a broker of which nothing is known but its registration.
    fn fresh(image: &MetadataImage, broker: &BrokerRegistration, now_ms: i64) -> Self {
        Self {
            epoch: broker.epoch,
            heard_ms: now_ms,
            metadata_offset: Offset::ZERO,
            connection: Connection::Up,
            shutdown_offset: broker.in_controlled_shutdown.then(|| image.next_offset()),
        }
    }

    const fn ends_ms(&self, timeout_ms: i64) -> i64 {
        match self.connection {
            Connection::Refused => self.heard_ms,
            Connection::Up | Connection::Lost => self.heard_ms.saturating_add(timeout_ms),
        }
    }

    fn is_over(&self, timeout_ms: i64, now_ms: i64) -> bool {
        self.connection == Connection::Refused || self.ends_ms(timeout_ms) < now_ms
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{MetadataRecord, RegisterBroker};

    const TIMEOUT: i64 = 9_000;

    fn id(id: i32) -> BrokerId {
        BrokerId::new(id)
    }

    fn image(brokers: i32) -> MetadataImage {
        let mut image = MetadataImage::new();
        for broker in 1..=brokers {
            let register = RegisterBroker::new(id(broker), Uuid::new_v4(), "h".to_owned(), 1);
            image.apply(image.next_offset(), &MetadataRecord::RegisterBroker(register)).unwrap();
        }
        image
    }

    fn set(image: &mut MetadataImage, broker: i32, fenced: bool, in_controlled_shutdown: bool) {
        let epoch = image.broker(id(broker)).unwrap().epoch;
        let state =
            MetadataRecord::BrokerState { broker_id: id(broker), epoch, fenced, in_controlled_shutdown };
        image.apply(image.next_offset(), &state).unwrap();
    }

    #[test]
    fn silence_ends_a_session() {
        let (mut liveness, epoch) = (Liveness::new(TIMEOUT), BrokerEpoch::new(5));
        assert!(!liveness.session_alive(id(1), 0) && liveness.next_due_ms().is_none());
        liveness.heard(id(1), epoch, 100, Offset::ZERO);
        assert!(liveness.session_alive(id(1), 9_100) && liveness.due(9_100).is_empty());
        assert_eq!(liveness.next_due_ms(), Some(9_100));
        assert_eq!(liveness.due(9_101), [id(1)]);
        assert_eq!(liveness.due(9_102), [id(1)], "until it is fenced");
        liveness.heard(id(1), BrokerEpoch::new(4), 9_103, Offset::ZERO);
        assert_eq!(liveness.due(9_103), [id(1)], "R6: an older incarnation");
        liveness.heard(id(1), epoch, 9_104, Offset::ZERO);
        assert!(liveness.due(9_104).is_empty());
        liveness.ended(id(1), epoch);
        assert!(!liveness.session_alive(id(1), 9_104));
    }

    #[test]
    fn a_refusing_listener_ends_a_session_at_once() {
        let (mut liveness, epoch) = (Liveness::new(TIMEOUT), BrokerEpoch::new(5));
        liveness.heard(id(1), epoch, 0, Offset::ZERO);
        liveness.probe_failed(id(1), 1);
        assert!(liveness.session_alive(id(1), 1), "its connection did not break");
        assert!(liveness.lost_connection(id(1), 2));
        assert!(!liveness.lost_connection(id(1), 2), "one probe is enough");
        liveness.heard(id(1), epoch, 3, Offset::ZERO);
        liveness.probe_failed(id(1), 4);
        assert!(liveness.session_alive(id(1), 4), "it came back meanwhile");
        assert!(liveness.lost_connection(id(1), 5));
        assert!(liveness.session_alive(id(1), 5), "a connection may break without anybody's death");
        liveness.probe_failed(id(1), 6);
        assert_eq!(liveness.due(6), [id(1)]);
        assert!(!liveness.session_alive(id(1), 6));
        assert!(!liveness.lost_connection(id(9), 6));
    }

    #[test]
    fn a_new_controller_gives_everybody_a_fresh_session() {
        let mut image = image(4);
        set(&mut image, 2, true, false);
        set(&mut image, 3, false, true);
        let mut liveness = Liveness::new(TIMEOUT);
        liveness.heard(id(9), BrokerEpoch::new(0), 0, Offset::ZERO);
        liveness.became_active(&image, 50_000);
        let alive = |broker| liveness.session_alive(id(broker), 50_000 + TIMEOUT);
        assert!(alive(1) && alive(3) && alive(4) && !alive(2) && !alive(9));
        assert_eq!(liveness.shutdown_offset(id(3)), Some(image.next_offset()));
        assert_eq!(liveness.shutdown_offset(id(1)), None);
        assert_eq!(liveness.due(50_001 + TIMEOUT), [id(1), id(3), id(4)]);
    }

    #[test]
    fn the_end_of_an_incarnation_is_not_that_of_the_next() {
        let mut liveness = Liveness::new(TIMEOUT);
        let (old, new) = (BrokerEpoch::new(5), BrokerEpoch::new(6));
        liveness.heard(id(1), old, 0, Offset::ZERO);
        assert_eq!(liveness.due_incarnations(TIMEOUT + 1), [(id(1), old)]);
        liveness.heard(id(1), new, TIMEOUT + 1, Offset::ZERO);
        liveness.ended(id(1), old);
        assert!(liveness.session_alive(id(1), TIMEOUT + 1));
        liveness.ended(id(1), new);
        assert!(!liveness.session_alive(id(1), TIMEOUT + 1));
    }

    #[test]
    fn whoever_is_not_fenced_has_a_session() {
        let mut image = image(3);
        set(&mut image, 2, true, false);
        let mut liveness = Liveness::new(TIMEOUT);
        let epoch = |broker| image.broker(id(broker)).unwrap().epoch;
        liveness.heard(id(3), epoch(3), 1_000, Offset::new(3));
        liveness.cover(&image, 5_000);
        assert_eq!(liveness.due(1_001 + TIMEOUT), [id(3)], "it was heard, and has not been given more time");
        assert_eq!(liveness.due(5_001 + TIMEOUT), [id(1), id(3)]);
        liveness.cover(&image, 6_000);
        assert_eq!(liveness.due(5_001 + TIMEOUT), [id(1), id(3)], "only those that have none");
        liveness.heard(id(1), BrokerEpoch::new(99), 20_000, Offset::ZERO);
        liveness.cover(&image, 50_000);
        assert_eq!(liveness.due(20_001 + TIMEOUT), [id(1), id(3)], "the image is older than what was heard");
        let register =
            MetadataRecord::RegisterBroker(RegisterBroker::new(id(3), Uuid::new_v4(), "h".into(), 1));
        image.apply(image.next_offset(), &register).unwrap();
        liveness.cover(&image, 50_000);
        assert_eq!(liveness.due(50_000), [id(1)], "another incarnation");
    }

    #[test]
    fn a_new_controller_keeps_what_it_has_just_heard() {
        let image = image(3);
        let mut liveness = Liveness::new(TIMEOUT);
        let epoch = |broker| image.broker(id(broker)).unwrap().epoch;
        liveness.heard(id(1), epoch(1), 9_000, Offset::new(3));
        liveness.heard(id(2), BrokerEpoch::new(50), 1_000, Offset::ZERO);
        liveness.heard(id(3), epoch(3), 1_000, Offset::new(3));
        liveness.heard(id(4), BrokerEpoch::new(51), 1_000, Offset::ZERO);
        liveness.became_active(&image, 5_000);
        assert_eq!(liveness.due(1_001 + TIMEOUT), [id(2), id(4)], "incarnations that the image lacks");
        assert_eq!(liveness.due(5_001 + TIMEOUT), [id(2), id(3), id(4)]);
        assert_eq!(liveness.due(9_001 + TIMEOUT), [id(1), id(2), id(3), id(4)]);
        liveness.heard(id(2), epoch(2), 1_000, Offset::ZERO);
        assert_eq!(liveness.lowest_offset_of_others(&image, id(2)), Some(Offset::new(3)));
    }

    #[test]
    fn the_slowest_of_the_others_counts() {
        let mut image = image(4);
        set(&mut image, 4, true, false);
        let mut liveness = Liveness::new(TIMEOUT);
        let epoch = |broker| image.broker(id(broker)).unwrap().epoch;
        for (broker, offset) in [(1, 7), (2, 3), (4, 1)] {
            liveness.heard(id(broker), epoch(broker), 0, Offset::new(offset));
        }
        let lowest = |liveness: &Liveness, broker| liveness.lowest_offset_of_others(&image, id(broker));
        assert_eq!(lowest(&liveness, 3), Some(Offset::new(3)), "4 is fenced");
        assert_eq!(lowest(&liveness, 1), Some(Offset::ZERO), "3 was not heard");
        liveness.heard(id(3), epoch(3), 0, Offset::new(5));
        liveness.heard(id(2), epoch(2), 0, Offset::new(2));
        assert_eq!(lowest(&liveness, 1), Some(Offset::new(3)), "what a broker knows it does not forget");
        assert_eq!(Liveness::new(1).lowest_offset_of_others(&MetadataImage::new(), id(1)), None);
        liveness.moved_leaders(id(1), Offset::new(9));
        assert_eq!(liveness.shutdown_offset(id(1)), Some(Offset::new(9)));
        liveness.heard(id(1), BrokerEpoch::new(99), 1, Offset::ZERO);
        assert_eq!(liveness.shutdown_offset(id(1)), None, "another incarnation");
    }

    proptest! {
        /// Against the plain history: a broker is due exactly if the last it said is too long ago, or its listener
        /// refused after its connection broke and nothing was heard in between.
        #[test]
        fn due_is_what_the_history_says(events in prop::collection::vec((0..4u8, 0..3i32, 0..6_000i64), 1..80)) {
            let mut liveness = Liveness::new(TIMEOUT);
            let mut now = 0;
            let mut history: Vec<(u8, i32, i64)> = Vec::new();
            for (event, broker, pause) in events {
                now += pause;
                history.push((event, broker, now));
                let epoch = BrokerEpoch::new(1);
                match event {
                    0 | 3 => liveness.heard(id(broker), epoch, now, Offset::new(now)),
                    1 => {
                        liveness.lost_connection(id(broker), now);
                    }
                    _ => liveness.probe_failed(id(broker), now),
                }
                for broker in 0..3 {
                    let of: Vec<_> = history.iter().filter(|(_, of, _)| *of == broker).collect();
                    let last = of.iter().rposition(|(event, _, _)| matches!(event, 0 | 3));
                    let expected = last.map(|last| {
                        let since: Vec<u8> = of[last + 1..].iter().map(|(event, _, _)| *event).collect();
                        let lost = since.iter().position(|event| *event == 1);
                        let refused = lost.is_some_and(|lost| since[lost..].contains(&2));
                        refused || of[last].2 + TIMEOUT < now
                    });
                    prop_assert_eq!(liveness.due(now).contains(&id(broker)), expected == Some(true));
                    prop_assert_eq!(liveness.session_alive(id(broker), now), expected == Some(false));
                }
            }
        }
    }
}
