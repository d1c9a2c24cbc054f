//! The task behind a share consumer: keeps its sessions with the leaders as [`super::state`] has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use towpath_wire::ApiKey;

use super::state::{Order, Peer, Source, Step, Told};
use super::wire::{acknowledge_request, fetch_request, of_acknowledge, of_fetch};
use super::{ShareConsumerConfig, Shared};
use crate::ClientError;
use crate::client::{Channel, ClientInner};
use crate::connection::Connection;
use crate::metadata::Cluster;

/// The first versions that renew locks and bound records strictly (KIP-1222, KIP-1206).
const SHARE_VERSION_2: i16 = 2;

enum Event {
    Connected(i32, Result<Connection, ClientError>),
    /// The node, the order, and who answered.
    Answered(i32, u64, Arc<str>, Result<Told, ClientError>),
    Refreshed(Result<Arc<Cluster>, ClientError>),
}

pub(super) struct Driver {
    client: Arc<ClientInner>,
    config: Arc<ShareConsumerConfig>,
    shared: Arc<Shared>,
    channel: Arc<Channel>,
    connections: HashMap<i32, (Connection, Peer)>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    is_refreshing: bool,
    refresh_after: Option<Instant>,
    refresh_due: Instant,
    /// A leader turned out not to be one: ask, although all leaders are known.
    suspicious: bool,
}

impl Driver {
    pub(super) fn new(
        client: Arc<ClientInner>,
        config: Arc<ShareConsumerConfig>,
        shared: Arc<Shared>,
    ) -> Self {
        let max_age = Duration::from_millis(client.config.metadata_max_age_ms);
        Self {
            channel: Arc::new(client.channel()),
            client,
            config,
            shared,
            connections: HashMap::new(),
            events: FuturesUnordered::new(),
            is_refreshing: false,
            refresh_after: None,
            refresh_due: Instant::now() + max_age,
            suspicious: false,
        }
    }

    /// Runs until the consumer is closed and its sessions have ended, or a broker takes too long for that.
    pub(super) async fn run(mut self) {
        let mut close_by: Option<Instant> = None;
        loop {
            if self.shared.is_closed() && close_by.is_none() {
                self.shared.state.lock().close();
                close_by = Some(Instant::now() + self.client.request_timeout());
            }
            let wake_at = self.step();
            if close_by.is_some_and(|at| at <= Instant::now()) || self.shared.state.lock().is_closed() {
                break;
            }
            tokio::select! {
                biased;
                Some(event) = self.events.next() => self.handle(event),
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(close_by.map_or(wake_at, |at| at.min(wake_at))) => {}
            }
        }
        self.shared.ended();
    }

    /// Does what is due; when to look again.
    fn step(&mut self) -> Instant {
        let now = Instant::now();
        let cluster = self.client.cluster();
        self.notice_ends(now);
        let (is_stale, topics, steps, wake_at, has_news) = {
            let mut state = self.shared.state.lock();
            let is_stale = state.follow(&cluster);
            let connections = &self.connections;
            let steps = state.next(now, |node| connections.get(&node).map(|(_, peer)| peer.clone()));
            (is_stale, state.topics(), steps, state.wake_at(now), state.has_news())
        };
        if has_news {
            self.shared.news.notify_waiters();
        }
        for step in steps {
            match step {
                Step::Connect(node) => {
                    let channel = Arc::clone(&self.channel);
                    self.events.push(Box::pin(async move {
                        Event::Connected(node, channel.connection(node).await)
                    }));
                }
                Step::Send(order) => self.send(order, now),
            }
        }
        let max_age = Duration::from_millis(self.client.config.metadata_max_age_ms);
        if topics.is_empty() && now >= self.refresh_due {
            self.refresh_due = now + max_age;
        }
        let is_due = now >= self.refresh_due || self.suspicious || is_stale;
        if is_due
            && !self.is_refreshing
            && !topics.is_empty()
            && self.refresh_after.is_none_or(|at| at <= now)
        {
            self.is_refreshing = true;
            self.suspicious = false;
            self.refresh_due = now + max_age;
            let client = Arc::clone(&self.client);
            self.events.push(Box::pin(async move { Event::Refreshed(client.refresh(&topics, false).await) }));
        }
        let next = wake_at.into_iter().chain(self.refresh_after).filter(|at| *at > now);
        next.fold(self.refresh_due.max(now + Duration::from_millis(1)), Instant::min)
    }

    /// A session ends with its connection.
    fn notice_ends(&mut self, now: Instant) {
        let ended: Vec<i32> =
            self.connections.iter().filter(|(_, (it, _))| !it.is_open()).map(|(node, _)| *node).collect();
        for node in ended {
            if let Some((connection, _)) = self.connections.remove(&node) {
                self.suspicious = true;
                self.shared.state.lock().broken(node, now, &connection.disconnected());
                self.shared.news.notify_waiters();
            }
        }
    }

    fn send(&mut self, order: Order, now: Instant) {
        let (node, id) = (order.node, order.id);
        let Some((connection, _)) = self.connections.get(&node) else { return };
        let broker = Arc::clone(connection.broker());
        let limit = self.client.request_timeout();
        let client = Arc::clone(&self.client);
        let member_id = &*self.shared.member_id;
        let api = if order.fetch.is_some() { ApiKey::ShareFetch } else { ApiKey::ShareAcknowledge };
        let version = connection.version_of(api);
        let answer: BoxFuture<'static, Result<Told, ClientError>> = match (&order.fetch, version) {
            (_, Err(error)) => Box::pin(async move { Err(error) }),
            (Some(fetch), Ok(version)) => {
                let request = fetch_request(&self.config, member_id, &order, fetch);
                let in_flight = connection.begin(&request, version);
                let limit = limit + Duration::from_millis(self.config.fetch_wait_ms_max);
                let seconds = self.shared.metrics.seconds.clone();
                Box::pin(async move {
                    let response = in_flight?.answer(limit).await?;
                    seconds.record(now.elapsed());
                    Ok(of_fetch(&client, response))
                })
            }
            (None, Ok(version)) => {
                let request = acknowledge_request(&self.config, member_id, &order);
                let in_flight = connection.begin(&request, version);
                Box::pin(async move { Ok(of_acknowledge(&client, in_flight?.answer(limit).await?)) })
            }
        };
        self.events.push(Box::pin(async move { Event::Answered(node, id, broker, answer.await) }));
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Connected(node, Ok(connection)) => {
                let knows = |api| connection.version_of(api).is_ok_and(|it| it >= SHARE_VERSION_2);
                let peer = Peer {
                    broker: Arc::clone(connection.broker()),
                    may_renew: knows(ApiKey::ShareAcknowledge),
                    may_limit: knows(ApiKey::ShareFetch),
                };
                self.connections.insert(node, (connection, peer));
                self.shared.state.lock().connected(node, now, true);
            }
            Event::Connected(node, Err(error)) => {
                tracing::debug!(%error, "share consumer cannot connect");
                self.suspicious = true;
                self.shared.state.lock().connected(node, now, false);
            }
            Event::Answered(node, id, ..) if !self.shared.state.lock().is_current(node, id) => {}
            Event::Answered(node, _, broker, Ok(told)) => {
                let bytes: usize = told.partitions.iter().map(|it| it.records.len()).sum();
                let metrics = &self.shared.metrics;
                metrics.bytes.increment(bytes as u64);
                let mut state = self.shared.state.lock();
                self.suspicious |= state.answered(&Source { node, broker: &broker, now }, told);
                metrics.buffer.set(state.buffered() as f64);
                metrics.failures.increment(std::mem::take(&mut state.failures));
            }
            Event::Answered(node, _, _, Err(error)) => {
                tracing::debug!(%error, "share session broken");
                self.suspicious |= error.wants_metadata();
                if error.is_network() {
                    // Whatever still comes over it belongs to a session that has ended.
                    self.connections.remove(&node);
                }
                let mut state = self.shared.state.lock();
                state.broken(node, now, &error);
                if !error.is_retriable() {
                    state.fail(error);
                }
            }
            Event::Refreshed(result) => {
                self.is_refreshing = false;
                if let Err(error) = result {
                    tracing::debug!(%error, "share consumer cannot refresh metadata");
                    self.suspicious = true;
                }
                self.refresh_after = Some(now + Duration::from_millis(self.client.config.retry_backoff_ms));
            }
        }
        self.shared.news.notify_waiters();
    }
}
