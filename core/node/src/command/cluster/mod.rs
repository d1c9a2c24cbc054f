//! `towpath cluster`: brokers, the metadata quorum, and where replicas are.

mod drain;
mod elect;
mod moves;
mod placement;
mod quorum;
mod status;

use std::collections::BTreeMap;

use towpath_client::{Admin, ClientError, ErrorCode, PartitionDescription};
use towpath_types::{TopicName, TopicPartition};

use super::connection::{all_done, connect};
use crate::cli::{Cluster, ClusterCommand, PartitionsArgument};
use crate::failure::Failure;
use crate::output::Listing;

/// Every partition of the cluster.
type Partitions = BTreeMap<TopicPartition, PartitionDescription>;

pub(super) async fn run(command: ClusterCommand, json: bool) -> Result<(), Failure> {
    match command {
        ClusterCommand::Status { cluster } => status::status(&admin(&cluster).await?, json).await,
        ClusterCommand::Brokers { cluster } => status::brokers(&admin(&cluster).await?, json).await,
        ClusterCommand::Quorum { cluster, change: None } => quorum::show(&admin(&cluster).await?, json).await,
        ClusterCommand::Quorum { change: Some(change), .. } => quorum::change(change, json).await,
        ClusterCommand::Reassign { cluster, partitions, to, no_wait, dry_run } => {
            let run = moves::How { wait: !no_wait, dry_run, json };
            moves::reassign(&admin(&cluster).await?, &partitions, &to, run).await
        }
        ClusterCommand::Elect { cluster, partitions, unclean, preferred: _ } => {
            elect::run(&admin(&cluster).await?, &partitions, unclean, json).await
        }
        ClusterCommand::Drain { cluster, broker, at_once, dry_run } => {
            drain::run(&admin(&cluster).await?, broker, at_once, dry_run, json).await
        }
        ClusterCommand::Unregister { cluster, broker } => {
            admin(&cluster).await?.unregister_broker(broker).await?;
            let mut listing = Listing::new(&[("BROKER", "broker")]);
            listing.row(vec![broker.into()]);
            listing.tell_done("forgotten: broker", json)
        }
    }
}

async fn admin(cluster: &Cluster) -> Result<Admin, Failure> {
    Ok(connect(&cluster.bootstrap_server).await?.admin())
}

/// Every partition that there is; topics that are deleted meanwhile are left out.
async fn all_partitions(admin: &Admin) -> Result<Partitions, Failure> {
    let names: Vec<_> = admin.list_topics().await?.into_iter().map(|topic| topic.name).collect();
    if names.is_empty() {
        return Ok(Partitions::new());
    }
    let mut partitions = Partitions::new();
    for (name, described) in admin.describe_topics(&names).await? {
        match described {
            Ok(topic) => insert(&mut partitions, &name, topic.partitions),
            Err(ClientError::UnknownTopic { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(partitions)
}

fn insert(partitions: &mut Partitions, topic: &TopicName, described: Vec<PartitionDescription>) {
    let keyed = described.into_iter().map(|it| (TopicPartition::new(topic.clone(), it.partition), it));
    partitions.extend(keyed);
}

/// The partitions that were named; a whole topic is all of its partitions.
async fn named_partitions(admin: &Admin, named: &[PartitionsArgument]) -> Result<Partitions, Failure> {
    let mut topics: Vec<_> = named.iter().map(|it| it.topic.clone()).collect();
    topics.sort();
    topics.dedup();
    let mut all = Partitions::new();
    for (name, topic) in all_done(admin.describe_topics(&topics).await?)? {
        insert(&mut all, &name, topic.partitions);
    }
    chosen(all, named)
}

fn chosen(mut all: Partitions, named: &[PartitionsArgument]) -> Result<Partitions, Failure> {
    for it in named {
        let Some(partition) = it.partition else { continue };
        if !all.contains_key(&TopicPartition::new(it.topic.clone(), partition)) {
            let count = all.keys().filter(|at| at.topic == it.topic).count();
            return Err(Failure::new(format!("{} has no partition {partition}: it has {count}", it.topic))
                .with_hint("partitions are counted from 0"));
        }
    }
    let wanted = |at: &TopicPartition| {
        named
            .iter()
            .any(|it| it.topic == at.topic && it.partition.is_none_or(|number| number == at.partition))
    };
    all.retain(|at, _| wanted(at));
    Ok(all)
}

/// `None` where the cluster does not have the API: a broker that is alone has no quorum, and moves nothing.
fn where_known<T>(result: Result<T, ClientError>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::UnsupportedApi { .. }) => Ok(None),
        Err(error) if error.code() == Some(ErrorCode::UnsupportedVersion) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(TopicName::new(topic).unwrap(), partition)
    }

    pub(super) fn described(
        partition: i32,
        leader: Option<i32>,
        replicas: &[i32],
        isr: &[i32],
    ) -> PartitionDescription {
        PartitionDescription {
            partition,
            leader,
            leader_epoch: towpath_types::LeaderEpoch::new(0),
            replicas: replicas.to_vec(),
            in_sync_replicas: isr.to_vec(),
            offline_replicas: Vec::new(),
            eligible_leader_replicas: None,
            last_known_eligible_leader_replicas: None,
        }
    }

    #[test]
    fn what_is_named_is_chosen() {
        let mut all = Partitions::new();
        for topic in ["a", "b"] {
            let partitions = (0..3).map(|number| described(number, Some(1), &[1], &[1])).collect();
            insert(&mut all, &TopicName::new(topic).unwrap(), partitions);
        }
        let named = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
        let found = chosen(all.clone(), &named(&["a:1", "b"])).unwrap();
        assert_eq!(
            found.keys().cloned().collect::<Vec<_>>(),
            [at("a", 1), at("b", 0), at("b", 1), at("b", 2)]
        );
        let missing = chosen(all, &named(&["a:3"])).unwrap_err();
        assert!(missing.to_string().contains("no partition 3: it has 3"), "{missing}");
    }
}
