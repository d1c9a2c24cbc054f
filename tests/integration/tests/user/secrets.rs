//! R13: a secret is in no log, no status, no metric, no error, no topic, and in no file that we write.

use std::path::Path;

use towpath_harness::process::Options;
use towpath_harness::{Postgres, TempDir, Towpath, postgres};

use super::support::{LONG, ask, task, type_in, wait_state, wait_until};

const SECRET: &str = "geheim-77-wort";

fn holds(folder: &Path, needle: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() {
            return holds(&path, needle);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle.as_bytes()).then_some(path)
    })
}

#[test]
fn a_password_stays_where_it_is() {
    let mut server = Postgres::start(&postgres::Options::logical()).unwrap();
    server.create_database("shop").unwrap();
    server.psql("shop", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").unwrap();
    let url = server.url_as(&format!("postgres:{SECRET}"), "shop");
    let yaml = "pipelines:\n  p:\n    source: { type: postgres_cdc, url: \"${env:SHOP_URL}\", tables: [t] }\n    topic: t\n  \
                q:\n    topics: [t]\n    sink: { type: postgres, url: \"${env:SHOP_URL}\", table: copy }\n  \
                h:\n    topics: [t]\n    sink: { type: http, url: \"http://127.0.0.1:1/?token=${env:TOKEN}\", headers: { Authorization: \"${env:TOKEN}\" } }\n";
    let options =
        Options::yaml(yaml).env("SHOP_URL", url.clone()).env("TOKEN", SECRET).env("TOWPATH_LOG", "trace");
    let mut towpath = Towpath::start(options.arg("--no-check")).unwrap();
    wait_until("the row is copied", || task(&towpath, "q/sink/0"), |it| it["records"] == 1);
    wait_state(&towpath, "h/sink/0", "RETRYING");
    server.kill9().unwrap();
    wait_state(&towpath, "p/source/0", "RETRYING");
    let mut said = ask(&towpath, &["pipelines", "status"]).flat();
    said += &ask(&towpath, &["connectors", "types", "--json"]).flat();
    for page in ["/status", "/metrics", "/health", "/ready"] {
        said += &towpath.get(page).unwrap().body;
    }
    let env = [("SHOP_URL", url.as_str()), ("TOKEN", SECRET)];
    let config = towpath.config_path();
    for command in ["check", "validate"] {
        said += &type_in(towpath.folder(), &[command, config.to_str().unwrap()], "", &env).flat();
    }
    assert!(towpath.terminate(LONG).is_ok());
    said += &towpath.stdout();
    assert!(towpath.stderr().len() > 1000, "it was asked to say everything");
    said += &towpath.stderr();
    assert!(
        !said.contains(SECRET),
        "{}",
        said.lines().find(|line| line.contains(SECRET)).unwrap_or_default()
    );
    assert_eq!(holds(&towpath.data_dir(), SECRET), None);
}

#[test]
fn what_is_shown_of_a_wrong_file_holds_no_secret() {
    let folder = TempDir::new("secret").unwrap();
    let texts = [
        "pipelines: { p: { topics: [t], sink: { type: postgres, url: \"postgres://u:SECRET@h/db\", tabel: x } } }\n",
        "pipelines: { p: { topics: [t], sink: { type: postgres, url: \"postgres://u:SECRET@h:x/db\", mode: SECRET } } }\n",
        "pipelines: { p: { topics: [t], sink: { type: http, url: \"http://h\", headers: { Authorization: \"SECRET\" }, x: 1 } } }\n",
        "pipelines: { p: { source: { type: postgres_cdc, url: \"postgres://u:SE/CRET@h/db\", tables: t } } }\n",
        "# postgres://u:SECRET@h/db\npipelines: [\n",
        "url: mysql://u:SECRET@h/db\npassword: SECRET\n",
    ];
    for text in texts {
        std::fs::write(
            folder.join("c.yaml"),
            text.replace("SE/CRET", &format!("x/{SECRET}")).replace("SECRET", SECRET),
        )
        .unwrap();
        for json in [&["validate", "c.yaml"][..], &["validate", "c.yaml", "--json"], &["up", "c.yaml"]] {
            let said = type_in(folder.path(), json, "", &[]);
            assert_eq!(said.code, 2, "{}", said.err);
            assert!(!format!("{}{}", said.out, said.err).contains(SECRET), "{text}: {}", said.err);
        }
    }
}
