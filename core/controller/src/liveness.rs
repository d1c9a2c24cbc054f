//! The active controller's memory of which broker was heard when.
//!
//! Pure: events and the time of day go in, the brokers to fence come out. It is not part of the metadata; a node that
//! becomes the active controller begins with an empty one and gives everybody a fresh session.

use std::collections::BTreeMap;

use towpath_types::{BrokerEpoch, BrokerId, Offset};

use crate::MetadataImage;

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
    /// nothing of the metadata.
    pub fn became_active(&mut self, image: &MetadataImage, now_ms: i64) {
        let unfenced = image.brokers().filter(|broker| !broker.fenced);
        self.sessions = unfenced
            .map(|broker| {
                let session = Session {
                    epoch: broker.epoch,
                    heard_ms: now_ms,
                    metadata_offset: Offset::ZERO,
                    connection: Connection::Up,
                    shutdown_offset: broker.in_controlled_shutdown.then(|| image.next_offset()),
                };
                (broker.id, session)
            })
            .collect();
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
        let over = self.sessions.iter().filter(|(_, s)| s.is_over(self.session_timeout_ms, now_ms));
        over.map(|(broker, _)| *broker).collect()
    }

    /// When [`Self::due`] is worth asking next if nothing happens before; none while there are no sessions.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<i64> {
        self.sessions.values().map(|session| session.ends_ms(self.session_timeout_ms)).min()
    }

    /// A broker's session is over: it was fenced, stopped, or was unregistered.
    pub fn ended(&mut self, broker: BrokerId) {
        self.sessions.remove(&broker);
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
