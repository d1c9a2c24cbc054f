//! A consumer's membership in the consumer protocol (KIP-848): drives [`super::member`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::oneshot;
use tokio::time::Instant;
use towpath_types::{GenerationId, TopicId, TopicName, TopicPartition};
use towpath_wire::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use towpath_wire::{ApiKey, ErrorCode};

use super::consumer::{until_closed, until_idle_for};
use super::member::{Answer, Beat, Member, Outcome, Partitions, Step};
use super::{Coordinator, MembershipIdentity};
use crate::client::ClientInner;
use crate::consumer::{GroupEvent, Shared, Subscription};
use crate::{ClientError, ConsumerConfig};

/// The epochs that say good-bye: for good, or of a static member that comes back.
const LEAVE: i32 = -1;
const LEAVE_STATIC: i32 = -2;

type Beaten = Result<(ConsumerGroupHeartbeatResponse, Arc<str>), ClientError>;

/// Partitions that are being let go, and what is taken afterwards.
struct Revoking {
    answered: oneshot::Receiver<()>,
    until: Instant,
    revoke: Partitions,
    assign: Partitions,
}

/// The task behind a consumer that subscribed in the consumer protocol.
pub(crate) struct ReconciledGroup {
    client: Arc<ClientInner>,
    config: Arc<ConsumerConfig>,
    coordinator: Arc<Coordinator>,
    consumer: Arc<Shared>,
    subscription: Subscription,
    /// The member gives itself an id, for all of its life (KIP-1082).
    member_id: Arc<str>,
    member: Member,
    names: HashMap<TopicId, TopicName>,
    beat: Option<BoxFuture<'static, Beaten>>,
    revoking: Option<Revoking>,
    naming: Option<BoxFuture<'static, Result<HashMap<TopicId, TopicName>, ClientError>>>,
    name_after: Instant,
}

/// What the task waits for.
enum Event {
    Beaten(Beaten),
    /// The application has seen a revocation, or has not polled in time.
    Revoked,
    Named(Result<HashMap<TopicId, TopicName>, ClientError>),
    Time,
    Closed,
    Idle,
}

impl ReconciledGroup {
    pub(crate) fn new(
        client: Arc<ClientInner>,
        config: Arc<ConsumerConfig>,
        coordinator: Arc<Coordinator>,
        consumer: Arc<Shared>,
        subscription: Subscription,
    ) -> Self {
        let now = Instant::now();
        let session_timeout = Duration::from_millis(config.session_timeout_ms);
        Self {
            member: Member::new(now, session_timeout, client.retry_backoff()),
            member_id: Arc::from(uuid::Uuid::new_v4().to_string()),
            client,
            config,
            coordinator,
            consumer,
            subscription,
            names: HashMap::new(),
            beat: None,
            revoking: None,
            naming: None,
            name_after: now,
        }
    }

    /// Runs until the consumer is closed, or the group refuses it for good.
    pub(crate) async fn run(mut self) {
        loop {
            self.act();
            let event = self.event().await;
            let refused = match event {
                Event::Closed => break,
                Event::Idle => {
                    self.leave_until_polled().await;
                    None
                }
                Event::Beaten(beaten) => self.beaten(beaten),
                Event::Revoked => {
                    if let Some(Revoking { revoke, assign, .. }) = self.revoking.take() {
                        self.reconcile(&revoke, &assign);
                    }
                    None
                }
                Event::Named(result) => {
                    self.named(result);
                    None
                }
                Event::Time => None,
            };
            if let Some(error) = refused {
                self.lose_everything();
                self.consumer.tell(GroupEvent::Failed(error));
                return;
            }
        }
        self.leave().await;
    }

    /// Does what is due.
    fn act(&mut self) {
        let now = Instant::now();
        loop {
            let names = &self.names;
            match self.member.next(now, |topic| names.contains_key(&topic)) {
                Some(Step::Beat(beat)) => self.send(beat),
                Some(Step::Reconcile { revoke, assign }) if revoke.is_empty() => {
                    self.reconcile(&revoke, &assign);
                }
                Some(Step::Reconcile { revoke, assign }) => self.revoke(revoke, assign),
                None => break,
            }
        }
        if self.naming.is_none() && self.name_after <= now {
            let names = &self.names;
            let unknown = self.member.unknown(|topic| names.contains_key(&topic));
            if !unknown.is_empty() {
                let client = Arc::clone(&self.client);
                self.naming = Some(Box::pin(async move { client.names_of(&unknown).await }));
            }
        }
    }

    async fn event(&mut self) -> Event {
        let consumer = Arc::clone(&self.consumer);
        let idle_after = Duration::from_millis(self.config.max_poll_interval_ms);
        let wake_at = self.wake_at();
        let beaten = OptionFuture::from(self.beat.as_mut());
        let named = OptionFuture::from(self.naming.as_mut());
        let revoking = self.revoking.as_mut();
        let revoked = OptionFuture::from(revoking.map(|revoking| async {
            // A dropped sender is the answer: the application polled again, or closed.
            if tokio::time::timeout_at(revoking.until, &mut revoking.answered).await.is_err() {
                tracing::warn!("the application did not poll in time while partitions were revoked");
            }
        }));
        let event = tokio::select! {
            Some(beaten) = beaten => Event::Beaten(beaten),
            Some(()) = revoked => Event::Revoked,
            Some(named) = named => Event::Named(named),
            () = tokio::time::sleep_until(wake_at) => Event::Time,
            () = until_closed(&consumer) => Event::Closed,
            () = until_idle_for(&consumer, idle_after) => Event::Idle,
        };
        match event {
            Event::Beaten(_) => self.beat = None,
            Event::Named(_) => self.naming = None,
            _ => {}
        }
        event
    }

    fn wake_at(&self) -> Instant {
        // Also while nothing is due: names that were not found are asked for again.
        let latest = Instant::now() + Duration::from_millis(500);
        self.member.wake_at().map_or(latest, |at| at.min(latest))
    }

    fn send(&mut self, beat: Beat) {
        let request = self.request(&beat);
        let coordinator = Arc::clone(&self.coordinator);
        let limit = self.client.request_timeout().min(Duration::from_millis(self.config.session_timeout_ms));
        self.beat = Some(Box::pin(async move { coordinator.call(&request, i16::MAX, limit).await }));
    }

    fn request(&self, beat: &Beat) -> ConsumerGroupHeartbeatRequest {
        let mut request = ConsumerGroupHeartbeatRequest {
            group_id: self.coordinator.group.as_str().to_owned(),
            member_id: self.member_id.to_string(),
            member_epoch: beat.epoch,
            instance_id: self.config.group_instance_id.clone(),
            topic_partitions: beat.owned.as_ref().map(by_topic),
            ..Default::default()
        };
        if beat.full {
            request.rack_id = self.config.rack.clone();
            request.rebalance_timeout_ms =
                i32::try_from(self.config.max_poll_interval_ms).unwrap_or(i32::MAX);
            request.server_assignor = self.config.remote_assignor.clone();
            match &self.subscription {
                Subscription::Topics(topics) => {
                    let mut names: Vec<_> = topics.iter().map(|topic| topic.as_str().to_owned()).collect();
                    names.sort_unstable();
                    request.subscribed_topic_names = Some(names);
                }
                Subscription::Patterns(patterns) => request.subscribed_topic_regex = Some(as_regex(patterns)),
                Subscription::Regex(regex) => request.subscribed_topic_regex = Some(regex.clone()),
            }
        }
        request
    }

    /// Takes the answer to a heartbeat; an error when there will be no membership.
    fn beaten(&mut self, beaten: Beaten) -> Option<ClientError> {
        let now = Instant::now();
        let (response, broker) = match beaten {
            Ok(beaten) => beaten,
            Err(error) if error.is_retriable() => {
                tracing::debug!(group = %self.coordinator.group, %error, "heartbeat failed");
                let code = error.code().unwrap_or(ErrorCode::NetworkException);
                return self.failed(now, code, || error);
            }
            Err(error) => return Some(error),
        };
        let code = ErrorCode::from_code(response.error_code);
        self.coordinator.note(code);
        if code == ErrorCode::None {
            let interval = u64::try_from(response.heartbeat_interval_ms).unwrap_or(0).max(1);
            self.member.answered(
                now,
                Answer {
                    epoch: response.member_epoch,
                    interval: Duration::from_millis(interval),
                    assignment: response.assignment.map(|given| from_topics(&given.topic_partitions)),
                },
            );
            self.publish();
            return None;
        }
        let (message, api) = (response.error_message, ApiKey::ConsumerGroupHeartbeat);
        let group = self.coordinator.group.clone();
        tracing::debug!(%group, %code, "heartbeat refused");
        self.failed(now, code, || {
            if matches!(code, ErrorCode::FencedInstanceId | ErrorCode::UnreleasedInstanceId) {
                return ClientError::MembershipLost { group: group.as_str().into(), code };
            }
            let (subject, message) = (group.as_str().into(), message.map(String::into_boxed_str));
            ClientError::Broker { code, api, broker, subject, message }
        })
    }

    fn failed(
        &mut self,
        now: Instant,
        code: ErrorCode,
        error: impl FnOnce() -> ClientError,
    ) -> Option<ClientError> {
        match self.member.failed(now, code) {
            Outcome::Member => None,
            Outcome::Lost(owned) => {
                self.lose(&owned);
                None
            }
            Outcome::Refused(_) => Some(error()),
        }
    }

    /// Tells the consumer who the member is now.
    fn publish(&self) {
        let identity = self.member.epoch().map(|epoch| MembershipIdentity {
            generation: GenerationId::new(epoch),
            member_id: Arc::clone(&self.member_id),
            group_instance_id: self.config.group_instance_id.as_deref().map(Arc::from),
        });
        *self.consumer.identity.lock() = identity;
    }

    fn named(&mut self, result: Result<HashMap<TopicId, TopicName>, ClientError>) {
        match result {
            Ok(names) => self.names.extend(names),
            Err(error) => tracing::debug!(%error, "group member cannot learn the names of topics"),
        }
        self.name_after = Instant::now() + Duration::from_millis(self.client.config.retry_backoff_ms);
    }

    fn partitions(&self, ids: &Partitions) -> Vec<TopicPartition> {
        let named = |(topic, index): &(TopicId, i32)| {
            Some(TopicPartition::new(self.names.get(topic)?.clone(), *index))
        };
        ids.iter().filter_map(named).collect()
    }

    /// Lets partitions go once the application has had its chance to commit.
    fn revoke(&mut self, revoke: Partitions, assign: Partitions) {
        let (answer, answered) = oneshot::channel();
        self.consumer.tell(GroupEvent::Revoked(self.partitions(&revoke), answer));
        let until = Instant::now() + Duration::from_millis(self.config.max_poll_interval_ms);
        self.revoking = Some(Revoking { answered, until, revoke, assign });
    }

    fn reconcile(&mut self, revoke: &Partitions, assign: &Partitions) {
        let gone = self.partitions(revoke);
        if !gone.is_empty() {
            self.consumer.remove(&gone);
        }
        let added = self.partitions(assign);
        if !added.is_empty() {
            self.consumer.add(&added);
            self.consumer.tell(GroupEvent::Assigned(added));
        }
        self.member.reconciled(Instant::now(), revoke, assign);
    }

    /// R6: what this member had belongs to others.
    fn lose(&mut self, owned: &Partitions) {
        self.revoking = None;
        *self.consumer.identity.lock() = None;
        let lost = self.partitions(owned);
        if !lost.is_empty() {
            self.consumer.remove(&lost);
            self.consumer.tell(GroupEvent::Lost(lost));
        }
    }

    fn lose_everything(&mut self) {
        let owned = self.member.rejoin(Instant::now());
        self.lose(&owned);
    }

    /// The application does not poll: whoever can process the partitions should have them.
    async fn leave_until_polled(&mut self) {
        tracing::warn!("no poll within max_poll_interval_ms: leaving the group until there is one");
        self.beat = None;
        self.lose_everything();
        self.leave().await;
        let left = Instant::now();
        while !self.consumer.is_closed() && *self.consumer.last_poll.lock() <= left {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.lose_everything();
    }

    async fn leave(&mut self) {
        leave(&self.coordinator, &self.member_id, self.config.group_instance_id.as_deref()).await;
    }
}

/// Says good-bye; a failure is left to the session timeout. A static member keeps its partitions for that long.
pub(crate) async fn leave(coordinator: &Coordinator, member_id: &str, instance_id: Option<&str>) {
    let request = ConsumerGroupHeartbeatRequest {
        group_id: coordinator.group.as_str().to_owned(),
        member_id: member_id.to_owned(),
        member_epoch: if instance_id.is_some() { LEAVE_STATIC } else { LEAVE },
        instance_id: instance_id.map(str::to_owned),
        ..Default::default()
    };
    let limit = coordinator.client.request_timeout();
    match coordinator.call(&request, i16::MAX, limit).await {
        Ok((response, _)) if response.error_code == 0 => {}
        Ok((response, _)) => {
            let code = ErrorCode::from_code(response.error_code);
            tracing::debug!(group = %coordinator.group, %code, "could not leave the group");
        }
        Err(error) => tracing::debug!(group = %coordinator.group, %error, "could not leave the group"),
    }
}

/// Patterns of `*` and `?` as one regular expression.
fn as_regex(patterns: &[String]) -> String {
    let one = |pattern: &String| {
        let mut regex = String::with_capacity(pattern.len() + 8);
        for letter in pattern.chars() {
            match letter {
                '*' => regex.push_str(".*"),
                '?' => regex.push('.'),
                letter if letter.is_alphanumeric() || matches!(letter, '_' | '-') => regex.push(letter),
                letter => {
                    regex.push('\\');
                    regex.push(letter);
                }
            }
        }
        regex
    };
    patterns.iter().map(one).collect::<Vec<_>>().join("|")
}

fn by_topic(partitions: &Partitions) -> Vec<TopicPartitions> {
    let mut topics: Vec<TopicPartitions> = Vec::new();
    for (topic, index) in partitions {
        match topics.last_mut().filter(|entry| entry.topic_id == topic.get()) {
            Some(entry) => entry.partitions.push(*index),
            None => topics.push(TopicPartitions { topic_id: topic.get(), partitions: vec![*index] }),
        }
    }
    topics
}

fn from_topics(topics: &[TopicPartitions]) -> Partitions {
    let parts = |entry: &TopicPartitions| {
        let topic = TopicId::new(entry.topic_id);
        entry.partitions.iter().map(move |index| (topic, *index)).collect::<Vec<_>>()
    };
    topics.iter().flat_map(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_one_expression() {
        let patterns = ["shop.public.*".to_owned(), "a?c".to_owned()];
        assert_eq!(as_regex(&patterns), r"shop\.public\..*|a.c");
    }

    #[test]
    fn partitions_survive_the_way() {
        let topic = |number| TopicId::new(uuid::Uuid::from_u128(number));
        let partitions: Partitions = [(topic(1), 0), (topic(1), 3), (topic(2), 0)].into();
        assert_eq!(by_topic(&partitions).len(), 2);
        assert_eq!(from_topics(&by_topic(&partitions)), partitions);
    }
}
