//! ShareFetch (KIP-932): gives records to members of a share group, and takes what they say of those they have.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use towpath_controller::MetadataImage;
use towpath_types::TopicId;
use towpath_wire::share_fetch::{
    AcquiredRecords, LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareFetchableTopicResponse,
};
use towpath_wire::{ErrorCode, ShareFetchRequest, ShareFetchResponse};

use super::share_acknowledge::{Said, SaidByPlace, Sayer, acknowledge, named};
use super::{CurrentLeader, RequestContext, shares_records};
use crate::share::fetching::{AllFound, Found, ShareFetch};
use crate::share::partition::Acknowledgement;
use crate::share::sessions::{FINAL_EPOCH, IDLE_MAX, INITIAL_EPOCH, Place, SessionUse};
use crate::state::BrokerState;

/// How long any fetch may wait: its session is in use meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(240);
const _: () = assert!(WAIT_MAX.as_secs() < IDLE_MAX.as_secs());
/// `share.acquire.mode` is `record_limit`: not one record more than the member asks for.
const MODE_RECORD_LIMIT: i8 = 1;
const MODE_BATCH_OPTIMIZED: i8 = 0;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: ShareFetchRequest,
) -> ShareFetchResponse {
    serve(&broker, cx.connection, request).await.unwrap_or_else(|error| ShareFetchResponse {
        error_code: error.code(),
        ..ShareFetchResponse::default()
    })
}

/// What a request says of partitions: those to fetch from, and what becomes of records.
fn split(request: &mut ShareFetchRequest) -> (Vec<Place>, Vec<Said>) {
    let (mut wanted, mut said) = (Vec::new(), SaidByPlace::default());
    for topic in std::mem::take(&mut request.topics) {
        for partition in topic.partitions {
            let place = (topic.topic_id, partition.partition_index);
            wanted.push(place);
            if partition.acknowledgement_batches.is_empty() {
                continue;
            }
            let batches = partition.acknowledgement_batches.into_iter().map(|batch| Acknowledgement {
                first: batch.first_offset,
                last: batch.last_offset,
                types: batch.acknowledge_types,
            });
            said.add(place, batches);
        }
    }
    (wanted, said.all())
}

/// Checks a request by itself.
fn check(request: &ShareFetchRequest, acknowledges: bool) -> Result<(), ErrorCode> {
    let is_known_mode = matches!(request.share_acquire_mode, MODE_BATCH_OPTIMIZED | MODE_RECORD_LIMIT);
    // What is acknowledged belongs to a session that there is.
    if !is_known_mode || (acknowledges && request.share_session_epoch == INITIAL_EPOCH) {
        return Err(ErrorCode::InvalidRequest);
    }
    // Who renews wants nothing else (KIP-1222).
    let wants_records =
        request.max_bytes > 0 || request.max_records > 0 || request.max_wait_ms > 0 || request.min_bytes > 0;
    if request.is_renew_ack && wants_records {
        return Err(ErrorCode::InvalidRequest);
    }
    Ok(())
}

async fn serve(
    broker: &Arc<BrokerState>,
    connection: u64,
    mut request: ShareFetchRequest,
) -> Result<ShareFetchResponse, ErrorCode> {
    if !shares_records(broker) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let (group, member) = named(request.group_id.as_deref(), request.member_id.as_deref())?;
    let (wanted, said) = split(&mut request);
    check(&request, !said.is_empty())?;
    let epoch = request.share_session_epoch;
    let (places, since) = if epoch == FINAL_EPOCH {
        broker.shares.sessions.acknowledge(&group, &member, epoch)?;
        (Vec::new(), Instant::now())
    } else {
        let forgotten: HashSet<Place> = request
            .forgotten_topics_data
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, *partition)))
            .collect();
        let session =
            SessionUse { group: &group, member: &member, epoch, connection, wanted, forgotten: &forgotten };
        broker.shares.sessions.fetch(session, sessions_max(broker))?
    };
    let config = broker.share_settings(&group);
    let sayer = Sayer { group: &group, member: &member, config: &config, may_renew: request.is_renew_ack };
    // Who has acknowledged something hears of it at once.
    let wait_ms = if said.is_empty() { request.max_wait_ms } else { 0 };
    let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let acknowledged = acknowledge(broker, &sayer, said).await;
    if epoch == FINAL_EPOCH {
        broker.shares.end_session(broker, &group, &member);
    }
    let limit = broker.config.limits.fetch_bytes_max;
    let fetch = ShareFetch {
        broker: Arc::clone(broker),
        group,
        member,
        config,
        places,
        since,
        records_max: usize::try_from(request.max_records).unwrap_or(0),
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0).min(limit),
        batch_size: usize::try_from(request.batch_size).unwrap_or(1),
        is_strict: request.share_acquire_mode == MODE_RECORD_LIMIT,
    };
    let found = fetch.run(if fetch.records_max == 0 { Duration::ZERO } else { wait }).await;
    let mut response = answer(&broker.image(), found, acknowledged, epoch == INITIAL_EPOCH);
    response.acquisition_lock_timeout_ms = config.record_lock_duration_ms;
    Ok(response)
}

fn sessions_max(broker: &BrokerState) -> usize {
    const NAME: &str = "group.share.max.share.sessions";
    let set = broker.config.settings.get(NAME).map(String::as_str);
    let default = towpath_controller::broker_config::key(NAME).and_then(|declared| declared.key.default);
    set.or(default).and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Partitions without news are left out, but for those of a session that begins.
fn answer(
    image: &MetadataImage,
    found: AllFound,
    acknowledged: Vec<(Place, ErrorCode)>,
    tells_all: bool,
) -> ShareFetchResponse {
    let mut response = ShareFetchResponse::default();
    let mut acknowledged: HashMap<Place, ErrorCode> = acknowledged.into_iter().collect();
    for (place, result) in found {
        let said = acknowledged.remove(&place);
        let has_news = said.is_some() || result.as_ref().is_ok_and(|found| !found.acquired.is_empty());
        if tells_all || has_news || result.is_err() {
            add(&mut response, image, place, result, said);
        }
    }
    // Of partitions that are no longer fetched.
    for (place, said) in acknowledged {
        add(&mut response, image, place, Ok(Found::default()), Some(said));
    }
    response
}

fn add(
    response: &mut ShareFetchResponse,
    image: &MetadataImage,
    (topic_id, partition_index): Place,
    result: Result<Found, ErrorCode>,
    said: Option<ErrorCode>,
) {
    let acknowledge_error = said.unwrap_or(ErrorCode::None);
    let (error, found) = match result {
        Ok(found) => (ErrorCode::None, found),
        Err(error) => (error, Found::default()),
    };
    let acquired = found.acquired.iter().map(|acquired| AcquiredRecords {
        first_offset: acquired.first,
        last_offset: acquired.last,
        delivery_count: acquired.deliveries,
    });
    let mut data = PartitionData {
        partition_index,
        error_code: error.code(),
        acknowledge_error_code: acknowledge_error.code(),
        records: found.records,
        acquired_records: acquired.collect(),
        ..PartitionData::default()
    };
    let moved = ErrorCode::NotLeaderOrFollower;
    let leader = (error == moved || acknowledge_error == moved)
        .then(|| image.topic_by_id(TopicId::new(topic_id)))
        .flatten()
        .and_then(|topic| CurrentLeader::find(image, topic, partition_index));
    if let Some(leader) = leader {
        let (leader_id, leader_epoch) = (leader.id.get(), leader.epoch.get());
        data.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
        if !response.node_endpoints.iter().any(|endpoint| endpoint.node_id == leader_id) {
            let (host, port, rack) = (leader.host, leader.port, leader.rack);
            response.node_endpoints.push(NodeEndpoint { node_id: leader_id, host, port, rack });
        }
    }
    match response.responses.iter_mut().find(|topic| topic.topic_id == topic_id) {
        Some(topic) => topic.partitions.push(data),
        None => response.responses.push(ShareFetchableTopicResponse { topic_id, partitions: vec![data] }),
    }
}
