//! Every field table against the schemas that Apache Kafka 4.3 ships in its own jars.
//!
//! `TOWPATH_KAFKA_CLIENTS_JAR`, `TOWPATH_KAFKA_GROUP_COORDINATOR_JAR` and `TOWPATH_KAFKA_TRANSACTION_COORDINATOR_JAR` name
//! the jars; without them Maven fetches them into the target folder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value as Json;
use towpath_wire::codec::{FieldDescriptor, FieldType, StructDescriptor};
use towpath_wire::{ApiKey, Message, Request, VersionRange};

const KAFKA_VERSION: &str = "4.3.0";

/// The jar of one artifact of `org.apache.kafka`.
fn jar(artifact: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kafka-schemas");
    let jar = folder.join(format!("{artifact}-{KAFKA_VERSION}.jar"));
    if !jar.exists() {
        let status = Command::new("mvn")
            .args(["-q", "-B", "dependency:copy"])
            .arg(format!("-Dartifact=org.apache.kafka:{artifact}:{KAFKA_VERSION}"))
            .arg(format!("-DoutputDirectory={}", folder.display()))
            .status()
            .unwrap_or_else(|error| panic!("mvn (Debian: maven) fetches {artifact}: {error}"));
        assert!(status.success() && jar.exists(), "mvn did not fetch {artifact} {KAFKA_VERSION}: {status}");
    }
    jar
}

/// The schemas of a jar, by message name.
fn schemas(artifact: &str, variable: &str) -> BTreeMap<String, Json> {
    let file = File::open(jar(artifact, variable)).expect("the jar opens");
    let mut archive = zip::ZipArchive::new(file).expect("a jar is a zip file");
    let names: Vec<String> = archive
        .file_names()
        .filter(|name| name.starts_with("common/message/") && name.ends_with(".json"))
        .map(str::to_owned)
        .collect();
    let mut schemas = BTreeMap::new();
    for name in names {
        let mut text = String::new();
        archive.by_name(&name).unwrap().read_to_string(&mut text).unwrap();
        let json: Json = serde_json::from_str(&without_comments(&text)).expect(&name);
        schemas.insert(json["name"].as_str().unwrap().to_owned(), json);
    }
    assert!(!schemas.is_empty(), "no schemas in {artifact}");
    schemas
}

fn client_schemas() -> &'static BTreeMap<String, Json> {
    static SCHEMAS: OnceLock<BTreeMap<String, Json>> = OnceLock::new();
    SCHEMAS.get_or_init(|| schemas("kafka-clients", "TOWPATH_KAFKA_CLIENTS_JAR"))
}

/// Kafka's schemas are JSON with `//` comments.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '\\' if quoted => {
                out.push(character);
                out.extend(characters.next());
                continue;
            }
            '/' if !quoted && characters.peek() == Some(&'/') => {
                while characters.next_if(|next| *next != '\n').is_some() {}
                continue;
            }
            _ => {}
        }
        out.push(character);
    }
    out
}

/// `None` for "none".
fn range(text: &str) -> Option<VersionRange> {
    let number = |part: &str| part.parse::<i16>().unwrap();
    if text == "none" {
        None
    } else if let Some(min) = text.strip_suffix('+') {
        Some(VersionRange::new(number(min), i16::MAX))
    } else if let Some((min, max)) = text.split_once('-') {
        Some(VersionRange::new(number(min), number(max)))
    } else {
        Some(VersionRange::new(number(text), number(text)))
    }
}

fn range_of(json: &Json, key: &str) -> Option<VersionRange> {
    json[key].as_str().and_then(range)
}

/// The versions that have a field; without a word of it, those in which it is tagged.
fn versions_of(field: &Json) -> Option<VersionRange> {
    range_of(field, "versions").or_else(|| range_of(field, "taggedVersions"))
}

/// `TopicId` and `topicId` → `topic_id`.
fn snake(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, character) in characters.iter().enumerate() {
        let after_lower = at > 0 && !characters[at - 1].is_uppercase();
        let before_lower = at > 0 && characters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if character.is_uppercase() && at > 0 && (after_lower || before_lower) {
            out.push('_');
        }
        out.extend(character.to_lowercase());
    }
    out
}

/// A default in one spelling, `None` when it is the type's own.
fn default_of(text: Option<String>, field_type: &str) -> Option<String> {
    let text = text?;
    let plain = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).unwrap().to_string(),
        None => text,
    };
    let own = match field_type {
        "string" => "",
        "bool" => "false",
        "int8" | "int16" | "int32" | "int64" | "uint16" | "uint32" | "float64" => "0",
        _ => "no text",
    };
    (plain != own && !plain.is_empty()).then_some(plain)
}

fn type_name(field_type: FieldType) -> String {
    match field_type {
        FieldType::Bool => "bool".into(),
        FieldType::Int8 => "int8".into(),
        FieldType::Int16 => "int16".into(),
        FieldType::Uint16 => "uint16".into(),
        FieldType::Int32 => "int32".into(),
        FieldType::Uint32 => "uint32".into(),
        FieldType::Int64 => "int64".into(),
        FieldType::Float64 => "float64".into(),
        FieldType::String => "string".into(),
        FieldType::Bytes => "bytes".into(),
        FieldType::Records => "records".into(),
        FieldType::Uuid => "uuid".into(),
        FieldType::Array(element) => format!("[]{}", type_name(*element)),
        FieldType::Struct(table) => table.name.to_owned(),
    }
}

fn struct_of(field_type: FieldType) -> Option<&'static StructDescriptor> {
    match field_type {
        FieldType::Array(element) => struct_of(*element),
        FieldType::Struct(table) => Some(table),
        _ => None,
    }
}

struct Comparison<'a> {
    schema: &'a Json,
    differences: Vec<String>,
    fields: usize,
}

impl Comparison<'_> {
    /// The fields of a struct that stands inline or among the common structs.
    fn fields_of(&self, field: &Json, name: &str) -> Vec<Json> {
        let inline = field["fields"].as_array();
        let common = || {
            let common = self.schema["commonStructs"].as_array()?;
            common.iter().find(|common| common["name"] == name)?["fields"].as_array()
        };
        inline.or_else(common).unwrap_or_else(|| panic!("the schema has no struct {name}")).clone()
    }

    /// Compares a struct as far as `versions`, in which its parent has it, show of it.
    fn compare(&mut self, path: &str, theirs: &[Json], ours: &StructDescriptor, versions: VersionRange) {
        let visible = |json: &&Json| versions_of(json).is_some_and(|v| v.intersect(versions).is_some());
        let theirs: Vec<&Json> = theirs.iter().filter(visible).collect();
        let their_names: Vec<String> =
            theirs.iter().map(|json| snake(json["name"].as_str().unwrap())).collect();
        let our_names: Vec<&str> = ours.fields.iter().map(|field| field.name).collect();
        if their_names != our_names {
            self.differences.push(format!("{path}: fields {our_names:?}, the schema has {their_names:?}"));
            return;
        }
        for (json, field) in theirs.into_iter().zip(ours.fields) {
            self.compare_field(&format!("{path}.{}", field.name), json, field, versions);
        }
    }

    fn compare_field(&mut self, path: &str, json: &Json, field: &FieldDescriptor, parent: VersionRange) {
        self.fields += 1;
        let field_type = json["type"].as_str().unwrap();
        let versions = versions_of(json).and_then(|versions| versions.intersect(parent));
        let within = |range: Option<VersionRange>| range.and_then(|range| range.intersect(versions?));
        // A default of null is spelt `null` or `"null"`.
        let default = json.get("default").map(|default| match default {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        });
        let theirs = (
            field_type.to_owned(),
            versions,
            within(range_of(json, "nullableVersions")),
            json["tag"].as_u64().and_then(|tag| u32::try_from(tag).ok()),
            within(range_of(json, "taggedVersions")),
            json["ignorable"] == true || json["ignorable"] == "true",
            default_of(default, field_type),
        );
        let ours = (
            type_name(field.field_type),
            field.versions.intersect(parent),
            within(field.nullable),
            field.tag,
            field.tag.and_then(|_| within(Some(field.versions))),
            field.ignorable,
            default_of(field.default.map(str::to_owned), field_type),
        );
        if theirs != ours {
            self.differences.push(format!("{path}:\n  ours   {ours:?}\n  schema {theirs:?}"));
        }
        if let (Some(table), Some(versions)) = (struct_of(field.field_type), versions) {
            let fields = self.fields_of(json, table.name);
            self.compare(path, &fields, table, versions);
        }
    }
}

/// Compares one message; returns the number of fields seen.
fn check<M: Message>(schemas: &BTreeMap<String, Json>, differences: &mut Vec<String>) -> usize {
    let schema = schemas.get(M::NAME).unwrap_or_else(|| panic!("no schema of {}", M::NAME));
    let versions = range_of(schema, "validVersions").unwrap();
    let flexible_from = range_of(schema, "flexibleVersions").map(|range| range.min);
    if (versions, flexible_from) != (M::VERSIONS, M::FLEXIBLE_FROM) {
        differences
            .push(format!("{}: versions {versions}, flexible {flexible_from:?} in the schema", M::NAME));
    }
    let table = support::table::<M>();
    assert_eq!(table.name, M::NAME);
    let mut comparison = Comparison { schema, differences: Vec::new(), fields: 0 };
    comparison.compare(M::NAME, schema["fields"].as_array().unwrap(), table, versions);
    differences.append(&mut comparison.differences);
    comparison.fields
}

macro_rules! check_all {
    ($($request:ident,)*) => {{
        let (mut differences, mut fields, mut keys) = (Vec::new(), 0, BTreeSet::new());
        $(
            type $request = towpath_wire::$request;
            fields += check::<$request>(client_schemas(), &mut differences);
            fields += check::<<$request as Request>::Response>(client_schemas(), &mut differences);
            let schema = &client_schemas()[$request::NAME];
            assert_eq!(schema["apiKey"], $request::KEY.code(), "{}", $request::NAME);
            assert_eq!($request::NAME, format!("{}Request", $request::KEY));
            assert_eq!(<$request as Request>::Response::NAME, format!("{}Response", $request::KEY));
            assert!(keys.insert($request::KEY.code()), "{} twice", $request::KEY);
        )*
        (differences, fields, keys)
    }};
}

#[test]
fn every_field_table_is_that_of_kafka() {
    let (differences, fields, keys) = towpath_wire::for_each_request!(check_all);
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
    assert!(fields > 900, "only {fields} fields were compared");
    let wanted: BTreeSet<i16> = (0..=3)
        .chain(8..=37)
        .chain(42..=51)
        .chain(55..=57)
        .chain(60..=69)
        .chain([73, 74, 75, 80, 81])
        .collect();
    assert_eq!(keys, wanted);
}

#[test]
fn what_travels_inside_messages_and_topics_is_that_of_kafka() {
    let mut differences = Vec::new();
    check::<towpath_wire::ConsumerProtocolSubscription>(client_schemas(), &mut differences);
    check::<towpath_wire::ConsumerProtocolAssignment>(client_schemas(), &mut differences);
    let records = schemas("kafka-group-coordinator", "TOWPATH_KAFKA_GROUP_COORDINATOR_JAR");
    check::<towpath_wire::OffsetCommitKey>(&records, &mut differences);
    check::<towpath_wire::OffsetCommitValue>(&records, &mut differences);
    check::<towpath_wire::GroupMetadataKey>(&records, &mut differences);
    check::<towpath_wire::GroupMetadataValue>(&records, &mut differences);
    {
        use towpath_wire::consumer_group_records::*;
        check::<ConsumerGroupMetadataKey>(&records, &mut differences);
        check::<ConsumerGroupMetadataValue>(&records, &mut differences);
        check::<ConsumerGroupPartitionMetadataKey>(&records, &mut differences);
        check::<ConsumerGroupPartitionMetadataValue>(&records, &mut differences);
        check::<ConsumerGroupMemberMetadataKey>(&records, &mut differences);
        check::<ConsumerGroupMemberMetadataValue>(&records, &mut differences);
        check::<ConsumerGroupTargetAssignmentMetadataKey>(&records, &mut differences);
        check::<ConsumerGroupTargetAssignmentMetadataValue>(&records, &mut differences);
        check::<ConsumerGroupTargetAssignmentMemberKey>(&records, &mut differences);
        check::<ConsumerGroupTargetAssignmentMemberValue>(&records, &mut differences);
        check::<ConsumerGroupCurrentMemberAssignmentKey>(&records, &mut differences);
        check::<ConsumerGroupCurrentMemberAssignmentValue>(&records, &mut differences);
        check::<ConsumerGroupRegularExpressionKey>(&records, &mut differences);
        check::<ConsumerGroupRegularExpressionValue>(&records, &mut differences);
    }
    let records = schemas("kafka-transaction-coordinator", "TOWPATH_KAFKA_TRANSACTION_COORDINATOR_JAR");
    check::<towpath_wire::TransactionLogKey>(&records, &mut differences);
    check::<towpath_wire::TransactionLogValue>(&records, &mut differences);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_api_keys_are_those_of_kafka() {
    let mut theirs = BTreeMap::new();
    for schema in client_schemas().values().filter(|schema| schema["type"] == "request") {
        let Some(versions) = range_of(schema, "validVersions") else { continue };
        let unstable = schema["latestVersionUnstable"] == true;
        let stable = VersionRange::new(versions.min, versions.max - i16::from(unstable));
        let flexible_from = range_of(schema, "flexibleVersions").map(|range| range.min);
        let name = schema["name"].as_str().unwrap().trim_end_matches("Request").to_owned();
        // What only the listener of controllers has is not for clients.
        let listeners = schema["listeners"].as_array().unwrap();
        let private = !listeners.iter().any(|listener| listener == "broker");
        theirs.insert(schema["apiKey"].as_i64().unwrap(), (name, versions, stable, flexible_from, private));
    }
    let mut ours = BTreeMap::new();
    for key in ApiKey::ALL.iter().filter(|key| !key.is_own()) {
        let row = (
            key.name().to_owned(),
            key.versions(),
            key.stable_versions(),
            key.flexible_from(),
            key.is_private(),
        );
        ours.insert(i64::from(key.code()), row);
    }
    assert_eq!(ours, theirs);
    assert!(ours.len() > 80);
}

/// The comparison sees each kind of difference: a schema altered in one place no longer matches.
#[test]
fn an_altered_schema_is_noticed() {
    fn differences(alter: impl FnOnce(&mut Vec<Json>)) -> Vec<String> {
        let mut schemas = client_schemas().clone();
        let schema = schemas.get_mut("FetchRequest").unwrap();
        alter(schema["fields"].as_array_mut().unwrap());
        let mut differences = Vec::new();
        check::<towpath_wire::FetchRequest>(&schemas, &mut differences);
        differences
    }
    fn set(key: &'static str, value: Json) -> impl FnOnce(&mut Vec<Json>) {
        // MaxBytes is the sixth field; ClusterId, the first, is tagged and nullable.
        let at = if matches!(key, "tag" | "nullableVersions") { 0 } else { 5 };
        move |fields| fields[at][key] = value
    }
    assert_eq!(differences(|_| {}), Vec::<String>::new());
    for (key, value) in [
        ("versions", "5+".into()),
        ("type", "int64".into()),
        ("default", "7".into()),
        ("ignorable", false.into()),
        ("nullableVersions", "13+".into()),
        ("tag", 9.into()),
        ("name", "MostBytes".into()),
    ] {
        assert_eq!(differences(set(key, value)).len(), 1, "{key}");
    }
    assert_eq!(differences(|fields| drop(fields.remove(3))).len(), 1);
    assert_eq!(differences(|fields| fields.push(fields[3].clone())).len(), 1);
    // Deep inside: a partition's current leader epoch.
    let deep = |fields: &mut Vec<Json>| {
        let topics = fields.iter_mut().find(|field| field["name"] == "Topics").unwrap();
        topics["fields"][2]["fields"][1]["versions"] = "10+".into();
    };
    let found = differences(deep);
    assert!(found.len() == 1 && found[0].starts_with("FetchRequest.topics.partitions.current_leader_epoch"));
}
