//! `clusters:` and `mirrors:`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::time::Duration;

use towpath_api::Registry;
use towpath_config::{Config, MirrorNaming, Problem, load_text};

fn load(text: &str) -> Result<Config, Vec<Problem>> {
    load_text("towpath.yaml", text, &Registry::new()).map_err(|problems| problems.list().to_vec())
}

/// Each problem as `line:column message`.
fn problems(text: &str) -> Vec<String> {
    let found = load(text).err().unwrap_or_default();
    found
        .iter()
        .map(|it| {
            format!("{} {}", it.position().unwrap_or_default().replace("towpath.yaml:", ""), it.message)
        })
        .collect()
}

const CLUSTERS: &str = "clusters:
  us: { bootstrap_servers: [us-1:9092] }
  eu: { bootstrap_servers: [eu-1:9092, eu-2:9092] }
";

#[test]
fn a_mirror_is_read_with_its_defaults() {
    let config = load(&format!("{CLUSTERS}mirrors:\n  us-to-eu: {{ from: us, to: eu }}\n")).unwrap();
    let [mirror] = &config.mirrors[..] else { panic!("one mirror") };
    assert_eq!(
        (mirror.name.as_str(), mirror.from.alias.as_str(), mirror.to.alias.as_str()),
        ("us-to-eu", "us", "eu")
    );
    assert_eq!(mirror.to.bootstrap_servers, ["eu-1:9092", "eu-2:9092"]);
    assert_eq!(
        (mirror.naming, mirror.refresh, mirror.tasks),
        (MirrorNaming::Prefixed, Duration::from_secs(5), 2)
    );
    assert!(mirror.topics.takes("anything") && mirror.groups.takes("any"));
    assert!(mirror.sync_configs && mirror.sync_partitions && !mirror.sync_deletes && mirror.forward);
    assert_eq!(mirror.bandwidth, None);
    assert!(!mirror.begin_at_mirrormaker && !mirror.mirrormaker_topics);
}

#[test]
fn what_is_said_counts() {
    let config = load(&format!(
        "{CLUSTERS}mirrors:\n  a:\n    from: us\n    to: eu\n    topics: ['shop.*', '!*.tmp']\n    naming: identical\n    \
         groups: []\n    refresh: 1m\n    tasks: 8\n    sync: {{ configs: false, deletes: true }}\n    \
         bandwidth: 20MiB\n    forward: false\n    begin: mirrormaker\n    mirrormaker_topics: true\n"
    ))
    .unwrap();
    let mirror = &config.mirrors[0];
    assert!(
        mirror.topics.takes("shop.orders") && !mirror.topics.takes("shop.x.tmp") && !mirror.groups.takes("a")
    );
    assert_eq!(
        (mirror.naming, mirror.refresh, mirror.tasks),
        (MirrorNaming::Identical, Duration::from_secs(60), 8)
    );
    assert!(!mirror.sync_configs && mirror.sync_partitions && mirror.sync_deletes && !mirror.forward);
    assert_eq!(mirror.bandwidth, Some(20 << 20));
    assert!(mirror.begin_at_mirrormaker && mirror.mirrormaker_topics);
}

#[test]
fn both_directions_with_identical_names_are_meant() {
    let both = |mode: &str| {
        load(&format!(
            "{CLUSTERS}mirrors:\n  a: {{ from: us, to: eu, naming: identical, mode: active_active }}\n  b: {{ from: eu, to: us, \
             naming: identical{mode} }}\n"
        ))
    };
    let config = both(", mode: active_active").unwrap();
    assert!(config.mirrors.iter().all(|mirror| mirror.active_active));
    let problems = both("").unwrap_err();
    assert!(problems[0].message.contains("`b` and `a` copy in both directions"), "{problems:?}");
    let prefixed =
        load(&format!("{CLUSTERS}mirrors:\n  a: {{ from: us, to: eu }}\n  b: {{ from: eu, to: us }}\n"));
    assert!(!prefixed.unwrap().mirrors[0].active_active);
}

#[test]
fn every_problem_is_told_at_its_place() {
    let text = "clusters:
  us: { bootstrap_servers: [us-1] }
  eu: { bootstrap_servers: [] }
  e u: { bootstrap_servers: [a:1] }
mirrors:
  one: { from: us, to: ue }
  two: { from: eu, to: eu, topics: [ok, 'a.(b|c)'], nameing: identical }
  three: { from: us }
";
    let found = problems(text);
    for expected in [
        "2:29",
        "3:28 at least one bootstrap server is needed",
        "4:3 `e u` cannot be an alias",
        "6:24 there is no `ue` under `clusters:`",
        "7:24 the mirror `two` leads from `eu` to itself",
        "7:41 `a.(b|c)` has `(`",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{expected}: {found:#?}");
    }
    assert!(found.iter().any(|problem| problem.contains("nameing")), "{found:#?}");
    assert!(found.iter().any(|problem| problem.starts_with("8:") && problem.contains("`to`")), "{found:#?}");
}
