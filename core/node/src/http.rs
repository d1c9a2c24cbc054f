//! /health, /ready, /metrics, /status, and the actions on pipelines.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use towpath_broker::Broker;
use towpath_runtime::Supervisor;
use towpath_telemetry::MetricsHandle;

/// What the pages show; filled while the process starts.
#[derive(Default)]
pub(crate) struct Shown {
    /// The embedded broker, if there is one.
    pub(crate) broker: OnceLock<Arc<Broker>>,
    /// The supervisor, once everything runs.
    pub(crate) supervisor: OnceLock<Arc<Supervisor>>,
    /// Brokers of someone else's cluster.
    pub(crate) bootstrap_servers: Vec<String>,
    /// The metrics, if they were installed.
    pub(crate) metrics: Option<MetricsHandle>,
}

/// Serves until the process ends; returns where.
pub(crate) async fn serve(address: &str, shown: Arc<Shown>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    let router = Router::new()
        .route("/", get(status))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/pipelines/{name}/{action}", post(act))
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
    if shown.supervisor.get().is_some() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "starting" }))).into_response()
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    match &shown.metrics {
        Some(metrics) => ([("content-type", "text/plain; version=0.0.4")], metrics.render()).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn status(State(shown): State<Arc<Shown>>) -> Response {
    let broker = shown.broker.get().map(|broker| {
        let status = broker.status();
        json!({
            "kafka": broker.local_addr().map(|address| address.to_string()),
            "cluster_id": status.cluster_id,
            "connections": status.connections,
            "topics": status.topics,
            "partitions": status.partitions,
            "request_memory_bytes": status.request_memory_bytes,
            "offline_reason": status.offline_reason,
        })
    });
    let cluster =
        if broker.is_none() { Some(json!({ "bootstrap_servers": shown.bootstrap_servers })) } else { None };
    let pipelines = match shown.supervisor.get() {
        Some(supervisor) => supervisor.status(),
        None => Vec::new(),
    };
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "broker": broker,
        "cluster": cluster,
        "pipelines": pipelines,
    }))
    .into_response()
}

async fn act(State(shown): State<Arc<Shown>>, Path((name, action)): Path<(String, String)>) -> Response {
    let Some(supervisor) = shown.supervisor.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "towpath is starting" })))
            .into_response();
    };
    let known = match action.as_str() {
        "pause" => supervisor.pause(&name),
        "resume" => supervisor.resume(&name),
        "restart" => supervisor.restart(&name),
        other => {
            let body = json!({ "error": format!("`{other}` is no action: pause, resume or restart") });
            return (StatusCode::NOT_FOUND, Json(body)).into_response();
        }
    };
    if known {
        return Json(json!({ "pipeline": name, "done": action })).into_response();
    }
    (StatusCode::NOT_FOUND, Json(json!({ "error": format!("there is no pipeline `{name}`") })))
        .into_response()
}
