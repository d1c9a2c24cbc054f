//! A consumer's membership: joins, shares out as the leader, and tells the consumer what it may read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use towpath_types::{TopicName, TopicPartition};
use towpath_wire::messages::consumer_protocol as protocol;
use towpath_wire::{ApiKey, ConsumerProtocolAssignment, ConsumerProtocolSubscription, Decoder, Message};

use super::assignor::{self, Counts, Member};
use super::{
    Coordinator, GroupProtocol, JoinedMember, Membership, MembershipConfig, MembershipEvent,
    MembershipIdentity,
};
use crate::client::ClientInner;
use crate::consumer::{GroupEvent, Shared, Subscription};
use crate::metadata::TopicMeta;
use crate::{Assignor, ClientError, ConsumerConfig};

/// The version in which this member writes its subscription; older ones are read, too.
const SUBSCRIPTION_VERSION: i16 = 3;
/// The version in which the leader writes assignments.
const ASSIGNMENT_VERSION: i16 = 3;

/// What the task and the protocol's callbacks share.
#[derive(Debug, Default)]
struct Shares {
    topics: BTreeSet<TopicName>,
    owned: BTreeSet<TopicPartition>,
    generation: Option<i32>,
    /// The partition counts with which this member last shared out as the leader.
    counts: Option<Counts>,
}

/// The task behind a subscribed consumer.
pub(crate) struct ConsumerGroup {
    client: Arc<ClientInner>,
    config: Arc<ConsumerConfig>,
    consumer: Arc<Shared>,
    subscription: Subscription,
    shares: Arc<Mutex<Shares>>,
    membership: Membership,
    cooperative: bool,
}

impl ConsumerGroup {
    pub(crate) fn new(
        client: Arc<ClientInner>,
        config: Arc<ConsumerConfig>,
        coordinator: Arc<Coordinator>,
        consumer: Arc<Shared>,
        subscription: Subscription,
    ) -> Self {
        let shares = Arc::new(Mutex::new(Shares::default()));
        let assignors =
            if config.assignors.is_empty() { vec![Assignor::Range] } else { config.assignors.clone() };
        // As in Kafka: the cooperative protocol only when every assignor can follow it.
        let cooperative = assignors.iter().all(|assignor| *assignor == Assignor::CooperativeSticky);
        let membership = MembershipConfig {
            group_id: coordinator.group.clone(),
            group_instance_id: config.group_instance_id.clone(),
            session_timeout_ms: config.session_timeout_ms,
            rebalance_timeout_ms: config.max_poll_interval_ms,
            heartbeat_interval_ms: config.heartbeat_interval_ms,
        };
        let callbacks = ConsumerProtocol {
            client: Arc::clone(&client),
            shares: Arc::clone(&shares),
            assignors,
            rack: config.rack.clone(),
            auto_create: config.allow_auto_create_topics,
        };
        let membership = Membership::with_coordinator(coordinator, membership, Box::new(callbacks));
        Self { client, config, consumer, subscription, shares, membership, cooperative }
    }

    fn closed(&self) -> bool {
        self.consumer.closed.load(Ordering::Acquire)
    }

    /// Runs until the consumer is closed, or the group refuses it for good.
    pub(crate) async fn run(mut self) {
        let mut backoff = self.client.retry_backoff();
        while !self.closed() {
            if let Err(error) = self.refresh_topics().await {
                if !error.is_retriable() {
                    self.consumer.tell(GroupEvent::Failed(error));
                    return;
                }
                tracing::debug!(%error, "group member cannot refresh its topics");
                tokio::time::sleep(backoff.next()).await;
                continue;
            }
            break;
        }
        while !self.closed() {
            match self.step().await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    self.lose_everything();
                    if !error.is_retriable() {
                        self.consumer.tell(GroupEvent::Failed(error));
                        return;
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
        if self.config.group_instance_id.is_none() {
            self.membership.leave().await;
        }
    }

    /// Waits for one thing to happen, and reacts.
    async fn step(&mut self) -> Result<(), ClientError> {
        let refresh = Duration::from_millis(self.config.topic_refresh_ms.max(1));
        let consumer = Arc::clone(&self.consumer);
        let event = tokio::select! {
            event = self.membership.next() => event?,
            () = tokio::time::sleep(refresh) => {
                self.look_for_changes().await;
                return Ok(());
            }
            () = until_closed(&consumer) => return Ok(()),
            () = until_idle_for(&consumer, Duration::from_millis(self.config.max_poll_interval_ms)) => {
                return self.leave_until_polled().await;
            }
        };
        match event {
            MembershipEvent::Joined { identity, assignment, leader, .. } => {
                if !leader {
                    // Whether there is something else to share out is for the leader to see.
                    self.shares.lock().counts = None;
                }
                self.joined(identity, &assignment).await
            }
            MembershipEvent::Rebalancing => {
                if !self.cooperative {
                    let owned: Vec<_> = self.shares.lock().owned.iter().cloned().collect();
                    self.revoke(owned).await;
                }
                Ok(())
            }
            MembershipEvent::Lost(code) => {
                tracing::debug!(%code, "membership lost");
                self.lose_everything();
                Ok(())
            }
        }
    }

    async fn joined(&mut self, identity: MembershipIdentity, assignment: &Bytes) -> Result<(), ClientError> {
        let assigned = decode_assignment(assignment)?;
        let (added, revoked) = {
            let mut shares = self.shares.lock();
            shares.generation = Some(identity.generation.get());
            let added: Vec<_> = assigned.difference(&shares.owned).cloned().collect();
            let revoked: Vec<_> = shares.owned.difference(&assigned).cloned().collect();
            shares.owned.extend(added.iter().cloned());
            (added, revoked)
        };
        *self.consumer.identity.lock() = Some(identity);
        if !added.is_empty() {
            self.consumer.add(&added);
            self.consumer.tell(GroupEvent::Assigned(added));
        }
        if !revoked.is_empty() {
            self.revoke(revoked).await;
            // What was let go is given to others in the next generation (KIP-429).
            self.membership.request_rejoin();
        }
        Ok(())
    }

    /// Lets partitions go once the application has had its chance to commit.
    async fn revoke(&mut self, partitions: Vec<TopicPartition>) {
        if partitions.is_empty() {
            return;
        }
        let (answer, answered) = oneshot::channel();
        self.consumer.tell(GroupEvent::Revoked(partitions.clone(), answer));
        // A dropped sender is the answer: the application polled again, or closed.
        let patience = Duration::from_millis(self.config.max_poll_interval_ms);
        if tokio::time::timeout(patience, answered).await.is_err() {
            tracing::warn!("the application did not poll in time while partitions were revoked");
            self.consumer.remove(&partitions);
        }
        let mut shares = self.shares.lock();
        for partition in &partitions {
            shares.owned.remove(partition);
        }
    }

    /// R6: what this member had belongs to others.
    fn lose_everything(&mut self) {
        *self.consumer.identity.lock() = None;
        let owned: Vec<_> = {
            let mut shares = self.shares.lock();
            shares.generation = None;
            std::mem::take(&mut shares.owned).into_iter().collect()
        };
        if !owned.is_empty() {
            self.consumer.remove(&owned);
            self.consumer.tell(GroupEvent::Lost(owned));
        }
    }

    /// The application does not poll: whoever can process the partitions should have them.
    async fn leave_until_polled(&mut self) -> Result<(), ClientError> {
        tracing::warn!("no poll within max_poll_interval_ms: leaving the group until there is one");
        self.lose_everything();
        self.membership.leave().await;
        let left = tokio::time::Instant::now();
        while !self.closed() && *self.consumer.last_poll.lock() <= left {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Learns which topics the subscription means now; true when that has changed.
    async fn refresh_topics(&mut self) -> Result<bool, ClientError> {
        let topics: BTreeSet<TopicName> = match &self.subscription {
            Subscription::Topics(topics) => topics.iter().cloned().collect(),
            Subscription::Patterns(patterns) => {
                let matches = |name: &str| patterns.iter().any(|pattern| matches_pattern(pattern, name));
                matching(&self.client, matches).await?
            }
            Subscription::Regex(regex) => {
                // The whole name must match, as Kafka has it.
                let regex = regex::Regex::new(&format!("^(?:{regex})$"))
                    .map_err(|_| ClientError::Usage("the subscription is no regular expression"))?;
                matching(&self.client, |name| regex.is_match(name)).await?
            }
        };
        let mut shares = self.shares.lock();
        let changed = shares.topics != topics;
        shares.topics = topics;
        Ok(changed)
    }

    /// Joins again when the subscription's topics changed, or, as the leader, when partitions did.
    async fn look_for_changes(&mut self) {
        let mut changed = match self.refresh_topics().await {
            Ok(changed) => changed,
            Err(error) => {
                tracing::debug!(%error, "group member cannot refresh its topics");
                return;
            }
        };
        let counts = self.shares.lock().counts.clone();
        if let Some(before) = counts {
            let wanted: Vec<TopicName> = {
                let shares = self.shares.lock();
                before.keys().chain(&shares.topics).cloned().collect::<BTreeSet<_>>().into_iter().collect()
            };
            if let Ok(now) = partition_counts(&self.client, &wanted, false).await {
                changed |= now != before;
            }
        }
        if changed {
            if !self.cooperative {
                // Nobody reads on what somebody else may be given in the meantime.
                let owned: Vec<_> = self.shares.lock().owned.iter().cloned().collect();
                self.revoke(owned).await;
            }
            self.membership.request_rejoin();
        }
    }
}

pub(super) async fn until_closed(consumer: &Shared) {
    while !consumer.closed.load(Ordering::Acquire) {
        // Closing notifies; the pause bounds a notification that came in between.
        let _ = tokio::time::timeout(Duration::from_millis(250), consumer.news.notified()).await;
    }
}

pub(super) async fn until_idle_for(consumer: &Shared, limit: Duration) {
    loop {
        let due = *consumer.last_poll.lock() + limit;
        if due <= tokio::time::Instant::now() {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}

/// The topics of the cluster whose names match; internal ones do not.
async fn matching(
    client: &ClientInner,
    matches: impl Fn(&str) -> bool,
) -> Result<BTreeSet<TopicName>, ClientError> {
    let (response, _) = client.fetch_metadata(None, false).await?;
    let known = response.topics.into_iter().filter_map(|t| TopicMeta::from_wire(t, 0).ok());
    let matching = known.filter(|topic| !topic.internal && matches(topic.name.as_str()));
    Ok(matching.map(|topic| topic.name).collect())
}

/// The partition counts of the topics that exist.
async fn partition_counts(
    client: &ClientInner,
    topics: &[TopicName],
    auto_create: bool,
) -> Result<Counts, ClientError> {
    let cluster = client.refresh(topics, auto_create).await?;
    let count = |name: &TopicName| {
        let partitions = cluster.topics.get(name)?.partitions.len();
        Some((name.clone(), i32::try_from(partitions).ok()?))
    };
    Ok(topics.iter().filter_map(count).collect())
}

/// Whether a name matches a pattern of `*` (any characters) and `?` (one).
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What consumers say to each other (`ConsumerProtocol` of Apache Kafka).
struct ConsumerProtocol {
    client: Arc<ClientInner>,
    shares: Arc<Mutex<Shares>>,
    assignors: Vec<Assignor>,
    rack: Option<String>,
    auto_create: bool,
}

#[async_trait]
impl GroupProtocol for ConsumerProtocol {
    fn protocol_type(&self) -> &str {
        "consumer"
    }

    fn protocols(&mut self) -> Vec<(String, Bytes)> {
        let (topics, owned, generation) = {
            let shares = self.shares.lock();
            let topics: Vec<String> = shares.topics.iter().map(|topic| topic.as_str().to_owned()).collect();
            (topics, by_topic(&shares.owned), shares.generation.unwrap_or(-1))
        };
        let encoded = |assignor: &Assignor| {
            let sticky = *assignor == Assignor::CooperativeSticky;
            let subscription = ConsumerProtocolSubscription {
                topics: topics.clone(),
                // Where members without `generation_id` look for it.
                user_data: sticky.then(|| Bytes::copy_from_slice(&generation.to_be_bytes())),
                owned_partitions: owned.clone(),
                generation_id: generation,
                rack_id: self.rack.clone(),
            };
            let bytes = encode(&subscription, SUBSCRIPTION_VERSION).unwrap_or_default();
            (assignor.name().to_owned(), bytes)
        };
        self.assignors.iter().map(encoded).collect()
    }

    async fn assign(
        &mut self,
        protocol: &str,
        members: Vec<JoinedMember>,
    ) -> Result<Vec<(String, Bytes)>, ClientError> {
        let members = members.into_iter().map(decode_member).collect::<Result<Vec<_>, _>>()?;
        let topics: BTreeSet<TopicName> = members.iter().flat_map(|m| m.topics.iter().cloned()).collect();
        let topics: Vec<TopicName> = topics.into_iter().collect();
        let counts = partition_counts(&self.client, &topics, self.auto_create).await?;
        let assignment = if protocol == Assignor::CooperativeSticky.name() {
            assignor::cooperative_sticky(&members, &counts)
        } else {
            assignor::range(&members, &counts)
        };
        self.shares.lock().counts = Some(counts);
        let encoded = |(id, partitions): (String, Vec<TopicPartition>)| {
            let assigned_partitions = by_topic(&partitions.into_iter().collect());
            let assignment = ConsumerProtocolAssignment { assigned_partitions, user_data: None };
            Ok((id, encode(&assignment, ASSIGNMENT_VERSION)?))
        };
        assignment.into_iter().map(encoded).collect()
    }
}

fn by_topic(partitions: &BTreeSet<TopicPartition>) -> Vec<protocol::TopicPartition> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(partition.topic.as_str()).or_default().push(partition.partition);
    }
    let entry =
        |(topic, partitions): (&str, _)| protocol::TopicPartition { topic: topic.to_owned(), partitions };
    topics.into_iter().map(entry).collect()
}

fn from_topics(topics: Vec<protocol::TopicPartition>) -> Result<Vec<TopicPartition>, ClientError> {
    let mut partitions = Vec::new();
    for entry in topics {
        let topic = TopicName::new(&entry.topic)?;
        partitions.extend(entry.partitions.iter().map(|index| TopicPartition::new(topic.clone(), *index)));
    }
    Ok(partitions)
}

/// A message behind its version, as members write it.
fn encode<M: Message>(message: &M, version: i16) -> Result<Bytes, ClientError> {
    let mut buffer = BytesMut::new();
    buffer.put_i16(version);
    message.encode(&mut buffer, version).map_err(|source| ClientError::Encode {
        broker: "the group".into(),
        api: ApiKey::SyncGroup,
        source,
    })?;
    Ok(buffer.freeze())
}

/// Reads a message behind its version; what newer versions add comes last and is passed over.
fn decode<M: Message>(bytes: &Bytes) -> Result<M, ClientError> {
    let mut decoder = Decoder::new(bytes.clone());
    let read = |decoder: &mut Decoder| {
        let version = decoder.get_i16()?.clamp(M::VERSIONS.min, M::VERSIONS.max);
        M::decode(decoder, version)
    };
    read(&mut decoder).map_err(|source| ClientError::Decode {
        broker: "another group member".into(),
        api: ApiKey::JoinGroup,
        source,
    })
}

fn decode_assignment(bytes: &Bytes) -> Result<BTreeSet<TopicPartition>, ClientError> {
    if bytes.is_empty() {
        return Ok(BTreeSet::new());
    }
    let assignment: ConsumerProtocolAssignment = decode(bytes)?;
    Ok(from_topics(assignment.assigned_partitions)?.into_iter().collect())
}

fn decode_member(member: JoinedMember) -> Result<Member, ClientError> {
    let subscription: ConsumerProtocolSubscription = decode(&member.metadata)?;
    let in_user_data = subscription.user_data.as_ref().and_then(|bytes| bytes.first_chunk::<4>());
    let generation = match (subscription.generation_id, in_user_data) {
        (-1, Some(bytes)) => i32::from_be_bytes(*bytes),
        (generation, _) => generation,
    };
    let topics = subscription.topics.iter().map(|name| TopicName::new(name)).collect::<Result<_, _>>()?;
    Ok(Member {
        id: member.member_id,
        instance_id: member.group_instance_id,
        topics,
        owned: from_topics(subscription.owned_partitions)?,
        generation,
    })
}

/// The partitions of a member of a consumer group, out of what a broker describes.
pub(crate) fn describe_assignment(bytes: &Bytes) -> Vec<TopicPartition> {
    decode_assignment(bytes).unwrap_or_default().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("shop.public.*", "shop.public.orders", true),
            ("shop.public.*", "shop.publicorders", false),
            ("*", "anything", true),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXcYYb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn what_members_say_survives_the_way_and_newer_versions() {
        let topic = TopicName::new("t").unwrap();
        let owned: BTreeSet<_> = [TopicPartition::new(topic.clone(), 3)].into();
        let subscription = ConsumerProtocolSubscription {
            topics: vec!["t".into()],
            owned_partitions: by_topic(&owned),
            generation_id: 7,
            ..Default::default()
        };
        let mut bytes = BytesMut::from(&encode(&subscription, 3).unwrap()[..]);
        // A version from the future, with a field more at the end.
        bytes[1] = 4;
        bytes.put_i32(99);
        let member = decode_member(JoinedMember {
            member_id: "m".into(),
            group_instance_id: None,
            metadata: bytes.freeze(),
        })
        .unwrap();
        assert_eq!((member.generation, member.owned.len()), (7, 1));
        assert!(member.topics.contains(&topic));
    }

    #[test]
    fn the_generation_is_found_in_the_user_data_of_old_members() {
        let subscription = ConsumerProtocolSubscription {
            topics: vec![],
            user_data: Some(Bytes::from_static(&[0, 0, 0, 5])),
            ..Default::default()
        };
        let metadata = encode(&subscription, 1).unwrap();
        let member = JoinedMember { member_id: "m".into(), group_instance_id: None, metadata };
        assert_eq!(decode_member(member).unwrap().generation, 5);
    }
}
