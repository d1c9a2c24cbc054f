//! What MirrorMaker 2 writes beside its copies, and its clients look for (`MirrorClient`, `RemoteClusterUtils`): where groups
//! go on, and that a link is alive. Kafka's `connect/mirror-client` has the forms: texts with a length of two bytes, numbers
//! with the greatest byte first, and the version before each value.

use towpath_types::{GroupId, InvalidName, Offset, TopicName, TopicPartition};

const VERSION: i16 = 0;

/// Where the checkpoints of what comes from a cluster are (`DefaultReplicationPolicy.checkpointsTopic`).
///
/// # Errors
/// The alias is too long for it.
pub(crate) fn checkpoints_topic(source: &str) -> Result<TopicName, InvalidName> {
    TopicName::new(&format!("{source}.checkpoints.internal"))
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
        assert_eq!(heartbeat_key("us", "eu"), b"\x00\x02us\x00\x02eu");
        assert_eq!(heartbeat(1), b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01");
        assert_eq!(checkpoints_topic("us").unwrap().as_str(), "us.checkpoints.internal");
    }
}
