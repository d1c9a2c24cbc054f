//! One member's store: what Raft's own suite asks, and what a disk does to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, RaftSnapshotBuilder, StorageError};
use tempfile::TempDir;
use tokio::sync::oneshot;
use towpath_log::sim::SimStorage;
use towpath_log::{FileStorage, Storage};
use towpath_types::BrokerId;
use uuid::Uuid;

use crate::quorum::QuorumConfig;
use crate::quorum::disk::StoreError;
use crate::quorum::start::{Opened, open};
use crate::quorum::state_machine::StateMachine;
use crate::quorum::storage::LogStore;
use crate::quorum::types::{Change, Entry, SnapshotMeta, Types, Vote, log_id};
use crate::{MetadataRecord, SnapshotPolicy};

const POLICY: SnapshotPolicy = SnapshotPolicy { records_min: 1_000 };
const DIR: &str = "/data/quorum";

fn config(dir: &Path) -> QuorumConfig {
    let mut config =
        QuorumConfig::new(BrokerId::new(1), "h:1".to_owned(), Uuid::from_u128(1), dir.to_owned());
    config.cluster_name = "eu".to_owned();
    config
}

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, (TempDir, Box<dyn towpath_log::StorageLock>)> for Builder {
    async fn build(
        &self,
    ) -> Result<((TempDir, Box<dyn towpath_log::StorageLock>), LogStore, StateMachine), StorageError<Types>>
    {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(&config(dir.path()), POLICY, Arc::new(FileStorage)).unwrap();
        Ok(((dir, opened.lock), opened.log, opened.machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rafts_own_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}

fn file(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn segment(number: u64) -> PathBuf {
    file(&format!("{number:020}.journal"))
}

fn reopen(storage: &SimStorage) -> Result<Opened, StoreError> {
    open(&config(Path::new(DIR)), POLICY, Arc::new(storage.clone()))
}

fn entry(term: u64, index: u64) -> Entry {
    let record = MetadataRecord::Cluster { cluster_id: format!("c{term}-{index}") };
    Entry::new(log_id(term, index), EntryPayload::Normal(Change { base: 0, records: Arc::new(vec![record]) }))
}

async fn append(log: &mut LogStore, entries: Vec<Entry>) -> std::io::Result<()> {
    let (done, flushed) = oneshot_pair();
    log.append(entries, done).await?;
    flushed.await.unwrap()
}

fn oneshot_pair() -> (IOFlushed<Types>, oneshot::Receiver<std::io::Result<()>>) {
    use openraft::async_runtime::Oneshot;
    let (sender, receiver) = openraft_rt_tokio::TokioOneshot::channel();
    (IOFlushed::signal(sender), receiver)
}

async fn entries(log: &mut LogStore) -> Vec<Entry> {
    log.try_get_log_entries(0..).await.unwrap()
}

/// Kills the process: what it wrote is there, also without a sync.
async fn killed(storage: &SimStorage, opened: Opened) -> Result<Opened, StoreError> {
    storage.kill();
    drop(opened);
    reopen(storage)
}

#[tokio::test]
async fn what_was_written_comes_back_in_every_state() {
    let storage = SimStorage::new(1);
    let mut opened = reopen(&storage).unwrap();
    assert!(entries(&mut opened.log).await.is_empty());
    let mut opened = killed(&storage, opened).await.unwrap();
    opened.log.save_vote(&Vote::new(3, 2)).await.unwrap();
    let mut opened = killed(&storage, opened).await.unwrap();
    assert_eq!(opened.log.read_vote().await.unwrap(), Some(Vote::new(3, 2)));
    append(&mut opened.log, (0..10).map(|index| entry(1, index)).collect()).await.unwrap();
    opened.log.truncate_after(Some(log_id(1, 6))).await.unwrap();
    opened.log.save_committed(Some(log_id(1, 4))).await.unwrap();
    append(&mut opened.log, vec![entry(2, 7), entry(3, 8)]).await.unwrap();
    let expected: Vec<Entry> =
        (0..7).map(|index| entry(1, index)).chain([entry(2, 7), entry(3, 8)]).collect();
    assert_eq!(entries(&mut opened.log).await, expected);
    let mut opened = killed(&storage, opened).await.unwrap();
    assert_eq!(entries(&mut opened.log).await, expected);
    // An orderly end, and a crash that takes what was not synced.
    opened.log.close().await.unwrap();
    assert!(append(&mut opened.log, vec![entry(3, 9)]).await.is_err());
    storage.crash();
    drop(opened);
    let mut opened = reopen(&storage).unwrap();
    assert_eq!(entries(&mut opened.log).await, expected);
    assert_eq!(opened.log.read_committed().await.unwrap(), Some(log_id(1, 4)));
    // All of it is taken back, and there is something else.
    opened.log.truncate_after(None).await.unwrap();
    append(&mut opened.log, vec![entry(3, 0)]).await.unwrap();
    let mut opened = killed(&storage, opened).await.unwrap();
    assert_eq!(entries(&mut opened.log).await, vec![entry(3, 0)]);
}

async fn filled(storage: &SimStorage, count: u64) -> Opened {
    let mut opened = reopen(storage).unwrap();
    opened.log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    for index in 0..count {
        append(&mut opened.log, vec![entry(1, index)]).await.unwrap();
    }
    opened
}

#[tokio::test]
async fn a_torn_tail_goes_and_nothing_else() {
    for cut in [1, 10, 23, 24, 30, 60] {
        let storage = SimStorage::new(cut);
        let opened = filled(&storage, 5).await;
        storage.kill();
        drop(opened);
        let path = segment(1);
        let file = storage.open(&path, towpath_log::OpenMode::ReadWrite).unwrap();
        let bytes = file.bytes().unwrap();
        file.truncate(bytes - cut).unwrap();
        let mut opened = reopen(&storage).unwrap();
        assert_eq!(entries(&mut opened.log).await.len(), 4, "{cut} bytes off");
        append(&mut opened.log, vec![entry(1, 4)]).await.unwrap();
        let mut opened = killed(&storage, opened).await.unwrap();
        assert_eq!(entries(&mut opened.log).await.len(), 5);
    }
}

#[tokio::test]
async fn damage_in_what_was_durable_is_no_torn_tail() {
    let storage = SimStorage::new(1);
    let opened = filled(&storage, 5).await;
    opened.log.close().await.unwrap();
    drop(opened);
    let file = storage.open(&segment(1), towpath_log::OpenMode::Read).unwrap();
    let bytes = file.bytes().unwrap();
    // Anywhere but in the last block, which only says that the store was closed.
    for at in 0..bytes - 24 {
        storage.flip_bit(&segment(1), at, 3).unwrap();
        assert!(matches!(reopen(&storage), Err(StoreError::Corrupt { .. })), "byte {at}");
        storage.flip_bit(&segment(1), at, 3).unwrap();
    }
    assert_eq!(entries(&mut reopen(&storage).unwrap().log).await.len(), 5);
}

#[tokio::test]
async fn a_damaged_or_lost_vote_stops_the_member() {
    let storage = SimStorage::new(1);
    let opened = filled(&storage, 1).await;
    opened.log.close().await.unwrap();
    drop(opened);
    for at in 0..25 {
        storage.flip_bit(&file("vote"), at, 0).unwrap();
        assert!(matches!(reopen(&storage), Err(StoreError::Corrupt { .. })), "byte {at}");
        storage.flip_bit(&file("vote"), at, 0).unwrap();
    }
    storage.remove_file(&file("vote")).unwrap();
    assert!(matches!(reopen(&storage), Err(StoreError::Corrupt { .. })), "it could vote twice");
}

#[tokio::test]
async fn a_store_of_another_node_is_refused() {
    let storage = SimStorage::new(1);
    drop(filled(&storage, 1).await);
    let mut other = config(Path::new(DIR));
    other.directory = Uuid::from_u128(2);
    let opened = open(&other, POLICY, Arc::new(storage.clone()));
    assert!(matches!(opened, Err(StoreError::Foreign(_))));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_taken_any_more() {
    let storage = SimStorage::new(1);
    let mut opened = filled(&storage, 3).await;
    storage.fail_sync_after(0);
    assert!(append(&mut opened.log, vec![entry(1, 3)]).await.is_err());
    assert!(append(&mut opened.log, vec![entry(1, 4)]).await.is_err(), "R14: nor is it tried again");
    assert!(opened.log.save_vote(&Vote::new(2, 2)).await.is_err());
    assert!(opened.log.truncate_after(None).await.is_err());
}

/// Applies the entries from the log, and takes a snapshot after them.
async fn snapshot(opened: &mut Opened, upto: u64) {
    use futures_util::stream;
    let from = opened.machine.applied_state().await.unwrap().0.map_or(0, |id| id.index() + 1);
    let entries = opened.log.try_get_log_entries(from..=upto).await.unwrap();
    opened.machine.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await.unwrap();
    let mut builder = opened.machine.get_snapshot_builder().await;
    builder.build_snapshot().await.unwrap();
}

#[tokio::test]
async fn purged_entries_stay_as_long_as_the_older_snapshot_needs_them() {
    let storage = SimStorage::new(1);
    let mut opened = filled(&storage, 10).await;
    snapshot(&mut opened, 9).await;
    opened.log.purge(log_id(1, 9)).await.unwrap();
    assert_eq!(opened.log.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(1, 9)));
    for index in 10..20 {
        append(&mut opened.log, vec![entry(1, index)]).await.unwrap();
    }
    snapshot(&mut opened, 19).await;
    opened.log.purge(log_id(1, 17)).await.unwrap();
    assert_eq!(entries(&mut opened.log).await.len(), 2);
    assert!(storage.open(&segment(1), towpath_log::OpenMode::Read).is_err(), "the older snapshot holds it");
    let mut opened = killed(&storage, opened).await.unwrap();
    assert_eq!(opened.machine.applied_state().await.unwrap().0, Some(log_id(1, 19)));
    assert_eq!(entries(&mut opened.log).await.len(), 10, "they are there still, and may be read");
    opened.log.close().await.unwrap();
    drop(opened);
    // The newer snapshot cannot be read: the older one and the log say the same.
    let newer = file(&format!("{:020}-{:020}.snapshot", 19, 1));
    storage.flip_bit(&newer, 90, 1).unwrap();
    let mut opened = reopen(&storage).unwrap();
    assert_eq!(opened.machine.applied_state().await.unwrap().0, Some(log_id(1, 9)));
    assert_eq!(entries(&mut opened.log).await.first().map(Entry::index), Some(10));
    snapshot(&mut opened, 19).await;
    opened.log.close().await.unwrap();
    drop(opened);
    // Neither can be read: the log alone says too little.
    storage.flip_bit(&newer, 90, 1).unwrap();
    storage.flip_bit(&file(&format!("{:020}-{:020}.snapshot", 9, 1)), 90, 1).unwrap();
    assert!(matches!(reopen(&storage), Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn a_snapshot_beyond_the_log_starts_it_anew() {
    let storage = SimStorage::new(1);
    let mut source = filled(&SimStorage::new(2), 40).await;
    snapshot(&mut source, 39).await;
    let theirs = source.machine.get_current_snapshot().await.unwrap().unwrap();
    let mut opened = filled(&storage, 5).await;
    opened.machine.install_snapshot(&theirs.meta, theirs.snapshot).await.unwrap();
    // A crash between the two is not fatal: the snapshot is newer than the log.
    let mut opened = killed(&storage, opened).await.unwrap();
    assert_eq!(opened.machine.applied_state().await.unwrap().0, Some(log_id(1, 39)));
    opened.log.purge(log_id(1, 39)).await.unwrap();
    let mut opened = killed(&storage, opened).await.unwrap();
    let state = opened.log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 39)), Some(log_id(1, 39))));
    append(&mut opened.log, vec![entry(1, 40)]).await.unwrap();
    let mut opened = killed(&storage, opened).await.unwrap();
    assert_eq!(entries(&mut opened.log).await, vec![entry(1, 40)]);
}

#[tokio::test]
async fn what_arrives_together_shares_one_sync() {
    let storage = SimStorage::new(1);
    let mut opened = filled(&storage, 1).await;
    let mut waiting = Vec::new();
    for index in 1..100 {
        let (done, flushed) = oneshot_pair();
        opened.log.append(vec![entry(1, index)], done).await.unwrap();
        waiting.push(flushed);
        assert_eq!(entries(&mut opened.log).await.len() as u64, index + 1, "readable at once");
    }
    for flushed in waiting {
        flushed.await.unwrap().unwrap();
    }
    storage.crash();
    drop(opened);
    assert_eq!(entries(&mut reopen(&storage).unwrap().log).await.len(), 100, "R1");
}

#[tokio::test]
async fn large_entries_are_read_one_at_a_time() {
    let storage = SimStorage::new(1);
    let mut opened = filled(&storage, 1).await;
    let large = |index| {
        let record = MetadataRecord::Cluster { cluster_id: "x".repeat(700_000) };
        let change = Change { base: 0, records: Arc::new(vec![record]) };
        Entry::new(log_id(1, index), EntryPayload::Normal(change))
    };
    let written: Vec<Entry> = (1..12).map(large).collect();
    append(&mut opened.log, written.clone()).await.unwrap();
    assert_eq!(opened.log.limited_get_log_entries(1, 12).await.unwrap().len(), 1);
    assert_eq!(opened.log.limited_get_log_entries(0, 12).await.unwrap().len(), 2);
    // More than the cache holds: the older ones come from the disk.
    assert_eq!(opened.log.try_get_log_entries(1..).await.unwrap(), written);
    let mut opened = killed(&storage, opened).await.unwrap();
    assert_eq!(opened.log.limited_get_log_entries(1, 12).await.unwrap().len(), 1);
    assert_eq!(opened.log.try_get_log_entries(1..).await.unwrap(), written);
}

#[tokio::test]
async fn an_entry_applies_whole_or_not_at_all() {
    use futures_util::stream;
    let mut opened = reopen(&SimStorage::new(1)).unwrap();
    let cluster = |id: &str| MetadataRecord::Cluster { cluster_id: id.to_owned() };
    let change = |index, base, records| {
        let change = Change { base, records: Arc::new(records) };
        Ok((Entry::new(log_id(1, index), EntryPayload::Normal(change)), None))
    };
    let machine = &mut opened.machine;
    machine.apply(stream::iter([change(0, 0, vec![cluster("c")])])).await.unwrap();
    // Decided on an image of before: no effect, and no fault.
    machine.apply(stream::iter([change(1, 0, vec![cluster("d")])])).await.unwrap();
    assert_eq!(opened.images.borrow().cluster_id(), "c");
    assert_eq!(opened.images.borrow().next_offset().get(), 1);
    // R7: a contradiction stops the member, and shows nothing of itself.
    let refused = machine.apply(stream::iter([change(2, 1, vec![cluster("c"), cluster("d")])])).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(opened.images.borrow().next_offset().get(), 1);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 1)));
}

/// A member that has an image of this cluster, and a snapshot of it.
async fn with_image_of(cluster: &str, storage: &SimStorage) -> (Opened, bytes::Bytes) {
    use futures_util::stream;
    let mut opened = reopen(storage).unwrap();
    let record = MetadataRecord::Cluster { cluster_id: cluster.to_owned() };
    let change = Change { base: 0, records: Arc::new(vec![record]) };
    let entry = Entry::new(log_id(1, 0), EntryPayload::Normal(change));
    opened.machine.apply(stream::iter([Ok((entry, None))])).await.unwrap();
    let snapshot = opened.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    (opened, snapshot.snapshot)
}

#[tokio::test]
async fn the_image_of_another_cluster_is_never_taken() {
    use futures_util::stream;
    let (here, there, fresh) = (SimStorage::new(1), SimStorage::new(2), SimStorage::new(3));
    let (mut opened, ours) = with_image_of("a", &here).await;
    let (other, theirs) = with_image_of("b", &there).await;
    let meta = SnapshotMeta { last_log_id: Some(log_id(9, 90)), ..SnapshotMeta::default() };
    // R7: a snapshot of another cluster stops the member, and leaves nothing behind.
    let refused = opened.machine.install_snapshot(&meta, theirs.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("with the id b"), "{refused}");
    assert_eq!(opened.images.borrow().cluster_id(), "a");
    assert_eq!(opened.machine.applied_state().await.unwrap().0, Some(log_id(1, 0)));
    opened.machine.install_snapshot(&meta, ours.clone()).await.unwrap();
    assert_eq!(opened.machine.applied_state().await.unwrap().0, Some(log_id(9, 90)));
    drop(other);
    // By what else is on the disk, before there is an image.
    let known = QuorumConfig { cluster_id: "a".to_owned(), ..config(Path::new(DIR)) };
    let error = open(&known, POLICY, Arc::new(there.clone())).err().unwrap();
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
    let mut opened = open(&known, POLICY, Arc::new(fresh.clone())).unwrap();
    assert!(opened.machine.install_snapshot(&meta, theirs).await.is_err());
    let record = MetadataRecord::Cluster { cluster_id: "b".to_owned() };
    let change = Change { base: 0, records: Arc::new(vec![record]) };
    let entry = Entry::new(log_id(1, 0), EntryPayload::Normal(change));
    assert!(opened.machine.apply(stream::iter([Ok((entry, None))])).await.is_err());
    assert!(opened.images.borrow().cluster_id().is_empty());
    opened.machine.install_snapshot(&meta, ours).await.unwrap();
    assert_eq!(opened.images.borrow().cluster_id(), "a");
}

/// What a log must hold after a crash: one of these, depending on whether the last operation was done.
#[derive(Clone, Default)]
struct Model {
    entries: Vec<Entry>,
    vote: Option<Vote>,
}

/// Does something by chance; `Err` if the disk did not let it.
async fn operate(
    opened: &mut Opened,
    random: &mut rand::rngs::StdRng,
    next: &mut Model,
    term: &mut u64,
) -> std::io::Result<()> {
    use rand::Rng;
    match random.random_range(0..10) {
        0..6 => {
            let from = next.entries.len() as u64;
            let more: Vec<Entry> =
                (from..from + random.random_range(1..4)).map(|index| entry(*term, index)).collect();
            next.entries.extend(more.clone());
            append(&mut opened.log, more).await
        }
        6 => {
            *term += 1;
            next.vote = Some(Vote::new(*term, 1));
            opened.log.save_vote(&Vote::new(*term, 1)).await
        }
        7 => {
            let applied = opened.machine.applied_state().await?.0.map_or(0, |id| id.index() + 1);
            let keep = random.random_range(applied..=next.entries.len() as u64);
            next.entries.truncate(usize::try_from(keep).unwrap_or(0));
            opened.log.truncate_after(next.entries.last().map(RaftEntry::log_id)).await
        }
        8 => opened.log.save_committed(next.entries.first().map(RaftEntry::log_id)).await,
        _ => {
            let Some(last) = next.entries.last().map(RaftEntry::log_id) else { return Ok(()) };
            let from = opened.machine.applied_state().await?.0.map_or(0, |id| id.index() + 1);
            let entries = opened.log.try_get_log_entries(from..=last.index()).await?;
            let entries = entries.into_iter().map(|entry| Ok((entry, None)));
            opened.machine.apply(futures_util::stream::iter(entries)).await?;
            opened.machine.get_snapshot_builder().await.build_snapshot().await?;
            opened.log.purge(last).await
        }
    }
}

#[tokio::test]
async fn crashes_anywhere_lose_nothing_that_was_durable() {
    use rand::{Rng, SeedableRng};
    for seed in 0..150 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let storage = SimStorage::new(seed);
        let (mut before, mut term) = (Model::default(), 1);
        let mut opened = reopen(&storage).unwrap();
        opened.log.save_vote(&Vote::new(1, 1)).await.unwrap();
        before.vote = Some(Vote::new(1, 1));
        for _ in 0..6 {
            storage.stop_after(random.random_range(0..40));
            let mut after = before.clone();
            while operate(&mut opened, &mut random, &mut after, &mut term).await.is_ok() {
                before = after.clone();
            }
            storage.crash();
            drop(opened);
            opened = reopen(&storage).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let found = entries(&mut opened.log).await;
            let first = usize::try_from(opened.log.first()).unwrap();
            let fits =
                |model: &Model| model.entries.get(first.min(model.entries.len())..) == Some(&found[..]);
            assert!(fits(&before) || fits(&after), "seed {seed}: {first}, {found:?}");
            let vote = opened.log.read_vote().await.unwrap();
            assert!(vote == before.vote || vote == after.vote, "seed {seed}");
            before = if fits(&after) { after } else { before };
            before.vote = vote;
            term = vote.map_or(1, |vote| vote.leader_id.term);
        }
    }
}
