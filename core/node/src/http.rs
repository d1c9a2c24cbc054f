//! /health, /ready, /metrics, /status, and the actions on pipelines.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use towpath_api::pipeline::PipelineSpec;
use towpath_broker::Broker;
use towpath_config::{ClusterConfig, Config};
use towpath_mirror::Link;
use towpath_runtime::{PipelineStatus, Supervisor};
use towpath_telemetry::MetricsHandle;

use crate::mirrors;
use crate::paused::Paused;
use crate::scrape;

/// How often what histograms have collected is folded.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What the pages show; filled while the process starts.
pub(crate) struct Shown {
    /// The embedded broker, if there is one.
    pub(crate) broker: OnceLock<Arc<Broker>>,
    /// The supervisor, once everything runs.
    pub(crate) supervisor: OnceLock<Arc<Supervisor>>,
    /// The mirrors, where there are any.
    pub(crate) mirrors: OnceLock<Arc<Vec<Link>>>,
    /// What stays paused.
    pub(crate) paused: Paused,
    /// Set once clients are served and pipelines, where there are any, run.
    pub(crate) ready: OnceLock<()>,
    /// Which cluster the files name.
    cluster: Option<Value>,
    /// What the files say of each pipeline.
    declared: BTreeMap<String, Map<String, Value>>,
    metrics: MetricsHandle,
    started: SystemTime,
}

impl Shown {
    /// What is known before anything is started.
    pub(crate) fn new(config: &Config, metrics: MetricsHandle, paused: Paused) -> Self {
        Self {
            paused,
            broker: OnceLock::new(),
            supervisor: OnceLock::new(),
            mirrors: OnceLock::new(),
            ready: OnceLock::new(),
            cluster: cluster(config),
            declared: config.pipelines.iter().map(|it| (it.name.clone(), declared(it))).collect(),
            metrics,
            started: SystemTime::now(),
        }
    }
}

/// Someone else's cluster, or our own and what this node is in it.
fn cluster(config: &Config) -> Option<Value> {
    Some(match config.cluster.as_ref()? {
        ClusterConfig::Foreign { bootstrap_servers } => json!({ "bootstrap_servers": bootstrap_servers }),
        ClusterConfig::Own(own) => json!({
            "name": own.name,
            "node_id": config.node.id,
            "controllers": own.controllers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    })
}

fn declared(pipeline: &PipelineSpec) -> Map<String, Value> {
    let patterns: Vec<_> = pipeline.sink_topics().iter().map(|topic| topic.as_str().to_owned()).collect();
    let letters = pipeline.dead_letter_topic().ok().filter(|_| pipeline.dead_letter.enabled);
    let declared = json!({
        "topic": pipeline.topic.as_ref().map(|topic| topic.as_str()),
        "topics": pipeline.sink.as_ref().map(|_| patterns),
        "dead_letter_topic": letters.as_ref().map(|topic| topic.as_str()),
    });
    declared.as_object().cloned().unwrap_or_default()
}

/// Serves until the process ends; returns where.
pub(crate) async fn serve(address: &str, shown: Arc<Shown>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    // What histograms collect must not pile up while nobody asks (R10).
    let upkeep = Arc::clone(&shown);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            upkeep.metrics.upkeep();
        }
    });
    let router = Router::new()
        .route("/", get(status))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/pipelines/{name}/{action}", post(act))
        .fallback(unknown)
        .with_state(shown);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the HTTP server has ended");
        }
    });
    Ok(local)
}

/// Whether the process is worth keeping: 503 once its disk has failed (R14).
async fn health(State(shown): State<Arc<Shown>>) -> Response {
    match shown.broker.get().and_then(|broker| broker.status().offline_reason) {
        None => Json(json!({ "status": "ok" })).into_response(),
        Some(reason) => {
            let body = json!({ "status": "offline", "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// Whether clients can be served and pipelines run.
async fn ready(State(shown): State<Arc<Shown>>) -> Response {
    if shown.ready.get().is_some() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "starting" }))).into_response()
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    let links = shown.mirrors.get().map_or(&[][..], |links| links.as_slice());
    let text = shown.metrics.render() + &scrape::render(shown.broker.get().map(Arc::as_ref), links);
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn status(State(shown): State<Arc<Shown>>) -> Response {
    let broker = shown.broker.get().map(|broker| {
        let status = broker.status();
        let offline_dirs: Map<String, Value> = status
            .offline_dirs
            .iter()
            .map(|(dir, reason)| (dir.display().to_string(), json!(reason)))
            .collect();
        json!({
            "kafka": broker.local_addr().map(|address| address.to_string()),
            "cluster_id": status.cluster_id,
            "connections": status.connections,
            "topics": status.topics,
            "partitions": status.partitions,
            "request_memory_bytes": status.request_memory_bytes,
            "request_memory_limit_bytes": status.request_memory_limit_bytes,
            "offline_reason": status.offline_reason,
            "offline_dirs": offline_dirs,
        })
    });
    let running = shown.supervisor.get().map(|supervisor| supervisor.status()).unwrap_or_default();
    let pipelines: Vec<_> = running.iter().map(|pipeline| as_json(&shown, pipeline)).collect();
    let uptime = shown.started.elapsed().unwrap_or_default();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": shown.ready.get().is_some(),
        "uptime_ms": u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        "broker": broker,
        "cluster": shown.cluster,
        "pipelines": pipelines,
        "mirrors": shown.mirrors.get().map_or_else(|| json!([]), |links| mirrors::status(links)),
    }))
    .into_response()
}

/// What runs, and what the files say about it.
fn as_json(shown: &Shown, pipeline: &PipelineStatus) -> Value {
    let mut object = json!({ "name": pipeline.name, "state": pipeline.state });
    if let (Some(object), Some(declared)) = (object.as_object_mut(), shown.declared.get(&pipeline.name)) {
        object.extend(declared.clone());
    }
    object["dead_letters"] = json!(pipeline.tasks.iter().map(|task| task.dead_letters).sum::<u64>());
    object["tasks"] = json!(pipeline.tasks);
    object
}

async fn unknown(uri: Uri) -> Response {
    let body = json!({
        "error": format!("there is nothing at {}", uri.path()),
        "hint": "GET /health, /ready, /metrics or /status; POST /pipelines/NAME/pause, resume, restart or reset",
    });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn act(State(shown): State<Arc<Shown>>, Path((name, action)): Path<(String, String)>) -> Response {
    let refuse = |status: StatusCode, error: String, hint: Option<String>| {
        (status, Json(json!({ "error": error, "hint": hint }))).into_response()
    };
    let Some(supervisor) = shown.supervisor.get() else {
        let why = match shown.ready.get() {
            Some(()) => "this node runs no pipelines: it was started with `towpath broker`",
            None => "towpath is starting",
        };
        return refuse(StatusCode::SERVICE_UNAVAILABLE, why.to_owned(), None);
    };
    let known = match action.as_str() {
        "pause" => supervisor.pause(&name),
        "resume" => supervisor.resume(&name),
        "restart" => supervisor.restart(&name),
        "reset" => match supervisor.reset(&name).await {
            Ok(known) => known,
            Err(error) => {
                let hint = error.hint().map(str::to_owned);
                return refuse(StatusCode::CONFLICT, error.full_message(), hint);
            }
        },
        other => {
            let error = format!("`{other}` is no action: pause, resume, restart or reset");
            return refuse(StatusCode::NOT_FOUND, error, None);
        }
    };
    if known {
        if matches!(action.as_str(), "pause" | "resume")
            && let Err(error) = shown.paused.set(&name, action == "pause")
        {
            let path = shown.paused.path().display();
            let error =
                format!("done, but it will not be so after a restart: {path} cannot be written: {error}");
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, error, None);
        }
        return Json(json!({ "pipeline": name, "done": action })).into_response();
    }
    let hint = "see `towpath pipelines list`".to_owned();
    refuse(StatusCode::NOT_FOUND, format!("there is no pipeline `{name}`"), Some(hint))
}
