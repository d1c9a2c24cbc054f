//! What a plugin says of itself, as a descriptor like any built-in's.

use towpath_api::config::Choice;
use towpath_api::{
    ConfigProblem, ConfigSpec, ConnectorKind, Descriptor, Guarantee, OptionSpec, OptionType, Redactor,
    conformance,
};
use towpath_types::limits::PLUGIN_TEXT_BYTES_MAX;

use super::bindings::towpath::plugin::types;
use super::error::{PluginError, cut};

/// Options of one plugin, words of one choice, and schemes of one URL.
const OPTIONS_MAX: usize = 256;
/// Problems that a plugin finds with its options, of which the rest is left out.
pub(crate) const PROBLEMS_MAX: usize = 100;
/// Options that Towpath keeps for itself.
const RESERVED: [&str; 1] = ["type"];

fn text(text: &str) -> String {
    cut(text, PLUGIN_TEXT_BYTES_MAX).to_owned()
}

fn element(element: types::Element) -> OptionType {
    match element {
        types::Element::Boolean => OptionType::Bool,
        types::Element::Integer(bounds) => OptionType::int(bounds.min, bounds.max),
        types::Element::Text => OptionType::String,
        types::Element::NonEmptyText => OptionType::NonEmptyString,
        types::Element::Url(schemes) => {
            OptionType::Url { schemes: schemes.iter().map(|scheme| text(scheme)).collect() }
        }
        types::Element::Path => OptionType::Path,
        types::Element::Duration => OptionType::Duration,
        types::Element::ByteSize => OptionType::ByteSize,
        types::Element::OneOf(choices) => {
            let choice = |it: types::Choice| Choice { name: text(&it.name), doc: text(&it.doc) };
            OptionType::Enum(choices.into_iter().map(choice).collect())
        }
        types::Element::Scalar => OptionType::Scalar,
        types::Element::Any => OptionType::Any,
    }
}

fn option(option: types::OptionSpec) -> Result<OptionSpec, PluginError> {
    let refused = |why: String| PluginError::Description(format!("option `{}`: {why}", text(&option.name)));
    if option.name.is_empty() || option.name.len() > 100 || RESERVED.contains(&option.name.as_str()) {
        return Err(refused("an option cannot have this name".to_owned()));
    }
    if option.default.as_ref().is_some_and(|default| default.len() > PLUGIN_TEXT_BYTES_MAX) {
        return Err(refused(format!("its default has more than {PLUGIN_TEXT_BYTES_MAX} bytes")));
    }
    let words = match &option.element {
        types::Element::OneOf(choices) => choices.len(),
        types::Element::Url(schemes) => schemes.len(),
        _ => 0,
    };
    if words > OPTIONS_MAX {
        return Err(refused(format!("{words} words to choose from; {OPTIONS_MAX} are the most")));
    }
    let default = option.default.as_deref().map(serde_json::from_str).transpose();
    let default = default.map_err(|error| refused(format!("its default is no JSON: {error}")))?;
    let ty = element(option.element);
    if matches!(&ty, OptionType::Url { schemes } if schemes.is_empty()) {
        return Err(PluginError::Description(format!("option `{}`: no URL would do", text(&option.name))));
    }
    let ty = match option.shape {
        types::Shape::One => ty,
        types::Shape::Many => OptionType::list(ty),
        types::Shape::ByKey => OptionType::map(ty),
    };
    let (name, doc) = (option.name, text(&option.doc));
    Ok(OptionSpec { name, doc, ty, required: option.required, default, secret: option.secret })
}

/// What a plugin says of one of the types that it brings.
pub(crate) struct Said {
    pub(crate) kind: ConnectorKind,
    pub(crate) description: types::Description,
    pub(crate) options: Vec<types::OptionSpec>,
    pub(crate) guarantee: Option<types::Guarantee>,
}

/// The descriptor of a type that the user calls `name`.
pub(crate) fn descriptor(name: &str, said: Said) -> Result<Descriptor, PluginError> {
    let Said { kind, description: said, options: spec, guarantee } = said;
    if spec.len() > OPTIONS_MAX {
        return Err(PluginError::Description(format!("{} options; {OPTIONS_MAX} are the most", spec.len())));
    }
    let descriptor = Descriptor {
        name: name.to_owned(),
        kind,
        version: text(&said.version),
        summary: text(&said.summary),
        guarantee: guarantee.map(|guarantee| match guarantee {
            types::Guarantee::AtLeastOnce => Guarantee::AtLeastOnce,
            types::Guarantee::ExactlyOnce => Guarantee::ExactlyOnce,
        }),
        options: ConfigSpec::new(spec.into_iter().map(option).collect::<Result<_, _>>()?),
    };
    conformance::descriptor(&descriptor)
        .map_err(|violation| PluginError::Description(violation.to_string()))?;
    Ok(descriptor)
}

/// What the plugin finds wrong with its options (R13: without its secrets).
pub(crate) fn problem(said: &types::Problem, redactor: &Redactor) -> ConfigProblem {
    let clean = |it: &str| text(&redactor.redact(it));
    ConfigProblem {
        path: clean(&said.path),
        message: clean(&said.message),
        hint: said.hint.as_deref().map(clean),
        code: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(options: Vec<types::OptionSpec>) -> Said {
        let (name, version) = ("x".to_owned(), "1".to_owned());
        let description = types::Description { name, version, summary: "Does it.".to_owned() };
        Said { kind: ConnectorKind::Transform, description, options, guarantee: None }
    }

    fn spec(name: &str, default: Option<&str>) -> types::OptionSpec {
        types::OptionSpec {
            name: name.to_owned(),
            doc: "What it does.".to_owned(),
            shape: types::Shape::Many,
            element: types::Element::Integer(types::Bounds { min: 0, max: 9 }),
            required: false,
            default: default.map(str::to_owned),
            secret: false,
        }
    }

    #[test]
    fn options_are_like_those_of_a_built_in() {
        let descriptor = descriptor("mine", said(vec![spec("counts", Some("[1, 2]"))])).unwrap();
        assert_eq!(descriptor.name, "mine");
        assert_eq!(descriptor.options.options[0].ty, OptionType::list(OptionType::int(0, 9)));
    }

    #[test]
    fn impossible_options_are_refused() {
        let word = types::Choice { name: "w".to_owned(), doc: "A word.".to_owned() };
        let element = types::Element::OneOf(vec![word; OPTIONS_MAX + 1]);
        let many_words = types::OptionSpec { element, ..spec("a", None) };
        for (options, expected) in [
            (vec![spec("type", None)], "cannot have this name"),
            (vec![spec("a", Some("[1, "))], "no JSON"),
            (vec![spec("a", Some("[10]"))], "does not fit its type"),
            (vec![spec("a", None), spec("a", None)], "there twice"),
            (vec![spec("a", None); OPTIONS_MAX + 1], "are the most"),
            (vec![spec("a", Some(&" ".repeat(PLUGIN_TEXT_BYTES_MAX + 1)))], "more than 4096 bytes"),
            (vec![many_words], "257 words"),
        ] {
            let error = descriptor("mine", said(options)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
