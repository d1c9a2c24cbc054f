//! What the YAML grants a plugin (R11: what it does not is refused).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value as Json;
use towpath_api::{ConfigProblem, ConfigSpec, OptionSpec, OptionType, RawConfig};

use super::bindings::towpath::plugin::types;

/// A host, and one port of it or the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// In lower case, without brackets.
    host: String,
    port: Option<u16>,
}

/// How a connection is made.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// As it is.
    Plain,
    /// With TLS around it.
    Tls(Arc<ClientConfig>),
}

/// What a plugin may reach and use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grants {
    http: Vec<Place>,
    tcp: Vec<Place>,
    /// With TLS, and whom to believe there.
    tls: Vec<Place>,
    authorities: Option<Arc<ClientConfig>>,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) reveal: BTreeSet<String>,
    pub(crate) state: bool,
}

/// The options below `grants`.
pub(crate) fn spec() -> ConfigSpec {
    let texts = || OptionType::list(OptionType::NonEmptyString);
    ConfigSpec::new(vec![
        OptionSpec::optional(
            "http",
            texts(),
            "Hosts that the plugin may send HTTP requests to: `host` for the usual port of http and https, or `host:port`.",
        ),
        OptionSpec::optional(
            "tcp",
            texts(),
            "Where the plugin may connect to by TCP: `host:port`, or `tls://host:port` with TLS around it.",
        ),
        OptionSpec::optional(
            "tls_ca",
            OptionType::Path,
            "A file with the authorities (PEM) that the servers of `tls://` are verified by, in the place of those that the \
             public trusts.",
        ),
        OptionSpec::optional(
            "secrets",
            texts(),
            "Secret options that the plugin may send by HTTP and TCP without seeing them.",
        ),
        OptionSpec::optional("reveal", texts(), "Secret options that the plugin may see."),
        OptionSpec::optional(
            "state",
            OptionType::Bool,
            "Whether a source may keep a small memory of its own beside its offsets.",
        ),
    ])
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        let whole = || {
            format!("`{text}` is no host: write `host` or `host:port`, without `http://` and without a path")
        };
        if text.contains('/') {
            return Err(whole());
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(whole)?;
                let port =
                    if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(whole)?) };
                (host, port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let legal = |it: char| it.is_alphanumeric() || matches!(it, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > 255 || !host.chars().all(legal) {
            return Err(whole());
        }
        let port = port
            .map(|port| port.parse::<u16>().ok().filter(|port| *port > 0))
            .map(|port| port.ok_or_else(|| format!("`{text}` has a port that is no number from 1 to 65535")));
        Ok(Self { host: host.to_lowercase(), port: port.transpose()? })
    }
}

impl Grants {
    /// Reads `grants` in normal form.
    pub(crate) fn read(entry: &RawConfig, problems: &mut Vec<ConfigProblem>) -> Self {
        let Some(Json::Object(values)) = entry.values().get("grants") else { return Self::default() };
        let config = RawConfig::new(values.clone());
        let mut http = Vec::new();
        for (index, text) in config.strings("http").iter().enumerate() {
            match Place::parse(text) {
                Ok(place) => http.push(place),
                Err(message) => problems.push(ConfigProblem::new(format!("grants.http[{index}]"), message)),
            }
        }
        let (mut tcp, mut tls) = (Vec::new(), Vec::new());
        for (index, text) in config.strings("tcp").iter().enumerate() {
            let inside = text.strip_prefix("tls://");
            let at = format!("grants.tcp[{index}]");
            let found = Place::parse(inside.unwrap_or(text)).and_then(|place| match place.port {
                Some(_) => Ok(place),
                None => Err(format!("`{text}` has no port: write `{text}:PORT`")),
            });
            let (own, others) = if inside.is_some() { (&mut tls, &tcp) } else { (&mut tcp, &tls) };
            match found {
                Ok(place) if others.contains(&place) => {
                    let message =
                        format!("`{text}` is granted with TLS and without: which of them is meant?");
                    problems.push(ConfigProblem::new(at, message));
                }
                Ok(place) => own.push(place),
                Err(message) => problems.push(ConfigProblem::new(at, message)),
            }
        }
        Self {
            http,
            tcp,
            authorities: authorities(&config, !tls.is_empty(), problems),
            tls,
            secrets: config.strings("secrets").into_iter().collect(),
            reveal: config.strings("reveal").into_iter().collect(),
            state: config.bool("state"),
        }
    }

    /// Whether a request may go to this place. `usual` is the scheme's own port.
    pub(crate) fn http(&self, host: &str, port: u16, usual: Option<u16>) -> bool {
        let host = plain(host);
        let fits = |place: &Place| place.host == host && place.port.or(usual) == Some(port);
        self.http.iter().any(fits)
    }

    /// Whether a connection may be made, and how.
    pub(crate) fn tcp(&self, host: &str, port: u16) -> Option<Way> {
        let host = plain(host);
        let fits = |place: &Place| place.host == host && place.port == Some(port);
        if self.tls.iter().any(fits) {
            // Without authorities nobody is believed: `read` has told why there are none.
            return self.authorities.clone().map(Way::Tls);
        }
        self.tcp.iter().any(fits).then_some(Way::Plain)
    }

    /// Names that no secret option has.
    pub(crate) fn unknown(&self, secret: &BTreeSet<String>) -> Vec<ConfigProblem> {
        let lists = [("secrets", &self.secrets), ("reveal", &self.reveal)];
        let unknown = |(list, names): (&str, &BTreeSet<String>)| -> Vec<_> {
            let problem = |name: &String| {
                ConfigProblem::new(
                    format!("grants.{list}"),
                    format!("the plugin has no secret option `{name}`"),
                )
            };
            names.difference(secret).map(problem).collect()
        };
        lists.into_iter().flat_map(unknown).collect()
    }
}

/// Whom to believe where TLS is granted.
fn authorities(
    config: &RawConfig,
    is_needed: bool,
    problems: &mut Vec<ConfigProblem>,
) -> Option<Arc<ClientConfig>> {
    let file = config.opt_str("tls_ca");
    if !is_needed {
        if file.is_some() {
            let message = "no `tls://host:port` is granted in `tcp` that this file could be for";
            problems.push(ConfigProblem::new("grants.tls_ca", message));
        }
        return None;
    }
    let read = super::tls::configuration(file.map(Path::new));
    read.map_err(|message| problems.push(ConfigProblem::new("grants.tls_ca", message))).ok()
}

fn plain(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_lowercase()
}

/// The refusal of what is not granted.
pub(crate) fn refused(plugin: &str, what: &str, grant: &str) -> types::Error {
    types::Error::NeedsOperator(types::Details {
        code: "PLUGIN_GRANT".to_owned(),
        message: format!("the plugin `{plugin}` may not {what}: it is not granted"),
        hint: Some(format!("if it is meant to, write `plugins.{plugin}.grants.{grant}`")),
        path: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(grants: Json) -> (Grants, Vec<String>) {
        let mut problems = Vec::new();
        let values = json!({ "grants": grants });
        let Json::Object(values) = values else { return (Grants::default(), Vec::new()) };
        let grants = Grants::read(&RawConfig::new(values), &mut problems);
        (grants, problems.into_iter().map(|it| it.path).collect())
    }

    #[test]
    fn nothing_is_granted_that_is_not_written() {
        let (grants, problems) = read(json!({}));
        assert!(problems.is_empty() && !grants.state);
        assert!(!grants.http("example.org", 443, Some(443)) && grants.tcp("example.org", 6379).is_none());
    }

    #[test]
    fn hosts_are_granted_with_their_ports() {
        let (grants, problems) = read(json!({
            "http": ["API.example.org", "other.example.org:8443", "[::1]:80"], "tcp": ["redis:6379"], "state": true,
        }));
        assert!(problems.is_empty() && grants.state, "{problems:?}");
        for (host, port, usual, granted) in [
            ("api.example.org", 443, Some(443), true),
            ("api.example.org", 80, Some(80), true),
            ("api.example.org", 8443, Some(443), false),
            ("other.example.org", 8443, Some(443), true),
            ("other.example.org", 443, Some(443), false),
            ("xapi.example.org", 443, Some(443), false),
            ("api.example.org.evil.org", 443, Some(443), false),
            ("[::1]", 80, Some(80), true),
        ] {
            assert_eq!(grants.http(host, port, usual), granted, "{host}:{port}");
        }
        let tcp = |host: &str, port| grants.tcp(host, port).is_some();
        assert!(tcp("REDIS", 6379) && !tcp("redis", 6380) && !tcp("example.org", 6379));
        assert!(!grants.http("redis", 6379, None), "what is granted for TCP is not granted for HTTP");
    }

    #[test]
    fn what_is_no_host_is_told_at_its_place() {
        let (_, problems) = read(json!({
            "http": ["https://example.org", "a b", "", "good", "a:0", "a:b"], "tcp": ["redis", "[::1", "redis:70000"],
        }));
        let expected = [
            "grants.http[0]",
            "grants.http[1]",
            "grants.http[2]",
            "grants.http[4]",
            "grants.http[5]",
            "grants.tcp[0]",
            "grants.tcp[1]",
            "grants.tcp[2]",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn tls_is_granted_by_itself() {
        let (grants, problems) =
            read(json!({ "tcp": ["tls://Redis:6380", "redis:6379", "tls://[::1]:6380"] }));
        assert!(problems.is_empty(), "{problems:?}");
        assert!(matches!(grants.tcp("redis", 6380), Some(Way::Tls(_))));
        assert!(matches!(grants.tcp("::1", 6380), Some(Way::Tls(_))));
        assert!(matches!(grants.tcp("redis", 6379), Some(Way::Plain)));
        let (_, problems) =
            read(json!({ "tcp": ["tls://redis:6380", "redis:6380", "tls://redis", "tls://"] }));
        assert_eq!(problems, ["grants.tcp[1]", "grants.tcp[2]", "grants.tcp[3]"]);
        let (_, problems) = read(json!({ "tcp": ["redis:6380"], "tls_ca": "ca.pem" }));
        assert_eq!(problems, ["grants.tls_ca"]);
        let (grants, problems) =
            read(json!({ "tcp": ["tls://redis:6380"], "tls_ca": "there is no such file" }));
        assert!(problems == ["grants.tls_ca"] && grants.tcp("redis", 6380).is_none());
    }
}
