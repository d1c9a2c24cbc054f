//! What must hold after every step, and when the group has come to rest.

use towpath_types::TopicId;
use towpath_wire::consumer_group_describe::{Assignment, DescribedGroup};

use super::client::{Doing, Place, Protocol};
use super::*;
use crate::record::{self, Entry};
use crate::topics::Topics;

fn places(assignment: &Assignment) -> BTreeSet<Place> {
    let places = assignment
        .topic_partitions
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, *partition)));
    places.collect()
}

impl Simulation {
    fn described(&self) -> Option<DescribedGroup> {
        self.machine.consumer_group(GROUP)?;
        Some(self.machine.describe_consumer_group(GROUP))
    }

    pub(super) fn check(&mut self) {
        let waiting: Vec<_> = self.waiting.keys().copied().collect();
        assert_eq!(self.machine.waiters(), waiting, "nobody is forgotten, and nobody is made up");
        for (waiter, since_ms) in &self.waiting {
            assert!(self.now_ms - since_ms <= PATIENCE_MS, "{waiter:?} waits since {since_ms}");
        }
        let stats = self.machine.stats();
        assert_eq!(stats.appends, self.appends.len());
        assert!(stats.members <= 2 * self.config.members_max, "{stats:?}");
        assert!(stats.timers <= 4 * (stats.members + stats.pending_members) + 3 * stats.groups, "{stats:?}");
        let described = self.described();
        Self::check_epochs(described.as_ref());
        self.check_offsets(described.as_ref());
        if let Some(described) = described {
            self.check_owners(&described);
        }
    }

    /// The group's epoch only grows while it is a consumer group.
    pub(super) fn note_epoch(&mut self) {
        let epoch = self.machine.consumer_group(GROUP).map(|(_, epoch)| epoch);
        if let (Some(last), Some(epoch)) = (self.last_epoch, epoch) {
            assert!(epoch >= last, "the group's epoch fell from {last} to {epoch}");
        }
        self.last_epoch = epoch;
    }

    fn check_epochs(described: Option<&DescribedGroup>) {
        if let Some(described) = described {
            for member in &described.members {
                assert!(member.member_epoch <= described.group_epoch, "{described:?}");
            }
            assert!(described.assignment_epoch <= described.group_epoch, "{described:?}");
        }
    }

    fn check_offsets(&self, described: Option<&DescribedGroup>) {
        let mut offsets = BTreeMap::new();
        let request = OffsetFetchRequestGroup { group_id: GROUP.into(), topics: None, ..Default::default() };
        for topic in self.machine.fetch_offsets(&request, false).topics {
            for partition in topic.partitions {
                offsets.insert((topic.name.clone(), partition.partition_index), partition.committed_offset);
            }
        }
        let is_dead = match described {
            Some(described) => described.error_code != 0,
            None => self.machine.describe_group(GROUP, 5).group_state == "Dead",
        };
        if is_dead {
            return;
        }
        assert_eq!(
            offsets,
            self.told.offsets(),
            "what is fetched is what is committed, whatever kind the group is"
        );
        if self.told.is_quiet() {
            return;
        }
        let stable = self.machine.fetch_offsets(&request, true);
        for topic in stable.topics {
            for partition in topic.partitions {
                let place = (topic.name.clone(), partition.partition_index);
                if self.told.is_pending(&place) {
                    assert_eq!(partition.error_code, code(ErrorCode::UnstableOffsetCommit), "{place:?}");
                }
            }
        }
    }

    /// No partition is used by two members at once. Who is fenced and does not know it yet does not count.
    fn check_owners(&self, described: &DescribedGroup) {
        let mut owners: BTreeMap<Place, &str> = BTreeMap::new();
        for client in &self.clients {
            let member = described.members.iter().find(|member| member.member_id == client.id);
            let Some(member) = member else { continue };
            let is_current = match (client.protocol, &client.doing) {
                (Protocol::Consumer, _) => client.epoch > 0 && member.member_type == 1,
                (Protocol::Classic, Doing::Working { generation }) => {
                    *generation == member.member_epoch && member.member_type == 0
                }
                (Protocol::Classic, _) => false,
            };
            for place in client.owned.iter().filter(|_| is_current) {
                let other = owners.insert(*place, &client.id);
                assert_eq!(other, None, "{place:?} belongs to {} as well: {described:#?}", client.id);
            }
        }
    }

    /// Whether everybody has what it shall have.
    pub(super) fn has_settled(&self) -> bool {
        let all_work = self.clients.iter().all(|client| match client.protocol {
            Protocol::Consumer => client.epoch > 0 && !client.is_full,
            Protocol::Classic => matches!(client.doing, Doing::Working { .. }),
        });
        if !all_work || !self.waiting.is_empty() {
            return false;
        }
        match self.described() {
            None => self.machine.group(GROUP).is_some_and(|(state, _)| state == GroupState::Stable),
            Some(described) => {
                described.group_state == "Stable"
                    && described.members.len() == self.clients.len()
                    && self.clients.iter().all(|client| self.agrees(client, &described))
                    && self.expected(&described) == self.owned().keys().copied().collect()
            }
        }
    }

    /// A client has what the coordinator thinks that it has.
    fn agrees(&self, client: &Client, described: &DescribedGroup) -> bool {
        described
            .members
            .iter()
            .any(|member| member.member_id == client.id && places(&member.assignment) == client.owned)
    }

    fn owned(&self) -> BTreeMap<Place, usize> {
        let mut owned = BTreeMap::new();
        for place in self.clients.iter().flat_map(|client| client.owned.iter()) {
            *owned.entry(*place).or_default() += 1;
        }
        owned
    }

    /// The topics that a member subscribes to now.
    fn subscribed(&self, client: &Client) -> BTreeSet<TopicId> {
        let matches = |topic: &str| match client.regex.as_deref() {
            Some("t.*") => true,
            Some("t[01]") => topic != "t2",
            _ => false,
        };
        let names = TOPICS
            .into_iter()
            .filter(|topic| client.topics.iter().any(|name| name == topic) || matches(topic));
        names.filter_map(|topic| self.topics.by_name(topic)).map(|topic| topic.id).collect()
    }

    /// Every partition that somebody subscribes to.
    fn expected(&self, described: &DescribedGroup) -> BTreeSet<Place> {
        assert_eq!(described.error_code, 0);
        let topics: BTreeSet<TopicId> =
            self.clients.iter().flat_map(|client| self.subscribed(client)).collect();
        topics
            .into_iter()
            .filter_map(|topic| self.topics.by_id(topic))
            .flat_map(|topic| (0..topic.partitions).map(move |partition| (topic.id.get(), partition)))
            .collect()
    }

    pub(super) fn check_settled(&mut self) {
        assert!(
            self.has_settled(),
            "{:#?}\n{:#?}\n{:?}\n{:?}\n{:?}",
            self.described(),
            self.clients,
            self.machine.group(GROUP),
            self.topics,
            self.waiting
        );
        assert!(self.owned().values().all(|count| *count == 1), "each partition has one owner");
        if let Some(described) = self.described() {
            if described.assignor_name == "uniform" {
                self.check_balance();
            }
            // What the log says is what the coordinator thinks.
            let loaded = self.loaded();
            assert_eq!(loaded.describe_consumer_group(GROUP), described);
        }
    }

    /// Nobody has two partitions more than somebody who could take one of them.
    fn check_balance(&self) {
        for giver in &self.clients {
            let given: BTreeSet<Uuid> = giver.owned.iter().map(|(topic, _)| *topic).collect();
            for taker in &self.clients {
                let could_take = self.subscribed(taker).iter().any(|topic| given.contains(&topic.get()));
                let (more, less) = (giver.owned.len(), taker.owned.len());
                assert!(!could_take || more <= less + 1, "{giver:?}\n{taker:?}");
            }
        }
    }

    /// How many kinds of groups have been in the log.
    pub(super) fn kinds_in_log(&self) -> usize {
        let kinds: BTreeSet<bool> = records_of(&self.log)
            .filter(|(_, value)| value.is_some())
            .filter_map(|(key, value)| match record::decode(Some(key), value).unwrap() {
                Entry::Group(..) => Some(false),
                Entry::Consumer(_) => Some(true),
                Entry::Offset(..) | Entry::Share(_) => None,
            })
            .collect();
        kinds.len()
    }
}
