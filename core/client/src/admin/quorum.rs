//! The metadata quorum and its voters.

use towpath_wire::ApiKey;
use towpath_wire::messages::add_raft_voter::{AddRaftVoterRequest, Listener};
use towpath_wire::messages::describe_quorum::{
    DescribeQuorumRequest, PartitionData, ReplicaState, TopicData,
};
use towpath_wire::messages::remove_raft_voter::RemoveRaftVoterRequest;
use uuid::Uuid;

use super::{Admin, left_out, wants_controller};
use crate::ClientError;
use crate::client::check;

/// Kafka's name of the metadata log.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// [`Admin::describe_quorum`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumDescription {
    /// The active controller, if there is one.
    pub leader: Option<i32>,
    /// Its term.
    pub leader_epoch: i32,
    /// What a majority of the voters has: the end of the committed metadata log.
    pub high_watermark: i64,
    /// Who elects.
    pub voters: Vec<QuorumReplica>,
    /// Who only follows: Kafka's observers, Raft's learners.
    pub observers: Vec<QuorumReplica>,
    /// Where the voters listen, if the cluster tells.
    pub nodes: Vec<QuorumNode>,
}

/// A voter or observer of a [`QuorumDescription`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumReplica {
    /// The node.
    pub id: i32,
    /// Its directory; nil if the cluster does not tell.
    pub directory_id: Uuid,
    /// The end of its metadata log, if that is known.
    pub log_end_offset: Option<i64>,
    /// When the leader last heard of it (milliseconds since 1970), if that is known.
    pub last_fetch_ms: Option<i64>,
    /// When the leader had what the node last asked for (milliseconds since 1970), if that is known.
    pub last_caught_up_ms: Option<i64>,
}

/// A node of a [`QuorumDescription`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumNode {
    /// The node.
    pub id: i32,
    /// Where other nodes reach it.
    pub listeners: Vec<QuorumListener>,
}

/// Where a node of the quorum is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumListener {
    /// The listener's name.
    pub name: String,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A voter of the metadata quorum: a node with the directory that it has its log in (KIP-853).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftVoter {
    /// The node.
    pub id: i32,
    /// Its directory.
    pub directory_id: Uuid,
}

impl Admin {
    /// The metadata quorum.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or has none.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, ClientError> {
        let partition = PartitionData { partition_index: 0 };
        let topic = TopicData { topic_name: METADATA_TOPIC.to_owned(), partitions: vec![partition] };
        let request = DescribeQuorumRequest { topics: vec![topic] };
        let (response, asked) =
            self.controller(&request, |response| wants_controller(response.error_code)).await?;
        let api = ApiKey::DescribeQuorum;
        check(response.error_code, response.error_message, api, &asked, METADATA_TOPIC)?;
        let partition = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.ok_or_else(|| left_out(api, &asked))?;
        check(partition.error_code, partition.error_message, api, &asked, METADATA_TOPIC)?;
        let node = |node: towpath_wire::messages::describe_quorum::Node| QuorumNode {
            id: node.node_id,
            listeners: node
                .listeners
                .into_iter()
                .map(|it| QuorumListener { name: it.name, host: it.host, port: it.port })
                .collect(),
        };
        Ok(QuorumDescription {
            leader: (partition.leader_id >= 0).then_some(partition.leader_id),
            leader_epoch: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            voters: partition.current_voters.iter().map(replica).collect(),
            observers: partition.observers.iter().map(replica).collect(),
            nodes: response.nodes.into_iter().map(node).collect(),
        })
    }

    /// Makes an observer a voter. The cluster is checked if its id is given.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or refuses.
    pub async fn add_raft_voter(
        &self,
        cluster_id: Option<&str>,
        voter: RaftVoter,
        listeners: &[QuorumListener],
    ) -> Result<(), ClientError> {
        let request = AddRaftVoterRequest {
            cluster_id: cluster_id.map(str::to_owned),
            timeout_ms: self.timeout_ms(),
            voter_id: voter.id,
            voter_directory_id: voter.directory_id,
            listeners: listeners
                .iter()
                .map(|it| Listener { name: it.name.clone(), host: it.host.clone(), port: it.port })
                .collect(),
            ack_when_committed: true,
        };
        let (response, asked) =
            self.controller(&request, |response| wants_controller(response.error_code)).await?;
        let subject = format_args!("node {}", voter.id);
        check(response.error_code, response.error_message, ApiKey::AddRaftVoter, &asked, subject)
    }

    /// Makes a voter an observer. The cluster is checked if its id is given.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or refuses.
    pub async fn remove_raft_voter(
        &self,
        cluster_id: Option<&str>,
        voter: RaftVoter,
    ) -> Result<(), ClientError> {
        let request = RemoveRaftVoterRequest {
            cluster_id: cluster_id.map(str::to_owned),
            voter_id: voter.id,
            voter_directory_id: voter.directory_id,
        };
        let (response, asked) =
            self.controller(&request, |response| wants_controller(response.error_code)).await?;
        let subject = format_args!("node {}", voter.id);
        check(response.error_code, response.error_message, ApiKey::RemoveRaftVoter, &asked, subject)
    }
}

fn replica(state: &ReplicaState) -> QuorumReplica {
    let known = |value: i64| (value >= 0).then_some(value);
    QuorumReplica {
        id: state.replica_id,
        directory_id: state.replica_directory_id,
        log_end_offset: known(state.log_end_offset),
        last_fetch_ms: known(state.last_fetch_timestamp),
        last_caught_up_ms: known(state.last_caught_up_timestamp),
    }
}
