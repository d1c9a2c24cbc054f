//! `towpath cluster drain`: moves every replica of a broker elsewhere.

use std::collections::BTreeMap;

use towpath_client::{Admin, ClusterDescription, Reassignment};
use towpath_types::TopicPartition;

use super::moves::{begin, show_planned, table, wait};
use super::placement::{Move, Place, drain};
use super::{Partitions, all_partitions, where_known};
use crate::failure::Failure;
use crate::output::tell;

/// Partitions of new topics may be put on the broker while it is drained: it is looked at again, up to so many times.
const ROUNDS_MAX: usize = 20;

pub(super) async fn run(
    admin: &Admin,
    broker: i32,
    at_once: u32,
    dry_run: bool,
    json: bool,
) -> Result<(), Failure> {
    let at_once = usize::try_from(at_once).unwrap_or(usize::MAX).max(1);
    let mut done = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let cluster = admin.describe_cluster_with_fenced().await?;
        let places = places(&cluster, broker)?;
        let partitions = all_partitions(admin).await?;
        let moving = admin.list_partition_reassignments(None).await?;
        let moves = drain(broker, &places, &targets(&partitions, &moving))
            .map_err(|stuck| no_room(broker, places.len(), &partitions, &stuck))?;
        if dry_run {
            return show_planned(&moves, json);
        }
        let leaving = leaving(broker, &partitions, &moving);
        if moves.is_empty() && leaving.is_empty() {
            table(&done).tell_done("moved", json)?;
            tell_what_is_left(admin, broker, json).await;
            return Ok(());
        }
        wait(admin, &leaving).await?;
        for some in moves.chunks(at_once) {
            begin(admin, some).await?;
            wait(admin, some).await?;
        }
        done.extend(moves);
    }
    Err(Failure::new(format!("broker {broker} is given new partitions again and again"))
        .with_hint("create no topics while it is drained, and type the command again"))
}

/// The brokers that may take replicas.
fn places(cluster: &ClusterDescription, broker: i32) -> Result<Vec<Place>, Failure> {
    if !cluster.brokers.iter().any(|it| it.id == broker) {
        let known: Vec<_> = cluster.brokers.iter().map(|it| it.id.to_string()).collect();
        return Err(Failure::new(format!("there is no broker {broker}: there are {}", known.join(", ")))
            .with_hint("`towpath cluster brokers` shows them"));
    }
    let others = cluster.brokers.iter().filter(|it| it.id != broker && !it.is_fenced);
    let places: Vec<_> = others.map(|it| Place { id: it.id, rack: it.rack.clone() }).collect();
    if places.is_empty() {
        return Err(Failure::new(format!(
            "there is no other broker that could take what broker {broker} holds"
        ))
        .with_hint("start another one, or look at `towpath cluster brokers`: fenced ones take nothing"));
    }
    Ok(places)
}

/// Where every replica will be when the moves that are on their way are over.
fn targets(
    partitions: &Partitions,
    moving: &BTreeMap<TopicPartition, Reassignment>,
) -> BTreeMap<TopicPartition, Vec<i32>> {
    let target = |at: &TopicPartition, replicas: &[i32]| {
        let removing = moving.get(at).map_or(&[][..], |it| &it.removing[..]);
        replicas.iter().copied().filter(|id| !removing.contains(id)).collect()
    };
    partitions.iter().map(|(at, it)| (at.clone(), target(at, &it.replicas))).collect()
}

/// Moves off the broker that somebody has begun already.
fn leaving(
    broker: i32,
    partitions: &Partitions,
    moving: &BTreeMap<TopicPartition, Reassignment>,
) -> Vec<Move> {
    let targets = targets(partitions, moving);
    let leaves = |at: &TopicPartition| moving.get(at).is_some_and(|it| it.removing.contains(&broker));
    let found = partitions.iter().filter(|(at, _)| leaves(at)).map(|(at, it)| Move {
        partition: at.clone(),
        from: it.replicas.clone(),
        to: targets.get(at).cloned().unwrap_or_default(),
    });
    found.collect()
}

fn no_room(broker: i32, others: usize, partitions: &Partitions, stuck: &[TopicPartition]) -> Failure {
    let most =
        stuck.iter().filter_map(|at| partitions.get(at)).map(|it| it.replicas.len()).max().unwrap_or(0);
    let first = stuck.first().map(ToString::to_string).unwrap_or_default();
    let (count, noun) = (stuck.len(), if stuck.len() == 1 { "partition has" } else { "partitions have" });
    let message = format!(
        "broker {broker} cannot be drained: {count} {noun} up to {most} replicas ({first} among them), and {others} other \
         brokers are there"
    );
    Failure::new(message).with_hint(
        "start another broker, or give these topics fewer replicas with `towpath cluster reassign TOPIC --replicas …`",
    )
}

async fn tell_what_is_left(admin: &Admin, broker: i32, json: bool) {
    if json {
        return;
    }
    tell(&format!(
        "broker {broker} holds nothing any more: stop it, and `towpath cluster unregister {broker}` forgets it"
    ));
    // Only a word more: that the quorum cannot be asked changes nothing.
    let quorum = where_known(admin.describe_quorum().await).ok().flatten();
    if quorum.is_some_and(|quorum| quorum.voters.iter().any(|voter| voter.id == broker)) {
        tell(&format!(
            "it is a voter of the metadata quorum: `towpath cluster quorum remove {broker}` before that"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, described};
    use super::*;
    use towpath_client::BrokerInfo;

    fn cluster(brokers: &[(i32, bool)]) -> ClusterDescription {
        let broker = |(id, is_fenced): &(i32, bool)| BrokerInfo {
            id: *id,
            host: "h".into(),
            port: 1,
            rack: Some("r".into()),
            is_fenced: *is_fenced,
        };
        ClusterDescription {
            cluster_id: None,
            controller: None,
            brokers: brokers.iter().map(broker).collect(),
        }
    }

    #[test]
    fn only_brokers_that_are_there_take_replicas() {
        let found = places(&cluster(&[(1, false), (2, true), (3, false)]), 1).unwrap();
        assert_eq!(found, [Place { id: 3, rack: Some("r".into()) }]);
        let fenced = places(&cluster(&[(1, true), (3, false)]), 1).unwrap();
        assert_eq!(fenced.len(), 1, "a broker that is gone can be drained, too");
        let unknown = places(&cluster(&[(1, false)]), 9).unwrap_err();
        assert!(unknown.to_string().contains("no broker 9: there are 1"), "{unknown}");
        assert!(places(&cluster(&[(1, false), (2, true)]), 1).is_err());
    }

    #[test]
    fn moves_that_are_on_their_way_count_as_done() {
        let partitions = Partitions::from([
            (at("t", 0), described(0, Some(1), &[2, 3, 1], &[1, 2])),
            (at("t", 1), described(1, Some(1), &[1, 2], &[1, 2])),
        ]);
        let reassignment = Reassignment { replicas: vec![2, 3, 1], adding: vec![3], removing: vec![1] };
        let moving = BTreeMap::from([(at("t", 0), reassignment)]);
        assert_eq!(targets(&partitions, &moving)[&at("t", 0)], [2, 3]);
        let on_their_way = leaving(1, &partitions, &moving);
        assert_eq!((on_their_way.len(), &on_their_way[0].to[..]), (1, &[2, 3][..]));
        assert_eq!(leaving(2, &partitions, &moving), []);
        let told = no_room(1, 1, &partitions, &[at("t", 1)]).to_string();
        assert!(told.contains("1 partition has up to 2 replicas (t-1 among them)"), "{told}");
    }
}
