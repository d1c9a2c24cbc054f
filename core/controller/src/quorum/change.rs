//! Decisions, one at a time, on the leader.

use std::sync::Arc;

use openraft::errors::{ClientWriteError, RaftError};

use super::types::{Change, Outcome};
use super::{Node, Quorum, QuorumError};
use crate::{ControllerError, Decision, MetadataImage};

/// How often a decision is made again because the image had moved. On one leader only an entry whose fate was unknown
/// can come between.
const ATTEMPTS: usize = 16;

impl Quorum {
    /// Decides on the newest image, commits, and returns when this node has applied the records. Decisions run one at a
    /// time, each on the image that the one before it left; `decide` is called again if the image moved meanwhile. A
    /// decision without records is answered on this leader's word, within its lease; [`Self::change_or_confirm`] does not.
    ///
    /// # Errors
    /// [`ControllerError::NotController`]: nothing was changed. [`ControllerError::Uncertain`]: leadership or the majority
    /// was lost, or time ran out, and the records may or may not be committed; whoever asks again must look first.
    /// [`ControllerError::Image`]: the decision contradicts the image, and nothing was changed.
    pub async fn change<T>(
        &self,
        decide: impl FnMut(&MetadataImage) -> Decision<T>,
    ) -> Result<(T, Arc<MetadataImage>), ControllerError> {
        self.commit_decision(decide, false).await
    }

    /// As [`Self::change`]; what is answered without records is committed, too, as an entry without any. Whoever is told
    /// "no" can then rely on it (rule 9): a leader that was deposed without knowing it, or has entries of which it does not
    /// know whether they are committed, gives no such answer.
    ///
    /// # Errors
    /// As there.
    pub async fn change_or_confirm<T>(
        &self,
        decide: impl FnMut(&MetadataImage) -> Decision<T>,
    ) -> Result<(T, Arc<MetadataImage>), ControllerError> {
        self.commit_decision(decide, true).await
    }

    async fn commit_decision<T>(
        &self,
        mut decide: impl FnMut(&MetadataImage) -> Decision<T>,
        confirm: bool,
    ) -> Result<(T, Arc<MetadataImage>), ControllerError> {
        let node = &self.node;
        let _turn = node.deciding.lock().await;
        for _ in 0..ATTEMPTS {
            if !node.is_ready() {
                return Err(node.not_controller());
            }
            let image = self.image();
            let Decision { records, answer } = decide(&image);
            if records.is_empty() && !confirm {
                return Ok((answer, image));
            }
            // What does not apply is not committed: a decision that contradicts the image is a bug, not a fact.
            let mut next = (*image).clone();
            for record in &records {
                next.apply(next.next_offset(), record)?;
            }
            let change = Change { base: image.next_offset().get(), records: Arc::new(records) };
            if node.commit(change).await? == Outcome::Applied {
                return Ok((answer, self.image()));
            }
        }
        Err(ControllerError::Uncertain)
    }
}

impl Node {
    async fn commit(&self, change: Change) -> Result<Outcome, ControllerError> {
        let written = tokio::time::timeout(self.timing.change, self.raft.client_write(change)).await;
        match written {
            Ok(Ok(response)) => Ok(response.data),
            // Refused before anything was appended.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(self.not_controller()),
            Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) | Err(_) => {
                Err(ControllerError::Uncertain)
            }
            Ok(Err(error)) => Err(QuorumError::Stopped(error.to_string()).into()),
        }
    }
}
