//! The whole configuration, validated.

use std::collections::BTreeMap;
use std::path::PathBuf;

use towpath_api::pipeline::PipelineSpec;
use towpath_api::{RawConfig, Redactor, Registry};

use super::layout::{cluster_options, node_options, top_options};
use super::load::Root;
use super::pipeline::{self, Declared};
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
    /// `cluster:`; without it the embedded broker is started.
    pub cluster: Option<ClusterConfig>,
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
    /// Where data is kept.
    pub data_dir: PathBuf,
    /// The embedded broker's listener, `host:port`.
    pub kafka: String,
    /// What clients are told to connect to, where it differs.
    pub advertised: Option<String>,
    /// Settings of the embedded broker, by Kafka's names.
    pub settings: BTreeMap<String, String>,
    /// The HTTP listener, `host:port`.
    pub http: String,
    /// What `up` tells people when everything runs.
    pub message: Option<String>,
}

/// Someone else's cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Brokers to start from, `host:port`.
    pub bootstrap_servers: Vec<String>,
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
        let node_section = section(&roots, "node", problems);
        let node = node_section.map_or_else(
            || NodeConfig::from_raw(&defaults()),
            |node| {
                let raw = validate(node, &node_options(), &[], secrets, problems);
                for name in ["kafka", "advertised", "http"] {
                    check_address(node, name, &raw, problems);
                }
                NodeConfig::from_raw(&raw)
            },
        );
        let cluster_section = section(&roots, "cluster", problems);
        let cluster_place =
            cluster_section.map(|node| node.get("bootstrap_servers").unwrap_or(node).place.clone());
        let cluster = cluster_section.map(|node| {
            let raw = validate(node, &cluster_options(), &[], secrets, problems);
            check_servers(node, problems);
            ClusterConfig { bootstrap_servers: raw.strings("bootstrap_servers") }
        });
        if let Some(section) = node_section {
            check_ports(section, &node, cluster.is_some(), problems);
        }
        let Declared { pipelines, nodes } = pipeline::read_all(&files, registry, secrets, problems);
        let mut warnings = Vec::new();
        topics::check(&pipelines, &nodes, problems, &mut warnings);
        let warnings = Problems::new(warnings, secrets.clone());
        let settings = node_section.and_then(|node| node.get("settings")).cloned();
        let redactor = secrets.redactor();
        Self { node, cluster, pipelines, nodes, cluster_place, settings, warnings, redactor }
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
            data_dir: raw.str("data_dir").into(),
            kafka: raw.str("kafka").to_owned(),
            advertised: raw.opt_str("advertised").map(str::to_owned),
            settings: raw.texts("settings"),
            http: raw.str("http").to_owned(),
            message: raw.opt_str("message").map(str::to_owned),
        }
    }
}

/// The one section called `name` in all files; a second one is a problem.
fn section<'a>(roots: &[&'a Node], name: &str, problems: &mut Vec<Problem>) -> Option<&'a Node> {
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

/// What does not go together: the embedded broker's options where none is started, and one port for two listeners.
fn check_ports(section: &Node, node: &NodeConfig, has_cluster: bool, problems: &mut Vec<Problem>) {
    for name in ["kafka", "advertised"] {
        if let Some((key, _)) = section.entry(name).filter(|_| has_cluster) {
            let message = format!("`{name}` is the embedded broker's, and with `cluster:` none is started");
            let hint = format!("remove `{name}:`, or remove `cluster:` to run on the embedded broker");
            problems.push(Problem::new("CONFIG_CLUSTER", key.place.clone(), message).with_hint(hint));
        }
    }
    let is_fixed = !node.http.ends_with(":0");
    if let Some(http) = section.get("http").filter(|_| !has_cluster && is_fixed && node.http == node.kafka) {
        let message = format!("`http` and `kafka` are both {}", node.http);
        let problem = Problem::new("CONFIG_ADDRESS", http.place.clone(), message);
        problems.push(problem.with_hint("each takes a port of its own, such as 8083 and 9092"));
    }
}

fn check_servers(node: &Node, problems: &mut Vec<Problem>) {
    let Some(Value::List(servers)) = node.get("bootstrap_servers").map(|servers| &servers.value) else {
        return;
    };
    if servers.is_empty() {
        let place = node.get("bootstrap_servers").unwrap_or(node).place.clone();
        problems.push(Problem::new("CONFIG_ADDRESS", place, "at least one bootstrap server is needed"));
    }
    for server in servers {
        if let Some(Err(message)) = server.as_str().map(parse_address) {
            problems.push(
                Problem::new("CONFIG_ADDRESS", server.place.clone(), message)
                    .with_hint("write host:port, such as broker-1:9092"),
            );
        }
    }
}

fn parse_address(address: &str) -> Result<(), String> {
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
