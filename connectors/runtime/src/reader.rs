//! Reads a stretch of a partition: state topics, and the tail of a target partition.

use std::time::{Duration, Instant};

use towpath_api::ConnectorError;
use towpath_client::{Client, ConsumerConfig, Record, StartAt};
use towpath_types::{Offset, TopicPartition};

use crate::error::cluster_error;

const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Without a single record for this long, although there are some, the reading is given up.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// What a partition held when it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// The first offset.
    pub(crate) begin: Offset,
    /// The offset after the last.
    pub(crate) end: Offset,
}

/// Calls `each` with every record from `from` (the beginning, if that lies later or nothing is given) to the end of the
/// log as it is now, which it waits for to be committed.
pub(crate) async fn read_to_end(
    client: &Client,
    partition: &TopicPartition,
    from: Option<Offset>,
    mut each: impl FnMut(Record<'_>) -> Result<(), ConnectorError>,
) -> Result<Extent, ConnectorError> {
    let failed = |error| cluster_error(&format!("reading {partition}"), error);
    let consumer = client.consumer(ConsumerConfig {
        buffer_bytes: BUFFER_BYTES,
        fetch_bytes_max: BUFFER_BYTES,
        ..ConsumerConfig::default()
    });
    let one = std::slice::from_ref(partition);
    let committed =
        consumer.end_offsets(one).await.map_err(failed)?.remove(partition).unwrap_or(Offset::ZERO);
    // What an attempt before has written may wait for a flush or for other replicas, and be visible a moment later.
    let end =
        consumer.log_end_offset(partition).await.map_err(failed)?.unwrap_or(Offset::ZERO).max(committed);
    let begin =
        consumer.beginning_offsets(one).await.map_err(failed)?.remove(partition).unwrap_or(Offset::ZERO);
    let extent = Extent { begin, end };
    let mut position = from.map_or(begin, |from| from.max(begin));
    if position >= end {
        return Ok(extent);
    }
    consumer.assign(&[(partition.clone(), StartAt::Offset(position))]).map_err(failed)?;
    let mut moved = Instant::now();
    while position < end {
        for records in consumer.poll(Duration::from_millis(100)).await.map_err(failed)? {
            for record in &records {
                let record = record.map_err(failed)?;
                if record.offset < end {
                    each(record)?;
                }
            }
            position = records.next_offset;
            moved = Instant::now();
        }
        // Records at the end may be invisible (control records).
        position = consumer.position(partition).map_or(position, |known| known.max(position));
        if moved.elapsed() > STUCK_AFTER {
            let message = format!("{partition} cannot be read from {position} to its end {end}");
            return Err(ConnectorError::retry("KAFKA_TIMEOUT", message));
        }
    }
    Ok(extent)
}
