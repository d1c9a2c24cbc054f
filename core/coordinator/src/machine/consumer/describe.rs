//! ConsumerGroupDescribe.

use towpath_types::TopicId;
use towpath_wire::ErrorCode;
use towpath_wire::consumer_group_describe::{Assignment, DescribedGroup, Member, TopicPartitions};

use super::member::{ConsumerMember, Partitions, without_epochs};
use super::{ConsumerGroup, MemberId};
use crate::machine::GroupMachine;
use crate::machine::group::GroupState;
use crate::topics::Topics;

const MEMBER_CLASSIC: i8 = 0;
const MEMBER_CONSUMER: i8 = 1;

impl GroupMachine {
    /// Describes a consumer group.
    #[must_use]
    pub fn describe_consumer_group(&self, id: &str) -> DescribedGroup {
        let known = self.groups.get(id).filter(|group| group.state != GroupState::Dead);
        match known.map(|group| group.consumer()) {
            Some(Some(consumer)) => consumer.describe(id, &*self.shared.topics),
            Some(None) => not_described(id, format!("Group {id} is not a consumer group.")),
            None => not_described(id, format!("Group {id} not found.")),
        }
    }
}

fn not_described(id: &str, message: String) -> DescribedGroup {
    DescribedGroup {
        group_id: id.to_owned(),
        error_code: ErrorCode::GroupIdNotFound.code(),
        error_message: Some(message),
        ..DescribedGroup::default()
    }
}

impl ConsumerGroup {
    fn describe(&self, id: &str, topics: &dyn Topics) -> DescribedGroup {
        DescribedGroup {
            group_id: id.to_owned(),
            group_state: self.state().name().to_owned(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor_name: self.assignor().to_owned(),
            members: self
                .members
                .iter()
                .map(|(id, member)| self.describe_member(id, member, topics))
                .collect(),
            ..DescribedGroup::default()
        }
    }

    fn describe_member(&self, id: &MemberId, member: &ConsumerMember, topics: &dyn Topics) -> Member {
        let target = self.targets.get(id).cloned().unwrap_or_default();
        Member {
            member_id: (**id).to_owned(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            member_epoch: member.epoch,
            client_id: member.client.client_id.clone(),
            client_host: member.client.host.clone(),
            subscribed_topic_names: member.topics.iter().cloned().collect(),
            // Kafka's has an empty one for none.
            subscribed_topic_regex: Some(member.regex.clone().unwrap_or_default()),
            assignment: named(&without_epochs(&member.assigned), topics),
            target_assignment: named(&target, topics),
            member_type: if member.is_classic() { MEMBER_CLASSIC } else { MEMBER_CONSUMER },
        }
    }
}

/// Topics that are gone have no name and are left out.
fn named(partitions: &Partitions, topics: &dyn Topics) -> Assignment {
    let topic = |(id, partitions): (&TopicId, &std::collections::BTreeSet<i32>)| {
        let topic = topics.by_id(*id)?;
        let partitions = partitions.iter().copied().collect();
        Some(TopicPartitions { topic_id: id.get(), topic_name: (*topic.name).to_owned(), partitions })
    };
    Assignment { topic_partitions: partitions.iter().filter_map(topic).collect() }
}
