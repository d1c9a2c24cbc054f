//! Where a group begins to read a partition that it has not read yet (`share.auto.offset.reset`).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use towpath_controller::group_config::ShareOffsetReset;
use towpath_replica::{Isolation, Partition};
use towpath_wire::ErrorCode;

use crate::handlers::partition_error_code;
use crate::state::BrokerState;

/// The first offset that a group reads.
///
/// # Errors
/// The partition's.
pub(crate) fn of(broker: &BrokerState, group: &str, partition: &Arc<Partition>) -> Result<i64, ErrorCode> {
    let told = |error| partition_error_code(&error);
    // As Kafka: the end that all see, whatever transactions are open.
    let latest = || partition.latest_offset(Isolation::ReadUncommitted).map_err(told);
    let offset = match broker.share_settings(group).offset_reset {
        ShareOffsetReset::Earliest => partition.earliest_offset().map_err(told)?,
        ShareOffsetReset::Latest => latest()?,
        ShareOffsetReset::ByDuration(duration_ms) => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            let at_ms = now_ms.saturating_sub(duration_ms).max(0);
            let found = partition.lookup_timestamp(at_ms, Isolation::ReadUncommitted).map_err(told)?;
            match found {
                Some(found) => found.offset,
                None => latest()?,
            }
        }
    };
    Ok(offset.get())
}
