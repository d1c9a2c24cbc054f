//! ShareAcknowledge (KIP-932): what members say of the records that they have. It is answered when that is stored.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::group_config::ShareGroupConfig;
use towpath_types::{TopicId, limits};
use towpath_wire::share_acknowledge::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareAcknowledgeTopicResponse,
};
use towpath_wire::{ErrorCode, ShareAcknowledgeRequest, ShareAcknowledgeResponse};

use super::{CurrentLeader, RequestContext, shares_records};
use crate::share::OfPartition;
use crate::share::live::Taken;
use crate::share::partition::Acknowledgement;
use crate::share::sessions::{FINAL_EPOCH, Place};
use crate::state::BrokerState;

/// What a member says of a partition's records.
pub(super) type Said = (Place, Vec<Acknowledgement>);

/// What a request says, by partition; of one that it names more than once all together.
#[derive(Default)]
pub(super) struct SaidByPlace {
    all: Vec<Said>,
    at: HashMap<Place, usize>,
}

impl SaidByPlace {
    pub(super) fn add(&mut self, place: Place, said: impl Iterator<Item = Acknowledgement>) {
        let at = *self.at.entry(place).or_insert(self.all.len());
        match self.all.get_mut(at) {
            Some((_, before)) => before.extend(said),
            None => self.all.push((place, said.collect())),
        }
    }

    pub(super) fn all(self) -> Vec<Said> {
        self.all
    }
}

/// Who says it.
pub(super) struct Sayer<'a> {
    pub(super) group: &'a Arc<str>,
    pub(super) member: &'a str,
    pub(super) config: &'a ShareGroupConfig,
    /// The request says that locks are renewed in it.
    pub(super) may_renew: bool,
}

/// Group and member of a request.
///
/// # Errors
/// `INVALID_REQUEST`.
pub(super) fn named(group: Option<&str>, member: Option<&str>) -> Result<(Arc<str>, Arc<str>), ErrorCode> {
    // R10: names that no group and no member of one can have are not kept.
    let named = |name: Option<&str>, bytes_max: usize| {
        name.filter(|name| !name.is_empty() && name.len() <= bytes_max).map(Arc::from)
    };
    let group = named(group, limits::GROUP_ID_BYTES_MAX);
    group.zip(named(member, limits::MEMBER_ID_BYTES_MAX)).ok_or(ErrorCode::InvalidRequest)
}

/// Takes all that a member says, and waits until it is stored. What was said of each partition, with what became of it.
pub(super) async fn acknowledge(
    broker: &Arc<BrokerState>,
    sayer: &Sayer<'_>,
    said: Vec<Said>,
) -> Vec<(Place, ErrorCode)> {
    let settings = sayer.config.of_partition();
    // All are begun before the first is waited for.
    let taken: Vec<(Place, Result<Taken, ErrorCode>)> = said
        .into_iter()
        .map(|(place, said)| {
            let renews = said.iter().any(Acknowledgement::renews);
            if renews && !(sayer.may_renew && sayer.config.may_renew) {
                return (place, Err(ErrorCode::InvalidRequest));
            }
            let shared = broker.shares.get(broker, sayer.group, place);
            (place, shared.and_then(|shared| shared.acknowledge(settings, sayer.member, &said)))
        })
        .collect();
    let mut results = Vec::with_capacity(taken.len());
    for (place, taken) in taken {
        let error = match taken {
            Ok(Taken::Done) => ErrorCode::None,
            Ok(Taken::Stored(stored)) => match stored.await {
                Ok(Ok(())) => ErrorCode::None,
                Ok(Err(error)) => error,
                Err(_) => ErrorCode::NotLeaderOrFollower,
            },
            Err(error) => error,
        };
        results.push((place, error));
    }
    results
}

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: ShareAcknowledgeRequest,
) -> ShareAcknowledgeResponse {
    let failed = |error: ErrorCode| ShareAcknowledgeResponse {
        error_code: error.code(),
        ..ShareAcknowledgeResponse::default()
    };
    if !shares_records(&broker) {
        return failed(ErrorCode::UnsupportedVersion);
    }
    let (group, member) = match named(request.group_id.as_deref(), request.member_id.as_deref()) {
        Ok(named) => named,
        Err(error) => return failed(error),
    };
    if let Err(error) = broker.shares.sessions.acknowledge(&group, &member, request.share_session_epoch) {
        return failed(error);
    }
    let config = broker.share_settings(&group);
    let mut said = SaidByPlace::default();
    for topic in request.topics {
        for partition in topic.partitions {
            // Of what nothing is said nothing is told.
            if partition.acknowledgement_batches.is_empty() {
                continue;
            }
            let batches = partition.acknowledgement_batches.into_iter().map(|batch| Acknowledgement {
                first: batch.first_offset,
                last: batch.last_offset,
                types: batch.acknowledge_types,
            });
            said.add((topic.topic_id, partition.partition_index), batches);
        }
    }
    let sayer = Sayer { group: &group, member: &member, config: &config, may_renew: request.is_renew_ack };
    let results = acknowledge(&broker, &sayer, said.all()).await;
    if request.share_session_epoch == FINAL_EPOCH {
        broker.shares.end_session(&broker, &group, &member);
    }
    let mut response = ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: config.record_lock_duration_ms,
        ..ShareAcknowledgeResponse::default()
    };
    let image = broker.image();
    for ((topic_id, index), error) in results {
        let partition = partition_data(&image, (topic_id, index), error, &mut response.node_endpoints);
        match response.responses.last_mut().filter(|last| last.topic_id == topic_id) {
            Some(last) => last.partitions.push(partition),
            None => response
                .responses
                .push(ShareAcknowledgeTopicResponse { topic_id, partitions: vec![partition] }),
        }
    }
    response
}

fn partition_data(
    image: &MetadataImage,
    (topic, partition_index): Place,
    error: ErrorCode,
    endpoints: &mut Vec<NodeEndpoint>,
) -> PartitionData {
    let mut data = PartitionData { partition_index, error_code: error.code(), ..PartitionData::default() };
    let leader = (error == ErrorCode::NotLeaderOrFollower)
        .then(|| image.topic_by_id(TopicId::new(topic)))
        .flatten()
        .and_then(|topic| CurrentLeader::find(image, topic, partition_index));
    if let Some(leader) = leader {
        let (leader_id, leader_epoch) = (leader.id.get(), leader.epoch.get());
        data.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
        if !endpoints.iter().any(|endpoint| endpoint.node_id == leader_id) {
            endpoints.push(NodeEndpoint {
                node_id: leader_id,
                host: leader.host,
                port: leader.port,
                rack: leader.rack,
            });
        }
    }
    data
}
