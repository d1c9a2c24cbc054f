//! Taking over a transactional id, and the partitions that it writes to.

use std::sync::Arc;

use towpath_types::{ProducerEpoch, ProducerId, TopicPartition};
use towpath_wire::ErrorCode;

use super::transaction::calls::{Caller, error};
use super::transaction::machine::{Answer, Call, Identity};
use crate::client::{Channel, ClientInner, Retry};
use crate::{Admin, ClientError};

/// How long what this leaves open may stay so, if nobody ends it.
const TRANSACTION_TIMEOUT_MS: u64 = 60_000;
/// Partitions that are added to a transaction at a time.
const PARTITIONS_MAX: usize = 1_000;
/// How long all of one call may take, with the coordinator's failures.
const PATIENCE_MS: u64 = 120_000;
/// The state of a transaction whose markers are being written.
const ENDING: &str = "PrepareAbort";

/// Who writes from now on: see [`Fence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch: all older ones are shut out.
    pub epoch: ProducerEpoch,
}

/// A transactional id that was taken over: who had it before can store nothing with the coordinator any more, and is shut
/// out of partitions one by one. See [`crate::RawClient::take_over`].
pub struct Fence {
    client: Arc<ClientInner>,
    caller: Caller,
    id: Arc<str>,
    identity: Identity,
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fence")
            .field("id", &self.id)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Fence {
    /// A new epoch of the id's producer.
    pub(crate) async fn take_over(
        client: Arc<ClientInner>,
        channel: Arc<Channel>,
        transactional_id: &str,
    ) -> Result<Self, ClientError> {
        let id: Arc<str> = Arc::from(transactional_id);
        let caller = Caller::new(Arc::clone(&client), channel, Arc::clone(&id), TRANSACTION_TIMEOUT_MS);
        let nobody = (ProducerId::new(-1), ProducerEpoch::new(-1));
        let mut fence = Self { client, caller, id, identity: nobody };
        let init = Call::Init { identity: None };
        let Answer::One(_, Some(identity)) = fence.make(&init, &[]).await? else {
            return Err(error(&init, ErrorCode::UnknownServerError, transactional_id));
        };
        fence.identity = identity;
        Ok(fence)
    }

    /// Under which to write: [`crate::ProducerConfig::identity`], or with [`crate::RawClient`].
    #[must_use]
    pub fn identity(&self) -> Fenced {
        Fenced { producer_id: self.identity.0, epoch: self.identity.1 }
    }

    /// Once this returns, the coordinator has written a marker of the new epoch to each of these partitions, and no record
    /// of an older epoch is taken there any more (R6), whatever is still on its way. An empty transaction that is aborted
    /// leaves such markers; the first version of the protocol (before KIP-890) keeps the epoch over its end.
    ///
    /// # Errors
    /// What the coordinator says; [`ClientError::Timeout`] if it does not come to an end within the delivery timeout.
    pub async fn shut_out(&self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        for partitions in partitions.chunks(PARTITIONS_MAX) {
            self.mark(self.identity, partitions).await?;
        }
        Ok(())
    }

    async fn mark(&self, identity: Identity, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        let add = Call::AddPartitions { identity, queues: (0..partitions.len()).collect() };
        let end = Call::End { identity, commit: false, v2: false };
        self.make(&add, partitions).await?;
        self.make(&end, &[]).await?;
        // The coordinator answers before the markers are written.
        let admin = Admin::new(Arc::clone(&self.client));
        let mut retry = self.retry();
        loop {
            let described = admin.describe_transactions(&[&*self.id]).await?.remove(&*self.id);
            let state = described.ok_or(ClientError::Closed)??.state;
            if state != ENDING {
                return Ok(());
            }
            retry.after(error(&end, ErrorCode::ConcurrentTransactions, &self.id)).await?;
        }
    }

    fn retry(&self) -> Retry {
        self.client.retrying("shutting out an earlier producer", PATIENCE_MS)
    }

    async fn make(&self, call: &Call, partitions: &[TopicPartition]) -> Result<Answer, ClientError> {
        let mut retry = self.retry();
        loop {
            let named = partitions.iter().cloned().enumerate().collect();
            let answer = self.caller.make(call, named).await;
            let code = match &answer {
                Answer::Failed(error) => {
                    retry.after(error.clone()).await?;
                    continue;
                }
                Answer::One(code, _) => *code,
                Answer::Queues(results) => first_error(results.iter().map(|(_, code)| *code)),
                Answer::Offsets(results) => first_error(results.iter().map(|(_, code)| *code)),
            };
            match code {
                ErrorCode::None => return Ok(answer),
                code => retry.after(error(call, code, &self.id)).await?,
            }
        }
    }
}

/// The first that tells why: `OPERATION_NOT_ATTEMPTED` only says that another one does.
fn first_error(codes: impl Iterator<Item = ErrorCode> + Clone) -> ErrorCode {
    let mut failed = codes.filter(|code| *code != ErrorCode::None);
    let reason = failed.clone().find(|code| *code != ErrorCode::OperationNotAttempted);
    reason.or_else(|| failed.next()).unwrap_or(ErrorCode::None)
}
