//! Incremental fetch sessions (KIP-227); pure. After the first request only what changed is sent.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_types::{TopicId, TopicPartition};

/// What a fetch says of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) topic_id: TopicId,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) bytes_max: i32,
}

/// The session with one broker.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// 0 for none.
    id: i32,
    /// 0 asks for a new session.
    epoch: i32,
    known: HashMap<Arc<TopicPartition>, Wanted>,
}

/// One fetch of a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SessionRequest {
    pub(super) id: i32,
    pub(super) epoch: i32,
    pub(super) send: Vec<(Arc<TopicPartition>, Wanted)>,
    pub(super) forget: Vec<(Arc<TopicPartition>, TopicId)>,
}

impl Session {
    /// The next request for these partitions.
    pub(super) fn request(&mut self, wanted: &[(Arc<TopicPartition>, Wanted)]) -> SessionRequest {
        let full = self.epoch == 0;
        let mut send = Vec::new();
        let mut gone = std::mem::take(&mut self.known);
        for (partition, now) in wanted {
            // A topic that was created again is another one: it must be forgotten and added.
            let before = gone.remove(partition).filter(|before| before.topic_id == now.topic_id);
            if full || before != Some(*now) {
                send.push((Arc::clone(partition), *now));
            }
            self.known.insert(Arc::clone(partition), *now);
        }
        let forget = if full {
            Vec::new()
        } else {
            gone.into_iter().map(|(partition, before)| (partition, before.topic_id)).collect()
        };
        SessionRequest { id: self.id, epoch: self.epoch, send, forget }
    }

    /// The broker answered without a session error; `id` is the session's.
    pub(super) fn answered(&mut self, id: i32) {
        if id == 0 {
            // Refused, or ended: whole requests until the broker has room.
            self.reset();
        } else if self.epoch == 0 {
            self.id = id;
            self.epoch = 1;
        } else {
            self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
        }
    }

    /// The session is lost: the next request is whole and asks for a new one.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use towpath_types::TopicName;

    use super::*;

    fn wanted(partition: i32, offset: i64) -> (Arc<TopicPartition>, Wanted) {
        let name = TopicName::new("t").unwrap();
        let wanted = Wanted { topic_id: TopicId::ZERO, offset, leader_epoch: 0, bytes_max: 9 };
        (Arc::new(TopicPartition::new(name, partition)), wanted)
    }

    #[test]
    fn only_changes_are_sent() {
        let mut session = Session::default();
        let first = session.request(&[wanted(0, 5), wanted(1, 5)]);
        assert_eq!((first.id, first.epoch, first.send.len()), (0, 0, 2));
        session.answered(77);
        let second = session.request(&[wanted(0, 9), wanted(1, 5)]);
        assert_eq!((second.id, second.epoch), (77, 1));
        assert_eq!(second.send, [wanted(0, 9)]);
        session.answered(77);
        let third = session.request(&[wanted(0, 9)]);
        assert_eq!((third.epoch, third.send.len()), (2, 0));
        assert_eq!(third.forget[0].0.partition, 1);
        session.reset();
        assert_eq!(session.request(&[wanted(0, 9)]).epoch, 0);
    }

    #[test]
    fn epochs_wrap_to_one_and_a_refusal_means_whole_requests() {
        let mut session = Session { id: 3, epoch: i32::MAX, known: HashMap::new() };
        session.answered(3);
        assert_eq!(session.epoch, 1);
        session.answered(0);
        assert_eq!(session.request(&[wanted(0, 1)]).send.len(), 1);
        session.answered(0);
        assert_eq!(session.request(&[wanted(0, 1)]).send.len(), 1);
    }
}
