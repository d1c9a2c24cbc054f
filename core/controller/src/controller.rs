//! Runs decisions one at a time, commits their records, applies them, publishes the image.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use towpath_types::{BrokerId, Offset};

use crate::{Decision, ImageError, MetadataImage, MetadataRecord, QuorumError, RecordError};

/// Where metadata records are committed. One node has a flushed local log; several have a quorum.
pub trait MetadataLog: Send + Sync {
    /// Appends records and returns when they are committed and durable: all of them, in order, from `base` on.
    ///
    /// # Errors
    /// [`ControllerError::Log`]. Nothing is then known about what is durable, and the log takes no more (R14).
    fn commit(&mut self, base: Offset, records: &[MetadataRecord]) -> Result<(), ControllerError>;

    /// Shows what all committed records add up to, after each commit: a log that keeps this need not keep them.
    fn applied(&mut self, _image: &MetadataImage) {}
}

/// Why metadata could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControllerError {
    /// The metadata log failed.
    #[error("the metadata log failed")]
    Log(#[from] towpath_log::LogError),
    /// A batch was not appended.
    #[error("the metadata log took no more")]
    Append(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A stored batch or record cannot be read.
    #[error("the metadata log cannot be read at offset {offset}")]
    Unreadable {
        /// Where.
        offset: i64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record does not fit what came before it.
    #[error("the metadata log contradicts itself")]
    Image(#[from] ImageError),
    /// R14: an earlier commit failed.
    #[error("the metadata log is offline after a failed write; restart the node when the disk is well again")]
    Offline,
    /// Another node decides. Nothing was changed.
    #[error("this node is not the active controller")]
    NotController {
        /// The active controller and the address of its peer listener, if known.
        leader: Option<(BrokerId, String)>,
    },
    /// The records may or may not be committed: whoever asks again must look first.
    #[error("it is not known whether the change of the metadata was committed")]
    Uncertain,
    /// The quorum does not do what it should.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
}

/// The controller of one node.
pub struct Controller {
    log: Mutex<Option<Box<dyn MetadataLog>>>,
    image: RwLock<Arc<MetadataImage>>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("next_offset", &self.image().next_offset()).finish_non_exhaustive()
    }
}

impl Controller {
    /// A controller that goes on where `log` ends; `image` is what its records gave.
    #[must_use]
    pub fn new(log: Box<dyn MetadataLog>, image: MetadataImage) -> Self {
        Self { log: Mutex::new(Some(log)), image: RwLock::new(Arc::new(image)) }
    }

    /// The image as it is now.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.image.read())
    }

    /// Decides, commits, applies and publishes; blocks until the records are durable (R1). Decisions run one at a
    /// time, each on the image that the one before it left.
    ///
    /// # Errors
    /// [`ControllerError`]; after a failed commit the controller takes no more (R14).
    pub fn change<T>(
        &self,
        decide: impl FnOnce(&MetadataImage) -> Decision<T>,
    ) -> Result<(T, Arc<MetadataImage>), ControllerError> {
        let mut log = self.log.lock();
        let image = self.image();
        let Decision { records, answer } = decide(&image);
        if records.is_empty() {
            return Ok((answer, image));
        }
        // What does not apply is not committed: a decision that contradicts the image is a bug, not a fact.
        let base = image.next_offset();
        let mut next = (*image).clone();
        for record in &records {
            next.apply(next.next_offset(), record)?;
        }
        let Some(open) = log.as_mut() else { return Err(ControllerError::Offline) };
        if let Err(error) = open.commit(base, &records) {
            *log = None;
            return Err(error);
        }
        let next = Arc::new(next);
        *self.image.write() = Arc::clone(&next);
        open.applied(&next);
        Ok((answer, next))
    }

    /// Lets the log go; later changes are refused.
    pub fn close(&self) {
        *self.log.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits in memory, and fails when told to.
    struct Memory {
        committed: Arc<Mutex<Vec<MetadataRecord>>>,
        fail: bool,
    }

    impl MetadataLog for Memory {
        fn commit(&mut self, base: Offset, records: &[MetadataRecord]) -> Result<(), ControllerError> {
            let mut committed = self.committed.lock();
            assert_eq!(base.get() as usize, committed.len());
            if self.fail {
                return Err(ControllerError::Offline);
            }
            committed.extend_from_slice(records);
            Ok(())
        }
    }

    fn cluster(id: &str) -> Decision<()> {
        Decision { records: vec![MetadataRecord::Cluster { cluster_id: id.to_owned() }], answer: () }
    }

    #[test]
    fn records_are_committed_before_they_are_seen() {
        let committed = Arc::new(Mutex::new(Vec::new()));
        let log = Memory { committed: Arc::clone(&committed), fail: false };
        let controller = Controller::new(Box::new(log), MetadataImage::new());
        let before = controller.image();
        let ((), after) = controller.change(|_| cluster("c")).unwrap();
        assert_eq!(before.cluster_id(), "");
        assert_eq!(after.cluster_id(), "c");
        assert!(Arc::ptr_eq(&after, &controller.image()));
        assert!(matches!(controller.change(|_| cluster("d")), Err(ControllerError::Image(_))));
        assert_eq!(committed.lock().len(), 1, "what does not fit is not committed");
        let (answer, _) = controller.change(|image| Decision::unchanged(image.next_offset().get())).unwrap();
        assert_eq!(answer, 1);
    }

    #[test]
    fn after_a_failed_commit_nothing_more_is_taken() {
        let log = Memory { committed: Arc::default(), fail: true };
        let controller = Controller::new(Box::new(log), MetadataImage::new());
        assert!(controller.change(|_| cluster("c")).is_err());
        assert_eq!(controller.image().cluster_id(), "", "R14: what is not committed is not seen");
        assert!(matches!(controller.change(|_| cluster("c")), Err(ControllerError::Offline)));
    }
}
