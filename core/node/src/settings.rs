//! The embedded broker's settings from `node:` and `cluster:`.

use std::net::SocketAddr;

use towpath_broker::{BrokerConfig, Endpoint};
use towpath_config::{Config, OwnCluster, Problem, Roles};
use towpath_types::BrokerId;

use crate::failure::{Failure, chain};

/// What a broker has to know to be a node of a cluster of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterSettings {
    /// The cluster's name.
    pub(crate) name: String,
    /// What this node does.
    pub(crate) roles: Roles,
    /// The voters of the metadata quorum, this node among them where it is one.
    pub(crate) controllers: Vec<(BrokerId, Endpoint)>,
    /// Where it listens for other nodes, where it is a controller.
    pub(crate) peer_listen: Option<SocketAddr>,
}

/// The settings, without a listener, which takes an address of this machine.
///
/// # Errors
/// With the place of each setting under `node: settings:` that does not fit.
pub(crate) fn broker_config(config: &Config) -> Result<BrokerConfig, Failure> {
    let advertised = config.node.advertised.as_ref().and_then(|address| {
        let (host, port) = address.rsplit_once(':')?;
        Some(Endpoint { host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
    });
    let mut broker = BrokerConfig {
        advertised,
        node_id: BrokerId::new(config.node.id),
        rack: config.node.rack.clone(),
        ..BrokerConfig::new(&config.node.data_dir)
    };
    if let Some(own) = config.own_cluster() {
        take_defaults(&mut broker, own);
    }
    let mut problems = Vec::new();
    for (name, value) in &config.node.settings {
        if let Err(error) = broker.set(name, value) {
            let mut problem = Problem::without_place("CONFIG_VALUE", chain(&error));
            problem.place = config.setting_place(name);
            problems.push(problem.with_hint("the settings and their values are Kafka's"));
        }
    }
    if problems.is_empty() { Ok(broker) } else { Err(Failure::Config(config.problems(problems))) }
}

/// `cluster: defaults:`; settings of the node by Kafka's names go over them.
fn take_defaults(broker: &mut BrokerConfig, own: &OwnCluster) {
    broker.replication_factor_default = own.replication_factor;
    let least = own.min_insync_replicas.to_string();
    broker.topic_defaults.insert("min.insync.replicas".to_owned(), least);
}

/// What the cluster of our own is to its node here; `peer_listen` is `node: controller:` as an address of this machine.
pub(crate) fn cluster_settings(config: &Config, peer_listen: Option<SocketAddr>) -> Option<ClusterSettings> {
    let own = config.own_cluster()?;
    let endpoint = |it: &towpath_config::ControllerAddress| {
        (BrokerId::new(it.id), Endpoint { host: it.host.clone(), port: it.port })
    };
    Some(ClusterSettings {
        name: own.name.clone(),
        roles: config.node.roles,
        controllers: own.controllers.iter().map(endpoint).collect(),
        peer_listen,
    })
}

/// Makes the broker a node of the cluster.
///
/// To connect: `broker.cluster = Some(towpath_broker::ClusterSettings { … })` out of `settings`, once the broker has
/// it. It is the only place where a node of a cluster is started differently from a broker that is alone.
///
/// # Errors
/// Always, until the line above is there.
pub(crate) fn join_cluster(_broker: &mut BrokerConfig, settings: ClusterSettings) -> Result<(), Failure> {
    let ClusterSettings { name, roles, controllers, peer_listen } = settings;
    tracing::debug!(name, ?roles, ?controllers, ?peer_listen, "a node of a cluster");
    Err(Failure::new(format!("this build cannot start a node of the cluster `{name}` yet"))
        .with_hint("remove `cluster:` to run a broker that is alone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        towpath_config::load_text("t.yaml", text, &crate::registry::built_in()).unwrap()
    }

    #[test]
    fn a_node_of_a_cluster_takes_what_the_cluster_says() {
        let config = config(
            "node: { id: 2, rack: b, kafka: \"h:1\", controller: \"[::]:9093\" }\n\
             cluster: { name: eu, controllers: [\"1@a:9093\", \"2@[fd00::2]:9093\", \"3@c:9093\"] }\n",
        );
        let broker = broker_config(&config).unwrap();
        assert_eq!((broker.node_id, broker.rack.as_deref()), (BrokerId::new(2), Some("b")));
        assert_eq!(broker.replication_factor_default, 3);
        assert_eq!(broker.topic_defaults["min.insync.replicas"], "2");
        let listen = "[::]:9093".parse().ok();
        let cluster = cluster_settings(&config, listen).unwrap();
        assert_eq!((cluster.name.as_str(), cluster.roles, cluster.peer_listen), ("eu", Roles::ALL, listen));
        let (id, endpoint) = &cluster.controllers[1];
        assert_eq!((id.get(), endpoint.host.as_str(), endpoint.port), (2, "fd00::2", 9093));
    }

    #[test]
    fn settings_of_the_node_go_over_the_clusters() {
        let broker = broker_config(&config(
            "node: { roles: [broker], id: 4, kafka: \"h:1\", settings: { min.insync.replicas: 1 } }\n\
             cluster: { name: eu, controllers: [\"1@a:9093\"], defaults: { replication_factor: 3 } }\n",
        ))
        .unwrap();
        assert_eq!(broker.topic_defaults["min.insync.replicas"], "1");
        assert!(cluster_settings(&config(""), None).is_none());
        assert_eq!(broker_config(&config("node: { id: 7 }\n")).unwrap().node_id.get(), 7);
    }
}
