//! Producers that follow the protocol, as far as the log shows it to them.

use bytes::Bytes;
use towpath_log::{AppendError, AppendInfo, AppendOptions, Effort, Log, Marker, TransactionCheck};
use towpath_record::{BatchBuilder, BatchHeader, Compression, Origin};
use towpath_types::{ProducerEpoch, ProducerId};

use super::common::EPOCH;

/// A batch of a producer; without a sequence number for -1.
pub(crate) fn batch_of(
    id: i64,
    epoch: i16,
    sequence: i32,
    transactional: bool,
    records: &[(&str, Option<&str>)],
    timestamp: i64,
) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    if id >= 0 {
        builder.set_producer(ProducerId::new(id), ProducerEpoch::new(epoch), sequence);
    }
    builder.set_transactional(transactional);
    for (key, value) in records {
        builder.append(timestamp, Some(key.as_bytes()), value.map(str::as_bytes), &[]).unwrap();
    }
    builder.build().unwrap()
}

/// Appends as the broker does: asks whether the transaction has to be verified, and takes the coordinator's yes for
/// granted.
pub(crate) fn append_verified(log: &Log, bytes: Bytes, tv2: bool) -> Result<AppendInfo, AppendError> {
    let header = BatchHeader::parse(&bytes).unwrap();
    let guard = match log.transaction_check(&header, tv2)? {
        TransactionCheck::Append => None,
        TransactionCheck::Verify(guard) => Some(guard),
    };
    let options = AppendOptions { origin: Origin::Client, effort: Effort::Any, guard };
    log.append_as_leader_with(bytes, EPOCH, &options)
}

/// A batch of one record in a transaction.
pub(crate) fn in_transaction(id: i64, epoch: i16, sequence: i32, key: &str) -> Bytes {
    batch_of(id, epoch, sequence, true, &[(key, Some("v"))], 1_000_000)
}

pub(crate) fn marker(id: i64, epoch: i16, commit: bool, tv2: bool) -> Marker {
    Marker {
        producer_id: ProducerId::new(id),
        producer_epoch: ProducerEpoch::new(epoch),
        coordinator_epoch: 1,
        commit,
        tv2,
    }
}
