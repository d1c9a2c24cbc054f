//! The cluster: leaders, reassignments, features, the quorum's members.

use towpath_wire::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use towpath_wire::describe_quorum::{PartitionData, TopicData};
use towpath_wire::elect_leaders::TopicPartitions;
use towpath_wire::list_partition_reassignments::ListPartitionReassignmentsTopics;
use towpath_wire::update_features::FeatureUpdateKey;
use towpath_wire::{
    AddRaftVoterRequest, AlterPartitionReassignmentsRequest, DescribeQuorumRequest, ElectLeadersRequest,
    ListPartitionReassignmentsRequest, RemoveRaftVoterRequest, UnregisterBrokerRequest,
    UpdateFeaturesRequest,
};
use uuid::Uuid;

use super::make;
use crate::talk::{Talk, versions};

pub(super) async fn run(talk: &mut Talk<'_>) {
    make(talk, "placed", 2, &[]).await;
    elect(talk).await;
    reassign(talk).await;
    reassignments(talk).await;
    quorum(talk).await;
    features(talk).await;
    for (case, broker_id) in [("an unknown broker", 7), ("no broker", -1)] {
        talk.call(0, case, &UnregisterBrokerRequest { broker_id }).await;
    }
    voters(talk).await;
}

async fn elect(talk: &mut Talk<'_>) {
    for version in versions::<ElectLeadersRequest>() {
        let of = |name: &str, partitions: &[i32]| ElectLeadersRequest {
            topic_partitions: Some(vec![TopicPartitions {
                topic: name.to_owned(),
                partitions: partitions.to_vec(),
            }]),
            timeout_ms: 10_000,
            ..Default::default()
        };
        talk.call(version, "the leader that is there", &of("placed", &[0])).await;
        talk.call(version, "unknown partition", &of("placed", &[7])).await;
        talk.call(version, "unknown topic", &of("nowhere", &[0])).await;
        talk.call(version, "all", &ElectLeadersRequest { topic_partitions: None, ..of("placed", &[]) }).await;
        talk.call(
            version,
            "none",
            &ElectLeadersRequest { topic_partitions: Some(Vec::new()), ..of("placed", &[]) },
        )
        .await;
        if version >= 1 {
            talk.call(
                version,
                "an unclean one",
                &ElectLeadersRequest { election_type: 1, ..of("placed", &[0]) },
            )
            .await;
            talk.call(
                version,
                "of no such kind",
                &ElectLeadersRequest { election_type: 9, ..of("placed", &[0]) },
            )
            .await;
        }
    }
}

async fn reassign(talk: &mut Talk<'_>) {
    for version in versions::<AlterPartitionReassignmentsRequest>() {
        let of = |name: &str, partition_index, replicas: Option<&[i32]>| AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic {
                name: name.to_owned(),
                partitions: vec![ReassignablePartition {
                    partition_index,
                    replicas: replicas.map(<[i32]>::to_vec),
                }],
            }],
            ..Default::default()
        };
        talk.call(version, "where it is", &of("placed", 0, Some(&[1]))).await;
        talk.call(version, "to an unknown broker", &of("placed", 0, Some(&[7]))).await;
        talk.call(version, "to nobody", &of("placed", 0, Some(&[]))).await;
        talk.call(version, "to one twice", &of("placed", 0, Some(&[1, 1]))).await;
        talk.call(version, "taken back", &of("placed", 0, None)).await;
        talk.call(version, "unknown topic", &of("nowhere", 0, Some(&[1]))).await;
        talk.call(version, "unknown partition", &of("placed", 7, Some(&[1]))).await;
        talk.call(version, "none", &AlterPartitionReassignmentsRequest::default()).await;
        if version >= 1 {
            let mut request = of("placed", 0, Some(&[1, 7]));
            request.allow_replication_factor_change = false;
            talk.call(version, "another number of replicas", &request).await;
        }
    }
}

async fn reassignments(talk: &mut Talk<'_>) {
    let of = |name: &str| ListPartitionReassignmentsRequest {
        topics: Some(vec![ListPartitionReassignmentsTopics {
            name: name.to_owned(),
            partition_indexes: vec![0],
        }]),
        ..Default::default()
    };
    talk.call(0, "all", &ListPartitionReassignmentsRequest::default()).await;
    talk.call(0, "a topic's", &of("placed")).await;
    talk.call(0, "unknown topic", &of("nowhere")).await;
}

async fn quorum(talk: &mut Talk<'_>) {
    for version in versions::<DescribeQuorumRequest>() {
        let of = |name: &str, partition_index| DescribeQuorumRequest {
            topics: vec![TopicData {
                topic_name: name.to_owned(),
                partitions: vec![PartitionData { partition_index }],
            }],
        };
        let request = of("__cluster_metadata", 0);
        talk.call_naming(version, "of the metadata", &request, |it, names| {
            let voters = it.topics.iter().flat_map(|it| &it.partitions).flat_map(|it| &it.current_voters);
            voters.for_each(|it| names.id(it.replica_directory_id));
        })
        .await;
        talk.call(version, "unknown partition", &of("__cluster_metadata", 1)).await;
        talk.call(version, "of a topic", &of("placed", 0)).await;
        talk.call(version, "none", &DescribeQuorumRequest::default()).await;
    }
}

async fn features(talk: &mut Talk<'_>) {
    for version in versions::<UpdateFeaturesRequest>() {
        let of = |feature: &str, max_version_level, upgrade_type| UpdateFeaturesRequest {
            feature_updates: vec![FeatureUpdateKey {
                feature: feature.to_owned(),
                max_version_level,
                upgrade_type: if version >= 1 { upgrade_type } else { 1 },
                ..Default::default()
            }],
            validate_only: version >= 1,
            ..Default::default()
        };
        talk.call(version, "unknown feature", &of("no.such.feature", 1, 1)).await;
        talk.call(version, "no name", &of("", 1, 1)).await;
        talk.call(version, "a level that nobody has", &of("transaction.version", 99, 1)).await;
        talk.call(version, "a level below zero", &of("transaction.version", -3, 1)).await;
        talk.call(version, "a lower level as an upgrade", &of("transaction.version", 1, 1)).await;
        talk.call(version, "the level that is there", &of("transaction.version", 2, 1)).await;
        let mut request = of("transaction.version", 2, 1);
        request.feature_updates.clear();
        talk.call(version, "none", &request).await;
        if version >= 1 {
            talk.call(version, "a lower level, safely", &of("transaction.version", 1, 2)).await;
            talk.call(version, "no such kind of upgrade", &of("transaction.version", 2, 9)).await;
            talk.call(version, "an unknown feature that is not wanted", &of("no.such.feature", 0, 3)).await;
            for (case, upgrade) in [("metadata.version, safely", 2), ("metadata.version, not safely", 3)] {
                talk.call(version, case, &of("metadata.version", 29, upgrade)).await;
                let no_level = format!("no {case}");
                talk.call(version, &no_level, &of("metadata.version", 0, upgrade)).await;
            }
            let for_good = |level, upgrade_type| UpdateFeaturesRequest {
                validate_only: false,
                ..of("group.version", level, upgrade_type)
            };
            talk.call(version, "a feature is switched off", &for_good(0, 2)).await;
            talk.call(version, "and not by an upgrade", &for_good(0, 1)).await;
            talk.call(version, "and on again", &for_good(1, 1)).await;
        }
    }
}

async fn voters(talk: &mut Talk<'_>) {
    for version in versions::<AddRaftVoterRequest>() {
        let request = AddRaftVoterRequest {
            cluster_id: Some("another-cluster-000000".to_owned()),
            timeout_ms: 1_000,
            voter_id: 7,
            voter_directory_id: Uuid::from_u128(7),
            ..Default::default()
        };
        talk.call(version, "of another cluster", &request).await;
        talk.call(version, "without a listener", &AddRaftVoterRequest { cluster_id: None, ..request }).await;
    }
    let request = RemoveRaftVoterRequest {
        cluster_id: Some("another-cluster-000000".to_owned()),
        voter_id: 7,
        voter_directory_id: Uuid::from_u128(7),
    };
    talk.call(0, "of another cluster", &request).await;
    talk.call(0, "an unknown voter", &RemoveRaftVoterRequest { cluster_id: None, ..request }).await;
}
