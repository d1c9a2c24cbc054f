//! What both coordinators need of their partition: loading, appends in their term, markers.

use bytes::Bytes;
use towpath_coordinator::{EndMarker, LoadedEntry, OffsetsRecord, TransactionalProducer};
use towpath_log::AppendOptions;
use towpath_record::{BatchBuilder, Compression, ControlType, batches, control_record};
use towpath_replica::{Appended, Marker, Partition, PartitionError};
use towpath_types::{Offset, Rule, Rules, Term};

use crate::violation::{Checked, INTERNAL, Violation};

/// The sequence number of batches without one.
const NO_SEQUENCE: i32 = -1;

/// What was appended.
#[derive(Debug)]
pub(crate) enum Written {
    Batch(Bytes),
    Marker(Marker),
}

/// A coordinator's marker as the log takes it.
pub(crate) const fn log_marker(marker: &EndMarker) -> Marker {
    Marker {
        producer_id: marker.producer.id,
        producer_epoch: marker.producer.epoch,
        coordinator_epoch: marker.coordinator_epoch,
        commit: marker.commit,
        tv2: marker.bumps_epoch,
    }
}

/// Reads a whole partition. Returns where it ended.
pub(crate) fn load(
    partition: &Partition,
    mut take: impl FnMut(&LoadedEntry) -> Result<(), String>,
) -> Result<Offset, String> {
    let log = partition.log();
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    while at < end {
        let read = log.read(at, 1 << 20, end, true).map_err(|error| error.to_string())?;
        let bytes = read.into_bytes().map_err(|error| error.to_string())?;
        let before = at;
        for batch in batches(&bytes) {
            let batch = batch.map_err(|error| error.to_string())?;
            let producer = TransactionalProducer { id: batch.producer_id, epoch: batch.producer_epoch };
            let records = batch.records().map_err(|error| error.to_string())?;
            for record in &records {
                let record = record.map_err(|error| error.to_string())?;
                let offset = record.offset;
                let entry = if batch.is_control() {
                    match control_record(&record).map_err(|error| error.to_string())?.control_type {
                        ControlType::Commit => LoadedEntry::Marker { offset, producer, commit: true },
                        ControlType::Abort => LoadedEntry::Marker { offset, producer, commit: false },
                        ControlType::Other(_) => continue,
                    }
                } else {
                    LoadedEntry::Record {
                        offset,
                        key: record.key.map(Bytes::copy_from_slice),
                        value: record.value.map(Bytes::copy_from_slice),
                        producer: batch.is_transactional().then_some(producer),
                    }
                };
                take(&entry).map_err(|error| format!("offset {offset}: {error}"))?;
            }
            at = batch.next_offset();
        }
        if at == before {
            // Compaction has removed what was here up to the end.
            at = end;
        }
    }
    Ok(end)
}

/// Appends records in the coordinator's term (rule 21). Returns what became of it, and the batch.
pub(crate) fn append_records(
    partition: &std::sync::Arc<Partition>,
    (term, rules): (Term, Rules),
    records: &[OffsetsRecord],
    producer: Option<TransactionalProducer>,
    options: &AppendOptions,
) -> Checked<(Result<Appended, PartitionError>, Bytes)> {
    let failed = |error: towpath_record::BuildError| Violation::new(INTERNAL, error.to_string());
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some(producer) = producer {
        builder.set_producer(producer.id, producer.epoch, NO_SEQUENCE);
        builder.set_transactional(true);
    }
    for record in records {
        // Without a time of its own: the clocks of the simulation jump.
        builder.append(0, Some(&record.key), record.value.as_deref(), &[]).map_err(failed)?;
    }
    let batch = builder.build().map_err(failed)?;
    let result = if rules.holds(Rule::CoordinatorTerm) {
        partition.append_in_term(term, batch.clone(), options)
    } else {
        partition.append_with(batch.clone(), true, options)
    };
    Ok((result, batch))
}
