//! DescribeTransactions and ListTransactions.

use std::collections::HashSet;

use regex::RegexBuilder;
use towpath_types::TopicName;
use towpath_wire::describe_transactions::{TopicData, TransactionState as DescribedTransaction};
use towpath_wire::list_transactions::TransactionState as ListedTransaction;
use towpath_wire::{ErrorCode, ListTransactionsRequest};

use super::{Metadata, TransactionMachine};
use crate::machine::Now;
use crate::transaction::metadata::TransactionState;

/// Bytes that a compiled pattern may take (R10).
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// States of Kafka that no id is ever seen in.
const UNSEEN_STATES: [&str; 2] = ["Dead", "PrepareEpochFence"];

/// Which transactions ListTransactions is about.
#[derive(Debug)]
pub struct TransactionFilter {
    has_states: bool,
    states: HashSet<TransactionState>,
    unknown_states: Vec<String>,
    producer_ids: HashSet<i64>,
    duration_ms: i64,
    pattern: Option<regex::Regex>,
}

impl TransactionFilter {
    /// The filter of a request.
    ///
    /// # Errors
    /// `INVALID_REGULAR_EXPRESSION`.
    pub fn new(request: &ListTransactionsRequest) -> Result<Self, ErrorCode> {
        let mut states = HashSet::new();
        let mut unknown_states = Vec::new();
        for name in &request.state_filters {
            match TransactionState::from_name(name) {
                Some(state) => {
                    states.insert(state);
                }
                None if UNSEEN_STATES.contains(&name.as_str()) => {}
                None => unknown_states.push(name.clone()),
            }
        }
        let pattern = request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty());
        Ok(Self {
            has_states: !request.state_filters.is_empty(),
            states,
            unknown_states,
            producer_ids: request.producer_id_filters.iter().copied().collect(),
            duration_ms: request.duration_filter,
            pattern: pattern.map(whole).transpose()?,
        })
    }

    /// The names in the request that are no states.
    #[must_use]
    pub fn unknown_states(&self) -> &[String] {
        &self.unknown_states
    }

    fn takes(&self, transactional_id: &str, metadata: &Metadata, now_ms: i64) -> bool {
        let running_ms = now_ms.saturating_sub(metadata.started_ms);
        (self.producer_ids.is_empty() || self.producer_ids.contains(&metadata.producer.id.get()))
            && (!self.has_states || self.states.contains(&metadata.state))
            && (self.duration_ms < 0 || running_ms > self.duration_ms)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(transactional_id))
    }
}

/// A pattern that must match the whole of an id.
fn whole(pattern: &str) -> Result<regex::Regex, ErrorCode> {
    let compile = |pattern: &str| {
        let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
        compiled.map_err(|error| {
            tracing::debug!(%error, "no pattern for transactional ids");
            ErrorCode::InvalidRegularExpression
        })
    };
    // By itself first: an unmatched parenthesis must not be matched by ours.
    compile(pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

impl TransactionMachine {
    /// What DescribeTransactions says of an id.
    #[must_use]
    pub fn describe(&self, transactional_id: &str) -> DescribedTransaction {
        let mut described = DescribedTransaction {
            transactional_id: transactional_id.to_owned(),
            ..DescribedTransaction::default()
        };
        let known = self.entries.get(transactional_id).filter(|entry| !entry.metadata.is_new());
        let Some(entry) = known else {
            let error = if transactional_id.is_empty() {
                ErrorCode::InvalidRequest
            } else {
                ErrorCode::TransactionalIdNotFound
            };
            described.error_code = error.code();
            return described;
        };
        let metadata = &entry.metadata;
        let topic = |(topic, indexes): (&TopicName, &std::collections::BTreeSet<i32>)| TopicData {
            topic: topic.as_str().to_owned(),
            partitions: indexes.iter().copied().collect(),
        };
        described.transaction_state = metadata.state.name().to_owned();
        described.transaction_timeout_ms = metadata.timeout_ms;
        described.transaction_start_time_ms = metadata.started_ms;
        described.producer_id = metadata.producer.id.get();
        described.producer_epoch = metadata.producer.epoch.get();
        described.topics = metadata.partitions.topics().map(topic).collect();
        described
    }

    /// What ListTransactions says of the ids that `filter` takes, in order.
    #[must_use]
    pub fn list(&self, now: Now, filter: &TransactionFilter) -> Vec<ListedTransaction> {
        let known = self.entries.iter().filter(|(_, entry)| !entry.metadata.is_new());
        let taken = known.filter(|(id, entry)| filter.takes(id, &entry.metadata, now.wall_ms));
        let listed = taken.map(|(id, entry)| ListedTransaction {
            transactional_id: id.to_string(),
            producer_id: entry.metadata.producer.id.get(),
            transaction_state: entry.metadata.state.name().to_owned(),
        });
        let mut listed: Vec<_> = listed.collect();
        listed.sort_unstable_by(|one, other| one.transactional_id.cmp(&other.transactional_id));
        listed
    }
}
