//! The shapes of AddPartitionsToTxn and DescribeTransactions.

use towpath_types::{TopicName, TopicPartition};
use towpath_wire::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
};
use towpath_wire::describe_transactions::TransactionState;
use towpath_wire::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ErrorCode};

/// The transactions of a request of any version.
pub(super) fn transactions(
    request: AddPartitionsToTxnRequest,
    version: i16,
) -> Vec<AddPartitionsToTxnTransaction> {
    if version > 3 {
        return request.transactions;
    }
    vec![AddPartitionsToTxnTransaction {
        transactional_id: request.v3_and_below_transactional_id,
        producer_id: request.v3_and_below_producer_id,
        producer_epoch: request.v3_and_below_producer_epoch,
        verify_only: false,
        topics: request.v3_and_below_topics,
    }]
}

/// What a look at the partitions of a transaction has shown.
pub(super) enum Checked {
    /// All can be added; in the order of the request.
    All(Vec<TopicPartition>),
    /// One at least cannot: nothing is added. What is said of each, in the order of the request.
    Refused(Vec<ErrorCode>),
}

/// Looks whether all partitions of a transaction can be added.
pub(super) fn check_partitions(
    transaction: &AddPartitionsToTxnTransaction,
    check: &impl Fn(&str, i32) -> ErrorCode,
) -> Checked {
    let mut partitions = Vec::new();
    let mut errors = Vec::new();
    for topic in &transaction.topics {
        let name = TopicName::new(&topic.name);
        for index in &topic.partitions {
            let error = match (&name, check(&topic.name, *index)) {
                // There is no topic with such a name.
                (Err(_), ErrorCode::None) => ErrorCode::UnknownTopicOrPartition,
                (_, error) => error,
            };
            errors.push(error);
            if let (Ok(name), ErrorCode::None) = (&name, error) {
                partitions.push(TopicPartition::new(name.clone(), *index));
            }
        }
    }
    if partitions.len() == errors.len() {
        return Checked::All(partitions);
    }
    for error in errors.iter_mut().filter(|error| **error == ErrorCode::None) {
        *error = ErrorCode::OperationNotAttempted;
    }
    Checked::Refused(errors)
}

/// The result of one transaction, with an error for each partition of the request in its order.
pub(super) fn added_result(
    transaction: AddPartitionsToTxnTransaction,
    errors: Vec<ErrorCode>,
) -> AddPartitionsToTxnResult {
    let mut errors = errors.into_iter();
    let mut partition = |partition_index| AddPartitionsToTxnPartitionResult {
        partition_index,
        partition_error_code: errors.next().unwrap_or(ErrorCode::UnknownServerError).code(),
    };
    let topics = transaction.topics.into_iter();
    let topic_results = topics.map(|topic| AddPartitionsToTxnTopicResult {
        name: topic.name,
        results_by_partition: topic.partitions.into_iter().map(&mut partition).collect(),
    });
    AddPartitionsToTxnResult {
        transactional_id: transaction.transactional_id,
        topic_results: topic_results.collect(),
    }
}

/// The response of any version.
pub(super) fn added_response(
    results: Vec<AddPartitionsToTxnResult>,
    version: i16,
) -> AddPartitionsToTxnResponse {
    let mut response = AddPartitionsToTxnResponse::default();
    if version > 3 {
        response.results_by_transaction = results;
    } else {
        response.results_by_topic_v3_and_below =
            results.into_iter().flat_map(|result| result.topic_results).collect();
    }
    response
}

/// What is said of an id that cannot be described.
pub(super) fn not_described(transactional_id: &str, error: ErrorCode) -> TransactionState {
    TransactionState {
        error_code: error.code(),
        transactional_id: transactional_id.to_owned(),
        ..TransactionState::default()
    }
}
