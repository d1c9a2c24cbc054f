//! `towpath groups`: of both protocols of consumer groups, and share groups.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use towpath_client::{
    Admin, CommittedOffset, GroupDescription, GroupMemberDescription, OffsetSpec, PerItem, ShareGroupOffset,
};
use towpath_types::{GroupId, Offset, TopicPartition};

use super::connection::{all_done, connect, group_ids, sorted_out};
use crate::cli::{Groups, ResetTo};
use crate::failure::Failure;
use crate::output::{Listing, tell};

pub(super) async fn run(command: Groups, json: bool) -> Result<(), Failure> {
    match command {
        Groups::List { cluster } => list(&connect(&cluster.bootstrap_server).await?.admin(), json).await,
        Groups::Describe { cluster, groups } => {
            describe(&connect(&cluster.bootstrap_server).await?.admin(), &group_ids(&groups)?, json).await
        }
        Groups::Reset { cluster, group, topics, to, dry_run } => {
            let admin = connect(&cluster.bootstrap_server).await?.admin();
            reset(&admin, &GroupId::new(&group)?, &topics, &to, dry_run, json).await
        }
        Groups::Delete { cluster, groups } => {
            let groups = group_ids(&groups)?;
            let deleted = connect(&cluster.bootstrap_server).await?.admin().delete_groups(&groups).await?;
            let (done, failed) = sorted_out(deleted);
            let mut listing = Listing::new(&[("GROUP", "group")]);
            for (group, ()) in done {
                listing.row(vec![json!(group.as_str())]);
            }
            listing.tell_done("deleted", json)?;
            failed
        }
    }
}

async fn list(admin: &Admin, json: bool) -> Result<(), Failure> {
    let mut groups = admin.list_groups().await?;
    groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    let mut listing = Listing::new(&[
        ("GROUP", "group"),
        ("TYPE", "type"),
        ("STATE", "state"),
        ("PROTOCOL", "protocol_type"),
    ]);
    for group in groups {
        listing.row(vec![
            json!(group.group_id),
            json!(group.group_type),
            json!(group.state),
            json!(group.protocol_type),
        ]);
    }
    listing.print(json)
}

/// The ends of partitions, as far as they can be asked.
async fn ends(
    admin: &Admin,
    partitions: impl Iterator<Item = TopicPartition>,
) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let wanted: Vec<_> = partitions.map(|partition| (partition, OffsetSpec::Latest)).collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let listed = admin.list_offsets(&wanted).await?;
    Ok(listed.into_iter().filter_map(|(at, listed)| Some((at, listed.ok()?.offset?.get()))).collect())
}

/// How Kafka names the type of share groups.
const SHARE: &str = "share";

async fn describe(admin: &Admin, groups: &[GroupId], json: bool) -> Result<(), Failure> {
    let described = all_done(admin.describe_groups(groups).await?)?;
    let (shared, others): (Vec<_>, Vec<_>) =
        described.into_iter().partition(|(_, group)| group.group_type == SHARE);
    let mut listings = Vec::new();
    if !others.is_empty() {
        listings.push(describe_consuming(admin, others).await?);
    }
    if !shared.is_empty() {
        listings.push(describe_sharing(admin, shared).await?);
    }
    Listing::print_all(&listings, json)
}

/// Share groups: several members may read from one partition, a row each.
async fn describe_sharing(
    admin: &Admin,
    described: Vec<(GroupId, GroupDescription)>,
) -> Result<Listing, Failure> {
    let mut listing = Listing::new(&[
        ("GROUP", "group"),
        ("TYPE", "type"),
        ("STATE", "state"),
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("START", "start"),
        ("LAG", "lag"),
        ("MEMBER", "member"),
        ("CLIENT", "client"),
        ("HOST", "host"),
    ]);
    for (id, group) in described {
        let offsets = share_offsets(admin.list_share_group_offsets(&id, None).await?)?;
        let assigned = group.members.iter().flat_map(|member| &member.assignment);
        let mut partitions: Vec<Option<&TopicPartition>> = offsets.keys().chain(assigned).map(Some).collect();
        partitions.sort();
        partitions.dedup();
        // What belongs to no partition: members that have none; or nothing at all but the group.
        partitions.push(None);
        for partition in partitions {
            let has = |it: &&GroupMemberDescription| match partition {
                Some(partition) => it.assignment.contains(partition),
                None => it.assignment.is_empty(),
            };
            let mut members: Vec<_> = group.members.iter().filter(has).map(Some).collect();
            if members.is_empty() && (partition.is_some() || (offsets.is_empty() && group.members.is_empty()))
            {
                members.push(None);
            }
            let at = partition.and_then(|partition| offsets.get(partition));
            for member in members {
                listing.row(vec![
                    json!(id.as_str()),
                    json!(group.group_type),
                    json!(group.state),
                    json!(partition.map(|at| at.topic.as_str())),
                    json!(partition.map(|at| at.partition)),
                    json!(at.and_then(|at| at.start_offset).map(Offset::get)),
                    json!(at.and_then(|at| at.lag)),
                    json!(member.map(|it| &it.member_id)),
                    json!(member.map(|it| &it.client_id)),
                    json!(member.map(|it| &it.client_host)),
                ]);
            }
        }
    }
    Ok(listing)
}

/// Where a share group is.
fn share_offsets(
    told: PerItem<TopicPartition, ShareGroupOffset>,
) -> Result<BTreeMap<TopicPartition, ShareGroupOffset>, Failure> {
    Ok(all_done(told)?.into_iter().collect())
}

async fn describe_consuming(
    admin: &Admin,
    described: Vec<(GroupId, GroupDescription)>,
) -> Result<Listing, Failure> {
    let mut listing = Listing::new(&[
        ("GROUP", "group"),
        ("STATE", "state"),
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("COMMITTED", "committed"),
        ("END", "end"),
        ("LAG", "lag"),
        ("MEMBER", "member"),
        ("CLIENT", "client"),
        ("HOST", "host"),
    ]);
    for (id, group) in described {
        let committed = admin.list_group_offsets(&id, None).await?;
        let owners: BTreeMap<_, _> = group
            .members
            .iter()
            .flat_map(|member| member.assignment.iter().map(move |partition| (partition.clone(), member)))
            .collect();
        let mut partitions: Vec<_> = committed.keys().chain(owners.keys()).cloned().collect();
        partitions.sort();
        partitions.dedup();
        let ends = ends(admin, partitions.iter().cloned()).await?;
        for partition in &partitions {
            let at = committed.get(partition).map(|committed| committed.offset.get());
            let end = ends.get(partition).copied();
            let lag = at.zip(end).map(|(at, end)| (end - at).max(0));
            let owner = owners.get(partition);
            listing.row(vec![
                json!(id.as_str()),
                json!(group.state),
                json!(partition.topic.as_str()),
                json!(partition.partition),
                json!(at),
                json!(end),
                json!(lag),
                json!(owner.map(|member| &member.member_id)),
                json!(owner.map(|member| &member.client_id)),
                json!(owner.map(|member| &member.client_host)),
            ]);
        }
        for member in group.members.iter().filter(|member| member.assignment.is_empty()) {
            let mut row = vec![json!(id.as_str()), json!(group.state)];
            row.extend([Json::Null, Json::Null, Json::Null, Json::Null, Json::Null]);
            row.extend([json!(member.member_id), json!(member.client_id), json!(member.client_host)]);
            listing.row(row);
        }
        if partitions.is_empty() && group.members.is_empty() {
            let mut row = vec![json!(id.as_str()), json!(group.state)];
            row.resize(10, Json::Null);
            listing.row(row);
        }
    }
    Ok(listing)
}

/// Whether it is a share group; what is wrong with another one shows when something is done to it.
async fn is_share_group(admin: &Admin, group: &GroupId) -> Result<bool, Failure> {
    let described = admin.describe_groups(std::slice::from_ref(group)).await?;
    Ok(described.into_values().any(|it| it.is_ok_and(|it| it.group_type == SHARE)))
}

async fn reset(
    admin: &Admin,
    group: &GroupId,
    topics: &[String],
    to: &ResetTo,
    dry_run: bool,
    json: bool,
) -> Result<(), Failure> {
    let is_shared = is_share_group(admin, group).await?;
    let before: BTreeMap<TopicPartition, i64> = if is_shared {
        let starts = share_offsets(admin.list_share_group_offsets(group, None).await?)?;
        starts.into_iter().filter_map(|(at, it)| Some((at, it.start_offset?.get()))).collect()
    } else {
        let committed = admin.list_group_offsets(group, None).await?;
        committed.into_iter().map(|(at, it)| (at, it.offset.get())).collect()
    };
    let mut partitions: Vec<_> = before
        .keys()
        .filter(|at| topics.is_empty() || topics.iter().any(|topic| topic == at.topic.as_str()))
        .cloned()
        .collect();
    for topic in super::connection::topic_names(topics)? {
        for (name, described) in all_done(admin.describe_topics(std::slice::from_ref(&topic)).await?)? {
            partitions.extend(
                described.partitions.iter().map(|it| TopicPartition::new(name.clone(), it.partition)),
            );
        }
    }
    partitions.sort();
    partitions.dedup();
    if partitions.is_empty() {
        let nothing = if is_shared { "has begun nowhere" } else { "has committed nothing" };
        return Err(Failure::new(format!("the group {group} {nothing}"))
            .with_hint("name the topics with --topic, or look at `towpath groups list`"));
    }
    let targets = targets(admin, &before, partitions, to).await?;
    if !dry_run {
        let altered = if is_shared {
            admin.alter_share_group_offsets(group, &targets).await?
        } else {
            let committed = targets.iter().map(|(at, offset)| (at.clone(), CommittedOffset::from(*offset)));
            admin.alter_group_offsets(group, &committed.collect()).await?
        };
        all_done(altered)?;
    }
    let mut listing =
        Listing::new(&[("TOPIC", "topic"), ("PARTITION", "partition"), ("BEFORE", "before"), ("NOW", "now")]);
    for (partition, target) in &targets {
        listing.row(vec![
            json!(partition.topic.as_str()),
            json!(partition.partition),
            json!(before.get(partition)),
            json!(target.get()),
        ]);
    }
    listing.print(json)?;
    if dry_run && !json {
        tell("nothing was changed (--dry-run)");
    }
    Ok(())
}

async fn targets(
    admin: &Admin,
    before: &BTreeMap<TopicPartition, i64>,
    partitions: Vec<TopicPartition>,
    to: &ResetTo,
) -> Result<BTreeMap<TopicPartition, Offset>, Failure> {
    let listed = async |spec: OffsetSpec| -> Result<BTreeMap<TopicPartition, Option<i64>>, Failure> {
        let wanted: Vec<_> = partitions.iter().map(|partition| (partition.clone(), spec)).collect();
        let listed = all_done(admin.list_offsets(&wanted).await?)?;
        Ok(listed.into_iter().map(|(at, listed)| (at, listed.offset.map(Offset::get))).collect())
    };
    let begins = listed(OffsetSpec::Earliest).await?;
    let ends = listed(OffsetSpec::Latest).await?;
    let by_time = match to.to_timestamp {
        Some(timestamp_ms) => listed(OffsetSpec::Timestamp(timestamp_ms)).await?,
        None => BTreeMap::new(),
    };
    let mut targets = BTreeMap::new();
    for partition in &partitions {
        let known = |offsets: &BTreeMap<_, Option<i64>>| offsets.get(partition).copied().flatten();
        let (begin, end) = (known(&begins).unwrap_or(0), known(&ends).unwrap_or(0));
        let wanted = if to.to_earliest {
            begin
        } else if to.to_latest {
            end
        } else if let Some(offset) = to.to_offset {
            offset
        } else if to.to_timestamp.is_some() {
            known(&by_time).unwrap_or(end)
        } else {
            let now = before.get(partition).copied().unwrap_or(begin);
            now.saturating_add(to.shift_by.unwrap_or(0))
        };
        // As Kafka's own tool does: a target outside of the log becomes its nearest end.
        targets.insert(partition.clone(), Offset::new(wanted.clamp(begin, end)));
    }
    Ok(targets)
}
