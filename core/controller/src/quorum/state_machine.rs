//! The metadata image as Raft's state machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;
use towpath_types::Offset;

use super::snapshots::{self, Restored, Snapshots};
use super::types::{Change, Entry, LogId, Outcome, Snapshot, SnapshotMeta, StoredMembership, Types};
use crate::{ImageError, MetadataImage, SnapshotPolicy};

/// The id of the cluster that this member's disk belongs to; empty if it is not known.
#[derive(Debug, Clone)]
pub(crate) struct Identity(pub(crate) String);

/// Metadata of another cluster than the one that this member belongs to.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is the metadata of the cluster with the id {found}, and this node belongs to the one with the id {ours}"
)]
pub(crate) struct OtherCluster {
    ours: String,
    found: String,
}

impl Identity {
    /// R7: whatever this member has would be deleted by the image of another cluster.
    pub(crate) fn check(&self, image: &MetadataImage) -> Result<(), OtherCluster> {
        let (ours, found) = (&self.0, image.cluster_id());
        if ours.is_empty() || found.is_empty() || ours == found {
            return Ok(());
        }
        Err(OtherCluster { ours: ours.clone(), found: found.to_owned() })
    }
}

/// The image, and what led to it.
#[derive(Debug)]
pub(crate) struct StateMachine {
    image: Arc<MetadataImage>,
    identity: Identity,
    applied: Option<LogId>,
    membership: StoredMembership,
    published: watch::Sender<Arc<MetadataImage>>,
    snapshots: Arc<Snapshots>,
    policy: SnapshotPolicy,
    /// The index of the newest snapshot.
    snapshot_index: Arc<AtomicU64>,
    /// Records of the newest snapshot.
    snapshot_records: Arc<AtomicU64>,
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn refused(error: OtherCluster) -> io::Error {
    tracing::error!(%error, "this member of the metadata quorum stops: what it was given is not its cluster's");
    invalid(error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl StateMachine {
    pub(crate) fn new(
        snapshots: Arc<Snapshots>,
        (restored, identity): (Restored, Identity),
        policy: SnapshotPolicy,
        published: watch::Sender<Arc<MetadataImage>>,
    ) -> Self {
        let image = Arc::new(restored.image);
        published.send_replace(Arc::clone(&image));
        let applied = restored.meta.last_log_id;
        Self {
            image,
            identity,
            applied,
            membership: restored.meta.last_membership,
            published,
            snapshots,
            policy,
            snapshot_index: Arc::new(AtomicU64::new(applied.map_or(0, |id| id.index()))),
            snapshot_records: Arc::new(AtomicU64::new(restored.records)),
        }
    }

    /// Applies the records of one entry to `image`, all of them or none.
    fn change(image: &mut Arc<MetadataImage>, change: &Change) -> Result<Outcome, ImageError> {
        if image.next_offset() != Offset::new(change.base) {
            // Somebody else's records came before. Every node sees the same order, so none applies this one.
            return Ok(Outcome::Conflict { next_offset: image.next_offset() });
        }
        let mut next = MetadataImage::clone(image);
        for record in change.records.iter() {
            next.apply(next.next_offset(), record)?;
        }
        *image = Arc::new(next);
        Ok(Outcome::Applied)
    }

    /// The cluster that this member belongs to, by its image or else by its disk.
    fn ours(&self) -> Identity {
        let id = self.image.cluster_id();
        if id.is_empty() { self.identity.clone() } else { Identity(id.to_owned()) }
    }

    fn take(&mut self, image: &mut Arc<MetadataImage>, entry: Entry) -> io::Result<Outcome> {
        let id = entry.log_id();
        let outcome = match entry.payload {
            EntryPayload::Blank => Outcome::Applied,
            EntryPayload::Normal(change) => Self::change(image, &change).map_err(|error| {
                // R7: an image with a gap would be wrong in ways that nobody sees. This member stops.
                tracing::error!(%id, %error, "a committed metadata entry contradicts the image; the quorum stops here");
                invalid(format!("the entry {id} contradicts the metadata image: {error}"))
            })?,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
                Outcome::Applied
            }
        };
        self.ours().check(image).map_err(refused)?;
        self.applied = Some(id);
        Ok(outcome)
    }

    fn publish(&mut self, image: Arc<MetadataImage>) {
        if !Arc::ptr_eq(&self.image, &image) {
            self.image = Arc::clone(&image);
            self.published.send_replace(image);
        }
    }
}

/// A snapshot in the making.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    image: Arc<MetadataImage>,
    meta: SnapshotMeta,
    snapshots: Arc<Snapshots>,
    snapshot_index: Arc<AtomicU64>,
    snapshot_records: Arc<AtomicU64>,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (image, meta, snapshots) =
            (Arc::clone(&self.image), self.meta.clone(), Arc::clone(&self.snapshots));
        let (snapshot, records) = blocking(move || {
            let (content, records) = snapshots::encode(&image).map_err(invalid)?;
            snapshots.write(&meta, &content)?;
            Ok((content, records))
        })
        .await?;
        self.snapshot_index.store(self.meta.last_log_id.map_or(0, |id| id.index()), Ordering::Release);
        self.snapshot_records.store(records, Ordering::Release);
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let mut image = Arc::clone(&self.image);
            let outcome = self.take(&mut image, entry)?;
            // Published before anybody hears of it.
            self.publish(image);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Self::SnapshotBuilder> {
        let applied = self.applied.map_or(0, |id| id.index());
        let since = applied.saturating_sub(self.snapshot_index.load(Ordering::Acquire));
        // Large clusters do not write all of their metadata again and again.
        let due = since >= self.policy.records_min.max(self.snapshot_records.load(Ordering::Acquire));
        if force || due { Some(self.get_snapshot_builder().await) } else { None }
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        SnapshotBuilder {
            image: Arc::clone(&self.image),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            snapshots: Arc::clone(&self.snapshots),
            snapshot_index: Arc::clone(&self.snapshot_index),
            snapshot_records: Arc::clone(&self.snapshot_records),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let (meta, snapshots, ours) = (meta.clone(), Arc::clone(&self.snapshots), self.ours());
        let (meta, image, records) = blocking(move || {
            let (image, records) = crate::snapshot_content::decode(&snapshot).map_err(invalid)?;
            ours.check(&image).map_err(refused)?;
            snapshots.write(&meta, &snapshot)?;
            Ok((meta, image, records))
        })
        .await?;
        self.snapshot_index.store(meta.last_log_id.map_or(0, |id| id.index()), Ordering::Release);
        self.snapshot_records.store(records, Ordering::Release);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership;
        self.publish(Arc::new(image));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = Arc::clone(&self.snapshots);
        blocking(move || Ok(snapshots.newest()?)).await
    }
}
