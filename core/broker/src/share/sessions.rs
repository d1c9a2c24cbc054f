//! Share sessions: which partitions a member fetches, so that it need not say so each time. An epoch that goes up by one
//! with every request keeps both sides in step.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use towpath_wire::ErrorCode;
use uuid::Uuid;

/// The epoch of a request that ends the session.
pub(crate) const FINAL_EPOCH: i32 = -1;
/// The epoch of a request that begins one.
pub(crate) const INITIAL_EPOCH: i32 = 0;
/// Partitions of one session (R10).
const PARTITIONS_MAX: usize = 20_000;
/// Partitions of all sessions together (R10).
const PLACES_MAX: usize = 1_000_000;
/// How long a session that nobody uses keeps its place when others want one; the group is not taken for in use by it
/// either. A fetch waits for less.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(300);

/// A topic's id and a partition's number.
pub(crate) type Place = (Uuid, i32);

#[derive(Debug)]
struct Session {
    epoch: i32,
    partitions: Vec<Place>,
    began_at: Instant,
    used_at: Instant,
    /// Over which it is used.
    connection: u64,
}

/// Sessions by group and member.
type ByGroup = HashMap<Arc<str>, HashMap<Arc<str>, Session>>;

#[derive(Debug, Default)]
struct Sessions {
    by_group: ByGroup,
    /// How many there are, and partitions of all of them.
    count: usize,
    places: usize,
}

impl Sessions {
    fn get_mut(&mut self, group: &str, member: &str) -> Option<&mut Session> {
        self.by_group.get_mut(group)?.get_mut(member)
    }

    fn put(&mut self, group: &Arc<str>, member: &Arc<str>, session: Session) {
        self.remove(group, member);
        self.count += 1;
        self.places += session.partitions.len();
        self.by_group.entry(Arc::clone(group)).or_default().insert(Arc::clone(member), session);
    }

    fn remove(&mut self, group: &str, member: &str) -> Option<Session> {
        let members = self.by_group.get_mut(group)?;
        let removed = members.remove(member)?;
        if members.is_empty() {
            self.by_group.remove(group);
        }
        self.count -= 1;
        self.places -= removed.partitions.len();
        Some(removed)
    }

    fn forget_idle(&mut self, now: Instant) {
        let mut idle = Vec::new();
        for (group, members) in &self.by_group {
            let is_idle = |session: &Session| now.duration_since(session.used_at) >= IDLE_MAX;
            let found = members.iter().filter(|(_, session)| is_idle(session));
            idle.extend(found.map(|(member, _)| (Arc::clone(group), Arc::clone(member))));
        }
        for (group, member) in idle {
            self.remove(&group, &member);
        }
    }

    /// Whether a session may have so many partitions instead of those that it has.
    const fn has_room(&self, before: usize, after: usize) -> bool {
        after <= before || (after <= PARTITIONS_MAX && self.places - before + after <= PLACES_MAX)
    }
}

/// The sessions of all groups with a broker.
#[derive(Debug, Default)]
pub(crate) struct ShareSessions(Mutex<Sessions>);

/// What a request asks of its session.
pub(crate) struct SessionUse<'a> {
    pub(crate) group: &'a Arc<str>,
    pub(crate) member: &'a Arc<str>,
    pub(crate) epoch: i32,
    pub(crate) connection: u64,
    /// Partitions that are new in it.
    pub(crate) wanted: Vec<Place>,
    /// Partitions that are no longer in it.
    pub(crate) forgotten: &'a HashSet<Place>,
}

/// The epoch after `epoch`.
const fn next(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

impl ShareSessions {
    /// Begins a session, or goes on with one: the partitions to fetch from, and when it began.
    ///
    /// # Errors
    /// `SHARE_SESSION_LIMIT_REACHED`, `SHARE_SESSION_NOT_FOUND`, `INVALID_SHARE_SESSION_EPOCH`.
    pub(crate) fn fetch(
        &self,
        request: SessionUse<'_>,
        sessions_max: usize,
    ) -> Result<(Vec<Place>, Instant), ErrorCode> {
        let mut sessions = self.0.lock();
        let now = Instant::now();
        let begins = request.epoch == INITIAL_EPOCH;
        let known = sessions.get_mut(request.group, request.member);
        let (is_known, epoch, began_at, before) = match known {
            Some(session) => {
                session.used_at = now;
                session.connection = request.connection;
                (true, session.epoch, session.began_at, session.partitions.clone())
            }
            None if begins => (false, request.epoch, now, Vec::new()),
            None => return Err(ErrorCode::ShareSessionNotFound),
        };
        if !begins && request.epoch != epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        if !is_known && sessions.count >= sessions_max {
            sessions.forget_idle(now);
            if sessions.count >= sessions_max {
                return Err(ErrorCode::ShareSessionLimitReached);
            }
        }
        let places_before = before.len();
        let mut partitions = if begins { Vec::new() } else { before };
        partitions.retain(|place| !request.forgotten.contains(place));
        let mut known: HashSet<Place> = partitions.iter().copied().collect();
        for place in request.wanted {
            if !request.forgotten.contains(&place) && known.insert(place) {
                partitions.push(place);
            }
        }
        if !sessions.has_room(places_before, partitions.len()) {
            // R10: all is as it was.
            return Err(ErrorCode::ShareSessionLimitReached);
        }
        let session = Session {
            epoch: next(request.epoch),
            partitions: partitions.clone(),
            began_at: if begins { now } else { began_at },
            used_at: now,
            connection: request.connection,
        };
        let began_at = session.began_at;
        sessions.put(request.group, request.member, session);
        // Nobody is always last.
        let turn = usize::try_from(request.epoch).unwrap_or(0) % partitions.len().max(1);
        partitions.rotate_left(turn);
        Ok((partitions, began_at))
    }

    /// Goes on with a session without fetching.
    ///
    /// # Errors
    /// `SHARE_SESSION_NOT_FOUND`, `INVALID_SHARE_SESSION_EPOCH`.
    pub(crate) fn acknowledge(&self, group: &str, member: &str, epoch: i32) -> Result<(), ErrorCode> {
        if epoch == INITIAL_EPOCH {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        let mut sessions = self.0.lock();
        let session = sessions.get_mut(group, member).ok_or(ErrorCode::ShareSessionNotFound)?;
        session.used_at = Instant::now();
        if epoch == FINAL_EPOCH {
            return Ok(());
        }
        if epoch != session.epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        session.epoch = next(session.epoch);
        Ok(())
    }

    /// The sessions, by group and member, that are used over a connection.
    pub(crate) fn of_connection(&self, connection: u64) -> Vec<(Arc<str>, Arc<str>)> {
        let sessions = self.0.lock();
        let mut found = Vec::new();
        for (group, members) in &sessions.by_group {
            let used = members.iter().filter(|(_, session)| session.connection == connection);
            found.extend(used.map(|(member, _)| (Arc::clone(group), Arc::clone(member))));
        }
        found
    }

    /// Ends a session: the partitions that it had.
    pub(crate) fn end(&self, group: &str, member: &str) -> Vec<Place> {
        self.0.lock().remove(group, member).map(|session| session.partitions).unwrap_or_default()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().count
    }

    /// Whether somebody of the group fetches here.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        let now = Instant::now();
        let is_used = |session: &Session| now.duration_since(session.used_at) < IDLE_MAX;
        self.0.lock().by_group.get(group).is_some_and(|members| members.values().any(is_used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(
        sessions: &ShareSessions,
        member: &str,
        epoch: i32,
        wanted: &[i32],
        forgotten: &[i32],
    ) -> Result<Vec<i32>, ErrorCode> {
        let places = |indexes: &[i32]| indexes.iter().map(|index| (Uuid::nil(), *index)).collect::<Vec<_>>();
        let (group, member): (Arc<str>, Arc<str>) = ("g".into(), member.into());
        let request = SessionUse {
            group: &group,
            member: &member,
            epoch,
            connection: 1,
            wanted: places(wanted),
            forgotten: &places(forgotten).into_iter().collect(),
        };
        sessions.fetch(request, 2).map(|(places, _)| places.into_iter().map(|(_, index)| index).collect())
    }

    #[test]
    fn both_sides_stay_in_step() {
        let sessions = ShareSessions::default();
        assert_eq!(fetch(&sessions, "m", 1, &[], &[]), Err(ErrorCode::ShareSessionNotFound));
        assert_eq!(fetch(&sessions, "m", 0, &[0, 1, 1], &[]), Ok(vec![0, 1]));
        assert_eq!(fetch(&sessions, "m", 1, &[2], &[0]), Ok(vec![2, 1]));
        assert_eq!(sessions.acknowledge("g", "m", 1), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(sessions.acknowledge("g", "m", 0), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(sessions.acknowledge("g", "m", 2), Ok(()));
        assert_eq!(fetch(&sessions, "m", 2, &[], &[]), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(fetch(&sessions, "m", 0, &[5], &[]), Ok(vec![5]), "it begins anew");
        assert_eq!(fetch(&sessions, "n", 0, &[5], &[]), Ok(vec![5]));
        assert_eq!(fetch(&sessions, "o", 0, &[5], &[]), Err(ErrorCode::ShareSessionLimitReached));
        assert!(sessions.has_group("g"));
        assert_eq!((sessions.of_connection(1).len(), sessions.of_connection(2).len()), (2, 0));
        assert_eq!(sessions.acknowledge("g", "m", FINAL_EPOCH), Ok(()));
        assert_eq!(sessions.end("g", "m"), [(Uuid::nil(), 5)]);
        assert_eq!(sessions.end("g", "m"), []);
        assert_eq!(sessions.acknowledge("g", "m", FINAL_EPOCH), Err(ErrorCode::ShareSessionNotFound));
        sessions.end("g", "n");
        assert!(!sessions.has_group("g"));
    }

    #[test]
    fn sessions_have_no_more_partitions_than_may_be() {
        let sessions = ShareSessions::default();
        let all: Vec<i32> = (0..20_000).collect();
        assert_eq!(fetch(&sessions, "m", 0, &all, &[]).map(|it| it.len()), Ok(20_000));
        let more = fetch(&sessions, "m", 1, &[20_000], &[]);
        assert_eq!(more, Err(ErrorCode::ShareSessionLimitReached));
        let other = fetch(&sessions, "m", 1, &[20_000], &[0]);
        assert_eq!(other.map(|it| it.len()), Ok(20_000), "all was as it had been");
        assert_eq!((sessions.len(), sessions.0.lock().places), (1, 20_000));
        // Others have nearly all that there is.
        sessions.0.lock().places += PLACES_MAX - 20_001;
        assert_eq!(fetch(&sessions, "n", 0, &[1, 2], &[]), Err(ErrorCode::ShareSessionLimitReached));
        assert_eq!((sessions.len(), sessions.0.lock().places), (1, PLACES_MAX - 1));
        assert_eq!(fetch(&sessions, "n", 0, &[1], &[]), Ok(vec![1]));
        assert_eq!(fetch(&sessions, "m", 0, &[1], &[]), Ok(vec![1]));
        sessions.end("n", "m");
        sessions.end("g", "m");
        sessions.end("g", "n");
        assert_eq!((sessions.len(), sessions.0.lock().places), (0, PLACES_MAX - 20_001));
    }
}
