//! What can go wrong between us and a PostgreSQL server. No text here ever holds a password (R13).

use std::fmt;
use std::io;

/// An error of one connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PgError {
    /// No connection could be made.
    #[error("cannot connect to {target}")]
    Connect {
        /// Host and port, or the socket.
        target: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the database was lost")]
    Io(#[from] io::Error),
    /// TLS was refused or failed.
    #[error("TLS: {0}")]
    Tls(TlsError),
    /// The server wants a kind of authentication that cannot be given.
    #[error("authentication: {0}")]
    Auth(&'static str),
    /// The server answered with an error.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// The server's bytes make no sense.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The server took too long.
    #[error("the database did not answer within {0} seconds")]
    Timeout(u64),
    /// A value is not what the query should give.
    #[error("the server's answer has no readable {0}")]
    Answer(&'static str),
}

/// Why TLS did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The server speaks no TLS.
    #[error("the server does not offer TLS, which sslmode demands")]
    Refused,
    /// The host name cannot be verified.
    #[error("{0:?} is no name that a certificate can be verified against")]
    Name(String),
    /// A certificate or key file.
    #[error("{file}: {cause}")]
    File {
        /// Which one.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Setting up.
    #[error(transparent)]
    Setup(#[from] rustls::Error),
    /// The handshake.
    #[error("the handshake failed: {0}")]
    Handshake(#[source] io::Error),
}

impl PgError {
    /// The five characters of SQLSTATE, if the server sent them.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.sqlstate),
            _ => None,
        }
    }
}

/// The server's own error report.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerError {
    /// ERROR, FATAL or PANIC.
    pub(crate) severity: String,
    /// Five characters.
    pub(crate) sqlstate: String,
    /// The message.
    pub(crate) message: String,
    /// More about it.
    pub(crate) detail: Option<String>,
    /// The server's advice.
    pub(crate) hint: Option<String>,
}

impl ServerError {
    /// Reads the fields of an ErrorResponse.
    pub(crate) fn parse(mut payload: &[u8]) -> Self {
        let mut error = Self::default();
        while let Some((field, rest)) = payload.split_first() {
            let Some(end) = memchr::memchr(0, rest) else { break };
            let text = || String::from_utf8_lossy(&rest[..end]).into_owned();
            match field {
                b'S' if error.severity.is_empty() => error.severity = text(),
                b'V' => error.severity = text(),
                b'C' => error.sqlstate = text(),
                b'M' => error.message = text(),
                b'D' => error.detail = Some(text()),
                b'H' => error.hint = Some(text()),
                _ => {}
            }
            payload = &rest[end + 1..];
        }
        error
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_is_read_and_a_cut_one_does_no_harm() {
        let bytes = b"SFEHLER\0VERROR\0C42P01\0Mrelation \"x\" does not exist\0Hlook\0\0";
        let error = ServerError::parse(bytes);
        assert_eq!(error.severity, "ERROR");
        assert_eq!(error.to_string(), "relation \"x\" does not exist (SQLSTATE 42P01)");
        assert_eq!(error.hint.as_deref(), Some("look"));
        for end in 0..bytes.len() {
            let _partly = ServerError::parse(&bytes[..end]);
        }
    }
}
