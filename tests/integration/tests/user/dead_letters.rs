//! Records that nobody can take: where a user sees them, and why.

use towpath_harness::process::Options;
use towpath_harness::{Postgres, Towpath, postgres};

use super::support::{ask, ask_with, task, wait_until};

#[test]
fn a_dead_letter_is_counted_named_and_readable() {
    let server = Postgres::start(&postgres::Options::replica()).unwrap();
    server.create_database("w").unwrap();
    server.psql("w", "CREATE TABLE numbers (id int PRIMARY KEY, n int)").unwrap();
    let yaml = format!(
        "pipelines:\n  lines:\n    source: {{ type: file, paths: [in.jsonl], format: json, key: id }}\n    topic: numbers\n  \
         store:\n    topics: [numbers]\n    sink: {{ type: postgres, url: \"{}\", table: numbers, key: [id] }}\n",
        server.url("w")
    );
    let mut towpath = Towpath::prepare(Options::yaml(yaml)).unwrap();
    let lines =
        "{\"id\": 1, \"n\": 10}\nthis is no JSON\n{\"id\": 2, \"n\": \"many\"}\n{\"id\": 3, \"n\": 30}\n";
    std::fs::write(towpath.folder().join("in.jsonl"), lines).unwrap();
    towpath.start_again().unwrap();
    let stored =
        || server.psql("w", "SELECT string_agg(id || '=' || n, ',' ORDER BY id) FROM numbers").unwrap();
    wait_until("the good ones are stored", stored, |rows| rows == "1=10,3=30");
    wait_until("the source's is counted", || task(&towpath, "lines/source/0"), |it| it["dead_letters"] == 1);
    wait_until("the sink's is counted", || task(&towpath, "store/sink/0"), |it| it["dead_letters"] == 1);
    let status = ask(&towpath, &["pipelines", "status"]);
    status.says(
        0,
        &["lines: 1 dead letters, and why: towpath consume lines.dead-letter --from-beginning --verbose"],
    );
    for (pipeline, value, code) in
        [("lines", "this is no JSON", "FILE_NOT_JSON"), ("store", "{\"id\":2,\"n\":\"many\"}", "")]
    {
        let topic = format!("{pipeline}.dead-letter");
        let letters = ask(&towpath, &["consume", &topic, "-f", "-e", "--json"]).json_lines();
        assert_eq!((letters.len(), letters[0]["value"].as_str()), (1, Some(value)), "{letters:?}");
        let headers = letters[0]["headers"].as_array().unwrap();
        let header =
            |name: &str| headers.iter().find(|it| it["name"] == name).map(|it| it["value"].as_str().unwrap());
        assert!(header("towpath.error.code").unwrap().contains(code), "{headers:?}");
        assert!(header("towpath.error.message").is_some_and(|text| !text.is_empty()), "{headers:?}");
        assert_eq!(header("towpath.error.pipeline"), Some(pipeline));
        ask(&towpath, &["consume", &topic, "-f", "-e", "-v"])
            .says(0, &["towpath.error.code=", "towpath.error.message="]);
    }
    // A pattern does not take them in: nobody reads his own dead letters by accident.
    ask(&towpath, &["topics", "list"]).says(0, &["lines.dead-letter", "store.dead-letter"]);
    ask_with(&towpath, &["produce", "numbers"], "{\"id\": 4, \"n\": 40}\n").says(0, &[]);
    wait_until("it goes on behind them", stored, |rows| rows == "1=10,3=30,4=40");
}
