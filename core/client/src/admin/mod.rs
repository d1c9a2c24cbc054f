//! Administration.

mod cluster;
mod configs;
mod groups;
mod quorum;
mod replicas;
mod topics;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_types::{Offset, TopicPartition};
use towpath_wire::{ApiKey, ErrorCode};

pub use cluster::{
    BrokerInfo, ClusterDescription, FeatureUpdate, FeatureUpgrade, LogDirDescription, LogDirReplica,
};
pub use quorum::{QuorumDescription, QuorumListener, QuorumNode, QuorumReplica, RaftVoter};
pub use replicas::{Election, Reassignment};
pub use types::{
    AlterConfig, ConfigEntry, ConfigResource, ConfigSource, GroupDescription, GroupListing,
    GroupMemberDescription, ListedOffset, NewTopic, OffsetSpec, PartitionDescription, PerItem,
    TopicDescription, TopicListing,
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

    /// Looks up offsets.
    ///
    /// # Errors
    /// None of its own at present: every partition has its result.
    pub async fn list_offsets(
        &self,
        partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<PerItem<TopicPartition, ListedOffset>, ClientError> {
        let wanted: Vec<_> = partitions.iter().map(|(p, spec)| (p.clone(), spec.wire())).collect();
        Ok(self.client.list_offsets(&wanted, IsolationLevel::ReadUncommitted).await)
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
            let mut retry = self.client.retrying("deleting records", self.client.config.api_timeout_ms);
            let result = loop {
                match self.delete_records_of(partition, *offset).await {
                    Ok(first) => break Ok(first),
                    Err(error) => {
                        if error.wants_metadata() {
                            // A failure here shows in the next attempt.
                            let topics = std::slice::from_ref(&partition.topic);
                            let _ = self.client.refresh(topics, false).await;
                        }
                        if let Err(error) = retry.after(error).await {
                            break Err(error);
                        }
                    }
                }
            };
            results.insert(partition.clone(), result);
        }
        Ok(results)
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
