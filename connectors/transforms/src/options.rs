//! What all transforms share in their options.

use serde_json::Value as Json;
use towpath_api::{
    ConfigProblem, ConfigSpec, ConnectorKind, Descriptor, EventSchema, OptionSpec, OptionType, RawConfig,
    Type,
};

/// The descriptor of a transform; every one of them has `only`.
pub(crate) fn descriptor(name: &str, summary: &str, mut options: Vec<OptionSpec>) -> Descriptor {
    options.push(OptionSpec::optional(
        "only",
        OptionType::list(OptionType::NonEmptyString),
        "The tables or streams to which this applies, by the names of their schemas (`public.orders`); `*` stands \
         for any run of characters, `?` for one. Records of all others pass as they are. Without it: all.",
    ));
    Descriptor {
        name: name.to_owned(),
        kind: ConnectorKind::Transform,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        summary: summary.to_owned(),
        guarantee: None,
        options: ConfigSpec::new(options),
    }
}

/// `only`: which schemas a transform applies to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Only(Option<Vec<String>>);

impl Only {
    pub(crate) fn of(config: &RawConfig) -> Self {
        Self(config.values().contains_key("only").then(|| config.strings("only")))
    }

    pub(crate) fn matches(&self, schema: &EventSchema) -> bool {
        let name = schema.name().as_bytes();
        self.0.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| glob(pattern.as_bytes(), name)))
    }
}

/// `*` and `?`, without recursion.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(byte), _) if *byte == b'?' || *byte == text[t] => {
                p += 1;
                t += 1;
            }
            (_, Some((at, tried))) => {
                star = Some((at, tried + 1));
                (p, t) = (at + 1, tried + 1);
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// A constant out of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl Constant {
    /// Reads a scalar.
    pub(crate) fn of(json: &Json) -> Option<Self> {
        Some(match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::Float(value),
                (None, None) => return None,
            },
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(_) | Json::Object(_) => return None,
        })
    }

    /// The type of a field that holds nothing else.
    pub(crate) const fn natural_type(&self) -> Type {
        match self {
            Self::Null | Self::Text(_) => Type::String,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int64,
            Self::Float(_) => Type::Float64,
        }
    }
}

/// The fields named by a list option: at least one, none twice.
pub(crate) fn field_list(config: &RawConfig, name: &str, problems: &mut Vec<ConfigProblem>) -> Vec<String> {
    let fields = config.strings(name);
    if fields.is_empty() {
        problems.push(ConfigProblem::new(name, "at least one field is needed"));
    }
    for (index, field) in fields.iter().enumerate() {
        if fields[..index].contains(field) {
            problems
                .push(ConfigProblem::new(format!("{name}[{index}]"), format!("`{field}` stands here twice")));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match() {
        for (pattern, name, expected) in [
            ("public.*", "public.orders", true),
            ("*.orders", "public.orders", true),
            ("public.order?", "public.orders", true),
            ("public.order?", "public.order", false),
            ("*", "", true),
            ("", "x", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("Grüße*", "Grüße an alle", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
