//! Goes on where MirrorMaker 2 has left a partition (`begin: mirrormaker`).
//!
//! It has told now and then which record of the source is which of the target (its offset syncs). From the last one on, both
//! sides are read, and what the target has must be what follows at the source; where that ends, the link goes on. What was
//! copied twice by MirrorMaker, which does that after a crash, is passed over.

use std::collections::{BTreeMap, HashSet, VecDeque};

use towpath_client::{Client, IsolationLevel};
use towpath_types::{Offset, TopicPartition};

use super::{LinkConfig, LinkError, state};
use crate::map::{OffsetMap, Run};
use crate::mm2;
use crate::verify::Reader;

/// Records of which is remembered that they were there, to know them again.
const RECENT_MAX: usize = 100_000;

/// The last offset sync of each partition of the source.
pub(super) type Syncs = BTreeMap<TopicPartition, (Offset, Offset)>;

/// Reads what MirrorMaker has told.
pub(super) async fn syncs(config: &LinkConfig, source: &Client) -> Result<Syncs, LinkError> {
    let topic = mm2::offset_syncs_topic(&config.to).map_err(LinkError::Link)?;
    let there =
        source.admin().describe_topics(std::slice::from_ref(&topic)).await.map_err(LinkError::Source)?;
    if there.into_values().all(|described| described.is_err()) {
        return Err(LinkError::NoMaker { topic });
    }
    let mut syncs = Syncs::new();
    let take = |key: &[u8], value: Option<&[u8]>| {
        // What is none of it is somebody else's.
        if let Some(Ok((partition, upstream, downstream))) = value.map(|value| mm2::offset_sync(key, value)) {
            syncs.insert(partition, (upstream, downstream));
        }
    };
    let read = state::read_bytes(source, &topic, Offset::ZERO, IsolationLevel::ReadUncommitted, take).await;
    read.map_err(LinkError::Source)?;
    Ok(syncs)
}

/// The map of a partition that MirrorMaker has mirrored up to the target's end.
pub(super) async fn map(
    sync: Option<&(Offset, Offset)>,
    (source, from): (&Client, &TopicPartition),
    (target, to): (&Client, &TopicPartition),
    ends: (Offset, Offset),
) -> Result<OffsetMap, LinkError> {
    let foreign = |offset: Offset| LinkError::Inherit { partition: to.clone(), offset };
    let (upstream, downstream) = match sync {
        Some(sync) => *sync,
        None => (Offset::ZERO, Offset::ZERO),
    };
    let mut ours = Reader::new(source, from, (upstream, ends.0), true).await.map_err(LinkError::Source)?;
    let mut theirs = Reader::new(target, to, (downstream, ends.1), true).await.map_err(LinkError::Target)?;
    let mut map = OffsetMap::unknown((ours.earliest, theirs.earliest));
    let (mut recent, mut order) = (HashSet::new(), VecDeque::new());
    while let Some(there) = theirs.peek().await.map_err(LinkError::Target)? {
        theirs.take();
        let here = ours.peek().await.map_err(LinkError::Source)?;
        match here.filter(|here| here.hash == there.hash) {
            Some(here) => {
                ours.take();
                let run = Run { source: here.offset, target: there.offset, count: 1 };
                map.push(run).map_err(|_| foreign(there.offset))?;
                recent.insert(there.hash);
                order.push_back(there.hash);
                if order.len() > RECENT_MAX
                    && let Some(old) = order.pop_front()
                {
                    recent.remove(&old);
                }
            }
            None if recent.contains(&there.hash) => {}
            None => return Err(foreign(there.offset)),
        }
    }
    tracing::info!(source = %from, target = %to, through = %map.through(), "goes on where MirrorMaker has left it");
    Ok(map)
}
