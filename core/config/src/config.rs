//! The whole configuration, validated.

use std::collections::BTreeMap;
use std::path::PathBuf;

use towpath_api::pipeline::PipelineSpec;
use towpath_api::{RawConfig, Redactor, Registry};

use super::cluster::{self, ClusterConfig, Found, OwnCluster};
use super::layout::{node_options, top_options};
use super::load::Root;
use super::mirrors::{self, Mirror};
use super::pipeline::{self, Declared};
use super::plugins;
use super::problem::{Problem, Problems};
use super::secrets::Secrets;
use super::topics;
use super::tree::{Key, Node, Place, Value};
use super::validate::validate;

/// Everything that the files declare.
#[derive(Debug)]
pub struct Config {
    /// `node:`
    pub node: NodeConfig,
    /// `cluster:`; without it the embedded broker is started, and is alone.
    pub cluster: Option<ClusterConfig>,
    /// `mirrors:`, by name.
    pub mirrors: Vec<Mirror>,
    /// `pipelines:`, by name. Without any, this is just a broker.
    pub pipelines: Vec<PipelineSpec>,
    /// What stands in the files about each pipeline.
    nodes: BTreeMap<String, (Key, Node)>,
    cluster_place: Option<Place>,
    /// What stands under `node: settings:`.
    settings: Option<Node>,
    /// What may be a mistake.
    pub warnings: Problems,
    /// Takes the secrets of this configuration out of texts (R13).
    pub redactor: Redactor,
}

/// This process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// This node's number in its cluster.
    pub id: i32,
    /// What it does there.
    pub roles: Roles,
    /// Where data is kept.
    pub data_dir: PathBuf,
    /// Further directories for partitions.
    pub more_data_dirs: Vec<PathBuf>,
    /// The embedded broker's listener, `host:port`.
    pub kafka: String,
    /// What clients are told to connect to, where it differs.
    pub advertised: Option<String>,
    /// The listener for other nodes of a controller, `host:port`.
    pub controller: Option<String>,
    /// Where this node stands, for replicas that are to stand apart.
    pub rack: Option<String>,
    /// Settings of the embedded broker, by Kafka's names.
    pub settings: BTreeMap<String, String>,
    /// The HTTP listener, `host:port`.
    pub http: String,
    /// What `up` tells people when everything runs.
    pub message: Option<String>,
}

/// What a node does in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// It holds partitions and serves clients.
    pub broker: bool,
    /// It is a voter of the metadata quorum.
    pub controller: bool,
}

impl Config {
    /// Reads parsed files; whatever is wrong lands in `problems`, and the result counts only when there is none.
    pub(crate) fn read(
        files: Vec<Root>,
        registry: &Registry,
        secrets: &Secrets,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let roots: Vec<_> = files.iter().map(|file| &file.resolved).collect();
        for root in &roots {
            validate(root, &top_options(), &[], secrets, problems);
        }
        let mut warnings = Vec::new();
        let before = problems.len();
        let node_section = section(&roots, "node", problems);
        let node = node_section.map_or_else(
            || NodeConfig::from_raw(&defaults()),
            |node| {
                let raw = validate(node, &node_options(), &[], secrets, problems);
                for name in ["kafka", "advertised", "controller", "http"] {
                    check_address(node, name, &raw, problems);
                }
                NodeConfig::from_raw(&raw)
            },
        );
        let cluster_section = section(&roots, "cluster", problems);
        let is_sound = problems.len() == before;
        let mut found = Found { problems, warnings: &mut warnings };
        let cluster = cluster_section.and_then(|section| cluster::read(section, secrets, &mut found));
        if let (Some(named), Some(ClusterConfig::Own(own)), true) = (cluster_section, &cluster, is_sound) {
            // What a node is mistaken about itself would only be told as a second, wrong problem.
            cluster::check_member(node_section, &node, named, own, &mut found);
        }
        check_together(node_section, &node, cluster_section, cluster.as_ref(), &mut found);
        let mirrors = mirrors::read(&roots, secrets, problems);
        let types = plugins::read_all(&files, registry, secrets, problems);
        let Declared { pipelines, nodes } = pipeline::read_all(&files, &types, secrets, problems);
        topics::check(&pipelines, &nodes, problems, &mut warnings);
        let warnings = Problems::new(warnings, secrets.clone());
        let settings = node_section.and_then(|node| node.get("settings")).cloned();
        let redactor = secrets.redactor();
        let named = ["bootstrap_servers", "controllers"];
        let cluster_place = cluster_section
            .map(|node| named.iter().find_map(|name| node.get(name)).unwrap_or(node).place.clone());
        Self { node, cluster, mirrors, pipelines, nodes, cluster_place, settings, warnings, redactor }
    }

    /// The brokers of someone else's cluster to start from; `None` where a broker of our own is started.
    #[must_use]
    pub fn foreign_servers(&self) -> Option<&[String]> {
        match &self.cluster {
            Some(ClusterConfig::Foreign { bootstrap_servers }) => Some(bootstrap_servers),
            _ => None,
        }
    }

    /// The cluster of which this process is a node.
    #[must_use]
    pub fn own_cluster(&self) -> Option<&OwnCluster> {
        match &self.cluster {
            Some(ClusterConfig::Own(own)) => Some(own),
            _ => None,
        }
    }

    /// Where something of a pipeline stands: `path` is what a connector says (`tables[1]`), below `half`, which is
    /// `source` or `sink`; the nearest thing around it, where there is no such thing in the file.
    #[must_use]
    pub fn place(&self, pipeline: &str, half: &str, path: Option<&str>) -> Option<Place> {
        let (key, node) = self.nodes.get(pipeline)?;
        let Some(connector) = node.get(half) else { return Some(key.place.clone()) };
        let found = path.map(|path| connector.at(path)).filter(|found| !std::ptr::eq(*found, connector));
        // What a connector says without a place of its own is about the system that its URL names.
        let named = || connector.get("url").or_else(|| connector.get("type"));
        Some(found.or_else(named).unwrap_or(connector).place.clone())
    }

    /// Where `cluster:` names its brokers.
    #[must_use]
    pub fn cluster_place(&self) -> Option<Place> {
        self.cluster_place.clone()
    }

    /// Where a setting of the broker stands.
    #[must_use]
    pub fn setting_place(&self, name: &str) -> Option<Place> {
        Some(self.settings.as_ref()?.get(name)?.place.clone())
    }

    /// The text at `path` of a pipeline's source or sink.
    #[must_use]
    pub fn text(&self, pipeline: &str, half: &str, path: &str) -> Option<&str> {
        self.nodes.get(pipeline)?.1.get(half)?.get(path)?.as_str()
    }

    /// Problems that were found later than in the files, shown as those are.
    #[must_use]
    pub fn problems(&self, list: Vec<Problem>) -> Problems {
        Problems::new(list, self.warnings.secrets().clone())
    }
}

fn defaults() -> RawConfig {
    let options = node_options().options.into_iter();
    RawConfig::new(options.filter_map(|option| Some((option.name, option.default?))).collect())
}

impl NodeConfig {
    fn from_raw(raw: &RawConfig) -> Self {
        Self {
            id: raw.int("id").and_then(|id| i32::try_from(id).ok()).unwrap_or(1),
            roles: raw.values().get("roles").map_or(Roles::ALL, |_| Roles::from_names(&raw.strings("roles"))),
            data_dir: raw.str("data_dir").into(),
            more_data_dirs: raw.strings("more_data_dirs").into_iter().map(PathBuf::from).collect(),
            kafka: raw.str("kafka").to_owned(),
            advertised: raw.opt_str("advertised").map(str::to_owned),
            controller: raw.opt_str("controller").map(str::to_owned),
            rack: raw.opt_str("rack").map(str::to_owned),
            settings: raw.texts("settings"),
            http: raw.str("http").to_owned(),
            message: raw.opt_str("message").map(str::to_owned),
        }
    }
}

impl Roles {
    /// Both, as a node has without saying anything.
    pub const ALL: Self = Self { broker: true, controller: true };

    fn from_names(names: &[String]) -> Self {
        let named = |role: &str| names.iter().any(|name| name == role);
        Self { broker: named("broker"), controller: named("controller") }
    }
}

/// The one section called `name` in all files; a second one is a problem.
pub(crate) fn section<'a>(roots: &[&'a Node], name: &str, problems: &mut Vec<Problem>) -> Option<&'a Node> {
    let mut found = roots.iter().filter_map(|root| root.entry(name));
    let first = found.next();
    for (key, _) in found {
        problems.push(
            Problem::new(
                "CONFIG_DUPLICATE",
                key.place.clone(),
                format!("`{name}` stands in another file already"),
            )
            .with_hint("all files together are one configuration: keep one of them"),
        );
    }
    first.map(|(_, node)| node)
}

fn check_address(node: &Node, name: &str, raw: &RawConfig, problems: &mut Vec<Problem>) {
    let Some(address) = raw.opt_str(name) else { return };
    if let Err(message) = parse_address(address) {
        let place = node.get(name).unwrap_or(node).place.clone();
        problems.push(
            Problem::new("CONFIG_ADDRESS", place, message)
                .with_hint("write host:port, such as 127.0.0.1:9092"),
        );
    }
}

/// What does not go together under `node:` and `cluster:`.
fn check_together(
    section: Option<&Node>,
    node: &NodeConfig,
    cluster_section: Option<&Node>,
    cluster: Option<&ClusterConfig>,
    found: &mut Found<'_>,
) {
    let Some(section) = section else { return };
    if cluster_section.is_none() {
        cluster::check_alone(section, found);
    }
    check_roles(section, node, found.problems);
    let foreign = matches!(cluster, Some(ClusterConfig::Foreign { .. }));
    if foreign {
        check_no_broker(section, found.problems);
    }
    check_ports(section, node, foreign, found.problems);
    if let Some(settings) = section.get("settings") {
        cluster::check_settings(settings, node, found);
    }
}

fn check_roles(section: &Node, node: &NodeConfig, problems: &mut Vec<Problem>) {
    let none = Roles { broker: false, controller: false };
    if let Some(Node { value: Value::List(items), place }) = section.get("roles")
        && items.is_empty()
        && node.roles == none
    {
        let problem = Problem::new("CONFIG_CLUSTER", place.clone(), "a node without a role does nothing");
        problems.push(problem.with_hint("write `roles: [broker, controller]`, or one of them"));
    }
}

/// The embedded broker's options where none is started.
fn check_no_broker(section: &Node, problems: &mut Vec<Problem>) {
    for name in ["kafka", "advertised", "controller", "roles", "id"] {
        if let Some((key, _)) = section.entry(name) {
            let message = format!(
                "`{name}` is the embedded broker's, and with `cluster: bootstrap_servers:` none is started"
            );
            let hint = format!("remove `{name}:`, or remove `cluster:` to run on the embedded broker");
            problems.push(Problem::new("CONFIG_CLUSTER", key.place.clone(), message).with_hint(hint));
        }
    }
}

/// One port for two listeners.
fn check_ports(section: &Node, node: &NodeConfig, foreign: bool, problems: &mut Vec<Problem>) {
    let kafka = (!foreign && node.roles.broker).then_some(&node.kafka);
    let listeners = [("kafka", kafka), ("controller", node.controller.as_ref()), ("http", Some(&node.http))];
    for (at, (name, address)) in listeners.iter().enumerate() {
        let Some(address) = address.filter(|address| !address.ends_with(":0")) else { continue };
        let other = listeners[..at].iter().find(|(_, other)| *other == Some(address));
        let Some((other, _)) = other else { continue };
        // One of them is written here: defaults differ.
        let written = section.get(name).or_else(|| section.get(other)).unwrap_or(section);
        let message = format!("`{name}` and `{other}` are both {address}");
        let problem = Problem::new("CONFIG_ADDRESS", written.place.clone(), message);
        problems.push(problem.with_hint("each takes a port of its own, such as 9092, 9093 and 8083"));
    }
}

/// Whether it is `host:port`.
pub(crate) fn parse_address(address: &str) -> Result<(), String> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!("`{address}` has no port"));
    };
    if host.is_empty() {
        return Err(format!("`{address}` has no host"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("`{address}`: an IPv6 address stands in brackets, such as [::1]:9092"));
    }
    port.parse::<u16>()
        .map(|_| ())
        .map_err(|_| format!("`{port}` is no port: a number from 0 to 65535 is needed"))
}
