//! `towpath up`: everything in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use towpath_broker::Broker;
use towpath_client::{Client, ClientConfig, ClientError, InProcessTransport, NearbyTransport};
use towpath_config::{Config, Problem};
use towpath_mirror::Link;
use towpath_runtime::{Supervisor, SupervisorConfig, WorkerConfig};

use super::nodes;
use super::plugin::lock_plugins;
use super::start::{Signals, configuration, in_use, quorum_failed, shown_listeners, start_broker};
use crate::cli::Up;
use crate::failure::{Failure, chain};
use crate::first_start::Remembered;
use crate::http::{self, Shown};
use crate::mirrors;
use crate::output::{Listing, tell};
use crate::paused::Paused;
use crate::preflight;
use crate::progress::Progress;
use crate::settings::broker_config;

/// How often the progress is drawn.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// How often someone else's cluster is looked for.
const CONNECT_INTERVAL: Duration = Duration::from_secs(1);
pub(super) async fn run(up: Up, json: bool) -> Result<(), Failure> {
    let (mut config, plugins) = configuration(&up.files, up.local_node.as_ref(), json)?;
    let settings = broker_config(&config)?;
    lock_plugins(&plugins)?;
    let mut signals = Signals::new(up.local_node.is_some())?;
    if let Some(count) = up.nodes {
        return nodes::run(&config, &up, count, &mut signals, json).await;
    }
    needs_broker(&config)?;
    let mut remembered = Remembered::load(&config.node.data_dir);
    tokio::select! {
        outcome = check_first(&config, &remembered, &up) => outcome?,
        () = signals.wait() => return Err(Failure::new("interrupted; nothing was started")),
    }
    let _lock = lock_data_dir(&config)?;
    let metrics = towpath_telemetry::install_metrics()
        .map_err(|error| Failure::new(format!("metrics cannot be collected: {}", chain(&error))))?;
    towpath_runtime::metrics::describe();
    towpath_client::describe_metrics();
    let paused = load_paused(&mut config, &up)?;
    let shown = Arc::new(Shown::new(&config, metrics, paused));
    let http = http::serve(&config.node.http, Arc::clone(&shown))
        .await
        .map_err(|error| in_use("HTTP", "http", &config.node.http, &error))?;
    let broker = match config.foreign_servers() {
        None => Some(tokio::select! {
            started = start_broker(&config, settings) => started?,
            () = signals.wait() => return Err(Failure::new("interrupted before the broker was ready")),
        }),
        Some(_) => None,
    };
    if let Some(broker) = &broker {
        // Set once, here: nobody else fills it.
        drop(shown.broker.set(Arc::clone(broker)));
    }
    let client = connect(&config, broker.as_ref(), &mut signals).await?;
    tell_gone(&remembered, &config);
    let pipelines = std::mem::take(&mut config.pipelines);
    if let Err(error) = remembered.save(&pipelines) {
        tracing::warn!(%error, "what has been started cannot be remembered");
    }
    let supervisor = Supervisor::start(supervisor_config(&config, client), pipelines)
        .map_err(|error| Failure::new(chain(&error)))?;
    let supervisor = Arc::new(supervisor);
    drop(shown.supervisor.set(Arc::clone(&supervisor)));
    let links = Arc::new(mirrors::start(&config));
    drop(shown.mirrors.set(Arc::clone(&links)));
    shown.ready.get_or_init(|| ());
    greet(&config, broker.as_deref(), http, &supervisor);
    let outcome = if up.until_idle {
        tokio::select! {
            outcome = until_idle(&supervisor, &config, json) => outcome,
            () = signals.wait() => Err(Failure::new("interrupted before everything was delivered")),
        }
    } else {
        let outcome = tokio::select! {
            () = watch(&supervisor, &mut signals) => Ok(()),
            reason = failed(broker.as_deref()) => Err(quorum_failed(&reason)),
        };
        tell("ending: what is on its way is delivered first (Ctrl-C again ends at once)");
        outcome
    };
    stop(&links, &supervisor, broker.as_deref(), &mut signals).await?;
    outcome
}

/// Pipelines reach the cluster through the broker of this node.
fn needs_broker(config: &Config) -> Result<(), Failure> {
    if config.node.roles.broker || config.foreign_servers().is_some() {
        return Ok(());
    }
    Err(Failure::new("this node does not have the role `broker`, and `towpath up` runs pipelines on one")
        .with_hint("`towpath broker FILE` starts a node that is just a controller"))
}

/// Pipelines that have never run are checked, and nothing is started when one of them cannot work.
pub(super) async fn check_first(config: &Config, remembered: &Remembered, up: &Up) -> Result<(), Failure> {
    if up.no_check || !config.pipelines.iter().any(|pipeline| remembered.is_new(pipeline)) {
        return Ok(());
    }
    let found = preflight::look(config, |pipeline| remembered.is_new(pipeline)).await;
    let problems = preflight::problems(&found, config);
    if problems.is_empty() {
        return Ok(());
    }
    let outcome = "at the systems that the files name; nothing was started (`--no-check` starts all the same, and \
                   tries until they are ready)";
    Err(Failure::Systems { problems, outcome })
}

/// Pipelines that somebody has paused stay so.
fn load_paused(config: &mut Config, up: &Up) -> Result<Paused, Failure> {
    let dir = &config.node.data_dir;
    let paused = Paused::load(dir).map_err(|error| {
        Failure::new(format!("what was paused cannot be read from {}: {error}", dir.display()))
            .with_hint("remove `paused.json` there: then everything runs")
    })?;
    for pipeline in config.pipelines.iter_mut().filter(|pipeline| paused.contains(&pipeline.name)) {
        let name = &pipeline.name;
        if up.until_idle {
            return Err(Failure::new(format!("the pipeline `{name}` is paused, and so never idle"))
                .with_hint(format!(
                    "start without `--until-idle` and type `towpath pipelines resume {name}`"
                )));
        }
        tell(&format!("the pipeline `{name}` is paused; `towpath pipelines resume {name}` lets it go on"));
        pipeline.paused = true;
    }
    Ok(paused)
}

/// A pipeline that is not there any more was removed, or has another name now; in that case it begins anew.
fn tell_gone(remembered: &Remembered, config: &Config) {
    for name in remembered.gone(&config.pipelines) {
        tell(&format!(
            "the pipeline `{name}` has run here and is not in the files any more: its positions and topics stay, and what \
             it keeps in a database (a replication slot, triggers) stays until you remove it. If it only has another name \
             now, that one begins anew."
        ));
    }
}

/// Without an embedded broker, whose log directory is locked anyway, two processes must not be the same worker.
fn lock_data_dir(config: &Config) -> Result<Option<std::fs::File>, Failure> {
    if config.foreign_servers().is_none() {
        return Ok(None);
    }
    let dir = &config.node.data_dir;
    let failed = |error: std::io::Error| {
        Failure::new(format!("the data directory {} cannot be used: {error}", dir.display()))
            .with_hint("set `node: data_dir:` to a directory that this user may write to")
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let file = std::fs::File::create(dir.join(".lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
        Err(std::fs::TryLockError::WouldBlock) => Err(Failure::new(format!(
            "the data directory {} is in use by another process; stop it, or give this one another directory",
            dir.display()
        ))
        .with_hint("set `node: data_dir:` to another directory")),
    }
}

/// Someone else's cluster may be away for a while: everything that is wrong with its addresses was told by the check.
async fn connect(
    config: &Config,
    broker: Option<&Arc<Broker>>,
    signals: &mut Signals,
) -> Result<Client, Failure> {
    let mut settings = ClientConfig { client_id: "towpath".to_owned(), ..ClientConfig::default() };
    match (broker, config.foreign_servers()) {
        (Some(broker), _) => {
            let endpoint = broker.advertised().clone();
            settings.bootstrap_servers = vec![endpoint_text(&endpoint)];
            let broker = Arc::clone(broker);
            let near = InProcessTransport::new(move |stream| broker.accept_stream(stream));
            settings.transport = match config.own_cluster() {
                None => Arc::new(near),
                // The other nodes are elsewhere.
                Some(_) => Arc::new(NearbyTransport::new(endpoint.host, endpoint.port, near)),
            };
        }
        (None, Some(servers)) => settings.bootstrap_servers = servers.to_vec(),
        (None, None) => {}
    }
    let waits = broker.is_none() || config.own_cluster().is_some();
    loop {
        let error = match Client::connect(settings.clone()).await {
            Ok(client) => return Ok(client),
            Err(error @ ClientError::Bootstrap { .. }) if waits => error,
            Err(error) => return Err(error.into()),
        };
        tracing::warn!(error = chain(&error), "the cluster does not answer; trying again");
        tokio::select! {
            () = signals.wait() => return Err(Failure::new("interrupted before the cluster answered")),
            () = tokio::time::sleep(CONNECT_INTERVAL) => {}
        }
    }
}

fn endpoint_text(endpoint: &towpath_broker::Endpoint) -> String {
    let towpath_broker::Endpoint { host, port } = endpoint;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn supervisor_config(config: &Config, client: Client) -> SupervisorConfig {
    SupervisorConfig {
        // A cluster of our own outlives this process, and keeps records on several nodes: it is like any other.
        embedded: config.cluster.is_none(),
        // R4: where one node is enough for a record to count.
        flushed: config.own_cluster().is_some_and(|own| own.min_insync_replicas == 1),
        redactor: config.redactor.clone(),
        worker: Some(WorkerConfig::new(config.node.data_dir.clone())),
        ..SupervisorConfig::new(client)
    }
}

/// Tells people where things are.
fn greet(config: &Config, broker: Option<&Broker>, http: SocketAddr, supervisor: &Supervisor) {
    let listeners = shown_listeners(config, broker);
    let count = supervisor.status().len();
    let noun = if count == 1 { "pipeline" } else { "pipelines" };
    tell(&format!(
        "towpath {} is up: {listeners}, http://{http}/status, {count} {noun}",
        env!("CARGO_PKG_VERSION")
    ));
    if let Some(message) = &config.node.message {
        tell(message.trim_end());
    }
}

/// Resolves when the broker in this process has failed for good.
async fn failed(broker: Option<&Broker>) -> String {
    match broker {
        Some(broker) => broker.failed().await,
        None => std::future::pending().await,
    }
}

/// Shows snapshots until a signal comes.
async fn watch(supervisor: &Supervisor, signals: &mut Signals) {
    let mut progress = Progress::new(false);
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            () = signals.wait() => break,
            _ = ticks.tick() => progress.show(&supervisor.status()),
        }
    }
    progress.clear();
}

async fn until_idle(supervisor: &Supervisor, config: &Config, json: bool) -> Result<(), Failure> {
    let mut progress = Progress::new(true);
    let outcome = supervisor.until_idle(|now| progress.show(&now.status)).await;
    progress.clear();
    let mut listing = Listing::new(&[
        ("TASK", "task"),
        ("STATE", "state"),
        ("POSITION", "position"),
        ("RECORDS", "records"),
        ("DEAD LETTERS", "dead_letters"),
    ]);
    for task in supervisor.status().into_iter().flat_map(|pipeline| pipeline.tasks) {
        listing.row(vec![
            json!(task.id),
            json!(task.state.name()),
            json!(task.position),
            json!(task.records),
            json!(task.dead_letters),
        ]);
    }
    listing.print(json)?;
    outcome.map_err(|failure| {
        let error = failure.error.as_deref();
        let mut names = failure.task.split('/');
        let place = match (names.next(), names.next()) {
            (Some(pipeline), Some(half)) => {
                config.place(pipeline, half, error.and_then(|it| it.path.as_deref()))
            }
            _ => None,
        };
        let mut problem = match place {
            Some(place) => Problem::new("TASK_FAILED", place, failure.to_string()),
            None => Problem::without_place("TASK_FAILED", failure.to_string()),
        };
        problem.hint = error.and_then(|error| error.hint.clone());
        Failure::Systems { problems: config.problems(vec![problem]), outcome: "while everything ran" }
    })
}

/// Ends in order: tasks first, so that what they hold is delivered, then the broker. A second signal is obeyed at once.
async fn stop(
    links: &[Link],
    supervisor: &Supervisor,
    broker: Option<&Broker>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let graceful = async {
        for link in links {
            link.stop().await;
        }
        supervisor.stop().await;
        match broker {
            Some(broker) => broker.shutdown().await.map_err(|error| Failure::new(chain(&error))),
            None => Ok(()),
        }
    };
    tokio::select! {
        outcome = graceful => outcome,
        () = signals.again() => Err(Failure::new("stopped at once; what was not durable will be done again")),
    }
}
