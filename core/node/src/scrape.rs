//! The metrics that are read when somebody asks: partitions, memory, the process itself.

use std::fmt::{Display, Write as _};

use towpath_broker::Broker;
use towpath_telemetry::names;

/// Kernel clock ticks a second: what `/proc` counts in, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// In Prometheus' text format, to stand behind what the recorder renders.
pub(crate) fn render(broker: Option<&Broker>) -> String {
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
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing into a string cannot fail, here and below.
    let _ = writeln!(text, "\n# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Label values here are versions and topics: nothing in them needs to be escaped.
fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
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
        let text = render(None);
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "towpath_build_info{version=",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
        }
    }
}
