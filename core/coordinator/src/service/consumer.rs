//! The driver's calls for consumer groups (KIP-848) and for offsets within transactions.

use std::sync::Arc;

use towpath_wire::consumer_group_describe::DescribedGroup;
use towpath_wire::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, ErrorCode, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::GroupCoordinator;
use crate::log::EndMarker;
use crate::machine::{ClientContext, Reply, heartbeat_error, transactional_commit_error};
use crate::topics::Topics;

impl GroupCoordinator {
    /// The cluster's topics are now these. Call it whenever they change, and once before [`GroupCoordinator::start`].
    pub fn topics_changed(&self, topics: &Arc<dyn Topics>) {
        *self.inner.topics.lock() = Arc::clone(topics);
        let led: Vec<_> = self.inner.partitions.lock().values().cloned().collect();
        for partition in led {
            partition.topics_changed(Arc::clone(topics));
        }
    }

    /// Serves ConsumerGroupHeartbeat; waits until what it changes is committed in the log.
    pub async fn consumer_group_heartbeat(
        &self,
        client: &ClientContext,
        request: ConsumerGroupHeartbeatRequest,
        version: i16,
    ) -> ConsumerGroupHeartbeatResponse {
        let reply = match self.find(&request.group_id) {
            _ if request.group_id.is_empty() => {
                return heartbeat_error(
                    ErrorCode::InvalidRequest,
                    Some("GroupId can't be empty.".to_owned()),
                );
            }
            Err(error) => Err(error),
            Ok(partition) => {
                let act = |machine: &mut crate::GroupMachine, now, waiter, out: &mut _| {
                    machine.consumer_group_heartbeat(now, waiter, client, request, version, out);
                };
                partition.ask(act).await
            }
        };
        match reply {
            Ok(Reply::ConsumerHeartbeat(response)) => response,
            Ok(_) => heartbeat_error(ErrorCode::UnknownServerError, None),
            Err(error) => heartbeat_error(error, None),
        }
    }

    /// Serves ConsumerGroupDescribe.
    #[must_use]
    pub fn consumer_group_describe(
        &self,
        request: &ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        let describe = |id: &String| {
            let result = self
                .find(id)
                .and_then(|partition| partition.act(|machine, _, _| machine.describe_consumer_group(id)));
            let failed = |error: ErrorCode| DescribedGroup {
                group_id: id.clone(),
                error_code: error.code(),
                ..DescribedGroup::default()
            };
            if id.is_empty() { failed(ErrorCode::InvalidGroupId) } else { result.unwrap_or_else(failed) }
        };
        ConsumerGroupDescribeResponse {
            groups: request.group_ids.iter().map(describe).collect(),
            ..ConsumerGroupDescribeResponse::default()
        }
    }

    /// Serves TxnOffsetCommit of a transaction that was verified to be open; waits until the offsets are committed in the
    /// log. They are visible when the transaction is committed.
    pub async fn txn_offset_commit(&self, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
        let reply = match self.find(&request.group_id) {
            _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
            Err(error) => Err(error),
            Ok(partition) => {
                let act = |machine: &mut crate::GroupMachine, now, waiter, out: &mut _| {
                    machine.txn_offset_commit(now, waiter, &request, out);
                };
                partition.ask(act).await
            }
        };
        match reply {
            Ok(Reply::TransactionalCommit(response)) => response,
            Ok(_) => transactional_commit_error(&request, ErrorCode::UnknownServerError),
            Err(error) => transactional_commit_error(&request, error),
        }
    }

    /// Ends a producer's transaction in a partition of the offsets topic: writes the marker, after all that was begun
    /// before, and makes the transaction's offsets visible if it was committed. Waits until the marker is committed in the
    /// log.
    pub async fn complete_transaction(&self, partition: i32, marker: EndMarker) -> ErrorCode {
        let reply = match self.partition(partition) {
            Err(error) => Err(error),
            Ok(partition) => {
                partition.ask(|machine, _, waiter, out| machine.end_transaction(waiter, marker, out)).await
            }
        };
        match reply {
            Ok(Reply::EndTransaction(error)) | Err(error) => error,
            Ok(_) => ErrorCode::UnknownServerError,
        }
    }
}
