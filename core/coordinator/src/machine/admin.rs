//! DescribeGroups, ListGroups and DeleteGroups.

use towpath_types::TopicPartition;
use towpath_wire::describe_groups::{DescribedGroup, DescribedGroupMember};
use towpath_wire::list_groups::ListedGroup;
use towpath_wire::{ErrorCode, ListGroupsRequest};

use super::group::{CONSUMER, Group, GroupState, Kind};
use super::offsets::Place;
use super::turn::Turn;
use super::{Command, GroupMachine, Now, Reply, Waiter};

/// From here on an unknown group has an error of its own (KIP-1043); before, it is said to be dead.
const VERSION_GROUP_NOT_FOUND: i16 = 6;
/// What ListGroups calls the types of groups.
const TYPE_CLASSIC: &str = "classic";
const TYPE_CONSUMER: &str = "consumer";
const TYPE_SHARE: &str = "share";
/// The protocol type of share groups.
const SHARE: &str = "share";

/// A group's type, protocol type and state, as ListGroups tells them.
fn listed(group: &Group) -> (&'static str, &str, &'static str) {
    match &group.kind {
        Kind::Classic => {
            (TYPE_CLASSIC, group.protocol_type.as_deref().unwrap_or_default(), group.state.name())
        }
        Kind::Consumer(consumer) => (TYPE_CONSUMER, CONSUMER, consumer.state().name()),
        Kind::Share(share) => (TYPE_SHARE, SHARE, share.state()),
    }
}

impl GroupMachine {
    /// Describes a group.
    #[must_use]
    pub fn describe_group(&self, id: &str, version: i16) -> DescribedGroup {
        let known = self.groups.get(id).filter(|group| group.state != GroupState::Dead);
        let is_other = known.is_some_and(|group| group.consumer().is_some() || group.share().is_some());
        if let Some(group) = known.filter(|_| !is_other) {
            return describe(group);
        }
        let mut described = DescribedGroup {
            group_id: id.to_owned(),
            group_state: GroupState::Dead.name().to_owned(),
            ..DescribedGroup::default()
        };
        if version >= VERSION_GROUP_NOT_FOUND {
            described.error_code = ErrorCode::GroupIdNotFound.code();
            let reason = if is_other { "is not a classic group" } else { "not found" };
            described.error_message = Some(format!("Group {id} {reason}."));
        }
        described
    }

    /// The groups that pass the filters of a request; an empty filter lets everything pass.
    #[must_use]
    pub fn list_groups(&self, request: &ListGroupsRequest) -> Vec<ListedGroup> {
        let passes = |filter: &[String], value: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
        };
        let groups = self.groups.values().filter(|group| group.state != GroupState::Dead);
        groups
            .map(|group| (group, listed(group)))
            .filter(|(_, (kind, _, state))| {
                passes(&request.types_filter, kind) && passes(&request.states_filter, state)
            })
            .map(|(group, (kind, protocol_type, state))| ListedGroup {
                group_id: (*group.id).to_owned(),
                protocol_type: protocol_type.to_owned(),
                group_state: state.to_owned(),
                group_type: kind.to_owned(),
            })
            .collect()
    }

    /// Deletes a group without members, offsets and all. The answer comes when the tombstones are committed.
    pub fn delete_group(&mut self, now: Now, waiter: Waiter, id: &str, out: &mut Vec<Command>) {
        if self.turn(id, now, out, |turn| turn.delete_group(waiter)).is_none() {
            out.push(Command::Respond { waiter, reply: Reply::DeleteGroup(ErrorCode::GroupIdNotFound) });
        }
    }

    /// Forgets the offsets of partitions whose topic was deleted.
    pub fn partitions_deleted(&mut self, now: Now, partitions: &[TopicPartition], out: &mut Vec<Command>) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            self.turn(&id, now, out, |turn| {
                let known = partitions
                    .iter()
                    .filter(|gone| turn.group.offsets.knows(gone.topic.as_str(), gone.partition));
                let places: Vec<Place> = known
                    .map(|gone| (turn.group.offsets.topic_name(gone.topic.as_str()), gone.partition))
                    .collect();
                turn.forget_offsets(places);
            });
        }
    }
}

fn describe(group: &Group) -> DescribedGroup {
    let is_stable = group.state == GroupState::Stable;
    let protocol = group.protocol_name.as_deref().filter(|_| is_stable);
    let members = group.members.iter().map(|(id, member)| DescribedGroupMember {
        member_id: (**id).to_owned(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.registration.client.client_id.clone(),
        client_host: member.registration.client.host.clone(),
        member_metadata: if is_stable { member.metadata(protocol) } else { bytes::Bytes::new() },
        member_assignment: member.assignment.clone(),
    });
    DescribedGroup {
        group_id: (*group.id).to_owned(),
        group_state: group.state.name().to_owned(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        protocol_data: protocol.unwrap_or_default().to_owned(),
        members: members.collect(),
        ..DescribedGroup::default()
    }
}

impl Turn<'_> {
    fn delete_group(&mut self, waiter: Waiter) {
        let error = match self.group.state {
            GroupState::Empty if self.group.has_members() => ErrorCode::NonEmptyGroup,
            GroupState::Empty => {
                self.bury(Some(waiter));
                return;
            }
            GroupState::Dead => ErrorCode::GroupIdNotFound,
            _ => ErrorCode::NonEmptyGroup,
        };
        self.respond(waiter, Reply::DeleteGroup(error));
    }

    /// Deletes offsets that nobody asked to delete.
    pub(super) fn forget_offsets(&mut self, places: Vec<Place>) {
        if self.group.state != GroupState::Dead {
            self.remove_offsets(places, None);
        }
    }
}
