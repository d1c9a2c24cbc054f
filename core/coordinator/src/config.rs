//! The settings of the group coordinator, under Kafka's names.

use towpath_types::limits;

/// The settings of the group coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`: a shorter session timeout is refused.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`: a longer session timeout is refused.
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`: how long the first generation of an empty group waits for more members.
    /// Kafka's default is 3 s, which spares a starting fleet some rebalances; ours is 0, since every consumer
    /// that starts alone (a console, a test, a single worker) would pay for it.
    pub initial_rebalance_delay_ms: i32,
    /// How long the JoinGroup of a new member may wait before the member is taken for gone (five minutes in Kafka).
    pub new_member_join_timeout_ms: i32,
    /// `group.max.size`: members of one group, those included that were given an id and have not joined with it.
    pub members_max: usize,
    /// Groups of one partition of the offsets topic.
    pub groups_max: usize,
    /// Bytes of subscriptions and assignments of one group.
    pub group_bytes_max: usize,
    /// Bytes of everything that the groups of one partition of the offsets topic hold, committed offsets included.
    pub partition_bytes_max: usize,
    /// The same over all partitions that a coordinator has.
    pub coordinator_bytes_max: usize,
    /// `offset.metadata.max.bytes`, counted as Kafka counts it: in UTF-16 units.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`, in milliseconds: how long offsets outlive the group's last member.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `group.consumer.session.timeout.ms`: how long a member of a consumer group (KIP-848) may be silent.
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`: how often such a member is asked to be heard of.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.assignment.interval.ms`: the least time between two target assignments of a group (KIP-1263).
    pub consumer_assignment_interval_ms: i32,
    /// `group.consumer.regex.refresh.interval.ms`: how long what a regular expression matches is taken for true.
    pub consumer_regex_refresh_interval_ms: i64,
    /// `group.consumer.migration.policy`.
    pub consumer_migration_policy: MigrationPolicy,
    /// `group.share.session.timeout.ms`: how long a member of a share group (KIP-932) may be silent.
    pub share_session_timeout_ms: i32,
    /// `group.share.heartbeat.interval.ms`: how often such a member is asked to be heard of.
    pub share_heartbeat_interval_ms: i32,
    /// `group.share.max.size`: members of one share group.
    pub share_members_max: usize,
}

/// Whether groups may change between the classic and the consumer protocol while they have members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MigrationPolicy {
    /// Both ways.
    #[default]
    Bidirectional,
    /// From the classic to the consumer protocol only.
    Upgrade,
    /// From the consumer to the classic protocol only.
    Downgrade,
    /// Not at all.
    Disabled,
}

impl std::str::FromStr for MigrationPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "bidirectional" => Ok(Self::Bidirectional),
            "upgrade" => Ok(Self::Upgrade),
            "downgrade" => Ok(Self::Downgrade),
            "disabled" => Ok(Self::Disabled),
            _ => Err("it is `bidirectional`, `upgrade`, `downgrade` or `disabled`".to_owned()),
        }
    }
}

impl MigrationPolicy {
    /// Whether a classic group may become a consumer group.
    #[must_use]
    pub const fn allows_upgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Upgrade)
    }

    /// Whether a consumer group may become a classic group.
    #[must_use]
    pub const fn allows_downgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Downgrade)
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 30 * 60 * 1_000,
            initial_rebalance_delay_ms: 0,
            new_member_join_timeout_ms: 5 * 60 * 1_000,
            members_max: limits::GROUP_MEMBERS_MAX,
            groups_max: limits::GROUPS_MAX,
            group_bytes_max: limits::GROUP_STATE_BYTES_MAX,
            partition_bytes_max: limits::GROUP_PARTITION_BYTES_MAX,
            coordinator_bytes_max: limits::GROUP_COORDINATOR_BYTES_MAX,
            offset_metadata_max: limits::OFFSET_METADATA_BYTES_MAX,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 10 * 60 * 1_000,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_assignment_interval_ms: 1_000,
            consumer_regex_refresh_interval_ms: 10 * 60 * 1_000,
            consumer_migration_policy: MigrationPolicy::Bidirectional,
            share_session_timeout_ms: 45_000,
            share_heartbeat_interval_ms: 5_000,
            share_members_max: limits::SHARE_GROUP_MEMBERS_MAX,
        }
    }
}
