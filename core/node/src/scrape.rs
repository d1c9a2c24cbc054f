//! The metrics that are read when somebody asks: partitions, memory, the process itself.

use std::fmt::{Display, Write as _};

use towpath_broker::Broker;
use towpath_mirror::{Link, LinkState, LinkStatus, PartitionStatus};
use towpath_telemetry::names;

/// Kernel clock ticks a second: what `/proc` counts in, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// In Prometheus' text format, to stand behind what the recorder renders.
pub(crate) fn render(broker: Option<&Broker>, links: &[Link]) -> String {
    let mut text = String::new();
    head(&mut text, names::BUILD_INFO, "gauge", "Always 1");
    line(&mut text, names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    process(&mut text);
    if let Some(broker) = broker {
        head(
            &mut text,
            names::REQUEST_MEMORY_LIMIT,
            "gauge",
            "Bytes that requests and answers may hold in memory",
        );
        line(&mut text, names::REQUEST_MEMORY_LIMIT, &[], broker.status().request_memory_limit_bytes);
        partitions(&mut text, broker);
    }
    mirrors(&mut text, &links.iter().map(Link::status).collect::<Vec<_>>());
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a string cannot fail, here and below.
    let _ = writeln!(text, "\n# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    let escaped = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let _ = match labels.as_slice() {
        [] => writeln!(text, "{name} {value}"),
        _ => writeln!(text, "{name}{{{}}} {value}", labels.join(",")),
    };
}

fn partitions(text: &mut String, broker: &Broker) {
    let partitions = broker.partitions();
    let mut each = |name: &str, help: &str, value: fn(&towpath_broker::PartitionStatus) -> i64| {
        head(text, name, "gauge", help);
        for status in &partitions {
            let number = status.partition.partition.to_string();
            let labels = [("topic", status.partition.topic.as_str()), ("partition", number.as_str())];
            line(text, name, &labels, value(status));
        }
    };
    each(names::LOG_START_OFFSET, "First offset of the partition", |it| it.log_start_offset.get());
    each(names::LOG_END_OFFSET, "The offset after its last record", |it| it.log_end_offset.get());
    each(names::HIGH_WATERMARK, "The offset up to which consumers see it", |it| it.high_watermark.get());
    each(names::PARTITION_BYTES, "Bytes on disk", |it| i64::try_from(it.size_bytes).unwrap_or(i64::MAX));
}

const LINK_STATES: [(LinkState, &str); 5] = [
    (LinkState::Starting, "starting"),
    (LinkState::Running, "running"),
    (LinkState::Waiting, "waiting"),
    (LinkState::Failed, "failed"),
    (LinkState::Stopped, "stopped"),
];

/// What is not known has no line: an old value would be a lie (R8).
fn mirrors(text: &mut String, links: &[LinkStatus]) {
    if links.is_empty() {
        return;
    }
    head(text, "towpath_mirror_state", "gauge", "1 for the state that a mirror is in");
    for link in links {
        for (state, name) in LINK_STATES {
            let labels = [("mirror", link.link.as_str()), ("state", name)];
            line(text, "towpath_mirror_state", &labels, u8::from(link.state == state));
        }
    }
    let mut each = |name: &str, help: &str, value: fn(&PartitionStatus) -> Option<f64>| {
        head(text, name, "gauge", help);
        for link in links {
            for partition in &link.partitions {
                let number = partition.partition.to_string();
                let topic = ("topic", partition.topic.as_str());
                let labels = [("mirror", link.link.as_str()), topic, ("partition", number.as_str())];
                value(partition).into_iter().for_each(|value| line(text, name, &labels, value));
            }
        }
    };
    each("towpath_mirror_lag_records", "Offsets of the source that are not mirrored", |it| {
        Some(it.lag? as f64)
    });
    each("towpath_mirror_lag_bytes", "What they take, estimated", |it| Some(it.lag_bytes? as f64));
    each("towpath_mirror_behind_seconds", "The age of what the target has", |it| {
        Some(it.behind_ms? as f64 / 1e3)
    });
    each("towpath_mirror_stopped", "1 where a partition stands still for good", |it| {
        Some(f64::from(u8::from(it.stopped)))
    });
    each("towpath_mirror_bytes", "Bytes that the target has taken since the mirror began", |it| {
        Some(it.bytes as f64)
    });
    for (name, help) in [
        (
            "towpath_mirror_group_twice_records",
            "Records that a group would process twice at most if it went over now",
        ),
        (
            "towpath_mirror_group_unmirrored_records",
            "Records that a group would not get if the source were lost now",
        ),
    ] {
        head(text, name, "gauge", help);
        for link in links {
            for (group, status) in &link.groups {
                let twice = Some(status.twice as f64).filter(|_| status.problem.is_none());
                let value =
                    if name.contains("twice") { twice } else { status.unmirrored.map(|it| it as f64) };
                let labels = [("mirror", link.link.as_str()), ("group", group.as_str())];
                value.into_iter().for_each(|value| line(text, name, &labels, value));
            }
        }
    }
}

/// Under the names that every Prometheus client library uses. What the system does not tell is left out.
fn process(text: &mut String) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name is in parentheses and may hold anything.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (number(11), number(12)) {
        head(text, "process_cpu_seconds_total", "counter", "CPU time, user and system");
        line(text, "process_cpu_seconds_total", &[], (user + system) / TICKS_PER_SECOND);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    if let Some(resident) = kib("VmRSS:") {
        head(text, "process_resident_memory_bytes", "gauge", "Memory in use");
        line(text, "process_resident_memory_bytes", &[], resident * 1024);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        head(text, "process_open_fds", "gauge", "Open files and sockets");
        line(text, "process_open_fds", &[], files.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_tells_of_itself() {
        let text = render(None, &[]);
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "towpath_build_info{version=",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
        }
    }

    #[test]
    fn mirrors_tell_what_they_know_and_nothing_else() {
        let partition = PartitionStatus {
            topic: "shop".to_owned(),
            partition: 3,
            target: "us.shop".to_owned(),
            mirrored: 90,
            source_end: Some(100),
            lag: Some(10),
            lag_bytes: None,
            behind_ms: Some(1500),
            bytes: 7,
            moved_at_ms: None,
            stopped: false,
            problem: None,
        };
        let group = towpath_mirror::GroupStatus { twice: 4, unmirrored: Some(10), ..Default::default() };
        let link = LinkStatus {
            link: "us-to-eu".to_owned(),
            from: "us".to_owned(),
            to: "eu".to_owned(),
            state: LinkState::Running,
            problem: None,
            partitions: vec![partition],
            left_out: Vec::new(),
            groups: [("a\"b".to_owned(), group)].into(),
        };
        let mut text = String::new();
        mirrors(&mut text, &[link]);
        for expected in [
            r#"towpath_mirror_state{mirror="us-to-eu",state="running"} 1"#,
            r#"towpath_mirror_state{mirror="us-to-eu",state="failed"} 0"#,
            r#"towpath_mirror_lag_records{mirror="us-to-eu",topic="shop",partition="3"} 10"#,
            r#"towpath_mirror_behind_seconds{mirror="us-to-eu",topic="shop",partition="3"} 1.5"#,
            r#"towpath_mirror_stopped{mirror="us-to-eu",topic="shop",partition="3"} 0"#,
            r#"towpath_mirror_group_twice_records{mirror="us-to-eu",group="a\"b"} 4"#,
            r#"towpath_mirror_group_unmirrored_records{mirror="us-to-eu",group="a\"b"} 10"#,
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected}: {text}");
        }
        assert!(!text.contains("lag_bytes{"), "{text}");
    }
}
