//! The embedded broker's settings from `node:` and `cluster:`.

use std::net::SocketAddr;

use towpath_broker::{BrokerConfig, ClusterSettings, Endpoint, Roles};
use towpath_config::{Config, OwnCluster, Problem};
use towpath_types::BrokerId;

use crate::failure::{Failure, chain};

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
        further_dirs: config.node.more_data_dirs.clone(),
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

/// What the node is to its cluster; `peer_listen` is where it listens for other nodes.
pub(crate) fn cluster_settings(config: &Config, peer_listen: SocketAddr) -> Option<ClusterSettings> {
    let own = config.own_cluster()?;
    let endpoint = |it: &towpath_config::ControllerAddress| {
        (BrokerId::new(it.id), Endpoint { host: it.host.clone(), port: it.port })
    };
    let controllers: Vec<_> = own.controllers.iter().map(endpoint).collect();
    let me = BrokerId::new(config.node.id);
    // A controller is reached where the cluster says; the address that it listens on may be another one.
    let advertised = controllers.iter().find(|(id, _)| *id == me).map(|(_, endpoint)| endpoint.clone());
    Some(ClusterSettings {
        roles: Roles { broker: config.node.roles.broker, controller: config.node.roles.controller },
        peer_advertised: advertised,
        ..ClusterSettings::new(own.name.clone(), controllers, peer_listen)
    })
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
        let listen = "[::]:9093".parse().unwrap();
        let cluster = cluster_settings(&config, listen).unwrap();
        assert_eq!(
            (cluster.name.as_str(), cluster.roles, cluster.peer_listen),
            ("eu", Roles::default(), listen)
        );
        assert_eq!(cluster.peer_advertised.unwrap().host, "fd00::2");
        let (id, endpoint) = &cluster.controllers[1];
        assert_eq!((id.get(), endpoint.host.as_str(), endpoint.port), (2, "fd00::2", 9093));
    }

    /// What the files may say, the broker takes, by the same name.
    #[test]
    fn every_setting_of_the_files_is_one_of_the_broker() {
        let options = towpath_config::node_options();
        let settings = options.options.iter().find(|option| option.name == "settings").unwrap();
        let towpath_api::OptionType::Object(settings) = &settings.ty else { panic!("no settings") };
        for option in &settings.options {
            let mut broker = BrokerConfig::new("d");
            let values = [
                "1",
                "true",
                "1000",
                "1048576",
                "10000000",
                "delete",
                "producer",
                "CreateTime",
                "RackAwareReplicaSelector",
                "disabled",
            ];
            let takes = values.iter().any(|value| broker.set(&option.name, value).is_ok());
            assert!(takes, "{}", option.name);
        }
    }

    #[test]
    fn settings_of_the_node_go_over_the_clusters() {
        let broker = broker_config(&config(
            "node: { roles: [broker], id: 4, kafka: \"h:1\", settings: { min.insync.replicas: 1 } }\n\
             cluster: { name: eu, controllers: [\"1@a:9093\"], defaults: { replication_factor: 3 } }\n",
        ))
        .unwrap();
        assert_eq!(broker.topic_defaults["min.insync.replicas"], "1");
        assert!(cluster_settings(&config(""), "[::]:0".parse().unwrap()).is_none());
        assert_eq!(broker_config(&config("node: { id: 7 }\n")).unwrap().node_id.get(), 7);
    }
}
