//! One of several nodes on this machine, for development (`towpath up --nodes`).

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use towpath_config::{ClusterConfig, Config, ControllerAddress, OwnCluster, Roles};

use crate::failure::Failure;

/// The most nodes that one machine is asked to run.
pub(crate) const NODES_MAX: u16 = 32;
/// Ports of controllers lie so far behind those for Kafka clients.
const CONTROLLER_PORTS_BEHIND: u16 = 1000;
/// Nodes that are controllers, where there are so many.
const CONTROLLERS: u16 = 3;

/// What a node has of its own; everything else stands in the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalNode {
    /// The node.
    pub(crate) id: i32,
    data_dir: PathBuf,
    /// `host:port` for Kafka clients.
    pub(crate) kafka: String,
    advertised: Option<String>,
    /// `host:port` for other nodes, of a controller.
    pub(crate) controller: Option<String>,
    /// `host:port` for HTTP.
    pub(crate) http: String,
    cluster: String,
    controllers: Vec<String>,
    replication_factor: i16,
    min_insync_replicas: i32,
}

impl FromStr for LocalNode {
    type Err = String;

    /// As its parent has written it.
    fn from_str(text: &str) -> Result<Self, String> {
        let node: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        node.addresses()?;
        Ok(node)
    }
}

impl LocalNode {
    /// For a child's command line.
    pub(crate) fn to_argument(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::new(error.to_string()))
    }

    fn addresses(&self) -> Result<Vec<ControllerAddress>, String> {
        self.controllers.iter().map(|text| text.parse()).collect()
    }

    /// Puts the node in the place of the one in the files.
    pub(crate) fn apply(&self, config: &mut Config) {
        let controllers = self.addresses().unwrap_or_default();
        let node = &mut config.node;
        node.id = self.id;
        node.roles = Roles { broker: true, controller: self.controller.is_some() };
        node.data_dir.clone_from(&self.data_dir);
        for dir in &mut node.more_data_dirs {
            *dir = dir.join(format!("node-{}", self.id));
        }
        node.kafka.clone_from(&self.kafka);
        node.advertised.clone_from(&self.advertised);
        node.controller.clone_from(&self.controller);
        node.http.clone_from(&self.http);
        if self.id != 1 {
            // It is told once.
            node.message = None;
        }
        config.cluster = Some(ClusterConfig::Own(OwnCluster {
            replication_factor: self.replication_factor,
            min_insync_replicas: self.min_insync_replicas,
            ..OwnCluster::new(&*self.cluster, controllers)
        }));
    }
}

/// Nodes 1 to `count` on this machine: their ports follow those in the files, or are free ones where these are 0.
///
/// # Errors
/// When ports do not suffice or meet.
pub(crate) fn plan(
    config: &Config,
    count: u16,
    mut free_port: impl FnMut() -> std::io::Result<u16>,
) -> Result<Vec<LocalNode>, Failure> {
    let node = &config.node;
    let mut port = |address: &str, index: u16, behind: u16| -> Result<(String, u16), Failure> {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
        match port.parse().unwrap_or(0_u16) {
            0 => Ok((host.to_owned(), free_port()?)),
            first => match first.checked_add(behind).and_then(|port| port.checked_add(index)) {
                Some(port) => Ok((host.to_owned(), port)),
                None => Err(Failure::new(format!("{count} ports from {first} on are not there"))
                    .with_hint("set `node: kafka:` and `http:` to lower ports, or to port 0 for free ones")),
            },
        }
    };
    let voters = if count >= CONTROLLERS { CONTROLLERS } else { 1 };
    let (mut nodes, mut controllers) = (Vec::new(), Vec::new());
    for index in 0..count {
        let id = i32::from(index) + 1;
        let (host, number) = port(&node.kafka, index, 0)?;
        let advertised = match &node.advertised {
            // A port of its own is told, where the files tell one.
            Some(advertised) => {
                let (host, told) = port(advertised, index, 0)?;
                Some(format!("{host}:{}", if advertised.ends_with(":0") { number } else { told }))
            }
            None => None,
        };
        let controller = match index < voters {
            true => Some(format!("127.0.0.1:{}", port(&node.kafka, index, CONTROLLER_PORTS_BEHIND)?.1)),
            false => None,
        };
        controllers.extend(controller.iter().map(|address| format!("{id}@{address}")));
        let http = port(&node.http, index, 0).map(|(host, port)| format!("{host}:{port}"))?;
        nodes.push(LocalNode {
            id,
            data_dir: node.data_dir.join(format!("node-{id}")),
            kafka: format!("{host}:{number}"),
            advertised,
            controller,
            http,
            cluster: config.own_cluster().map_or("local", |own| &own.name).to_owned(),
            controllers: Vec::new(),
            replication_factor: i16::try_from(count.min(3)).unwrap_or(1),
            min_insync_replicas: if count >= 3 { 2 } else { 1 },
        });
    }
    for node in &mut nodes {
        node.controllers.clone_from(&controllers);
    }
    check_ports(&nodes)?;
    Ok(nodes)
}

/// The ports of one machine: no two listeners have the same.
fn check_ports(nodes: &[LocalNode]) -> Result<(), Failure> {
    let mut taken = std::collections::BTreeMap::new();
    for node in nodes {
        let listeners = [
            ("kafka", Some(&node.kafka)),
            ("controller", node.controller.as_ref()),
            ("http", Some(&node.http)),
        ];
        for (name, address) in listeners {
            let Some(port) = address.and_then(|address| address.rsplit(':').next()) else { continue };
            let who = format!("`{name}` of node {}", node.id);
            if let Some(other) = taken.insert(port.to_owned(), who.clone()) {
                return Err(Failure::new(format!("{other} and {who} would both listen on port {port}"))
                    .with_hint("set `node: kafka:` and `http:` further apart, or to port 0 for free ones"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        towpath_config::load_text("t.yaml", text, &crate::registry::built_in()).unwrap()
    }

    fn planned(text: &str, count: u16) -> Result<Vec<LocalNode>, Failure> {
        let mut next = 40_000;
        plan(&config(text), count, || {
            next += 1;
            Ok(next)
        })
    }

    #[test]
    fn ports_follow_those_in_the_files() {
        let nodes = planned("node: { data_dir: /d, advertised: \"me:9092\" }\n", 4).unwrap();
        let kafka: Vec<_> = nodes.iter().map(|node| node.kafka.as_str()).collect();
        assert_eq!(kafka, ["127.0.0.1:9092", "127.0.0.1:9093", "127.0.0.1:9094", "127.0.0.1:9095"]);
        assert_eq!(nodes[1].http, "127.0.0.1:8084");
        assert_eq!(nodes[2].advertised.as_deref(), Some("me:9094"));
        assert_eq!(nodes[2].controller.as_deref(), Some("127.0.0.1:10094"));
        assert_eq!((&nodes[3].controller, nodes[3].controllers.len()), (&None, 3));
        assert_eq!(nodes[3].data_dir, PathBuf::from("/d/node-4"));
        assert_eq!((nodes[0].replication_factor, nodes[0].min_insync_replicas), (3, 2));
        let two = planned("", 2).unwrap();
        assert_eq!(
            (two[0].controllers.len(), two[0].replication_factor, two[0].min_insync_replicas),
            (1, 2, 1)
        );
    }

    #[test]
    fn free_ports_are_taken_where_none_is_named() {
        let nodes = planned("node: { kafka: \"127.0.0.1:0\", http: \"127.0.0.1:0\" }\n", 2).unwrap();
        assert_eq!((nodes[0].kafka.as_str(), nodes[0].http.as_str()), ("127.0.0.1:40001", "127.0.0.1:40003"));
        assert_eq!(nodes[0].controllers, ["1@127.0.0.1:40002"]);
        assert_eq!(nodes[1].kafka, "127.0.0.1:40004");
    }

    #[test]
    fn ports_that_meet_or_end_are_refused() {
        let close =
            planned("node: { kafka: \"127.0.0.1:8082\", http: \"127.0.0.1:8083\" }\n", 2).unwrap_err();
        assert!(close.to_string().contains("port 8083"), "{close}");
        let high = planned("node: { kafka: \"127.0.0.1:65535\" }\n", 2).unwrap_err();
        assert!(high.to_string().contains("65535"), "{high}");
    }

    #[test]
    fn a_node_takes_its_place_in_the_files() {
        let text = "node: { message: hello }\n";
        let nodes = planned(text, 3).unwrap();
        let told: LocalNode = nodes[1].to_argument().unwrap().parse().unwrap();
        assert_eq!(told, nodes[1]);
        let mut config = config(text);
        told.apply(&mut config);
        assert_eq!((config.node.id, config.node.roles, config.node.message.clone()), (2, Roles::ALL, None));
        let own = config.own_cluster().unwrap();
        assert_eq!((own.name.as_str(), own.controllers.len(), own.replication_factor), ("local", 3, 3));
        assert_eq!(own.controller(2).unwrap().to_string(), "2@127.0.0.1:10093");
        assert!("{}".parse::<LocalNode>().is_err());
    }
}
