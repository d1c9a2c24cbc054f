//! `towpath broker`: a node without pipelines, whatever its files declare of them.

use std::sync::Arc;

use towpath_config::Config;

use super::start::{Signals, configuration, in_use, quorum_failed, shown_listeners, start_broker};
use crate::cli::Files;
use crate::failure::{Failure, chain};
use crate::http::{self, Shown};
use crate::output::tell;
use crate::paused::Paused;
use crate::settings::broker_config;

pub(super) async fn run(files: &Files, json: bool) -> Result<(), Failure> {
    let (mut config, _) = configuration(files, None, json)?;
    if config.foreign_servers().is_some() {
        return Err(Failure::new(
            "`cluster: bootstrap_servers:` names someone else's brokers, and none is started",
        )
        .with_hint("`towpath up` runs pipelines on them; remove `cluster:` for a broker of our own"));
    }
    let settings = broker_config(&config)?;
    tell_pipelines(&mut config);
    let mut signals = Signals::new(false)?;
    let metrics = towpath_telemetry::install_metrics()
        .map_err(|error| Failure::new(format!("metrics cannot be collected: {}", chain(&error))))?;
    let dir = &config.node.data_dir;
    let paused = Paused::load(dir)
        .map_err(|error| Failure::new(format!("{} cannot be read: {error}", dir.display())))?;
    let shown = Arc::new(Shown::new(&config, metrics, paused));
    let http = http::serve(&config.node.http, Arc::clone(&shown))
        .await
        .map_err(|error| in_use("HTTP", "http", &config.node.http, &error))?;
    let broker = tokio::select! {
        started = start_broker(&config, settings) => started?,
        () = signals.wait() => return Err(Failure::new("interrupted before the node was taken into its cluster")),
    };
    // Set once, here: nobody else fills them.
    drop(shown.broker.set(Arc::clone(&broker)));
    shown.ready.get_or_init(|| ());
    tell(&format!(
        "towpath {} is up: {}, http://{http}/status, no pipelines",
        env!("CARGO_PKG_VERSION"),
        shown_listeners(&config, Some(&broker))
    ));
    if let Some(message) = &config.node.message {
        tell(message.trim_end());
    }
    tokio::select! {
        () = signals.wait() => {}
        reason = broker.failed() => return Err(quorum_failed(&reason)),
    }
    let first = config.own_cluster().map_or("", |_| ": what this node leads goes to others first");
    tell(&format!("ending{first} (Ctrl-C again ends at once)"));
    tokio::select! {
        outcome = broker.shutdown() => outcome.map_err(|error| Failure::new(chain(&error))),
        () = signals.again() => Err(Failure::new("stopped at once")),
    }
}

/// Pipelines may stand in the same files for the nodes that run them.
fn tell_pipelines(config: &mut Config) {
    let count = std::mem::take(&mut config.pipelines).len();
    if count > 0 {
        let noun = if count == 1 { "pipeline" } else { "pipelines" };
        tell(&format!("not run here: {count} {noun} of these files; `towpath up` runs them"));
    }
}
