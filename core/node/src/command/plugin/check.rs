//! `towpath plugin check`

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use towpath_api::conformance::{self, Report};
use towpath_api::{
    Guarantee, OptionType, PluginLoader as _, PluginScope, PluginTypes, RawConfig, SinkConnector,
    SourceConnector,
};
use towpath_host::{PluginError, Plugins};

use super::{options, read, transform_of};
use crate::failure::Failure;
use crate::output::{print_json, tell};

/// What the suite is run on, with options that it accepts.
enum Opened {
    Source(Box<dyn SourceConnector>, Guarantee),
    Sink(Box<dyn SinkConnector>, Guarantee),
}

pub(super) async fn run(
    file: &Path,
    text: &str,
    grants: Option<&str>,
    seconds: u64,
    json: bool,
) -> Result<(), Failure> {
    let plugins = Plugins::with_users_cache();
    let types = load(&plugins, file, grants)?;
    if types.transform.is_some() {
        return transform(&plugins, file, text, json).await;
    }
    let opened = open(&types, text)?;
    let kind = match &opened {
        Opened::Source(..) => "source",
        Opened::Sink(..) => "sink",
    };
    if grants.is_none() {
        return only_options(file, kind, json);
    }
    let report = match opened {
        Opened::Source(source, guarantee) => {
            conformance::source_as_given(&*source, guarantee, Duration::from_secs(seconds)).await
        }
        Opened::Sink(sink, guarantee) => conformance::sink_as_given(sink, guarantee).await,
    };
    told(file, kind, &report, json)
}

/// The component as an entry of `plugins:` with these grants, under the name of its file.
fn load(plugins: &Plugins, file: &Path, grants: Option<&str>) -> Result<PluginTypes, Failure> {
    let Some(text) = grants else { return Ok(plugins.open_path(file)?) };
    let entry = plugins.options();
    let mut values = json!({ "path": file });
    for option in entry.options.iter().filter(|option| option.name == "grants") {
        if let OptionType::Object(spec) = &option.ty {
            values["grants"] = Json::Object(read("--grants", text, spec)?.values().clone());
        }
    }
    let refused = |problems| Failure::new(format!("the plugin cannot be loaded: {problems}"));
    let config = RawConfig::with_defaults(&entry, values).map_err(refused)?;
    let name = file.file_stem().map_or_else(|| "plugin".into(), |name| name.to_string_lossy());
    plugins.load(&name, &config, &PluginScope::default()).map_err(refused)
}

fn open(types: &PluginTypes, text: &str) -> Result<Opened, Failure> {
    let refused = |problems| Failure::new(format!("the plugin refuses these options: {problems}"));
    let promised = |guarantee: Option<Guarantee>| guarantee.unwrap_or(Guarantee::AtLeastOnce);
    if let Some(source) = &types.source {
        let descriptor = source.descriptor();
        let connector = source.parse(&options(text, descriptor)?).map_err(refused)?;
        Ok(Opened::Source(connector, promised(descriptor.guarantee)))
    } else if let Some(sink) = &types.sink {
        let descriptor = sink.descriptor();
        let connector = sink.parse(&options(text, descriptor)?).map_err(refused)?;
        Ok(Opened::Sink(connector, promised(descriptor.guarantee)))
    } else {
        Err(Failure::from(PluginError::NoWorld))
    }
}

/// Without grants a source or a sink reaches nothing, and nothing is tried.
fn only_options(file: &Path, kind: &str, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&json!({ "file": file, "kind": kind, "takes_the_options": true }));
    }
    tell(&format!(
        "{} is a {kind}, and takes these options; with `--grants` (`{{}}` if it needs none) the contract suite tries it over \
         what they point to",
        file.display()
    ));
    Ok(())
}

fn told(file: &Path, kind: &str, report: &Report, json: bool) -> Result<(), Failure> {
    let Report { kept, not_judged, broken } = report;
    if json {
        let not_judged: Vec<_> =
            not_judged.iter().map(|(clause, why)| json!({ "clause": clause, "why": why })).collect();
        let broken = broken.as_ref().map(|it| json!({ "clause": it.clause, "what": it.what }));
        print_json(&json!({
            "file": file,
            "kind": kind,
            "keeps_the_contract": broken.is_none(),
            "kept": kept,
            "not_judged": not_judged,
            "broken": broken,
        }))?;
        return if report.broken.is_none() { Ok(()) } else { Err(Failure::Told) };
    }
    kept.iter().for_each(|clause| tell(&format!("kept: {clause}")));
    not_judged.iter().for_each(|(clause, why)| tell(&format!("not judged: {clause}: {why}")));
    let file = file.display();
    match broken {
        Some(violation) => Err(Failure::new(format!("{file} breaks the contract: {violation}"))),
        None if not_judged.is_empty() => {
            tell(&format!("{file} keeps the contract of a {kind}"));
            Ok(())
        }
        None => {
            tell(&format!("{file} keeps what could be judged of the contract of a {kind}"));
            Ok(())
        }
    }
}

async fn transform(plugins: &Plugins, file: &Path, text: &str, json: bool) -> Result<(), Failure> {
    let (transform, config, _) = transform_of(plugins, file, text)?;
    let broken = conformance::transform(&*transform, &config).await.err();
    if json {
        let broken = broken.as_ref().map(|it| json!({ "clause": it.clause, "what": it.what }));
        print_json(&json!({ "file": file, "keeps_the_contract": broken.is_none(), "broken": broken }))?;
        return if broken.is_none() { Ok(()) } else { Err(Failure::Told) };
    }
    match broken {
        None => {
            tell(&format!("{} keeps the contract of a transform", file.display()));
            Ok(())
        }
        Some(violation) => Err(Failure::new(format!("{} breaks the contract: {violation}", file.display()))),
    }
}
