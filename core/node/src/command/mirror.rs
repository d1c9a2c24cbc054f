//! `towpath mirror`: the mirrors of the files, without a broker of their own.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use towpath_config::Config;
use towpath_mirror::{Link, LinkState};

use super::pipelines::{not_ours, request};
use super::start::{Signals, configuration, in_use};
use crate::cli::{Files, Mirror, MirrorCommand, Node};
use crate::failure::{Failure, chain};
use crate::http::{self, Shown};
use crate::mirrors;
use crate::output::{Listing, print_json, tell};
use crate::paused::Paused;

pub(super) async fn run(mirror: Mirror, json: bool) -> Result<(), Failure> {
    match mirror.command {
        None => start(&mirrors_of(mirror.files), json).await,
        Some(MirrorCommand::Plan { files }) => plan(&mirrors_of(files), json).await,
        Some(MirrorCommand::Status { node, mirrors, partitions, groups }) => {
            let chosen = status(&node, &mirrors).await?;
            if json {
                return print_json(&json!(chosen));
            }
            if partitions {
                return show_partitions(&chosen);
            }
            if groups {
                return show_groups(&chosen);
            }
            show(&chosen)
        }
    }
}

/// Every topic with what is to be done for it, if anything.
async fn plan(files: &Files, json: bool) -> Result<(), Failure> {
    let config = declared(files, json)?;
    let mut listing =
        Listing::new(&[("MIRROR", "mirror"), ("TOPIC", "topic"), ("TARGET", "target"), ("CHANGE", "change")]);
    let mut all = Vec::new();
    for mirror in &config.mirrors {
        let planned = towpath_mirror::plan(&mirrors::link(mirror)).await.map_err(|error| {
            Failure::new(format!("{}: {error}", mirror.name))
                .with_hint("are the addresses under `clusters:` right, and do the brokers answer?")
        })?;
        for topic in planned {
            let changes: Vec<_> = topic.changes.iter().map(ToString::to_string).collect();
            let change = if changes.is_empty() { "in line".to_owned() } else { changes.join("; ") };
            listing.row(vec![json!(mirror.name), json!(topic.topic), json!(topic.target), json!(change)]);
            all.push(json!({ "mirror": mirror.name, "topic": topic.topic, "target": topic.target, "changes": topic.changes }));
        }
    }
    if json { print_json(&json!(all)) } else { listing.print(false) }
}

/// Mirrors run no plugins.
pub(super) const fn mirrors_of(files: Vec<PathBuf>) -> Files {
    Files { files, locked: false }
}

/// The files, which must declare mirrors.
pub(super) fn declared(files: &Files, json: bool) -> Result<Config, Failure> {
    let (config, _) = configuration(files, None, json)?;
    if config.mirrors.is_empty() {
        return Err(Failure::new("the files declare no mirrors").with_hint(
            "add `clusters:` with two of them, and `mirrors: { us-to-eu: { from: us, to: eu } }`",
        ));
    }
    Ok(config)
}

async fn start(files: &Files, json: bool) -> Result<(), Failure> {
    let config = declared(files, json)?;
    let mut signals = Signals::new(false)?;
    let metrics = towpath_telemetry::install_metrics()
        .map_err(|error| Failure::new(format!("metrics cannot be collected: {}", chain(&error))))?;
    towpath_client::describe_metrics();
    let paused = Paused::load(&config.node.data_dir)
        .map_err(|error| Failure::new(format!("what was paused cannot be read: {error}")))?;
    let shown = Arc::new(Shown::new(&config, metrics, paused));
    let http = http::serve(&config.node.http, Arc::clone(&shown))
        .await
        .map_err(|error| in_use("HTTP", "http", &config.node.http, &error))?;
    let links = Arc::new(mirrors::start(&config));
    // Set once, here: nobody else fills it.
    drop(shown.mirrors.set(Arc::clone(&links)));
    shown.ready.get_or_init(|| ());
    greet(&config, &http.to_string());
    let outcome = tokio::select! {
        () = signals.wait() => Ok(()),
        failed = all_failed(&links) => Err(failed),
    };
    tell("ending: what is on its way is done again at the next start, and not doubled");
    tokio::select! {
        () = stop(&links) => outcome,
        () = signals.again() => outcome,
    }
}

fn greet(config: &Config, http: &str) {
    let count = config.mirrors.len();
    let noun = if count == 1 { "mirror" } else { "mirrors" };
    tell(&format!("towpath {} mirrors: http://{http}/status, {count} {noun}", env!("CARGO_PKG_VERSION")));
    for mirror in &config.mirrors {
        tell(&format!(
            "{}: {} → {}, topics {}",
            mirror.name, mirror.from.alias, mirror.to.alias, mirror.topics
        ));
    }
}

/// Resolves when none of the links goes on by itself any more.
async fn all_failed(links: &[Link]) -> Failure {
    for link in links {
        link.ended().await;
    }
    let failed = links.iter().map(Link::status).find(|status| status.state == LinkState::Failed);
    let problem = failed.and_then(|status| Some(format!("{}: {}", status.link, status.problem?)));
    Failure::new(problem.unwrap_or_else(|| "every mirror has ended".to_owned()))
}

async fn stop(links: &[Link]) {
    for link in links {
        link.stop().await;
    }
}

async fn status(node: &Node, wanted: &[String]) -> Result<Vec<Json>, Failure> {
    let mut status = request(node, reqwest::Method::GET, "/status").await?;
    let Some(Json::Array(all)) = status.get_mut("mirrors").map(Json::take) else {
        return Err(not_ours(node));
    };
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|it| it["link"] == name.as_str())) {
        let known: Vec<_> = all.iter().filter_map(|it| it["link"].as_str()).collect();
        return Err(Failure::new(format!("there is no mirror `{unknown}`")).with_hint(format!(
            "the mirrors that run at {}: {}",
            node.http,
            known.join(", ")
        )));
    }
    let named = |it: &Json| wanted.is_empty() || wanted.iter().any(|name| it["link"] == name.as_str());
    Ok(all.into_iter().filter(named).collect())
}

fn entries<'a>(mirror: &'a Json, key: &str) -> &'a [Json] {
    mirror[key].as_array().map_or(&[], Vec::as_slice)
}

/// `0.4s`
fn seconds(ms: i64) -> String {
    format!("{:.1}s", ms as f64 / 1e3)
}

fn show(mirrors: &[Json]) -> Result<(), Failure> {
    let mut listing = Listing::new(&[
        ("MIRROR", "link"),
        ("FROM", "from"),
        ("TO", "to"),
        ("STATE", "state"),
        ("PARTITIONS", "partitions"),
        ("STOPPED", "stopped"),
        ("LAG", "lag"),
        ("LAG BYTES", "lag_bytes"),
        ("BEHIND", "behind"),
        ("GROUPS", "groups"),
        ("PROBLEM", "problem"),
    ]);
    let mut notes = Vec::new();
    for mirror in mirrors {
        let partitions = entries(mirror, "partitions");
        // Unknown as long as one partition's is.
        let lag = partitions.iter().map(|it| it["lag"].as_i64()).sum::<Option<i64>>();
        let lag_bytes = partitions.iter().map(|it| it["lag_bytes"].as_u64()).sum::<Option<u64>>();
        // As old as the oldest partition.
        let behind = partitions.iter().map(|it| it["behind_ms"].as_i64()).collect::<Option<Vec<_>>>();
        let behind = behind.and_then(|all| all.into_iter().max()).map(seconds);
        let stopped = partitions.iter().filter(|it| it["stopped"] == true).count();
        let problem = mirror["problem"].as_str().map(str::to_owned);
        let of_partition = || partitions.iter().find_map(|it| Some(it["problem"].as_str()?.to_owned()));
        let mut row: Vec<Json> = ["link", "from", "to", "state"].map(|key| mirror[key].clone()).into();
        row.extend([
            json!(partitions.len()),
            json!(stopped),
            json!(lag),
            json!(lag_bytes),
            json!(behind),
            json!(mirror["groups"].as_object().map_or(0, serde_json::Map::len)),
            json!(problem.or_else(of_partition)),
        ]);
        listing.row(row);
        for left_out in entries(mirror, "left_out") {
            let text = |at: usize| left_out[at].as_str().unwrap_or_default();
            notes.push(format!(
                "{}: `{}` is not mirrored: {}",
                mirror["link"].as_str().unwrap_or_default(),
                text(0),
                text(1)
            ));
        }
    }
    listing.print(false)?;
    notes.iter().for_each(|note| tell(note));
    Ok(())
}

fn show_partitions(mirrors: &[Json]) -> Result<(), Failure> {
    let mut listing = Listing::new(&[
        ("MIRROR", "link"),
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("TARGET", "target"),
        ("MIRRORED", "mirrored"),
        ("LAG", "lag"),
        ("LAG BYTES", "lag_bytes"),
        ("BEHIND", "behind"),
        ("PROBLEM", "problem"),
    ]);
    for mirror in mirrors {
        for partition in entries(mirror, "partitions") {
            let mut row = vec![mirror["link"].clone()];
            row.extend(
                ["topic", "partition", "target", "mirrored", "lag", "lag_bytes"]
                    .map(|key| partition[key].clone()),
            );
            row.push(json!(partition["behind_ms"].as_i64().map(seconds)));
            row.push(partition["problem"].clone());
            listing.row(row);
        }
    }
    listing.print(false)
}

fn show_groups(mirrors: &[Json]) -> Result<(), Failure> {
    let mut listing = Listing::new(&[
        ("MIRROR", "link"),
        ("GROUP", "group"),
        ("STATE", "state"),
        ("PARTITIONS", "partitions"),
        ("TWICE", "twice"),
        ("UNMIRRORED", "unmirrored"),
        ("PROBLEM", "problem"),
    ]);
    for mirror in mirrors {
        for (name, group) in mirror["groups"].as_object().into_iter().flatten() {
            let mut row = vec![mirror["link"].clone(), json!(name)];
            row.extend(
                ["state", "partitions", "twice", "unmirrored", "problem"].map(|key| group[key].clone()),
            );
            listing.row(row);
        }
    }
    listing.print(false)
}
