//! The options of the `http` sink.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url, redirect};
use serde_json::{Value as Json, json};
use towpath_api::{
    ConfigProblem, ConfigProblems, ConfigSpec, ConnectorError, ConnectorKind, Descriptor, Guarantee,
    OptionSpec, OptionType, RawConfig, Sink, SinkConnector, SinkFactory, TaskContext,
};

use super::response::unreachable;
use super::sink::HttpTask;

/// How long a check waits for an answer, whatever deliveries may wait for.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// How records are put together in a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// One JSON array.
    Array,
    /// One JSON value a line.
    Lines,
}

/// A checked configuration.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) url: Url,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// Whether a record is an object with topic, offset, key and so on, or its value alone.
    pub(crate) full: bool,
    pub(crate) batch_records: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) timeout: Duration,
    pub(crate) attempts: u32,
}

impl std::fmt::Debug for Config {
    /// Without query, user and headers: they can be secrets (R13).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config({} {})", self.method, self.place())
    }
}

impl Config {
    /// The URL as it may be shown.
    pub(crate) fn place(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{}://{host}:{port}", self.url.scheme()),
            None => format!("{}://{host}", self.url.scheme()),
        }
    }

    pub(crate) fn client(&self) -> Result<Client, ConnectorError> {
        // A redirected POST would arrive as a GET without its body.
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(self.timeout)
            .user_agent(concat!("towpath/", env!("CARGO_PKG_VERSION")));
        builder.build().map_err(|error| {
            ConnectorError::bug("HTTP_CLIENT", "the HTTP client cannot be set up")
                .with_cause(error.without_url())
        })
    }
}

/// Makes `http` sinks.
#[derive(Debug)]
pub struct HttpSink {
    descriptor: Descriptor,
}

impl Default for HttpSink {
    fn default() -> Self {
        Self {
            descriptor: Descriptor {
                name: "http".into(),
                kind: ConnectorKind::Sink,
                version: env!("CARGO_PKG_VERSION").into(),
                summary: "Batches of JSON records, sent to a URL.".into(),
                guarantee: Some(Guarantee::AtLeastOnce),
                options: ConfigSpec::new([request_options(), delivery_options()].concat()),
            },
        }
    }
}

fn request_options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::required("url", OptionType::url(&["http", "https"]), "Where records are sent.").secret(),
        OptionSpec::with_default(
            "method",
            OptionType::choices(&[
                ("POST", "as usual"),
                ("PUT", "for receivers that want it"),
                ("PATCH", "likewise"),
            ]),
            json!("POST"),
            "The method of every request.",
        ),
        OptionSpec::with_default(
            "headers",
            OptionType::map(OptionType::String),
            json!({}),
            "Headers of every request, Authorization for example.",
        )
        .secret(),
        OptionSpec::with_default(
            "body",
            OptionType::choices(&[
                ("array", "one JSON array (application/json)"),
                ("lines", "one JSON value a line (application/x-ndjson)"),
            ]),
            json!("array"),
            "How records are put together.",
        ),
        OptionSpec::with_default(
            "records",
            OptionType::choices(&[
                (
                    "value",
                    "the record's value: the row, or the envelope of a change event; tombstones are left out",
                ),
                (
                    "full",
                    "an object with topic, partition, offset, timestamp_ms, key and value, for every record",
                ),
            ]),
            json!("value"),
            "What a record is in the body.",
        ),
    ]
}

fn delivery_options() -> Vec<OptionSpec> {
    vec![
        OptionSpec::with_default(
            "batch_records",
            OptionType::int(1, 100_000),
            json!(500),
            "The most records of one request.",
        ),
        OptionSpec::with_default(
            "batch_bytes",
            OptionType::ByteSize,
            json!(1024 * 1024),
            "Bytes of a request's body after which it is sent; one record can be larger.",
        ),
        OptionSpec::with_default(
            "timeout",
            OptionType::Duration,
            json!(30_000),
            "How long a request may take until its answer is there.",
        ),
        OptionSpec::with_default(
            "attempts",
            OptionType::int(1, 100),
            json!(5),
            "How often a request is sent that is answered with 408, 425, 429 or 5xx, or not at all, before the task is \
             restarted. The waits between double from 200 ms; Retry-After is honoured.",
        ),
    ]
}

impl SinkFactory for HttpSink {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn parse(&self, config: &RawConfig) -> Result<Box<dyn SinkConnector>, ConfigProblems> {
        Ok(Box::new(Connector { config: parse(config)? }))
    }
}

fn headers(config: &RawConfig, problems: &mut Vec<ConfigProblem>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in config.values().get("headers").and_then(Json::as_object).into_iter().flatten() {
        let path = format!("headers.{name}");
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            problems.push(ConfigProblem::new(path, "is no header name"));
            continue;
        };
        match HeaderValue::from_str(value.as_str().unwrap_or_default()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(header, value);
            }
            // The value may be a secret: it is not repeated.
            Err(_) => problems.push(ConfigProblem::new(path, "has a character that no header can have")),
        }
    }
    headers
}

fn parse(config: &RawConfig) -> Result<Config, ConfigProblems> {
    let mut problems = Vec::new();
    let headers = headers(config, &mut problems);
    let positive =
        |name: &str| config.int(name).and_then(|value| usize::try_from(value).ok()).unwrap_or(1).max(1);
    let url = match config.str("url").parse::<Url>() {
        Ok(url) if url.has_host() => url,
        Ok(_) => {
            problems.push(ConfigProblem::new("url", "has no host"));
            return Err(ConfigProblems { problems });
        }
        Err(error) => {
            problems.push(ConfigProblem::new("url", format!("the URL cannot be read: {error}")));
            return Err(ConfigProblems { problems });
        }
    };
    if !problems.is_empty() {
        return Err(ConfigProblems { problems });
    }
    Ok(Config {
        url,
        method: Method::from_bytes(config.str("method").as_bytes()).unwrap_or(Method::POST),
        headers,
        body: if config.str("body") == "lines" { Body::Lines } else { Body::Array },
        full: config.str("records") == "full",
        batch_records: positive("batch_records"),
        batch_bytes: positive("batch_bytes"),
        timeout: Duration::from_millis(positive("timeout") as u64),
        attempts: u32::try_from(positive("attempts")).unwrap_or(1),
    })
}

/// A configured `http` sink.
#[derive(Debug)]
struct Connector {
    config: Config,
}

#[async_trait]
impl SinkConnector for Connector {
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        let client = self.config.client().map_err(|error| vec![error])?;
        let place = self.config.place();
        // Any answer will do: that somebody is there is all that can be asked without sending records.
        let asked =
            client.request(Method::OPTIONS, self.config.url.clone()).headers(self.config.headers.clone());
        let asked = asked.timeout(CHECK_TIMEOUT);
        tokio::select! {
            answer = asked.send() => match answer {
                Ok(_) => Ok(vec![format!("{place} answers")]),
                Err(error) => Err(vec![unreachable(&place, error)]),
            },
            () = context.stop.cancelled() => Err(vec![ConnectorError::retry("SINK_STOPPED", "the check was stopped")]),
        }
    }

    async fn open(&self, context: TaskContext) -> Result<Box<dyn Sink>, ConnectorError> {
        Ok(Box::new(HttpTask::new(self.config.clone(), self.config.client()?, context.stop)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(values: Json) -> Result<Config, ConfigProblems> {
        parse(&RawConfig::with_defaults(&HttpSink::default().descriptor().options, values)?)
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = parsed(json!({
            "url": "https://user:geheim@example.org:8443/x?token=geheim", "headers": {"Authorization": "geheim"},
        }))
        .unwrap();
        assert_eq!(config.place(), "https://example.org:8443");
        assert!(!format!("{config:?}{:?}", config.headers).contains("geheim"));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let problems = parsed(json!({"url": "nonsense", "headers": {"a b": "x", "C": "a\nb"}})).unwrap_err();
        let paths: Vec<_> = problems.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["headers.a b", "headers.C", "url"]);
    }
}
