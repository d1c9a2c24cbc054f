//! `towpath pipelines`: asks a running towpath over HTTP.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::cli::{Node, Pipelines};
use crate::failure::Failure;
use crate::output::{Listing, print_json, tell};

pub(super) async fn run(command: Pipelines, json: bool) -> Result<(), Failure> {
    match command {
        Pipelines::List { node } => list(&status(&node).await?, json),
        Pipelines::Status { node, pipelines } => show(&status(&node).await?, &pipelines, json),
        Pipelines::Pause { node, pipeline } => act(&node, &pipeline, "pause", "paused").await,
        Pipelines::Resume { node, pipeline } => act(&node, &pipeline, "resume", "resumed").await,
        Pipelines::Restart { node, pipeline } => act(&node, &pipeline, "restart", "restarted").await,
    }
}

async fn request(node: &Node, method: reqwest::Method, path: &str) -> Result<Json, Failure> {
    let url = format!("http://{}{path}", node.http);
    let unreachable = |error: reqwest::Error| {
        Failure::new(format!("no towpath answers at {}: {}", node.http, error.without_url()))
            .with_hint("start one with `towpath up FILE`, or name its `node: http:` address with --http")
    };
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().map_err(unreachable)?;
    let response = client.request(method, url).send().await.map_err(unreachable)?;
    let status = response.status();
    let body: Json = response.json().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(body);
    }
    let message = body.get("error").and_then(Json::as_str).map_or_else(|| status.to_string(), str::to_owned);
    Err(Failure::new(message))
}

async fn status(node: &Node) -> Result<Vec<Json>, Failure> {
    let mut status = request(node, reqwest::Method::GET, "/status").await?;
    match status.get_mut("pipelines").map(Json::take) {
        Some(Json::Array(pipelines)) => Ok(pipelines),
        _ => Err(Failure::new(format!("what answers at {} is no towpath", node.http))),
    }
}

fn list(pipelines: &[Json], json: bool) -> Result<(), Failure> {
    let mut listing =
        Listing::new(&[("PIPELINE", "pipeline"), ("STATE", "state"), ("TASKS", "tasks"), ("LAG", "lag")]);
    for pipeline in pipelines {
        let tasks = pipeline["tasks"].as_array().map_or(&[][..], Vec::as_slice);
        // Unknown as long as one task's is; sources have none.
        let lags = tasks.iter().filter(|task| task["direction"] == "sink").map(|task| task["lag"].as_u64());
        let lag = lags
            .collect::<Option<Vec<_>>>()
            .filter(|lags| !lags.is_empty())
            .map(|lags| lags.iter().sum::<u64>());
        listing.row(vec![
            pipeline["name"].clone(),
            pipeline["state"].clone(),
            json!(tasks.len()),
            json!(lag),
        ]);
    }
    listing.print(json)
}

fn show(pipelines: &[Json], wanted: &[String], json: bool) -> Result<(), Failure> {
    let named =
        |pipeline: &&Json| wanted.is_empty() || wanted.iter().any(|name| pipeline["name"] == name.as_str());
    let chosen: Vec<_> = pipelines.iter().filter(named).collect();
    if let Some(unknown) = wanted.iter().find(|name| !pipelines.iter().any(|it| it["name"] == name.as_str()))
    {
        return Err(Failure::new(format!("there is no pipeline `{unknown}`"))
            .with_hint("see `towpath pipelines list`"));
    }
    if json {
        return print_json(&json!(chosen));
    }
    let mut listing = Listing::new(&[
        ("TASK", "task"),
        ("STATE", "state"),
        ("POSITION", "position"),
        ("LAG", "lag"),
        ("RECORDS", "records"),
        ("RECORDS/S", "records_per_second"),
        ("DEAD LETTERS", "dead_letters"),
        ("RESTARTS", "restarts"),
        ("LAST ERROR", "error"),
    ]);
    let mut hints = Vec::new();
    for task in chosen.iter().flat_map(|pipeline| pipeline["tasks"].as_array().into_iter().flatten()) {
        let error = &task["last_error"];
        let code = error["code"].as_str().unwrap_or_default();
        if let Some(hint) = error["hint"].as_str() {
            hints.push(format!("{code}: {hint}"));
        }
        let rate = task["records_per_second"].as_f64().unwrap_or_default();
        let mut row = vec![task["id"].clone()];
        row.extend(["state", "position", "lag", "records"].map(|key| task[key].clone()));
        row.push(json!(rate.round()));
        row.extend(["dead_letters", "restarts"].map(|key| task[key].clone()));
        row.push(json!(error["message"].as_str().map(|text| format!("{code}: {text}"))));
        listing.row(row);
    }
    listing.print(false)?;
    hints.sort();
    hints.dedup();
    hints.iter().for_each(|hint| tell(hint));
    Ok(())
}

async fn act(node: &Node, pipeline: &str, action: &str, done: &str) -> Result<(), Failure> {
    request(node, reqwest::Method::POST, &format!("/pipelines/{pipeline}/{action}")).await?;
    tell(&format!("{pipeline} is {done}"));
    Ok(())
}
