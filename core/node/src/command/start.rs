//! What the commands share that run for long: reading the files, signals, and the embedded broker.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use towpath_broker::{Broker, BrokerConfig, BrokerError};
use towpath_config::Config;
use towpath_host::Plugins;
use towpath_store::LockMode;

use super::check::tell_problems_if_any;
use crate::cli::Files;
use crate::failure::{Failure, chain};
use crate::local::LocalNode;
use crate::registry::with_plugins;
use crate::settings::cluster_settings;

/// A terminal and whoever started us may both pass one Ctrl-C on: what comes this soon after is the same one.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// What the files say about plugins that are not locked.
pub(super) fn lock_mode(files: &Files) -> LockMode {
    if files.locked { LockMode::Locked } else { LockMode::Complete }
}

/// Reads the files, and with what their plugins were loaded; from now on no secret of theirs is shown (R13). One of several nodes on this machine (`local`) has
/// its own place in them, and its warnings were told by whoever started it.
pub(super) fn configuration(
    files: &Files,
    local: Option<&LocalNode>,
    json: bool,
) -> Result<(Config, Arc<Plugins>), Failure> {
    let (registry, plugins) = with_plugins(lock_mode(files));
    let mut config = towpath_config::load(&files.files, &registry)?;
    let redactor = config.redactor.clone();
    towpath_telemetry::redact_with(move |text| redactor.redact(text).into_owned());
    match local {
        Some(local) => local.apply(&mut config),
        None => tell_problems_if_any(&config, json),
    }
    Ok((config, plugins))
}

/// What ends a long-running command.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// Resolves when whoever started this process has closed our standard input, or is gone.
    parent: Option<oneshot::Receiver<()>>,
}

impl Signals {
    /// With `parent`, the end of standard input counts as a signal.
    pub(super) fn new(parent: bool) -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            parent: parent.then(end_of_input),
        })
    }

    pub(super) async fn wait(&mut self) {
        let parent = async {
            match &mut self.parent {
                Some(ended) => drop(ended.await),
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = parent => self.parent = None,
        }
    }

    /// As [`Self::wait`], for a second signal after a first one.
    pub(super) async fn again(&mut self) {
        let began = Instant::now();
        while began.elapsed() < SAME_SIGNAL {
            self.wait().await;
        }
    }
}

fn end_of_input() -> oneshot::Receiver<()> {
    let (ended, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let mut input = tokio::io::stdin();
        let mut ignored = [0; 64];
        while input.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
        // Nobody waits any more when the process is ending anyway.
        let _ = ended.send(());
    });
    receiver
}

pub(super) fn in_use(what: &str, option: &str, address: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::new(format!("{what} cannot listen on {address}: {error}"));
    failure.with_hint(match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "if a towpath is running already, `towpath pipelines status` shows it; to run a second one, give it its own \
             `http:`, `kafka:` and `data_dir:` under `node:` (here it is `{option}:`)"
        ),
        _ => format!("set `node: {option}:` to host:port of this machine, such as 127.0.0.1:8083"),
    })
}

async fn resolve(address: &str, option: &str) -> Result<SocketAddr, Failure> {
    let found = tokio::net::lookup_host(address).await.ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| {
        Failure::new(format!("`{address}` is no address of this machine"))
            .with_hint(format!("set `node: {option}:` to host:port, such as 127.0.0.1:9092"))
    })
}

/// A node that cannot take part in its cluster any more.
pub(super) fn quorum_failed(reason: &str) -> Failure {
    Failure::new(format!("this node's part in the metadata quorum has failed: {reason}"))
        .with_hint("start it again when the disk is well; what was acknowledged is on the other nodes, too")
}

/// Starts the embedded broker, alone or as a node of its cluster.
pub(super) async fn start_broker(
    config: &Config,
    mut settings: BrokerConfig,
) -> Result<Arc<Broker>, Failure> {
    towpath_broker::raise_open_files_limit();
    if config.node.roles.broker {
        settings.listen = Some(resolve(&config.node.kafka, "kafka").await?);
    }
    let peers = match (&config.node.controller, settings.listen) {
        (Some(address), _) => resolve(address, "controller").await?,
        // A broker that is no controller is reached by other nodes on any port; they learn which.
        (None, Some(clients)) => SocketAddr::new(clients.ip(), 0),
        (None, None) => SocketAddr::from(([0, 0, 0, 0], 0)),
    };
    settings.cluster = cluster_settings(config, peers);
    match Broker::start(settings).await {
        Ok(broker) => Ok(Arc::new(broker)),
        Err(BrokerError::Listen { address, source }) => {
            let option = if address == peers { "controller" } else { "kafka" };
            Err(in_use("the broker", option, &address.to_string(), &source))
        }
        Err(error) => {
            Err(Failure::new(format!("the broker cannot start: {}", chain(&error))).with_hint(format!(
                "the data directory is {}; `node: data_dir:` names another",
                config.node.data_dir.display()
            )))
        }
    }
}

/// Where this node is reached, for people.
pub(super) fn shown_listeners(config: &Config, broker: Option<&Broker>) -> String {
    let kafka = broker.and_then(Broker::local_addr).map(|address| format!("kafka {address}"));
    let name = config.own_cluster().map(|own| format!("node {} of {}", config.node.id, own.name));
    let controller = config.node.controller.as_ref().map(|address| format!("controller {address}"));
    let foreign = config.foreign_servers().map(|servers| format!("cluster {}", servers.join(",")));
    [name, kafka, controller, foreign].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
