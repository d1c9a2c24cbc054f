//! The table of a broker's own configurations, sorted by name. The defaults of topics are not in it: they are declared
//! with the topics' configurations.

use super::{BrokerConfigKey, Scope};
use crate::config_key::{Check, ConfigKey, ConfigType};

const fn fixed(
    name: &'static str,
    config_type: ConfigType,
    default: Option<&'static str>,
    check: Check,
    doc: &'static str,
) -> BrokerConfigKey {
    BrokerConfigKey { key: ConfigKey { name, config_type, default, check, doc }, scope: Scope::ReadOnly }
}

const fn dynamic(
    name: &'static str,
    config_type: ConfigType,
    default: &'static str,
    check: Check,
    doc: &'static str,
) -> BrokerConfigKey {
    let key = ConfigKey { name, config_type, default: Some(default), check, doc };
    BrokerConfigKey { key, scope: Scope::Any }
}

use Check::{Any, AtLeast, Fixed};
use ConfigType::{Boolean, Class, Int, List, Long, String as Text};

/// A broker's own configurations, sorted by name.
pub(super) const KEYS: &[BrokerConfigKey] = &[
    fixed("advertised.listeners", List, None, Any, "What clients are told to connect to."),
    fixed(
        "auto.create.topics.enable",
        Boolean,
        Some("true"),
        Any,
        "Whether a topic is created when a client asks for it.",
    ),
    fixed(
        "auto.leader.rebalance.enable",
        Boolean,
        Some("true"),
        Any,
        "Whether leaders go back to the first replica of their partition by themselves.",
    ),
    fixed(
        "broker.heartbeat.interval.ms",
        Int,
        Some("2000"),
        AtLeast(1),
        "Milliseconds between two heartbeats of a broker.",
    ),
    fixed("broker.id", Int, Some("-1"), Any, "The broker's number."),
    fixed("broker.rack", Text, None, Any, "The rack that the broker stands in."),
    fixed(
        "broker.session.timeout.ms",
        Int,
        Some("9000"),
        AtLeast(1),
        "Milliseconds without a heartbeat after which a broker is fenced.",
    ),
    fixed(
        "connections.max.idle.ms",
        Long,
        Some("600000"),
        AtLeast(1),
        "Milliseconds after which an idle connection is closed.",
    ),
    fixed(
        "controlled.shutdown.enable",
        Boolean,
        Some("true"),
        Fixed,
        "Whether a broker that stops hands over first what it leads. It always does.",
    ),
    fixed(
        "controller.quorum.election.timeout.ms",
        Int,
        Some("500"),
        AtLeast(1),
        "Milliseconds for which an active controller that says nothing is still taken for it.",
    ),
    fixed(
        "controller.quorum.voters",
        List,
        Some(""),
        Any,
        "The nodes that keep the metadata, as id@host:port; empty on a node that is alone.",
    ),
    fixed(
        "default.replication.factor",
        Int,
        Some("1"),
        AtLeast(1),
        "The replicas of a topic that does not say how many.",
    ),
    fixed("delete.topic.enable", Boolean, Some("true"), Fixed, "Whether topics can be deleted. They can."),
    fixed("fetch.max.bytes", Int, Some("57671680"), AtLeast(1024), "Bytes of the largest fetch answer."),
    dynamic(
        "follower.replication.throttled.rate",
        Long,
        "9223372036854775807",
        AtLeast(0),
        "Bytes a second that this broker may fetch, all together, of the replicas that follower.replication.throttled.replicas \
         of their topics names, as long as they are not in sync.",
    ),
    fixed(
        "group.consumer.heartbeat.interval.ms",
        Int,
        Some("5000"),
        AtLeast(1),
        "Milliseconds between two heartbeats of a member of a consumer group (KIP-848).",
    ),
    fixed(
        "group.consumer.max.heartbeat.interval.ms",
        Int,
        Some("15000"),
        AtLeast(1),
        "The longest heartbeat interval that a consumer group may have.",
    ),
    fixed(
        "group.consumer.max.session.timeout.ms",
        Int,
        Some("60000"),
        AtLeast(1),
        "The longest session timeout that a consumer group may have.",
    ),
    fixed(
        "group.consumer.min.heartbeat.interval.ms",
        Int,
        Some("5000"),
        AtLeast(1),
        "The shortest heartbeat interval that a consumer group may have.",
    ),
    fixed(
        "group.consumer.min.session.timeout.ms",
        Int,
        Some("45000"),
        AtLeast(1),
        "The shortest session timeout that a consumer group may have.",
    ),
    fixed(
        "group.consumer.session.timeout.ms",
        Int,
        Some("45000"),
        AtLeast(1),
        "Milliseconds without a heartbeat after which a member of a consumer group is taken for gone (KIP-848).",
    ),
    fixed(
        "group.initial.rebalance.delay.ms",
        Int,
        Some("0"),
        AtLeast(0),
        "Milliseconds that the first generation of an empty group waits for more members.",
    ),
    fixed(
        "group.max.session.timeout.ms",
        Int,
        Some("1800000"),
        AtLeast(1),
        "The longest session timeout of a member of a classic group.",
    ),
    fixed("group.max.size", Int, Some("10000"), AtLeast(1), "Members of the largest group."),
    fixed(
        "group.min.session.timeout.ms",
        Int,
        Some("6000"),
        AtLeast(1),
        "The shortest session timeout of a member of a classic group.",
    ),
    fixed(
        "leader.imbalance.check.interval.seconds",
        Long,
        Some("300"),
        AtLeast(1),
        "Seconds between two looks whether leaders should go back to the first replica of their partition.",
    ),
    dynamic(
        "leader.replication.throttled.rate",
        Long,
        "9223372036854775807",
        AtLeast(0),
        "Bytes a second that this broker may send, all together, to followers of the replicas that \
         leader.replication.throttled.replicas of their topics names, as long as these are not in sync.",
    ),
    fixed("listeners", List, Some(""), Any, "Where the broker accepts connections."),
    dynamic(
        "log.cleaner.backoff.ms",
        Long,
        "15000",
        AtLeast(1),
        "Milliseconds between two looks for logs to compact.",
    ),
    dynamic(
        "log.cleaner.dedupe.buffer.size",
        Long,
        "16777216",
        AtLeast(1_048_576),
        "Bytes that the map of keys of a compaction may take. Keys that no longer fit are left for the next one.",
    ),
    fixed("log.cleaner.enable", Boolean, Some("true"), Fixed, "Whether logs are compacted. They are."),
    fixed("log.dirs", List, None, Any, "The directories of everything that the broker stores."),
    fixed(
        "log.flush.offset.checkpoint.interval.ms",
        Int,
        Some("60000"),
        AtLeast(1),
        "Milliseconds between two checkpoints.",
    ),
    fixed(
        "log.retention.check.interval.ms",
        Long,
        Some("300000"),
        AtLeast(1),
        "Milliseconds between two looks for segments to delete.",
    ),
    fixed("max.connections", Int, Some("20000"), AtLeast(1), "Connections that are open at the same time."),
    fixed(
        "max.incremental.fetch.session.cache.slots",
        Int,
        Some("1000"),
        AtLeast(0),
        "Incremental fetch sessions that are remembered.",
    ),
    fixed("node.id", Int, None, AtLeast(0), "The node's number."),
    fixed(
        "num.partitions",
        Int,
        Some("1"),
        AtLeast(1),
        "The partitions of a topic that does not say how many.",
    ),
    dynamic(
        "num.replica.fetchers",
        Int,
        "1",
        Check::Between(1, 64),
        "Connections to each leader that replicas are fetched over.",
    ),
    fixed(
        "offset.metadata.max.bytes",
        Int,
        Some("4096"),
        AtLeast(0),
        "The longest text that may accompany a committed offset.",
    ),
    fixed(
        "offsets.retention.check.interval.ms",
        Long,
        Some("600000"),
        AtLeast(1),
        "Milliseconds between two looks for committed offsets to forget.",
    ),
    fixed(
        "offsets.retention.minutes",
        Int,
        Some("10080"),
        AtLeast(1),
        "Minutes for which the offsets of a group without members are kept.",
    ),
    fixed(
        "offsets.topic.num.partitions",
        Int,
        Some("50"),
        AtLeast(1),
        "The partitions of the topic that holds committed offsets, at the first start.",
    ),
    fixed("process.roles", List, Some("broker,controller"), Any, "What the node is."),
    dynamic(
        "producer.id.expiration.ms",
        Int,
        "86400000",
        AtLeast(1),
        "Milliseconds after its last record until a partition forgets a producer.",
    ),
    fixed(
        "queued.max.request.bytes",
        Long,
        Some("268435456"),
        AtLeast(1 << 20),
        "Bytes that the requests and answers of all connections may hold.",
    ),
    dynamic(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        Long,
        "9223372036854775807",
        AtLeast(1),
        "Bytes a second that moving replicas between the directories of this broker may take.",
    ),
    fixed(
        "replica.lag.time.max.ms",
        Long,
        Some("30000"),
        AtLeast(1),
        "Milliseconds after which a replica that has not caught up is no longer in sync.",
    ),
    fixed(
        "replica.selector.class",
        Class,
        None,
        Any,
        "Which replica a consumer reads from: the leader, or with RackAwareReplicaSelector one in its own rack.",
    ),
    fixed("socket.request.max.bytes", Int, Some("104857600"), AtLeast(1024), "Bytes of the largest request."),
];

/// Configurations that can be changed in a running Kafka and mean nothing here: what begins with one of these.
pub(super) const NOT_HERE: &[(&str, &str)] = &[
    ("background.threads", "there are no pools of threads to size: work is done where it comes up"),
    ("config.providers", "secrets are named in the YAML, with ${env:…} and ${file:…}"),
    ("cordoned.log.dirs", "every directory takes new partitions"),
    ("follower.fetch.", "there is no tiered storage"),
    ("group.consumer.assignment.interval.ms", "assignments are computed when they are due"),
    ("group.coordinator.cached.", "the coordinators' buffers have a fixed bound"),
    ("group.share.", "share groups are not here"),
    ("group.streams.", "the protocol of Kafka Streams' groups is not here"),
    ("listener", "listeners are set under `node:` and cannot change while the broker runs"),
    ("log.cleaner.io.", "a compaction has no buffers and no rate of its own"),
    ("log.cleaner.threads", "logs are compacted one after the other"),
    ("max.connection.creation.rate", "the rate of new connections has no bound"),
    ("max.connections.per.ip", "connections are bounded all together, by max.connections"),
    ("metric.reporters", "metrics are read over HTTP, at /metrics"),
    ("num.io.threads", "there are no pools of threads to size: work is done where it comes up"),
    ("num.network.threads", "there are no pools of threads to size: work is done where it comes up"),
    ("num.recovery.threads.per.data.dir", "there are as many as there is work, up to eight"),
    ("principal.builder.class", "clients are not authenticated"),
    ("remote.", "there is no tiered storage"),
    ("sasl.", "clients are not authenticated"),
    ("share.coordinator.", "share groups are not here"),
    ("ssl.", "connections are not encrypted"),
    ("transaction.partition.verification.enable", "transactions are always verified"),
];
