//! A share consumer's membership in its group: drives [`super::member`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::watch;
use tokio::time::Instant;
use towpath_types::{TopicId, TopicName, TopicPartition};
use towpath_wire::messages::share_group_heartbeat::{
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use towpath_wire::{ApiKey, ErrorCode};

use super::member::{Beat, Member, Outcome};
use super::state::Place;
use super::{ShareConsumerConfig, Shared};
use crate::ClientError;
use crate::client::ClientInner;
use crate::group::Coordinator;

/// The epoch that says good-bye.
const LEAVE: i32 = -1;

type Beaten = Result<(ShareGroupHeartbeatResponse, Arc<str>), ClientError>;
type Names = HashMap<TopicId, TopicName>;

/// The task behind a share consumer that has subscribed.
pub(super) struct ShareGroup {
    client: Arc<ClientInner>,
    config: Arc<ShareConsumerConfig>,
    coordinator: Arc<Coordinator>,
    shared: Arc<Shared>,
    subscription: watch::Receiver<Vec<TopicName>>,
    member: Member,
    /// What the coordinator named last.
    target: BTreeSet<Place>,
    names: Names,
    beat: Option<BoxFuture<'static, Beaten>>,
    naming: Option<BoxFuture<'static, Result<Names, ClientError>>>,
    name_after: Instant,
}

/// What the task waits for.
enum Event {
    Beaten(Beaten),
    Named(Result<Names, ClientError>),
    Subscribed,
    Time,
    Closed,
    Idle,
}

impl ShareGroup {
    pub(super) fn new(
        client: Arc<ClientInner>,
        config: Arc<ShareConsumerConfig>,
        coordinator: Arc<Coordinator>,
        shared: Arc<Shared>,
        subscription: watch::Receiver<Vec<TopicName>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            member: Member::new(now, client.retry_backoff()),
            client,
            config,
            coordinator,
            shared,
            subscription,
            target: BTreeSet::new(),
            names: HashMap::new(),
            beat: None,
            naming: None,
            name_after: now,
        }
    }

    /// Runs until the consumer is closed, or the group refuses it for good. It gives back what it told the consumer with.
    pub(super) async fn run(mut self) -> Arc<Shared> {
        loop {
            self.act();
            match self.event().await {
                Event::Closed => break,
                Event::Idle => {
                    tracing::warn!(
                        "no poll within max_poll_interval_ms: leaving the group until there is one"
                    );
                    self.leave().await;
                    self.until_polled().await;
                }
                Event::Beaten(beaten) => {
                    if let Some(error) = self.beaten(beaten) {
                        self.assign(BTreeSet::new());
                        self.shared.refused(error);
                        return self.shared;
                    }
                }
                Event::Named(result) => self.named(result),
                Event::Subscribed if self.topics().is_empty() => {
                    self.leave().await;
                    self.until_subscribed().await;
                }
                Event::Subscribed => self.member.subscribed(Instant::now()),
                Event::Time => {}
            }
        }
        self.leave().await;
        self.shared
    }

    fn topics(&self) -> Vec<TopicName> {
        self.subscription.borrow().clone()
    }

    /// Does what is due.
    fn act(&mut self) {
        let now = Instant::now();
        if let Some(beat) = self.member.next(now) {
            let request = self.request(beat);
            let coordinator = Arc::clone(&self.coordinator);
            let limit = self.client.request_timeout();
            self.beat = Some(Box::pin(async move { coordinator.call(&request, i16::MAX, limit).await }));
        }
        if self.naming.is_none() && self.name_after <= now {
            let unknown = |(topic, _): &Place| (!self.names.contains_key(topic)).then_some(*topic);
            let unknown: BTreeSet<TopicId> = self.target.iter().filter_map(unknown).collect();
            if !unknown.is_empty() {
                let client = Arc::clone(&self.client);
                self.naming = Some(Box::pin(async move { client.names_of(&unknown).await }));
            }
        }
    }

    async fn event(&mut self) -> Event {
        let idle_after = Duration::from_millis(self.config.max_poll_interval_ms);
        // Also while nothing is due: names that were not found are asked for again.
        let latest = Instant::now() + Duration::from_millis(500);
        let wake_at = self.member.wake_at().map_or(latest, |at| at.min(latest));
        let beaten = OptionFuture::from(self.beat.as_mut());
        let named = OptionFuture::from(self.naming.as_mut());
        let event = tokio::select! {
            Some(beaten) = beaten => Event::Beaten(beaten),
            Some(named) = named => Event::Named(named),
            // It ends with the consumer, which says so.
            Ok(()) = self.subscription.changed() => Event::Subscribed,
            () = tokio::time::sleep_until(wake_at) => Event::Time,
            () = self.shared.until_closed() => Event::Closed,
            () = self.shared.until_idle_for(idle_after) => Event::Idle,
        };
        match event {
            Event::Beaten(_) => self.beat = None,
            Event::Named(_) => self.naming = None,
            _ => {}
        }
        event
    }

    fn request(&mut self, beat: Beat) -> ShareGroupHeartbeatRequest {
        let topics = beat.full.then(|| {
            let mut names: Vec<String> =
                self.subscription.borrow_and_update().iter().map(|it| it.as_str().to_owned()).collect();
            names.sort_unstable();
            names.dedup();
            names
        });
        ShareGroupHeartbeatRequest {
            group_id: self.coordinator.group.as_str().to_owned(),
            member_id: self.shared.member_id.to_string(),
            member_epoch: beat.epoch,
            rack_id: self.config.rack.clone().filter(|_| beat.full),
            subscribed_topic_names: topics,
        }
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
            self.member.answered(now, response.member_epoch, Duration::from_millis(interval));
            if let Some(assignment) = response.assignment {
                let of_topic = |topic: &towpath_wire::messages::share_group_heartbeat::TopicPartitions| {
                    let id = TopicId::new(topic.topic_id);
                    topic.partitions.iter().map(move |index| (id, *index)).collect::<Vec<_>>()
                };
                self.assign(assignment.topic_partitions.iter().flat_map(of_topic).collect());
            }
            return None;
        }
        let (message, api) = (response.error_message, ApiKey::ShareGroupHeartbeat);
        let group = self.coordinator.group.clone();
        tracing::debug!(%group, %code, "heartbeat refused");
        self.failed(now, code, || {
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
            // What it has been given stays: a record's lock is the leader's to judge, not the group's.
            Outcome::Lost => {
                self.assign(BTreeSet::new());
                None
            }
            Outcome::Refused => Some(error()),
        }
    }

    fn named(&mut self, result: Result<Names, ClientError>) {
        match result {
            Ok(names) => {
                self.names.extend(names);
                self.publish();
            }
            Err(error) => tracing::debug!(%error, "share group member cannot learn the names of topics"),
        }
        self.name_after = Instant::now() + Duration::from_millis(self.client.config.retry_backoff_ms);
    }

    fn assign(&mut self, target: BTreeSet<Place>) {
        self.names.retain(|id, _| target.iter().any(|(topic, _)| topic == id));
        self.target = target;
        self.publish();
    }

    /// Tells the consumer its partitions, as far as their names are known.
    fn publish(&self) {
        let named = |place: &Place| {
            let name = self.names.get(&place.0)?;
            Some((*place, Arc::new(TopicPartition::new(name.clone(), place.1))))
        };
        self.shared.assign(self.target.iter().filter_map(named).collect());
    }

    /// Says good-bye; a failure is left to the session timeout.
    async fn leave(&mut self) {
        self.assign(BTreeSet::new());
        // Who has only asked to join may be a member, too.
        let may_be_known = self.member.has_joined() || self.beat.take().is_some();
        self.beat = None;
        self.member.rejoin(Instant::now());
        if !may_be_known {
            return;
        }
        let request = self.request(Beat { epoch: LEAVE, full: false });
        match self.coordinator.call(&request, i16::MAX, self.client.request_timeout()).await {
            Ok((response, _)) if response.error_code == 0 => {}
            Ok((response, _)) => {
                let code = ErrorCode::from_code(response.error_code);
                tracing::debug!(group = %self.coordinator.group, %code, "could not leave the share group");
            }
            Err(error) => {
                tracing::debug!(group = %self.coordinator.group, %error, "could not leave the share group");
            }
        }
    }

    async fn until_polled(&mut self) {
        let left = Instant::now();
        while !self.shared.is_closed() && self.shared.last_poll() <= left {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_subscribed(&mut self) {
        while !self.shared.is_closed() && self.topics().is_empty() {
            tokio::select! {
                _ = self.subscription.changed() => {}
                () = self.shared.until_closed() => {}
            }
        }
    }
}
