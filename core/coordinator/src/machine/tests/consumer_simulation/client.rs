//! A client: what it knows, and what it does next.

use towpath_wire::ConsumerGroupHeartbeatRequest;
use towpath_wire::consumer_group_heartbeat::TopicPartitions;

use super::*;

/// Which protocol a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Consumer,
    Classic,
}

/// What a client of the classic protocol is doing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Doing {
    Nothing,
    Joining(Waiter),
    Joined { generation: i32, protocol: String, leads: Option<Vec<(String, Vec<String>)>> },
    Syncing { waiter: Waiter, generation: i32 },
    Working { generation: i32 },
}

/// A partition, by the topic's id.
pub(super) type Place = (Uuid, i32);

#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) protocol: Protocol,
    pub(super) instance: Option<String>,
    pub(super) id: String,
    /// Of the consumer protocol: 0 while it has not joined.
    pub(super) epoch: i32,
    pub(super) heartbeat: Option<Waiter>,
    /// The next heartbeat tells everything.
    pub(super) is_full: bool,
    pub(super) topics: Vec<String>,
    pub(super) regex: Option<String>,
    /// What it uses: it was told that it may, and has not given it up.
    pub(super) owned: BTreeSet<Place>,
    pub(super) doing: Doing,
    /// It has stopped: nothing is heard of it.
    pub(super) is_silent: bool,
}

impl Client {
    pub(super) fn new(protocol: Protocol, instance: Option<String>) -> Self {
        Self {
            protocol,
            instance,
            id: String::new(),
            epoch: 0,
            heartbeat: None,
            is_full: true,
            topics: vec!["t0".into(), "t1".into()],
            regex: None,
            owned: BTreeSet::new(),
            doing: Doing::Nothing,
            is_silent: false,
        }
    }

    /// Begins anew, as another process.
    pub(super) fn reset(&mut self) {
        self.id.clear();
        self.rejoin();
    }

    /// Gives up everything and joins again.
    pub(super) fn rejoin(&mut self) {
        self.epoch = 0;
        self.is_full = true;
        self.heartbeat = None;
        self.owned.clear();
        self.doing = Doing::Nothing;
    }

    pub(super) fn connection_lost(&mut self) {
        self.heartbeat = None;
        self.is_full = true;
        if !matches!(self.doing, Doing::Working { .. }) {
            self.doing = Doing::Nothing;
        }
    }
}

impl Simulation {
    pub(super) fn step_client(&mut self, index: usize) {
        self.notice(index);
        match self.random.random_range(0..100) {
            // It stops without a word, or comes back as another process, perhaps with the other protocol.
            0 => {
                let client = &mut self.clients[index];
                client.is_silent = !client.is_silent;
                if !client.is_silent {
                    client.reset();
                }
                return;
            }
            1 => {
                let protocol =
                    if self.random.random_bool(0.5) { Protocol::Consumer } else { Protocol::Classic };
                self.clients[index].reset();
                self.clients[index].protocol = protocol;
                if protocol == Protocol::Classic {
                    self.clients[index].regex = None;
                }
                return;
            }
            // A connection breaks: the answer is lost.
            2..=4 => {
                self.clients[index].connection_lost();
                return;
            }
            5..=6 => self.subscribe(index),
            _ => {}
        }
        if self.clients[index].is_silent {
            return;
        }
        match self.clients[index].protocol {
            Protocol::Consumer if self.random.random_bool(0.03) => self.leave_consumer(index),
            Protocol::Consumer if self.random.random_bool(0.15) => self.commit_consumer(index),
            Protocol::Consumer => self.heartbeat_consumer(index),
            Protocol::Classic => self.step_classic(index),
        }
    }

    /// As a well-behaved client would go on.
    pub(super) fn calm_client(&mut self, index: usize) {
        self.clients[index].is_silent = false;
        match self.clients[index].protocol {
            Protocol::Consumer => self.heartbeat_consumer(index),
            Protocol::Classic => self.calm_classic(index),
        }
    }

    fn subscribe(&mut self, index: usize) {
        let count = self.random.random_range(0..=2);
        let topics =
            TOPICS.choose_multiple(&mut self.random, count).map(|topic| (*topic).to_owned()).collect();
        let regex = self
            .random
            .random_bool(0.3)
            .then(|| (*["t[01]", "t.*", "none"].choose(&mut self.random).unwrap()).to_owned());
        let client = &mut self.clients[index];
        client.topics = topics;
        client.regex = regex.filter(|_| client.protocol == Protocol::Consumer);
        client.is_full = true;
        if client.protocol == Protocol::Classic {
            client.rejoin();
        }
    }

    fn heartbeat_consumer(&mut self, index: usize) {
        if self.clients[index].heartbeat.is_some() {
            return;
        }
        if self.clients[index].id.is_empty() {
            self.clients[index].id = self.name();
        }
        let assignor = self.random.random_bool(0.1).then(|| "range".to_owned());
        let client = &self.clients[index];
        let joins = client.epoch == 0;
        let full = client.is_full || joins;
        let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &client.owned {
            owned.entry(*topic).or_default().push(*partition);
        }
        let owned = owned.into_iter().map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions });
        let says_owned = full || self.random.random_bool(0.7);
        let client = &self.clients[index];
        let request = ConsumerGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: client.id.clone(),
            member_epoch: client.epoch,
            instance_id: client.instance.clone(),
            rack_id: None,
            rebalance_timeout_ms: if full { 20_000 } else { -1 },
            subscribed_topic_names: full.then(|| client.topics.clone()),
            subscribed_topic_regex: full.then(|| client.regex.clone().unwrap_or_default()),
            server_assignor: assignor.filter(|_| joins && !self.is_calm),
            topic_partitions: says_owned.then(|| owned.collect()),
        };
        let context = ClientContext { client_id: format!("c{index}"), host: "/10.0.0.1".into() };
        let waiter = self.ask(|machine, now, waiter, out| {
            machine.consumer_group_heartbeat(now, waiter, &context, request, 1, out);
        });
        self.clients[index].heartbeat = Some(waiter);
        self.clients[index].is_full = false;
    }

    fn leave_consumer(&mut self, index: usize) {
        let client = self.clients[index].clone();
        if client.epoch == 0 {
            return;
        }
        let comes_back = client.instance.is_some() && self.random.random_bool(0.6);
        let request = ConsumerGroupHeartbeatRequest {
            group_id: GROUP.into(),
            member_id: client.id,
            member_epoch: if comes_back { -2 } else { -1 },
            instance_id: client.instance,
            rebalance_timeout_ms: -1,
            ..Default::default()
        };
        let context = ClientContext::default();
        self.ask(|machine, now, waiter, out| {
            machine.consumer_group_heartbeat(now, waiter, &context, request, 1, out);
        });
        self.clients[index].reset();
    }

    fn commit_consumer(&mut self, index: usize) {
        let client = self.clients[index].clone();
        let Some((topic, partition)) = client.owned.iter().next().copied() else { return };
        let name = crate::topics::Topics::by_id(&self.topics, towpath_types::TopicId::new(topic));
        let Some(name) = name else { return };
        let mut request = committing(&client.id, client.epoch, self.random.random_range(0..1_000));
        request.topics[0].name = (*name.name).to_owned();
        request.topics[0].partitions[0].partition_index = partition;
        self.ask(|machine, now, waiter, out| machine.commit_offsets(now, waiter, &request, 10, out));
    }

    /// A client looks at the answers that it has.
    pub(super) fn notice(&mut self, index: usize) {
        if self.clients[index].protocol == Protocol::Classic {
            self.notice_classic(index);
            return;
        }
        let Some(waiter) = self.clients[index].heartbeat else { return };
        let Some(Reply::ConsumerHeartbeat(response)) = self.replies.remove(&waiter) else { return };
        let client = &mut self.clients[index];
        client.heartbeat = None;
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                assert!(
                    response.member_epoch >= client.epoch,
                    "a member's epoch only grows: {response:?}, {client:?}"
                );
                assert!(response.member_epoch > 0);
                client.epoch = response.member_epoch;
                if let Some(assignment) = response.assignment {
                    client.owned = assignment
                        .topic_partitions
                        .into_iter()
                        .flat_map(|topic| {
                            topic.partitions.into_iter().map(move |partition| (topic.topic_id, partition))
                        })
                        .collect();
                }
            }
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound => {
                client.rejoin()
            }
            ErrorCode::UnreleasedInstanceId | ErrorCode::FencedInstanceId => client.reset(),
            _ => client.is_full = true,
        }
    }
}
