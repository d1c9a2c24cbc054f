//! A client that uses the classic protocol: it gives up all that it has before it joins again.

use towpath_wire::consumer_protocol::TopicPartition;
use towpath_wire::{ConsumerProtocolAssignment, Decoder};

use super::client::{Doing, Place};
use super::*;
use crate::topics::Topics;

fn subscription_of(topics: &[String]) -> Bytes {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    subscription(&topics)
}

fn topics_of(metadata: &Bytes) -> Vec<String> {
    let mut decoder = Decoder::new(metadata.clone());
    let version = decoder.get_i16().unwrap();
    ConsumerProtocolSubscription::decode(&mut decoder, version).unwrap().topics
}

impl Simulation {
    pub(super) fn step_classic(&mut self, index: usize) {
        match self.clients[index].doing.clone() {
            Doing::Working { .. } if self.random.random_bool(0.03) => self.leave_classic(index),
            Doing::Working { generation } if self.random.random_bool(0.3) => {
                self.commit_classic(index, generation)
            }
            _ if self.random.random_bool(0.02) => self.clients[index].rejoin(),
            _ => self.calm_classic(index),
        }
    }

    pub(super) fn calm_classic(&mut self, index: usize) {
        match self.clients[index].doing.clone() {
            Doing::Nothing => self.join_classic(index),
            Doing::Joined { generation, protocol, leads } => {
                self.sync_classic(index, generation, &protocol, leads.as_deref());
            }
            Doing::Working { generation } => self.heartbeat_classic(index, generation),
            Doing::Joining(_) | Doing::Syncing { .. } => {}
        }
    }

    fn join_classic(&mut self, index: usize) {
        // Eager: whoever joins has given up everything before.
        self.clients[index].owned.clear();
        let client = self.clients[index].clone();
        let protocol =
            JoinGroupRequestProtocol { name: "range".into(), metadata: subscription_of(&client.topics) };
        let request = JoinGroupRequest {
            group_id: GROUP.into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 20_000,
            member_id: client.id.clone(),
            group_instance_id: client.instance.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..Default::default()
        };
        let context = ClientContext { client_id: format!("c{index}"), host: "/10.0.0.1".into() };
        let waiter = self.ask(|machine, now, waiter, out| {
            machine.join_group(now, waiter, &context, request, 9, out);
        });
        self.clients[index].doing = Doing::Joining(waiter);
    }

    /// Deals out the partitions of each topic among those who subscribe to it.
    fn deal(&self, members: &[(String, Vec<String>)]) -> Vec<SyncGroupRequestAssignment> {
        let mut assignments: BTreeMap<&str, Vec<TopicPartition>> =
            members.iter().map(|(member, _)| (member.as_str(), Vec::new())).collect();
        for topic in TOPICS {
            let subscribers: Vec<&str> = members
                .iter()
                .filter(|(_, topics)| topics.iter().any(|name| name == topic))
                .map(|(member, _)| member.as_str())
                .collect();
            let partitions = self.topics.by_name(topic).map_or(0, |topic| topic.partitions);
            for (place, member) in subscribers.iter().enumerate() {
                let mine =
                    (0..partitions).filter(|partition| *partition as usize % subscribers.len() == place);
                let partitions = mine.collect();
                assignments.get_mut(member).unwrap().push(TopicPartition { topic: topic.into(), partitions });
            }
        }
        let encode = |(member, assigned_partitions): (&str, Vec<TopicPartition>)| {
            let mut bytes = BytesMut::new();
            bytes.put_i16(1);
            let message = ConsumerProtocolAssignment { assigned_partitions, user_data: None };
            message.encode(&mut bytes, 1).unwrap();
            SyncGroupRequestAssignment { member_id: member.to_owned(), assignment: bytes.freeze() }
        };
        assignments.into_iter().map(encode).collect()
    }

    fn sync_classic(
        &mut self,
        index: usize,
        generation: i32,
        protocol: &str,
        leads: Option<&[(String, Vec<String>)]>,
    ) {
        let client = self.clients[index].clone();
        let request = SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id: generation,
            member_id: client.id,
            group_instance_id: client.instance,
            protocol_type: Some("consumer".into()),
            protocol_name: Some(protocol.to_owned()),
            assignments: leads.map(|members| self.deal(members)).unwrap_or_default(),
        };
        let waiter = self.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, request, out));
        self.clients[index].doing = Doing::Syncing { waiter, generation };
    }

    fn heartbeat_classic(&mut self, index: usize, generation: i32) {
        let client = self.clients[index].clone();
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: generation,
            member_id: client.id,
            group_instance_id: client.instance,
        };
        let response = self.act(|machine, now, out| machine.heartbeat(now, &request, out));
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {}
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.clients[index].reset(),
            _ => self.clients[index].rejoin(),
        }
    }

    fn leave_classic(&mut self, index: usize) {
        let client = self.clients[index].clone();
        let request = LeaveGroupRequest {
            group_id: GROUP.into(),
            members: vec![MemberIdentity {
                member_id: if self.random.random_bool(0.8) { client.id } else { String::new() },
                group_instance_id: client.instance,
                ..Default::default()
            }],
            ..Default::default()
        };
        self.act(|machine, now, out| machine.leave_group(now, &request, out));
        self.clients[index].reset();
    }

    fn commit_classic(&mut self, index: usize, generation: i32) {
        let client = self.clients[index].clone();
        let mut request = committing(&client.id, generation, self.random.random_range(0..1_000));
        request.topics[0].name = "t0".into();
        request.group_instance_id = client.instance;
        self.ask(|machine, now, waiter, out| machine.commit_offsets(now, waiter, &request, 8, out));
    }

    pub(super) fn notice_classic(&mut self, index: usize) {
        match self.clients[index].doing.clone() {
            Doing::Joining(waiter) => {
                let Some(Reply::Join(response)) = self.replies.remove(&waiter) else { return };
                let client = &mut self.clients[index];
                client.doing = Doing::Nothing;
                match ErrorCode::from_code(response.error_code) {
                    ErrorCode::None => {
                        let protocol = response.protocol_name.unwrap_or_default();
                        let leads = response.leader == response.member_id && !response.skip_assignment;
                        let members = response.members.iter();
                        let members =
                            members.map(|member| (member.member_id.clone(), topics_of(&member.metadata)));
                        let leads = leads.then(|| members.collect());
                        client.id = response.member_id;
                        client.doing = Doing::Joined { generation: response.generation_id, protocol, leads };
                    }
                    ErrorCode::MemberIdRequired => client.id = response.member_id,
                    ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => client.reset(),
                    _ => {}
                }
            }
            Doing::Syncing { waiter, generation } => {
                let Some(Reply::Sync(response)) = self.replies.remove(&waiter) else { return };
                self.clients[index].doing = Doing::Nothing;
                match ErrorCode::from_code(response.error_code) {
                    ErrorCode::None => {
                        let owned = self.places_of(&response.assignment);
                        self.clients[index].owned = owned;
                        self.clients[index].doing = Doing::Working { generation };
                    }
                    ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.clients[index].reset(),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn places_of(&self, assignment: &Bytes) -> BTreeSet<Place> {
        if assignment.is_empty() {
            return BTreeSet::new();
        }
        let mut decoder = Decoder::new(assignment.clone());
        let version = decoder.get_i16().unwrap();
        let message = ConsumerProtocolAssignment::decode(&mut decoder, version).unwrap();
        let places = message.assigned_partitions.into_iter().flat_map(|topic| {
            let id = self.topics.by_name(&topic.topic).map(|topic| topic.id.get());
            topic.partitions.into_iter().filter_map(move |partition| Some((id?, partition)))
        });
        places.collect()
    }
}
