//! Records at a fixed rate, one request each, followed to a consumer: an open loop, timed from when each record was
//! due, so that a stall of the broker counts for every record that it held up.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::frames::{batch, fetch_frame, fetched, produce_frame, produced};
use super::link::Link;

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct PacedLoad {
    /// A new topic with one partition.
    pub(crate) topic: String,
    pub(crate) records: u64,
    /// Records per second.
    pub(crate) rate: u64,
    pub(crate) value_bytes: usize,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) struct PacedResult {
    /// Nanoseconds from when a record was due to when the consumer had it, in the records' order.
    pub(crate) latencies_ns: Vec<u64>,
    /// Nanoseconds by which each record was sent too late.
    pub(crate) late_ns: Vec<u64>,
}

struct Run<'a> {
    load: &'a PacedLoad,
    producer: Link,
    consumer: Link,
    frame: Vec<u8>,
    begin: Instant,
    sent: u64,
    acknowledged: u64,
    offset: i64,
    result: PacedResult,
}

/// How long stragglers are waited for: a cold JVM on a slow machine falls far behind, and that is to be seen.
const PATIENCE: Duration = Duration::from_secs(180);

/// Sends all records when they are due and waits until each has been consumed.
pub(crate) fn paced(address: SocketAddr, load: &PacedLoad) -> Result<PacedResult> {
    // A sleep may otherwise end 50 µs late.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("cannot set the timer's slack")?;
    let (batch, _) = batch(1, load.value_bytes, 0)?;
    let capacity = usize::try_from(load.records)?;
    let result =
        PacedResult { latencies_ns: Vec::with_capacity(capacity), late_ns: Vec::with_capacity(capacity) };
    let mut run = Run {
        load,
        producer: Link::connect(address, 16 << 10)?,
        consumer: Link::connect(address, 256 << 10)?,
        frame: produce_frame(&load.topic, 0, batch)?,
        begin: Instant::now() + Duration::from_millis(200),
        sent: 0,
        acknowledged: 0,
        offset: 0,
        result,
    };
    run.consumer.send(&mut fetch_frame(&load.topic, 0, 0)?)?;
    let deadline = run.due(load.records) + PATIENCE;
    while run.result.latencies_ns.len() < capacity || run.acknowledged < load.records {
        run.send_what_is_due()?;
        run.wait(deadline)?;
    }
    Ok(run.result)
}

impl Run<'_> {
    fn due(&self, record: u64) -> Instant {
        self.begin + Duration::from_nanos(record * 1_000_000_000 / self.load.rate)
    }

    fn send_what_is_due(&mut self) -> Result<()> {
        while self.sent < self.load.records {
            let (due, now) = (self.due(self.sent), Instant::now());
            if now < due {
                break;
            }
            self.producer.queue(&mut self.frame)?;
            self.sent += 1;
            self.result.late_ns.push(nanos(now - due));
        }
        Ok(())
    }

    /// Waits for an answer, but not past the moment when the next record is due.
    fn wait(&mut self, deadline: Instant) -> Result<()> {
        let until = if self.sent < self.load.records { self.due(self.sent) } else { deadline };
        let now = Instant::now();
        if now >= deadline {
            bail!(
                "{} of {} records were consumed, {} acknowledged, in time",
                self.result.latencies_ns.len(),
                self.load.records,
                self.acknowledged
            );
        }
        let pause = until.saturating_duration_since(now);
        let timeout =
            Timespec { tv_sec: i64::try_from(pause.as_secs())?, tv_nsec: pause.subsec_nanos().into() };
        let wanted = if self.producer.has_queued() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut sockets =
            [PollFd::new(self.producer.stream(), wanted), PollFd::new(self.consumer.stream(), PollFlags::IN)];
        match poll(&mut sockets, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the sockets"),
        }
        let [producer, consumer] = sockets.map(|socket| socket.revents());
        if !consumer.is_empty() {
            self.consumed()?;
        }
        if producer.contains(PollFlags::OUT) {
            self.producer.send_queued()?;
        }
        if !(producer - PollFlags::OUT).is_empty() {
            self.acknowledge()?;
        }
        Ok(())
    }

    fn consumed(&mut self) -> Result<()> {
        self.consumer.fill()?;
        while let Some(response) = self.consumer.take()? {
            let got = fetched(response, self.offset)?;
            let now = Instant::now();
            for offset in self.offset..got.next_offset {
                let due = self.due(u64::try_from(offset)?);
                self.result.latencies_ns.push(nanos(now.saturating_duration_since(due)));
            }
            self.offset = got.next_offset;
            if self.result.latencies_ns.len() as u64 > self.load.records {
                bail!("more records were consumed than sent");
            }
            self.consumer.send(&mut fetch_frame(&self.load.topic, 0, self.offset)?)?;
        }
        Ok(())
    }

    fn acknowledge(&mut self) -> Result<()> {
        self.producer.fill()?;
        while let Some(response) = self.producer.take()? {
            let offset = produced(response)?;
            if u64::try_from(offset) != Ok(self.acknowledged) {
                bail!("record {} was appended at {offset}", self.acknowledged);
            }
            self.acknowledged += 1;
        }
        Ok(())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
