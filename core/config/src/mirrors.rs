//! `clusters:` and `mirrors:`.

use std::collections::BTreeMap;
use std::time::Duration;

use towpath_api::RawConfig;
use towpath_types::Filter;

use super::cluster::check_servers;
use super::layout::{mirror_options, remote_cluster_options};
use super::problem::Problem;
use super::secrets::Secrets;
use super::suggest::nearest;
use super::tree::{Key, Node, Place, Value};
use super::validate::validate;

/// One of `mirrors:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Its name: the target's cluster knows by it how far it has come.
    pub name: String,
    /// The source.
    pub from: RemoteCluster,
    /// The target.
    pub to: RemoteCluster,
    /// Which topics.
    pub topics: Filter,
    /// What they are called at the target.
    pub naming: MirrorNaming,
    /// Whether others write to the target's topics.
    pub active_active: bool,
    /// Whether what came to the source from other clusters goes on.
    pub forward: bool,
    /// Which groups' offsets are translated.
    pub groups: Filter,
    /// Whether settings of topics that change later are set.
    pub sync_configs: bool,
    /// Whether topics are given the partitions that come later.
    pub sync_partitions: bool,
    /// Whether topics that are deleted at the source are deleted at the target.
    pub sync_deletes: bool,
    /// How many bytes a second it may fetch.
    pub bandwidth: Option<u64>,
    /// Whether partitions that it has not mirrored before begin where MirrorMaker 2 has left them.
    pub begin_at_mirrormaker: bool,
    /// Whether it writes what MirrorMaker 2's clients look for.
    pub mirrormaker_topics: bool,
    /// How often the source is looked at.
    pub refresh: Duration,
    /// How many tasks share the partitions.
    pub tasks: usize,
}

/// One of `clusters:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteCluster {
    /// What it is called here, and in the names of its topics elsewhere.
    pub alias: String,
    /// Brokers to start from, `host:port`.
    pub bootstrap_servers: Vec<String>,
}

/// `naming`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorNaming {
    /// As at the source.
    Identical,
    /// With the source's alias in front.
    Prefixed,
}

/// Reads both sections of all files.
pub(crate) fn read(roots: &[&Node], secrets: &Secrets, problems: &mut Vec<Problem>) -> Vec<Mirror> {
    let mut clusters: BTreeMap<String, Option<RemoteCluster>> = BTreeMap::new();
    for (key, node) in entries(roots, "clusters", "an alias", problems) {
        let before = problems.len();
        let raw = validate(node, &remote_cluster_options(), &[], secrets, problems);
        check_servers(node, problems);
        let sound = problems.len() == before;
        let cluster =
            RemoteCluster { alias: key.name.clone(), bootstrap_servers: raw.strings("bootstrap_servers") };
        clusters.insert(key.name.clone(), sound.then_some(cluster));
    }
    let mut mirrors: Vec<Mirror> = Vec::new();
    for (key, node) in entries(roots, "mirrors", "a mirror's name", problems) {
        let mirror = mirror(key, node, &clusters, secrets, problems);
        if let Some(mirror) = mirror {
            if let Some(twin) = mirrors.iter().find(|other| is_unfit(&mirror, other)) {
                problems.push(unfit(key, &mirror, twin));
            }
            mirrors.push(mirror);
        }
    }
    mirrors
}

/// Two directions with identical names, of which one says that the other does not write.
fn is_unfit(one: &Mirror, other: &Mirror) -> bool {
    let is_identical = |it: &Mirror| it.naming == MirrorNaming::Identical;
    one.from == other.to
        && one.to == other.from
        && is_identical(one)
        && is_identical(other)
        && !(one.active_active && other.active_active)
}

fn unfit(key: &Key, mirror: &Mirror, twin: &Mirror) -> Problem {
    let message = format!(
        "`{}` and `{}` copy in both directions between topics of the same name",
        mirror.name, twin.name
    );
    Problem::new("CONFIG_MIRROR", key.place.clone(), message)
        .with_hint("write `mode: active_active` in both, or `naming: prefixed`")
}

/// The entries of a section in all files whose names can be names, and are there once.
fn entries<'a>(
    roots: &[&'a Node],
    section: &str,
    what: &str,
    problems: &mut Vec<Problem>,
) -> Vec<&'a (Key, Node)> {
    let mut taken: Vec<&(Key, Node)> = Vec::new();
    for node in roots.iter().filter_map(|root| root.get(section)) {
        if !matches!(node.value, Value::Map(_) | Value::Null) {
            let message = format!("`{section}` must be a map of {section} by name");
            problems.push(Problem::new("CONFIG_TYPE", node.place.clone(), message));
        }
        for entry in node.entries() {
            let name = &entry.0.name;
            // It becomes part of topics' names.
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            if name.is_empty() || name.len() > 100 || !name.bytes().all(legal) {
                let message = format!("`{name}` cannot be {what}");
                let hint = "1 to 100 characters out of a-z, A-Z, 0-9, `_` and `-`";
                problems.push(Problem::new("CONFIG_NAME", entry.0.place.clone(), message).with_hint(hint));
            } else if let Some((first, _)) = taken.iter().find(|(key, _)| key.name == *name) {
                let (line, _) = first.place.line_and_column();
                let file = first.place.file.path.display();
                let message = format!("`{name}` stands under `{section}` already ({file}:{line})");
                problems.push(Problem::new("CONFIG_DUPLICATE", entry.0.place.clone(), message));
            } else {
                taken.push(entry);
            }
        }
    }
    taken
}

fn mirror(
    key: &Key,
    node: &Node,
    clusters: &BTreeMap<String, Option<RemoteCluster>>,
    secrets: &Secrets,
    problems: &mut Vec<Problem>,
) -> Option<Mirror> {
    let before = problems.len();
    let raw = validate(node, &mirror_options(), &[], secrets, problems);
    let from = named(node, "from", raw.opt_str("from"), clusters, problems);
    let to = named(node, "to", raw.opt_str("to"), clusters, problems);
    if let (Some(from), Some(to)) = (raw.opt_str("from"), raw.opt_str("to"))
        && from == to
    {
        let message = format!("the mirror `{}` leads from `{from}` to itself", key.name);
        problems.push(
            Problem::new("CONFIG_MIRROR", place(node, "to"), message)
                .with_hint("name two different ones of `clusters:`"),
        );
    }
    let topics = filter(node, "topics", &raw.strings("topics"), problems);
    let groups = filter(node, "groups", &raw.strings("groups"), problems);
    if problems.len() > before {
        return None;
    }
    Some(Mirror {
        name: key.name.clone(),
        from: from?,
        to: to?,
        topics: topics?,
        groups: groups?,
        naming: match raw.str("naming") {
            "identical" => MirrorNaming::Identical,
            _ => MirrorNaming::Prefixed,
        },
        sync_configs: is_on(&raw, "configs", true),
        sync_partitions: is_on(&raw, "partitions", true),
        sync_deletes: is_on(&raw, "deletes", false),
        bandwidth: raw.int("bandwidth").and_then(|bytes| u64::try_from(bytes).ok()),
        forward: flag(&raw, "forward"),
        begin_at_mirrormaker: raw.str("begin") == "mirrormaker",
        mirrormaker_topics: flag(&raw, "mirrormaker_topics"),
        active_active: raw.str("mode") == "active_active",
        refresh: Duration::from_millis(
            raw.int("refresh").and_then(|ms| u64::try_from(ms).ok()).unwrap_or(5_000),
        ),
        tasks: raw.int("tasks").and_then(|tasks| usize::try_from(tasks).ok()).unwrap_or(1),
    })
}

/// An option that has a default.
fn flag(raw: &RawConfig, name: &str) -> bool {
    raw.values().get(name).and_then(serde_json::Value::as_bool).unwrap_or_default()
}

/// What stands in `sync`.
fn is_on(raw: &RawConfig, what: &str, otherwise: bool) -> bool {
    let said = raw.values().get("sync").and_then(|sync| sync.get(what));
    said.and_then(serde_json::Value::as_bool).unwrap_or(otherwise)
}

fn place(node: &Node, option: &str) -> Place {
    node.get(option).unwrap_or(node).place.clone()
}

fn named(
    node: &Node,
    option: &str,
    alias: Option<&str>,
    clusters: &BTreeMap<String, Option<RemoteCluster>>,
    problems: &mut Vec<Problem>,
) -> Option<RemoteCluster> {
    let alias = alias?;
    if let Some(cluster) = clusters.get(alias) {
        // What is wrong with it is told where it stands.
        return cluster.clone();
    }
    let hint = match nearest(alias, clusters.keys().map(String::as_str)) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("add `clusters: {{ {alias}: {{ bootstrap_servers: [\"host:port\"] }} }}`"),
    };
    let message = format!("there is no `{alias}` under `clusters:`");
    problems.push(Problem::new("CONFIG_MIRROR", place(node, option), message).with_hint(hint));
    None
}

fn filter(node: &Node, option: &str, patterns: &[String], problems: &mut Vec<Problem>) -> Option<Filter> {
    match Filter::new(patterns) {
        Ok(filter) => Some(filter),
        Err(error) => {
            let wrong = patterns.iter().position(|pattern| Filter::new([pattern]).is_err());
            let at = wrong.map(|index| node.at(&format!("{option}[{index}]")).place.clone());
            problems.push(Problem::new(
                "CONFIG_MIRROR",
                at.unwrap_or_else(|| place(node, option)),
                error.to_string(),
            ));
            None
        }
    }
}
