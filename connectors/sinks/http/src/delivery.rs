//! Requests: records put together, sent, and sent again.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, header};
use tokio_util::sync::CancellationToken;
use towpath_api::{ConnectorError, RecordView, json};
use towpath_types::TopicPartition;

use super::config::{Body, Config};
use super::response::{Verdict, judge, unreachable};

/// The first wait before a request is sent again; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest wait that is sat out here; for longer ones the task is restarted later.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A record, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Its place in the batch.
    pub(crate) index: usize,
    pub(crate) offset: i64,
    pub(crate) json: Bytes,
}

/// Sends requests for one task.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) stop: CancellationToken,
}

impl Delivery {
    /// How many of `items` go into the next request.
    pub(crate) fn fill(&self, items: &[Item]) -> usize {
        let (mut count, mut bytes) = (0, 0);
        for item in items.iter().take(self.config.batch_records) {
            bytes += item.json.len() + 1;
            if count > 0 && bytes > self.config.batch_bytes {
                break;
            }
            count += 1;
        }
        count
    }

    fn body(&self, items: &[Item]) -> Vec<u8> {
        let size: usize = items.iter().map(|item| item.json.len() + 1).sum();
        let mut body = Vec::with_capacity(size + 1);
        for (index, item) in items.iter().enumerate() {
            match (self.config.body, index) {
                (Body::Array, 0) => body.push(b'['),
                (Body::Array, _) => body.push(b','),
                (Body::Lines, _) => {}
            }
            body.extend_from_slice(&item.json);
            if self.config.body == Body::Lines {
                body.push(b'\n');
            }
        }
        if self.config.body == Body::Array {
            body.push(b']');
        }
        body
    }

    /// Sends `items` until they are taken or refused. `Ok(Some(error))` is a refusal.
    ///
    /// # Errors
    /// When trying again here does not help.
    pub(crate) async fn send(
        &self,
        partition: &TopicPartition,
        items: &[Item],
    ) -> Result<Option<ConnectorError>, ConnectorError> {
        let (Some(first), Some(last)) = (items.first(), items.last()) else { return Ok(None) };
        let key = format!("{partition}-{}-{}", first.offset, last.offset);
        let body = Bytes::from(self.body(items));
        let mut backoff = BACKOFF_MIN;
        let mut attempt = 1;
        loop {
            let (error, wait) = match self.request(&key, body.clone()).await? {
                Verdict::Taken => return Ok(None),
                Verdict::Refused(error) => return Ok(Some(error)),
                Verdict::Failed(error) => return Err(error),
                Verdict::Again(error, wait) => (error, wait.unwrap_or(backoff)),
            };
            if attempt >= self.config.attempts || wait > WAIT_MAX {
                return Err(error);
            }
            tracing::debug!(%error, attempt, "a request is sent again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return Err(error),
            }
            attempt += 1;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn request(&self, key: &str, body: Bytes) -> Result<Verdict, ConnectorError> {
        let place = self.config.place();
        let content_type = match self.config.body {
            Body::Array => "application/json",
            Body::Lines => "application/x-ndjson",
        };
        // The user's headers come last and replace ours.
        let request = self
            .client
            .request(self.config.method.clone(), self.config.url.clone())
            .header(header::CONTENT_TYPE, content_type)
            .header("Idempotency-Key", key)
            .headers(self.config.headers.clone())
            .body(body);
        // A request in flight is bounded by its timeout: what is sent is sent, so its answer is waited for.
        match request.send().await {
            Ok(response) => Ok(judge(&place, response).await),
            Err(error) if error.is_builder() => {
                Err(ConnectorError::bug("HTTP_CLIENT", "a request cannot be built")
                    .with_cause(error.without_url()))
            }
            Err(error) => Ok(Verdict::Again(unreachable(&place, error), None)),
        }
    }
}

/// Appends a record as it stands in a body.
pub(crate) fn write_item(out: &mut Vec<u8>, partition: &TopicPartition, record: &RecordView<'_>, full: bool) {
    if !full {
        return json::write_record(out, record);
    }
    out.extend_from_slice(b"{\"topic\":");
    json::write_string(out, partition.topic.as_str());
    for (name, value) in [
        (&b",\"partition\":"[..], i64::from(partition.partition)),
        (b",\"offset\":", record.offset()),
        (b",\"timestamp_ms\":", record.timestamp_ms()),
    ] {
        out.extend_from_slice(name);
        json::write_int(out, value);
    }
    out.extend_from_slice(b",\"key\":");
    json::write_key(out, record);
    out.extend_from_slice(b",\"value\":");
    json::write_record(out, record);
    out.push(b'}');
}
