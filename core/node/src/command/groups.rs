//! `towpath groups`

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use towpath_client::{Admin, CommittedOffset, OffsetSpec};
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

async fn describe(admin: &Admin, groups: &[GroupId], json: bool) -> Result<(), Failure> {
    let described = all_done(admin.describe_groups(groups).await?)?;
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
    listing.print(json)
}

async fn reset(
    admin: &Admin,
    group: &GroupId,
    topics: &[String],
    to: &ResetTo,
    dry_run: bool,
    json: bool,
) -> Result<(), Failure> {
    let committed = admin.list_group_offsets(group, None).await?;
    let mut partitions: Vec<_> = committed
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
        return Err(Failure::new(format!("the group {group} has committed nothing"))
            .with_hint("name the topics with --topic, or look at `towpath groups list`"));
    }
    let targets = targets(admin, &committed, partitions, to).await?;
    if !dry_run {
        all_done(admin.alter_group_offsets(group, &targets).await?)?;
    }
    let mut listing =
        Listing::new(&[("TOPIC", "topic"), ("PARTITION", "partition"), ("BEFORE", "before"), ("NOW", "now")]);
    for (partition, target) in &targets {
        listing.row(vec![
            json!(partition.topic.as_str()),
            json!(partition.partition),
            json!(committed.get(partition).map(|committed| committed.offset.get())),
            json!(target.offset.get()),
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
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
    partitions: Vec<TopicPartition>,
    to: &ResetTo,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Failure> {
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
            let now = committed.get(partition).map_or(begin, |committed| committed.offset.get());
            now.saturating_add(to.shift_by.unwrap_or(0))
        };
        // As Kafka's own tool does: a target outside of the log becomes its nearest end.
        targets.insert(partition.clone(), CommittedOffset::from(Offset::new(wanted.clamp(begin, end))));
    }
    Ok(targets)
}
