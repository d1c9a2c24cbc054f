//! One file per API. A handler takes the broker's state, what is known of the request's origin, and the decoded
//! request, and returns the response; everything around it is here.
//!
//! To add an API: a file with `pub(crate) async fn handle(broker: Arc<BrokerState>, cx: RequestContext, request:
//! XRequest) -> XResponse`, and a line in [`apis!`](self) below. What is not in the table is not advertised and closes
//! the connection.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use towpath_controller::{AdminError, MetadataImage, TopicImage};
use towpath_coordinator::GroupCoordinator;
use towpath_types::limits::REQUEST_ARRAYS_BYTES_MAX;
use towpath_types::{BrokerId, LeaderEpoch};
use towpath_wire::frame::{RequestHeader, encode_response, peek_request};
use towpath_wire::{ApiKey, Decoder, ErrorCode, Message, Request, VersionRange};

use crate::cluster::forward;
use crate::connection::{ConnectionEnd, Peer};
use crate::outgoing::Frame;
use crate::state::BrokerState;

/// What is known of a request besides its content.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// The request's version.
    pub(crate) version: i16,
    /// What the answer repeats.
    pub(crate) correlation_id: i32,
    /// The name that the client gives itself.
    pub(crate) client_id: Option<String>,
    /// The client's address; none inside the process.
    pub(crate) address: Option<IpAddr>,
    /// The node of this cluster that asks, if it is one.
    pub(crate) node: Option<BrokerId>,
    /// Which of this process's connections it came over.
    pub(crate) connection: u64,
}

impl RequestContext {
    /// The client's host as Kafka shows it in group descriptions: a slash and the address.
    pub(crate) fn client_host(&self) -> String {
        match self.address {
            Some(address) => format!("/{address}"),
            None => "/in-process".to_owned(),
        }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An answer.
    Frame(Frame),
    /// No answer (`acks=0`).
    Nothing,
    /// The connection ends.
    Close,
}

/// A request in work.
pub(crate) type ReplyFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A request that is begun on another thread.
pub(crate) type BeginFuture = Pin<Box<dyn Future<Output = Begun> + Send>>;

/// A request that was begun.
pub(crate) enum Begun {
    /// And finished.
    Done(Reply),
    /// And is still being begun: those after it have to wait.
    Beginning(BeginFuture),
    /// And waits.
    Waiting(ReplyFuture),
}

impl RequestContext {
    /// The answer to the request as a frame. One that cannot be encoded is a fault of ours: the connection ends.
    pub(crate) fn reply<M: Message>(&self, api: ApiKey, response: &M) -> Reply {
        match encode_response(api, self.version, self.correlation_id, response) {
            Ok(segments) => Reply::Frame(segments.into()),
            Err(error) => {
                tracing::error!(%api, version = self.version, %error, "an answer cannot be encoded");
                Reply::Close
            }
        }
    }
}

/// The table of APIs: `Key => module`, where the module is `handlers::module`. APIs whose answers are not plain
/// messages are begun by a function of their own.
macro_rules! apis {
    (
        special { $($special:ident),* $(,)? }
        plain { $($key:ident => $module:ident :: $request:ident),* $(,)? }
    ) => {
        $(pub(crate) mod $module;)*

        /// The APIs that this broker has, in the order of their keys.
        pub(crate) fn supported() -> Vec<ApiKey> {
            let mut keys = vec![$(ApiKey::$special,)* $(ApiKey::$key,)*];
            keys.sort_unstable();
            keys
        }

        fn begin_plain(
            broker: &Arc<BrokerState>,
            cx: RequestContext,
            key: ApiKey,
            body: Decoder,
        ) -> Result<Begun, ConnectionEnd> {
            match key {
                $(ApiKey::$key => begin_message::<towpath_wire::$request, _>(broker, cx, body, $module::handle),)*
                _ => Err(ConnectionEnd::Unsupported { key: key.code(), version: cx.version }),
            }
        }
    };
}

pub(crate) mod api_versions;
mod authorized;
mod fetch;
mod produce;

pub(crate) use produce::begin_burst;

#[cfg(test)]
pub(crate) use describe_topic_partitions::PARTITIONS_MAX as PARTITIONS_TOLD_MAX;

apis! {
    special { ApiVersions, Produce, Fetch }
    plain {
        ListOffsets => list_offsets::ListOffsetsRequest,
        Metadata => metadata::MetadataRequest,
        OffsetCommit => offset_commit::OffsetCommitRequest,
        OffsetFetch => offset_fetch::OffsetFetchRequest,
        FindCoordinator => find_coordinator::FindCoordinatorRequest,
        JoinGroup => join_group::JoinGroupRequest,
        Heartbeat => heartbeat::HeartbeatRequest,
        LeaveGroup => leave_group::LeaveGroupRequest,
        SyncGroup => sync_group::SyncGroupRequest,
        DescribeGroups => describe_groups::DescribeGroupsRequest,
        ListGroups => list_groups::ListGroupsRequest,
        ConsumerGroupHeartbeat => consumer_group_heartbeat::ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribe => consumer_group_describe::ConsumerGroupDescribeRequest,
        ShareGroupHeartbeat => share_group_heartbeat::ShareGroupHeartbeatRequest,
        ShareGroupDescribe => share_group_describe::ShareGroupDescribeRequest,
        ShareFetch => share_fetch::ShareFetchRequest,
        ShareAcknowledge => share_acknowledge::ShareAcknowledgeRequest,
        InitializeShareGroupState => initialize_share_group_state::InitializeShareGroupStateRequest,
        ReadShareGroupState => read_share_group_state::ReadShareGroupStateRequest,
        WriteShareGroupState => write_share_group_state::WriteShareGroupStateRequest,
        DeleteShareGroupState => delete_share_group_state::DeleteShareGroupStateRequest,
        ReadShareGroupStateSummary => read_share_group_state_summary::ReadShareGroupStateSummaryRequest,
        DescribeShareGroupOffsets => describe_share_group_offsets::DescribeShareGroupOffsetsRequest,
        AlterShareGroupOffsets => alter_share_group_offsets::AlterShareGroupOffsetsRequest,
        DeleteShareGroupOffsets => delete_share_group_offsets::DeleteShareGroupOffsetsRequest,
        CreateTopics => create_topics::CreateTopicsRequest,
        DeleteTopics => delete_topics::DeleteTopicsRequest,
        DeleteRecords => delete_records::DeleteRecordsRequest,
        AddPartitionsToTxn => add_partitions_to_txn::AddPartitionsToTxnRequest,
        AddOffsetsToTxn => add_offsets_to_txn::AddOffsetsToTxnRequest,
        EndTxn => end_txn::EndTxnRequest,
        WriteTxnMarkers => write_txn_markers::WriteTxnMarkersRequest,
        TxnOffsetCommit => txn_offset_commit::TxnOffsetCommitRequest,
        DescribeProducers => describe_producers::DescribeProducersRequest,
        DescribeTransactions => describe_transactions::DescribeTransactionsRequest,
        ListTransactions => list_transactions::ListTransactionsRequest,
        InitProducerId => init_producer_id::InitProducerIdRequest,
        OffsetForLeaderEpoch => offset_for_leader_epoch::OffsetForLeaderEpochRequest,
        DescribeConfigs => describe_configs::DescribeConfigsRequest,
        AlterConfigs => alter_configs::AlterConfigsRequest,
        AlterReplicaLogDirs => alter_replica_log_dirs::AlterReplicaLogDirsRequest,
        DescribeLogDirs => describe_log_dirs::DescribeLogDirsRequest,
        CreatePartitions => create_partitions::CreatePartitionsRequest,
        IncrementalAlterConfigs => incremental_alter_configs::IncrementalAlterConfigsRequest,
        DeleteGroups => delete_groups::DeleteGroupsRequest,
        OffsetDelete => offset_delete::OffsetDeleteRequest,
        DescribeCluster => describe_cluster::DescribeClusterRequest,
        ListConfigResources => list_config_resources::ListConfigResourcesRequest,
        DescribeTopicPartitions => describe_topic_partitions::DescribeTopicPartitionsRequest,
        ElectLeaders => elect_leaders::ElectLeadersRequest,
        AlterPartitionReassignments => alter_partition_reassignments::AlterPartitionReassignmentsRequest,
        ListPartitionReassignments => list_partition_reassignments::ListPartitionReassignmentsRequest,
        DescribeQuorum => describe_quorum::DescribeQuorumRequest,
        UpdateFeatures => update_features::UpdateFeaturesRequest,
        UnregisterBroker => unregister_broker::UnregisterBrokerRequest,
        AddRaftVoter => add_raft_voter::AddRaftVoterRequest,
        RemoveRaftVoter => remove_raft_voter::RemoveRaftVoterRequest,
    }
}

fn begin_message<R, F>(
    broker: &Arc<BrokerState>,
    cx: RequestContext,
    mut body: Decoder,
    handle: fn(Arc<BrokerState>, RequestContext, R) -> F,
) -> Result<Begun, ConnectionEnd>
where
    R: Request,
    F: Future<Output = R::Response> + Send + 'static,
{
    // Bytes that follow the body are ignored, as Kafka does: librdkafka leaves some behind.
    let request = R::decode(&mut body, cx.version)?;
    let response = handle(Arc::clone(broker), cx.clone(), request);
    Ok(Begun::Waiting(Box::pin(async move { cx.reply(R::KEY, &response.await) })))
}

/// The versions of an API that this broker serves.
pub(crate) fn served_versions(key: ApiKey) -> VersionRange {
    key.stable_versions()
}

/// Reads a request and begins it: here, or, where only the active controller can answer it, there.
///
/// # Errors
/// [`ConnectionEnd`] for what cannot be read or is not there: the connection ends.
pub(crate) fn begin(
    broker: &Arc<BrokerState>,
    peer: &Peer,
    frame: Bytes,
) -> Result<(ApiKey, Begun), ConnectionEnd> {
    if let Some(node) = broker.cluster().filter(|node| !node.is_active_controller())
        && let Ok(key) = ApiKey::try_from(peek_request(&frame)?.api_key)
        && forward::is_for_controller(key)
        && broker.apis.contains(&key)
        && served_versions(key).contains(peek_request(&frame)?.api_version)
    {
        let header = RequestHeader::decode(&mut Decoder::new(frame.clone()))?;
        let cx = RequestContext {
            version: header.request_api_version,
            correlation_id: header.correlation_id,
            client_id: header.client_id,
            address: peer.address,
            node: peer.node,
            connection: peer.connection,
        };
        let passed_on = forward::pass_on(Arc::clone(broker), Arc::clone(node), cx, frame);
        return Ok((key, Begun::Waiting(Box::pin(passed_on))));
    }
    begin_here(broker, peer, frame)
}

/// Reads a request and begins it here.
///
/// # Errors
/// As [`begin`].
pub(crate) fn begin_here(
    broker: &Arc<BrokerState>,
    peer: &Peer,
    frame: Bytes,
) -> Result<(ApiKey, Begun), ConnectionEnd> {
    let peek = peek_request(&frame)?;
    let is_asked = peek.api_key == ApiKey::ApiVersions.code();
    if is_asked && !served_versions(ApiKey::ApiVersions).contains(peek.api_version) {
        // The body of a version from the future is not ours to parse (KIP-511).
        let answer = api_versions::unsupported_version(peek.correlation_id);
        return Ok((ApiKey::ApiVersions, Begun::Done(answer)));
    }
    let Opened { key, cx, body } = open(broker, peer, frame)?;
    let begun = match key {
        ApiKey::ApiVersions => api_versions::begin(broker, &cx, body)?,
        ApiKey::Produce => produce::begin(broker, cx, body)?,
        ApiKey::Fetch => fetch::begin(broker, cx, body)?,
        _ => begin_plain(broker, cx, key, body)?,
    };
    Ok((key, begun))
}

/// A request whose header was read.
struct Opened {
    key: ApiKey,
    cx: RequestContext,
    body: Decoder,
}

/// Reads the header of a request that this broker serves.
fn open(broker: &BrokerState, peer: &Peer, frame: Bytes) -> Result<Opened, ConnectionEnd> {
    let peek = peek_request(&frame)?;
    let unsupported = ConnectionEnd::Unsupported { key: peek.api_key, version: peek.api_version };
    let Ok(key) = ApiKey::try_from(peek.api_key) else { return Err(unsupported) };
    if !broker.apis.contains(&key) || !served_versions(key).contains(peek.api_version) {
        return Err(unsupported);
    }
    let mut body = Decoder::new(frame).with_memory_max(REQUEST_ARRAYS_BYTES_MAX);
    let header = RequestHeader::decode(&mut body)?;
    let cx = RequestContext {
        version: header.request_api_version,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
        address: peer.address,
        node: peer.node,
        connection: peer.connection,
    };
    Ok(Opened { key, cx, body })
}

/// Whether a request is a Produce request, which a burst may hold several of.
pub(crate) fn is_produce(frame: &Bytes) -> bool {
    frame.starts_with(&ApiKey::Produce.code().to_be_bytes())
}

/// The group coordinator; none for a moment while the broker starts.
pub(crate) fn groups(broker: &BrokerState) -> Option<&GroupCoordinator> {
    broker.groups.get()
}

/// Whether the cluster has share groups (KIP-932).
pub(crate) fn shares_records(broker: &BrokerState) -> bool {
    api_versions::is_enabled(&broker.image(), "share.version")
}

/// An answer as code and message.
pub(crate) fn told(answer: Result<(), AdminError>) -> (i16, Option<String>) {
    match answer {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(error) => (error.code.code(), Some(error.message)),
    }
}

/// Who leads a partition, for those who ask somebody else (KIP-951).
pub(crate) struct CurrentLeader {
    pub(crate) id: BrokerId,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
}

impl CurrentLeader {
    /// By the metadata; none while there is none.
    pub(crate) fn find(image: &MetadataImage, topic: &TopicImage, index: i32) -> Option<Self> {
        let partition = topic.partitions.get(usize::try_from(index).ok()?)?;
        let broker = image.broker(partition.leader?)?;
        Some(Self {
            id: broker.id,
            epoch: partition.leader_epoch,
            host: broker.host.clone(),
            port: i32::from(broker.port),
            rack: broker.rack.clone(),
        })
    }
}

/// The protocol's code of a partition's error.
pub(crate) fn partition_error_code(error: &towpath_replica::PartitionError) -> ErrorCode {
    use towpath_log::AppendError;
    use towpath_record::{BatchError, ValidateError};
    use towpath_replica::{FollowerRefused, PartitionError};
    match error {
        PartitionError::NotLeader => ErrorCode::NotLeaderOrFollower,
        PartitionError::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        PartitionError::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        PartitionError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        PartitionError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        PartitionError::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
        PartitionError::Deleted => ErrorCode::UnknownTopicOrPartition,
        // Rule 3: whoever is no replica here may know newer metadata; an older incarnation finds that it has ended.
        PartitionError::Follower(FollowerRefused::NoReplica(_)) => ErrorCode::UnknownLeaderEpoch,
        PartitionError::Follower(FollowerRefused::StaleBrokerEpoch(_)) => ErrorCode::NotLeaderOrFollower,
        PartitionError::Append(error) => match error {
            AppendError::Invalid(error) => match error {
                // Less than a batch is no batch.
                ValidateError::Corrupt(BatchError::Truncated { .. }) => ErrorCode::InvalidRecord,
                ValidateError::Corrupt(_) => ErrorCode::CorruptMessage,
                ValidateError::InvalidBatch(_) | ValidateError::InvalidRecords(_) => ErrorCode::InvalidRecord,
                ValidateError::InvalidTimestamps(_) => ErrorCode::InvalidTimestamp,
                ValidateError::TooLarge { .. } => ErrorCode::MessageTooLarge,
                ValidateError::UnsupportedCompression(_) => ErrorCode::UnsupportedCompressionType,
                _ => ErrorCode::UnknownServerError,
            },
            AppendError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            AppendError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            AppendError::InvalidTxnState { .. } | AppendError::NotVerified { .. } => {
                ErrorCode::InvalidTxnState
            }
            AppendError::TransactionCoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
            // The producer tries again; by then others have ended.
            AppendError::TooManyTransactions { .. } => ErrorCode::NotEnoughReplicas,
            AppendError::FencedLeaderEpoch { .. } => ErrorCode::NotLeaderOrFollower,
            AppendError::Storage(_) => ErrorCode::KafkaStorageError,
            _ => ErrorCode::UnknownServerError,
        },
        _ => ErrorCode::KafkaStorageError,
    }
}
