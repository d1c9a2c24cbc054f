//! What nodes ask the active controller.

use towpath_controller::decide::{
    self, AdminError, AlterPartition, Heartbeat, IsrMember, PartitionAnswer, PartitionIsr, Registration,
    ReplicaStates, TopicIsrs,
};
use towpath_controller::{FeatureRange, PeerEndpoint, RegisterBroker};
use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, TopicId};
use towpath_wire::alter_partition::{PartitionData, TopicData, response};
use towpath_wire::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest, AlterPartitionResponse,
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, BrokerHeartbeatRequest,
    BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse, ErrorCode,
};

use super::controller::{ActiveController, ControllerRequest};
use super::lifecycle::{CLIENTS, NODES};
use super::peer::Lane;
use super::replica_reports::state_of;

impl ControllerRequest for BrokerRegistrationRequest {
    const LANE: Lane = Lane::Heartbeat;

    fn code(response: &BrokerRegistrationResponse) -> ErrorCode {
        ErrorCode::from_code(response.error_code)
    }

    async fn answer(self, controller: &ActiveController) -> BrokerRegistrationResponse {
        let failed = |code: ErrorCode| BrokerRegistrationResponse {
            error_code: code.code(),
            ..BrokerRegistrationResponse::default()
        };
        let Some(registration) = registration(&self) else { return failed(ErrorCode::InvalidRegistration) };
        let id = registration.broker.broker_id;
        let decided = controller
            .decide(|image, liveness, now_ms| {
                let is_alive = liveness.session_alive(id, now_ms);
                decide::register_broker(image, controller.policy(), &registration, is_alive)
            })
            .await;
        match decided {
            Ok((epoch, _)) => {
                controller.heard(id, epoch, Offset::ZERO);
                BrokerRegistrationResponse {
                    broker_epoch: epoch.get(),
                    ..BrokerRegistrationResponse::default()
                }
            }
            Err(code) => failed(code),
        }
    }
}

fn registration(request: &BrokerRegistrationRequest) -> Option<Registration> {
    let listener = |name: &str| request.listeners.iter().find(|listener| listener.name == name);
    let (clients, nodes) = (listener(CLIENTS)?, listener(NODES)?);
    let id = BrokerId::new(request.broker_id);
    let mut broker = RegisterBroker::new(id, request.incarnation_id, clients.host.clone(), clients.port);
    broker.peer = Some(PeerEndpoint { host: nodes.host.clone(), port: nodes.port });
    broker.rack.clone_from(&request.rack);
    broker.fenced = true;
    broker.directory = request.log_dirs.first().copied();
    broker.further_directories = request.log_dirs.iter().skip(1).copied().collect();
    broker.features = request
        .features
        .iter()
        .map(|feature| {
            let range =
                FeatureRange { min: feature.min_supported_version, max: feature.max_supported_version };
            (feature.name.clone(), range)
        })
        .collect();
    Some(Registration {
        cluster_id: request.cluster_id.clone(),
        broker,
        previous_broker_epoch: BrokerEpoch::new(request.previous_broker_epoch),
    })
}

impl ControllerRequest for BrokerHeartbeatRequest {
    const LANE: Lane = Lane::Heartbeat;

    fn code(response: &BrokerHeartbeatResponse) -> ErrorCode {
        ErrorCode::from_code(response.error_code)
    }

    async fn answer(self, controller: &ActiveController) -> BrokerHeartbeatResponse {
        let (id, epoch) = (BrokerId::new(self.broker_id), BrokerEpoch::new(self.broker_epoch));
        let next = Offset::new(self.current_metadata_offset).next();
        // Heard before anything is decided: a decision may take longer than a session has left.
        controller.heard(id, epoch, next);
        let mut moves = false;
        let decided = controller
            .decide(|image, liveness, _| {
                let beat = Heartbeat {
                    broker_id: id,
                    broker_epoch: epoch,
                    metadata_offset: next,
                    want_fence: self.want_fence,
                    want_shutdown: self.want_shut_down,
                    lowest_offset_of_others: liveness.lowest_offset_of_others(image, id),
                    shutdown_offset: liveness.shutdown_offset(id),
                };
                let decision = decide::heartbeat(image, controller.policy(), &beat)?;
                moves = !decision.records.is_empty();
                Ok(decision)
            })
            .await;
        match decided {
            Ok((answer, image)) => {
                if answer.in_controlled_shutdown && moves {
                    controller.moved_leaders(id, image.next_offset());
                }
                if answer.should_shut_down {
                    controller.ended(id, epoch);
                }
                BrokerHeartbeatResponse {
                    is_caught_up: answer.is_caught_up,
                    is_fenced: answer.is_fenced,
                    should_shut_down: answer.should_shut_down,
                    ..BrokerHeartbeatResponse::default()
                }
            }
            Err(code) => {
                BrokerHeartbeatResponse { error_code: code.code(), ..BrokerHeartbeatResponse::default() }
            }
        }
    }
}

impl ControllerRequest for AssignReplicasToDirsRequest {
    const LANE: Lane = Lane::Requests;

    fn code(response: &AssignReplicasToDirsResponse) -> ErrorCode {
        ErrorCode::from_code(response.error_code)
    }

    async fn answer(self, controller: &ActiveController) -> AssignReplicasToDirsResponse {
        for directory in &self.directories {
            let named = directory.topics.iter().flat_map(|topic| {
                let id = TopicId::new(topic.topic_id);
                topic.partitions.iter().map(move |partition| (id, partition.partition_index))
            });
            let request = ReplicaStates {
                broker_id: BrokerId::new(self.broker_id),
                broker_epoch: BrokerEpoch::new(self.broker_epoch),
                state: state_of(directory.id),
                partitions: named.collect(),
            };
            let decided = controller
                .decide(|image, _, _| decide::set_replica_states(image, controller.policy(), &request))
                .await;
            if let Err(code) = decided {
                return AssignReplicasToDirsResponse {
                    error_code: code.code(),
                    ..AssignReplicasToDirsResponse::default()
                };
            }
        }
        AssignReplicasToDirsResponse::default()
    }
}

impl ControllerRequest for AlterPartitionRequest {
    const LANE: Lane = Lane::Requests;

    fn code(response: &AlterPartitionResponse) -> ErrorCode {
        ErrorCode::from_code(response.error_code)
    }

    async fn answer(self, controller: &ActiveController) -> AlterPartitionResponse {
        let request = AlterPartition {
            broker_id: BrokerId::new(self.broker_id),
            broker_epoch: BrokerEpoch::new(self.broker_epoch),
            topics: self.topics.iter().map(isrs).collect(),
        };
        let decided = controller
            .decide_or_confirm(|image, _, _| decide::alter_partition(image, controller.policy(), &request))
            .await;
        match decided {
            Ok((answers, _)) => {
                let topics = self.topics.iter().zip(answers).map(|(topic, answers)| response::TopicData {
                    topic_id: topic.topic_id,
                    partitions: topic
                        .partitions
                        .iter()
                        .zip(answers)
                        .map(|(partition, answer)| answer_of(partition.partition_index, answer))
                        .collect(),
                });
                AlterPartitionResponse { topics: topics.collect(), ..AlterPartitionResponse::default() }
            }
            Err(code) => {
                AlterPartitionResponse { error_code: code.code(), ..AlterPartitionResponse::default() }
            }
        }
    }
}

fn isrs(topic: &TopicData) -> TopicIsrs {
    let isr = |partition: &PartitionData| PartitionIsr {
        partition: partition.partition_index,
        leader_epoch: LeaderEpoch::new(partition.leader_epoch),
        partition_epoch: PartitionEpoch::new(partition.partition_epoch),
        isr: partition
            .new_isr_with_epochs
            .iter()
            .map(|member| IsrMember {
                broker_id: BrokerId::new(member.broker_id),
                broker_epoch: BrokerEpoch::new(member.broker_epoch),
            })
            .collect(),
        recovering: partition.leader_recovery_state != 0,
    };
    TopicIsrs {
        topic_id: TopicId::new(topic.topic_id),
        partitions: topic.partitions.iter().map(isr).collect(),
    }
}

fn answer_of(index: i32, answer: Result<PartitionAnswer, ErrorCode>) -> response::PartitionData {
    match answer {
        Ok(state) => response::PartitionData {
            partition_index: index,
            leader_id: state.leader.map_or(-1, BrokerId::get),
            leader_epoch: state.leader_epoch.get(),
            isr: state.isr.iter().map(|id| id.get()).collect(),
            leader_recovery_state: i8::from(state.recovering),
            partition_epoch: state.partition_epoch.get(),
            ..response::PartitionData::default()
        },
        Err(code) => response::PartitionData {
            partition_index: index,
            error_code: code.code(),
            ..response::PartitionData::default()
        },
    }
}

impl ControllerRequest for AllocateProducerIdsRequest {
    const LANE: Lane = Lane::Requests;

    fn code(response: &AllocateProducerIdsResponse) -> ErrorCode {
        ErrorCode::from_code(response.error_code)
    }

    async fn answer(self, controller: &ActiveController) -> AllocateProducerIdsResponse {
        let (id, epoch) = (BrokerId::new(self.broker_id), BrokerEpoch::new(self.broker_epoch));
        let decided = controller
            .decide(|image, _, _| {
                // A block that an earlier incarnation asked for is not given to this one (KAFKA-20114).
                if image.broker(id).is_none_or(|broker| broker.epoch != epoch) {
                    return Err(AdminError::new(
                        ErrorCode::StaleBrokerEpoch,
                        "The broker has another epoch.",
                    ));
                }
                decide::allocate_producer_ids(image, id)
            })
            .await;
        match decided {
            Ok((block, _)) => AllocateProducerIdsResponse {
                producer_id_start: block.first.get(),
                producer_id_len: i32::try_from(block.count).unwrap_or(i32::MAX),
                ..AllocateProducerIdsResponse::default()
            },
            Err(code) => AllocateProducerIdsResponse {
                error_code: code.code(),
                ..AllocateProducerIdsResponse::default()
            },
        }
    }
}
