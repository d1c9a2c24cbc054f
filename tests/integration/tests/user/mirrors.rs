//! `mirrors:` and `towpath mirror`, as somebody uses them.

use towpath_harness::process::{Options, Runs};
use towpath_harness::{MirrorMaker, Towpath, kafka, mirror_maker, paths};

use super::support::{LONG, ask, ask_with, type_in, wait_until};

fn yaml(us: &Towpath, eu: &Towpath) -> String {
    format!(
        "clusters:\n  us: {{ bootstrap_servers: [\"{}\"] }}\n  eu: {{ bootstrap_servers: [\"{}\"] }}\nmirrors:\n  us-to-eu: \
         {{ from: us, to: eu, topics: [\"shop*\"], refresh: 200ms }}\n",
        us.bootstrap(),
        eu.bootstrap()
    )
}

fn lines(towpath: &Towpath, topic: &str) -> Vec<String> {
    let said = ask(towpath, &["consume", topic, "-f", "-e", "--json"]);
    if said.code != 0 {
        return Vec::new();
    }
    said.json_lines().iter().map(|it| it["value"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_mirror_is_run_asked_and_killed() {
    let (us, eu) = (Towpath::broker().unwrap(), Towpath::broker().unwrap());
    ask(&us, &["topics", "create", "shop", "--partitions", "1"]).says(0, &[]);
    ask(&us, &["topics", "create", "other", "--partitions", "1"]).says(0, &[]);
    ask_with(&us, &["produce", "shop"], "a\nb\n").says(0, &[]);
    let planned = || {
        std::fs::write(eu.folder().join("mirror.yaml"), yaml(&us, &eu)).unwrap();
        type_in(eu.folder(), &["mirror", "plan", "mirror.yaml"], "", &[])
    };
    planned().says(0, &["us-to-eu", "us.shop", "create it with 1 partitions"]);
    let options = Options { runs: Runs::Mirrors, ..Options::yaml(yaml(&us, &eu)).without_broker() };
    let mut mirror = Towpath::start(options).unwrap();
    wait_until("two records came", || lines(&eu, "us.shop"), |lines| *lines == ["a", "b"]);
    planned().says(0, &["us.shop", "in line"]);
    assert!(lines(&eu, "us.other").is_empty());
    mirror.kill9().unwrap();
    ask_with(&us, &["produce", "shop"], "c\n").says(0, &[]);
    mirror.start_again().unwrap();
    wait_until("the third came", || lines(&eu, "us.shop"), |lines| *lines == ["a", "b", "c"]);
    let http = mirror.http_address().to_string();
    let status = || type_in(mirror.folder(), &["mirror", "status", "--http", &http], "", &[]);
    wait_until("nothing is left", status, |said| said.code == 0 && said.flat().contains("running 1 0 0"));
    let told = ["mirror", "status", "--http", &http, "--partitions"];
    type_in(mirror.folder(), &told, "", &[]).says(0, &["us-to-eu", "shop", "us.shop"]);
    type_in(mirror.folder(), &["mirror", "status", "nope", "--http", &http], "", &[])
        .says(1, &["there is no mirror `nope`", "us-to-eu"]);
    // What is stored is compared: every few seconds, while something moves.
    let verify = || type_in(mirror.folder(), &["verify", "--mirror", "us-to-eu", "towpath.yaml"], "", &[]);
    wait_until("all three are equal", verify, |said| said.code == 0 && said.flat().contains("3 0 equal"));
    type_in(mirror.folder(), &["verify", "--mirror", "nope", "towpath.yaml"], "", &[])
        .says(1, &["no mirror `nope`", "us-to-eu"]);
    assert!(mirror.terminate(LONG).unwrap().success());
}

#[test]
fn mirrors_are_part_of_up_and_files_without_them_are_told() {
    let us = Towpath::broker().unwrap();
    ask(&us, &["topics", "create", "shop", "--partitions", "1"]).says(0, &[]);
    ask_with(&us, &["produce", "shop"], "b\n").says(0, &[]);
    let mut eu = Towpath::prepare(Options::broker()).unwrap();
    eu.set_yaml(yaml(&us, &eu)).unwrap();
    eu.start_again().unwrap();
    let came = |lines: &Vec<String>| lines.last().is_some_and(|last| last == "b");
    wait_until("the record came", || lines(&eu, "us.shop"), came);
    std::fs::write(eu.folder().join("none.yaml"), "node: { data_dir: d }\n").unwrap();
    type_in(eu.folder(), &["mirror", "none.yaml"], "", &[]).says(1, &["declare no mirrors", "clusters:"]);
    std::fs::write(eu.folder().join("wrong.yaml"), "mirrors:\n  a: { from: us, to: eu }\n").unwrap();
    type_in(eu.folder(), &["mirror", "wrong.yaml"], "", &[]).says(2, &["wrong.yaml:2:14", "no `us` under"]);
    type_in(eu.folder(), &["mirror"], "", &[]).says(2, &["Usage"]);
}

#[test]
fn the_client_of_mirrormaker_finds_what_it_looks_for() {
    let (us, eu) = (Towpath::broker().unwrap(), Towpath::broker().unwrap());
    ask(&us, &["topics", "create", "shop", "--partitions", "1"]).says(0, &[]);
    ask_with(&us, &["produce", "shop"], "a\nb\n").says(0, &[]);
    ask(&us, &["consume", "shop", "-f", "-e", "--group", "billing"]).says(0, &["a", "b"]);
    ask_with(&us, &["produce", "shop"], "c\n").says(0, &[]);
    let yaml = yaml(&us, &eu).replace("refresh: 200ms", "refresh: 200ms, mirrormaker_topics: true");
    let options = Options { runs: Runs::Mirrors, ..Options::yaml(yaml).without_broker() };
    let _mirror = Towpath::start(options).unwrap();
    wait_until("all three came", || lines(&eu, "us.shop"), |lines| *lines == ["a", "b", "c"]);
    let program = paths::workspace().join("tests/interop/mirror_client/Remote.java");
    let look = || {
        let arguments = [eu.bootstrap(), "us".to_owned(), "billing".to_owned()];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        kafka::tool(&program.display().to_string(), &arguments, LONG).unwrap()
    };
    // The group's offsets and the heartbeats follow at the mirror's next looks.
    let expected = "upstream [us]\nhops 1\ncheckpoints [us.checkpoints.internal]\ntopics [us.heartbeats, us.shop]\noffsets {us.shop-0=2}\n";
    wait_until("it finds everything", look, |found| found.stdout == expected);
}

#[test]
fn a_link_of_mirrormaker_is_taken_over() {
    let (us, eu) = (Towpath::broker().unwrap(), Towpath::broker().unwrap());
    ask(&us, &["topics", "create", "shop", "--partitions", "1"]).says(0, &[]);
    let numbers = |range: std::ops::Range<u32>| range.map(|it| format!("{it}\n")).collect::<String>();
    ask_with(&us, &["produce", "shop"], &numbers(0..250)).says(0, &[]);
    ask(&us, &["consume", "shop", "-f", "-e", "--group", "billing"]).says(0, &["249"]);
    let maker = MirrorMaker::start(us.kafka_address(), eu.kafka_address(), "shop").unwrap();
    let begun = std::time::Instant::now();
    while lines(&eu, "us.shop").len() < 250 {
        assert!(
            begun.elapsed() < mirror_maker::START_WITHIN,
            "MirrorMaker has copied {}",
            lines(&eu, "us.shop").len()
        );
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    ask_with(&us, &["produce", "shop"], &numbers(250..260)).says(0, &[]);
    wait_until("it has copied ten more", || lines(&eu, "us.shop").len(), |count| *count == 260);
    maker.stop(LONG).unwrap();
    ask_with(&us, &["produce", "shop"], &numbers(260..300)).says(0, &[]);

    let yaml = yaml(&us, &eu).replace("topics: [\"shop*\"]", "topics: [shop], begin: mirrormaker");
    let options = Options { runs: Runs::Mirrors, ..Options::yaml(yaml).without_broker() };
    let mirror = Towpath::start(options).unwrap();
    let all: Vec<String> = (0..300).map(|it| it.to_string()).collect();
    wait_until("the rest came, once", || lines(&eu, "us.shop"), |lines| *lines == all);
    // What the group has processed before is known to the record.
    let http = mirror.http_address().to_string();
    let status = || type_in(mirror.folder(), &["mirror", "status", "--groups", "--http", &http], "", &[]);
    wait_until("the group follows", status, |said| said.flat().contains("billing in step"));
    let described = ask(&eu, &["groups", "describe", "billing", "--json"]);
    assert!(described.out.contains("us.shop"), "{}", described.out);
    let next = ask(&eu, &["consume", "us.shop", "-f", "-e", "--group", "billing"])
        .out
        .lines()
        .next()
        .map(str::to_owned);
    // MirrorMaker tells of every hundredth record: the group goes on at the beginning, or exactly.
    assert!(matches!(next.as_deref(), Some("0" | "250")), "{next:?}");
}
