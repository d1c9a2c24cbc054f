//! Nodes and clusters of our own, right and wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use towpath_api::Registry;
use towpath_config::{ClusterConfig, Config, Problem, Roles, json_schema, load_text};

fn load(text: &str) -> Config {
    load_text("t.yaml", text, &Registry::new()).unwrap()
}

fn shown(problem: &Problem) -> (String, &'static str, String) {
    let plain = matches!(problem.code, "CONFIG_RANGE" | "CONFIG_TYPE");
    assert!(plain || problem.hint.is_some(), "{problem:?}");
    (problem.position().unwrap(), problem.code, problem.message.clone())
}

fn problems(text: &str) -> Vec<(String, &'static str, String)> {
    let problems = load_text("t.yaml", text, &Registry::new()).map(|_| ()).unwrap_err();
    problems.list().iter().map(shown).collect()
}

/// Takes the mark `§` out of a text: the text, and `t.yaml:line:column` of where it stood.
fn marked(text: &str) -> (String, String) {
    let (before, _) = text.split_once('§').unwrap_or_else(|| panic!("no mark in {text}"));
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    (text.replace('§', ""), format!("t.yaml:{}:{column}", before.matches('\n').count() + 1))
}

/// The one problem: at the mark, with its code, and what its message says.
fn one(text: &str, code: &str, says: &str) {
    let (text, place) = marked(text);
    let found = problems(&text);
    let [(at, kind, message)] = &found[..] else { panic!("{text}: {found:?}") };
    assert_eq!((at, *kind), (&place, code), "{text}: {message}");
    assert!(message.contains(says), "{message}");
}

fn warnings(text: &str) -> Vec<(String, &'static str, String)> {
    load(text).warnings.list().iter().map(shown).collect()
}

const CLUSTER: &str =
    "cluster: { name: eu, controllers: [\"3@c:9093\", \"1@10.0.0.1:9093\", \"2@[fd00::2]:9093\"] }\n";

#[test]
fn a_node_of_a_cluster_comes_out_whole() {
    let config = load(&format!(
        "node: {{ id: 2, kafka: \"10.0.0.2:9092\", controller: \"[::]:9093\", rack: a }}\n{CLUSTER}"
    ));
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    let own = config.own_cluster().unwrap();
    let listed: Vec<_> = own.controllers.iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["1@10.0.0.1:9093", "2@[fd00::2]:9093", "3@c:9093"]);
    assert_eq!((own.name.as_str(), own.replication_factor, own.min_insync_replicas), ("eu", 3, 2));
    assert_eq!((config.node.id, config.node.roles), (2, Roles::ALL));
    assert_eq!(config.node.controller.as_deref(), Some("[::]:9093"));
    assert_eq!(config.node.rack.as_deref(), Some("a"));
    assert_eq!(config.foreign_servers(), None);
    let broker = load(&format!("node: {{ id: 9, roles: [broker], kafka: \"b:9092\" }}\n{CLUSTER}"));
    assert_eq!(broker.node.roles, Roles { broker: true, controller: false });
    let controller =
        load(&format!("node: {{ roles: [controller], controller: \"10.0.0.1:9093\" }}\n{CLUSTER}"));
    assert_eq!(controller.node.roles, Roles { broker: false, controller: true });
}

#[test]
fn whose_cluster_it_is_is_told_apart() {
    let foreign = load("cluster: { bootstrap_servers: [\"b:1\", \"c:2\"] }\n");
    assert_eq!(foreign.foreign_servers().unwrap(), ["b:1", "c:2"]);
    assert!(
        matches!(foreign.cluster, Some(ClusterConfig::Foreign { .. })) && foreign.own_cluster().is_none()
    );
    let alone = load("node: { id: 7, rack: r }\n");
    assert!(alone.cluster.is_none() && alone.node.id == 7);
    one(
        "cluster: { §bootstrap_servers: [\"b:1\"], name: eu }\n",
        "CONFIG_CLUSTER",
        "`bootstrap_servers` names someone else's cluster",
    );
    one("cluster: §{}\n", "CONFIG_MISSING", "neither `bootstrap_servers`");
    one("cluster: §{ name: eu }\n", "CONFIG_MISSING", "`controllers` is missing");
    one("cluster: §{ controllers: [\"1@a:1\"] }\n", "CONFIG_MISSING", "`name` is missing");
    one("cluster: { §bootstrap_server: [\"b:1\"] }\n", "CONFIG_UNKNOWN_KEY", "bootstrap_server");
    one("cluster: §[]\n", "CONFIG_TYPE", "a map of options");
    let mixed = problems("node: { id: 2, roles: [broker] }\ncluster: { bootstrap_servers: [\"b:1\"] }\n");
    assert_eq!(mixed.iter().map(|it| it.1).collect::<Vec<_>>(), ["CONFIG_CLUSTER", "CONFIG_CLUSTER"]);
}

#[test]
fn controllers_are_nodes_with_addresses() {
    let list = |list: &str| {
        format!("node: {{ controller: \"a:1\" }}\ncluster: {{ name: eu, controllers: [{list}] }}\n")
    };
    for (entries, code, says) in [
        ("§a:1", "CONFIG_ADDRESS", "has no `@`"),
        ("§\"x@a:1\"", "CONFIG_ADDRESS", "`x` is no id"),
        ("§\"-1@a:1\"", "CONFIG_ADDRESS", "`-1` is no id"),
        ("§\"1@a\"", "CONFIG_ADDRESS", "`a` has no port"),
        ("§\"1@:9\"", "CONFIG_ADDRESS", "has no host"),
        ("§\"1@a:0\"", "CONFIG_ADDRESS", "port 0"),
        ("§\"1@a:70000\"", "CONFIG_ADDRESS", "`70000` is no port"),
        ("§\"1@fd00::1:9\"", "CONFIG_ADDRESS", "brackets"),
        ("\"1@a:1\", §\"1@b:1\"", "CONFIG_DUPLICATE", "the node 1 is listed already, as 1@a:1"),
        ("\"1@a:1\", §\"2@a:1\"", "CONFIG_DUPLICATE", "the node 1 has this address already"),
    ] {
        one(&list(entries), code, says);
    }
    one(&list("").replace("[]", "§[]"), "CONFIG_ADDRESS", "at least one controller");
    let all = problems(&list("a, b, \"3@c\""));
    assert_eq!(all.len(), 3, "every entry is told: {all:?}");
    let even = warnings(&list("\"1@localhost:1\", \"2@[::1]:1\"").replace("a:1", "[::]:1"));
    assert_eq!((even.len(), even[0].1, even[0].0.as_str()), (1, "CONFIG_CONTROLLERS", "t.yaml:2:35"));
    one(
        "cluster: { name: §\"e u\", controllers: [\"1@a:1\"] }\nnode: { controller: \"a:1\" }\n",
        "CONFIG_NAME",
        "`e u`",
    );
}

#[test]
fn what_a_node_says_of_itself_agrees_with_the_cluster() {
    let with = |node: &str| format!("node: {{ {node} }}\n{CLUSTER}");
    one(
        &with("kafka: \"h:1\"").replace("node: ", "node: §"),
        "CONFIG_MISSING",
        "`controller` is missing: this node is listed as 1@10.0.0.1:9093",
    );
    one(&CLUSTER.replace("[", "§["), "CONFIG_MISSING", "`controller` is missing");
    one(&with("id: §4, kafka: \"h:1\""), "CONFIG_CLUSTER", "this node is 4 with the role `controller`");
    one(&with("id: §4, roles: [controller], controller: \"d:9093\""), "CONFIG_CLUSTER", "this node is 4");
    one(&with("id: 3, kafka: \"h:1\", roles: §[broker]"), "CONFIG_CLUSTER", "listed as 3@c:9093");
    one(
        &with("id: 4, kafka: \"h:1\", roles: [broker], §controller: \"d:9093\""),
        "CONFIG_CLUSTER",
        "which this node does not have",
    );
    one(
        &with("roles: [controller], controller: \"10.0.0.1:9093\", §kafka: \"h:1\""),
        "CONFIG_CLUSTER",
        "`kafka` is the broker's",
    );
    one(&with("id: 3, controller: \"c:9093\", roles: §[]"), "CONFIG_CLUSTER", "a node without a role");
    one(&with("id: 3, roles: [§brokr]"), "CONFIG_TYPE", "one of `broker`");
    one(&with("id: §x"), "CONFIG_TYPE", "a whole number");
    one("node: { §roles: [broker] }\n", "CONFIG_CLUSTER", "`roles` belongs to a node of a cluster");
    one("node: { §controller: \"a:1\" }\n", "CONFIG_CLUSTER", "`controller` belongs to");
    one(
        &with("id: 3, kafka: \"c:9093\", controller: §\"c:9093\""),
        "CONFIG_ADDRESS",
        "`controller` and `kafka` are both c:9093",
    );
    one(&with("id: 3, kafka: \"h:1\", controller: §c"), "CONFIG_ADDRESS", "`c` has no port");
}

#[test]
fn addresses_that_may_be_right_are_warned_of() {
    let with = |node: &str| warnings(&format!("node: {{ {node} }}\n{CLUSTER}"));
    assert_eq!(with("id: 3, kafka: \"h:1\", controller: \"0.0.0.0:9093\""), []);
    for (node, says) in [
        ("id: 3, kafka: \"h:1\", controller: §\"0.0.0.0:9094\"", "they are told 3@c:9093"),
        ("id: 3, kafka: \"h:1\", controller: §\"d:9093\"", "they are told 3@c:9093"),
        (
            "id: 3, kafka: \"0.0.0.0:1\", advertised: §\"localhost:1\", controller: \"c:9093\"",
            "their own machine",
        ),
    ] {
        let (node, place) = marked(&format!("node: {{ {node}"));
        let found = with(node.trim_start_matches("node: { "));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, place);
        assert!(found[0].2.contains(says), "{found:?}");
    }
    let default = with("id: 3, controller: \"c:9093\"");
    assert!(default.len() == 1 && default[0].2.contains("connect to 127.0.0.1:9092"), "{default:?}");
    let local = "node: { controller: \"127.0.0.1:9093\" }\ncluster: { name: dev, controllers: [\"1@127.0.0.1:9093\"] }\n";
    assert_eq!(warnings(local), [], "a cluster on one machine is right");
}

#[test]
fn defaults_fit_together() {
    let with = |defaults: &str| {
        format!(
            "node: {{ controller: \"a:1\" }}\ncluster: {{ name: eu, controllers: [\"1@a:1\"], defaults: {{ {defaults} }} }}\n"
        )
    };
    let own = |defaults: &str| {
        let config = load(&with(defaults));
        let own = config.own_cluster().unwrap().clone();
        (own.replication_factor, own.min_insync_replicas)
    };
    assert_eq!(own(""), (1, 1));
    assert_eq!(own("replication_factor: 3"), (3, 2));
    assert_eq!(own("replication_factor: 2"), (2, 1));
    assert_eq!(own("replication_factor: 3, min_insync_replicas: 3"), (3, 3));
    one(
        &with("replication_factor: 2, min_insync_replicas: §3"),
        "CONFIG_RANGE",
        "`min_insync_replicas` is 3, and a topic has 2 replicas",
    );
    one(&with("replication_factor: §0"), "CONFIG_RANGE", "0 is out of range");
    one(&with("§replicas: 3"), "CONFIG_UNKNOWN_KEY", "`replicas`");
}

#[test]
fn settings_of_replication_have_kafkas_names() {
    let config = load(
        "node:\n  settings:\n    replica.lag.time.max.ms: 10000\n    broker.session.timeout.ms: 6000\n    \
         broker.heartbeat.interval.ms: 1000\n    controller.quorum.election.timeout.ms: 500\n    \
         num.replica.fetchers: 2\n    unclean.leader.election.enable: true\n    min.insync.replicas: 2\n    \
         default.replication.factor: 3\n    auto.leader.rebalance.enable: false\n    \
         replica.selector.class: RackAwareReplicaSelector\n",
    );
    assert_eq!(config.node.settings.len(), 10);
    assert_eq!(config.node.settings["auto.leader.rebalance.enable"], "false");
    assert!(load("node: { settings: { replica.selector.class: } }\n").node.settings.is_empty());
    let with = |settings: &str| format!("node: {{ settings: {{ {settings} }} }}\n");
    one(&with("replica.selector.class: §Mine"), "CONFIG_TYPE", "RackAwareReplicaSelector");
    one(&with("broker.heartbeat.interval.ms: §9000"), "CONFIG_RANGE", "`broker.session.timeout.ms` 9000");
    one(&with("min.insync.replicas: §3, default.replication.factor: 2"), "CONFIG_RANGE", "is 3");
    let twice = "node: { controller: \"a:1\", settings: { §default.replication.factor: 3 } }\n\
                 cluster: { name: eu, controllers: [\"1@a:1\"], defaults: { replication_factor: 3 } }\n";
    one(twice, "CONFIG_DUPLICATE", "says what `cluster: defaults: replication_factor:` says");
}

#[test]
fn the_json_schema_has_either_cluster() {
    let schema = json_schema(&Registry::new());
    let cluster = &schema["properties"]["cluster"];
    assert_eq!(cluster["oneOf"][0]["required"][0], "bootstrap_servers");
    assert_eq!(cluster["oneOf"][1]["required"][1], "controllers");
    assert!(cluster["properties"]["defaults"]["properties"]["min_insync_replicas"].is_object());
    let node = &schema["properties"]["node"]["properties"];
    assert_eq!(node["roles"]["default"][1], "controller");
    assert!(node["settings"]["properties"]["replica.lag.time.max.ms"].is_object());
}
