//! Where a database is and who we are there, out of a `postgres://` URL.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use towpath_api::Secret;

/// How much TLS is wanted, as in libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it, unverified.
    Prefer,
    /// Always, unverified.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate for this very host.
    VerifyFull,
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// Host and port.
    Tcp(String, u16),
    /// The socket's file.
    Unix(PathBuf),
}

/// A database and the role that we play there. Printing it shows no password.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) database: String,
    pub(crate) ssl_mode: SslMode,
    pub(crate) ssl_root_cert: Option<PathBuf>,
    pub(crate) ssl_cert: Option<PathBuf>,
    pub(crate) ssl_key: Option<PathBuf>,
}

/// What is wrong with a URL. Never repeats the URL: it can hold a password (R13).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlProblem {
    /// Not `postgres://` or `postgresql://`.
    #[error("must begin with postgres://")]
    Scheme,
    /// Nobody to log in as.
    #[error("names no user: postgres://USER@HOST/DATABASE")]
    NoUser,
    /// The port is no number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Several hosts.
    #[error("names several hosts; capture follows one server")]
    SeveralHosts,
    /// An escape that is no UTF-8.
    #[error("a %XX escape does not give UTF-8 text")]
    Escape,
    /// A parameter that does not exist.
    #[error(
        "the parameter {0:?} is not known; there are host, port, user, password, dbname, sslmode, sslrootcert, sslcert and sslkey"
    )]
    Parameter(String),
    /// A wrong `sslmode`.
    #[error("sslmode must be disable, prefer, require, verify-ca or verify-full")]
    SslMode,
    /// A client certificate without its key or the other way round.
    #[error("sslcert and sslkey are needed together")]
    HalfCertificate,
}

fn decode(text: &str) -> Result<String, UrlProblem> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| UrlProblem::Escape)
}

fn port(text: &str) -> Result<u16, UrlProblem> {
    text.parse().ok().filter(|port| *port > 0).ok_or(UrlProblem::Port)
}

#[derive(Default)]
struct Parts {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    ssl_mode: Option<SslMode>,
    root_cert: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Parts {
    fn authority(&mut self, authority: &str) -> Result<(), UrlProblem> {
        let host = match authority.rsplit_once('@') {
            Some((login, host)) => {
                let (user, password) = match login.split_once(':') {
                    Some((user, password)) => (user, Some(password)),
                    None => (login, None),
                };
                self.user = Some(decode(user)?).filter(|user| !user.is_empty());
                self.password = password.map(decode).transpose()?;
                host
            }
            None => authority,
        };
        if host.contains(',') {
            return Err(UrlProblem::SeveralHosts);
        }
        let (name, digits) =
            if let Some((name, rest)) = host.strip_prefix('[').and_then(|h| h.split_once(']')) {
                (name, rest.strip_prefix(':'))
            } else {
                match host.split_once(':') {
                    Some((name, digits)) => (name, Some(digits)),
                    None => (host, None),
                }
            };
        self.host = Some(decode(name)?).filter(|name| !name.is_empty());
        self.port = digits.filter(|digits| !digits.is_empty()).map(port).transpose()?;
        Ok(())
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), UrlProblem> {
        match name {
            "host" | "hostaddr" => self.host = Some(value),
            "port" => self.port = Some(port(&value)?),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "dbname" => self.database = Some(value),
            "sslmode" | "ssl-mode" => {
                self.ssl_mode = Some(match value.as_str() {
                    "disable" => SslMode::Disable,
                    "allow" | "prefer" => SslMode::Prefer,
                    "require" => SslMode::Require,
                    "verify-ca" => SslMode::VerifyCa,
                    "verify-full" => SslMode::VerifyFull,
                    _ => return Err(UrlProblem::SslMode),
                });
            }
            "sslrootcert" => self.root_cert = Some(value.into()),
            "sslcert" => self.cert = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            // Sessions name themselves after the pipeline, and connecting has a bound of its own.
            "application_name" | "connect_timeout" => {}
            other => return Err(UrlProblem::Parameter(other.to_owned())),
        }
        Ok(())
    }
}

impl Endpoint {
    /// Reads `postgres://user:password@host:port/database?sslmode=…`.
    pub(crate) fn parse(url: &str) -> Result<Self, UrlProblem> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or(UrlProblem::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut parts = Parts::default();
        parts.authority(authority)?;
        parts.database = Some(decode(path)?).filter(|database| !database.is_empty());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parts.parameter(&decode(name)?, decode(value)?)?;
        }
        if parts.cert.is_some() != parts.key.is_some() {
            return Err(UrlProblem::HalfCertificate);
        }
        let user = parts.user.ok_or(UrlProblem::NoUser)?;
        let port = parts.port.unwrap_or(5432);
        let address = match parts.host {
            Some(dir) if dir.starts_with('/') => {
                Address::Unix(PathBuf::from(dir).join(format!(".s.PGSQL.{port}")))
            }
            Some(host) => Address::Tcp(host, port),
            None => Address::Tcp("localhost".to_owned(), port),
        };
        let default_mode = match address {
            Address::Tcp(..) => SslMode::Prefer,
            Address::Unix(_) => SslMode::Disable,
        };
        Ok(Self {
            address,
            database: parts.database.unwrap_or_else(|| user.clone()),
            user,
            password: parts.password.map(Secret::new),
            ssl_mode: parts.ssl_mode.unwrap_or(default_mode),
            ssl_root_cert: parts.root_cert,
            ssl_cert: parts.cert,
            ssl_key: parts.key,
        })
    }

    /// The server for people: `host:port`, or the socket.
    pub(crate) fn target(&self) -> String {
        match &self.address {
            Address::Tcp(host, port) => format!("{host}:{port}"),
            Address::Unix(path) => path.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let endpoint =
            Endpoint::parse("postgres://me:p%40ss:w@db.example:5433/sh%20op?sslmode=verify-full").unwrap();
        assert_eq!(endpoint.address, Address::Tcp("db.example".into(), 5433));
        assert_eq!((endpoint.user.as_str(), endpoint.database.as_str()), ("me", "sh op"));
        assert_eq!(endpoint.password.as_ref().map(Secret::expose), Some("p@ss:w"));
        assert_eq!(endpoint.ssl_mode, SslMode::VerifyFull);
        assert!(!format!("{endpoint:?}").contains("p@ss"), "a password is never printed");
        let endpoint = Endpoint::parse("postgresql://me@[::1]").unwrap();
        assert_eq!(endpoint.address, Address::Tcp("::1".into(), 5432));
        assert_eq!(endpoint.database, "me");
        let endpoint = Endpoint::parse("postgres:///shop?host=/run/pg&user=me&port=6000").unwrap();
        assert_eq!(endpoint.address, Address::Unix("/run/pg/.s.PGSQL.6000".into()));
    }

    #[test]
    fn wrong_urls_are_told_apart() {
        let problem = |url| Endpoint::parse(url).unwrap_err();
        assert_eq!(problem("mysql://x"), UrlProblem::Scheme);
        assert_eq!(problem("postgres://h/db"), UrlProblem::NoUser);
        assert_eq!(problem("postgres://u@h:0/db"), UrlProblem::Port);
        assert_eq!(problem("postgres://u@a,b/db"), UrlProblem::SeveralHosts);
        assert_eq!(problem("postgres://u@h/db?sslmode=yes"), UrlProblem::SslMode);
        assert_eq!(problem("postgres://u@h/db?x=1"), UrlProblem::Parameter("x".into()));
        assert_eq!(problem("postgres://u@h/db?sslcert=/c"), UrlProblem::HalfCertificate);
        assert_eq!(problem("postgres://%ff@h/db"), UrlProblem::Escape);
    }
}
