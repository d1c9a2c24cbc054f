//! A real client that writes at a steady rate and follows its partition to another leader.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use towpath_client::{Ack, Client, ClientConfig, ProducerConfig, ProducerRecord};
use towpath_types::TopicName;

const BACKOFF_MS: u64 = 20;
const BACKOFF_MS_MAX: u64 = 100;
const VALUE: [u8; 100] = [0x5a; 100];
/// More records than this wait for their acknowledgement in no outage that is measured here.
const WAITING_MAX: usize = 1 << 20;

/// What the client is told, in words.
pub(crate) fn settings() -> String {
    format!(
        "the client is Towpath's own for both: acks=all, idempotent, linger.ms 0, retry.backoff.ms and \
         reconnect.backoff.ms {BACKOFF_MS} to {BACKOFF_MS_MAX}, all else as it is by default; records of {} B",
        VALUE.len()
    )
}

/// A record that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    /// When it was handed to the client.
    pub(crate) sent: Instant,
    /// When the client said that it is acknowledged.
    pub(crate) acked: Instant,
}

/// A writer, to be run on one thread and watched from another.
#[derive(Debug, Default)]
pub(crate) struct Steady {
    stop: AtomicBool,
    acked: Mutex<Vec<Acked>>,
}

impl Steady {
    /// Writes so many records a second to the topic's first partition until [`Steady::stop`] is called; gives how many
    /// there were, all of them acknowledged.
    pub(crate) fn run(&self, brokers: &[SocketAddr], topic: &str, rate: u64) -> Result<u64> {
        let runtime = Builder::new_current_thread().enable_all().build().context("no runtime")?;
        runtime.block_on(self.write(brokers, topic, rate))
    }

    async fn write(&self, brokers: &[SocketAddr], topic: &str, rate: u64) -> Result<u64> {
        let config = ClientConfig {
            bootstrap_servers: brokers.iter().map(ToString::to_string).collect(),
            client_id: "towpath-bench-steady".to_owned(),
            retry_backoff_ms: BACKOFF_MS,
            retry_backoff_ms_max: BACKOFF_MS_MAX,
            reconnect_backoff_ms: BACKOFF_MS,
            reconnect_backoff_ms_max: BACKOFF_MS_MAX,
            ..Default::default()
        };
        let client = Client::connect(config).await?;
        let producer = client.producer(ProducerConfig { linger_ms: 0, ..Default::default() });
        let topic = TopicName::new(topic)?;
        let (waiting, acks) = mpsc::channel(WAITING_MAX);
        let send = async {
            let pause = Duration::from_secs(1) / u32::try_from(rate)?;
            let mut due = tokio::time::Instant::now();
            let mut sent = 0;
            while !self.stop.load(Ordering::Relaxed) {
                let record =
                    ProducerRecord { partition: Some(0), value: Some(&VALUE), ..ProducerRecord::new(&topic) };
                let begin = Instant::now();
                let ack = producer.send_with_ack(record).await?;
                waiting.send((begin, ack)).await.context("nobody waits for the acknowledgements")?;
                sent += 1;
                due += pause;
                tokio::time::sleep_until(due).await;
            }
            drop(waiting);
            anyhow::Ok(sent)
        };
        let (sent, ()) = tokio::try_join!(send, self.note(acks))?;
        Ok(sent)
    }

    /// One partition's records are acknowledged in order.
    async fn note(&self, mut acks: mpsc::Receiver<(Instant, Ack)>) -> Result<()> {
        while let Some((sent, ack)) = acks.recv().await {
            ack.await.context("a record was lost")?;
            let acked = Instant::now();
            self.acked.lock().unwrap_or_else(PoisonError::into_inner).push(Acked { sent, acked });
        }
        Ok(())
    }

    /// Ends [`Steady::run`].
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How many records are acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The first acknowledgement of a record that was sent after a moment.
    pub(crate) fn first_sent_after(&self, at: Instant) -> Option<Acked> {
        let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let first = acked.partition_point(|record| record.sent <= at);
        acked.get(first).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_does_not_count() {
        let steady = Steady::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let all =
            [(0, 1), (10, 900), (30, 901)].map(|(sent, acked)| Acked { sent: at(sent), acked: at(acked) });
        steady.acked.lock().unwrap().extend(all);
        assert_eq!(steady.first_sent_after(at(10)).map(|record| record.acked), Some(at(901)));
        assert!(steady.first_sent_after(at(30)).is_none());
        assert_eq!(steady.count(), 3);
    }
}
