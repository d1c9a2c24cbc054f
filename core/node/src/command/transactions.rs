//! `towpath transactions`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use towpath_client::{AbortTransaction, Admin, ProducerState, TransactionFilter};
use towpath_types::{ProducerId, TopicName, TopicPartition};

use super::connection::{all_done, connect, sorted_out, topic_names};
use crate::cli::{HangingArgument, Transactions};
use crate::failure::Failure;
use crate::output::Listing;

pub(super) async fn run(command: Transactions, json: bool) -> Result<(), Failure> {
    match command {
        Transactions::List { cluster, states, older_than } => {
            let filter = TransactionFilter {
                states,
                longer_than: older_than.map(minutes),
                ..TransactionFilter::default()
            };
            list(&connect(&cluster.bootstrap_server).await?.admin(), &filter, json).await
        }
        Transactions::Describe { cluster, ids } => {
            describe(&connect(&cluster.bootstrap_server).await?.admin(), &ids, json).await
        }
        Transactions::Producers { cluster, topics, open } => {
            let admin = connect(&cluster.bootstrap_server).await?.admin();
            producers(&admin, &topic_names(&topics)?, open, json).await
        }
        Transactions::Hanging { cluster, topics, older_than } => {
            let admin = connect(&cluster.bootstrap_server).await?.admin();
            hanging(&admin, topic_names(&topics)?, minutes(older_than), json).await
        }
        Transactions::Abort { cluster, ids, hanging } => {
            let admin = connect(&cluster.bootstrap_server).await?.admin();
            match hanging {
                HangingArgument { partition: Some(named), producer_id: Some(id) } => {
                    let index = named.partition.ok_or_else(|| {
                        Failure::new(format!("which partition of {}?", named.topic))
                            .with_hint("write TOPIC:0")
                    })?;
                    let partition = TopicPartition::new(named.topic, index);
                    abort_hanging(&admin, &partition, ProducerId::new(id), json).await
                }
                _ => abort(&admin, &ids, json).await,
            }
        }
    }
}

fn minutes(count: u32) -> Duration {
    Duration::from_secs(60 * u64::from(count))
}

/// Seconds since a time (ms since 1970).
fn seconds_since(ms: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_millis()).unwrap_or(i64::MAX) - ms).max(0) / 1_000
}

async fn list(admin: &Admin, filter: &TransactionFilter, json: bool) -> Result<(), Failure> {
    let mut listing = Listing::new(&[
        ("TRANSACTIONAL ID", "transactional_id"),
        ("STATE", "state"),
        ("PRODUCER", "producer_id"),
    ]);
    for transaction in admin.list_transactions(filter).await? {
        listing.row(vec![
            json!(transaction.transactional_id),
            json!(transaction.state),
            json!(transaction.producer_id.get()),
        ]);
    }
    listing.print(json)
}

async fn describe(admin: &Admin, ids: &[String], json: bool) -> Result<(), Failure> {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (described, failed) = sorted_out(admin.describe_transactions(&ids).await?);
    let mut listing = Listing::new(&[
        ("TRANSACTIONAL ID", "transactional_id"),
        ("STATE", "state"),
        ("PRODUCER", "producer_id"),
        ("EPOCH", "producer_epoch"),
        ("COORDINATOR", "coordinator"),
        ("TIMEOUT s", "timeout_s"),
        ("OPEN FOR s", "open_for_s"),
        ("PARTITIONS", "partitions"),
    ]);
    for (id, it) in described {
        let partitions: Vec<String> = it.partitions.iter().map(ToString::to_string).collect();
        listing.row(vec![
            json!(id),
            json!(it.state),
            json!(it.producer_id.get()),
            json!(it.producer_epoch.get()),
            json!(it.coordinator),
            json!(it.timeout_ms / 1_000),
            json!(it.start_ms.map(seconds_since)),
            json!(partitions),
        ]);
    }
    listing.print(json)?;
    failed
}

/// All partitions of topics.
async fn partitions(admin: &Admin, topics: &[TopicName]) -> Result<Vec<TopicPartition>, Failure> {
    let described = all_done(admin.describe_topics(topics).await?)?;
    let all = described.into_iter().flat_map(|(name, topic)| {
        topic.partitions.into_iter().map(move |it| TopicPartition::new(name.clone(), it.partition))
    });
    Ok(all.collect())
}

async fn producers(admin: &Admin, topics: &[TopicName], open: bool, json: bool) -> Result<(), Failure> {
    let partitions = partitions(admin, topics).await?;
    let (described, failed) = sorted_out(admin.describe_producers(&partitions, None).await?);
    let mut listing = Listing::new(&[
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("PRODUCER", "producer_id"),
        ("EPOCH", "producer_epoch"),
        ("LAST SEQUENCE", "last_sequence"),
        ("LAST RECORD s AGO", "last_record_s_ago"),
        ("TRANSACTION BEGINS", "transaction_start"),
    ]);
    for (at, producers) in described {
        for it in producers.iter().filter(|it| !open || it.transaction_start.is_some()) {
            listing.row(vec![
                json!(at.topic.as_str()),
                json!(at.partition),
                json!(it.producer_id.get()),
                json!(it.producer_epoch),
                json!(it.last_sequence),
                json!(it.last_timestamp_ms.map(seconds_since)),
                json!(it.transaction_start.map(towpath_types::Offset::get)),
            ]);
        }
    }
    listing.print(json)?;
    failed
}

async fn hanging(
    admin: &Admin,
    mut topics: Vec<TopicName>,
    longer_than: Duration,
    json: bool,
) -> Result<(), Failure> {
    if topics.is_empty() {
        topics = admin.list_topics().await?.into_iter().map(|topic| topic.name).collect();
    }
    let partitions = partitions(admin, &topics).await?;
    let mut listing = Listing::new(&[
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("PRODUCER", "producer_id"),
        ("EPOCH", "producer_epoch"),
        ("BEGINS", "begin_offset"),
        ("LAST RECORD s AGO", "last_record_s_ago"),
        ("ABORT IT", "command"),
    ]);
    for it in admin.find_hanging_transactions(&partitions, longer_than).await? {
        let (at, id) = (&it.abort.partition, it.abort.producer_id);
        let (topic, index) = (at.topic.as_str(), at.partition);
        listing.row(vec![
            json!(topic),
            json!(index),
            json!(id.get()),
            json!(it.abort.producer_epoch),
            json!(it.start.get()),
            json!(seconds_since(it.last_timestamp_ms)),
            json!(format!("towpath transactions abort --partition {topic}:{index} --producer-id {id}")),
        ]);
    }
    listing.print(json)
}

async fn abort(admin: &Admin, ids: &[String], json: bool) -> Result<(), Failure> {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    // Who never had a transaction is not to get an id by being aborted.
    let (known, unknown) = sorted_out(admin.describe_transactions(&ids).await?);
    let known: Vec<&str> = known.iter().map(|(id, _)| id.as_str()).collect();
    let (done, failed) = sorted_out(admin.fence_producers(&known).await?);
    let mut listing = Listing::new(&[("TRANSACTIONAL ID", "transactional_id")]);
    for (id, _) in done {
        listing.row(vec![json!(id)]);
    }
    listing.tell_done("aborted and fenced", json)?;
    unknown.and(failed)
}

async fn abort_hanging(
    admin: &Admin,
    partition: &TopicPartition,
    id: ProducerId,
    json: bool,
) -> Result<(), Failure> {
    let described = all_done(admin.describe_producers(std::slice::from_ref(partition), None).await?)?;
    let open = described
        .into_iter()
        .flat_map(|(_, producers)| producers)
        .find(|it: &ProducerState| it.producer_id == id && it.transaction_start.is_some());
    let Some(open) = open else {
        return Err(Failure::new(format!("producer {id} has no open transaction in {partition}"))
            .with_hint("`towpath transactions producers TOPIC --open` shows what is open"));
    };
    let abort = AbortTransaction {
        partition: partition.clone(),
        producer_id: id,
        producer_epoch: i16::try_from(open.producer_epoch).unwrap_or(i16::MAX),
        coordinator_epoch: open.coordinator_epoch.unwrap_or(-1),
    };
    admin.abort_transaction(&abort).await?;
    let mut listing = Listing::new(&[("PARTITION", "partition"), ("PRODUCER", "producer_id")]);
    listing.row(vec![Json::from(partition.to_string()), json!(id.get())]);
    listing.tell_done("aborted", json)
}
