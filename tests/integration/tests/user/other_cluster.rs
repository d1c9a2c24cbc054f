//! `cluster:`: somebody else's brokers.

use towpath_harness::process::Options;
use towpath_harness::{Towpath, ports::free_port};

use super::support::{LONG, type_in, wait_state};

fn pipelines(bootstrap: &str) -> String {
    format!(
        "cluster: {{ bootstrap_servers: [\"{bootstrap}\"] }}\npipelines:\n  p:\n    \
         source: {{ type: generate, records: 5 }}\n    topic: t\n"
    )
}

#[test]
fn an_unknown_cluster_is_told_where_it_stands_in_the_files() {
    let folder = towpath_harness::TempDir::new("cluster").unwrap();
    let port = free_port().unwrap();
    for (address, why) in
        [("nohost.invalid:9092".to_owned(), "nohost.invalid"), (format!("127.0.0.1:{port}"), "refused")]
    {
        std::fs::write(folder.join("c.yaml"), pipelines(&address)).unwrap();
        for command in [&["check", "c.yaml"][..], &["up", "c.yaml"], &["up", "c.yaml", "--until-idle"]] {
            let said = type_in(folder.path(), command, "", &[]);
            said.says(1, &["KAFKA_UNREACHABLE", "c.yaml:1:31", why, "can this machine reach them?"]);
        }
    }
    assert!(!folder.join("towpath-data").exists(), "nothing was started");
}

#[test]
fn two_processes_are_not_one_worker() {
    let broker = Towpath::broker().unwrap();
    let mut first = Towpath::start(Options::yaml(pipelines(&broker.bootstrap())).without_broker()).unwrap();
    wait_state(&first, "p/source/0", "COMPLETED");
    let http = free_port().unwrap();
    let yaml = std::fs::read_to_string(first.config_path()).unwrap();
    let moved = yaml.replace(&first.http_address().to_string(), &format!("127.0.0.1:{http}"));
    std::fs::write(first.folder().join("second.yaml"), moved).unwrap();
    let said = type_in(first.folder(), &["up", "second.yaml"], "", &[]);
    said.says(1, &["is in use by another process", "data_dir:"]);
    assert!(first.terminate(LONG).unwrap().success());
}

#[test]
fn a_cluster_that_is_away_is_waited_for_by_what_has_run_before() {
    let mut broker = Towpath::broker().unwrap();
    let mut towpath = Towpath::start(Options::yaml(pipelines(&broker.bootstrap())).without_broker()).unwrap();
    wait_state(&towpath, "p/source/0", "COMPLETED");
    assert!(towpath.terminate(LONG).unwrap().success());
    broker.kill9().unwrap();
    towpath.spawn().unwrap();
    let page = super::support::wait_until(
        "the pages are there",
        || towpath.get("/ready").map(|page| page.status).unwrap_or_default(),
        |status| *status != 0,
    );
    assert_eq!(page, 503, "not ready before the cluster answers");
    broker.start_again().unwrap();
    towpath.wait_ready(LONG).unwrap();
    wait_state(&towpath, "p/source/0", "COMPLETED");
    assert!(towpath.terminate(LONG).unwrap().success());
}
