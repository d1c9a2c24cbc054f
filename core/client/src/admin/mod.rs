//! Administration.

mod cluster;
mod configs;
mod groups;
mod quorum;
mod replicas;
mod security;
mod shares;
mod topics;
mod transactions;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_types::{Offset, TopicPartition};
use towpath_wire::{ApiKey, ErrorCode};

pub use cluster::{
    BrokerInfo, ClusterDescription, FeatureDescription, FeatureUpdate, FeatureUpgrade, FeaturesDescription,
    LogDirDescription, LogDirReplica,
};
pub use groups::MemberToRemove;
pub use quorum::{QuorumDescription, QuorumListener, QuorumNode, QuorumReplica, RaftVoter};
pub use replicas::{Election, Reassignment};
pub use security::{
    Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, QuotaEntity, QuotaMatch,
};
pub use shares::ShareGroupOffset;
pub use transactions::{
    AbortTransaction, HangingTransaction, ProducerState, TransactionDescription, TransactionFilter,
    TransactionListing,
};
pub use types::{
    AlterConfig, ConfigEntry, ConfigResource, ConfigSource, ConfigSynonym, ConfigType, GroupDescription,
    GroupListing, GroupMemberDescription, ListedOffset, MemberReconciliation, NewPartitions, NewTopic,
    OffsetSpec, PartitionDescription, PerItem, TopicDescription, TopicListing,
};

use crate::client::ClientInner;
use crate::{ClientError, IsolationLevel};

/// Administration of a cluster; cheap to clone. A call about several things has a result for each of them; its own
/// error means that the cluster could not be asked. What heals by itself (leaders and coordinators that move) is
/// retried within the client's `api_timeout_ms`.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Arc<ClientInner>,
}

impl Admin {
    pub(crate) fn new(client: Arc<ClientInner>) -> Self {
        Self { client }
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.config.request_timeout_ms).unwrap_or(i32::MAX)
    }

    /// Looks up offsets; the end is the high watermark.
    ///
    /// # Errors
    /// None of its own at present: every partition has its result.
    pub async fn list_offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<PerItem<TopicPartition, ListedOffset>, ClientError> {
        self.list_offsets_at(partitions, IsolationLevel::ReadUncommitted).await
    }

    /// As [`Self::list_offsets`]; for [`IsolationLevel::ReadCommitted`] the end is the last stable offset.
    ///
    /// # Errors
    /// As [`Self::list_offsets`].
    pub async fn list_offsets_at(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
        isolation: IsolationLevel,
    ) -> Result<PerItem<TopicPartition, ListedOffset>, ClientError> {
        let wanted: Vec<_> = partitions.iter().map(|(p, spec)| (p.clone(), spec.wire())).collect();
        Ok(self.client.list_offsets(&wanted, isolation).await)
    }

    /// Deletes the records before the offsets given (−1: before the high watermark). The values are the new first
    /// offsets.
    ///
    /// # Errors
    /// None of its own at present: every partition has its result.
    pub async fn delete_records(
        &self,
        before: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<PerItem<TopicPartition, Offset>, ClientError> {
        let mut results = BTreeMap::new();
        for (partition, offset) in before {
            let delete = || self.delete_records_of(partition, *offset);
            let result = self.patiently_led(partition, "deleting records", delete).await;
            results.insert(partition.clone(), result);
        }
        Ok(results)
    }

    /// Does something until it succeeds, fails for good, or the API timeout is over.
    async fn patiently<T, F>(&self, what: &'static str, act: impl Fn() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut retry = self.client.retrying(what, self.client.config.api_timeout_ms);
        loop {
            match act().await {
                Ok(done) => return Ok(done),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    /// As [`Self::patiently`], with the leader of a partition, which may move.
    async fn patiently_led<T, F>(
        &self,
        partition: &TopicPartition,
        what: &'static str,
        act: impl Fn() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut retry = self.client.retrying(what, self.client.config.api_timeout_ms);
        loop {
            let error = match act().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if error.wants_metadata() {
                // A failure here shows in the next attempt.
                let _ = self.client.refresh(std::slice::from_ref(&partition.topic), false).await;
            }
            retry.after(error).await?;
        }
    }
}

/// An item that the answer leaves out.
fn left_out(api: ApiKey, broker: &Arc<str>) -> ClientError {
    ClientError::Malformed { broker: Arc::clone(broker), api, problem: "it leaves out an item" }
}

/// Whether another broker may do it: the controller has moved.
fn wants_controller(code: i16) -> bool {
    ErrorCode::from_code(code) == ErrorCode::NotController
}
