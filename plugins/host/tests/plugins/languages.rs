//! The examples in JavaScript and Python keep the contract, and do what they say. Each is built and compiled once.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use towpath_api::{
    Batch, BatchBuilder, ConnectorError, EventSchema, Field, RowSchema, Transform, TransformFactory, Type,
    Value, conformance,
};

use crate::support::{CONTACTS, JSON_COLUMNS, PLUGINS, config, load};

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

/// R11: what the interpreters would like to have of a system is not there.
#[test]
fn interpreters_import_nothing_but_the_contract() {
    for path in [&*JSON_COLUMNS, &*CONTACTS] {
        let imports = PLUGINS.inspect(path).unwrap().imports;
        assert!(imports.iter().all(|name| name.starts_with("towpath:plugin/")), "{imports:?}");
    }
}
