//! `towpath connectors`

use serde_json::json;
use towpath_api::{ConfigSpec, ConnectorKind, Descriptor, OptionType};

use crate::cli::Connectors;
use crate::failure::Failure;
use crate::output::{Listing, print_json, print_line};
use crate::registry::built_in;

pub(super) fn run(command: &Connectors, json: bool) -> Result<(), Failure> {
    let Connectors::Types { types } = command;
    let registry = built_in();
    let kinds = [ConnectorKind::Source, ConnectorKind::Transform, ConnectorKind::Sink];
    let all: Vec<_> = kinds.into_iter().flat_map(|kind| registry.descriptors(kind)).collect();
    let wanted = |descriptor: &&&Descriptor| types.is_empty() || types.contains(&descriptor.name);
    if let Some(unknown) = types.iter().find(|name| !all.iter().any(|descriptor| &descriptor.name == *name)) {
        let names = all.iter().map(|descriptor| descriptor.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::new(format!("there is no connector type `{unknown}`"))
            .with_hint(format!("there are: {names}")));
    }
    let chosen: Vec<_> = all.iter().filter(wanted).collect();
    if json {
        return print_json(&json!(chosen));
    }
    if types.is_empty() {
        let mut listing = Listing::new(&[
            ("TYPE", "type"),
            ("KIND", "kind"),
            ("GUARANTEE", "guarantee"),
            ("SUMMARY", "summary"),
        ]);
        for descriptor in &chosen {
            let guarantee = descriptor.guarantee.map(towpath_api::Guarantee::name);
            listing.row(vec![
                json!(descriptor.name),
                json!(kind_name(descriptor.kind)),
                json!(guarantee),
                json!(descriptor.summary),
            ]);
        }
        listing.print(false)?;
    }
    for descriptor in chosen {
        print_line("")?;
        print_line(&format!("{} ({}): {}", descriptor.name, kind_name(descriptor.kind), descriptor.summary))?;
        options_listing(&descriptor.options).print(false)?;
    }
    Ok(())
}

/// Options for people.
pub(super) fn options_listing(spec: &ConfigSpec) -> Listing {
    let mut listing = Listing::new(&[
        ("  OPTION", "option"),
        ("TAKES", "takes"),
        ("DEFAULT", "default"),
        ("WHAT IT DOES", "doc"),
    ]);
    add_options(&mut listing, "  ", spec);
    listing
}

const fn kind_name(kind: ConnectorKind) -> &'static str {
    match kind {
        ConnectorKind::Source => "source",
        ConnectorKind::Sink => "sink",
        ConnectorKind::Transform => "transform",
    }
}

fn add_options(listing: &mut Listing, indent: &str, spec: &ConfigSpec) {
    for option in &spec.options {
        let default = match (&option.default, option.required, &option.ty) {
            (_, true, _) => json!("(required)"),
            (Some(default), _, OptionType::Duration) => json!(with_unit(default, &MILLISECONDS)),
            (Some(default), _, OptionType::ByteSize) => json!(with_unit(default, &BYTES)),
            (Some(default), ..) => json!(default.as_str().map_or_else(|| default.to_string(), str::to_owned)),
            (None, ..) => json!(null),
        };
        listing.row(vec![
            json!(format!("{indent}{}", option.name)),
            json!(takes(&option.ty)),
            default,
            json!(option.doc),
        ]);
        match &option.ty {
            OptionType::Object(nested) => {
                add_options(listing, &format!("{indent}  {}.", option.name), nested)
            }
            OptionType::Enum(choices) => {
                for choice in choices {
                    let name = format!("{indent}  = {}", choice.name);
                    listing.row(vec![json!(name), json!(""), json!(""), json!(choice.doc)]);
                }
            }
            _ => {}
        }
    }
}

const MILLISECONDS: [(u64, &str); 4] = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
const BYTES: [(u64, &str); 4] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "")];

/// A number in the largest unit of which it is a multiple.
fn with_unit(number: &serde_json::Value, units: &[(u64, &str)]) -> String {
    let fitting = number.as_u64().filter(|number| *number > 0).and_then(|number| {
        let (size, unit) = units.iter().find(|(size, _)| number.is_multiple_of(*size))?;
        Some(format!("{}{unit}", number / size))
    });
    fitting.unwrap_or_else(|| number.to_string())
}

fn takes(ty: &OptionType) -> String {
    match ty {
        OptionType::Bool => "true, false".to_owned(),
        OptionType::Int { .. } => "number".to_owned(),
        OptionType::String | OptionType::NonEmptyString => "text".to_owned(),
        OptionType::Url { schemes } => {
            schemes.iter().map(|scheme| format!("{scheme}://…")).collect::<Vec<_>>().join(", ")
        }
        OptionType::Path => "path".to_owned(),
        OptionType::Duration => "duration (10s, 5m)".to_owned(),
        OptionType::ByteSize => "size (64KiB)".to_owned(),
        OptionType::Enum(_) => "one of".to_owned(),
        OptionType::List(item) => format!("[{}]", takes(item)),
        OptionType::Map(item) => format!("{{name: {}}}", takes(item)),
        OptionType::Object(_) => "map".to_owned(),
        OptionType::Scalar => "value".to_owned(),
        OptionType::Any => "YAML".to_owned(),
    }
}
