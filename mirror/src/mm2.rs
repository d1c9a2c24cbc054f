//! What MirrorMaker 2 writes beside its copies, and its clients look for (`MirrorClient`, `RemoteClusterUtils`): where groups
//! go on, and that a link is alive. Kafka's `connect/mirror-client` has the forms: texts with a length of two bytes, numbers
//! with the greatest byte first, and the version before each value.

use crate::bytes::DecodeError;
use towpath_types::{GroupId, InvalidName, Offset, TopicName, TopicPartition};

const VERSION: i16 = 0;

/// Where the checkpoints of what comes from a cluster are (`DefaultReplicationPolicy.checkpointsTopic`).
///
/// # Errors
/// The alias is too long for it.
pub(crate) fn checkpoints_topic(source: &str) -> Result<TopicName, InvalidName> {
    TopicName::new(&format!("{source}.checkpoints.internal"))
}

/// Where MirrorMaker keeps at the source how far it has come to a cluster (`offsetSyncsTopic`, in its usual place).
///
/// # Errors
/// The alias is too long for it.
pub(crate) fn offset_syncs_topic(target: &str) -> Result<TopicName, InvalidName> {
    TopicName::new(&format!("mm2-offset-syncs.{target}.internal"))
}

/// Reads what MirrorMaker has told of a partition of the source: a record's offset there, and at the target.
///
/// # Errors
/// [`DecodeError`]: it is none of that.
pub(crate) fn offset_sync(key: &[u8], value: &[u8]) -> Result<(TopicPartition, Offset, Offset), DecodeError> {
    const DAMAGED: DecodeError = DecodeError::Damaged("it is no offset sync");
    let (length, rest) = key.split_first_chunk::<2>().ok_or(DAMAGED)?;
    let length = usize::try_from(i16::from_be_bytes(*length)).map_err(|_| DAMAGED)?;
    let (topic, partition) = rest.split_at_checked(length).ok_or(DAMAGED)?;
    let topic =
        std::str::from_utf8(topic).ok().and_then(|topic| TopicName::new(topic).ok()).ok_or(DAMAGED)?;
    let partition = i32::from_be_bytes(partition.try_into().map_err(|_| DAMAGED)?);
    let (offsets, []) = value.as_chunks::<8>() else { return Err(DAMAGED) };
    let [upstream, downstream] = offsets else { return Err(DAMAGED) };
    let offset = |bytes: &[u8; 8]| Offset::new(i64::from_be_bytes(*bytes));
    Ok((TopicPartition::new(topic, partition), offset(upstream), offset(downstream)))
}

/// Longer ones than a topic's or a group's name do not come.
fn text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.extend(i16::try_from(bytes.len()).unwrap_or(i16::MAX).to_be_bytes());
    out.extend(bytes.iter().take(i16::MAX as usize));
}

/// The key of a checkpoint: a group, and the target's partition.
pub(crate) fn checkpoint_key(group: &GroupId, target: &TopicPartition) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, group.as_str());
    text(&mut out, target.topic.as_str());
    out.extend(target.partition.to_be_bytes());
    out
}

/// A checkpoint: what the group has committed at the source, and where it goes on at the target.
pub(crate) fn checkpoint(upstream: Offset, downstream: Offset) -> Vec<u8> {
    let mut out = VERSION.to_be_bytes().to_vec();
    out.extend(upstream.get().to_be_bytes());
    out.extend(downstream.get().to_be_bytes());
    // The commit's metadata, which are the group's own.
    text(&mut out, "");
    out
}

/// The key of a heartbeat: the aliases of a link's clusters.
pub(crate) fn heartbeat_key(source: &str, target: &str) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, source);
    text(&mut out, target);
    out
}

/// A heartbeat: when it was written (ms since 1970).
pub(crate) fn heartbeat(at_ms: i64) -> Vec<u8> {
    let mut out = VERSION.to_be_bytes().to_vec();
    out.extend(at_ms.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn they_have_the_bytes_that_kafkas_classes_write() {
        let target = TopicPartition::new(TopicName::new("us.o").unwrap(), 3);
        let key = checkpoint_key(&GroupId::new("g").unwrap(), &target);
        assert_eq!(key, b"\x00\x01g\x00\x04us.o\x00\x00\x00\x03");
        let value = checkpoint(Offset::new(258), Offset::new(7));
        assert_eq!(
            value,
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00"
        );
        let sync =
            offset_sync(b"\x00\x01o\x00\x00\x00\x02", &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 0]);
        let partition = TopicPartition::new(TopicName::new("o").unwrap(), 2);
        assert_eq!(sync, Ok((partition, Offset::new(9), Offset::new(256))));
        for (key, value) in
            [(&b"\x00\x09o"[..], &[0; 16][..]), (b"\x00\x01o\x00\x00\x00\x02", &[0; 15]), (b"", b"")]
        {
            assert!(offset_sync(key, value).is_err());
        }
        assert_eq!(heartbeat_key("us", "eu"), b"\x00\x02us\x00\x02eu");
        assert_eq!(heartbeat(1), b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01");
        assert_eq!(checkpoints_topic("us").unwrap().as_str(), "us.checkpoints.internal");
    }
}
