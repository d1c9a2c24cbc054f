//! Where consumer groups of the source would go on at the target (R9).
//!
//! A group's offset at the source is translated by the map of its partition, and committed at the target while the group
//! has no members there, forward only: so a group that fails over goes on where it was, and one that has gone over is
//! left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use towpath_client::{Admin, Client, CommittedOffset};
use towpath_types::{Filter, GroupId, TopicPartition};

use super::announce::Translated;
use super::status::GroupStatus;
use super::{Known, LinkError, Shared};
use crate::map::OffsetMap;

/// How long maps are waited for that movers are asked for.
const MAPS_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Translates the offsets of the groups that the link takes, and commits them. Returns what was translated.
pub(super) async fn sync(
    shared: &Shared,
    source: &Client,
    target: &Client,
) -> Result<Vec<Translated>, LinkError> {
    let (source, target) = (source.admin(), target.admin());
    let groups = wanted(&shared.config.groups, &source).await?;
    let mut told = BTreeMap::new();
    if shared.config.is_shared() {
        // What a group has processed of the other side's records is not known (R9).
        let why = "both sides write to topics of the same name: each side's groups have offsets of their own";
        let told =
            groups.iter().map(|group| (group.as_str().to_owned(), GroupStatus::problem(why.to_owned())));
        *shared.groups.lock() = told.collect();
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for group in groups {
        let status = one(shared, &group, &source, &target, &mut all).await?;
        told.insert(group.as_str().to_owned(), status);
    }
    *shared.groups.lock() = told;
    Ok(all)
}

async fn wanted(filter: &Filter, source: &Admin) -> Result<Vec<GroupId>, LinkError> {
    let listed = source.list_groups().await.map_err(LinkError::Source)?;
    let is_consumers = |kind: &str, protocol: &str| {
        matches!(kind.to_ascii_lowercase().as_str(), "" | "classic" | "consumer")
            && matches!(protocol, "" | "consumer")
    };
    let taken = listed.into_iter().filter(|group| {
        is_consumers(&group.group_type, &group.protocol_type) && filter.takes(&group.group_id)
    });
    Ok(taken.filter_map(|group| GroupId::new(&group.group_id).ok()).collect())
}

async fn one(
    shared: &Shared,
    group: &GroupId,
    source: &Admin,
    target: &Admin,
    all: &mut Vec<Translated>,
) -> Result<GroupStatus, LinkError> {
    let positions = match source.list_group_offsets(group, None).await {
        Ok(positions) => positions,
        Err(error) if error.is_retriable() => return Err(LinkError::Source(error)),
        Err(error) => return Ok(GroupStatus::problem(format!("its offsets at the source: {error}"))),
    };
    let maps = maps(&shared.known, positions.keys()).await;
    let mut translated = BTreeMap::new();
    let mut twice = 0_u64;
    for (partition, position) in &positions {
        let Some((to, map)) = maps.get(partition) else { continue };
        twice = twice.saturating_add(map.twice_at_most(position.offset));
        let downstream = map.translate(position.offset);
        translated.insert(to.clone(), downstream);
        let (group, target, upstream) = (group.clone(), to.clone(), position.offset);
        all.push(Translated { group, target, upstream, downstream });
    }
    let status = |state: &str, committed| GroupStatus {
        state: state.to_owned(),
        partitions: translated.len(),
        twice,
        unmirrored: unmirrored(&shared.known, positions.keys()),
        committed,
        problem: None,
    };
    if translated.is_empty() {
        return Ok(status("no offsets of mirrored partitions", 0));
    }
    let described = target.describe_groups(std::slice::from_ref(group)).await.map_err(LinkError::Target)?;
    let state = match described.into_values().next() {
        Some(Ok(described)) => described.state,
        Some(Err(error)) if error.is_retriable() => return Err(LinkError::Target(error)),
        // A group of the new protocol that is not there is an error.
        _ => "Dead".to_owned(),
    };
    if !matches!(state.as_str(), "Empty" | "Dead") {
        return Ok(status("it has members at the target", 0));
    }
    let there = match state.as_str() {
        "Dead" => BTreeMap::new(),
        _ => target.list_group_offsets(group, None).await.map_err(LinkError::Target)?,
    };
    let ahead = |partition: &TopicPartition, offset| there.get(partition).is_none_or(|at| at.offset < offset);
    let commits: BTreeMap<TopicPartition, CommittedOffset> = translated
        .iter()
        .filter(|(partition, offset)| ahead(partition, **offset))
        .map(|(partition, offset)| (partition.clone(), CommittedOffset::from(*offset)))
        .collect();
    if commits.is_empty() {
        return Ok(status("in step", 0));
    }
    let count = commits.len();
    let results = target.alter_group_offsets(group, &commits).await.map_err(LinkError::Target)?;
    let failed: Vec<String> = results
        .into_iter()
        .filter_map(|(partition, result)| Some(format!("{partition}: {}", result.err()?)))
        .collect();
    match failed.is_empty() {
        true => Ok(status("in step", count)),
        // Somebody has joined meanwhile, or the group was deleted: the next round looks again.
        false => Ok(GroupStatus {
            problem: Some(failed.join("; ")),
            ..status("not committed", count - failed.len())
        }),
    }
}

/// How many records of these partitions the target does not have yet, as the source was known last.
fn unmirrored<'a>(known: &Known, partitions: impl Iterator<Item = &'a TopicPartition>) -> Option<i64> {
    let known = known.lock();
    partitions.filter_map(|partition| known.get(partition)).map(|(_, progress)| progress.lag()).sum()
}

/// The maps of these partitions, of those that are mirrored, and their names at the target.
async fn maps<'a>(
    known: &Known,
    partitions: impl Iterator<Item = &'a TopicPartition>,
) -> BTreeMap<TopicPartition, (TopicPartition, OffsetMap)> {
    let asked: Vec<_> = {
        let known = known.lock();
        let mut asked = Vec::new();
        for partition in partitions {
            if let Some((target, progress)) = known.get(partition) {
                progress.want_map();
                asked.push((partition.clone(), target.clone(), std::sync::Arc::clone(progress)));
            }
        }
        asked
    };
    let deadline = tokio::time::Instant::now() + MAPS_WITHIN;
    let mut maps = BTreeMap::new();
    for (partition, target, progress) in asked {
        loop {
            if let Some(map) = progress.take_map() {
                maps.insert(partition, (target, map));
                break;
            }
            // A partition that stands still is not translated, which is told by what is missing.
            if tokio::time::Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    maps
}
