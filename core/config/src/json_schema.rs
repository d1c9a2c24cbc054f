//! The JSON Schema of the YAML, for editors (`towpath schema`), out of the same declarations that validate it.

use serde_json::{Map, Value as Json, json};
use towpath_api::{ConfigSpec, ConnectorKind, Descriptor, OptionSpec, OptionType, Registry};

use super::layout::{
    cluster_options, mirror_options, node_options, pipeline_options, remote_cluster_options, top_options,
    trust_options,
};

/// The schema (draft 2020-12) of a configuration with these connector types, and with plugins.
#[must_use]
pub fn json_schema(registry: &Registry) -> Json {
    let of_kind = |kind: ConnectorKind| {
        let known = registry.descriptors(kind);
        let mut variants: Vec<_> = known.iter().map(|it| connector(it)).collect();
        variants.extend(registry.plugin_loader().map(|_| plugged(&known)));
        json!({ "type": "object", "required": ["type"], "oneOf": variants })
    };
    let mut pipeline = object(&pipeline_options());
    for (key, schema) in [
        ("source", json!({ "$ref": "#/$defs/source" })),
        ("sink", json!({ "$ref": "#/$defs/sink" })),
        ("transforms", json!({ "type": "array", "items": { "$ref": "#/$defs/transform" } })),
    ] {
        replace_keeping_description(&mut pipeline["properties"][key], schema);
    }
    pipeline["anyOf"] = json!([{ "required": ["source", "topic"] }, { "required": ["topics", "sink"] }]);
    pipeline["properties"]["format"]["anyOf"] = json!([
        { "enum": ["json", "raw"] },
        {
            "type": "object",
            "required": ["type"],
            "additionalProperties": false,
            "properties": {
                "type": { "enum": ["json", "raw"] },
                "schemas": { "enum": ["id", "inline", "none"], "default": "id" },
            },
        },
    ]);
    pipeline["properties"]["dead_letter"]["anyOf"] = json!([
        { "type": "boolean" },
        {
            "type": "object",
            "additionalProperties": false,
            "properties": { "enabled": { "type": "boolean" }, "topic": { "type": "string" } },
        },
    ]);
    let mut cluster = object(&cluster_options());
    cluster["oneOf"] =
        json!([{ "required": ["bootstrap_servers"] }, { "required": ["name", "controllers"] }]);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Towpath configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "node": or_nothing(object(&node_options())),
            "cluster": cluster,
            "plugins": plugins(registry),
            "clusters": by_name(object(&remote_cluster_options())),
            "mirrors": by_name(object(&mirror_options())),
            "plugin_directory": top_options().get("plugin_directory").map(property),
            "plugin_trust": object(&trust_options()),
            "pipelines": {
                "type": ["object", "null"],
                "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,100}$" },
                "additionalProperties": { "$ref": "#/$defs/pipeline" },
            },
        },
        "$defs": {
            "pipeline": pipeline,
            "source": of_kind(ConnectorKind::Source),
            "sink": of_kind(ConnectorKind::Sink),
            "transform": of_kind(ConnectorKind::Transform),
        },
    })
}

fn plugins(registry: &Registry) -> Json {
    let entry = registry.plugin_loader().map_or(Json::Bool(false), |loader| {
        let mut whole = object(&loader.options());
        if !loader.one_of().is_empty() {
            whole["oneOf"] = loader.one_of().iter().map(|name| json!({ "required": [name] })).collect();
        }
        match loader.short_form() {
            Some(_) => json!({ "anyOf": [{ "type": "string", "minLength": 1 }, whole] }),
            None => whole,
        }
    });
    by_name(entry)
}

/// A section whose entries have names.
fn by_name(entry: Json) -> Json {
    json!({
        "type": ["object", "null"],
        "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,100}$" },
        "additionalProperties": entry,
    })
}

/// A type that a plugin brings: its options are known when it is loaded, and not here.
fn plugged(known: &[&Descriptor]) -> Json {
    let names: Vec<_> = known.iter().map(|descriptor| &descriptor.name).collect();
    json!({
        "title": "a plugin's type",
        "description": "The name of a plugin under `plugins:`.",
        "type": "object",
        "required": ["type"],
        "properties": { "type": { "type": "string", "not": { "enum": names } } },
    })
}

fn or_nothing(mut schema: Json) -> Json {
    schema["type"] = json!(["object", "null"]);
    schema
}

fn replace_keeping_description(slot: &mut Json, mut schema: Json) {
    schema["description"] = slot["description"].take();
    *slot = schema;
}

fn connector(descriptor: &Descriptor) -> Json {
    let mut schema = object(&descriptor.options);
    schema["title"] = json!(descriptor.name);
    schema["description"] = json!(descriptor.summary);
    schema["properties"]["type"] = json!({ "const": descriptor.name });
    if let Some(required) = schema["required"].as_array_mut() {
        required.insert(0, json!("type"));
    }
    schema
}

fn object(spec: &ConfigSpec) -> Json {
    let properties: Map<_, _> =
        spec.options.iter().map(|option| (option.name.clone(), property(option))).collect();
    let required: Vec<_> =
        spec.options.iter().filter(|option| option.required).map(|it| json!(it.name)).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties, "required": required })
}

fn property(option: &OptionSpec) -> Json {
    let mut schema = of_type(&option.ty);
    schema["description"] = json!(option.doc);
    if let Some(default) = &option.default {
        // Durations and sizes are kept as numbers but written with units.
        schema["default"] = match option.ty {
            OptionType::Duration => json!(format!("{default}ms")),
            _ => default.clone(),
        };
    }
    schema
}

fn of_type(ty: &OptionType) -> Json {
    // Any text may be a reference to a secret.
    let reference = json!({ "type": "string", "pattern": r"\$\{(env|file):[^}]+\}" });
    match ty {
        OptionType::Bool => json!({ "type": "boolean" }),
        OptionType::Int { min, max } => {
            json!({ "anyOf": [{ "type": "integer", "minimum": min, "maximum": max }, reference] })
        }
        OptionType::String | OptionType::Path => json!({ "type": ["string", "integer"] }),
        OptionType::NonEmptyString => json!({ "type": ["string", "integer"], "minLength": 1 }),
        OptionType::Url { schemes } => json!({
            "anyOf": [{ "type": "string", "pattern": format!("^({})://", schemes.join("|")) }, reference],
        }),
        OptionType::Duration => json!({
            "anyOf": [{ "type": "string", "pattern": r"^[0-9.]+\s*(ms|s|m|h|d)$" }, { "const": 0 }, reference],
        }),
        OptionType::ByteSize => json!({
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": r"^[0-9.]+\s*([KMG]i?B|B)?$" },
                reference,
            ],
        }),
        OptionType::Enum(choices) => json!({
            "anyOf": choices
                .iter()
                .map(|choice| json!({ "const": choice.name, "description": choice.doc }))
                .collect::<Vec<_>>(),
        }),
        OptionType::List(item) => json!({ "type": "array", "items": of_type(item) }),
        OptionType::Map(item) => json!({ "type": "object", "additionalProperties": of_type(item) }),
        OptionType::Object(spec) => object(spec),
        OptionType::Scalar => json!({ "type": ["string", "number", "boolean", "null"] }),
        OptionType::Any => json!({}),
    }
}
