//! The broker's own settings under Kafka's names, as DescribeConfigs shows them. They are read-only: set in the
//! configuration, in force from start to stop.

use towpath_controller::topic_config::{ConfigType, KEYS};

use crate::state::BrokerState;

/// One setting of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerSetting {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) config_type: ConfigType,
    /// Whether it is not the default.
    pub(crate) is_set: bool,
    pub(crate) doc: &'static str,
}

/// All settings, sorted by name.
pub(crate) fn all(broker: &BrokerState) -> Vec<BrokerSetting> {
    let mut settings = own(broker);
    settings.extend(storage(broker));
    settings.extend(limits(broker));
    settings.extend(groups(broker));
    let defaults = &broker.config.topic_defaults;
    settings.extend(KEYS.iter().filter_map(|key| {
        let set = defaults.get(key.name);
        Some(BrokerSetting {
            name: key.broker_name?,
            value: set.map_or(key.default, String::as_str).to_owned(),
            config_type: key.config_type,
            is_set: set.is_some(),
            doc: key.doc,
        })
    }));
    settings.sort_by_key(|setting| setting.name);
    settings
}

fn setting(
    name: &'static str,
    config_type: ConfigType,
    value: impl ToString,
    default: impl ToString,
    doc: &'static str,
) -> BrokerSetting {
    let (value, default) = (value.to_string(), default.to_string());
    BrokerSetting { name, is_set: value != default, value, config_type, doc }
}

/// What the broker is and what topics get that do not say.
fn own(broker: &BrokerState) -> Vec<BrokerSetting> {
    use ConfigType::{Boolean, Int, List, String as Text};
    let config = &broker.config;
    let listen = config.listen.map_or(String::new(), |address| format!("PLAINTEXT://{address}"));
    let advertised = format!("PLAINTEXT://{}:{}", broker.advertised.host, broker.advertised.port);
    vec![
        setting("advertised.listeners", List, advertised, "", "What clients are told to connect to."),
        setting(
            "auto.create.topics.enable",
            Boolean,
            config.auto_create_topics,
            true,
            "Whether a topic is created when a client asks for it.",
        ),
        setting("broker.id", Int, config.node_id, -1, "The broker's number."),
        setting(
            "broker.rack",
            Text,
            config.rack.as_deref().unwrap_or_default(),
            "",
            "The rack that the broker stands in.",
        ),
        setting(
            "default.replication.factor",
            Int,
            config.replication_factor_default,
            1,
            "The replicas of a topic that does not say how many.",
        ),
        setting("delete.topic.enable", Boolean, true, true, "Whether topics can be deleted."),
        setting("listeners", List, listen, "", "Where the broker accepts connections."),
        setting("node.id", Int, config.node_id, -1, "The node's number."),
        setting(
            "num.partitions",
            Int,
            config.partitions_default,
            1,
            "The partitions of a topic that does not say how many.",
        ),
        setting("process.roles", List, "broker,controller", "", "What the node is."),
    ]
}

/// Where it stores, and how often it looks after that.
fn storage(broker: &BrokerState) -> Vec<BrokerSetting> {
    use ConfigType::{Int, List, Long};
    let config = &broker.config;
    vec![
        setting(
            "log.cleaner.backoff.ms",
            Long,
            config.compaction_check_interval.as_millis(),
            15_000,
            "Milliseconds between two looks for logs to compact.",
        ),
        setting(
            "log.dirs",
            List,
            config.data_dir.display(),
            "",
            "The directory of everything that the broker stores.",
        ),
        setting(
            "log.flush.offset.checkpoint.interval.ms",
            Int,
            config.checkpoint_interval.as_millis(),
            60_000,
            "Milliseconds between two checkpoints.",
        ),
        setting(
            "log.retention.check.interval.ms",
            Long,
            config.retention_check_interval.as_millis(),
            300_000,
            "Milliseconds between two looks for segments to delete.",
        ),
    ]
}

/// What clients can make it hold (R10).
fn limits(broker: &BrokerState) -> Vec<BrokerSetting> {
    use ConfigType::{Int, Long};
    let (limits, defaults) = (&broker.config.limits, crate::Limits::default());
    vec![
        setting(
            "connections.max.idle.ms",
            Long,
            limits.connection_idle_max.as_millis(),
            defaults.connection_idle_max.as_millis(),
            "Milliseconds after which an idle connection is closed.",
        ),
        setting(
            "fetch.max.bytes",
            Int,
            limits.fetch_bytes_max,
            defaults.fetch_bytes_max,
            "Bytes of the largest fetch answer.",
        ),
        setting(
            "max.connections",
            Int,
            limits.connections_max,
            defaults.connections_max,
            "Connections that are open at the same time.",
        ),
        setting(
            "max.incremental.fetch.session.cache.slots",
            Int,
            limits.fetch_sessions_max,
            defaults.fetch_sessions_max,
            "Incremental fetch sessions that are remembered.",
        ),
        setting(
            "queued.max.request.bytes",
            Long,
            limits.request_memory_bytes,
            defaults.request_memory_bytes,
            "Bytes that the requests and answers of all connections may hold.",
        ),
        setting(
            "socket.request.max.bytes",
            Int,
            limits.request_bytes_max,
            defaults.request_bytes_max,
            "Bytes of the largest request.",
        ),
    ]
}

fn groups(broker: &BrokerState) -> Vec<BrokerSetting> {
    use ConfigType::{Int, Long};
    let (groups, defaults) = (&broker.config.groups, towpath_coordinator::GroupConfig::default());
    let minutes = |ms: i64| ms / 60_000;
    vec![
        setting(
            "group.initial.rebalance.delay.ms",
            Int,
            groups.initial_rebalance_delay_ms,
            defaults.initial_rebalance_delay_ms,
            "Milliseconds that the first generation of an empty group waits for more members.",
        ),
        setting(
            "group.max.session.timeout.ms",
            Int,
            groups.session_timeout_ms_max,
            defaults.session_timeout_ms_max,
            "The longest session timeout of a group member.",
        ),
        setting(
            "group.max.size",
            Int,
            groups.members_max,
            defaults.members_max,
            "Members of the largest group.",
        ),
        setting(
            "group.min.session.timeout.ms",
            Int,
            groups.session_timeout_ms_min,
            defaults.session_timeout_ms_min,
            "The shortest session timeout of a group member.",
        ),
        setting(
            "offset.metadata.max.bytes",
            Int,
            groups.offset_metadata_max,
            defaults.offset_metadata_max,
            "The longest text that may accompany a committed offset.",
        ),
        setting(
            "offsets.retention.check.interval.ms",
            Long,
            groups.offsets_retention_check_interval_ms,
            defaults.offsets_retention_check_interval_ms,
            "Milliseconds between two looks for committed offsets to forget.",
        ),
        setting(
            "offsets.retention.minutes",
            Int,
            minutes(groups.offsets_retention_ms),
            minutes(defaults.offsets_retention_ms),
            "Minutes for which the offsets of a group without members are kept.",
        ),
        setting(
            "offsets.topic.num.partitions",
            Int,
            broker.config.offsets_partitions,
            50,
            "The partitions of the topic that holds committed offsets.",
        ),
    ]
}
