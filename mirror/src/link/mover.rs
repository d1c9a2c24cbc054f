//! Moves the batches of some partitions: fetches them from the source, and sends what their flows say.
//!
//! Two fetches are on their way at a time, for partitions that are not the same, so that the line is busy while the
//! answer to one is worked on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use towpath_client::{
    ClientError, ErrorCode, IsolationLevel, PendingProduce, RawClient, RawFetch, RawFetched, RawProduced,
};
use towpath_record::edit;
use towpath_types::{Offset, ProducerId, TopicPartition};

use super::LinkError;
use super::pacer::Pacer;
use super::provenance::Provenance;
use super::state::{self, Store};
use super::status::{Progress, now_ms};
use crate::flow::{Command, Flow, Outgoing};
use crate::translate::{Piece, Translator};

/// Fetches that are on their way at a time.
const FETCHES_MAX: usize = 2;
/// Bytes of one partition that were fetched and not acknowledged, past which it is not fetched from (R10).
const WINDOW_BYTES: usize = 8 << 20;
/// Bytes that one fetch asks of one partition, and of all together.
const PARTITION_BYTES: usize = 4 << 20;
const FETCH_BYTES: usize = 16 << 20;
/// Bytes of one produce request, but for a single larger batch.
const REQUEST_BYTES: usize = 1 << 20;
/// How long a fetch waits at the source when there is nothing new.
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// How often the map of a partition that moves is stored, and after how many bytes.
const MAP_EVERY: Duration = Duration::from_secs(5);
const MAP_BYTES: usize = 64 << 20;
/// After an error that may heal by itself.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// One partition with everything about it.
pub(crate) struct Moved {
    pub(crate) source: TopicPartition,
    pub(crate) target: TopicPartition,
    pub(crate) flow: Flow,
    pub(crate) progress: Arc<Progress>,
    /// Where the name does not tell where a record comes from.
    provenance: Option<Arc<Provenance>>,
    translator: Translator,
    pace: Pace,
}

/// When a partition may do what.
#[derive(Debug, Default)]
struct Pace {
    fetching: bool,
    /// Nothing is fetched, or sent, before.
    fetch_after: Option<Instant>,
    send_after: Option<Instant>,
    failures: u32,
    map_at: Option<Instant>,
    bytes_since_map: usize,
    /// It stands still for good.
    stopped: bool,
}

impl Pace {
    fn backoff(&mut self) -> Instant {
        let delay = BACKOFF.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        Instant::now() + delay
    }
}

type FetchAnswer = Result<Vec<(TopicPartition, Result<RawFetched, ClientError>)>, ClientError>;
type Produced = Vec<(TopicPartition, Result<RawProduced, ClientError>)>;

/// What was asked of the source, and when (ms since 1970).
struct Asked {
    partitions: Vec<TopicPartition>,
    at_ms: i64,
}

/// What has happened.
enum Event {
    Fetched(Asked, RawClient, Result<FetchAnswer, LinkError>),
    Produced(Vec<(TopicPartition, u64)>, Produced),
    Stored(TopicPartition, u64, Result<(), ClientError>),
}

/// See the module.
pub(crate) struct Mover {
    /// By the source's name; the target's leads there.
    parts: BTreeMap<TopicPartition, Moved>,
    sources: BTreeMap<TopicPartition, TopicPartition>,
    /// Clients that no fetch waits on: each fetch has connections of its own.
    fetchers: Vec<RawClient>,
    target: RawClient,
    store: Store,
    provenance: Option<Arc<Provenance>>,
    pacer: Arc<Pacer>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    /// Whose turn it is to be fetched first.
    next: Option<TopicPartition>,
}

impl Mover {
    pub(crate) fn new(
        source: impl Fn() -> RawClient,
        target: RawClient,
        store: Store,
        provenance: Option<Arc<Provenance>>,
        pacer: Arc<Pacer>,
    ) -> Self {
        Self {
            parts: BTreeMap::new(),
            sources: BTreeMap::new(),
            fetchers: (0..FETCHES_MAX).map(|_| source()).collect(),
            target,
            store,
            provenance,
            pacer,
            events: FuturesUnordered::new(),
            next: None,
        }
    }

    /// Runs until it is told to stop, or until something ends the whole link.
    pub(crate) async fn run(
        mut self,
        mut more: mpsc::Receiver<Moved>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        loop {
            self.pump().await?;
            self.fetch();
            let wake = self.wake_at();
            tokio::select! {
                Some(part) = more.recv() => self.add(part),
                event = self.events.next(), if !self.events.is_empty() => {
                    if let Some(event) = event {
                        self.take(event)?;
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    fn add(&mut self, part: Moved) {
        self.sources.insert(part.target.clone(), part.source.clone());
        self.parts.insert(part.source.clone(), part);
    }

    /// When somebody's pause ends, at the latest in a while.
    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let pauses = self.parts.values().flat_map(|part| [part.pace.fetch_after, part.pace.send_after]);
        pauses
            .chain([self.pacer.not_before(now)])
            .flatten()
            .filter(|at| *at > now)
            .min()
            .unwrap_or(now + MAP_EVERY)
            .min(now + MAP_EVERY)
    }

    /// Does what the flows want done.
    async fn pump(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        let mut rounds: Vec<Vec<(TopicPartition, Outgoing)>> = Vec::new();
        for part in self.parts.values_mut() {
            part.progress.give_map(part.flow.map());
            if part.pace.stopped || part.pace.send_after.is_some_and(|at| at > now) {
                continue;
            }
            part.pace.send_after = None;
            if part.pace.map_at.is_some_and(|at| at <= now) || part.pace.bytes_since_map > MAP_BYTES {
                (part.pace.map_at, part.pace.bytes_since_map) = (None, 0);
                part.flow.want_map();
            }
            let mut round = 0;
            while let Some(command) = part.flow.next_command() {
                match command {
                    Command::Send(outgoing) => {
                        if rounds.len() <= round {
                            rounds.push(Vec::new());
                        }
                        if let Some(round) = rounds.get_mut(round) {
                            round.push((part.target.clone(), outgoing));
                        }
                        round += 1;
                    }
                    Command::StoreMap(number, map) => {
                        let value = Bytes::from(map.encode());
                        self.events.push(keep(self.store.clone(), state::MAP, part, number, value));
                    }
                    Command::StorePosition(number, position) => {
                        let value = Bytes::from(position.encode());
                        self.events.push(keep(self.store.clone(), state::POSITION, part, number, value));
                    }
                }
            }
        }
        for round in rounds {
            self.send(round).await?;
        }
        Ok(())
    }

    /// Sends one batch of each of some partitions.
    async fn send(&mut self, round: Vec<(TopicPartition, Outgoing)>) -> Result<(), LinkError> {
        let mut request = Vec::new();
        let mut bytes = 0;
        for (target, outgoing) in round {
            if bytes > 0 && bytes + outgoing.bytes.len() > REQUEST_BYTES {
                self.request(std::mem::take(&mut request)).await?;
                bytes = 0;
            }
            bytes += outgoing.bytes.len();
            request.push((target, outgoing));
        }
        self.request(request).await
    }

    async fn request(&mut self, batches: Vec<(TopicPartition, Outgoing)>) -> Result<(), LinkError> {
        let mut tickets = Vec::with_capacity(batches.len());
        let mut adopted = Vec::with_capacity(batches.len());
        for (target, outgoing) in batches {
            let mut bytes = BytesMut::from(&outgoing.bytes[..]);
            let lane = outgoing.lane;
            edit::adopt(&mut bytes, lane.producer_id, lane.epoch, outgoing.base_sequence)
                .map_err(|error| LinkError::Batch { partition: target.clone(), error: Arc::new(error) })?;
            tickets.push((target.clone(), outgoing.ticket));
            adopted.push((target, bytes.freeze()));
        }
        let (pending, failed) = self.target.begin_produce(adopted).await;
        for pending in pending {
            let mine: Vec<_> = {
                let partitions: Vec<_> = pending.partitions().collect();
                tickets.iter().filter(|(target, _)| partitions.contains(&target)).cloned().collect()
            };
            let target = self.target.clone();
            self.events.push(Box::pin(answer(target, pending, mine)));
        }
        if !failed.is_empty() {
            self.target.refresh_after(failed.iter().map(|(partition, error)| (partition, error))).await;
            let failed: Produced =
                failed.into_iter().map(|(partition, error)| (partition, Err(error))).collect();
            let named = |target: &TopicPartition| failed.iter().any(|(partition, _)| partition == target);
            let mine = tickets.iter().filter(|(target, _)| named(target)).cloned().collect();
            self.produced(mine, failed)?;
        }
        Ok(())
    }

    /// Fetches from the partitions that have room, if a client is free.
    fn fetch(&mut self) {
        let now = Instant::now();
        if self.pacer.not_before(now).is_some() {
            return;
        }
        while let Some(client) = self.fetchers.pop() {
            let wants = |part: &Moved| {
                !part.pace.stopped
                    && !part.pace.fetching
                    && part.flow.bytes() < WINDOW_BYTES
                    && part.pace.fetch_after.is_none_or(|at| at <= now)
            };
            let from = self.next.clone();
            let later = self.parts.iter().filter(|(name, _)| from.as_ref().is_none_or(|from| *name >= from));
            let earlier =
                self.parts.iter().filter(|(name, _)| from.as_ref().is_some_and(|from| *name < from));
            let ready: Vec<(TopicPartition, Offset)> = later
                .chain(earlier)
                .filter(|(_, part)| wants(part))
                .map(|(name, part)| (name.clone(), part.flow.fetch_from()))
                .collect();
            // Half of them, so that the other half can be on its way while these are worked on.
            let busy = self.fetchers.len() + 1 < FETCHES_MAX;
            let count = if busy || ready.len() < FETCHES_MAX {
                ready.len()
            } else {
                ready.len().div_ceil(FETCHES_MAX)
            };
            if count == 0 {
                self.fetchers.push(client);
                return;
            }
            let chosen: Vec<_> = ready.into_iter().take(count).collect();
            self.next = chosen.last().map(|(last, _)| last.clone());
            for (name, _) in &chosen {
                if let Some(part) = self.parts.get_mut(name) {
                    part.pace.fetching = true;
                }
            }
            let bytes_max = self.pacer.at_a_time(FETCH_BYTES);
            self.events.push(Box::pin(fetch(client, chosen, bytes_max, self.provenance.clone())));
        }
    }

    fn take(&mut self, event: Event) -> Result<(), LinkError> {
        match event {
            Event::Fetched(asked, client, answer) => {
                self.fetchers.push(client);
                self.fetched(&asked, answer?);
                Ok(())
            }
            Event::Produced(tickets, results) => self.produced(tickets, results),
            Event::Stored(_, _, Err(error)) => Err(LinkError::state(error)),
            Event::Stored(name, number, Ok(())) => {
                if let Some(part) = self.parts.get_mut(&name) {
                    part.flow.stored(number);
                }
                Ok(())
            }
        }
    }

    fn fetched(&mut self, asked: &Asked, answer: FetchAnswer) {
        for name in &asked.partitions {
            if let Some(part) = self.parts.get_mut(name) {
                part.pace.fetching = false;
            }
        }
        let results = match answer {
            Ok(results) => results,
            Err(error) => asked.partitions.iter().map(|name| (name.clone(), Err(error.clone()))).collect(),
        };
        for (name, result) in results {
            let Some(part) = self.parts.get_mut(&name) else { continue };
            match result {
                Ok(fetched) => {
                    self.pacer.spend(fetched.batches.len(), Instant::now());
                    part.fetched(&fetched, asked.at_ms);
                }
                Err(error) => part.fetch_failed(error),
            }
        }
    }

    fn produced(
        &mut self,
        tickets: Vec<(TopicPartition, u64)>,
        mut results: Produced,
    ) -> Result<(), LinkError> {
        for (target, ticket) in tickets {
            let at = results.iter().position(|(partition, _)| *partition == target);
            let result = at.map(|at| results.swap_remove(at).1);
            let Some(part) = self.sources.get(&target).and_then(|source| self.parts.get_mut(source)) else {
                continue;
            };
            part.produced(ticket, result.unwrap_or(Err(ClientError::Closed)))?;
        }
        Ok(())
    }
}

async fn fetch(
    client: RawClient,
    partitions: Vec<(TopicPartition, Offset)>,
    bytes_max: usize,
    provenance: Option<Arc<Provenance>>,
) -> Event {
    let asked =
        Asked { partitions: partitions.iter().map(|(name, _)| name.clone()).collect(), at_ms: now_ms() };
    let fetch = RawFetch {
        partitions,
        wait_max: FETCH_WAIT,
        bytes_min: 1,
        bytes_max,
        partition_bytes_max: PARTITION_BYTES.min(bytes_max),
        isolation_level: IsolationLevel::ReadCommitted,
    };
    let answer = client.fetch(&fetch).await;
    let learnt = match (&provenance, &answer) {
        (Some(provenance), Ok(results)) => {
            provenance.learn(results.iter().filter_map(|(_, result)| result.as_ref().ok())).await
        }
        _ => Ok(()),
    };
    Event::Fetched(asked, client, learnt.map(|()| answer))
}

async fn answer(target: RawClient, pending: PendingProduce, tickets: Vec<(TopicPartition, u64)>) -> Event {
    let results = pending.answer().await;
    let failed = results.iter().filter_map(|(partition, result)| Some((partition, result.as_ref().err()?)));
    target.refresh_after(failed).await;
    Event::Produced(tickets, results)
}

fn keep(store: Store, what: &str, part: &Moved, number: u64, value: Bytes) -> BoxFuture<'static, Event> {
    let name = part.source.clone();
    let key = state::key(what, &name);
    Box::pin(async move {
        let stored = store.put(key, value).await;
        Event::Stored(name, number, stored)
    })
}

impl Moved {
    pub(crate) fn new(
        source: TopicPartition,
        target: TopicPartition,
        flow: Flow,
        progress: Arc<Progress>,
        provenance: Option<Arc<Provenance>>,
    ) -> Self {
        Self {
            source,
            target,
            flow,
            progress,
            provenance,
            translator: Translator::default(),
            pace: Pace::default(),
        }
    }

    fn fetched(&mut self, fetched: &RawFetched, asked_at_ms: i64) {
        let end = fetched.last_stable_offset.unwrap_or(fetched.high_watermark);
        self.progress.source_end(end, asked_at_ms);
        let from = self.flow.fetch_from();
        let pieces = match self.translator.take(from, &fetched.batches, &fetched.aborted) {
            Ok(pieces) => pieces,
            Err(error) => return self.stop(error.to_string()),
        };
        self.pace.failures = 0;
        self.pace.fetch_after = None;
        if pieces.is_empty() && !fetched.batches.is_empty() {
            // Only a part of a batch: the next answer has to be larger, which brokers see to by themselves.
            self.pace.fetch_after = Some(self.pace.backoff());
        }
        let lanes = match self.lanes(&pieces) {
            Ok(lanes) => lanes,
            Err(problem) => return self.stop(problem),
        };
        self.flow.fetched(pieces, |piece| lanes.get(&piece.producer_id).copied().unwrap_or(Some(0)));
        self.progress.through(self.flow.map().through());
    }

    /// The lanes of those that wrote these pieces; `None` for what came from the target.
    fn lanes(&mut self, pieces: &[Piece]) -> Result<BTreeMap<ProducerId, Option<u8>>, String> {
        let mut lanes = BTreeMap::new();
        let Some(provenance) = &self.provenance else { return Ok(lanes) };
        for piece in pieces.iter().filter(|piece| piece.copy.is_some()) {
            if let Entry::Vacant(entry) = lanes.entry(piece.producer_id) {
                entry.insert(match provenance.lane(piece.producer_id) {
                    None => None,
                    Some(lane) => {
                        Some(self.flow.lane(lane).ok_or("its records come from more than 256 clusters")?)
                    }
                });
            }
        }
        Ok(lanes)
    }

    /// R7: an offset that does not exist upstream any more stops the partition loudly.
    fn fetch_failed(&mut self, error: ClientError) {
        match &error {
            ClientError::Broker { code: ErrorCode::OffsetOutOfRange, .. } => {
                let from = self.flow.fetch_from();
                self.stop(format!(
                    "the source has no offset {from} of {} any more: records were deleted before they were mirrored, or \
                     its log was truncated",
                    self.source
                ));
            }
            error if error.is_retriable() => {
                self.progress.problem(&error.to_string());
                self.pace.fetch_after = Some(self.pace.backoff());
            }
            error => self.stop(error.to_string()),
        }
    }

    fn produced(&mut self, ticket: u64, result: Result<RawProduced, ClientError>) -> Result<(), LinkError> {
        let wrong = |error| LinkError::Flow { partition: self.target.clone(), error };
        let error = match result {
            Ok(produced) => {
                let known = produced.base_offset.get() >= 0;
                let bytes = self.flow.acked(ticket, known.then_some(produced.base_offset)).map_err(wrong)?;
                self.moved(bytes);
                return Ok(());
            }
            Err(error) => error,
        };
        let code = match &error {
            ClientError::Broker { code, .. } => Some(*code),
            _ => None,
        };
        match code {
            Some(ErrorCode::DuplicateSequenceNumber) => {
                let bytes = self.flow.acked(ticket, None).map_err(wrong)?;
                self.moved(bytes);
            }
            Some(ErrorCode::InvalidProducerEpoch | ErrorCode::ProducerFenced) => {
                return Err(LinkError::Fenced);
            }
            Some(ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId) => {
                if self.flow.is_first(ticket) {
                    return Err(LinkError::Lost { partition: self.target.clone() });
                }
                // What is before it was not taken, and it goes again with that.
                self.flow.failed(ticket).map_err(wrong)?;
            }
            _ => {
                let retriable = error.is_retriable();
                self.flow.failed(ticket).map_err(wrong)?;
                if retriable {
                    self.progress.problem(&error.to_string());
                    self.pace.send_after = Some(self.pace.backoff());
                } else {
                    self.stop(error.to_string());
                }
            }
        }
        Ok(())
    }

    /// Something was acknowledged.
    fn moved(&mut self, bytes: usize) {
        self.pace.failures = 0;
        self.pace.bytes_since_map += bytes;
        self.pace.map_at.get_or_insert_with(|| Instant::now() + MAP_EVERY);
        self.progress.moved(self.flow.map().through(), bytes);
    }

    fn stop(&mut self, problem: String) {
        tracing::error!(source = %self.source, target = %self.target, problem, "a partition is not mirrored any more");
        self.pace.stopped = true;
        self.progress.stopped(problem);
    }
}
