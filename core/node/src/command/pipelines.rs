//! `towpath pipelines`: asks a running towpath over HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use crate::cli::{Node, Pipelines};
use crate::failure::{Failure, chain};
use crate::output::{Listing, print_json, tell};

pub(super) async fn run(command: Pipelines, json: bool) -> Result<(), Failure> {
    match command {
        Pipelines::List { node } => list(&status(&node).await?, json),
        Pipelines::Status { node, pipelines } => show(&status(&node).await?, &pipelines, json),
        Pipelines::Pause { node, pipeline } => act(&node, &pipeline, "pause", "is paused", json).await,
        Pipelines::Resume { node, pipeline } => act(&node, &pipeline, "resume", "is resumed", json).await,
        Pipelines::Restart { node, pipeline } => act(&node, &pipeline, "restart", "is restarted", json).await,
        Pipelines::Reset { node, pipeline } => {
            act(&node, &pipeline, "reset", "has forgotten how far its source was read", json).await
        }
    }
}

pub(super) async fn request(node: &Node, method: reqwest::Method, path: &str) -> Result<Json, Failure> {
    let url = format!("http://{}{path}", node.http);
    let unreachable = |error: reqwest::Error| {
        Failure::new(format!("no towpath answers at {}: {}", node.http, chain(&error.without_url())))
            .with_hint(
                "start one with `towpath up FILE`, or name its `node: http:` address with --http HOST:PORT",
            )
    };
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().map_err(unreachable)?;
    let response = client.request(method, url).send().await.map_err(unreachable)?;
    let status = response.status();
    let body: Json = response.json().await.map_err(|_| not_ours(node))?;
    if status.is_success() {
        return Ok(body);
    }
    let text = |key: &str| body.get(key).and_then(Json::as_str).map(str::to_owned);
    let failure = Failure::new(text("error").unwrap_or_else(|| status.to_string()));
    Err(match text("hint") {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    })
}

pub(super) fn not_ours(node: &Node) -> Failure {
    Failure::new(format!("what answers at {} is no towpath", node.http))
        .with_hint("--http HOST:PORT names the `node: http:` address of one")
}

async fn status(node: &Node) -> Result<Vec<Json>, Failure> {
    let mut status = request(node, reqwest::Method::GET, "/status").await?;
    match status.get_mut("pipelines").map(Json::take) {
        Some(Json::Array(pipelines)) => Ok(pipelines),
        _ => Err(not_ours(node)),
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
    let mut notes = Vec::new();
    for pipeline in chosen {
        for task in pipeline["tasks"].as_array().into_iter().flatten() {
            let rate = task["records_per_second"].as_f64().unwrap_or_default();
            let mut row = vec![task["id"].clone()];
            row.extend(["state", "position", "lag", "records"].map(|key| task[key].clone()));
            row.push(json!(rate.round() as u64));
            row.extend(["dead_letters", "restarts"].map(|key| task[key].clone()));
            row.push(json!(last_error(task)));
            listing.row(row);
            notes.extend(hint(task));
        }
        if let (Some(count @ 1..), Some(topic)) =
            (pipeline["dead_letters"].as_u64(), pipeline["dead_letter_topic"].as_str())
        {
            let name = pipeline["name"].as_str().unwrap_or_default();
            notes.push(format!(
                "{name}: {count} dead letters, and why: towpath consume {topic} --from-beginning --verbose"
            ));
        }
    }
    listing.print(false)?;
    notes.dedup();
    notes.iter().for_each(|note| tell(note));
    Ok(())
}

/// The newest error, and how long ago it was: a task that runs has overcome it.
fn last_error(task: &Json) -> Option<String> {
    let error = &task["last_error"];
    let (code, message) = (error["code"].as_str()?, error["message"].as_str()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = now.saturating_sub(Duration::from_millis(error["at_ms"].as_u64()?)).as_secs();
    let ago = match ago {
        0..120 => format!("{ago} s"),
        120..7200 => format!("{} min", ago / 60),
        _ => format!("{} h", ago / 3600),
    };
    let state = if is_troubled(task) { "" } else { ", overcome" };
    Some(format!("{code} ({ago} ago{state}): {message}"))
}

fn is_troubled(task: &Json) -> bool {
    matches!(task["state"].as_str(), Some("FAILED" | "RETRYING" | "STALLED" | "STARTING"))
}

/// What to do about it.
fn hint(task: &Json) -> Option<String> {
    let error = &task["last_error"];
    let (code, hint) = (error["code"].as_str()?, error["hint"].as_str()?);
    is_troubled(task).then(|| format!("{code}: {hint}"))
}

async fn act(node: &Node, pipeline: &str, action: &str, done: &str, json: bool) -> Result<(), Failure> {
    let body = request(node, reqwest::Method::POST, &format!("/pipelines/{pipeline}/{action}")).await?;
    if json {
        return print_json(&body);
    }
    tell(&format!("{pipeline} {done}"));
    Ok(())
}
