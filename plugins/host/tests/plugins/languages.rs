//! The examples in JavaScript, Python, C and Go keep the contract, and do what they say. Each is built and compiled once.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use towpath_api::{
    Batch, BatchBuilder, ConnectorError, EventSchema, Field, RowSchema, Transform, TransformFactory, Type,
    Value, conformance,
};

use crate::support::{CONTACTS, GEOHASH, IP_PREFIX, JSON_COLUMNS, PLUGINS, config, load};

/// Records of nullable texts.
fn records<const N: usize>(names: [&str; N], rows: &[[Option<&str>; N]]) -> Batch {
    let fields = names.map(|name| Field::nullable(name, Type::String));
    let schema = Arc::new(EventSchema::new("people", Arc::new(RowSchema::new(fields.to_vec()))));
    let mut builder = BatchBuilder::new();
    for (offset, row) in (0..).zip(rows) {
        let mut record = builder.record(&schema);
        record.offset(offset).after(|to| {
            for value in row {
                match value {
                    Some(text) => to.text(text),
                    None => to.null(),
                }
            }
        });
        record.finish();
    }
    builder.build()
}

/// What became of records: those that went on, as `name=value` each, and the others' errors.
async fn through(transform: &mut dyn Transform, batch: Batch) -> (Vec<String>, Vec<ConnectorError>) {
    let transformed = transform.apply(batch).await.unwrap();
    let shown = |value: Value<'_>| match value {
        Value::Text(text) => text.to_owned(),
        other => format!("{other:?}"),
    };
    let mut passed = Vec::new();
    for record in transformed.batch.records() {
        let (row, fields) = (record.after().unwrap(), &record.schema().value().fields);
        let values =
            fields.iter().enumerate().map(|(at, field)| format!("{}={}", field.name, shown(row.get(at))));
        passed.push(values.collect::<Vec<_>>().join(" "));
    }
    (passed, transformed.rejected.into_parts().1)
}

fn open(factory: &dyn TransformFactory, options: Json) -> Box<dyn Transform> {
    factory.parse(&config(factory, options)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(factory: &dyn TransformFactory, options: Json) -> Vec<String> {
    let problems = factory.parse(&config(factory, options)).err().unwrap().problems;
    problems.into_iter().map(|it| format!("{}: {}", it.path, it.message)).collect()
}

#[tokio::test]
async fn javascript() {
    let factory = load(&JSON_COLUMNS, &json!({})).unwrap();
    let columns = json!({ "city": "address.city", "total": "order.total:number", "n": "list[1]:integer", "rest": "rest:json" });
    let options = json!({ "field": "body", "columns": columns });
    conformance::transform(&*factory, &config(&*factory, options.clone())).await.unwrap();
    let found = problems(&*factory, json!({ "field": "a", "columns": { "b": "c:colour", "d": "e[" } }));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("columns.b: `colour` is none of text") && found[1].starts_with("columns.d"),
        "{found:?}"
    );

    let mut transform = open(&*factory, options);
    let deep = format!("{{\"rest\":{}1{}}}", "[".repeat(60_000), "]".repeat(60_000));
    let rows = [
        [
            Some("1"),
            Some(r#"{"address":{"city":"Zürich"},"order":{"total":1.5},"list":[1,-7],"rest":{"a":[]}}"#),
        ],
        [Some("2"), Some(r#"{"address":null}"#)],
        [Some("3"), Some("{")],
        [Some("4"), Some(r#"{"order":{"total":"much"}}"#)],
        [Some("5"), Some(&deep)],
        [Some("6"), None],
    ];
    let (passed, errors) = through(&mut *transform, records(["id", "body"], &rows)).await;
    assert_eq!(
        passed,
        [
            r#"id=1 city=Zürich total=Float64(1.5) n=Int(-7) rest={"a":[]}"#,
            "id=2 city=Null total=Null n=Null rest=Null",
            "id=6 city=Null total=Null n=Null rest=Null",
        ]
    );
    let codes: Vec<_> = errors.iter().map(ConnectorError::code).collect();
    // The last one is more than the engine's stack holds: an error that the plugin does not handle, and is found.
    assert_eq!(codes, ["JSON_COLUMNS", "JSON_COLUMNS", "PLUGIN_TRAP"], "{errors:?}");
    assert!(errors[1].message().contains("`order.total` is no number"), "{}", errors[1]);
    assert!(errors[2].message().contains("recursion"), "{}", errors[2]);
    let (passed, _) = through(&mut *transform, records(["other"], &[[Some("kept")]])).await;
    assert_eq!(passed, ["other=kept"]);
}

#[tokio::test]
async fn python() {
    let factory = load(&CONTACTS, &json!({})).unwrap();
    let options =
        json!({ "emails": ["email"], "phones": ["phone"], "names": ["name"], "country": 49, "tags": false });
    conformance::transform(&*factory, &config(&*factory, options.clone())).await.unwrap();
    let found = problems(&*factory, json!({ "emails": ["a"], "names": ["a"] }));
    assert_eq!(found, ["names[0]: `a` is named twice"]);
    assert_eq!(problems(&*factory, json!({})), [": there is nothing to do"]);

    let mut transform = open(&*factory, options);
    let names = ["email", "phone", "name"];
    let rows = [
        [Some(" Zoe+shop@BÜCHER.example"), Some("(0171) 123-4567"), Some(" Zoë \t Ｓ.")],
        [Some("nobody"), None, None],
        [None, Some("+44 (0)20 7946 0958"), None],
        [None, Some("12"), None],
    ];
    let (passed, errors) = through(&mut *transform, records(names, &rows)).await;
    assert_eq!(
        passed,
        [
            "email=zoe@xn--bcher-kva.example phone=+491711234567 name=Zoë S.",
            "email=Null phone=+442079460958 name=Null",
        ]
    );
    let told: Vec<_> = errors.iter().map(|error| (error.code(), error.message())).collect();
    assert_eq!(
        told,
        [("CONTACTS_FORM", "`nobody` is no e-mail address"), ("CONTACTS_FORM", "`12` is no phone number"),]
    );
}

#[tokio::test]
async fn c() {
    let factory = load(&GEOHASH, &json!({})).unwrap();
    let options = json!({ "latitude": "lat", "longitude": "lon", "precision": 5 });
    conformance::transform(&*factory, &config(&*factory, options.clone())).await.unwrap();
    let found = problems(&*factory, json!({ "latitude": "a", "longitude": "a", "into": "a" }));
    assert_eq!(found, ["longitude: `a` is the latitude", "into: `a` is what it is made of"]);

    let mut transform = open(&*factory, options);
    let rows = [
        [Some("42.6"), Some("-5.6"), Some("Zoë")],
        [Some("91"), Some("0"), None],
        [None, Some("0"), None],
        [Some("north"), Some("0"), None],
        [Some("57.64911"), Some("1.040744e1"), None],
    ];
    // Twice: what is known of a schema, and memory, is used again.
    for _ in 0..2 {
        let (passed, errors) = through(&mut *transform, records(["lat", "lon", "name"], &rows)).await;
        assert_eq!(
            passed,
            [
                "lat=42.6 lon=-5.6 name=Zoë geohash=ezs42",
                "lat=Null lon=0 name=Null geohash=Null",
                "lat=57.64911 lon=1.040744e1 name=Null geohash=u4pru",
            ]
        );
        let codes: Vec<_> = errors.iter().map(ConnectorError::code).collect();
        assert_eq!(codes, ["GEOHASH_PLACE", "GEOHASH_PLACE"], "{errors:?}");
        assert!(errors[0].message().contains("`lat` and `lon`"), "{}", errors[0]);
        assert!(errors[0].hint().unwrap().contains("invalid: null"), "{}", errors[0]);
    }
    let rows = [[Some("42.6"), Some("-5.6"), Some("old")]];
    let (passed, _) = through(&mut *transform, records(["lat", "lon", "geohash"], &rows)).await;
    assert_eq!(passed, ["lat=42.6 lon=-5.6 geohash=ezs42"]);
    let (passed, _) = through(&mut *transform, records(["other"], &[[Some("kept")]])).await;
    assert_eq!(passed, ["other=kept"]);
}

/// Records of a number and a text, in batches of every size, with what is dropped and kept in between.
#[tokio::test]
async fn c_runs_for_long_in_its_memory() {
    let factory = load(&GEOHASH, &json!({ "memory": 8 << 20 })).unwrap();
    let mut transform =
        open(&*factory, json!({ "latitude": "lat", "longitude": "lon", "invalid": "reject" }));
    let text = "ü".repeat(10_000);
    for count in (0..40).cycle().take(400) {
        let good = [Some("1"), Some("2"), Some(&*text)];
        let rows: Vec<_> =
            (0..count).map(|at| if at % 3 == 1 { [Some("x"), Some("2"), None] } else { good }).collect();
        let (passed, errors) = through(&mut *transform, records(["lat", "lon", "text"], &rows)).await;
        assert_eq!(errors.len(), (count + 1) / 3);
        assert_eq!(passed.len() + errors.len(), count);
        assert!(passed.iter().all(|it| it.ends_with(" geohash=s01mtw037")), "{passed:?}");
    }
}

#[tokio::test]
async fn go() {
    let factory = load(&IP_PREFIX, &json!({})).unwrap();
    let networks = json!({ "ours": "10.0.0.0/8, fd00::/8", "office": "10.1.0.0/16" });
    let options = json!({ "field": "ip", "networks": networks });
    conformance::transform(&*factory, &config(&*factory, options.clone())).await.unwrap();
    let found = problems(
        &*factory,
        json!({ "field": "a", "into": "a", "networks": { "b": "1.2.3.4/8,x", "c": "::/0" } }),
    );
    assert_eq!(found, ["networks.b: `x` is no network", "into: `a` is the address"]);

    let mut transform = open(&*factory, options);
    let rows = [
        [Some("10.1.2.3"), Some("Zoë")],
        [Some("[fd00:1:2:3::4]:443"), None],
        [Some("::ffff:192.0.2.77"), None],
        [None, None],
        [Some("nobody"), None],
    ];
    // Twice: what is known of a schema, and memory, is used again.
    for _ in 0..2 {
        let (passed, errors) = through(&mut *transform, records(["ip", "name"], &rows)).await;
        assert_eq!(
            passed,
            [
                "ip=10.1.2.0 name=Zoë network=office",
                "ip=fd00:1:2:: name=Null network=ours",
                "ip=192.0.2.0 name=Null network=Null",
                "ip=Null name=Null network=Null",
            ]
        );
        let codes: Vec<_> = errors.iter().map(ConnectorError::code).collect();
        assert_eq!(codes, ["IP_PREFIX_ADDRESS"], "{errors:?}");
        assert!(errors[0].hint().unwrap().contains("invalid: null"), "{}", errors[0]);
    }
    let rows = [[Some("10.1.2.3"), Some("old")]];
    let (passed, _) = through(&mut *transform, records(["ip", "network"], &rows)).await;
    assert_eq!(passed, ["ip=10.1.2.0 network=office"]);
    let (passed, _) = through(&mut *transform, records(["other"], &[[Some("kept")]])).await;
    assert_eq!(passed, ["other=kept"]);
}

/// R10: what a batch took is collected before memory ends, whatever the sizes of batches; the same instance goes on.
#[tokio::test]
async fn go_runs_for_long_in_its_memory() {
    let factory = load(&IP_PREFIX, &json!({ "memory": 24 << 20 })).unwrap();
    let mut transform = open(&*factory, json!({ "field": "ip", "networks": { "a": "10.0.0.0/8" } }));
    let text = "ü".repeat(10_000);
    for count in (0..40).cycle().take(400) {
        let good = [Some("10.1.2.3"), Some(&*text)];
        let rows: Vec<_> = (0..count).map(|at| if at % 3 == 1 { [Some("x"), None] } else { good }).collect();
        let (passed, errors) = through(&mut *transform, records(["ip", "text"], &rows)).await;
        assert_eq!(errors.len(), (count + 1) / 3);
        assert_eq!(passed.len() + errors.len(), count);
        assert!(passed.iter().all(|it| it.ends_with(" network=a")), "{passed:?}");
    }
}

/// Batches of many megabytes leave nothing behind that the next one would not find room beside.
#[tokio::test]
async fn go_takes_large_batches() {
    let factory = load(&IP_PREFIX, &json!({})).unwrap();
    let mut transform = open(&*factory, json!({ "field": "ip", "networks": { "a": "10.0.0.0/8" } }));
    let text = "ü".repeat(20_000);
    let rows = vec![[Some("10.1.2.3"), Some(&*text)]; 200];
    for _ in 0..20 {
        let (passed, errors) = through(&mut *transform, records(["ip", "text"], &rows)).await;
        assert!(passed.len() == rows.len() && errors.is_empty(), "{errors:?}");
    }
}

/// A schema goes through a plugin with all that it has.
#[tokio::test]
async fn schemas_are_told_whole() {
    let id = json!({ "table": u64::MAX, "column": 7 });
    let field = json!({
        "name": "lat", "type": "string", "nullable": true, "source_type": "postgres:text", "renamed_from": "old",
        "initial": "", "id": id,
    });
    let arrays = json!({ "name": "ip", "type": { "array": { "array": "int32" } }, "initial": "{}" });
    let whole = json!({
        "name": "public.Zoë", "variables": { "a": "b", "c": "" }, "key": [{ "name": "k", "type": "int16" }],
        "value": [field, { "name": "lon", "type": "string" }, arrays, { "name": "at", "type": "string" }],
        "computed": [{ "name": "n", "source_type": "postgres:int4", "expression": "postgres:(1 + 1)" }],
        "source": { "constants": [["db", "shop"]], "fields": [{ "name": "lsn", "type": "int64", "nullable": true }] },
    });
    let schema = Arc::new(EventSchema::from_json(whole.to_string().as_bytes()).unwrap());
    let mut expected: Json = serde_json::from_slice(&schema.to_json()).unwrap();
    expected["value"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "new", "type": "string", "nullable": true }));
    for (plugin, options) in [
        (&GEOHASH, json!({ "latitude": "lat", "longitude": "lon", "into": "new" })),
        (&IP_PREFIX, json!({ "field": "at", "networks": { "a": "::/0" }, "into": "new", "invalid": "null" })),
    ] {
        let factory = load(plugin, &json!({})).unwrap();
        let mut builder = BatchBuilder::new();
        let mut record = builder.record(&schema);
        record.after(|row| ["1", "2", "{}", "x"].into_iter().for_each(|text| row.text(text)));
        record.finish();
        let transformed = open(&*factory, options).apply(builder.build()).await.unwrap();
        let (_, errors) = transformed.rejected.into_parts();
        assert!(errors.is_empty(), "{errors:?}");
        let told = transformed.batch.records().next().unwrap().schema().to_json();
        assert_eq!(serde_json::from_slice::<Json>(&told).unwrap(), expected);
    }
}

/// R10: an interpreter loses memory at each call. Its instance makes way for another before it fails, and where one record
/// alone is more than fits, that one is found, and the limit to raise is told.
#[tokio::test]
async fn an_interpreter_runs_for_long_in_its_memory() {
    let factory = load(&CONTACTS, &json!({})).unwrap();
    let mut transform = open(&*factory, json!({ "names": ["name"] }));
    let text = "ü".repeat(20_000);
    let rows = vec![[Some(&*text)]; 10];
    // 400 KB each, 80 MB in all: more than the memory of one instance.
    for _ in 0..200 {
        let (passed, errors) = through(&mut *transform, records(["name"], &rows)).await;
        assert!(passed.len() == rows.len() && errors.is_empty(), "{errors:?}");
    }
    let large = "ü".repeat(12 << 20);
    let rows = [[Some("a")], [Some(&*large)], [Some("b")]];
    let (passed, errors) = through(&mut *transform, records(["name"], &rows)).await;
    assert_eq!(passed, ["name=a", "name=b"]);
    let [error] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!(error.code(), "PLUGIN_MEMORY", "{error}");
    assert!(error.to_string().contains("67108864") && error.hint().unwrap().contains("`memory`"), "{error}");
}

/// R11: what the interpreters and the C library would like to have of a system is not there.
#[test]
fn other_languages_import_nothing_but_the_contract() {
    for path in [&*JSON_COLUMNS, &*CONTACTS, &*GEOHASH, &*IP_PREFIX] {
        let imports = PLUGINS.inspect(path).unwrap().imports;
        assert!(imports.iter().all(|name| name.starts_with("towpath:plugin/")), "{imports:?}");
    }
}
