//! The whole configuration, validated.

use std::collections::BTreeMap;
use std::path::PathBuf;

use towpath_api::pipeline::PipelineSpec;
use towpath_api::{RawConfig, Redactor, Registry};

use super::layout::{cluster_options, node_options, top_options};
use super::pipeline;
use super::problem::Problem;
use super::secrets::Secrets;
use super::tree::{Node, Place, Value};
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
    /// Where each pipeline stands in the files, for messages about it.
    pub places: BTreeMap<String, Place>,
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
        roots: &[Node],
        registry: &Registry,
        secrets: Secrets,
        problems: &mut Vec<Problem>,
    ) -> Self {
        for root in roots {
            validate(root, &top_options(), &[], &secrets, problems);
        }
        let node = section(roots, "node", problems).map_or_else(
            || NodeConfig::from_raw(&defaults()),
            |node| {
                let raw = validate(node, &node_options(), &[], &secrets, problems);
                for name in ["kafka", "advertised", "http"] {
                    check_address(node, name, &raw, problems);
                }
                NodeConfig::from_raw(&raw)
            },
        );
        let cluster = section(roots, "cluster", problems).map(|node| {
            let raw = validate(node, &cluster_options(), &[], &secrets, problems);
            check_servers(node, problems);
            ClusterConfig { bootstrap_servers: raw.strings("bootstrap_servers") }
        });
        let (pipelines, places) = pipeline::read_all(roots, registry, &secrets, problems);
        Self { node, cluster, pipelines, places, redactor: secrets.redactor() }
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
            http: raw.str("http").to_owned(),
            message: raw.opt_str("message").map(str::to_owned),
        }
    }
}

/// The one section called `name` in all files; a second one is a problem.
fn section<'a>(roots: &'a [Node], name: &str, problems: &mut Vec<Problem>) -> Option<&'a Node> {
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
