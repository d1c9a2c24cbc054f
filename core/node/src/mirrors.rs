//! The mirrors that the files declare, running.

use serde_json::{Value, json};
use towpath_client::ClientConfig;
use towpath_config::{Config, Mirror, MirrorNaming, RemoteCluster};
use towpath_mirror::{Begin, Link, LinkConfig, Mode, Naming, Sync};

/// Starts all of them. Must be called within a Tokio runtime.
pub(crate) fn start(config: &Config) -> Vec<Link> {
    config.mirrors.iter().map(|mirror| Link::start(link(mirror))).collect()
}

pub(crate) fn link(mirror: &Mirror) -> LinkConfig {
    let client = |cluster: &RemoteCluster| ClientConfig {
        client_id: format!("towpath-mirror-{}", mirror.name),
        bootstrap_servers: cluster.bootstrap_servers.clone(),
        ..ClientConfig::default()
    };
    LinkConfig {
        name: mirror.name.clone(),
        from: mirror.from.alias.clone(),
        to: mirror.to.alias.clone(),
        source: client(&mirror.from),
        target: client(&mirror.to),
        topics: mirror.topics.clone(),
        naming: match mirror.naming {
            MirrorNaming::Identical => Naming::Identical,
            MirrorNaming::Prefixed => Naming::Prefixed,
        },
        mode: if mirror.active_active { Mode::ActiveActive } else { Mode::ActivePassive },
        forward: mirror.forward,
        groups: mirror.groups.clone(),
        sync: Sync {
            configs: mirror.sync_configs,
            partitions: mirror.sync_partitions,
            deletes: mirror.sync_deletes,
        },
        bandwidth: mirror.bandwidth,
        begin: if mirror.begin_at_mirrormaker { Begin::MirrorMaker } else { Begin::Anew },
        mirrormaker_topics: mirror.mirrormaker_topics,
        refresh: mirror.refresh,
        tasks: mirror.tasks,
    }
}

/// What `/status` shows of them.
pub(crate) fn status(links: &[Link]) -> Value {
    json!(links.iter().map(Link::status).collect::<Vec<_>>())
}
