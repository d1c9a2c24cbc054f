//! Offsets within transactions.

use towpath_types::{ProducerEpoch, ProducerId};
use towpath_wire::txn_offset_commit::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use towpath_wire::{OffsetDeleteRequest, TxnOffsetCommitRequest};

use super::consumers::owning;
use super::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn committing_in(producer: i64, partition: i32, offset: i64) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: "t".into(),
        group_id: "g".into(),
        producer_id: producer,
        producer_epoch: 0,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: "orders".into(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                committed_metadata: Some("note".into()),
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

impl World {
    fn send_in(&mut self, request: &TxnOffsetCommitRequest) -> Waiter {
        self.ask(|machine, now, waiter, out| machine.txn_offset_commit(now, waiter, request, out))
    }

    fn answer_in(&self, waiter: Waiter) -> ErrorCode {
        match self.replies.get(&waiter) {
            Some(Reply::TransactionalCommit(response)) => {
                ErrorCode::from_code(response.topics[0].partitions[0].error_code)
            }
            other => panic!("no answer to TxnOffsetCommit, but {other:?}"),
        }
    }

    fn commit_in(&mut self, request: &TxnOffsetCommitRequest) -> ErrorCode {
        let waiter = self.send_in(request);
        self.answer_in(waiter)
    }

    fn send_end(&mut self, producer: i64, commit: bool) -> Waiter {
        let producer = TransactionalProducer { id: ProducerId::new(producer), epoch: ProducerEpoch::new(0) };
        let marker = EndMarker { producer, coordinator_epoch: 3, commit, bumps_epoch: true };
        self.ask(|machine, _, waiter, out| machine.end_transaction(waiter, marker, out))
    }

    fn end(&mut self, producer: i64, commit: bool) -> ErrorCode {
        let waiter = self.send_end(producer, commit);
        match self.replies.get(&waiter) {
            Some(Reply::EndTransaction(error)) => *error,
            other => panic!("no answer to the marker, but {other:?}"),
        }
    }

    /// What somebody sees who wants nothing that may change.
    fn fetch_stable(&self, partition: i32) -> Result<i64, ErrorCode> {
        let request = OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "orders".into(),
                partition_indexes: vec![partition],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let fetched = self.machine.fetch_offsets(&request, true).topics.remove(0).partitions.remove(0);
        match ErrorCode::from_code(fetched.error_code) {
            ErrorCode::None => Ok(fetched.committed_offset),
            error => {
                assert_eq!((fetched.committed_offset, fetched.metadata.as_deref()), (-1, Some("")));
                Err(error)
            }
        }
    }
}

#[test]
fn offsets_are_visible_when_the_transaction_is_committed() {
    let mut world = World::new();
    assert_eq!(world.commit_in(&committing_in(7, 0, 5)), ErrorCode::None);
    assert_eq!((world.fetch("orders", 0), world.fetch_stable(0)), (-1, Err(ErrorCode::UnstableOffsetCommit)));
    assert_eq!(world.fetch_stable(1), Ok(-1), "another partition");
    assert_eq!(world.commit_in(&committing_in(7, 0, 6)), ErrorCode::None);
    assert_eq!(world.end(7, true), ErrorCode::None);
    assert_eq!((world.fetch("orders", 0), world.fetch_stable(0)), (6, Ok(6)));
    world.commit_in(&committing_in(7, 0, 9));
    let all = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let fetched = world.machine.fetch_offsets(&all, true);
    assert_eq!(fetched.topics[0].partitions[0].error_code, code(ErrorCode::UnstableOffsetCommit));
    assert_eq!(world.end(7, false), ErrorCode::None);
    assert_eq!((world.fetch("orders", 0), world.fetch_stable(0)), (6, Ok(6)), "aborted");
    assert_eq!(world.end(8, true), ErrorCode::None, "a transaction without offsets here");
    assert_eq!(world.machine.stats().transactions, 0);
}

#[test]
fn a_marker_stands_behind_what_was_sent_before_it() {
    let mut world = World::new();
    world.instant_log = false;
    let first = world.send_in(&committing_in(7, 0, 5));
    assert_eq!(world.fetch_stable(0), Err(ErrorCode::UnstableOffsetCommit), "on its way already");
    let end = world.send_end(7, true);
    let next = world.send_in(&committing_in(7, 0, 8));
    assert_eq!(world.machine.waiters(), [first, end, next]);
    let kinds: Vec<bool> =
        world.appends.iter().map(|(_, appended)| matches!(appended, Appended::Marker(_))).collect();
    assert_eq!(kinds, [false, true, false]);
    world.commit_appends();
    assert_eq!(world.fetch("orders", 0), 5);
    assert_eq!(world.fetch_stable(0), Err(ErrorCode::UnstableOffsetCommit), "the next transaction");
    let producers = world.log.iter().filter(|entry| {
        matches!(entry, LoadedEntry::Record { producer: Some(producer), .. } if producer.id == ProducerId::new(7))
    });
    assert_eq!(producers.count(), 2);
}

#[test]
fn a_failed_append_leaves_nothing_pending() {
    let mut world = World::new();
    world.instant_log = false;
    let waiter = world.send_in(&committing_in(7, 0, 5));
    world.fail_appends(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.answer_in(waiter), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.machine.stats(), MachineStats::default());
    world.send_in(&committing_in(7, 0, 5));
    world.commit_appends();
    let end = world.send_end(7, true);
    world.fail_appends(ErrorCode::NotCoordinator);
    assert_eq!(world.replies[&end], Reply::EndTransaction(ErrorCode::NotCoordinator));
    assert_eq!(world.fetch_stable(0), Err(ErrorCode::UnstableOffsetCommit), "the marker will come again");
    let mut out = Vec::new();
    world.send_in(&committing_in(7, 1, 5));
    world.send_end(7, true);
    world.machine.unload(ErrorCode::NotCoordinator, &mut out);
    assert_eq!(out.len(), 2, "everybody who waits is told: {out:?}");
}

#[test]
fn the_later_of_a_plain_and_a_transactional_commit_counts() {
    let mut world = World::new();
    world.commit_in(&committing_in(7, 0, 5));
    world.commit(&committing("", -1, 9));
    world.end(7, true);
    assert_eq!(world.fetch("orders", 0), 9, "it stands later in the log");
    world.commit_in(&committing_in(7, 0, 11));
    world.end(7, true);
    assert_eq!(world.fetch("orders", 0), 11);
    assert_eq!(world.restarted().fetch("orders", 0), 11);
}

#[test]
fn open_transactions_are_loaded() {
    let mut world = World::new();
    world.commit(&committing("", -1, 1));
    world.commit_in(&committing_in(7, 0, 5));
    world.commit_in(&committing_in(8, 1, 6));
    world.commit_in(&TxnOffsetCommitRequest { group_id: "h".into(), ..committing_in(8, 0, 6) });
    world.end(8, false);
    world.commit(&committing("", -1, 2));
    let mut restarted = world.restarted();
    assert_eq!(restarted.machine.stats().bytes, world.machine.stats().bytes);
    assert_eq!(restarted.machine.stats().transactions, 1);
    assert_eq!((restarted.fetch("orders", 0), restarted.fetch("orders", 1)), (2, -1));
    assert_eq!(restarted.fetch_stable(0), Err(ErrorCode::UnstableOffsetCommit));
    restarted.end(7, true);
    assert_eq!(restarted.fetch("orders", 0), 2, "the plain commit was the later one");
    restarted.commit_in(&committing_in(7, 0, 12));
    restarted.end(7, true);
    assert_eq!(
        restarted.fetch("orders", 0),
        12,
        "what comes after the loading is later than all that was loaded"
    );
}

#[test]
fn who_may_commit_in_a_transaction() {
    let mut world = World::new();
    let named = |member: &str, generation: i32| TxnOffsetCommitRequest {
        member_id: member.into(),
        generation_id: generation,
        ..committing_in(7, 0, 5)
    };
    assert_eq!(world.commit_in(&named("m", 3)), ErrorCode::IllegalGeneration, "no such group");
    let nameless = TxnOffsetCommitRequest { group_id: String::new(), ..named("", -1) };
    assert_eq!(world.commit_in(&nameless), ErrorCode::InvalidGroupId);
    let (ids, generation) = world.stable(1);
    assert_eq!(world.commit_in(&named(&ids[0], generation)), ErrorCode::None);
    assert_eq!(world.commit_in(&named(&ids[0], generation + 1)), ErrorCode::IllegalGeneration);
    assert_eq!(world.commit_in(&named("m", generation)), ErrorCode::UnknownMemberId);
    let fenced = TxnOffsetCommitRequest { group_instance_id: Some("i".into()), ..named(&ids[0], generation) };
    assert_eq!(world.commit_in(&fenced), ErrorCode::UnknownMemberId);
    assert_eq!(world.commit_in(&named("", -1)), ErrorCode::None, "an old producer names no member");
    let mut long = named("", -1);
    long.topics[0].partitions[0].committed_metadata = Some("x".repeat(5_000));
    assert_eq!(world.commit_in(&long), ErrorCode::OffsetMetadataTooLarge);
    // Also while the leader assigns, when plain commits have to wait.
    world.join(joining(&ids[0]));
    assert_eq!(world.state(), Some(GroupState::CompletingRebalance));
    assert_eq!(world.commit_in(&named(&ids[0], generation + 1)), ErrorCode::None);
    let plain = world.commit(&committing(&ids[0], generation + 1, 4));
    assert_eq!(world.commit_error(plain), ErrorCode::RebalanceInProgress);
}

#[test]
fn members_of_consumer_groups_commit_with_their_epoch() {
    let (mut world, topics) = super::consumers::world();
    world.join_as("a", &["orders"]);
    let named = |member: &str, epoch: i32, partition: i32| TxnOffsetCommitRequest {
        member_id: member.into(),
        generation_id: epoch,
        ..committing_in(7, partition, 5)
    };
    assert_eq!(world.commit_in(&named("a", 1, 0)), ErrorCode::None);
    assert_eq!(world.commit_in(&named("b", 1, 0)), ErrorCode::UnknownMemberId);
    assert_eq!(world.commit_in(&named("a", 2, 0)), ErrorCode::IllegalGeneration);
    world.join_as("b", &["orders"]);
    world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1]));
    world.beat_as("a", 1, &owning(&topics, "orders", &[0, 1]));
    assert_eq!(world.commit_in(&named("a", 1, 0)), ErrorCode::None, "it has had this one since then");
    assert_eq!(world.commit_in(&named("a", 1, 3)), ErrorCode::IllegalGeneration, "this one it has given up");
}

#[test]
fn what_is_pending_neither_expires_nor_lets_its_group_go() {
    let config = GroupConfig { offsets_retention_ms: DAY_MS, ..GroupConfig::default() };
    let mut world = World::with(config);
    world.commit(&committing("", -1, 1));
    world.commit_in(&committing_in(7, 0, 5));
    world.commit_in(&TxnOffsetCommitRequest { group_id: "h".into(), ..committing_in(7, 0, 5) });
    world.pass(3 * DAY_MS);
    assert_eq!(world.fetch("orders", 0), 1);
    assert_eq!(world.machine.stats().groups, 2);
    world.end(7, false);
    world.pass(DAY_MS);
    assert_eq!(world.machine.stats(), MachineStats::default());
}

#[test]
fn deletions_reach_what_is_pending() {
    let mut world = World::new();
    world.commit_in(&committing_in(7, 0, 5));
    world.commit_in(&committing_in(7, 1, 6));
    let request = OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![towpath_wire::offset_delete::OffsetDeleteRequestTopic {
            name: "orders".into(),
            partitions: vec![towpath_wire::offset_delete::OffsetDeleteRequestPartition {
                partition_index: 0,
            }],
        }],
    };
    world.ask(|machine, now, waiter, out| machine.delete_offsets(now, waiter, &request, out));
    assert_eq!(world.fetch_stable(0), Ok(-1));
    let mut restarted = world.restarted();
    restarted.end(7, true);
    assert_eq!((restarted.fetch("orders", 0), restarted.fetch("orders", 1)), (-1, 6));
    // The group itself.
    let deleted = world.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, "g", out));
    assert_eq!(world.replies[&deleted], Reply::DeleteGroup(ErrorCode::None));
    assert_eq!(world.machine.stats(), MachineStats::default());
    assert_eq!(world.end(7, true), ErrorCode::None);
    assert_eq!(world.fetch("orders", 1), -1);
    // A deleted topic.
    world.commit_in(&committing_in(7, 0, 5));
    let gone = [towpath_types::TopicPartition { topic: "orders".parse().unwrap(), partition: 0 }];
    world.act(|machine, now, out| machine.partitions_deleted(now, &gone, out));
    assert_eq!(world.fetch_stable(0), Ok(-1));
    assert_eq!(world.machine.stats().groups, 1, "the transaction is open");
    world.end(7, true);
    assert_eq!(world.machine.stats(), MachineStats::default());
}
