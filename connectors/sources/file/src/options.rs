//! What the YAML says.

use serde_json::json;
use towpath_api::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorKind, Descriptor, Guarantee, OptionSpec, OptionType,
    RawConfig, SourceConnector, SourceFactory,
};
use towpath_types::limits;

use super::connector::Connector;

/// The type `file`.
#[derive(Debug)]
pub struct File {
    descriptor: Descriptor,
}

impl Default for File {
    fn default() -> Self {
        let options = ConfigSpec::new(vec![
            OptionSpec::required(
                "paths",
                OptionType::list(OptionType::Path),
                "Files to read; `*` and `?` in the last part of a path stand for any characters and for one. Where logs are \
                 rotated by renaming, let the new names match too (`app.log*`): what is rotated while towpath is down is \
                 then read. Where they are copied and truncated, the copies must not match: they would be read as files \
                 of their own.",
            ),
            OptionSpec::with_default(
                "format",
                OptionType::choices(&[
                    ("lines", "every line is a record, as text"),
                    ("json", "every line is a JSON value; an object's members become fields"),
                ]),
                json!("lines"),
                "What a line is.",
            ),
            OptionSpec::with_default(
                "mode",
                OptionType::choices(&[
                    ("follow", "wait for more, through rotation, for ever"),
                    ("once", "read to the end, and end"),
                ]),
                json!("follow"),
                "What happens at the end of a file.",
            ),
            OptionSpec::with_default(
                "start_at",
                OptionType::choices(&[
                    ("beginning", "read what is there"),
                    ("end", "only what is added from now on"),
                ]),
                json!("beginning"),
                "Where a file begins that was there when the pipeline first started.",
            ),
            OptionSpec::with_default(
                "line_bytes_max",
                OptionType::ByteSize,
                json!(1024 * 1024),
                "The longest line; of a longer one the first 64 KiB go to the dead letters.",
            ),
            OptionSpec::optional(
                "key",
                OptionType::NonEmptyString,
                "The JSON member that becomes the record's key.",
            ),
        ]);
        Self {
            descriptor: Descriptor {
                name: "file".to_owned(),
                kind: ConnectorKind::Source,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                summary: "Lines of files, read once or followed through rotation".to_owned(),
                guarantee: Some(Guarantee::ExactlyOnce),
                options,
            },
        }
    }
}

/// Validated options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) paths: Vec<PathPattern>,
    pub(crate) json: bool,
    pub(crate) once: bool,
    pub(crate) from_end: bool,
    pub(crate) line_bytes_max: usize,
    pub(crate) key: Option<String>,
}

/// A directory and a glob over the names in it.
#[derive(Debug, Clone)]
pub(crate) struct PathPattern {
    pub(crate) directory: std::path::PathBuf,
    pub(crate) names: globset::GlobMatcher,
    pub(crate) text: String,
}

impl PathPattern {
    fn parse(text: &str) -> Result<Self, String> {
        let path = std::path::Path::new(text);
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("this path names no file")?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => ".".into(),
        };
        if directory.to_string_lossy().contains(['*', '?']) {
            return Err("only the last part of a path can hold `*` and `?`".to_owned());
        }
        let glob = globset::GlobBuilder::new(name).literal_separator(true).backslash_escape(true).build();
        let names = glob.map_err(|error| error.to_string())?.compile_matcher();
        Ok(Self { directory, names, text: text.to_owned() })
    }
}

impl Options {
    fn read(config: &RawConfig) -> Result<Self, ConfigProblems> {
        let mut problems = ConfigProblems::default();
        let mut paths = Vec::new();
        for (index, text) in config.strings("paths").iter().enumerate() {
            match PathPattern::parse(text) {
                Ok(pattern) => paths.push(pattern),
                Err(message) => {
                    problems.problems.push(ConfigProblem::new(format!("paths[{index}]"), message))
                }
            }
        }
        if config.strings("paths").is_empty() {
            problems.problems.push(ConfigProblem::new("paths", "names no file"));
        }
        let json = config.str("format") == "json";
        if config.opt_str("key").is_some() && !json {
            problems.problems.push(
                ConfigProblem::new("key", "only JSON lines have members").with_hint("add `format: json`"),
            );
        }
        let line_bytes_max =
            config.int("line_bytes_max").and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        if !(1..=limits::LINE_BYTES_MAX).contains(&line_bytes_max) {
            let message = format!("must be between 1 and {} bytes", limits::LINE_BYTES_MAX);
            problems.problems.push(ConfigProblem::new("line_bytes_max", message));
        }
        problems.into_result()?;
        Ok(Self {
            paths,
            json,
            once: config.str("mode") == "once",
            from_end: config.str("start_at") == "end",
            line_bytes_max,
            key: config.opt_str("key").map(str::to_owned),
        })
    }
}

impl SourceFactory for File {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SourceConnector>, ConfigProblems> {
        Ok(Box::new(Connector::new(Options::read(config)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_told() {
        let factory = File::default();
        let read = |values| {
            Options::read(&RawConfig::with_defaults(&factory.descriptor.options, values).unwrap()).map(|_| ())
        };
        assert!(read(json!({ "paths": ["logs/*.log", "x"] })).is_ok());
        for (values, path) in [
            (json!({ "paths": [] }), "paths"),
            (json!({ "paths": ["ok", "l*gs/x"] }), "paths[1]"),
            (json!({ "paths": ["a[.log"] }), "paths[0]"),
            (json!({ "paths": ["a"], "key": "id" }), "key"),
            (json!({ "paths": ["a"], "line_bytes_max": 0 }), "line_bytes_max"),
        ] {
            assert_eq!(read(values).unwrap_err().problems[0].path, path);
        }
    }
}
