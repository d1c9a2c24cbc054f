//! The state of a transactional producer (KIP-98, KIP-360, KIP-890); pure: calls to coordinators come out, their
//! answers go in. Partitions are known by the numbers of their queues.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use towpath_types::{ProducerEpoch, ProducerId, TopicPartition};
use towpath_wire::ErrorCode;

use super::ConsumerGroupMetadata;
use crate::ClientError;
use crate::backoff::Backoff;
use crate::consumer::CommittedOffset;

/// How soon the first partition of a transaction is added again while the one before is being completed, as in Kafka.
const ADD_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Who the producer is.
pub(in crate::producer) type Identity = (ProducerId, ProducerEpoch);

/// Offsets to be committed with a transaction.
pub(in crate::producer) type Offsets = BTreeMap<TopicPartition, CommittedOffset>;

/// What a coordinator is to be asked. One call is made at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::producer) enum Call {
    /// Asks for the first identity, or for the next epoch of one.
    Init { identity: Option<Identity> },
    /// Adds partitions to the transaction.
    AddPartitions { identity: Identity, queues: Vec<usize> },
    /// Adds a group's offsets to the transaction.
    AddOffsets { identity: Identity, group: Arc<ConsumerGroupMetadata> },
    /// Hands offsets to the group's coordinator.
    CommitOffsets { identity: Identity, group: Arc<ConsumerGroupMetadata>, offsets: Arc<Offsets>, v2: bool },
    /// Commits or aborts.
    End { identity: Identity, commit: bool, v2: bool },
}

/// What became of a call.
#[derive(Debug)]
pub(in crate::producer) enum Answer {
    /// Of a call about one thing; the identity is that of Init, and of End under the second version.
    One(ErrorCode, Option<Identity>),
    /// Of AddPartitions, by queue.
    Queues(Vec<(usize, ErrorCode)>),
    /// Of CommitOffsets.
    Offsets(Vec<(TopicPartition, ErrorCode)>),
    /// There was none.
    Failed(ClientError),
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its records are visible, its offsets are committed.
    Committed,
    /// Nobody who reads committed records sees anything of it.
    Aborted,
}

#[derive(Debug, Clone)]
enum State {
    /// An identity, or the next epoch, is being asked for.
    Initializing,
    /// No transaction.
    Ready,
    /// A transaction takes records.
    Open,
    /// The transaction failed, and the application has not ended it yet.
    Failed(ClientError),
    /// It is being ended.
    Ending { commit: bool },
    /// Nothing goes any more.
    Fatal(ClientError),
}

#[derive(Debug)]
struct OffsetsJob {
    number: u64,
    group: Arc<ConsumerGroupMetadata>,
    offsets: Arc<Offsets>,
    /// The transaction's coordinator knows of the group.
    added: bool,
    /// It may know: it was asked.
    asked: bool,
}

/// See the module.
#[derive(Debug)]
pub(in crate::producer) struct Machine {
    id: Arc<str>,
    state: State,
    identity: Option<Identity>,
    /// Brokers add partitions, and every end of a transaction bumps the epoch.
    v2: bool,
    /// What the cluster says now; counts from the next transaction on.
    v2_next: bool,
    /// The number of the transaction that was begun last.
    number: u64,
    /// How it ended.
    ended: Option<(u64, Ended)>,
    /// An end that was not counted yet.
    uncounted: Option<Ended>,
    /// Why it was aborted although it was to be committed.
    failure: Option<(u64, ClientError)>,
    /// To be added; never asked for.
    pending: BTreeSet<usize>,
    /// Asked for, without a word yet whether they are added.
    adding: BTreeSet<usize>,
    added: BTreeSet<usize>,
    jobs: VecDeque<OffsetsJob>,
    jobs_begun: u64,
    jobs_done: u64,
    /// The coordinator knows of the transaction.
    started: bool,
    /// What may still arrive of this epoch must find another one.
    bump: bool,
    /// The coordinator does not know the producer id: there is nothing to end.
    unknown_id: bool,
    /// The coordinator was asked to end the transaction: how it ends is for it to say.
    end_asked: bool,
    calling: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
    problem: Option<ClientError>,
}

impl Machine {
    pub(in crate::producer) fn new(id: Arc<str>, backoff: Backoff) -> Self {
        Self {
            id,
            state: State::Initializing,
            identity: None,
            v2: false,
            v2_next: false,
            number: 0,
            ended: None,
            uncounted: None,
            failure: None,
            pending: BTreeSet::new(),
            adding: BTreeSet::new(),
            added: BTreeSet::new(),
            jobs: VecDeque::new(),
            jobs_begun: 0,
            jobs_done: 0,
            started: false,
            bump: false,
            unknown_id: false,
            end_asked: false,
            calling: false,
            retry_at: None,
            backoff,
            problem: None,
        }
    }

    /// The transactional id.
    pub(in crate::producer) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Who the producer is, once it is known.
    pub(in crate::producer) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    pub(in crate::producer) fn is_v2(&self) -> bool {
        self.v2
    }

    /// The last problem that did not stop anything.
    pub(in crate::producer) fn problem(&self) -> Option<&ClientError> {
        self.problem.as_ref()
    }

    /// Hears what the cluster's features are now.
    pub(in crate::producer) fn learn(&mut self, v2: bool) {
        self.v2_next = v2;
    }

    /// Begins a transaction if none is there; `None` while the last one is being ended.
    pub(in crate::producer) fn begin(&mut self) -> Option<Result<u64, ClientError>> {
        match &self.state {
            State::Ready => {
                self.state = State::Open;
                self.number += 1;
                Some(Ok(self.number))
            }
            State::Initializing | State::Ending { .. } => None,
            State::Open | State::Failed(_) => Some(Err(ClientError::Usage(
                "a transaction of this producer is open: commit or abort it first",
            ))),
            State::Fatal(error) => Some(Err(error.clone())),
        }
    }

    /// How the last transaction ended, once nothing of it is left; `None` while it is.
    pub(in crate::producer) fn settled(&self) -> Option<Result<Option<Ended>, ClientError>> {
        match &self.state {
            State::Fatal(error) => Some(Err(error.clone())),
            State::Ready => Some(Ok(self.ended.map(|(_, ended)| ended))),
            State::Open | State::Failed(_) => Some(Err(ClientError::Usage(
                "a transaction of this producer is open: commit or abort it first",
            ))),
            State::Initializing | State::Ending { .. } => None,
        }
    }

    /// Whether records may be added.
    pub(in crate::producer) fn writable(&self) -> Result<(), ClientError> {
        match &self.state {
            State::Open => Ok(()),
            State::Failed(error) => Err(self.aborted(Some(error.clone()))),
            State::Fatal(error) => Err(error.clone()),
            _ => Err(ClientError::Usage("records of a transactional producer belong to a transaction")),
        }
    }

    /// Why nothing that waits may be sent any more, if that is so.
    pub(in crate::producer) fn dropped(&self) -> Option<ClientError> {
        match &self.state {
            State::Failed(error) => Some(self.aborted(Some(error.clone()))),
            State::Ending { commit: false } => Some(self.aborted(self.failure_of(self.number))),
            State::Fatal(error) => Some(error.clone()),
            _ => None,
        }
    }

    fn failure_of(&self, number: u64) -> Option<ClientError> {
        self.failure.as_ref().filter(|(of, _)| *of == number).map(|(_, error)| error.clone())
    }

    fn aborted(&self, source: Option<ClientError>) -> ClientError {
        ClientError::TransactionAborted {
            transactional_id: Arc::clone(&self.id),
            source: source.map(Box::new),
        }
    }

    /// A batch of this partition was opened.
    pub(in crate::producer) fn touch(&mut self, queue: usize) {
        if self.v2 {
            self.started = true;
        } else if !self.added.contains(&queue) && !self.adding.contains(&queue) {
            self.pending.insert(queue);
        }
    }

    /// Whether batches of this partition may be sent.
    pub(in crate::producer) fn permits(&self, queue: usize) -> bool {
        matches!(self.state, State::Open | State::Ending { commit: true })
            && (self.v2 || self.added.contains(&queue))
    }

    /// A batch will never be in the log, for all that is known. `sent` says whether it may arrive there nevertheless.
    pub(in crate::producer) fn batch_failed(&mut self, error: &ClientError, sent: bool) {
        self.bump |= sent && !self.v2;
        if self.end_asked {
            return;
        }
        match error.code() {
            Some(ErrorCode::ProducerFenced) => self.fence(ErrorCode::ProducerFenced),
            Some(
                ErrorCode::ClusterAuthorizationFailed
                | ErrorCode::TransactionalIdAuthorizationFailed
                | ErrorCode::InvalidProducerIdMapping
                | ErrorCode::UnsupportedVersion,
            ) => self.fatal(error.clone()),
            _ => self.fail(error.clone()),
        }
    }

    /// A batch that was sent, and may arrive yet, is given up with its transaction.
    pub(in crate::producer) fn batch_dropped(&mut self) {
        self.bump |= !self.v2;
    }

    /// The transaction cannot be committed any more.
    fn fail(&mut self, error: ClientError) {
        match self.state {
            State::Open => {
                self.failure = Some((self.number, error.clone()));
                self.state = State::Failed(error);
            }
            State::Ending { commit: true } => {
                self.failure = Some((self.number, error));
                self.state = State::Ending { commit: false };
            }
            _ => {}
        }
        self.drop_work();
    }

    fn fence(&mut self, code: ErrorCode) {
        self.become_fatal(ClientError::ProducerFenced { transactional_id: Arc::clone(&self.id), code });
    }

    fn fatal(&mut self, error: ClientError) {
        self.become_fatal(ClientError::TransactionalProducerFailed {
            transactional_id: Arc::clone(&self.id),
            source: Box::new(error),
        });
    }

    fn become_fatal(&mut self, error: ClientError) {
        if !matches!(self.state, State::Fatal(_)) {
            tracing::warn!(transactional_id = %self.id, %error, "transactional producer ends");
            self.state = State::Fatal(error);
        }
    }

    /// Forgets what nobody was asked yet; what was asked is asked until there is an answer, so that a late request
    /// does not begin the transaction again after its end.
    fn drop_work(&mut self) {
        self.pending.clear();
        self.jobs.retain(|job| job.asked && !job.added);
    }

    /// Ends the transaction with this number, if that is still to be done.
    pub(in crate::producer) fn end(&mut self, number: u64, commit: bool) {
        if number != self.number {
            return;
        }
        match self.state {
            State::Open => self.state = State::Ending { commit },
            State::Failed(_) => self.state = State::Ending { commit: false },
            _ => return,
        }
        if matches!(self.state, State::Ending { commit: false }) {
            self.drop_work();
        }
        self.retry_at = None;
    }

    /// Aborts what is open, whichever it is.
    pub(in crate::producer) fn abandon(&mut self) {
        self.end(self.number, false);
    }

    /// Whether there is something to be ended yet.
    pub(in crate::producer) fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending { .. })
    }

    /// How a transaction ended, once that is known.
    pub(in crate::producer) fn outcome(&self, number: u64) -> Option<Result<Ended, ClientError>> {
        if let Some((_, ended)) = self.ended.filter(|(of, _)| *of == number) {
            return Some(Ok(ended));
        }
        match &self.state {
            State::Fatal(error) => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// Why a transaction that was to be committed is aborted, if that is so.
    pub(in crate::producer) fn commit_failed(&self, number: u64) -> Option<ClientError> {
        self.failure_of(number).map(|error| self.aborted(Some(error)))
    }

    /// Takes offsets into the transaction; their number is what [`Self::offsets_taken`] is asked for.
    pub(in crate::producer) fn add_offsets(
        &mut self,
        group: Arc<ConsumerGroupMetadata>,
        offsets: Offsets,
    ) -> Result<u64, ClientError> {
        self.writable()?;
        self.jobs_begun += 1;
        let (number, offsets) = (self.jobs_begun, Arc::new(offsets));
        self.jobs.push_back(OffsetsJob { number, group, offsets, added: self.v2, asked: false });
        Ok(number)
    }

    /// Whether offsets are part of the transaction with this number by now.
    pub(in crate::producer) fn offsets_taken(
        &self,
        transaction: u64,
        job: u64,
    ) -> Option<Result<(), ClientError>> {
        if transaction != self.number {
            return Some(Err(self.aborted(self.failure_of(transaction))));
        }
        if self.jobs_done >= job {
            return Some(Ok(()));
        }
        self.dropped().map(Err)
    }

    /// The next call, if one is due. `idle` says whether every batch is answered.
    pub(in crate::producer) fn next(&mut self, now: Instant, idle: bool) -> Option<Call> {
        if self.calling || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let call = self.choose(idle)?;
        self.calling = true;
        self.retry_at = None;
        Some(call)
    }

    fn choose(&mut self, idle: bool) -> Option<Call> {
        let (commit, ending) = match self.state {
            State::Initializing => return Some(Call::Init { identity: self.identity }),
            State::Open => (true, false),
            State::Ending { commit } => (commit, true),
            // What was asked is asked until there is an answer.
            State::Failed(_) => (false, false),
            State::Ready | State::Fatal(_) => return None,
        };
        let identity = self.identity?;
        if let Some(call) = self.work(identity, commit) {
            return Some(call);
        }
        if !ending || !idle {
            return None;
        }
        if self.unknown_id {
            self.note_end(Ended::Aborted);
            return self.initialize();
        }
        if !self.started {
            // The coordinator knows of nothing that it could end.
            self.complete(commit, None);
            return matches!(self.state, State::Initializing)
                .then_some(Call::Init { identity: self.identity });
        }
        self.end_asked = true;
        Some(Call::End { identity, commit, v2: self.v2 })
    }

    /// Partitions and offsets to add.
    fn work(&mut self, identity: Identity, commit: bool) -> Option<Call> {
        if commit {
            self.adding.append(&mut self.pending);
        }
        if !self.adding.is_empty() {
            return Some(Call::AddPartitions { identity, queues: self.adding.iter().copied().collect() });
        }
        let v2 = self.v2;
        let job = self.jobs.front_mut()?;
        if !job.added {
            job.asked = true;
            return Some(Call::AddOffsets { identity, group: Arc::clone(&job.group) });
        }
        if !commit {
            return None;
        }
        job.asked = true;
        self.started = true;
        let (group, offsets) = (Arc::clone(&job.group), Arc::clone(&job.offsets));
        Some(Call::CommitOffsets { identity, group, offsets, v2 })
    }

    fn initialize(&mut self) -> Option<Call> {
        self.state = State::Initializing;
        Some(Call::Init { identity: self.identity })
    }

    /// Gives away an end, to be counted once.
    pub(in crate::producer) fn take_ended(&mut self) -> Option<Ended> {
        self.uncounted.take()
    }

    fn note_end(&mut self, ended: Ended) {
        self.ended = Some((self.number, ended));
        self.uncounted = Some(ended);
    }

    /// The transaction is over.
    fn complete(&mut self, commit: bool, identity: Option<Identity>) {
        self.note_end(if commit { Ended::Committed } else { Ended::Aborted });
        self.forget();
        if let Some(identity) = identity {
            self.identity = Some(identity);
        }
        // An upgrade of the cluster begins with an epoch of its own.
        let upgraded = self.v2_next && !self.v2;
        self.v2 = self.v2_next;
        self.state = if self.bump || upgraded { State::Initializing } else { State::Ready };
        self.bump = false;
    }

    fn forget(&mut self) {
        self.pending.clear();
        self.adding.clear();
        self.added.clear();
        self.jobs.clear();
        self.started = false;
        self.unknown_id = false;
        self.end_asked = false;
        self.backoff.reset();
        self.problem = None;
    }

    /// Takes an answer. True when the identity changed: sequences begin anew.
    pub(in crate::producer) fn answered(&mut self, now: Instant, call: &Call, answer: Answer) -> bool {
        self.calling = false;
        let before = self.identity;
        match (call, answer) {
            (_, Answer::Failed(error)) if error.is_retriable() => {
                // Nobody knows whether it was carried out, or will be.
                self.bump |= error.is_network() && !self.v2 && matches!(call, Call::CommitOffsets { .. });
                self.again(now, error);
            }
            (_, Answer::Failed(error)) => match error.code() {
                Some(code) => self.judge(now, call, code, Some(error)),
                None => self.fatal(error),
            },
            (Call::Init { .. }, Answer::One(ErrorCode::None, Some(identity))) => {
                self.identity = Some(identity);
                self.v2 = self.v2_next;
                self.bump = false;
                self.forget();
                if matches!(self.state, State::Initializing) {
                    self.state = State::Ready;
                }
            }
            (Call::AddOffsets { .. }, Answer::One(ErrorCode::None, _)) => self.offsets_added(),
            (Call::End { commit, .. }, Answer::One(ErrorCode::None, identity)) => {
                if self.is_ending() {
                    self.complete(*commit, identity);
                }
            }
            (_, Answer::One(code, _)) => self.judge(now, call, code, None),
            (_, Answer::Queues(results)) => self.queues_added(now, call, &results),
            (_, Answer::Offsets(results)) => self.offsets_committed(now, call, &results),
        }
        before != self.identity
    }

    fn again(&mut self, now: Instant, error: ClientError) {
        tracing::debug!(transactional_id = %self.id, %error, "asking the coordinator again");
        self.problem = Some(error);
        self.retry_at = Some(now + self.backoff.next());
    }

    fn offsets_added(&mut self) {
        self.started = true;
        self.backoff.reset();
        let dropped = self.dropped().is_some();
        if let Some(job) = self.jobs.front_mut() {
            job.added = true;
            job.asked = false;
        }
        if dropped {
            self.drop_work();
        }
    }

    fn queues_added(&mut self, now: Instant, call: &Call, results: &[(usize, ErrorCode)]) {
        for (queue, code) in results {
            match code {
                ErrorCode::None => {
                    self.adding.remove(queue);
                    self.added.insert(*queue);
                    self.started = true;
                    self.backoff.reset();
                }
                // Another one of the same request is at fault.
                ErrorCode::OperationNotAttempted => {}
                code => {
                    self.judge(now, call, *code, None);
                    if *code == ErrorCode::ConcurrentTransactions && self.added.is_empty() {
                        self.retry_at = self.retry_at.map(|at| at.min(now + ADD_AGAIN_AFTER));
                    }
                }
            }
        }
        if self.dropped().is_some() {
            // It was answered: what is not added now will not be.
            self.adding.retain(|queue| !results.iter().any(|(of, _)| of == queue));
        }
    }

    fn offsets_committed(&mut self, now: Instant, call: &Call, results: &[(TopicPartition, ErrorCode)]) {
        let wrong = results.iter().map(|(_, code)| *code).filter(|code| code.is_error());
        // What cannot be mended comes first.
        match wrong.min_by_key(|code| code.is_retriable()) {
            Some(code) => self.judge(now, call, code, None),
            None => {
                if let Some(job) = self.jobs.pop_front() {
                    self.jobs_done = job.number;
                }
                self.backoff.reset();
            }
        }
    }

    /// What an error code of a coordinator means, as Kafka's `TransactionManager` has it.
    fn judge(&mut self, now: Instant, call: &Call, code: ErrorCode, error: Option<ClientError>) {
        use ErrorCode as E;
        let error = error.unwrap_or_else(|| super::calls::error(call, code, &self.id));
        match code {
            E::InvalidProducerEpoch | E::ProducerFenced => self.fence(code),
            E::TransactionAbortable
                if !matches!(call, Call::Init { .. } | Call::End { commit: false, .. }) =>
            {
                self.fail(error)
            }
            E::UnknownProducerId | E::InvalidProducerIdMapping if !matches!(call, Call::Init { .. }) => {
                self.bump = true;
                // There is nothing that could be aborted: the next identity is all that is left to ask for.
                self.unknown_id =
                    code == E::InvalidProducerIdMapping || matches!(call, Call::End { commit: false, .. });
                self.started &= !self.unknown_id;
                self.adding.clear();
                self.fail(error);
            }
            E::TopicAuthorizationFailed
            | E::GroupAuthorizationFailed
            | E::UnknownMemberId
            | E::IllegalGeneration
            | E::StaleMemberEpoch
            | E::FencedMemberEpoch
            | E::FencedInstanceId
            | E::OffsetMetadataTooLarge
            | E::InvalidCommitOffsetSize
                if matches!(
                    call,
                    Call::AddPartitions { .. } | Call::AddOffsets { .. } | Call::CommitOffsets { .. }
                ) =>
            {
                // It was answered: nothing is owed.
                self.jobs.iter_mut().for_each(|job| job.asked = false);
                self.fail(error);
            }
            E::TransactionAbortable => self.again(now, error),
            code if code.is_retriable() => self.again(now, error),
            _ => self.fatal(error),
        }
    }

    /// When to look again, if nothing happens before.
    pub(in crate::producer) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.calling)
    }
}

#[cfg(test)]
mod tests;
