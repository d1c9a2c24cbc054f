//! `towpath up`: everything in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use towpath_broker::{Broker, BrokerConfig, Endpoint};
use towpath_client::{Client, ClientConfig, InProcessTransport};
use towpath_config::Config;
use towpath_runtime::{Supervisor, SupervisorConfig, WorkerConfig};

use crate::cli::Up;
use crate::failure::Failure;
use crate::http::{self, Shown};
use crate::output::{Listing, tell};
use crate::progress::Progress;
use crate::registry::built_in;

/// How often the progress is drawn.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

pub(super) async fn run(up: Up, json: bool) -> Result<(), Failure> {
    let mut config = towpath_config::load(&up.files.files, &built_in())?;
    let mut signals = Signals::new()?;
    let metrics = towpath_telemetry::install_metrics()
        .map_err(|error| Failure::new(format!("metrics cannot be collected: {error}")))?;
    let shown = Arc::new(Shown {
        metrics: Some(metrics),
        bootstrap_servers: config.cluster.as_ref().map(|it| it.bootstrap_servers.clone()).unwrap_or_default(),
        ..Shown::default()
    });
    let http = http::serve(&config.node.http, Arc::clone(&shown)).await.map_err(|error| {
        Failure::new(format!("HTTP cannot listen on {}: {error}", config.node.http))
            .with_hint("another towpath may be running; set `node: http:` to a free address")
    })?;
    let broker = match &config.cluster {
        None => Some(start_broker(&config).await?),
        Some(_) => None,
    };
    if let Some(broker) = &broker {
        // Set once, here: nobody else fills it.
        drop(shown.broker.set(Arc::clone(broker)));
    }
    let client = connect(&config, broker.as_ref()).await?;
    let pipelines = std::mem::take(&mut config.pipelines);
    let supervisor = Supervisor::start(supervisor_config(&config, client, broker.is_some()), pipelines)
        .map_err(|error| Failure::new(config.redactor.redact(&error.to_string()).into_owned()))?;
    let supervisor = Arc::new(supervisor);
    drop(shown.supervisor.set(Arc::clone(&supervisor)));
    greet(&config, broker.as_deref(), http, &supervisor);
    let outcome = if up.until_idle {
        tokio::select! {
            outcome = until_idle(&supervisor, json) => outcome,
            () = signals.wait() => Err(Failure::new("interrupted before everything was delivered")),
        }
    } else {
        watch(&supervisor, &mut signals).await;
        Ok(())
    };
    stop(&supervisor, broker.as_deref(), &mut signals).await?;
    outcome
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn resolve(address: &str, option: &str) -> Result<SocketAddr, Failure> {
    let found = tokio::net::lookup_host(address).await.ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| {
        Failure::new(format!("`{address}` is no address of this machine"))
            .with_hint(format!("set `node: {option}:` to host:port, such as 127.0.0.1:9092"))
    })
}

async fn start_broker(config: &Config) -> Result<Arc<Broker>, Failure> {
    towpath_broker::raise_open_files_limit();
    let listen = resolve(&config.node.kafka, "kafka").await?;
    let advertised = config.node.advertised.as_ref().and_then(|address| {
        let (host, port) = address.rsplit_once(':')?;
        Some(Endpoint { host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
    });
    let settings =
        BrokerConfig { listen: Some(listen), advertised, ..BrokerConfig::new(&config.node.data_dir) };
    let broker = Broker::start(settings)
        .await
        .map_err(|error| Failure::new(format!("the broker cannot start: {error}")))?;
    Ok(Arc::new(broker))
}

async fn connect(config: &Config, broker: Option<&Arc<Broker>>) -> Result<Client, Failure> {
    let mut settings = ClientConfig { client_id: "towpath".to_owned(), ..ClientConfig::default() };
    match (broker, &config.cluster) {
        (Some(broker), _) => {
            let endpoint = broker.advertised();
            settings.bootstrap_servers = vec![format!("{}:{}", endpoint.host, endpoint.port)];
            let broker = Arc::clone(broker);
            settings.transport =
                Arc::new(InProcessTransport::new(move |stream| broker.accept_stream(stream)));
        }
        (None, Some(cluster)) => settings.bootstrap_servers.clone_from(&cluster.bootstrap_servers),
        (None, None) => {}
    }
    Ok(Client::connect(settings).await?)
}

fn supervisor_config(config: &Config, client: Client, embedded: bool) -> SupervisorConfig {
    SupervisorConfig {
        embedded,
        redactor: config.redactor.clone(),
        worker: Some(WorkerConfig::new(config.node.data_dir.clone())),
        ..SupervisorConfig::new(client)
    }
}

/// Tells people where things are.
fn greet(config: &Config, broker: Option<&Broker>, http: SocketAddr, supervisor: &Supervisor) {
    let kafka = match broker.and_then(Broker::local_addr) {
        Some(address) => format!("kafka {address}"),
        None => format!("cluster {}", shown_servers(config)),
    };
    let count = supervisor.status().len();
    let noun = if count == 1 { "pipeline" } else { "pipelines" };
    tell(&format!(
        "towpath {} is up: {kafka}, http://{http}/status, {count} {noun}",
        env!("CARGO_PKG_VERSION")
    ));
    if let Some(message) = &config.node.message {
        tell(message.trim_end());
    }
}

fn shown_servers(config: &Config) -> String {
    config.cluster.as_ref().map(|cluster| cluster.bootstrap_servers.join(",")).unwrap_or_default()
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

async fn until_idle(supervisor: &Supervisor, json: bool) -> Result<(), Failure> {
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
        let hint = failure.error.as_ref().and_then(|error| error.hint.clone());
        let shown = Failure::new(failure.to_string());
        match hint {
            Some(hint) => shown.with_hint(hint),
            None => shown,
        }
    })
}

/// Ends in order: tasks first, so that what they hold is delivered, then the broker. A second signal is obeyed at once.
async fn stop(
    supervisor: &Supervisor,
    broker: Option<&Broker>,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let graceful = async {
        supervisor.stop().await;
        match broker {
            Some(broker) => broker.shutdown().await.map_err(|error| Failure::new(error.to_string())),
            None => Ok(()),
        }
    };
    tokio::select! {
        outcome = graceful => outcome,
        () = signals.wait() => Err(Failure::new("stopped at once; what was not durable will be done again")),
    }
}
