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
//! - [`Consumer`]: manual assignment or a classic group, with prefetching.
//! - [`Admin`]: topics, configs, groups, offsets; brokers, replicas and the metadata quorum.
//! - [`RawClient`]: whole record batches in and out, without decompressing them.
//! - [`Membership`]: a group member with a protocol of its own (what workers need).
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
mod transport;

pub use admin::{
    AbortTransaction, Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, Admin,
    AlterConfig, BrokerInfo, ClusterDescription, ConfigEntry, ConfigResource, ConfigSource, ConfigSynonym,
    ConfigType, Election, FeatureDescription, FeatureUpdate, FeatureUpgrade, FeaturesDescription,
    GroupDescription, GroupListing, GroupMemberDescription, HangingTransaction, ListedOffset,
    LogDirDescription, LogDirReplica, MemberReconciliation, MemberToRemove, NewPartitions, NewTopic,
    OffsetSpec, PartitionDescription, PerItem, ProducerState, QuorumDescription, QuorumListener, QuorumNode,
    QuorumReplica, QuotaEntity, QuotaMatch, RaftVoter, Reassignment, TopicDescription, TopicListing,
    TransactionDescription, TransactionFilter, TransactionListing,
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
    Ack, ConsumerGroupMetadata, Ended, Producer, ProducerRecord, RecordMetadata, Transaction,
    TransactionalProducer,
};
pub use raw::{RawClient, RawFetch, RawFetched, RawProduced};
pub use towpath_record::{Codec, Compression, Header, Headers};
pub use towpath_wire::{ApiKey, ErrorCode};
pub use transport::{ByteStream, InProcessTransport, NearbyTransport, TcpTransport, Transport};
