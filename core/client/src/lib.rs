//! A Kafka client: producer, consumer, admin and raw record batches, over TCP or in process.
//!
//! It works against Towpath's own broker and any other cluster that speaks Kafka's protocol (Apache Kafka 4.x, …):
//! versions are negotiated per connection, metadata follows leader changes, broken connections are opened again
//! with backoff, and every buffer is bounded (R10).
//!
//! ```no_run
//! use std::time::Duration;
//! use towpath_client::{Client, ClientConfig, ConsumerConfig, ProducerConfig, ProducerRecord, StartAt};
//! use towpath_types::{TopicName, TopicPartition};
//!
//! # async fn example() -> Result<(), towpath_client::ClientError> {
//! let config = ClientConfig { bootstrap_servers: vec!["127.0.0.1:9092".to_owned()], ..Default::default() };
//! let client = Client::connect(config).await?;
//!
//! let topic = TopicName::new("greetings")?;
//! let producer = client.producer(ProducerConfig::default());
//! producer.send(ProducerRecord { value: Some(b"hello"), ..ProducerRecord::new(&topic) }).await?;
//! producer.flush().await?;
//!
//! let consumer = client.consumer(ConsumerConfig::default());
//! consumer.assign(&[(TopicPartition::new(topic, 0), StartAt::Earliest)])?;
//! for partition in consumer.poll(Duration::from_secs(5)).await? {
//!     for record in partition.records() {
//!         let record = record?;
//!         println!("{} {:?}", record.offset, record.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`]: connections and metadata, shared by everything made from it; cheap to clone.
//! - [`Producer`]: batches, linger, compression, idempotence, acks and barriers.
//! - [`TransactionalProducer`]: records of several partitions, and the offsets that they come from, all or nothing.
//! - [`Consumer`]: manual assignment, a classic group, or one of the consumer protocol (KIP-848), with prefetching.
//! - [`ShareConsumer`]: a member of a share group (KIP-932), which acknowledges record by record.
//! - [`Admin`]: topics, configs, groups, offsets, transactions, ACLs, quotas; brokers, replicas and the metadata quorum.
//! - [`RawClient`]: whole record batches in and out, without decompressing them.
//! - [`Membership`]: a group member with a protocol of its own (what workers need).
//!
//! # A group
//! Positions are committed by the application, when it has processed what it read. Partitions that are about to go to
//! another member are announced, so that it can commit them first.
//!
//! ```no_run
//! use std::collections::BTreeMap;
//! use std::time::Duration;
//! use towpath_client::{Client, ClientError, ConsumerConfig, ConsumerEvent, GroupKind, OffsetReset, Subscription};
//! use towpath_types::GroupId;
//!
//! # async fn example(client: Client) -> Result<(), ClientError> {
//! let consumer = client.consumer(ConsumerConfig {
//!     group_id: Some(GroupId::new("billing")?),
//!     // The coordinator shares out; `Classic` is what every cluster has.
//!     group_protocol: GroupKind::Consumer,
//!     auto_offset_reset: OffsetReset::Earliest,
//!     ..Default::default()
//! });
//! consumer.subscribe(Subscription::Regex("orders-.*".to_owned()))?;
//! let mut done = BTreeMap::new();
//! loop {
//!     match consumer.poll_event(Duration::from_secs(1)).await? {
//!         ConsumerEvent::Records(batches) => {
//!             for batch in batches {
//!                 for record in batch.records() {
//!                     println!("{:?}", record?.value);
//!                 }
//!                 done.insert((*batch.partition).clone(), batch.next_offset);
//!             }
//!             consumer.commit(&done).await?;
//!         }
//!         ConsumerEvent::Revoked(partitions) => {
//!             consumer.commit(&done).await?;
//!             done.retain(|partition, _| !partitions.contains(partition));
//!         }
//!         ConsumerEvent::Lost(partitions) => done.retain(|partition, _| !partitions.contains(partition)),
//!         ConsumerEvent::Assigned(_) => {}
//!     }
//! }
//! # }
//! ```
//!
//! # A share group
//! The members of a share group (KIP-932) share the records themselves: each is with one of them at a time, for as long as
//! its lock lasts. What is released, or not acknowledged in time, is given out again, until it was delivered too often.
//!
//! ```no_run
//! use std::time::Duration;
//! use towpath_client::{Acknowledgement, AcknowledgementMode, Client, ClientError, ShareConsumerConfig};
//! use towpath_types::{GroupId, TopicName};
//!
//! # fn works(_: Option<&[u8]>) -> bool { true }
//! # async fn example(client: Client) -> Result<(), ClientError> {
//! let consumer = client.share_consumer(ShareConsumerConfig {
//!     // `Implicit`, the default, accepts with each poll all that the last one returned.
//!     acknowledgement_mode: AcknowledgementMode::Explicit,
//!     ..ShareConsumerConfig::new(GroupId::new("mailing")?)
//! });
//! consumer.subscribe(&[TopicName::new("mails")?])?;
//! loop {
//!     for part in consumer.poll(Duration::from_secs(1)).await? {
//!         for record in &part {
//!             let record = record?;
//!             let said = match works(record.value) {
//!                 true => Acknowledgement::Accept,
//!                 false if record.delivery_count < 3 => Acknowledgement::Release,
//!                 false => Acknowledgement::Reject,
//!             };
//!             // An error: its lock has ended meanwhile, and somebody is given it again.
//!             let _ = consumer.acknowledge(&part.partition, record.offset, said);
//!         }
//!     }
//!     // What was said travels with the next poll; a commit waits until it is stored.
//!     for (partition, result) in consumer.commit().await? {
//!         if let Err(error) = result {
//!             eprintln!("{partition}: {error}; its records may come again");
//!         }
//!     }
//! }
//! # }
//! ```
//! Where a group begins in a topic, and for how long it locks records, are configurations of the group
//! (`share.auto.offset.reset`, `share.record.lock.duration.ms`; [`Admin::incremental_alter_configs`] sets them).
//!
//! # Exactly once from topic to topic
//! A transaction commits what was written together with how far was read. Whoever reads the output with
//! [`IsolationLevel::ReadCommitted`] sees every input record's effect once, whatever is killed in between.
//!
//! ```no_run
//! use std::time::Duration;
//! use towpath_client::{Client, ClientError, Consumer, ProducerRecord, StartAt, TransactionConfig};
//! use towpath_types::TopicName;
//!
//! # async fn example(client: Client, consumer: Consumer) -> Result<(), ClientError> {
//! let output = TopicName::new("invoices")?;
//! let producer = client.transactional_producer(TransactionConfig::new("billing-7")).await?;
//! loop {
//!     // `consumer` reads with `IsolationLevel::ReadCommitted`, and commits nothing itself.
//!     let batches = consumer.poll(Duration::from_secs(1)).await?;
//!     let transaction = producer.begin().await?;
//!     for batch in &batches {
//!         for record in batch.records() {
//!             let invoice = record?.value;
//!             transaction.send(ProducerRecord { value: invoice, ..ProducerRecord::new(&output) }).await?;
//!         }
//!     }
//!     let read = batches.iter().map(|it| ((*it.partition).clone(), it.next_offset.into())).collect();
//!     let taken = match consumer.group_metadata() {
//!         Ok(group) => transaction.send_offsets(&read, &group).await,
//!         Err(error) => Err(error),
//!     };
//!     let ended = match taken {
//!         Ok(()) => transaction.commit().await,
//!         Err(error) => transaction.abort().await.and(Err(error)),
//!     };
//!     match ended {
//!         Ok(()) => {}
//!         Err(error) if error.is_fatal() => return Err(error),
//!         // Nothing of it counts: read again from where the last transaction ended.
//!         Err(_) => {
//!             for partition in consumer.assignment() {
//!                 consumer.seek(&partition, StartAt::Committed)?;
//!             }
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! # Errors
//! Every [`ClientError`] names the broker, the request and Kafka's error code where there is one, and three questions
//! sort them: [`ClientError::is_retriable`] (the same call may succeed later), [`ClientError::is_abortable`] (abort the
//! transaction, and do it again), [`ClientError::is_fatal`] (this producer or member is done). What heals by itself,
//! such as a leader that moves, is retried without a word. [`ClientError::hint`] is for people.
//!
//! # Metrics
//! Producers, consumers, share consumers and connections count through the `metrics` facade ([`metrics`] has the names): whoever
//! installs a recorder sees them, and [`describe_metrics`] tells it what they mean.
#![forbid(unsafe_code)]

mod admin;
mod backoff;
mod client;
mod config;
mod connection;
mod consumer;
mod coordinator;
mod error;
mod group;
mod metadata;
pub mod metrics;
mod offsets;
mod partitioner;
mod producer;
mod raw;
mod share;
mod transport;

pub use admin::{
    AbortTransaction, Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, Admin,
    AlterConfig, BrokerInfo, ClusterDescription, ConfigEntry, ConfigResource, ConfigSource, ConfigSynonym,
    ConfigType, Election, FeatureDescription, FeatureUpdate, FeatureUpgrade, FeaturesDescription,
    GroupDescription, GroupListing, GroupMemberDescription, HangingTransaction, ListedOffset,
    LogDirDescription, LogDirReplica, MemberReconciliation, MemberToRemove, NewPartitions, NewTopic,
    OffsetSpec, PartitionDescription, PerItem, ProducerState, QuorumDescription, QuorumListener, QuorumNode,
    QuorumReplica, QuotaEntity, QuotaMatch, RaftVoter, Reassignment, ShareGroupOffset, TopicDescription,
    TopicListing, TransactionDescription, TransactionFilter, TransactionListing,
};
pub use client::Client;
pub use config::{
    Acks, Assignor, ClientConfig, ConsumerConfig, GroupKind, IsolationLevel, OffsetReset, ProducerConfig,
    TransactionConfig,
};
pub use consumer::{
    CommittedOffset, Consumer, ConsumerEvent, OffsetAndTimestamp, PartitionRecords, Record, RecordsIter,
    StartAt, Subscription,
};
pub use error::ClientError;
pub use group::{
    GroupProtocol, JoinedMember, Membership, MembershipConfig, MembershipEvent, MembershipIdentity,
};
pub use metrics::describe_metrics;
pub use partitioner::murmur2;
pub use producer::{
    Ack, ConsumerGroupMetadata, Ended, Fence, Fenced, Producer, ProducerRecord, RecordMetadata, Transaction,
    TransactionalProducer,
};
pub use raw::{AbortedTransaction, PendingProduce, RawClient, RawFetch, RawFetched, RawProduced};
pub use share::{
    Acknowledgement, AcknowledgementMode, AcquireMode, ShareConsumer, ShareConsumerConfig, ShareRecord,
    ShareRecords, ShareRecordsIter,
};
pub use towpath_record::{Codec, Compression, Header, Headers};
pub use towpath_wire::{ApiKey, ErrorCode};
pub use transport::{ByteStream, InProcessTransport, NearbyTransport, TcpTransport, Transport};
