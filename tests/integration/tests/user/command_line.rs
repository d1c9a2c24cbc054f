//! Topics, groups, records: every command, for people and with `--json`.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use towpath_client::{Client, ClientConfig, ShareConsumerConfig};
use towpath_harness::child::Guarded;
use towpath_harness::{Towpath, paths, ports::free_port, process};
use towpath_types::{GroupId, TopicName};

use super::support::{LONG, ask, ask_with, interrupt, type_in, wait_until};

#[test]
fn topics_are_listed_described_created_configured_and_deleted() {
    let towpath = Towpath::broker().unwrap();
    ask(&towpath, &["topics", "create", "orders", "-p", "3", "-c", "retention.ms=1000"])
        .says(0, &["created orders ("]);
    let created = ask(&towpath, &["topics", "create", "other", "--json"]).json();
    assert_eq!((&created[0]["topic"], created[0]["id"].is_string()), (&json!("other"), true));
    ask(&towpath, &["topics", "create", "orders"]).says(1, &["TOPIC_ALREADY_EXISTS", "topics describe"]);
    ask(&towpath, &["topics", "create", "x", "-c", "nope=1"]).says(1, &["INVALID_CONFIG", "nope", "--all"]);
    ask(&towpath, &["topics", "create", "bad name"]).says(1, &["`bad name` is no topic name"]);
    ask(&towpath, &["topics", "list"]).says(0, &["TOPIC", "orders 3", "other 1"]);
    let listed = ask(&towpath, &["topics", "list", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let internal = ask(&towpath, &["topics", "list", "--internal", "--json"]).json();
    assert!(internal.as_array().unwrap().len() > 2, "{internal}");
    ask_with(&towpath, &["produce", "orders", "-p", "1"], "a\nb\n").says(0, &["2 records written to orders"]);
    let described = ask(&towpath, &["topics", "describe", "orders", "--json"]).json();
    assert_eq!(
        (described[1]["begin_offset"].clone(), described[1]["end_offset"].clone()),
        (json!(0), json!(2))
    );
    ask(&towpath, &["topics", "describe", "nope"]).says(1, &["there is no topic `nope`", "topics list"]);
    ask(&towpath, &["topics", "config", "orders"]).says(0, &["retention.ms 1000 topic"]);
    ask(&towpath, &["topics", "config", "orders", "--set", "retention.ms=7"])
        .says(0, &["retention.ms 7 topic"]);
    ask(&towpath, &["topics", "config", "orders", "--unset", "retention.ms", "--json"]).says(0, &["[]"]);
    ask(&towpath, &["topics", "config", "orders", "--all"]).says(0, &["cleanup.policy delete default"]);
    let deleted = ask(&towpath, &["topics", "delete", "other", "nope"]);
    deleted.says(1, &["deleted other", "UNKNOWN_TOPIC_OR_PARTITION", "topics list"]);
    assert_eq!(deleted.flat().matches("nope").count(), 1, "told once: {}", deleted.err);
    assert_eq!(
        ask(&towpath, &["topics", "delete", "orders", "--json"]).json(),
        json!([{ "topic": "orders" }])
    );
    assert_eq!(ask(&towpath, &["topics", "list", "--json"]).json(), json!([]));
}

#[test]
fn the_broker_is_set_up_by_the_names_that_kafka_has() {
    let settings = "  settings:\n    auto.create.topics.enable: false\n    num.partitions: 3\n    log.retention.ms: 7000\n    \
                    group.min.session.timeout.ms: 100\n";
    let options = process::Options { node_yaml: settings.to_owned(), ..process::Options::broker() };
    let towpath = Towpath::start(options).unwrap();
    ask_with(&towpath, &["produce", "nobody-made-it"], "a\n").says(1, &["nobody-made-it"]);
    ask(&towpath, &["topics", "create", "t"]).says(0, &["created t ("]);
    ask(&towpath, &["topics", "list"]).says(0, &["t 3"]);
    ask(&towpath, &["topics", "config", "t", "--all"]).says(0, &["retention.ms 7000"]);
}

#[test]
fn records_are_produced_and_consumed() {
    let towpath = Towpath::broker().unwrap();
    ask(&towpath, &["topics", "create", "t", "-p", "1"]).says(0, &[]);
    let header = ["produce", "t", "-k", ":", "-Z", "-H", "who=me", "-c", "zstd", "--json"];
    let produced = ask_with(&towpath, &header, "k:v\nk:\nplain\n").json();
    assert_eq!(produced, json!({ "topic": "t", "records": 3 }));
    let all = ask(&towpath, &["consume", "t", "--from-beginning", "--exit-at-end", "--json"]).json_lines();
    let parts: Vec<_> = all.iter().map(|it| json!([it["offset"], it["key"], it["value"]])).collect();
    assert_eq!(parts, [json!([0, "k", "v"]), json!([1, "k", null]), json!([2, null, "plain"])]);
    assert_eq!(all[0]["headers"], json!([{ "name": "who", "value": "me" }]));
    let verbose = ask(&towpath, &["consume", "t", "-f", "-e", "-v", "-n", "1"]);
    verbose.says(0, &["t-0 @0 20", "Z who=me k | v"]);
    assert_eq!(ask(&towpath, &["consume", "t", "-p", "0", "-o", "2", "-e"]).out, "plain\n");
    ask(&towpath, &["consume", "t", "-p", "0", "-o", "9", "-e"])
        .says(1, &["t-0 has no offset 9", "ends before 3"]);
    ask(&towpath, &["consume", "t", "-p", "4", "-f", "-e"])
        .says(1, &["no such partition", "topics describe t"]);
    ask(&towpath, &["consume", "nope", "-f", "-e"]).says(1, &["there is no topic `nope`", "topics create"]);
    ask_with(&towpath, &["produce", "t", "-p", "4"], "x\n").says(1, &["no partition 4"]);
}

#[test]
fn a_group_goes_on_where_it_was_and_is_moved_and_deleted() {
    let towpath = Towpath::broker().unwrap();
    ask(&towpath, &["topics", "create", "t", "-p", "2"]).says(0, &[]);
    ask_with(&towpath, &["produce", "t", "-p", "0"], "a\nb\n").says(0, &[]);
    let member = ["consume", "t", "--group", "g", "--from-beginning", "--exit-at-end"];
    assert_eq!(ask(&towpath, &member).out, "a\nb\n");
    ask_with(&towpath, &["produce", "t", "-p", "1"], "c\n").says(0, &[]);
    assert_eq!(ask(&towpath, &member).out, "c\n", "what was committed is not read again");
    ask(&towpath, &["groups", "list"]).says(0, &["g classic Empty consumer"]);
    let described = ask(&towpath, &["groups", "describe", "g", "--json"]).json();
    assert_eq!((&described[0]["committed"], &described[0]["lag"]), (&json!(2), &json!(0)), "{described}");
    let reset = ["groups", "reset", "g", "--shift-by", "-1", "--json"];
    let dry = ask(&towpath, &[&reset[..], &["--dry-run"]].concat()).json();
    assert_eq!(dry, ask(&towpath, &reset).json(), "{dry}");
    assert_eq!((&dry[0]["before"], &dry[0]["now"]), (&json!(2), &json!(1)));
    let again = ask(&towpath, &member).out;
    assert_eq!(again.lines().collect::<std::collections::BTreeSet<_>>(), ["b", "c"].into());
    ask(&towpath, &["groups", "reset", "nope", "--to-latest"]).says(1, &["has committed nothing", "--topic"]);
    ask(&towpath, &["groups", "describe", "nope"]).says(1, &["GROUP_ID_NOT_FOUND", "groups list"]);
    let deleted = ask(&towpath, &["groups", "delete", "g", "nope", "--json"]);
    deleted.says(1, &["\"g\"", "GROUP_ID_NOT_FOUND"]);
}

#[test]
fn a_share_group_is_listed_described_moved_and_deleted() {
    let settings = "  settings:\n    group.share.min.heartbeat.interval.ms: 100\n    group.share.heartbeat.interval.ms: 200\n";
    let options = process::Options { node_yaml: settings.to_owned(), ..process::Options::broker() };
    let towpath = Towpath::start(options).unwrap();
    ask(&towpath, &["topics", "create", "t", "-p", "1"]).says(0, &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ClientConfig { bootstrap_servers: vec![towpath.bootstrap()], ..Default::default() };
    let client = runtime.block_on(Client::connect(config)).unwrap();
    let consumer = {
        let _entered = runtime.enter();
        let consumer = client.share_consumer(ShareConsumerConfig::new(GroupId::new("s").unwrap()));
        consumer.subscribe(&[TopicName::new("t").unwrap()]).unwrap();
        consumer
    };
    let poll = || runtime.block_on(consumer.poll(Duration::from_millis(200))).unwrap();
    // It begins at the end: what comes afterwards is shared.
    let start = || ask(&towpath, &["groups", "describe", "s", "--json"]).json()[0]["start"].clone();
    wait_until("the group has begun", || (poll().len(), start()).1, |start| *start == json!(0));
    ask_with(&towpath, &["produce", "t"], "a\nb\nc\n").says(0, &[]);
    wait_until("the records come", || poll().iter().flatten().count(), |count| *count > 0);
    runtime.block_on(consumer.commit()).unwrap().into_values().for_each(|result| result.unwrap());
    ask(&towpath, &["groups", "list"]).says(0, &["s share Stable share"]);
    ask(&towpath, &["groups", "describe", "s"]).says(0, &["START", "LAG", "s share Stable t 0", "towpath"]);
    let described = ask(&towpath, &["groups", "describe", "s", "--json"]).json();
    let one = &described[0];
    assert_eq!(
        (&one["type"], &one["partition"], &one["lag"]),
        (&json!("share"), &json!(0), &json!(0)),
        "{one}"
    );
    assert!(one["member"].is_string() && one["host"].is_string(), "{one}");
    let hint = "groups describe";
    ask(&towpath, &["groups", "reset", "s", "--to-earliest"]).says(1, &["NON_EMPTY_GROUP", hint]);
    ask(&towpath, &["groups", "delete", "s"]).says(1, &["NON_EMPTY_GROUP", hint]);
    runtime.block_on(consumer.close());
    let reset = ["groups", "reset", "s", "--to-offset", "1", "--json"];
    let dry = ask(&towpath, &[&reset[..], &["--dry-run"]].concat()).json();
    assert_eq!(dry, ask(&towpath, &reset).json(), "{dry}");
    assert_eq!(dry[0]["now"], json!(1), "{dry}");
    let described = ask(&towpath, &["groups", "describe", "s", "--json"]).json();
    assert_eq!((&described[0]["start"], &described[0]["lag"]), (&json!(1), &json!(2)), "{described}");
    assert_eq!((&described[0]["state"], &described[0]["member"]), (&json!("Empty"), &json!(null)));
    // Beside a group of another kind each has a table of its own, and JSON is one array.
    ask(&towpath, &["consume", "t", "--group", "g", "--from-beginning", "--exit-at-end"]).says(0, &[]);
    ask(&towpath, &["groups", "describe", "g", "s"]).says(0, &["COMMITTED", "START"]);
    let both = ask(&towpath, &["groups", "describe", "g", "s", "--json"]).json();
    assert_eq!((&both[0]["committed"], &both[1]["start"]), (&json!(3), &json!(1)), "{both}");
    ask(&towpath, &["groups", "delete", "s"]).says(0, &["deleted s"]);
    ask(&towpath, &["groups", "describe", "s"]).says(1, &["GROUP_ID_NOT_FOUND", "groups list"]);
}

#[test]
fn a_member_that_is_interrupted_leaves_its_group() {
    let towpath = Towpath::broker().unwrap();
    ask(&towpath, &["topics", "create", "t"]).says(0, &[]);
    let mut command = process::command().unwrap();
    command.args(["consume", "t", "-g", "g", "-b", &towpath.bootstrap()]);
    let log = towpath.folder().join("member");
    let mut member = Guarded::spawn("member", command, &log, &log).unwrap();
    let state = || {
        let groups = ask(&towpath, &["groups", "list", "--json"]).json();
        let group = groups.as_array().unwrap().iter().find(|group| group["group"] == "g");
        group.map_or(json!(null), |group| group["state"].clone())
    };
    wait_until("the member is in", state, |state| state == "Stable");
    interrupt(member.pid());
    assert!(member.wait(LONG).unwrap().success(), "{}", member.log_tail());
    assert_eq!(state(), "Empty", "nobody has to wait for its session to end");
}

#[test]
fn where_nobody_answers_it_is_said_what_to_type() {
    let folder = towpath_harness::TempDir::new("nobody").unwrap();
    let (kafka, http) = (free_port().unwrap(), free_port().unwrap());
    let servers = format!("127.0.0.1:{kafka}");
    let commands: [&[&str]; 11] = [
        &["topics", "list"],
        &["topics", "describe", "t"],
        &["topics", "create", "t"],
        &["topics", "delete", "t"],
        &["topics", "config", "t"],
        &["groups", "list"],
        &["groups", "describe", "g"],
        &["groups", "reset", "g", "--to-latest"],
        &["groups", "delete", "g"],
        &["produce", "t"],
        &["consume", "t"],
    ];
    for command in commands {
        let said = type_in(folder.path(), &[command, &["-b", &servers]].concat(), "", &[]);
        said.says(
            1,
            &[
                "error: no bootstrap server answered",
                "refused",
                "`towpath up FILE` starts one",
                "-b HOST:PORT",
            ],
        );
        assert_eq!(said.out, "", "{command:?}");
    }
    let said = type_in(folder.path(), &["topics", "list", "--json", "-b", &servers], "", &[]);
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert!(error["error"].is_string() && error["hint"].is_string() && said.code == 1, "{error}");
    let address = format!("127.0.0.1:{http}");
    for command in ["list", "status", "pause p", "resume p", "restart p", "reset p"] {
        let mut line = vec!["pipelines"];
        line.extend(command.split(' '));
        line.extend(["--http", &address]);
        type_in(folder.path(), &line, "", &[])
            .says(1, &["no towpath answers at", "refused", "towpath up FILE"]);
    }
    type_in(folder.path(), &["topics", "list", "-b", "nonsense"], "", &[])
        .says(1, &["host:port", "-b HOST:PORT"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let towpath = Towpath::broker().unwrap();
    let lines: String = (0..50_000).map(|n| format!("a line that is number {n}\n")).collect();
    ask_with(&towpath, &["produce", "t"], &lines).says(0, &["50000 records"]);
    for command in ["consume t -f -e", "consume t -f -e --json", "schema", "completions bash"] {
        let script = format!("set -o pipefail; \"$TOWPATH\" {command} | head -n 1");
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).env("TOWPATH", process::binary().unwrap());
        shell.env("XDG_CACHE_HOME", paths::cache().unwrap());
        shell.env("TOWPATH_BOOTSTRAP_SERVER", towpath.bootstrap()).stdin(Stdio::null());
        let output = Guarded::output(command, shell, LONG).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
        assert_eq!(output.stdout.lines().count(), 1);
    }
}

#[test]
fn types_completions_and_the_version_are_told() {
    let folder = towpath_harness::TempDir::new("told").unwrap();
    let told = |arguments: &[&str]| type_in(folder.path(), arguments, "", &[]);
    told(&["connectors", "types"])
        .says(0, &["postgres_cdc source exactly-once", "wal_limit_bytes size (64KiB) 4GiB"]);
    let types = told(&["connectors", "types", "--json"]).json();
    assert!(
        types.as_array().unwrap().iter().all(|it| it["options"].is_object() || it["options"].is_array()),
        "{types}"
    );
    told(&["connectors", "types", "postgers"]).says(1, &["no connector type `postgers`", "there are:"]);
    for shell in ["bash", "zsh", "fish"] {
        assert!(told(&["completions", shell]).out.contains("until-idle"), "{shell}");
    }
    told(&["--version"]).says(0, &["towpath 0."]);
    told(&["up"]).says(2, &["FILE|DIR"]);
    told(&["vaildate", "x"]).says(2, &["'validate'"]);
}
