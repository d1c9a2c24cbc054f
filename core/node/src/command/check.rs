//! `towpath check`: connects to each system and says what is missing there.

use serde_json::json;
use towpath_api::{ConnectorError, TaskContext};
use towpath_config::Config;

use super::cluster;
use crate::cli::Files;
use crate::failure::Failure;
use crate::output::{Listing, print_json, print_line};
use crate::registry::built_in;

/// What was found at one system.
struct Found {
    what: String,
    verified: Vec<String>,
    errors: Vec<ConnectorError>,
}

pub(super) async fn run(files: &Files, json: bool) -> Result<(), Failure> {
    let config = towpath_config::load(&files.files, &built_in())?;
    let mut found = Vec::new();
    if let Some(cluster) = &config.cluster {
        found.push(look_at_cluster(&cluster.bootstrap_servers).await);
    }
    for pipeline in &config.pipelines {
        let context = TaskContext::new(&pipeline.name, 0);
        if let Some(source) = &pipeline.source {
            let what = format!("{}: source {}", pipeline.name, source.kind);
            found.push(Found::of(what, source.connector.check(&context).await));
        }
        if let Some(sink) = &pipeline.sink {
            let what = format!("{}: sink {}", pipeline.name, sink.kind);
            found.push(Found::of(what, sink.connector.check(&context).await));
        }
    }
    show(&found, &config, json)?;
    if found.iter().all(|found| found.errors.is_empty()) { Ok(()) } else { Err(Failure::Told) }
}

impl Found {
    fn of(what: String, outcome: Result<Vec<String>, Vec<ConnectorError>>) -> Self {
        match outcome {
            Ok(verified) => Self { what, verified, errors: Vec::new() },
            Err(errors) => Self { what, verified: Vec::new(), errors },
        }
    }
}

async fn look_at_cluster(bootstrap_servers: &[String]) -> Found {
    let what = "cluster".to_owned();
    let outcome = async {
        let client = cluster::connect(bootstrap_servers).await?;
        client.admin().describe_cluster().await.map_err(Failure::from)
    };
    match outcome.await {
        Ok(cluster) => {
            let verified = vec![format!("{} brokers answer", cluster.brokers.len())];
            Found { what, verified, errors: Vec::new() }
        }
        Err(failure) => {
            let error = ConnectorError::needs_operator("CLUSTER_UNREACHABLE", failure.to_string())
                .with_path("cluster.bootstrap_servers");
            Found { what, verified: Vec::new(), errors: vec![error] }
        }
    }
}

fn show(found: &[Found], config: &Config, json: bool) -> Result<(), Failure> {
    let clean = |text: &str| config.redactor.redact(text).into_owned();
    if json {
        let error = |error: &ConnectorError| {
            json!({
                "code": error.code(),
                "kind": error.kind().name(),
                "path": error.path(),
                "message": clean(&error.full_message()),
                "hint": error.hint().map(clean),
            })
        };
        let one = |found: &Found| {
            json!({
                "system": found.what,
                "verified": found.verified,
                "errors": found.errors.iter().map(error).collect::<Vec<_>>(),
            })
        };
        return print_json(&json!(found.iter().map(one).collect::<Vec<_>>()));
    }
    let mut listing = Listing::new(&[("SYSTEM", "system"), ("", "outcome"), ("FOUND", "found")]);
    for found in found {
        for line in &found.verified {
            listing.row(vec![json!(found.what), json!("ok"), json!(clean(line))]);
        }
        for error in &found.errors {
            let at = error.path().map(|path| format!(" (`{path}`)")).unwrap_or_default();
            let text = format!("{}{at} [{}]", error.full_message(), error.code());
            listing.row(vec![json!(found.what), json!("MISSING"), json!(clean(&text))]);
        }
    }
    listing.print(false)?;
    for error in found.iter().flat_map(|found| &found.errors) {
        if let Some(hint) = error.hint() {
            print_line(&format!("\n{}: {}", error.code(), clean(hint)))?;
        }
    }
    Ok(())
}
