//! Declared options against a tree: every problem with its place, and the values in normal form.

use serde_json::{Map, Value as Json};
use towpath_api::config::Choice;
use towpath_api::{ConfigSpec, OptionSpec, OptionType, RawConfig};

use super::problem::Problem;
use super::secrets::Secrets;
use super::suggest::nearest;
use super::tree::{Key, Node, Value};

/// Checks the map `node` against `spec`; keys in `besides` are somebody else's (`type`).
///
/// Returns the values in the normal form of [`RawConfig`], as far as they are right: connectors are only asked to
/// parse them when no problem was found.
pub fn validate(
    node: &Node,
    spec: &ConfigSpec,
    besides: &[&str],
    secrets: &Secrets,
    problems: &mut Vec<Problem>,
) -> RawConfig {
    RawConfig::new(Validator { secrets, problems }.object(node, spec, besides))
}

struct Validator<'a> {
    secrets: &'a Secrets,
    problems: &'a mut Vec<Problem>,
}

impl Validator<'_> {
    fn object(&mut self, node: &Node, spec: &ConfigSpec, besides: &[&str]) -> Map<String, Json> {
        let mut values = Map::new();
        if !matches!(node.value, Value::Map(_) | Value::Null) {
            self.mismatch::<()>(node, "a map of options");
            return values;
        }
        for (key, value) in node.entries() {
            match spec.get(&key.name) {
                Some(option) => {
                    if let Some(json) = self.option(value, option) {
                        values.insert(option.name.clone(), json);
                    }
                }
                None if besides.contains(&key.name.as_str()) => {}
                None => self.problems.push(unknown_key(key, spec, besides)),
            }
        }
        for option in &spec.options {
            if node.get(&option.name).is_some() {
                continue;
            }
            match &option.default {
                Some(default) => {
                    values.insert(option.name.clone(), default.clone());
                }
                None if option.required => {
                    let problem = Problem::new(
                        "CONFIG_MISSING",
                        node.place.clone(),
                        format!("`{}` is missing", option.name),
                    );
                    self.problems.push(problem.with_hint(format!("add `{}:` ({})", option.name, option.doc)));
                }
                None => {}
            }
        }
        values
    }

    fn option(&mut self, node: &Node, option: &OptionSpec) -> Option<Json> {
        if matches!(node.value, Value::Null) && !matches!(option.ty, OptionType::Scalar | OptionType::Any) {
            if option.required {
                let message = format!("`{}` has no value", option.name);
                self.problems.push(
                    Problem::new("CONFIG_MISSING", node.place.clone(), message).with_hint(&*option.doc),
                );
            }
            return option.default.clone();
        }
        match (&option.ty, node.as_str()) {
            // Of a database's URL the password is the secret; a web hook's may be one as a whole.
            (OptionType::Url { schemes }, Some(text)) if !schemes.iter().any(|it| it.starts_with("http")) => {
                self.secrets.add_url(text);
            }
            _ if option.secret => node.for_each_text(&mut |_, text| self.secrets.add(text)),
            _ => {}
        }
        self.value(node, &option.ty)
    }

    fn value(&mut self, node: &Node, ty: &OptionType) -> Option<Json> {
        if matches!(node.value, Value::Unresolved) {
            return None;
        }
        match ty {
            OptionType::Bool => match node.value {
                Value::Bool(value) => Some(Json::Bool(value)),
                _ => self.mismatch(node, "`true` or `false`"),
            },
            OptionType::Int { min, max } => self.int(node, *min, *max),
            OptionType::String => self.text(node).map(Json::String),
            OptionType::Path => {
                let text = self.text(node)?;
                // It is meant from the directory where towpath was started, which is put before it again.
                let short = text.strip_prefix("./").filter(|rest| !rest.is_empty()).map(str::to_owned);
                Some(Json::String(short.unwrap_or(text)))
            }
            OptionType::NonEmptyString => {
                let text = self.text(node)?;
                if text.is_empty() {
                    self.mismatch(node, "text that is not empty")
                } else {
                    Some(Json::String(text))
                }
            }
            OptionType::Url { schemes } => self.url(node, schemes),
            OptionType::Duration => self.measured(
                node,
                "a span of time such as `500ms`, `10s`, `5m`, `2h`",
                &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
            ),
            OptionType::ByteSize => self.measured(
                node,
                "an amount such as `64KiB`, `16MiB`, `1GiB` or bytes",
                &[
                    ("", 1),
                    ("B", 1),
                    ("KiB", 1 << 10),
                    ("MiB", 1 << 20),
                    ("GiB", 1 << 30),
                    ("KB", 1_000),
                    ("MB", 1_000_000),
                    ("GB", 1_000_000_000),
                ],
            ),
            OptionType::Enum(choices) => self.choice(node, choices),
            OptionType::List(item) => self.list(node, item),
            OptionType::Map(item) => self.map(node, item),
            OptionType::Object(spec) => Some(Json::Object(self.object(node, spec, &[]))),
            OptionType::Scalar => match &node.value {
                Value::List(_) | Value::Map(_) => self.mismatch(node, "a single value"),
                _ => Some(to_json(node)),
            },
            OptionType::Any => Some(to_json(node)),
        }
    }

    fn choice(&mut self, node: &Node, choices: &[Choice]) -> Option<Json> {
        let words = || choices.iter().map(|choice| choice.name.as_str());
        let given = node.as_str();
        if let Some(word) = given.filter(|word| words().any(|choice| choice == *word)) {
            return Some(Json::String(word.to_owned()));
        }
        let all = words().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let mut problem = self.mismatch_problem(node, &format!("one of {all}"));
        if let Some(word) = given.and_then(|word| nearest(word, words())) {
            problem.hint = Some(format!("did you mean `{word}`?"));
        }
        self.problems.push(problem);
        None
    }

    fn list(&mut self, node: &Node, item: &OptionType) -> Option<Json> {
        let Value::List(items) = &node.value else {
            let problem =
                self.mismatch_problem(node, "a list").with_hint("write `[a, b]`, or one `- item` a line");
            self.problems.push(problem);
            return None;
        };
        // Every item is looked at, also behind a wrong one.
        let values: Vec<_> = items.iter().map(|node| self.value(node, item)).collect();
        values.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
    }

    fn map(&mut self, node: &Node, item: &OptionType) -> Option<Json> {
        let Value::Map(entries) = &node.value else { return self.mismatch(node, "a map") };
        let values: Vec<_> =
            entries.iter().map(|(key, node)| (key.name.clone(), self.value(node, item))).collect();
        values.into_iter().map(|(key, value)| Some((key, value?))).collect::<Option<_>>().map(Json::Object)
    }

    fn int(&mut self, node: &Node, min: i64, max: i64) -> Option<Json> {
        let number = match &node.value {
            Value::Int(number) => *number,
            // `${env:PORT}` is text after it is resolved.
            Value::String(text) if text.parse::<i64>().is_ok() => text.parse().ok()?,
            _ => return self.mismatch(node, "a whole number"),
        };
        if (min..=max).contains(&number) {
            return Some(Json::from(number));
        }
        let range = match (min, max) {
            (min, i64::MAX) => format!("at least {min}"),
            (i64::MIN, max) => format!("at most {max}"),
            (min, max) => format!("between {min} and {max}"),
        };
        let message = format!("{number} is out of range: it must be {range}");
        self.problems.push(Problem::new("CONFIG_RANGE", node.place.clone(), message));
        None
    }

    fn text(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            // `topic: 2024` is meant as text; YAML's own reading of it is nobody's wish.
            Value::Int(number) => Some(number.to_string()),
            _ => self.mismatch(node, "text"),
        }
    }

    fn url(&mut self, node: &Node, schemes: &[String]) -> Option<Json> {
        let text = self.text(node)?;
        self.secrets.add_url(&text);
        let known = text.split_once("://").filter(|(scheme, _)| schemes.iter().any(|known| known == scheme));
        let host = known.map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let problem = match (known, host) {
            (None, _) => {
                let forms =
                    schemes.iter().map(|scheme| format!("{scheme}://…")).collect::<Vec<_>>().join(" or ");
                format!("this is no URL of the right kind: {forms} is needed")
            }
            (Some((scheme, rest)), _) if scheme == "sqlite" && !rest.is_empty() => {
                return Some(Json::String(text));
            }
            (_, Some(host))
                if host.rsplit('@').next().is_none_or(|host| host.is_empty() || host.starts_with(':')) =>
            {
                "this URL has no host".to_owned()
            }
            (_, Some(host)) if bad_port(host) => "this URL's port is not a number from 1 to 65535".to_owned(),
            _ if text.contains(char::is_whitespace) => "a URL has no spaces in it".to_owned(),
            _ => return Some(Json::String(text)),
        };
        self.problems.push(
            Problem::new("CONFIG_URL", node.place.clone(), problem)
                .with_hint(format!("for example {}://user:password@host:port/name", schemes[0])),
        );
        None
    }

    fn measured(&mut self, node: &Node, expected: &str, units: &[(&str, i64)]) -> Option<Json> {
        let parsed = match &node.value {
            Value::Int(number) if units.iter().any(|(unit, _)| unit.is_empty()) => Some(*number),
            Value::Int(0) => Some(0),
            Value::String(text) => parse_measured(text, units),
            _ => None,
        };
        match parsed {
            Some(amount) if amount >= 0 => Some(Json::from(amount)),
            _ => self.mismatch(node, expected),
        }
    }

    fn mismatch_problem(&self, node: &Node, expected: &str) -> Problem {
        let shown = match &node.value {
            Value::String(text) => {
                format!("`{}`", self.secrets.redact(text).chars().take(80).collect::<String>())
            }
            other => other.kind().to_owned(),
        };
        Problem::new("CONFIG_TYPE", node.place.clone(), format!("{expected} is needed here, not {shown}"))
    }

    fn mismatch<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        let problem = self.mismatch_problem(node, expected);
        self.problems.push(problem);
        None
    }
}

fn bad_port(authority: &str) -> bool {
    let host = authority.rsplit('@').next().unwrap_or_default();
    let after_brackets = host.rsplit(']').next().unwrap_or_default();
    after_brackets.split_once(':').is_some_and(|(_, port)| !port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn parse_measured(text: &str, units: &[(&str, i64)]) -> Option<i64> {
    let text = text.trim();
    let digits =
        text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?.1;
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor);
    }
    let amount = number.parse::<f64>().ok()? * factor as f64;
    (amount.is_finite() && amount < 9e15).then_some(amount.round() as i64)
}

/// The problem of a key that nobody knows.
pub(crate) fn unknown_key(key: &Key, spec: &ConfigSpec, besides: &[&str]) -> Problem {
    let known = || spec.options.iter().map(|option| option.name.as_str()).chain(besides.iter().copied());
    let hint = nearest(&key.name, known()).map_or_else(
        || format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
        |word| format!("did you mean `{word}`?"),
    );
    Problem::new("CONFIG_UNKNOWN_KEY", key.place.clone(), format!("unknown key `{}`", key.name))
        .with_hint(hint)
}

/// A tree as plain JSON.
#[must_use]
pub(crate) fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::Null | Value::Unresolved => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
        Value::String(value) => Json::String(value.clone()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|(key, value)| (key.name.clone(), to_json(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tree::{self, SourceFile};
    use super::*;
    use serde_json::json;

    fn spec() -> ConfigSpec {
        ConfigSpec::new(vec![
            OptionSpec::required(
                "url",
                OptionType::url(&["postgres", "postgresql"]),
                "Where the database is.",
            ),
            OptionSpec::required("tables", OptionType::list(OptionType::NonEmptyString), "Which tables."),
            OptionSpec::with_default("tasks", OptionType::int(1, 64), json!(1), "How many."),
            OptionSpec::with_default("every", OptionType::Duration, json!(5000), "How often."),
            OptionSpec::optional("memory", OptionType::ByteSize, "How much."),
            OptionSpec::with_default(
                "mode",
                OptionType::choices(&[("upsert", "by key"), ("append", "all")]),
                json!("upsert"),
                "How.",
            ),
            OptionSpec::optional("password", OptionType::String, "The password.").secret(),
        ])
    }

    /// Line, column, message and hint.
    type Shown = (usize, usize, String, Option<String>);

    fn check(text: &str) -> (RawConfig, Vec<Shown>) {
        let file = Arc::new(SourceFile { path: "t.yaml".into(), text: text.to_owned() });
        let mut problems = Vec::new();
        let root = tree::parse(&file, &mut problems).unwrap();
        let config = validate(&root, &spec(), &["type"], &Secrets::default(), &mut problems);
        let shown = problems
            .into_iter()
            .map(|problem| {
                let (line, column) = problem.place.as_ref().unwrap().line_and_column();
                (line, column, problem.message, problem.hint)
            })
            .collect();
        (config, shown)
    }

    #[test]
    fn right_options_come_out_in_normal_form() {
        let (config, problems) =
            check("type: x\nurl: postgres://u:p@h:5432/db\ntables: [a, b]\nevery: 1.5m\nmemory: 2MiB\n");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(config.int("every"), Some(90_000));
        assert_eq!(config.int("memory"), Some(2 << 20));
        assert_eq!(config.strings("tables"), ["a", "b"]);
        assert_eq!((config.int("tasks"), config.str("mode")), (Some(1), "upsert"));
    }

    #[test]
    fn all_problems_come_at_once_with_place_and_hint() {
        let (_, problems) = check("urll: x\ntables: a\ntasks: 65\nevery: soon\nmode: upsrt\nmemory: -1\n");
        let at: Vec<_> = problems.iter().map(|(line, column, ..)| (*line, *column)).collect();
        assert_eq!(at, [(1, 1), (2, 9), (3, 8), (4, 8), (5, 7), (6, 9), (1, 1)]);
        assert_eq!(problems[0].3.as_deref(), Some("did you mean `url`?"));
        assert_eq!(problems[4].3.as_deref(), Some("did you mean `upsert`?"));
        assert!(problems[6].2.contains("`url` is missing"));
    }

    #[test]
    fn urls_are_looked_at() {
        for (url, complaint) in [
            ("mysql://h/db", "right kind"),
            ("postgres://", "no host"),
            ("postgres://u:p@:5432/db", "no host"),
            ("postgres://h:99999/db", "port"),
            ("postgres://h:abc/db", "port"),
        ] {
            let (_, problems) = check(&format!("url: {url}\ntables: []\n"));
            assert!(problems[0].2.contains(complaint), "{url}: {problems:?}");
        }
        for url in ["postgres://h/db", "postgresql://u:p@[::1]:5432/db?sslmode=require"] {
            assert!(check(&format!("url: \"{url}\"\ntables: []\n")).1.is_empty(), "{url}");
        }
    }

    #[test]
    fn a_secret_is_not_quoted_in_a_problem() {
        let (_, problems) = check("url: postgres://h/db\ntables: []\npassword: [hunter2]\nmode: hunter2\n");
        assert!(problems.iter().any(|(.., message, _)| message.contains("text is needed")));
    }
}
