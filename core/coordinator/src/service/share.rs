//! The driver's calls for share groups (KIP-932).

use towpath_types::TopicId;
use towpath_wire::share_group_describe::DescribedGroup;
use towpath_wire::{
    ErrorCode, ShareGroupDescribeRequest, ShareGroupDescribeResponse, ShareGroupHeartbeatRequest,
    ShareGroupHeartbeatResponse,
};

use super::GroupCoordinator;
use crate::machine::{ClientContext, Reply, ShareStateTopic, ShareStateView, share_heartbeat_error};

/// An error's code, and what is said of it.
type Told = (ErrorCode, String);

fn told(error: ErrorCode) -> Told {
    (error, format!("The coordinator cannot answer: {error}."))
}

fn of_state(reply: Result<Reply, ErrorCode>) -> Result<i32, Told> {
    match reply {
        Ok(Reply::ShareState(result)) => result,
        Ok(_) => Err(told(ErrorCode::UnknownServerError)),
        Err(error) => Err(told(error)),
    }
}

impl GroupCoordinator {
    /// Serves ShareGroupHeartbeat; waits until what it changes is committed in the log.
    pub async fn share_group_heartbeat(
        &self,
        client: &ClientContext,
        request: ShareGroupHeartbeatRequest,
    ) -> ShareGroupHeartbeatResponse {
        let reply = match self.find(&request.group_id) {
            Err(error) => Err(error),
            Ok(partition) => {
                let act = |machine: &mut crate::GroupMachine, now, waiter, out: &mut _| {
                    machine.share_group_heartbeat(now, waiter, client, request, out);
                };
                partition.ask(act).await
            }
        };
        match reply {
            Ok(Reply::ShareHeartbeat(response)) => response,
            Ok(_) => share_heartbeat_error(ErrorCode::UnknownServerError, None),
            Err(error) => share_heartbeat_error(error, None),
        }
    }

    /// Serves ShareGroupDescribe.
    #[must_use]
    pub fn share_group_describe(&self, request: &ShareGroupDescribeRequest) -> ShareGroupDescribeResponse {
        let describe = |id: &String| {
            let result = self
                .find(id)
                .and_then(|partition| partition.act(|machine, _, _| machine.describe_share_group(id)));
            let failed = |error: ErrorCode| DescribedGroup {
                group_id: id.clone(),
                error_code: error.code(),
                ..DescribedGroup::default()
            };
            if id.is_empty() { failed(ErrorCode::InvalidGroupId) } else { result.unwrap_or_else(failed) }
        };
        ShareGroupDescribeResponse {
            groups: request.group_ids.iter().map(describe).collect(),
            ..ShareGroupDescribeResponse::default()
        }
    }

    /// What a share group knows of its share partitions.
    ///
    /// # Errors
    /// What a client is told: that there is no such share group, or that it is not coordinated here.
    pub fn share_state(&self, group: &str) -> Result<ShareStateView, Told> {
        let partition = self.find(group).map_err(told)?;
        partition.act(|machine, _, _| machine.share_state(group)).map_err(told)?
    }

    /// Lets nobody join a share group without members for a minute, or until [`Self::release_share_group`], so that its
    /// states can be deleted: what it knows of them.
    ///
    /// # Errors
    /// What a client is told: `GROUP_ID_NOT_FOUND`, `NON_EMPTY_GROUP`, or that it is not coordinated here.
    pub fn hold_share_group(&self, group: &str) -> Result<ShareStateView, Told> {
        let partition = self.find(group).map_err(told)?;
        partition.act(|machine, now, _| machine.hold_share_group(now, group)).map_err(told)?
    }

    /// The states of a share group are no longer being deleted.
    pub fn release_share_group(&self, group: &str) {
        // Where it is not coordinated any more, it is not held either.
        let _elsewhere = self
            .find(group)
            .and_then(|partition| partition.act(|machine, _, _| machine.release_share_group(group)));
    }

    /// Raises the epoch of a share group without members and notes topics: states may be set anew under that epoch. Waits
    /// until it is committed in the log.
    ///
    /// # Errors
    /// What a client is told: `GROUP_ID_NOT_FOUND`, `NON_EMPTY_GROUP`, or that it is not coordinated here.
    pub async fn alter_share_state(&self, group: &str, topics: Vec<ShareStateTopic>) -> Result<i32, Told> {
        let partition = self.find(group).map_err(told)?;
        of_state(
            partition
                .ask(|machine, now, waiter, out| machine.alter_share_state(now, waiter, group, topics, out))
                .await,
        )
    }

    /// Forgets topics of a share group whose states are deleted. Waits until it is committed in the log.
    ///
    /// # Errors
    /// What a client is told: `GROUP_ID_NOT_FOUND`, `NON_EMPTY_GROUP`, or that it is not coordinated here.
    pub async fn forget_share_topics(&self, group: &str, topics: &[TopicId]) -> Result<(), Told> {
        let partition = self.find(group).map_err(told)?;
        let reply = partition
            .ask(|machine, now, waiter, out| machine.forget_share_topics(now, waiter, group, topics, out))
            .await;
        of_state(reply).map(|_| ())
    }
}
