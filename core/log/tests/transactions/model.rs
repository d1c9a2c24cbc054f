//! What a log should say of transactions, worked out from nothing but the list of its batches.

use std::collections::BTreeMap;

use bytes::Bytes;
use towpath_log::{AbortedTransaction, Log};
use towpath_record::{ControlType, RecordBatch, batches, control_record};
use towpath_types::Offset;

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) base: i64,
    pub(crate) next: i64,
    pub(crate) producer: i64,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records: offset, key, value.
    Data {
        transactional: bool,
        records: Vec<(i64, String, String)>,
    },
    Marker {
        commit: bool,
    },
}

/// A transaction of the naive reading: from where, and its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) producer: i64,
    pub(crate) first: i64,
    pub(crate) end: Option<(i64, bool)>,
}

pub(crate) fn item(batch: &RecordBatch) -> Item {
    let records = batch.records().unwrap();
    let kind = if batch.is_control() {
        let record = records.iter().next();
        let control = record.map(|record| control_record(&record.unwrap()).unwrap().control_type);
        Kind::Marker { commit: control == Some(ControlType::Commit) }
    } else {
        let text = |part: Option<&[u8]>| String::from_utf8(part.unwrap_or_default().to_vec()).unwrap();
        let records = records.iter().map(Result::unwrap);
        let records =
            records.map(|record| (record.offset.get(), text(record.key), text(record.value))).collect();
        Kind::Data { transactional: batch.is_transactional(), records }
    };
    Item {
        base: batch.base_offset.get(),
        next: batch.next_offset().get(),
        producer: batch.producer_id.get(),
        kind,
    }
}

/// All batches that the log holds from an offset on.
pub(crate) fn raw(log: &Log, from: i64) -> Vec<Item> {
    let mut items = Vec::new();
    let mut next = from;
    while next < log.log_end_offset().get() {
        let data = log.read(Offset::new(next), 1 << 16, log.log_end_offset(), true).unwrap();
        let bytes = data.into_bytes().unwrap();
        if bytes.is_empty() {
            break;
        }
        for batch in batches(&bytes) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            next = batch.next_offset().get();
            items.push(item(&batch));
        }
    }
    items
}

/// The transactions of these batches, those that begin at or after `from` only.
pub(crate) fn transactions(items: &[Item], from: i64) -> Vec<Transaction> {
    let mut open: BTreeMap<i64, i64> = BTreeMap::new();
    let mut all = Vec::new();
    for item in items.iter().filter(|item| item.next > from) {
        match &item.kind {
            Kind::Data { transactional: true, .. } => {
                open.entry(item.producer).or_insert(item.base);
            }
            Kind::Data { .. } => {}
            Kind::Marker { commit } => {
                if let Some(first) = open.remove(&item.producer) {
                    let end = Some((item.base, *commit));
                    all.push(Transaction { producer: item.producer, first, end });
                }
            }
        }
    }
    all.extend(open.into_iter().map(|(producer, first)| Transaction { producer, first, end: None }));
    all
}

/// The last stable offset.
pub(crate) fn last_stable(items: &[Item], high_watermark: i64, start: i64, known_from: i64) -> i64 {
    transactions(items, known_from)
        .iter()
        .filter(|transaction| transaction.end.is_none_or(|(marker, _)| marker >= high_watermark))
        .map(|transaction| transaction.first.max(start))
        .fold(high_watermark, i64::min)
}

/// The records of whole batches below `bound` that are in no transaction or in a committed one.
pub(crate) fn committed(items: &[Item], from: i64, bound: i64) -> Vec<(i64, String, String)> {
    let transactions = transactions(items, i64::MIN);
    let is_committed = |item: &Item| {
        transactions.iter().any(|transaction| {
            transaction.producer == item.producer
                && transaction.first <= item.base
                && transaction.end.is_some_and(|(marker, commit)| commit && item.base < marker)
        })
    };
    let mut seen = Vec::new();
    for item in items.iter().filter(|item| item.next <= bound) {
        if let Kind::Data { transactional, records } = &item.kind
            && (!transactional || is_committed(item))
        {
            let visible = records.iter().filter(|record| record.0 >= from);
            seen.extend(visible.cloned());
        }
    }
    seen
}

/// Kafka's client: it leaves out what is between the first offset of an aborted transaction and its marker.
pub(crate) fn filtered(
    bytes: &Bytes,
    aborted: &[AbortedTransaction],
    from: i64,
) -> (Vec<(i64, String, String)>, Option<i64>) {
    let mut coming: Vec<(i64, i64)> =
        aborted.iter().map(|aborted| (aborted.first_offset.get(), aborted.producer_id.get())).collect();
    coming.sort_unstable();
    let mut coming = coming.into_iter().peekable();
    let mut aborting = std::collections::BTreeSet::new();
    let mut seen = Vec::new();
    let mut next = None;
    for batch in batches(bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        let item = item(&batch);
        next = Some(item.next);
        while let Some((_, producer)) = coming.next_if(|(first, _)| *first < item.next) {
            aborting.insert(producer);
        }
        match item.kind {
            Kind::Marker { commit: false } => {
                aborting.remove(&item.producer);
            }
            Kind::Marker { commit: true } => {}
            Kind::Data { transactional, records } => {
                if !transactional || !aborting.contains(&item.producer) {
                    seen.extend(records.into_iter().filter(|record| record.0 >= from));
                }
            }
        }
    }
    (seen, next)
}

/// What a `read_committed` consumer sees from an offset on, fetching so many bytes at a time.
pub(crate) fn consumed(log: &Log, from: i64, bound: i64, bytes_max: usize) -> Vec<(i64, String, String)> {
    let mut all = Vec::new();
    let mut next = from;
    while next < bound {
        let (data, aborted) =
            log.read_committed(Offset::new(next), bytes_max, Offset::new(bound), true).unwrap();
        let bytes = data.into_bytes().unwrap();
        let (seen, after) = filtered(&bytes, &aborted, next);
        let Some(after) = after else { break };
        assert!(after > next && after <= bound, "{next} {after} {bound}");
        all.extend(seen);
        next = after;
    }
    all
}
