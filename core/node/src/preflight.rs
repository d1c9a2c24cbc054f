//! Looks at the systems that pipelines name, before anything is started. Changes nothing.

use std::time::Duration;

use tokio::task::JoinSet;
use towpath_api::pipeline::PipelineSpec;
use towpath_api::{ConnectorError, TaskContext};
use towpath_config::{Config, Problem, Problems};

use super::command::connection;

/// How long one system may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What was found at one system.
#[derive(Debug)]
pub(crate) struct Found {
    /// The pipeline; none for the cluster.
    pipeline: Option<String>,
    /// `source` or `sink`.
    half: &'static str,
    /// `shop: source postgres_cdc`.
    pub(crate) what: String,
    /// What is as it should be.
    pub(crate) verified: Vec<String>,
    /// What is missing.
    pub(crate) errors: Vec<ConnectorError>,
}

impl Found {
    /// What is missing, each at its place in the files.
    pub(crate) fn problems(&self, config: &Config) -> Vec<Problem> {
        self.errors.iter().map(|error| self.problem(config, error)).collect()
    }

    fn problem(&self, config: &Config, error: &ConnectorError) -> Problem {
        let message = format!("{}: {}", self.what, error.full_message());
        let place = match &self.pipeline {
            Some(pipeline) => config.place(pipeline, self.half, error.path()),
            None => config.cluster_place(),
        };
        let problem = match place {
            Some(place) => Problem::new(error.code(), place, message),
            None => Problem::without_place(error.code(), message),
        };
        match error.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }
}

/// Everything that is missing, each at its place in the files.
pub(crate) fn problems(found: &[Found], config: &Config) -> Problems {
    config.problems(found.iter().flat_map(|found| found.problems(config)).collect())
}

/// Asks the cluster, where it is someone else's, and the systems of those pipelines that are `wanted`, all at once.
pub(crate) async fn look(config: &Config, wanted: impl Fn(&PipelineSpec) -> bool) -> Vec<Found> {
    let mut found = Vec::new();
    if let Some(servers) = config.foreign_servers() {
        found.push(look_at_cluster(servers).await);
    }
    let mut looking = JoinSet::new();
    let mut count = 0;
    for pipeline in config.pipelines.iter().filter(|pipeline| wanted(pipeline)) {
        for half in ["source", "sink"] {
            if let Some(task) = look_at_half(pipeline, half) {
                let number = count;
                looking.spawn(async move { (number, task.await) });
                count += 1;
            }
        }
    }
    let mut halves = looking.join_all().await;
    halves.sort_by_key(|(number, _)| *number);
    found.extend(halves.into_iter().map(|(_, half)| half));
    for half in &mut found {
        expect_what_is_made_here(half, config);
    }
    found
}

/// A file or database that another pipeline of the same files makes is not missing.
fn expect_what_is_made_here(found: &mut Found, config: &Config) {
    let Some(pipeline) = found.pipeline.clone() else { return };
    let text = |name: &str, half: &str, path: &str| config.text(name, half, path).map(str::to_owned);
    let errors = std::mem::take(&mut found.errors);
    for error in errors {
        let named = error.path().and_then(|path| text(&pipeline, found.half, path));
        let maker = config.pipelines.iter().find(|other| {
            found.half == "source"
                && other.name != pipeline
                && named.is_some()
                && text(&other.name, "sink", "path") == named
        });
        match maker {
            Some(maker) => found.verified.push(format!(
                "the pipeline {} makes {}",
                maker.name,
                named.unwrap_or_default()
            )),
            None => found.errors.push(error),
        }
    }
}

fn look_at_half(
    pipeline: &PipelineSpec,
    half: &'static str,
) -> Option<impl Future<Output = Found> + Send + 'static> {
    let context = TaskContext::new(&pipeline.name, 0);
    let (source, sink) = match half {
        "source" => (Some(pipeline.source.clone()?), None),
        _ => (None, Some(pipeline.sink.clone()?)),
    };
    let kind = source.as_ref().map(|it| it.kind.clone()).or_else(|| sink.as_ref().map(|it| it.kind.clone()));
    let what = format!("{}: {half} {}", pipeline.name, kind.unwrap_or_default());
    let pipeline = Some(pipeline.name.clone());
    Some(async move {
        let asked = async {
            match (&source, &sink) {
                (Some(source), _) => source.connector.check(&context).await,
                (_, Some(sink)) => sink.connector.check(&context).await,
                (None, None) => Ok(Vec::new()),
            }
        };
        let outcome = tokio::time::timeout(TIMEOUT, asked).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} s", TIMEOUT.as_secs());
            Err(vec![ConnectorError::retry("CHECK_TIMEOUT", message).with_hint("is a firewall in between?")])
        });
        let (verified, errors) = match outcome {
            Ok(verified) => (verified, Vec::new()),
            Err(errors) => (Vec::new(), errors),
        };
        Found { pipeline, half, what, verified, errors }
    })
}

async fn look_at_cluster(bootstrap_servers: &[String]) -> Found {
    let outcome = async {
        connection::connect(bootstrap_servers).await?.admin().describe_cluster().await.map_err(Into::into)
    };
    let (verified, errors) = match outcome.await {
        Ok(cluster) => {
            let count = cluster.brokers.len();
            let noun = if count == 1 { "broker answers" } else { "brokers answer" };
            (vec![format!("{count} {noun}")], Vec::new())
        }
        Err(failure) => (Vec::new(), vec![unreachable(&failure)]),
    };
    Found { pipeline: None, half: "", what: "cluster".to_owned(), verified, errors }
}

fn unreachable(failure: &super::failure::Failure) -> ConnectorError {
    ConnectorError::retry("KAFKA_UNREACHABLE", failure.to_string())
        .with_hint("are the addresses right, are the brokers up, and can this machine reach them?")
}
