//! Subscriptions by regular expression: checked when a member brings one, resolved beside the hot path, and again when topics
//! may have changed. All expressions of a group are resolved together, so that one rebalance takes them all in.

use std::collections::BTreeSet;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use towpath_types::limits;
use towpath_wire::ErrorCode;

use super::member::ConsumerMember;
use super::{ConsumerGroup, Context, Refusal, ResolvedRegex};
use crate::machine::turn::Turn;
use crate::machine::{Command, GroupMachine, Now};
use crate::topics::Topics;

/// Bytes of what one expression matches: it goes into one record, which has to fit into a batch of the offsets topic.
const RECORD_BYTES_MAX: usize = 512 * 1024;

/// The least time between two resolutions within a group.
const REFRESH_MS_MIN: i64 = 10_000;
/// R10: bytes of a compiled expression. Matching is linear in the name, whatever the expression is.
const COMPILED_BYTES_MAX: usize = 256 * 1024;

/// What the expressions of a group match among the topics of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedRegexes {
    version: i64,
    topics: Vec<(String, BTreeSet<String>)>,
}

/// What a member has changed about its regular expression.
#[derive(Debug, Default)]
pub(super) struct RegexChange {
    pub(super) has_changed: bool,
    /// Nobody else in the group has it.
    pub(super) is_new: bool,
    /// What the member subscribes to now is known.
    pub(super) is_resolved: bool,
}

/// An expression that has to match the whole name, as RE2/J's `matches` does.
fn compile(expression: &str) -> Result<Regex, String> {
    let build = |pattern: &str| {
        RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).build()
    };
    // By itself first: one that is only right within the brackets is not right.
    build(expression)
        .and_then(|_| build(&format!(r"\A(?:{expression})\z")))
        .map_err(|error| error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Resolves the expressions of [`Command::ResolveRegexes`]. It may take a while: do it where nothing waits for it.
#[must_use]
pub fn resolve_regexes(expressions: &[String], topics: &dyn Topics) -> ResolvedRegexes {
    let names = topics.names();
    let resolve = |expression: &String| {
        // It was checked when it came; one of another version that is not understood matches nothing.
        let matching = compile(expression).map(|regex| {
            names.iter().filter(|name| regex.is_match(name)).map(|name| (**name).to_owned()).collect()
        });
        (expression.clone(), matching.unwrap_or_default())
    };
    ResolvedRegexes { version: topics.epoch(), topics: expressions.iter().map(resolve).collect() }
}

impl GroupMachine {
    /// Takes what [`resolve_regexes`] found for a group; nothing, when it failed.
    pub fn regexes_resolved(
        &mut self,
        now: Now,
        group: &str,
        resolved: ResolvedRegexes,
        out: &mut Vec<Command>,
    ) {
        self.turn(group, now, out, |turn| turn.take_regexes(resolved));
    }
}

impl Turn<'_> {
    pub(super) fn ask_to_resolve(&mut self, expressions: Vec<String>) {
        if !expressions.is_empty() {
            let group = Arc::clone(&self.group.id);
            self.out.push(Command::ResolveRegexes { group, expressions });
        }
    }

    fn take_regexes(&mut self, resolved: ResolvedRegexes) {
        let context = Context {
            group: &Arc::clone(&self.group.id),
            config: &self.shared.config,
            topics: &*Arc::clone(&self.shared.topics),
            now: self.now,
            room: self.shared.room(),
        };
        let Some(consumer) = self.group.consumer_mut() else { return };
        consumer.take_regexes(resolved, &context);
        self.store(None);
    }
}

impl ConsumerGroup {
    /// Looks at a member's regular expression before anything is changed.
    pub(super) fn check_regex(
        &self,
        old: &ConsumerMember,
        new: &ConsumerMember,
    ) -> Result<RegexChange, Refusal> {
        if old.regex() == new.regex() {
            return Ok(RegexChange::default());
        }
        let mut change = RegexChange { has_changed: true, ..RegexChange::default() };
        match new.regex() {
            Some(regex) if self.subscribers_of_regex(regex) > 0 => {
                change.is_resolved = self.regexes.contains_key(regex);
            }
            Some(regex) => {
                self.admit_regex(regex)?;
                change.is_new = true;
            }
            None => change.is_resolved = true,
        }
        Ok(change)
    }

    fn admit_regex(&self, regex: &str) -> Result<(), Refusal> {
        let invalid = |reason: &str| {
            let shown: String = regex.chars().take(256).collect();
            let message =
                format!("SubscribedTopicRegex `{shown}` is not a valid regular expression: {reason}.");
            Err(Refusal::new(ErrorCode::InvalidRegularExpression, message))
        };
        if regex.len() > limits::GROUP_REGEX_BYTES_MAX {
            return invalid("it is too long");
        }
        if self.subscribed_regexes().len() >= limits::GROUP_REGEXES_MAX {
            let message = "The consumer group has too many regular expressions.";
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        compile(regex).map(|_| ()).or_else(|reason| invalid(&reason))
    }

    fn subscribed_regexes(&self) -> BTreeSet<&str> {
        self.members.values().filter_map(ConsumerMember::regex).collect()
    }

    /// The expressions that have to be resolved now, if it is time.
    pub(super) fn regexes_to_resolve(&mut self, is_new: bool, context: &Context<'_>) -> Vec<String> {
        let subscribed = self.subscribed_regexes();
        if subscribed.is_empty() || self.is_resolving {
            return Vec::new();
        }
        let last_ms = self.regexes.values().map(|resolved| resolved.at_ms).max();
        // A clock that was set back does not stop the refreshing.
        let since_ms = last_ms.map(|last_ms| context.now.wall_ms.saturating_sub(last_ms));
        if since_ms.is_some_and(|since_ms| (0..=REFRESH_MS_MIN).contains(&since_ms)) {
            return Vec::new();
        }
        let is_due = is_new
            || subscribed.iter().any(|regex| !self.regexes.contains_key(*regex))
            || self.regexes.values().any(|resolved| resolved.version != context.topics.epoch())
            || since_ms.is_some_and(|since_ms| since_ms > context.config.consumer_regex_refresh_interval_ms);
        if !is_due {
            return Vec::new();
        }
        let expressions = subscribed.into_iter().map(str::to_owned).collect();
        self.is_resolving = true;
        expressions
    }

    fn take_regexes(&mut self, resolved: ResolvedRegexes, context: &Context<'_>) {
        self.is_resolving = false;
        let mut has_changed = false;
        for (regex, topics) in resolved.topics {
            if self.subscribers_of_regex(&regex) == 0 {
                continue;
            }
            let old = self.regexes.get(&regex);
            let resolved = ResolvedRegex { topics, version: resolved.version, at_ms: context.now.wall_ms };
            // R10: what does not fit is left as it was.
            let added = resolved.size_in_bytes().saturating_sub(old.map_or(0, ResolvedRegex::size_in_bytes));
            let has_no_room =
                self.size_in_bytes() + added > context.config.group_bytes_max || added > context.room;
            if has_no_room || resolved.size_in_bytes() > RECORD_BYTES_MAX {
                tracing::warn!(regex, "the topics that a regular expression matches take too much room");
                continue;
            }
            has_changed |= old.is_none_or(|old| old.topics != resolved.topics);
            self.put_regex(&regex, resolved);
        }
        if has_changed {
            self.refresh_metadata(true, context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_whole_names() {
        let is_match = |expression: &str, name: &str| compile(expression).unwrap().is_match(name);
        assert!(is_match("a|ab", "ab"), "not only the first branch that matches a part");
        assert!(is_match("foo.*", "foobar") && !is_match("foo", "foobar") && !is_match("bar", "foobar"));
        assert!(is_match("(?i)ORDERS-[0-9]+", "orders-12"));
        assert!(is_match("^orders$", "orders"));
        for bad in ["(", "a)(b", "[", "*", r"(?=x)y", r"(a)\1"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
        assert!(compile("(a{1000}){1000}").is_err(), "too large when compiled");
    }
}
