//! Whole configurations, right and wrong, through the crate's public face.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use towpath_api::{
    Batch, ConfigProblem, ConfigProblems, ConfigSpec, ConnectorError, ConnectorKind, Descriptor, OptionSpec,
    OptionType, RawConfig, Registry, Sink, SinkConnector, SinkFactory, Source, SourceConnector,
    SourceFactory, SourceOffsets, TaskContext, TaskSpec, Transform, TransformFactory, Transformed,
};
use towpath_config::{Problems, json_schema, load, load_text};

/// A connector type that only exists to be configured.
struct Configurable(Descriptor);

impl Configurable {
    fn new(name: &str, kind: ConnectorKind) -> Arc<Self> {
        let options = ConfigSpec::new(vec![
            OptionSpec::required("url", OptionType::url(&["db"]), "Where the database is."),
            OptionSpec::with_default(
                "tables",
                OptionType::list(OptionType::NonEmptyString),
                json!([]),
                "Which.",
            ),
        ]);
        let summary = "For tests.".to_owned();
        Arc::new(Self(Descriptor {
            name: name.into(),
            kind,
            version: "1".into(),
            summary,
            guarantee: None,
            options,
        }))
    }

    fn look_at(config: &RawConfig) -> Result<(), ConfigProblems> {
        let bad = config.strings("tables").iter().position(|table| table.contains(' '));
        bad.map_or(Ok(()), |at| {
            Err(ConfigProblem::new(format!("tables[{at}]"), "no table is called so").into())
        })
    }
}

struct Nothing;

#[async_trait]
impl SourceConnector for Nothing {
    async fn check(&self, _: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        Ok(Vec::new())
    }

    async fn plan(&self, _: NonZeroU32) -> Result<Vec<TaskSpec>, ConnectorError> {
        Ok(Vec::new())
    }

    async fn open(
        &self,
        _: TaskSpec,
        _: SourceOffsets,
        _: TaskContext,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        Err(ConnectorError::bug("TEST", "never opened"))
    }
}

#[async_trait]
impl SinkConnector for Nothing {
    async fn check(&self, _: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        Ok(Vec::new())
    }

    async fn open(&self, _: TaskContext) -> Result<Box<dyn Sink>, ConnectorError> {
        Err(ConnectorError::bug("TEST", "never opened"))
    }
}

#[async_trait]
impl Transform for Nothing {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, ConnectorError> {
        Ok(batch.into())
    }
}

impl SourceFactory for Configurable {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SourceConnector>, ConfigProblems> {
        Self::look_at(config).map(|()| Box::new(Nothing) as _)
    }
}

impl SinkFactory for Configurable {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SinkConnector>, ConfigProblems> {
        Self::look_at(config).map(|()| Box::new(Nothing) as _)
    }
}

impl TransformFactory for Configurable {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn Transform>, ConfigProblems> {
        Self::look_at(config).map(|()| Box::new(Nothing) as _)
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .add_source(Configurable::new("db_cdc", ConnectorKind::Source))
        .add_sink(Configurable::new("db", ConnectorKind::Sink))
        .add_transform(Configurable::new("lookup", ConnectorKind::Transform));
    registry
}

fn problems(text: &str) -> Vec<(String, &'static str)> {
    let problems: Problems = load_text("t.yaml", text, &registry()).map(|_| ()).unwrap_err();
    problems.list().iter().map(|it| (it.position().unwrap_or_default(), it.code)).collect()
}

#[test]
fn a_right_configuration_comes_out_whole() {
    let config = load_text(
        "t.yaml",
        r#"
node: { kafka: "0.0.0.0:19092", data_dir: /var/lib/towpath }
pipelines:
  shop:
    source: { type: db_cdc, url: "db://u:pass-word@h/db", tables: [a, b] }
    transforms: [ { type: lookup, url: db://h } ]
    topic: "shop.{schema}.{table}"
    tasks: 3
    format: { type: json, schemas: inline }
    topic_config: { retention.ms: 1000 }
    compression: zstd
  warehouse:
    topics: ["shop.public.*"]
    sink: { type: db, url: db://h/db }
    dead_letter: { topic: bad.ones }
  both:
    source: { type: db_cdc, url: db://h }
    topic: all
    sink: { type: db, url: db://h }
    dead_letter: false
"#,
        &registry(),
    )
    .unwrap();
    assert_eq!((config.node.kafka.as_str(), config.node.http.as_str()), ("0.0.0.0:19092", "127.0.0.1:8083"));
    assert!(config.cluster.is_none());
    let names: Vec<_> = config.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
    assert_eq!(names, ["shop", "warehouse", "both"]);
    let shop = &config.pipelines[0];
    assert_eq!(shop.source.as_ref().unwrap().tasks_max.get(), 3);
    assert_eq!((shop.transforms.len(), shop.new_topics.configs["retention.ms"].as_str()), (1, "1000"));
    assert_eq!(config.pipelines[1].dead_letter_topic().unwrap().as_str(), "bad.ones");
    assert!(!config.pipelines[2].dead_letter.enabled);
    assert_eq!(config.redactor.redact("oh pass-word!"), "oh ***!");
}

#[test]
fn nothing_at_all_is_a_broker_with_defaults() {
    let config = load_text("t.yaml", "", &registry()).unwrap();
    assert_eq!(config.node.data_dir, std::path::PathBuf::from("./towpath-data"));
    assert!(config.pipelines.is_empty());
}

#[test]
fn every_kind_of_mistake_has_its_place() {
    let text = r#"node: { kafka: "nowhere", port: 1 }
pipelines:
  a:
    source: { type: db_cdd, url: db://h }
    topic: t
  b:
    source: { type: db_cdc, url: "mysql://h", tables: [x, "y z"], tabels: [] }
    topic: "t.{"
  c:
    sink: { type: db, url: "db://${env:TOWPATH_TEST_IS_NOT_SET}@h" }
  d:
    source: { type: db_cdc, url: db://h, tables: [x, "y z"] }
    topic: t
  "e e":
    topics: []
    sink: { url: db://h }
    tasks: 0
"#;
    let found = problems(text);
    let codes: Vec<_> = found.iter().map(|(position, code)| (position.as_str(), *code)).collect();
    assert_eq!(
        codes,
        [
            ("t.yaml:1:16", "CONFIG_ADDRESS"),
            ("t.yaml:1:27", "CONFIG_UNKNOWN_KEY"),
            ("t.yaml:4:21", "CONFIG_UNKNOWN_TYPE"),
            ("t.yaml:7:34", "CONFIG_URL"),
            ("t.yaml:7:67", "CONFIG_UNKNOWN_KEY"),
            ("t.yaml:8:12", "CONFIG_TEMPLATE"),
            ("t.yaml:9:3", "CONFIG_PIPELINE"),
            ("t.yaml:10:28", "CONFIG_SECRET"),
            ("t.yaml:12:54", "CONFIG_OPTION"),
            ("t.yaml:14:3", "CONFIG_NAME"),
            ("t.yaml:15:13", "CONFIG_TEMPLATE"),
            ("t.yaml:16:11", "CONFIG_MISSING"),
            ("t.yaml:17:12", "CONFIG_RANGE"),
        ]
    );
}

#[test]
fn a_directory_is_one_configuration_and_names_are_unique_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = "pipelines:\n  p:\n    topics: [t]\n    sink: { type: db, url: db://h }\n";
    std::fs::write(directory.path().join("a.yaml"), format!("node: {{}}\n{pipeline}")).unwrap();
    std::fs::write(directory.path().join("b.yml"), "node: {}\n").unwrap();
    std::fs::write(directory.path().join("notes.txt"), ": : :").unwrap();
    let found = load(&[directory.path().to_owned()], &registry()).map(|_| ()).unwrap_err();
    assert!(found.to_string().contains("`node` stands in another file already"), "{found}");
    std::fs::write(directory.path().join("b.yml"), pipeline).unwrap();
    let found = load(&[directory.path().to_owned()], &registry()).map(|_| ()).unwrap_err();
    assert_eq!(found.list().len(), 1);
    assert!(found.to_string().contains("b.yml:2:3: there is a pipeline `p` already"), "{found}");
    std::fs::write(directory.path().join("b.yml"), "# nothing\n").unwrap();
    assert_eq!(load(&[directory.path().to_owned()], &registry()).unwrap().pipelines.len(), 1);
    let missing = load(&[directory.path().join("nope.yaml")], &registry()).map(|_| ()).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
}

#[test]
fn bootstrap_servers_are_addresses() {
    let found = problems("cluster: { bootstrap_servers: [good:9092, bad, \"::1:9092\"] }\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(problems("cluster: {}\n")[0].1, "CONFIG_MISSING");
    assert_eq!(problems("cluster: { bootstrap_servers: [] }\n")[0].1, "CONFIG_ADDRESS");
}

#[test]
fn the_embedded_brokers_options_do_not_go_with_a_cluster() {
    let found =
        problems("node: { kafka: \"a:1\", http: \"a:2\" }\ncluster: { bootstrap_servers: [\"b:3\"] }\n");
    assert_eq!(found, [("t.yaml:1:9".to_owned(), "CONFIG_CLUSTER")]);
    assert_eq!(problems("node: { kafka: \"a:1\", http: \"a:1\" }\n")[0].1, "CONFIG_ADDRESS");
    assert!(load_text("t.yaml", "node: { kafka: \"a:0\", http: \"a:0\" }\n", &registry()).is_ok());
}

#[test]
fn a_part_that_no_topic_has_is_told() {
    let yaml = |topics: &str, part: u32| {
        format!(
            "pipelines: {{ p: {{ {topics}, sink: {{ type: db, url: \"db://h/{{topic.{part}}}\" }} }} }}\n"
        )
    };
    let source = "source: { type: db_cdc, url: db://h }";
    for (topics, last) in [
        ("topics: [a.b.c, a.b]".to_owned(), 1),
        (format!("{source}, topic: \"shop.{{schema}}.{{table}}\""), 2),
    ] {
        assert!(load_text("t.yaml", &yaml(&topics, last), &registry()).is_ok(), "{topics}");
        assert_eq!(problems(&yaml(&topics, last + 1))[0].1, "CONFIG_TEMPLATE", "{topics}");
    }
    assert!(
        load_text("t.yaml", &yaml("topics: [\"a.*\"]", 9), &registry()).is_ok(),
        "a star may stand for dots"
    );
}

#[test]
fn a_reader_of_what_nobody_writes_is_warned() {
    let yaml = |topics: &str| {
        format!(
            "pipelines:\n  s: {{ source: {{ type: db_cdc, url: db://h }}, topic: \"shop.{{table}}\" }}\n  \
             k: {{ topics: [{topics}], sink: {{ type: db, url: db://h }} }}\n"
        )
    };
    let warnings = |topics: &str| load_text("t.yaml", &yaml(topics), &registry()).unwrap().warnings;
    assert!(warnings("\"shop.*\", shop.orders, s.dead-letter").is_empty());
    let found = warnings("shop.orders, ship.orders");
    assert_eq!(found.list()[0].position().unwrap(), "t.yaml:3:30");
    assert!(found.to_string().contains("`ship.orders`"), "{found}");
    let alone = "pipelines: { k: { topics: [x], sink: { type: db, url: db://h } } }";
    assert!(
        load_text("t.yaml", alone, &registry()).unwrap().warnings.is_empty(),
        "somebody else writes here"
    );
}

#[test]
fn files_are_told_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let told = |path| {
        let found = load(&[path], &registry()).map(|_| ()).unwrap_err();
        (
            found.list()[0].code,
            found.list()[0].position().unwrap_or_default(),
            found.list()[0].hint.clone().unwrap(),
        )
    };
    let (code, position, hint) = told(file("latin1.yaml", b"node:\n  message: gr\xfc\xdfe\n"));
    assert_eq!((code, position.ends_with("latin1.yaml:2:14")), ("CONFIG_ENCODING", true), "{position}");
    assert!(hint.contains("UTF-8"));
    assert_eq!(told(folder.path().join("nowhere")).0, "CONFIG_UNREADABLE");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(empty.join(".#hidden.yaml"), "not: [yaml").unwrap();
    assert_eq!(told(empty).0, "CONFIG_EMPTY_DIRECTORY");
    let twice = file(
        "twice.yaml",
        b"\xef\xbb\xbfpipelines: { k: { topics: [x], sink: { type: db, url: db://h } } }\n",
    );
    assert!(
        load(&[twice.clone(), folder.path().join("./twice.yaml")], &registry()).is_ok(),
        "named twice, meant once"
    );
}

#[test]
fn what_is_shown_of_a_problem_holds_no_secret() {
    let text = "pipelines:\n  p:\n    topics: [t]\n    sink: { type: db, url: \"mysql://u:geheim99@h/db\", geheim99: 1 }\n";
    let found = load_text("t.yaml", text, &registry()).map(|_| ()).unwrap_err();
    let shown: String = found.reports().map(|report| format!("{report:?}")).collect();
    assert!(shown.contains("mysql://u:********@h/db"), "{shown}");
    assert!(!format!("{shown}{found}{}", found.to_json()).contains("geheim99"), "{shown}");
}

#[test]
fn a_pipelines_identity_is_free_of_secrets_and_a_connectors_words_find_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("pw");
    let yaml = format!(
        "pipelines:\n  p:\n    topics: [t]\n    sink: {{ type: db, url: \"db://u:${{file:{}}}@h\", tables: [a, b] }}\n",
        secret.display()
    );
    let with = |password: &str| {
        std::fs::write(&secret, password).unwrap();
        load_text("t.yaml", &yaml, &registry()).unwrap()
    };
    let config = with("geheim99");
    assert_eq!(config.pipelines[0].content_hash, with("anders77").pipelines[0].content_hash);
    let at = |half, path| config.place("p", half, path).unwrap().line_and_column();
    assert_eq!(
        (at("sink", Some("tables[1]")).0, at("sink", Some("nothing")), at("source", None)),
        (4, (4, 28), (2, 3))
    );
}

#[test]
fn the_json_schema_knows_every_type_and_option() {
    let schema = json_schema(&registry());
    let source = &schema["$defs"]["source"]["oneOf"][0];
    assert_eq!(source["properties"]["type"]["const"], "db_cdc");
    assert_eq!(source["required"], json!(["type", "url"]));
    assert_eq!(source["additionalProperties"], false);
    assert_eq!(schema["properties"]["node"]["properties"]["kafka"]["default"], "127.0.0.1:9092");
}
