//! `cluster:`: someone else's brokers, or the nodes of a cluster of our own and what each of them has to say of itself.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use towpath_api::RawConfig;

use super::config::{NodeConfig, parse_address};
use super::layout::cluster_options;
use super::problem::Problem;
use super::secrets::Secrets;
use super::tree::{Node, Place, Value};
use super::validate::validate;

/// Which brokers the pipelines run on, where it is not this process's own broker alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterConfig {
    /// Someone else's cluster; no broker is started here.
    Foreign {
        /// Brokers to start from, `host:port`.
        bootstrap_servers: Vec<String>,
    },
    /// A cluster of which this process is a node.
    Own(OwnCluster),
}

/// A cluster of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCluster {
    /// What it is called: nodes of clusters with other names are refused.
    pub name: String,
    /// The voters of its metadata quorum, by id.
    pub controllers: Vec<ControllerAddress>,
    /// Replicas of a topic that does not say how many.
    pub replication_factor: i16,
    /// In-sync replicas that a record needs before it is acknowledged, where its topic does not say how many.
    pub min_insync_replicas: i32,
}

/// One voter of the metadata quorum, `id@host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerAddress {
    /// The node.
    pub id: i32,
    /// Where other nodes reach it: a name, or an address without brackets.
    pub host: String,
    /// Where other nodes reach it.
    pub port: u16,
}

impl fmt::Display for ControllerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, host, port } = self;
        if host.contains(':') { write!(f, "{id}@[{host}]:{port}") } else { write!(f, "{id}@{host}:{port}") }
    }
}

impl FromStr for ControllerAddress {
    type Err = String;

    /// Reads `id@host:port`; the error is for whoever wrote it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (id, address) = text.split_once('@').ok_or_else(|| format!("`{text}` has no `@`"))?;
        let parsed = id.parse().ok().filter(|id| *id >= 0);
        let id = parsed.ok_or_else(|| format!("`{id}` is no id of a node: a number from 0 on is needed"))?;
        let (host, port) = split_address(address)?;
        if port == 0 {
            return Err(format!("`{address}`: other nodes cannot connect to port 0"));
        }
        Ok(Self { id, host, port })
    }
}

impl OwnCluster {
    /// What counts where `defaults:` says nothing: three replicas where there are nodes for them, of which one may be
    /// away.
    #[must_use]
    pub fn new(name: impl Into<String>, controllers: Vec<ControllerAddress>) -> Self {
        let replication_factor = i16::try_from(controllers.len().clamp(1, 3)).unwrap_or(1);
        let min_insync_replicas = default_min_insync(replication_factor);
        Self { name: name.into(), controllers, replication_factor, min_insync_replicas }
    }

    /// Where a node is listed.
    #[must_use]
    pub fn controller(&self, id: i32) -> Option<&ControllerAddress> {
        self.controllers.iter().find(|controller| controller.id == id)
    }
}

/// All but one of three and more, and one of fewer.
fn default_min_insync(replication_factor: i16) -> i32 {
    if replication_factor >= 3 { i32::from(replication_factor) - 1 } else { 1 }
}

/// Reads `cluster:`; `None` when it cannot be told what it is.
pub(crate) fn read(node: &Node, secrets: &Secrets, found: &mut Found<'_>) -> Option<ClusterConfig> {
    let before = found.problems.len();
    let raw = validate(node, &cluster_options(), &[], secrets, found.problems);
    let own = ["name", "controllers", "defaults"].into_iter().find(|name| has(node, name));
    match (has(node, "bootstrap_servers"), own) {
        (true, None) => {
            check_servers(node, found.problems);
            Some(ClusterConfig::Foreign { bootstrap_servers: raw.strings("bootstrap_servers") })
        }
        (true, Some(own)) => {
            let message = format!(
                "`bootstrap_servers` names someone else's cluster, and `{own}` belongs to one of our own"
            );
            let hint =
                format!("remove one of them: with `{own}` this process is a node of the cluster itself");
            found.problem("CONFIG_CLUSTER", key_place(node, "bootstrap_servers"), message, hint);
            None
        }
        (false, Some(_)) => own_cluster(node, &raw, found).map(ClusterConfig::Own),
        (false, None) => {
            // A value that is no such thing at all is told already.
            if found.problems.len() == before {
                let message = "neither `bootstrap_servers` nor `name` and `controllers` are here";
                let hint = "add `bootstrap_servers: [host:port]` for someone else's cluster, or `name:` and \
                            `controllers: [id@host:port]` for one of our own";
                found.problem("CONFIG_MISSING", node.place.clone(), message, hint);
            }
            None
        }
    }
}

fn has(node: &Node, name: &str) -> bool {
    node.get(name).is_some()
}

fn own_cluster(node: &Node, raw: &RawConfig, found: &mut Found<'_>) -> Option<OwnCluster> {
    for (name, hint) in [
        ("name", "add `name:`, such as `name: eu`: it keeps the nodes of two clusters apart"),
        (
            "controllers",
            "add `controllers:`, such as `[\"1@10.0.0.1:9093\"]`: the nodes that keep the metadata",
        ),
    ] {
        if !has(node, name) {
            found.problem("CONFIG_MISSING", node.place.clone(), format!("`{name}` is missing"), hint);
        }
    }
    let name = raw.opt_str("name");
    if let Some(name) = name.filter(|name| !is_name(name)) {
        let message = format!("`{name}` cannot be a cluster's name");
        let hint = "1 to 100 characters out of a-z, A-Z, 0-9, `.`, `_` and `-`";
        found.problem("CONFIG_NAME", place(node, "name"), message, hint);
    }
    let controllers = controllers(node, found);
    let mut own = OwnCluster::new(name?, controllers?);
    defaults(node, raw, &mut own, found);
    Some(own)
}

fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=100).contains(&name.len()) && name.bytes().all(legal)
}

/// The entries of `controllers:`; `None` when one of them is wrong.
fn controllers(node: &Node, found: &mut Found<'_>) -> Option<Vec<ControllerAddress>> {
    let list = node.get("controllers")?;
    let Value::List(items) = &list.value else { return None };
    let mut controllers: Vec<ControllerAddress> = Vec::with_capacity(items.len());
    for item in items {
        let parsed: ControllerAddress = match item.as_str().map(str::parse) {
            Some(Ok(parsed)) => parsed,
            Some(Err(message)) => {
                let hint = "write id@host:port, such as 1@10.0.0.1:9093";
                found.problem("CONFIG_ADDRESS", item.place.clone(), message, hint);
                continue;
            }
            None => continue,
        };
        if let Some(twice) = controllers.iter().find(|other| other.id == parsed.id) {
            let message = format!("the node {} is listed already, as {twice}", parsed.id);
            let hint = "every node has an id of its own";
            found.problem("CONFIG_DUPLICATE", item.place.clone(), message, hint);
        } else if let Some(other) =
            controllers.iter().find(|other| (&other.host, other.port) == (&parsed.host, parsed.port))
        {
            let message = format!("the node {} has this address already", other.id);
            found.problem(
                "CONFIG_DUPLICATE",
                item.place.clone(),
                message,
                "every node has an address of its own",
            );
        } else {
            controllers.push(parsed);
        }
    }
    if items.is_empty() {
        let hint = "name one node or, better, three: `[\"1@10.0.0.1:9093\"]`";
        found.problem("CONFIG_ADDRESS", list.place.clone(), "at least one controller is needed", hint);
    }
    if controllers.len() != items.len() || items.is_empty() {
        return None;
    }
    if controllers.len().is_multiple_of(2) {
        let count = controllers.len();
        let message = format!("{count} controllers bear the loss of no more nodes than {} would", count - 1);
        let hint = "an odd number is best: a majority has to be there, so 3 bear the loss of 1, and 5 of 2";
        found.warning("CONFIG_CONTROLLERS", list.place.clone(), message, hint);
    }
    controllers.sort_by_key(|controller| controller.id);
    Some(controllers)
}

fn defaults(node: &Node, raw: &RawConfig, own: &mut OwnCluster, found: &mut Found<'_>) {
    let defaults = raw.values().get("defaults");
    let int = |name: &str| defaults?.get(name)?.as_i64();
    if let Some(factor) = int("replication_factor").and_then(|factor| i16::try_from(factor).ok()) {
        own.replication_factor = factor;
        own.min_insync_replicas = default_min_insync(factor);
    }
    if let Some(replicas) = int("min_insync_replicas").and_then(|replicas| i32::try_from(replicas).ok()) {
        own.min_insync_replicas = replicas;
    }
    let (replicas, factor) = (own.min_insync_replicas, own.replication_factor);
    if replicas > i32::from(factor) {
        let message = format!(
            "`min_insync_replicas` is {replicas}, and a topic has {factor} replicas: nothing could ever be written"
        );
        let hint = format!("{} is right for {factor}: one replica may be away", default_min_insync(factor));
        let at =
            node.get("defaults").map_or_else(|| node.place.clone(), |it| place(it, "min_insync_replicas"));
        found.problem("CONFIG_RANGE", at, message, hint);
    }
}

pub(crate) fn check_servers(node: &Node, problems: &mut Vec<Problem>) {
    let Some(Value::List(servers)) = node.get("bootstrap_servers").map(|servers| &servers.value) else {
        return;
    };
    if servers.is_empty() {
        let place = place(node, "bootstrap_servers");
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

/// What a node says of itself and what the cluster says of the node, where this is a node of a cluster of our own.
pub(crate) fn check_member(
    section: Option<&Node>,
    node: &NodeConfig,
    cluster: &Node,
    own: &OwnCluster,
    found: &mut Found<'_>,
) {
    Member { section, node, cluster, own, found }.check();
}

/// The options of `node:` that only a node of a cluster of our own has.
pub(crate) fn check_alone(section: &Node, found: &mut Found<'_>) {
    for name in ["roles", "controller"] {
        if has(section, name) {
            let message = format!("`{name}` belongs to a node of a cluster, and none is declared here");
            let hint = format!("add `cluster:` with `name:` and `controllers:`, or remove `{name}:`");
            found.problem("CONFIG_CLUSTER", key_place(section, name), message, hint);
        }
    }
}

struct Member<'a, 'b> {
    section: Option<&'a Node>,
    node: &'a NodeConfig,
    cluster: &'a Node,
    own: &'a OwnCluster,
    found: &'a mut Found<'b>,
}

impl Member<'_, '_> {
    fn check(mut self) {
        if !(self.node.roles.broker || self.node.roles.controller) {
            // That is told already.
            return;
        }
        match (self.node.roles.controller, self.own.controller(self.node.id)) {
            (true, None) => self.not_listed(),
            (true, Some(listed)) => self.listener(&listed.clone()),
            (false, Some(listed)) => {
                let message = format!("this node is listed as {listed}, and has no role `controller`");
                let hint = "add `controller` to its `roles:`, or take it off `cluster: controllers:`";
                let at = self.at("roles");
                self.found.problem("CONFIG_CLUSTER", at, message, hint);
            }
            (false, None) => self.no_listener(),
        }
        if !self.node.roles.broker {
            self.no_broker();
        } else {
            self.reachable();
        }
        self.settings();
    }

    /// Where an option of `node:` stands, or what is nearest to it.
    fn at(&self, name: &str) -> Place {
        self.section.map_or_else(|| place(self.cluster, "controllers"), |section| place(section, name))
    }

    fn not_listed(&mut self) {
        let id = self.node.id;
        let listed: Vec<_> = self.own.controllers.iter().map(ToString::to_string).collect();
        let message = format!(
            "this node is {id} with the role `controller`, and the controllers are {}",
            listed.join(", ")
        );
        let hint = format!(
            "set `node: id:` to the id of this node, list it as `{id}@host:port`, or give it `roles: [broker]`"
        );
        let named = self.section.is_some_and(|section| has(section, "id"));
        let at = self.at(if named { "id" } else { "roles" });
        self.found.problem("CONFIG_CLUSTER", at, message, hint);
    }

    /// The listener of a controller, beside where the others are told that it is.
    fn listener(&mut self, listed: &ControllerAddress) {
        let Some(controller) = &self.node.controller else {
            let message = format!("`controller` is missing: this node is listed as {listed}");
            let hint = format!("add `controller: {}` under `node:`", shown(&listed.host, listed.port));
            let at = self.section.map_or_else(|| place(self.cluster, "controllers"), |it| it.place.clone());
            return self.found.problem("CONFIG_MISSING", at, message, hint);
        };
        let Ok((host, port)) = split_address(controller) else { return };
        let everywhere = host.parse().is_ok_and(|address: IpAddr| address.is_unspecified());
        if port == listed.port && (everywhere || host == listed.host) {
            return;
        }
        let message =
            format!("this node listens on {controller} for other nodes, and they are told {listed}");
        let hint = "that is right where something in between leads from the one to the other";
        let at = self.at("controller");
        self.found.warning("CONFIG_CLUSTER", at, message, hint);
    }

    fn no_listener(&mut self) {
        if let Some(section) = self.section.filter(|section| has(section, "controller")) {
            let message =
                "`controller` is the listener of the role `controller`, which this node does not have";
            let hint = "remove it: other nodes reach a broker where its clients do";
            self.found.problem("CONFIG_CLUSTER", key_place(section, "controller"), message, hint);
        }
    }

    fn no_broker(&mut self) {
        for name in ["kafka", "advertised"] {
            if let Some(section) = self.section.filter(|section| has(section, name)) {
                let message =
                    format!("`{name}` is the broker's, and this node does not have the role `broker`");
                let hint = format!("remove `{name}:`, or add `broker` to `roles:`");
                self.found.problem("CONFIG_CLUSTER", key_place(section, name), message, hint);
            }
        }
    }

    /// A broker that tells others to look for it on their own machine.
    fn reachable(&mut self) {
        let told = self.node.advertised.as_ref().unwrap_or(&self.node.kafka);
        let Ok((host, _)) = split_address(told) else { return };
        let elsewhere = self.own.controllers.iter().find(|controller| !is_loopback(&controller.host));
        if let Some(other) = elsewhere.filter(|_| is_loopback(&host)) {
            let message = format!(
                "clients and other nodes are told to connect to {told}, which is their own machine; the cluster has {other}"
            );
            let name = if self.node.advertised.is_some() { "advertised" } else { "kafka" };
            let hint = format!("set `node: {name}:` to an address of this machine that the others reach");
            let at = self.at(name);
            self.found.warning("CONFIG_ADDRESS", at, message, hint);
        }
    }

    /// Settings that say what the cluster says, and settings that defeat each other.
    fn settings(&mut self) {
        let Some(settings) = self.section.and_then(|section| section.get("settings")) else { return };
        for (setting, default) in [
            ("default.replication.factor", "replication_factor"),
            ("min.insync.replicas", "min_insync_replicas"),
        ] {
            let stands = self.cluster.get("defaults").is_some_and(|defaults| has(defaults, default));
            if stands && has(settings, setting) {
                let message = format!("`{setting}` says what `cluster: defaults: {default}:` says");
                let hint = "keep the one under `cluster:`, which is the same for every node";
                self.found.problem("CONFIG_DUPLICATE", key_place(settings, setting), message, hint);
            }
        }
    }
}

/// What is wrong among the settings themselves.
pub(crate) fn check_settings(settings: &Node, node: &NodeConfig, found: &mut Found<'_>) {
    let ms = |name: &str, default: i64| {
        node.settings.get(name).and_then(|value| value.parse::<i64>().ok()).unwrap_or(default)
    };
    let (interval, session) = ("broker.heartbeat.interval.ms", "broker.session.timeout.ms");
    if let Some(name) = [interval, session].into_iter().find(|name| has(settings, name))
        && ms(interval, 2000) >= ms(session, 9000)
    {
        let message =
            format!("`{interval}` is {}, and `{session}` {}", ms(interval, 2000), ms(session, 9000));
        let hint =
            "a broker has to be heard several times before its session ends: 2000 and 9000 are Kafka's";
        found.problem("CONFIG_RANGE", place(settings, name), message, hint);
    }
    let (least, factor) = ("min.insync.replicas", "default.replication.factor");
    if has(settings, least) && has(settings, factor) && ms(least, 1) > ms(factor, 1) {
        let message = format!("`{least}` is {}, and `{factor}` {}", ms(least, 1), ms(factor, 1));
        let hint = "nothing could ever be written to a topic with these: one less than its replicas is usual";
        found.problem("CONFIG_RANGE", place(settings, least), message, hint);
    }
}

/// What is found, sorted by whether anything is refused for it.
pub(crate) struct Found<'a> {
    pub(crate) problems: &'a mut Vec<Problem>,
    pub(crate) warnings: &'a mut Vec<Problem>,
}

impl Found<'_> {
    fn problem(
        &mut self,
        code: &'static str,
        at: Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.push(Problem::new(code, at, message).with_hint(hint));
    }

    fn warning(
        &mut self,
        code: &'static str,
        at: Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.warnings.push(Problem::new(code, at, message).with_hint(hint).warning());
    }
}

fn place(node: &Node, name: &str) -> Place {
    node.get(name).unwrap_or(node).place.clone()
}

fn key_place(node: &Node, name: &str) -> Place {
    node.entry(name).map_or_else(|| node.place.clone(), |(key, _)| key.place.clone())
}

/// Host, without brackets, and port.
fn split_address(address: &str) -> Result<(String, u16), String> {
    parse_address(address)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("`{address}` has no port"))?;
    let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}
