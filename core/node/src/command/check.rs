//! `towpath check`: connects to each system and says what is missing there.

use serde_json::{Value as Json, json};
use towpath_config::Config;

use super::start::lock_mode;
use crate::cli::Files;
use crate::failure::Failure;
use crate::output::{Listing, print_json, tell_problems};
use crate::preflight::{self, Found};
use crate::registry::with_plugins;
use crate::settings::broker_config;

pub(super) async fn run(files: &Files, json: bool) -> Result<(), Failure> {
    let config = towpath_config::load(&files.files, &with_plugins(lock_mode(files)).0)?;
    tell_problems_if_any(&config, json);
    broker_config(&config)?;
    let found = preflight::look(&config, |_| true).await;
    let problems = preflight::problems(&found, &config);
    if json {
        print_json(&found.iter().map(|found| as_json(found, &config)).collect())?;
        return if problems.is_empty() { Ok(()) } else { Err(Failure::Told) };
    }
    let mut listing = Listing::new(&[("SYSTEM", "system"), ("", "outcome"), ("FOUND", "found")]);
    for found in &found {
        for line in &found.verified {
            listing.row(vec![json!(found.what), json!("ok"), json!(config.redactor.redact(line))]);
        }
        for error in &found.errors {
            listing.row(vec![json!(found.what), json!("MISSING"), json!(error.code())]);
        }
    }
    listing.print(false)?;
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::Systems { problems, outcome: "at the systems that the files name" })
}

pub(super) fn tell_problems_if_any(config: &Config, json: bool) {
    if !config.warnings.is_empty() {
        tell_problems(&config.warnings, json);
    }
}

fn as_json(found: &Found, config: &Config) -> Json {
    let clean = |text: &str| config.redactor.redact(text).into_owned();
    let located = found.problems(config);
    let errors: Vec<_> = found
        .errors
        .iter()
        .zip(&located)
        .map(|(error, problem)| {
            let at = problem.place.as_ref();
            json!({
                "code": error.code(),
                "kind": error.kind().name(),
                "path": error.path(),
                "file": at.map(|place| place.file.path.display().to_string()),
                "line": at.map(|place| place.line_and_column().0),
                "column": at.map(|place| place.line_and_column().1),
                "message": clean(&error.full_message()),
                "hint": error.hint().map(clean),
            })
        })
        .collect();
    let verified: Vec<_> = found.verified.iter().map(|line| clean(line)).collect();
    json!({ "system": found.what, "verified": verified, "errors": errors })
}
