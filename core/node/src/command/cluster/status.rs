//! `towpath cluster status` and `brokers`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use towpath_client::{Admin, BrokerInfo, ConfigResource, LogDirDescription, Reassignment};
use towpath_types::{TopicName, TopicPartition};

use super::{Partitions, all_partitions, where_known};
use crate::failure::Failure;
use crate::output::{Facts, Listing, print_json, print_line};

/// Partitions in trouble that are shown one by one to people.
const SHOWN_MAX: usize = 20;

/// What a partition lacks, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    NoLeader,
    UnderMinIsr,
    UnderReplicated,
}

impl Trouble {
    const fn name(self) -> &'static str {
        match self {
            Self::NoLeader => "no leader",
            Self::UnderMinIsr => "under min ISR",
            Self::UnderReplicated => "under-replicated",
        }
    }
}

pub(super) async fn status(admin: &Admin, json: bool) -> Result<(), Failure> {
    let cluster = admin.describe_cluster_with_fenced().await?;
    let quorum = where_known(admin.describe_quorum().await)?;
    let partitions = all_partitions(admin).await?;
    let moving = where_known(admin.list_partition_reassignments(None).await)?.unwrap_or_default();
    let least = least_in_sync(admin, &partitions).await?;
    let troubles = troubles(&partitions, &moving, &least);
    let having = |trouble: Trouble| troubles.iter().filter(|(_, found)| found.contains(&trouble)).count();
    let ids = |fenced: bool| -> Vec<i32> {
        cluster.brokers.iter().filter(|it| it.is_fenced == fenced).map(|it| it.id).collect()
    };
    let (alive, fenced) = (ids(false), ids(true));
    let topics: BTreeSet<_> = partitions.keys().map(|at| &at.topic).collect();
    let mut facts = Facts::default();
    facts.add("cluster", "cluster_id", json!(cluster.cluster_id));
    facts.add("controller", "controller", json!(quorum.as_ref().map_or(cluster.controller, |it| it.leader)));
    facts.add("controller epoch", "controller_epoch", json!(quorum.as_ref().map(|it| it.leader_epoch)));
    facts.add("voters", "voters", json!(quorum.as_ref().map(|it| it.voters.len())));
    facts.add("brokers alive", "brokers_alive", json!(alive));
    facts.add("brokers fenced", "brokers_fenced", json!(fenced));
    facts.add("topics", "topics", json!(topics.len()));
    facts.add("partitions", "partitions", json!(partitions.len()));
    facts.add("under-replicated", "under_replicated", json!(having(Trouble::UnderReplicated)));
    facts.add("under min ISR", "under_min_isr", json!(having(Trouble::UnderMinIsr)));
    facts.add("without leader", "without_leader", json!(having(Trouble::NoLeader)));
    facts.add("moving", "moving", json!(moving.len()));
    let listing = listing(&troubles, &partitions, if json { usize::MAX } else { SHOWN_MAX });
    if json {
        let mut object = facts.to_json();
        object["troubles"] = listing.to_json();
        return print_json(&object);
    }
    facts.print()?;
    if !troubles.is_empty() {
        print_line("")?;
        listing.print(false)?;
        if troubles.len() > SHOWN_MAX {
            print_line(&format!("… and {} more (--json shows all)", troubles.len() - SHOWN_MAX))?;
        }
    }
    Ok(())
}

fn listing(troubles: &[(TopicPartition, Vec<Trouble>)], partitions: &Partitions, most: usize) -> Listing {
    let mut listing = Listing::new(&[
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("TROUBLE", "trouble"),
        ("LEADER", "leader"),
        ("REPLICAS", "replicas"),
        ("IN SYNC", "in_sync_replicas"),
    ]);
    for (at, found) in troubles.iter().take(most) {
        let partition = partitions.get(at);
        listing.row(vec![
            json!(at.topic.as_str()),
            json!(at.partition),
            json!(found.iter().map(|trouble| trouble.name()).collect::<Vec<_>>()),
            json!(partition.and_then(|it| it.leader)),
            json!(partition.map(|it| &it.replicas)),
            json!(partition.map(|it| &it.in_sync_replicas)),
        ]);
    }
    listing
}

/// `min.insync.replicas` of the topics for which it matters: those that lack a replica.
async fn least_in_sync(
    admin: &Admin,
    partitions: &Partitions,
) -> Result<BTreeMap<TopicName, usize>, Failure> {
    let lacking = partitions.iter().filter(|(_, it)| it.in_sync_replicas.len() < it.replicas.len());
    let topics: BTreeSet<_> = lacking.map(|(at, _)| at.topic.clone()).collect();
    let resources: Vec<_> = topics.into_iter().map(ConfigResource::Topic).collect();
    let mut least = BTreeMap::new();
    if resources.is_empty() {
        return Ok(least);
    }
    for (resource, entries) in admin.describe_configs(&resources).await? {
        // A topic that is deleted meanwhile needs none.
        let (ConfigResource::Topic(topic), Ok(entries)) = (resource, entries) else { continue };
        let entry = entries.into_iter().find(|entry| entry.name == "min.insync.replicas");
        if let Some(value) = entry.and_then(|entry| entry.value?.parse().ok()) {
            least.insert(topic, value);
        }
    }
    Ok(least)
}

/// The partitions that lack something, the worst first.
fn troubles(
    partitions: &Partitions,
    moving: &BTreeMap<TopicPartition, Reassignment>,
    least: &BTreeMap<TopicName, usize>,
) -> Vec<(TopicPartition, Vec<Trouble>)> {
    let mut troubles = Vec::new();
    for (at, partition) in partitions {
        // Replicas that are being added are not missed yet.
        let adding = moving.get(at).map_or(0, |it| it.adding.len());
        let wanted = partition.replicas.len().saturating_sub(adding);
        let in_sync = partition.in_sync_replicas.len();
        let needed = least.get(&at.topic).copied().unwrap_or(1).min(wanted);
        let found: Vec<_> = [
            (Trouble::NoLeader, partition.leader.is_none()),
            (Trouble::UnderMinIsr, in_sync < needed),
            (Trouble::UnderReplicated, in_sync < wanted),
        ]
        .into_iter()
        .filter_map(|(trouble, is_so)| is_so.then_some(trouble))
        .collect();
        if !found.is_empty() {
            troubles.push((at.clone(), found));
        }
    }
    troubles.sort_by(|a, b| (&a.1[0], &a.0).cmp(&(&b.1[0], &b.0)));
    troubles
}

pub(super) async fn brokers(admin: &Admin, json: bool) -> Result<(), Failure> {
    let cluster = admin.describe_cluster_with_fenced().await?;
    let quorum = where_known(admin.describe_quorum().await)?;
    let controller = quorum.map_or(cluster.controller, |quorum| quorum.leader);
    let partitions = all_partitions(admin).await?;
    let alive: Vec<_> = cluster.brokers.iter().filter(|it| !it.is_fenced).map(|it| it.id).collect();
    let dirs = admin.describe_log_dirs(&alive).await?;
    let sizes: BTreeMap<_, _> =
        dirs.into_iter().filter_map(|(id, dirs)| Some((id, size(&dirs.ok()?)))).collect();
    table(&cluster.brokers, controller, &partitions, &sizes).print(json)
}

fn size(dirs: &[LogDirDescription]) -> i64 {
    dirs.iter().flat_map(|dir| &dir.replicas).map(|replica| replica.size_bytes).sum()
}

fn table(
    brokers: &[BrokerInfo],
    controller: Option<i32>,
    partitions: &Partitions,
    sizes: &BTreeMap<i32, i64>,
) -> Listing {
    let mut listing = Listing::new(&[
        ("ID", "id"),
        ("HOST", "host"),
        ("PORT", "port"),
        ("RACK", "rack"),
        ("STATE", "state"),
        ("LEADERS", "leaders"),
        ("REPLICAS", "replicas"),
        ("IN SYNC", "in_sync"),
        ("SIZE", "size_bytes"),
    ]);
    for broker in brokers {
        let id = broker.id;
        let holding = |holds: fn(&towpath_client::PartitionDescription, i32) -> bool| {
            partitions.values().filter(|partition| holds(partition, id)).count()
        };
        let state = match (broker.is_fenced, controller == Some(id)) {
            (true, _) => "fenced",
            (false, true) => "active, controller",
            (false, false) => "active",
        };
        listing.row(vec![
            json!(id),
            json!(broker.host),
            json!(broker.port),
            json!(broker.rack),
            json!(state),
            json!(holding(|it, id| it.leader == Some(id))),
            json!(holding(|it, id| it.replicas.contains(&id))),
            json!(holding(|it, id| it.in_sync_replicas.contains(&id))),
            sizes.get(&id).map_or(Json::Null, |bytes| json!(bytes)),
        ]);
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, described};
    use super::*;

    fn partitions() -> Partitions {
        Partitions::from([
            (at("a", 0), described(0, Some(1), &[1, 2, 3], &[1, 2, 3])),
            (at("a", 1), described(1, Some(2), &[1, 2, 3], &[2])),
            (at("b", 0), described(0, Some(2), &[1, 2], &[2])),
            (at("c", 0), described(0, None, &[1], &[])),
            (at("d", 0), described(0, Some(2), &[2, 3, 1], &[2, 3])),
        ])
    }

    #[test]
    fn partitions_in_trouble_are_told_the_worst_first() {
        let least = BTreeMap::from([("a", 2), ("b", 3)].map(|(name, n)| (TopicName::new(name).unwrap(), n)));
        let move_d = Reassignment { replicas: vec![2, 3, 1], adding: vec![1], removing: vec![] };
        let moving = BTreeMap::from([(at("d", 0), move_d)]);
        let found = troubles(&partitions(), &moving, &least);
        let shown: Vec<_> = found.iter().map(|(at, found)| (at.to_string(), found[0])).collect();
        assert_eq!(
            shown,
            [
                ("c-0".to_owned(), Trouble::NoLeader),
                ("a-1".to_owned(), Trouble::UnderMinIsr),
                // More than all replicas cannot be needed.
                ("b-0".to_owned(), Trouble::UnderMinIsr),
            ]
        );
        let rows = listing(&found, &partitions(), 2).to_json();
        assert_eq!(rows[0]["trouble"], json!(["no leader", "under min ISR", "under-replicated"]));
        assert_eq!((rows.as_array().unwrap().len(), &rows[1]["replicas"]), (2, &json!([1, 2, 3])));
        let without = troubles(&partitions(), &BTreeMap::new(), &BTreeMap::new());
        assert!(without.contains(&(at("d", 0), vec![Trouble::UnderReplicated])));
    }

    #[test]
    fn brokers_are_counted() {
        let broker = |id, is_fenced| BrokerInfo { id, host: "h".into(), port: 9092, rack: None, is_fenced };
        let brokers = [broker(1, false), broker(2, false), broker(3, true)];
        let rows = table(&brokers, Some(2), &partitions(), &BTreeMap::from([(1, 4096)])).to_json();
        assert_eq!(
            (&rows[0]["leaders"], &rows[0]["replicas"], &rows[0]["in_sync"]),
            (&json!(1), &json!(5), &json!(1))
        );
        assert_eq!((&rows[0]["size_bytes"], &rows[0]["state"]), (&json!(4096), &json!("active")));
        assert_eq!((&rows[1]["leaders"], &rows[1]["state"]), (&json!(3), &json!("active, controller")));
        assert_eq!((&rows[2]["size_bytes"], &rows[2]["state"]), (&Json::Null, &json!("fenced")));
    }
}
