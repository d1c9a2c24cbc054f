//! What pipelines say of each other's topics: a part of a name that is not there, a pattern that nobody writes to.

use std::collections::BTreeMap;

use towpath_api::pipeline::PipelineSpec;

use super::problem::Problem;
use super::suggest::nearest;
use super::tree::{Key, Node, Value};

/// Checks pipelines against each other.
pub(crate) fn check(
    pipelines: &[PipelineSpec],
    nodes: &BTreeMap<String, (Key, Node)>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    // What a `route` transform makes of topics cannot be known here.
    let routes =
        pipelines.iter().any(|it| it.source.is_some() && it.transforms.iter().any(|it| it.kind == "route"));
    let mut written: Vec<_> = pipelines
        .iter()
        .filter_map(|it| it.topic.as_ref())
        .map(|topic| topic.pattern().as_str().to_owned())
        .collect();
    if !written.is_empty() {
        written.extend(
            pipelines.iter().filter_map(|it| it.dead_letter.topic.as_ref()).map(|it| it.as_str().to_owned()),
        );
    }
    for (_, node) in nodes.values() {
        check_parts(node, problems);
        if !written.is_empty() && !routes {
            check_readers(node, &written, warnings);
        }
    }
}

/// `{topic.N}` in a sink's options, where the names of its topics are known to have fewer parts. What a variable of a
/// template stands for is one part, whatever it is.
fn check_parts(pipeline: &Node, problems: &mut Vec<Problem>) {
    let mut topics = Vec::new();
    match (pipeline.get("topics"), pipeline.get("topic")) {
        (Some(Node { value: Value::List(items), .. }), _) => {
            topics.extend(items.iter().filter_map(Node::as_str).filter(|topic| !topic.contains(['*', '?'])));
        }
        (None, Some(topic)) => topics.extend(topic.as_str()),
        _ => {}
    }
    let Some(sink) = pipeline.get("sink") else { return };
    sink.for_each_text(&mut |node, text| {
        for wanted in parts(text) {
            let Some(topic) = topics.iter().find(|topic| topic.split('.').count() <= wanted) else {
                continue;
            };
            let count = topic.split('.').count();
            let noun = if count == 1 { "part" } else { "parts" };
            let message =
                format!("`{{topic.{wanted}}}` does not exist: `{topic}` has {count} {noun}, counted from 0");
            let last = count.saturating_sub(1);
            let problem = Problem::new("CONFIG_TEMPLATE", node.place.clone(), message);
            problems.push(
                problem.with_hint(format!("`{{topic.{last}}}` is its last part, `{{topic}}` all of it")),
            );
        }
    });
}

/// The `N` of every `{topic.N}`.
fn parts(text: &str) -> impl Iterator<Item = usize> {
    text.match_indices("{topic.").filter_map(|(at, opening)| {
        let (number, _) = text[at + opening.len()..].split_once('}')?;
        number.parse().ok()
    })
}

/// Entries of `topics:` to which nothing in these files writes. Others may, so it is no more than a warning.
fn check_readers(pipeline: &Node, written: &[String], warnings: &mut Vec<Problem>) {
    let Some(Value::List(items)) = pipeline.get("topics").map(|topics| &topics.value) else { return };
    for item in items {
        let Some(text) = item.as_str() else { continue };
        if text.ends_with(".dead-letter")
            || written.iter().any(|topic| may_meet(text.as_bytes(), topic.as_bytes()))
        {
            continue;
        }
        let message = format!("no pipeline in these files writes to `{text}`");
        let hint = match nearest(text, written.iter().map(String::as_str)) {
            Some(topic) => format!("did you mean `{topic}`?"),
            None => format!(
                "that is right if another application does; these files write to {}",
                written.join(", ")
            ),
        };
        warnings.push(
            Problem::new("CONFIG_NOBODY_WRITES", item.place.clone(), message).with_hint(hint).warning(),
        );
    }
}

/// Whether some name matches both patterns (`*` any run of characters, `?` one).
fn may_meet(a: &[u8], b: &[u8]) -> bool {
    // reach[j]: whether the part of `a` seen so far can stand for the first j bytes of `b`.
    let mut reach = vec![false; b.len() + 1];
    reach[0] = true;
    for j in 0..b.len() {
        reach[j + 1] = reach[j] && b[j] == b'*';
    }
    for &byte in a {
        let mut next = vec![false; b.len() + 1];
        next[0] = reach[0] && byte == b'*';
        for j in 0..b.len() {
            let same = byte == b[j] || byte == b'?' || b[j] == b'?';
            next[j + 1] = match (byte, b[j]) {
                (b'*', _) => reach[j + 1] || next[j],
                (_, b'*') => next[j] || reach[j + 1],
                _ => reach[j] && same,
            };
            // A star may also stand for nothing, or for what the other star stands for.
            if byte == b'*' || b[j] == b'*' {
                next[j + 1] |= reach[j];
            }
        }
        reach = next;
    }
    reach[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_meet_where_one_name_matches_both() {
        for (a, b, meet) in [
            ("shop.public.*", "shop.*.*", true),
            ("shop.pulic.*", "shop.public.*", false),
            ("orders", "orders", true),
            ("orders", "order?", true),
            ("orders", "order", false),
            ("*", "a.b", true),
            ("a*c", "*b*", true),
            ("a*", "b*", false),
            ("?", "*", true),
            ("a", "*a*", true),
            ("ab", "a*c", false),
            ("*.x", "shop.*", true),
        ] {
            assert_eq!(may_meet(a.as_bytes(), b.as_bytes()), meet, "{a} {b}");
            assert_eq!(may_meet(b.as_bytes(), a.as_bytes()), meet, "{b} {a}");
        }
    }

    #[test]
    fn parts_are_found_in_templates() {
        assert_eq!(parts("x.{topic.2}-{topic}-{topic.10}{topic.x}").collect::<Vec<_>>(), [2, 10]);
    }
}
