//! What an answer means.

use std::time::{Duration, SystemTime};

use reqwest::{Error, Response, StatusCode, header};
use towpath_api::{ConnectorError, ErrorKind};

/// Bytes of an answer that are read: enough to say what was wrong, or to use the connection again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Characters of an answer that an error repeats.
const EXCERPT_CHARS: usize = 300;
/// The longest wait that a receiver can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What an answer says about the request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Every record is safe.
    Taken,
    /// Some record, or the request's size, is at fault.
    Refused(ConnectorError),
    /// Try again, after this time if the receiver named one.
    Again(ConnectorError, Option<Duration>),
    /// Nothing will change by trying again.
    Failed(ConnectorError),
}

/// The wait that a receiver asks for, in seconds or as a date (RFC 9110, §10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Judges an answer.
pub(crate) async fn judge(place: &str, mut response: Response) -> Verdict {
    let status = response.status();
    let wait = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after(value.trim(), SystemTime::now()));
    let mut answer = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_BYTES_MAX - answer.len();
        answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if answer.len() >= ANSWER_BYTES_MAX {
            break;
        }
    }
    if status.is_success() {
        return Verdict::Taken;
    }
    let text: String = String::from_utf8_lossy(&answer).chars().take(EXCERPT_CHARS).collect();
    let text = text.trim();
    let said = if text.is_empty() { String::new() } else { format!(": {text}") };
    by_status(place, status, &said, wait)
}

fn by_status(place: &str, status: StatusCode, said: &str, wait: Option<Duration>) -> Verdict {
    let message = format!("{place} answered {status}{said}");
    let operator = |code, hint: &str| {
        Verdict::Failed(ConnectorError::needs_operator(code, message.clone()).with_hint(hint))
    };
    match status.as_u16() {
        408 | 425 | 429 | 500 | 502..=504 | 506..=599 => {
            let kind = ErrorKind::RetryAfter(wait.unwrap_or(Duration::from_secs(1)));
            Verdict::Again(ConnectorError::new("HTTP_UNAVAILABLE", kind, message), wait)
        }
        300..=399 => operator("HTTP_REDIRECT", "set `url` to where the receiver is now"),
        401 | 403 | 407 => operator("HTTP_AUTH", "check the credentials in `headers` or `url`"),
        404 | 405 | 410 | 411 | 415 | 501 | 505 => {
            operator("HTTP_REFUSED", "check `url`, `method`, `body` and `headers`")
        }
        _ => Verdict::Refused(ConnectorError::terminal("SINK_HTTP_REJECTED", message)),
    }
}

/// The error of a request without an answer.
pub(crate) fn unreachable(place: &str, error: Error) -> ConnectorError {
    let code = if error.is_timeout() { "HTTP_TIMEOUT" } else { "HTTP_UNREACHABLE" };
    let what = if error.is_timeout() { "did not answer in time" } else { "cannot be reached" };
    // The URL in the error can hold secrets (R13).
    ConnectorError::retry(code, format!("{place} {what}"))
        .with_hint("check `url`, and any firewall or proxy between")
        .with_cause(error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_both_forms() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:00 GMT").unwrap();
        let wait = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Fri, 31 Dec 1999 23:59:59 GMT"), Some(59));
        assert_eq!(wait("Fri, 31 Dec 1999 23:58:59 GMT"), Some(0), "it has passed");
        assert_eq!(wait("Sun, 02 Jan 2000 00:00:00 GMT"), Some(3600), "bounded");
        assert_eq!(wait("99999999999"), Some(3600));
        assert_eq!((wait("soon"), wait("-1"), wait("")), (None, None, None));
    }

    #[test]
    fn answers_are_told_apart() {
        let judged = |status| by_status("http://h", StatusCode::from_u16(status).unwrap(), "", None);
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(judged(status), Verdict::Again(..)), "{status}");
        }
        for status in [400, 409, 413, 422] {
            assert!(matches!(judged(status), Verdict::Refused(_)), "{status}");
        }
        for status in [301, 302, 401, 403, 404, 405, 415, 501] {
            assert!(matches!(judged(status), Verdict::Failed(_)), "{status}");
        }
    }
}
