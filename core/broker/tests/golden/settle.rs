//! What differs from run to run, and what stands for it in the files: ids that a broker makes up, by their exact
//! value; and times and sizes, at the places named here and nowhere else, after a look whether they can be true.

use std::any::Any;

use bytes::{Bytes, BytesMut};
use towpath_record::{TimestampType, batches};
use towpath_wire::{
    ApiKey, DescribeConfigsResponse, DescribeLogDirsResponse, DescribeProducersResponse,
    DescribeQuorumResponse, DescribeTransactionsResponse, FetchResponse, ListConfigResourcesResponse,
    ListGroupsResponse, ListOffsetsResponse, ListTransactionsResponse, ProduceResponse,
};
use uuid::Uuid;

/// The places whose values a run decides, for the heads of the files.
pub(crate) const PLACES: &[(ApiKey, &str)] = &[
    (ApiKey::Produce, "log_append_time_ms (1 for the time of the run)"),
    (
        ApiKey::Fetch,
        "session_id (1 for any); times and CRC of control batches and of batches with the broker's time",
    ),
    (ApiKey::ListOffsets, "timestamp (1 for the time of the run, which markers have)"),
    (ApiKey::ListGroups, "the order of groups"),
    (ApiKey::ListTransactions, "the order of transactions"),
    (ApiKey::DescribeConfigs, "the order of configs"),
    (ApiKey::ListConfigResources, "the order of resources"),
    (
        ApiKey::DescribeLogDirs,
        "the order of topics and partitions; total_bytes, usable_bytes (1 for any positive)",
    ),
    (
        ApiKey::DescribeProducers,
        "the order of producers; last_timestamp of one whose last batch was a marker (1 for the time of the run)",
    ),
    (ApiKey::DescribeTransactions, "transaction_start_time_ms (1 for the time of the run)"),
    (ApiKey::DescribeQuorum, "last_fetch_timestamp, last_caught_up_timestamp (1 for the time of the run)"),
];

/// What stands for a time of the run.
const NOW: i64 = 1;
/// How old a time of the run may be.
const RUN_MS_MAX: i64 = 600_000;

/// Ids that a broker made up, and what stands for each: of the same length, so that no length around it changes.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<(Vec<u8>, Vec<u8>)>);

impl Names {
    /// Lets the `n`-th id of `kind` stand for a text that the broker made up.
    pub(crate) fn text(&mut self, actual: &str, kind: &str) {
        if actual.len() < 16 || self.is_known(actual.as_bytes()) {
            return;
        }
        let mut name = format!("{kind}-{}-", self.0.len());
        while name.len() < actual.len() {
            name.push('x');
        }
        name.truncate(actual.len());
        self.0.push((actual.as_bytes().to_vec(), name.into_bytes()));
    }

    /// Lets an id stand for one that the broker made up.
    pub(crate) fn id(&mut self, actual: Uuid) {
        if actual.is_nil() || self.is_known(actual.as_bytes()) {
            return;
        }
        let name = Uuid::from_u128(0x1d1d_1d1d_1d1d_1d1d_1d1d_1d1d_0000_0000 + self.0.len() as u128);
        self.0.push((actual.as_bytes().to_vec(), name.as_bytes().to_vec()));
    }

    fn is_known(&self, actual: &[u8]) -> bool {
        self.0.iter().any(|(known, _)| known == actual)
    }

    /// The bytes with every known id replaced.
    pub(crate) fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (actual, name) in &self.0 {
            let mut at = 0;
            while at + actual.len() <= bytes.len() {
                if bytes[at..].starts_with(actual) {
                    bytes[at..at + actual.len()].copy_from_slice(name);
                    at += actual.len();
                } else {
                    at += 1;
                }
            }
        }
        bytes
    }
}

/// Takes the values of this run out of an answer.
pub(crate) fn settle(response: &mut dyn Any) {
    if let Some(response) = response.downcast_mut::<ProduceResponse>() {
        for topic in &mut response.responses {
            topic.partition_responses.iter_mut().for_each(|it| time(&mut it.log_append_time_ms));
        }
    } else if let Some(response) = response.downcast_mut::<FetchResponse>() {
        if response.session_id != 0 {
            response.session_id = 1;
        }
        for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.records = partition.records.take().map(|bytes| records(&bytes));
        }
    } else if let Some(response) = response.downcast_mut::<DescribeLogDirsResponse>() {
        for dir in &mut response.results {
            size(&mut dir.total_bytes);
            size(&mut dir.usable_bytes);
            dir.topics.sort_by(|a, b| a.name.cmp(&b.name));
            dir.topics.iter_mut().for_each(|it| it.partitions.sort_by_key(|it| it.partition_index));
        }
    } else if let Some(response) = response.downcast_mut::<DescribeProducersResponse>() {
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.active_producers.sort_by_key(|it| it.producer_id);
            for producer in partition.active_producers.iter_mut().filter(|it| it.last_sequence == -1) {
                time(&mut producer.last_timestamp);
            }
        }
    } else if let Some(response) = response.downcast_mut::<DescribeTransactionsResponse>() {
        response.transaction_states.iter_mut().for_each(|it| time(&mut it.transaction_start_time_ms));
    } else if let Some(response) = response.downcast_mut::<ListOffsetsResponse>() {
        for topic in &mut response.topics {
            topic.partitions.iter_mut().for_each(|it| time(&mut it.timestamp));
        }
    } else if let Some(response) = response.downcast_mut::<ListGroupsResponse>() {
        response.groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    } else if let Some(response) = response.downcast_mut::<ListTransactionsResponse>() {
        response.transaction_states.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
    } else if let Some(response) = response.downcast_mut::<DescribeConfigsResponse>() {
        response.results.iter_mut().for_each(|it| it.configs.sort_by(|a, b| a.name.cmp(&b.name)));
    } else if let Some(response) = response.downcast_mut::<ListConfigResourcesResponse>() {
        let by = |it: &towpath_wire::list_config_resources::ConfigResource| {
            (it.resource_type, it.resource_name.clone())
        };
        response.config_resources.sort_by_key(by);
    } else if let Some(response) = response.downcast_mut::<DescribeQuorumResponse>() {
        for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            for replica in partition.current_voters.iter_mut().chain(&mut partition.observers) {
                time(&mut replica.last_fetch_timestamp);
                time(&mut replica.last_caught_up_timestamp);
            }
        }
    }
}

fn size(bytes: &mut i64) {
    if *bytes > 0 {
        *bytes = 1;
    }
}

/// A time of this run; -1 and whatever cannot be one stays as it is.
fn time(ms: &mut i64) {
    let now = crate::now_ms();
    if (now - RUN_MS_MAX..=now + 1_000).contains(ms) {
        *ms = NOW;
    }
}

/// Where fields of a batch's header are.
const CRC: std::ops::Range<usize> = 17..21;
const FIRST_TIME: usize = 27;
const LAST_TIME: usize = 35;
const PRODUCER: usize = 43;

fn records(bytes: &Bytes) -> Bytes {
    let mut settled = BytesMut::from(&bytes[..]);
    let mut at = 0;
    for batch in batches(bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        let by_the_broker = batch.timestamp_type() == TimestampType::LogAppendTime;
        if batch.is_control() || by_the_broker {
            let mut last = batch.max_timestamp;
            time(&mut last);
            assert_eq!(last, NOW, "a time of the run");
            settled[at + CRC.start..at + CRC.end].fill(0);
            // A marker's first time is the broker's, too; that of other batches is the producer's, and stays.
            let from = if batch.is_control() { FIRST_TIME } else { LAST_TIME };
            settled[at + from..at + PRODUCER].fill(0);
        }
        at += batch.size_in_bytes();
    }
    settled.freeze()
}
