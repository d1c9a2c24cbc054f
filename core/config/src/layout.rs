//! The options of the YAML's own sections: `node:`, `cluster:` and each pipeline's frame.

use serde_json::json;
use towpath_api::{ConfigSpec, OptionSpec, OptionType};

/// `node:`, all optional.
#[must_use]
pub fn node_options() -> ConfigSpec {
    ConfigSpec::new(vec![
        OptionSpec::with_default(
            "id",
            OptionType::int(0, i64::from(i32::MAX)),
            json!(1),
            "This node's number (Kafka's `node.id`); no two nodes of a cluster have the same.",
        ),
        OptionSpec::with_default(
            "roles",
            OptionType::list(OptionType::choices(&[
                ("broker", "holds partitions and serves clients"),
                ("controller", "is one of `cluster: controllers:`, which keep the metadata"),
            ])),
            json!(["broker", "controller"]),
            "What this node does in a cluster of our own.",
        ),
        OptionSpec::with_default(
            "data_dir",
            OptionType::Path,
            json!("./towpath-data"),
            "Where the embedded broker keeps its logs and where this node's identity is stored. Relative paths are \
             meant from the directory in which towpath was started.",
        ),
        OptionSpec::optional(
            "more_data_dirs",
            OptionType::list(OptionType::Path),
            "Further directories for partitions, one for each disk (with `data_dir`, Kafka's `log.dirs`). New partitions go \
             where there are the fewest; where one of these fails, only what is in it is offline. Metadata stay in \
             `data_dir`.",
        ),
        OptionSpec::with_default(
            "kafka",
            OptionType::NonEmptyString,
            json!("127.0.0.1:9092"),
            "The address on which the embedded broker listens for Kafka clients (host:port; port 0 takes a free one).",
        ),
        OptionSpec::optional(
            "advertised",
            OptionType::NonEmptyString,
            "What Kafka clients are told to connect to (host:port), where it differs from `kafka`.",
        ),
        OptionSpec::optional(
            "controller",
            OptionType::NonEmptyString,
            "The address on which a controller listens for other nodes (host:port); they are told the one under `cluster: \
             controllers:`.",
        ),
        OptionSpec::optional(
            "rack",
            OptionType::NonEmptyString,
            "Where this node stands (Kafka's `broker.rack`): the replicas of a partition are spread over racks.",
        ),
        OptionSpec::optional(
            "settings",
            OptionType::Object(broker_options()),
            "Settings of the embedded broker, by Kafka's names; those that begin with `log.` are the defaults of topics.",
        ),
        OptionSpec::with_default(
            "http",
            OptionType::NonEmptyString,
            json!("127.0.0.1:8083"),
            "The address of /health, /ready, /metrics and /status (host:port; port 0 takes a free one).",
        ),
        OptionSpec::optional(
            "message",
            OptionType::String,
            "Text that `towpath up` shows when everything runs: what whoever started it may want to type next.",
        ),
    ])
}

/// `node: settings:`, what Kafka has in `server.properties`. Without a default each, so that DescribeConfigs tells what
/// is set from what is not.
fn broker_options() -> ConfigSpec {
    let options = own_options().into_iter().chain(group_options()).chain(share_group_options());
    let options = options.chain(transaction_options()).chain(replication_options());
    let options = options.chain(topic_defaults()).chain(more_topic_defaults());
    ConfigSpec::new(options.map(|(name, ty, doc)| OptionSpec::optional(name, ty, doc)).collect())
}

/// Name, type and documentation.
type Setting = (&'static str, OptionType, &'static str);

fn count() -> OptionType {
    OptionType::int(1, i64::from(i32::MAX))
}

fn bytes() -> OptionType {
    OptionType::int(1024, i64::from(i32::MAX))
}

fn own_options() -> impl IntoIterator<Item = Setting> {
    [
        (
            "auto.create.topics.enable",
            OptionType::Bool,
            "Whether a topic is created when a client asks for it (true).",
        ),
        (
            "num.partitions",
            OptionType::int(1, 10_000),
            "Partitions of a topic that does not say how many (1).",
        ),
        (
            "offsets.topic.num.partitions",
            OptionType::int(1, 1000),
            "Partitions of the topic of committed offsets (50), at the first start.",
        ),
        (
            "offsets.retention.minutes",
            count(),
            "Minutes for which the offsets of a group without members are kept (10080).",
        ),
        ("group.min.session.timeout.ms", count(), "The shortest session timeout of a group member (6000)."),
        ("group.max.session.timeout.ms", count(), "The longest session timeout of a group member (1800000)."),
        (
            "group.initial.rebalance.delay.ms",
            OptionType::int(0, 3_600_000),
            "Milliseconds that the first generation of an empty group waits for more members (0).",
        ),
        ("group.max.size", count(), "Members of the largest group."),
        (
            "connections.max.idle.ms",
            count(),
            "Milliseconds after which an idle connection is closed (600000).",
        ),
        ("max.connections", count(), "Connections that are open at the same time."),
        ("socket.request.max.bytes", bytes(), "Bytes of the largest request."),
        (
            "queued.max.request.bytes",
            OptionType::int(1 << 20, i64::MAX),
            "Bytes that the requests and answers of all connections may hold.",
        ),
        ("fetch.max.bytes", bytes(), "Bytes of the largest fetch answer."),
        (
            "log.retention.check.interval.ms",
            count(),
            "Milliseconds between two looks for segments to delete (300000).",
        ),
        ("log.cleaner.backoff.ms", count(), "Milliseconds between two looks for logs to compact (15000)."),
        (
            "log.cleaner.dedupe.buffer.size",
            OptionType::int(1 << 20, i64::MAX),
            "Bytes that the map of keys of a compaction may take (16777216).",
        ),
        (
            "producer.id.expiration.ms",
            count(),
            "Milliseconds after its last record until a partition forgets a producer (86400000).",
        ),
    ]
}

/// Defaults and bounds of what consumer groups set (KIP-848).
fn group_options() -> impl IntoIterator<Item = Setting> {
    [
        (
            "group.consumer.session.timeout.ms",
            count(),
            "Milliseconds without a heartbeat until a member of a consumer group is taken for gone (45000).",
        ),
        ("group.consumer.min.session.timeout.ms", count(), "The shortest such timeout (45000)."),
        ("group.consumer.max.session.timeout.ms", count(), "The longest such timeout (60000)."),
        (
            "group.consumer.heartbeat.interval.ms",
            count(),
            "Milliseconds between two heartbeats of a member of a consumer group (5000).",
        ),
        ("group.consumer.min.heartbeat.interval.ms", count(), "The shortest such interval (5000)."),
        ("group.consumer.max.heartbeat.interval.ms", count(), "The longest such interval (15000)."),
        (
            "group.consumer.assignment.interval.ms",
            OptionType::int(0, 3_600_000),
            "Milliseconds between two target assignments of a consumer group, at least (1000).",
        ),
        (
            "group.consumer.migration.policy",
            OptionType::choices(&[
                ("bidirectional", "in both directions"),
                ("upgrade", "from the classic protocol to the new one"),
                ("downgrade", "from the new protocol to the classic one"),
                ("disabled", "never"),
            ]),
            "In which direction a group with members may change its protocol (bidirectional).",
        ),
    ]
}

/// Transactions, and the topic of their state.
fn transaction_options() -> impl IntoIterator<Item = Setting> {
    [
        (
            "transaction.state.log.num.partitions",
            OptionType::int(1, 1000),
            "Partitions of the topic of transactions' state (50), at the first start.",
        ),
        (
            "transaction.state.log.min.isr",
            OptionType::int(1, 32),
            "In-sync replicas that a change of a transaction's state needs, when that topic is made.",
        ),
        (
            "transaction.state.log.segment.bytes",
            bytes(),
            "Bytes of a segment of that topic, when it is made.",
        ),
        ("transaction.max.timeout.ms", count(), "The longest time that a transaction may ask for (900000)."),
        (
            "transactional.id.expiration.ms",
            count(),
            "Milliseconds after its last transaction until a transactional id is forgotten (604800000).",
        ),
        (
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            count(),
            "Milliseconds between two looks for transactions that have had their time (10000).",
        ),
        (
            "transaction.remove.expired.transaction.cleanup.interval.ms",
            count(),
            "Milliseconds between two looks for transactional ids to forget (3600000).",
        ),
    ]
}

/// Defaults and bounds of what share groups set (KIP-932).
fn share_group_options() -> impl IntoIterator<Item = Setting> {
    [
        (
            "group.share.session.timeout.ms",
            count(),
            "Milliseconds without a heartbeat until a member of a share group is taken for gone (45000).",
        ),
        ("group.share.min.session.timeout.ms", count(), "The shortest such timeout (45000)."),
        ("group.share.max.session.timeout.ms", count(), "The longest such timeout (60000)."),
        (
            "group.share.heartbeat.interval.ms",
            count(),
            "Milliseconds between two heartbeats of a member of a share group (5000).",
        ),
        ("group.share.min.heartbeat.interval.ms", count(), "The shortest such interval (5000)."),
        ("group.share.max.heartbeat.interval.ms", count(), "The longest such interval (15000)."),
        (
            "group.share.record.lock.duration.ms",
            count(),
            "Milliseconds for which a member of a share group has a record to itself (30000).",
        ),
        ("group.share.min.record.lock.duration.ms", count(), "The shortest such time (15000)."),
        ("group.share.max.record.lock.duration.ms", count(), "The longest such time (60000)."),
        (
            "group.share.delivery.count.limit",
            count(),
            "How often a record is given to members of a share group before it is given up (5).",
        ),
        ("group.share.min.delivery.count.limit", count(), "The smallest such number (2)."),
        ("group.share.max.delivery.count.limit", count(), "The largest such number (10)."),
        (
            "group.share.partition.max.record.locks",
            count(),
            "Records of one partition that may be with members of a share group at the same time (2000).",
        ),
        ("group.share.min.partition.max.record.locks", count(), "The smallest such number (100)."),
        ("group.share.max.partition.max.record.locks", count(), "The largest such number (10000)."),
        ("group.share.max.size", count(), "Members of the largest share group (200)."),
        ("group.share.max.share.sessions", count(), "Share sessions of one node (2000)."),
        (
            "share.coordinator.state.topic.num.partitions",
            count(),
            "Partitions of the topic of share groups' states (50).",
        ),
    ]
}

/// How the nodes of a cluster treat each other.
fn replication_options() -> impl IntoIterator<Item = Setting> {
    [
        (
            "default.replication.factor",
            OptionType::int(1, 32),
            "Replicas of a topic that does not say how many (1, or what `cluster: defaults:` says).",
        ),
        (
            "replica.lag.time.max.ms",
            count(),
            "Milliseconds after which a replica that has not caught up is no longer in sync (30000).",
        ),
        (
            "num.replica.fetchers",
            OptionType::int(1, 64),
            "Connections to each leader that replicas are fetched over (1).",
        ),
        (
            "broker.session.timeout.ms",
            count(),
            "Milliseconds without a heartbeat after which a broker is fenced (9000).",
        ),
        ("broker.heartbeat.interval.ms", count(), "Milliseconds between two heartbeats of a broker (2000)."),
        (
            "controller.quorum.election.timeout.ms",
            count(),
            "Milliseconds for which an active controller that says nothing is still taken for it (500).",
        ),
        (
            "auto.leader.rebalance.enable",
            OptionType::Bool,
            "Whether leaders go back to the first replica of their partition by themselves (true).",
        ),
        (
            "leader.imbalance.check.interval.seconds",
            count(),
            "Seconds between two looks whether leaders should go back to the first replica of their partition (300).",
        ),
        (
            "replica.selector.class",
            OptionType::choices(&[
                ("RackAwareReplicaSelector", "consumers read from a replica in their own rack"),
                (
                    "org.apache.kafka.common.replica.RackAwareReplicaSelector",
                    "the same, by Kafka's whole name",
                ),
            ]),
            "Which replica a consumer reads from (default: the leader).",
        ),
    ]
}

fn topic_defaults() -> impl IntoIterator<Item = Setting> {
    let or_none = || OptionType::int(-1, i64::MAX);
    [
        (
            "min.insync.replicas",
            OptionType::int(1, 32),
            "In-sync replicas that a record with acks=all needs, unless its topic says otherwise.",
        ),
        (
            "unclean.leader.election.enable",
            OptionType::Bool,
            "Whether a replica that may lack acknowledged records can lead when no other is left, unless its topic says \
             otherwise.",
        ),
        ("message.max.bytes", bytes(), "Bytes of the largest record batch, unless its topic says otherwise."),
        (
            "log.retention.ms",
            or_none(),
            "Milliseconds for which records are kept, unless their topic says otherwise; -1 for ever.",
        ),
        (
            "log.retention.bytes",
            or_none(),
            "Bytes that a partition keeps, unless its topic says otherwise; -1 for all.",
        ),
        ("log.segment.bytes", bytes(), "Bytes of a segment, unless its topic says otherwise."),
        (
            "log.roll.ms",
            count(),
            "Milliseconds after which a segment is closed, unless its topic says otherwise.",
        ),
        (
            "log.flush.interval.messages",
            OptionType::int(1, i64::MAX),
            "Records after which a partition is flushed to the disk, unless its topic says otherwise; 1 is before every acknowledgement.",
        ),
        (
            "log.flush.interval.ms",
            OptionType::int(1, i64::MAX),
            "Milliseconds after which a partition is flushed to the disk, unless its topic says otherwise.",
        ),
        (
            "log.cleanup.policy",
            OptionType::NonEmptyString,
            "`delete`, `compact` or `compact,delete`, unless a topic says otherwise.",
        ),
        (
            "compression.type",
            OptionType::NonEmptyString,
            "How batches are stored, unless their topic says otherwise: `producer`, `uncompressed`, `gzip`, `snappy`, `lz4` or `zstd`.",
        ),
        (
            "log.message.timestamp.type",
            OptionType::NonEmptyString,
            "`CreateTime` or `LogAppendTime`, unless a topic says otherwise.",
        ),
    ]
}

/// Those that are seldom set.
fn more_topic_defaults() -> impl IntoIterator<Item = Setting> {
    let ms = || OptionType::int(0, i64::MAX);
    let hours = || OptionType::int(-1, i64::from(i32::MAX));
    [
        (
            "log.retention.minutes",
            hours(),
            "As log.retention.ms, in minutes; log.retention.ms goes before it.",
        ),
        ("log.retention.hours", hours(), "As log.retention.ms, in hours; those before go before it."),
        ("log.roll.hours", count(), "As log.roll.ms, in hours; log.roll.ms goes before it."),
        ("log.roll.jitter.ms", ms(), "The largest random part that is taken off log.roll.ms."),
        ("log.roll.jitter.hours", OptionType::int(0, i64::from(i32::MAX)), "The same in hours."),
        (
            "log.index.interval.bytes",
            OptionType::int(0, i64::from(i32::MAX)),
            "Bytes between two index entries.",
        ),
        ("log.index.size.max.bytes", OptionType::int(4, i64::from(i32::MAX)), "Bytes of the largest index."),
        ("log.cleaner.delete.retention.ms", ms(), "Milliseconds for which a tombstone is kept."),
        ("log.cleaner.min.compaction.lag.ms", ms(), "Milliseconds for which a record is certainly kept."),
        (
            "log.cleaner.max.compaction.lag.ms",
            OptionType::int(1, i64::MAX),
            "Milliseconds after which a record is compacted, however little there is to gain.",
        ),
        (
            "log.cleaner.min.cleanable.ratio",
            OptionType::Scalar,
            "The share of a log that must be uncompacted before it is compacted again, from 0 to 1.",
        ),
        ("log.message.timestamp.before.max.ms", ms(), "Milliseconds that a timestamp may be in the past."),
        ("log.message.timestamp.after.max.ms", ms(), "Milliseconds that a timestamp may be in the future."),
        ("compression.gzip.level", OptionType::int(-1, 9), "The level where compression.type is gzip."),
        (
            "compression.lz4.level",
            OptionType::int(1, 17),
            "The level where compression.type is lz4; changes nothing.",
        ),
        (
            "compression.zstd.level",
            OptionType::int(-131_072, 22),
            "The level where compression.type is zstd.",
        ),
    ]
}

/// `cluster:`: `bootstrap_servers` alone, or `name` and `controllers`.
#[must_use]
pub fn cluster_options() -> ConfigSpec {
    ConfigSpec::new(vec![
        OptionSpec::optional(
            "bootstrap_servers",
            OptionType::list(OptionType::NonEmptyString),
            "Brokers of any Kafka cluster (host:port); no broker is started here.",
        ),
        OptionSpec::optional(
            "name",
            OptionType::NonEmptyString,
            "The name of a cluster of our own, of which this process is a node; the same in the files of every node.",
        ),
        OptionSpec::optional(
            "controllers",
            OptionType::list(OptionType::NonEmptyString),
            "The nodes that keep the metadata of a cluster of our own, as id@host:port: one, or better three or five; the \
             same in the files of every node.",
        ),
        OptionSpec::optional(
            "defaults",
            OptionType::Object(ConfigSpec::new(vec![
                OptionSpec::optional(
                    "replication_factor",
                    OptionType::int(1, 32),
                    "Replicas of a topic that does not say how many (as many as there are controllers, at most 3).",
                ),
                OptionSpec::optional(
                    "min_insync_replicas",
                    OptionType::int(1, 32),
                    "In-sync replicas that a record with acks=all needs, where its topic does not say how many (one less \
                     than the replicas where there are three or more, else 1).",
                ),
            ])),
            "What new topics of a cluster of our own have.",
        ),
    ])
}

/// The frame of a pipeline: everything but what its source, sink, transforms and format declare themselves.
#[must_use]
pub fn pipeline_options() -> ConfigSpec {
    ConfigSpec::new(vec![
        OptionSpec::optional(
            "source",
            OptionType::Any,
            "Where records come from: `type` and the type's options.",
        ),
        OptionSpec::optional(
            "topic",
            OptionType::NonEmptyString,
            "The topic that the source writes to; a template: {schema}, {table}, {database}, {pipeline} …",
        ),
        OptionSpec::optional(
            "topics",
            OptionType::list(OptionType::NonEmptyString),
            "The topics that the sink reads; patterns with `*` and `?`.",
        ),
        OptionSpec::optional(
            "transforms",
            OptionType::list(OptionType::Any),
            "What happens to records on their way.",
        ),
        OptionSpec::optional("sink", OptionType::Any, "Where records go: `type` and the type's options."),
        OptionSpec::optional(
            "format",
            OptionType::Any,
            "How records stand in the topic: `json` (default), `raw`, or a map with `type` and `schemas` (id, inline, \
             none).",
        ),
        OptionSpec::with_default(
            "tasks",
            OptionType::int(1, 256),
            json!(1),
            "At most so many tasks for the source, and so many for the sink.",
        ),
        OptionSpec::optional(
            "dead_letter",
            OptionType::Any,
            "Where records go that cannot be handled: `true` (default: the topic `<pipeline>.dead-letter`), `false` \
             (the task fails at the record), or a map with `topic`.",
        ),
        OptionSpec::optional(
            "partitions",
            OptionType::int(1, 10_000),
            "Partitions of topics that this pipeline creates (default 1, which keeps the order of key changes and \
             truncates; more gives that up).",
        ),
        OptionSpec::optional(
            "replication_factor",
            OptionType::int(1, 32),
            "Replicas of topics that this pipeline creates (default: the cluster's own default).",
        ),
        OptionSpec::optional(
            "topic_config",
            OptionType::map(OptionType::Scalar),
            "Topic configs of topics that this pipeline creates (`cleanup.policy: compact` …).",
        ),
        OptionSpec::with_default(
            "compression",
            OptionType::choices(&[
                ("none", "as it is"),
                ("gzip", "small, slow"),
                ("snappy", "fast"),
                ("lz4", "fast"),
                ("zstd", "small"),
            ]),
            json!("none"),
            "How record batches are compressed on their way into the topic.",
        ),
    ])
}

/// The YAML's top level.
/// One of `clusters:`.
#[must_use]
pub fn remote_cluster_options() -> ConfigSpec {
    ConfigSpec::new(vec![OptionSpec::required(
        "bootstrap_servers",
        OptionType::list(OptionType::NonEmptyString),
        "Brokers of the cluster to start from (host:port).",
    )])
}

/// `sync` of a mirror.
fn sync_options() -> ConfigSpec {
    ConfigSpec::new(vec![
        OptionSpec::with_default(
            "configs",
            OptionType::Bool,
            json!(true),
            "Settings of the source's topics that change later; the target's own are taken back.",
        ),
        OptionSpec::with_default(
            "partitions",
            OptionType::Bool,
            json!(true),
            "Partitions that the source's topics get later.",
        ),
        OptionSpec::with_default(
            "deletes",
            OptionType::Bool,
            json!(false),
            "Topics that are deleted at the source are deleted at the target, and those that are made anew there are mirrored \
             anew. Only what the mirror itself has made is deleted.",
        ),
    ])
}

/// Who writes to a mirror's topics, and what they are called.
fn naming_options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::with_default(
            "mode",
            OptionType::choices(&[
                ("active_passive", "the mirror alone writes to the target's topics"),
                (
                    "active_active",
                    "others write to them as well; with identical names in both directions nothing goes round, and settings \
                     and groups' offsets stay each side's own",
                ),
            ]),
            json!("active_passive"),
            "Who writes to the target's topics.",
        ),
        OptionSpec::with_default(
            "naming",
            OptionType::choices(&[
                ("identical", "as at the source"),
                ("prefixed", "with the source's alias in front, as MirrorMaker 2 does: `us.orders`"),
            ]),
            json!("prefixed"),
            "What topics are called at the target.",
        ),
        OptionSpec::with_default(
            "forward",
            OptionType::Bool,
            json!(true),
            "With identical names: whether records that came to the source from other clusters go on to the target, as in a \
             ring. Off where mirrors lead from each cluster to each other one: there they have a way of their own.",
        ),
    ]
}

/// One of `mirrors:`.
#[must_use]
pub fn mirror_options() -> ConfigSpec {
    let mut options = vec![
        OptionSpec::required("from", OptionType::NonEmptyString, "The source: one of `clusters:`."),
        OptionSpec::required("to", OptionType::NonEmptyString, "The target: another one of `clusters:`."),
        OptionSpec::with_default(
            "topics",
            OptionType::list(OptionType::NonEmptyString),
            json!(["*"]),
            "The topics of the source, as patterns: `*` stands for any characters, `?` for one, and what begins with `!` is \
             left out. Internal topics are never mirrored.",
        ),
        OptionSpec::with_default(
            "groups",
            OptionType::list(OptionType::NonEmptyString),
            json!(["*"]),
            "The consumer groups whose offsets are translated and committed at the target, while the group has no members \
             there; patterns as for `topics`, and `[]` for none.",
        ),
        OptionSpec::with_default(
            "sync",
            OptionType::Object(sync_options()),
            json!({ "configs": true, "partitions": true, "deletes": false }),
            "What is brought in line with the source, beside that its topics are created: `towpath mirror plan` shows it.",
        ),
        OptionSpec::with_default(
            "begin",
            OptionType::choices(&[
                ("anew", "at its beginning"),
                (
                    "mirrormaker",
                    "where MirrorMaker 2 has left it, which must be stopped: its offset syncs tell, and what the target has",
                ),
            ]),
            json!("anew"),
            "Where a partition begins that this mirror has not mirrored before.",
        ),
        OptionSpec::with_default(
            "mirrormaker_topics",
            OptionType::Bool,
            json!(false),
            "Whether it also writes what the clients of MirrorMaker 2 look for: `SOURCE.checkpoints.internal` at the target, and \
             `heartbeats` at the source, which is mirrored.",
        ),
        OptionSpec::with_default(
            "refresh",
            OptionType::Duration,
            json!(5_000),
            "How often the source is looked at for new topics, partitions and groups' offsets; for settings, every sixth \
             time.",
        ),
        OptionSpec::with_default(
            "tasks",
            OptionType::int(1, 64),
            json!(2),
            "How many tasks share the partitions; each has connections of its own.",
        ),
        OptionSpec::optional(
            "bandwidth",
            OptionType::ByteSize,
            "How many bytes a second it may fetch from the source, all its tasks together; as many as it can, without it.",
        ),
    ];
    // Behind the topics.
    options.splice(3..3, naming_options());
    ConfigSpec::new(options)
}

pub(crate) fn top_options() -> ConfigSpec {
    ConfigSpec::new(vec![
        OptionSpec::optional("node", OptionType::Any, "This process: where it listens and keeps its data."),
        OptionSpec::optional(
            "cluster",
            OptionType::Any,
            "Someone else's Kafka cluster instead of the embedded broker, or the cluster that this node belongs to.",
        ),
        OptionSpec::optional(
            "plugins",
            OptionType::Any,
            "Plugins by name: WASM components that bring types of source, sink and transform.",
        ),
        OptionSpec::optional(
            "plugin_directory",
            OptionType::Path,
            "Where plugins lie that are named by `plugin: NAME@VERSION`: NAME/VERSION.wasm in this directory. A relative path is \
             meant from where this file is, since its lock file is there, too. Without this it is \
             $TOWPATH_PLUGIN_DIRECTORY, or `plugins` beside the file.",
        ),
        OptionSpec::optional(
            "plugin_trust",
            OptionType::Any,
            "Whose signatures of plugins count. Without this they are not looked at.",
        ),
        OptionSpec::optional("pipelines", OptionType::Any, "Pipelines by name."),
        OptionSpec::optional("clusters", OptionType::Any, "Clusters by alias, for `mirrors:`."),
        OptionSpec::optional(
            "mirrors",
            OptionType::Any,
            "Mirrors by name: each copies topics from one cluster to another.",
        ),
    ])
}

/// `plugin_trust:`
pub(crate) fn trust_options() -> ConfigSpec {
    ConfigSpec::new(vec![
        OptionSpec::required(
            "keys",
            OptionType::list(OptionType::NonEmptyString),
            "Public keys (`ed25519:…`, as `towpath plugin keygen` tells them). A signature by any other key is refused.",
        ),
        OptionSpec::with_default(
            "required",
            OptionType::Bool,
            json!(true),
            "Whether each plugin must be signed. With `false` one without a signature is taken, and one with a wrong \
             signature is not.",
        ),
    ])
}
