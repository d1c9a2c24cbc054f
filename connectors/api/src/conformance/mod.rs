//! The contract suite: what every source, sink and transform must do, built in or WASM, checked over the real thing.
//!
//! A connector's tests implement [`SourceWorld`] or [`SinkWorld`] — how to make something happen upstream, what the
//! target holds — and call [`source()`] or [`sink()`]. The suite plays the runtime, crashes included. A transform needs
//! no world: [`transform()`] gives it records of every kind. Where nobody knows the world, but for the options of the
//! connector that point to it, [`source_as_given`] and [`sink_as_given`] judge what can be judged, and say what cannot.

mod given;
mod sink;
mod source;
mod transform;

pub use given::{Report, sink_as_given, source_as_given};
pub use sink::{SinkWorld, sink};
pub use source::{SourceWorld, source};
#[cfg(test)]
pub(crate) use transform::content;
pub use transform::{records, transform};

use super::config::{ConfigSpec, Descriptor, OptionType};
use super::error::ConnectorError;

/// A broken clause of the contract.
#[derive(Debug, thiserror::Error)]
#[error("{clause}: {what}")]
pub struct Violation {
    /// The clause.
    pub clause: &'static str,
    /// What happened.
    pub what: String,
}

impl Violation {
    fn new(clause: &'static str, what: impl Into<String>) -> Self {
        Self { clause, what: what.into() }
    }

    fn failed(clause: &'static str) -> impl FnOnce(ConnectorError) -> Self {
        move |error| Self::new(clause, format!("the connector failed: {error}"))
    }
}

fn ensure(clause: &'static str, holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::new(clause, what())) }
}

/// Checks what a connector type says of itself: documentation everywhere, no contradictions.
///
/// # Errors
/// The first [`Violation`].
pub fn descriptor(descriptor: &Descriptor) -> Result<(), Violation> {
    const CLAUSE: &str = "a descriptor is complete";
    let text =
        |what: &str, text: &str| ensure(CLAUSE, !text.trim().is_empty(), || format!("{what} is empty"));
    text("name", &descriptor.name)?;
    text("version", &descriptor.version)?;
    text("summary", &descriptor.summary)?;
    options(&descriptor.name, &descriptor.options)
}

fn options(path: &str, spec: &ConfigSpec) -> Result<(), Violation> {
    const CLAUSE: &str = "options are documented and do not contradict themselves";
    let mut names = std::collections::BTreeSet::new();
    for option in &spec.options {
        let path = format!("{path}.{}", option.name);
        ensure(CLAUSE, names.insert(&option.name), || format!("{path} is there twice"))?;
        ensure(CLAUSE, !option.doc.trim().is_empty(), || format!("{path} has no doc"))?;
        ensure(CLAUSE, !(option.required && option.default.is_some()), || {
            format!("{path} is required and has a default")
        })?;
        if let Some(default) = &option.default {
            ensure(CLAUSE, fits(&option.ty, default), || {
                format!("the default of {path} does not fit its type")
            })?;
        }
        nested(&path, &option.ty)?;
    }
    Ok(())
}

fn nested(path: &str, ty: &OptionType) -> Result<(), Violation> {
    match ty {
        OptionType::Object(spec) => options(path, spec),
        OptionType::List(inner) | OptionType::Map(inner) => nested(path, inner),
        _ => Ok(()),
    }
}

fn fits(ty: &OptionType, value: &serde_json::Value) -> bool {
    match ty {
        OptionType::Bool => value.is_boolean(),
        OptionType::Int { min, max } => value.as_i64().is_some_and(|value| (*min..=*max).contains(&value)),
        OptionType::String | OptionType::Path | OptionType::Url { .. } => value.is_string(),
        OptionType::NonEmptyString => value.as_str().is_some_and(|text| !text.is_empty()),
        OptionType::Duration | OptionType::ByteSize => value.is_u64(),
        OptionType::Enum(choices) => choices.iter().any(|choice| value.as_str() == Some(&choice.name)),
        OptionType::List(inner) => {
            value.as_array().is_some_and(|items| items.iter().all(|item| fits(inner, item)))
        }
        OptionType::Map(inner) => {
            value.as_object().is_some_and(|map| map.values().all(|item| fits(inner, item)))
        }
        OptionType::Object(_) => value.is_object(),
        OptionType::Scalar => !value.is_array() && !value.is_object(),
        OptionType::Any => true,
    }
}

#[cfg(test)]
mod tests;
