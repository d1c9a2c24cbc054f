//! What the client must do on every cluster; the files beside this one choose the cluster.

mod admin;
mod consume;
mod groups;
mod produce;
mod raw;
mod reconciled;
mod shares;
mod transactions;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use towpath_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, NewTopic, Producer, ProducerConfig, ProducerRecord,
    StartAt,
};
use towpath_types::{TopicName, TopicPartition};

pub(crate) use admin::*;
pub(crate) use consume::*;
pub(crate) use groups::*;
pub(crate) use produce::*;
pub(crate) use raw::*;
pub(crate) use reconciled::*;
pub(crate) use shares::*;
pub(crate) use transactions::*;

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn connect(config: ClientConfig) -> Client {
    Client::connect(config).await.unwrap()
}

/// A new topic with a name of its own.
async fn topic(client: &Client, what: &str, partitions: i32) -> TopicName {
    topic_with(client, what, partitions, &[]).await
}

async fn topic_with(client: &Client, what: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicName {
    let name = TopicName::new(&format!("{what}-{:08x}", rand::random::<u32>())).unwrap();
    let mut new = NewTopic::new(name.clone());
    new.partitions = Some(partitions);
    new.replication_factor = Some(1);
    new.configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let created = client.admin().create_topics(&[new], false).await.unwrap();
    let id = created[&name].as_ref().unwrap();
    assert!(!id.is_zero());
    // A cluster may take a moment to know what it has created.
    let deadline = Instant::now() + PATIENCE;
    while client.admin().describe_topics(std::slice::from_ref(&name)).await.unwrap()[&name].is_err() {
        assert!(Instant::now() < deadline, "the new topic is not described");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    name
}

fn partitions(topic: &TopicName, count: i32) -> Vec<TopicPartition> {
    (0..count).map(|index| TopicPartition::new(topic.clone(), index)).collect()
}

/// Sends `count` records with their number as the value to one partition.
async fn fill(producer: &Producer, topic: &TopicName, partition: i32, count: u32) {
    for number in 0..count {
        let value = number.to_string();
        let record = ProducerRecord {
            partition: Some(partition),
            value: Some(value.as_bytes()),
            ..ProducerRecord::new(topic)
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
}

fn manual(client: &Client, from: &[(TopicPartition, StartAt)]) -> Consumer {
    let consumer = client.consumer(ConsumerConfig::default());
    consumer.assign(from).unwrap();
    consumer
}

/// Polls until `count` records are there; values as text, by partition.
async fn values(consumer: &Consumer, count: usize) -> BTreeMap<i32, Vec<String>> {
    let mut values: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < count {
        assert!(Instant::now() < deadline, "only {seen} of {count} records came");
        for batch in consumer.poll(Duration::from_millis(500)).await.unwrap() {
            for record in &batch {
                let value = record.unwrap().value.unwrap_or(b"null");
                let list = values.entry(batch.partition.partition).or_default();
                list.push(String::from_utf8(value.to_vec()).unwrap());
                seen += 1;
            }
        }
    }
    values
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn producer(client: &Client) -> Producer {
    client.producer(ProducerConfig::default())
}

/// Makes a test of every expectation; `$cluster` is a `fn() -> ClientConfig`.
#[macro_export]
macro_rules! suite {
    (one $cluster:path, [$($attribute:meta)?], $test:ident) => {
        $(#[$attribute])?
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let config = tokio::task::spawn_blocking($cluster).await.unwrap();
            let run = $crate::suite::$test($crate::suite::connect(config).await);
            tokio::time::timeout(std::time::Duration::from_secs(120), run).await.expect("the test hangs");
        }
    };
    ($cluster:path) => {
        $crate::suite! { $cluster, transactions }
        $crate::suite! { $cluster, []:
            every_compression_arrives_as_it_was,
            acks_tell_where_records_are,
            keys_go_where_kafka_puts_them,
            records_without_a_key_spread,
            a_small_buffer_slows_down_and_loses_nothing,
            weaker_acks_work,
            what_the_broker_refuses_is_reported_and_the_rest_goes_on,
            a_record_above_the_limit_is_refused_at_once,
            unknown_topics_and_partitions_are_errors,
            whole_batches_travel_raw,
            reading_starts_where_it_is_told,
            an_offset_that_does_not_exist_is_an_error_or_reset,
            the_end_of_the_log_is_told,
            a_recreated_topic_is_an_error,
            an_unknown_topic_is_reported_and_found_later,
            paused_partitions_keep_their_place,
            offsets_are_found_by_time_and_at_the_edges,
            little_memory_still_reads_everything,
            offsets_are_committed_and_resumed,
            range_members_share_and_take_over,
            cooperative_members_share_and_take_over,
            a_revoked_partition_can_be_committed_first,
            a_static_member_comes_back_without_a_rebalance,
            patterns_find_topics_that_come_later,
            a_fenced_commit_is_refused,
            topics_are_created_described_grown_and_deleted,
            configs_are_read_and_changed,
            records_are_deleted_and_offsets_listed,
            group_offsets_are_set_and_deleted,
            reconciled_members_share_and_take_over,
            a_reconciled_member_commits_before_it_lets_go,
            a_reconciled_static_member_keeps_its_place,
            expressions_find_topics_that_come_later,
            a_reconciled_member_commits_with_transactions,
            shared_records_are_accepted_by_polling_on,
            what_is_said_of_a_record_counts,
            what_is_not_acknowledged_is_given_back,
            members_share_the_records_of_one_partition,
            a_lock_ends_unless_it_is_renewed,
            a_record_is_given_out_so_often_and_no_more,
            compressed_and_transactional_records_are_shared,
            subscriptions_of_share_groups_change,
            a_share_consumer_that_cannot_be_a_member_says_so,
            share_groups_are_listed_described_and_moved,
            transactions_are_listed_described_and_fenced,
            a_transaction_is_aborted_past_its_coordinator,
            topics_grow_as_told_or_are_only_checked,
            groups_of_both_protocols_are_described_and_emptied,
        }
    };
    // What our own broker is to do, too, and cannot yet: when it can, these go to the list above.
    ($cluster:path, not_ours_yet $(, $attribute:meta)?) => {
        $crate::suite! { $cluster, [$($attribute)?]:
            acls_and_quotas_are_kept,
            configs_tell_where_they_come_from,
            features_and_log_directories_are_told,
        }
    };
    ($cluster:path, transactions) => {
        $crate::suite! { $cluster, []:
            a_transaction_is_seen_whole_or_not_at_all,
            many_transactions_follow_each_other,
            a_transaction_that_is_dropped_is_aborted,
            a_second_producer_fences_the_first,
            what_fails_in_a_transaction_aborts_it,
            offsets_are_committed_with_their_transaction,
            offsets_of_a_member_that_is_none_abort_the_transaction,
            wrong_settings_of_transactions_are_errors,
            a_transaction_that_takes_too_long_is_given_up,
            a_successor_shuts_out_who_wrote_before,
            a_producer_that_is_shut_out_stays_so,
            requests_on_their_way_keep_their_order,
        }
    };
    ($cluster:path, $attributes:tt: $($test:ident),* $(,)?) => {
        $($crate::suite! { one $cluster, $attributes, $test })*
    };
}
