//! `towpath validate`

use serde_json::json;
use towpath_config::Config;

use super::check::tell_problems_if_any;
use super::start::lock_mode;
use crate::cli::Files;
use crate::failure::Failure;
use crate::output::{Listing, tell};
use crate::registry::with_plugins;
use crate::settings::broker_config;

pub(super) fn run(files: &Files, json: bool) -> Result<(), Failure> {
    let config = towpath_config::load(&files.files, &with_plugins(lock_mode(files)).0)?;
    tell_problems_if_any(&config, json);
    broker_config(&config)?;
    if config.pipelines.is_empty() && !json {
        tell("no problem found, and no pipelines: `towpath up` starts just a broker with this");
        return Ok(());
    }
    pipelines(&config).print(json)?;
    if !json {
        tell("no problem found; `towpath check` looks at the systems themselves");
    }
    Ok(())
}

/// What the files declare.
fn pipelines(config: &Config) -> Listing {
    let mut listing = Listing::new(&[
        ("PIPELINE", "pipeline"),
        ("SOURCE", "source"),
        ("TOPICS", "topics"),
        ("SINK", "sink"),
    ]);
    for pipeline in &config.pipelines {
        let topics: Vec<_> = match &pipeline.topic {
            Some(topic) => vec![topic.as_str().to_owned()],
            None => pipeline.topics.iter().map(|topic| topic.as_str().to_owned()).collect(),
        };
        listing.row(vec![
            json!(pipeline.name),
            json!(pipeline.source.as_ref().map(|source| &source.kind)),
            json!(topics),
            json!(pipeline.sink.as_ref().map(|sink| &sink.kind)),
        ]);
    }
    listing
}
