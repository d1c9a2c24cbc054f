//! Whatever happens, the log says of transactions what a naive reading of its batches says.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use towpath_log::{AppendError, Log, LogConfig, Marker};
use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

use super::common::{EPOCH, Machine, append, partition};
use super::model::{Item, Transaction, committed, consumed, last_stable, raw, transactions};
use super::producers::{append_verified, batch_of};

/// Producers of transactions: the first ones of `transaction.version` 2.
const PRODUCERS: i64 = 5;
const TV2: i64 = 3;
/// A producer outside of transactions.
const IDEMPOTENT: i64 = 90;

/// Numbers from a seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    pub(crate) fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.below((to - from + 1).max(1) as u64) as i64
    }
}

/// A log, and what should be in it.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) machine: Machine,
    pub(crate) log: Option<Arc<Log>>,
    pub(crate) items: Vec<Item>,
    pub(crate) high_watermark: i64,
    /// As it is on disk.
    checkpointed: i64,
    durable: i64,
    values: u64,
    coordinator_epoch: i32,
    keys: u64,
    pub(crate) aborts: usize,
}

impl World {
    pub(crate) fn new(seed: u64, config: LogConfig) -> Self {
        let machine = Machine::seeded(config, seed);
        let log = Some(machine.log());
        Self {
            random: Random::new(seed),
            machine,
            log,
            items: Vec::new(),
            high_watermark: 0,
            checkpointed: 0,
            durable: 0,
            values: 0,
            coordinator_epoch: 1,
            keys: 6,
            aborts: 0,
        }
    }

    pub(crate) fn log(&self) -> Arc<Log> {
        Arc::clone(self.log.as_ref().unwrap())
    }

    fn end(&self) -> i64 {
        self.log().log_end_offset().get()
    }

    /// Epoch, last sequence number, and whether a transaction is open: what the log itself says.
    fn state(&self, id: i64) -> (i16, i32, bool) {
        let known = self.log().producers().into_iter().find(|known| known.producer_id.get() == id);
        known.map_or((0, -1, false), |known| {
            (known.producer_epoch.get(), known.last_sequence, known.txn_start_offset.is_some())
        })
    }

    fn records(&mut self) -> Vec<(String, String)> {
        let count = 1 + self.random.below(3);
        (0..count)
            .map(|_| {
                self.values += 1;
                (format!("k{}", self.random.below(self.keys)), format!("v{}", self.values))
            })
            .collect()
    }

    fn batch(&mut self, id: i64, epoch: i16, sequence: i32, transactional: bool) -> Bytes {
        let records = self.records();
        let records: Vec<(&str, Option<&str>)> =
            records.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
        let now = towpath_log::Clock::now_ms(&*self.machine.clock);
        batch_of(id, epoch, sequence, transactional, &records, now)
    }

    pub(crate) fn write(&mut self) -> Result<(), AppendError> {
        let log = self.log();
        match self.random.below(10) {
            0 => append(&log, self.batch(-1, -1, -1, false)).map(drop)?,
            1 => {
                let (epoch, last, _) = self.state(IDEMPOTENT);
                append(&log, self.batch(IDEMPOTENT, epoch, last + 1, false)).map(drop)?;
            }
            2..7 => {
                let id = self.random.between(1, PRODUCERS);
                let (epoch, last, _) = self.state(id);
                let bytes = self.batch(id, epoch, last + 1, true);
                append_verified(&log, bytes, id <= TV2).map(drop)?;
            }
            _ => self.end_transaction()?,
        }
        self.learn();
        Ok(())
    }

    fn end_transaction(&mut self) -> Result<(), AppendError> {
        let id = self.random.between(1, PRODUCERS);
        let (epoch, ..) = self.state(id);
        if self.random.below(10) == 0 {
            self.coordinator_epoch += 1;
        }
        let tv2 = id <= TV2;
        let commit = self.random.below(2) == 0;
        self.aborts += usize::from(!commit);
        let marker = Marker {
            producer_id: ProducerId::new(id),
            producer_epoch: ProducerEpoch::new(epoch + i16::from(tv2)),
            coordinator_epoch: self.coordinator_epoch,
            commit,
            tv2,
        };
        let log = self.log();
        log.append_marker(&marker, EPOCH)?;
        if tv2 && self.random.below(8) == 0 {
            log.append_marker(&marker, EPOCH)?;
        }
        Ok(())
    }

    /// Takes what is new in the log into the list.
    pub(crate) fn learn(&mut self) {
        let from = self.items.last().map_or(0, |item| item.next);
        let log = self.log();
        let from = from.max(log.log_start_offset().get());
        self.items.extend(raw(&log, from).into_iter().filter(|item| item.base >= from));
    }

    fn end_is_lost_from(&mut self, durable: i64) {
        let log = self.log();
        let end = log.log_end_offset().get();
        assert!(end >= durable, "{end} {durable}");
        self.items.retain(|item| item.next <= end);
        self.high_watermark = self.checkpointed.min(end).max(log.log_start_offset().get());
        self.learn();
    }

    pub(crate) fn come_back(&mut self) {
        self.log = None;
        match self.random.below(3) {
            0 => {
                let all = self.machine.log().log_end_offset().get();
                self.log = Some(self.machine.restart());
                self.end_is_lost_from(all);
                self.durable = all;
            }
            1 => {
                self.log = Some(self.machine.kill());
                self.end_is_lost_from(self.durable);
            }
            _ => {
                self.log = Some(self.machine.crash());
                self.end_is_lost_from(self.durable);
            }
        }
    }

    /// The machine was stopped in the middle of something.
    pub(crate) fn come_back_from_a_stop(&mut self) {
        self.log = None;
        let crash = self.random.below(2) == 0;
        self.log = Some(if crash { self.machine.crash() } else { self.machine.kill() });
        self.end_is_lost_from(self.durable);
    }

    pub(crate) fn checkpoint(&mut self) {
        self.durable = self.log().flush().unwrap().get();
        let known = [(partition(), Offset::new(self.high_watermark))].into();
        self.machine.dir().checkpoint_high_watermarks(&known).unwrap();
        self.checkpointed = self.high_watermark;
        self.machine.dir().checkpoint().unwrap();
    }

    pub(crate) fn advance(&mut self) {
        // Replicas have whole batches.
        let ends: Vec<i64> = self.items.iter().map(|item| item.next).collect();
        let above: Vec<i64> = ends.into_iter().filter(|end| *end > self.high_watermark).collect();
        let Some(end) = above.get(self.random.below(above.len() as u64) as usize) else { return };
        self.high_watermark = *end;
        self.log().high_watermark_moved(Offset::new(self.high_watermark));
    }

    fn truncate(&mut self) {
        let log = self.log();
        let start = log.log_start_offset().get();
        // Below the high watermark only after an unclean election.
        let from = if self.random.below(4) == 0 { start } else { self.high_watermark };
        let target = self.random.between(from, self.end());
        log.truncate_to(Offset::new(target)).unwrap();
        let end = self.end();
        assert!(end <= target);
        self.items.retain(|item| item.next <= end);
        self.high_watermark = self.high_watermark.min(end);
        self.durable = self.durable.min(end);
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0..24 => self.write().unwrap(),
            24..30 => self.advance(),
            30 => self.log().roll().unwrap(),
            31 | 32 => self.checkpoint(),
            33 => self.truncate(),
            34 => {
                let to = self.random.between(self.log().log_start_offset().get(), self.high_watermark);
                self.log().delete_records_before(Offset::new(to)).unwrap();
            }
            35 => drop(self.log().delete_old_segments(Offset::new(self.high_watermark)).unwrap()),
            36 => self.log().release_memory(),
            37 => self.machine.clock.advance(10_000),
            _ => self.come_back_or_crash_on_the_way(),
        }
    }

    /// Sometimes the machine stops in the middle of something.
    fn come_back_or_crash_on_the_way(&mut self) {
        if self.random.below(2) == 0 {
            self.machine.storage.stop_after(self.random.below(12));
            let log = self.log();
            let high_watermark = Offset::new(self.high_watermark);
            let stopped = match self.random.below(4) {
                0 => log.flush().is_err(),
                1 => log.roll().is_err(),
                2 => log.delete_old_segments(high_watermark).is_err(),
                _ => (0..6).any(|_| self.write_quietly().is_err()),
            };
            drop(log);
            if stopped || self.random.below(2) == 0 {
                self.come_back_from_a_stop();
                return;
            }
            self.machine.storage.stop_after(u64::MAX);
            self.learn();
        }
        self.come_back();
    }

    /// As [`Self::write`], for a machine that may stop.
    fn write_quietly(&mut self) -> Result<(), AppendError> {
        let id = self.random.between(1, PRODUCERS);
        let (epoch, last, _) = self.state(id);
        let bytes = self.batch(id, epoch, last + 1, true);
        append_verified(&self.log(), bytes, id <= TV2)?;
        self.end_transaction()
    }

    /// What the log says is what the list says.
    pub(crate) fn check(&mut self) {
        let log = self.log();
        let start = log.log_start_offset().get();
        let high_watermark = self.high_watermark.max(start);
        self.high_watermark = high_watermark;
        let stable = log.last_stable_offset(Offset::new(high_watermark)).get();
        // What is before the log's start may be forgotten.
        let least = last_stable(&self.items, high_watermark, start, i64::MIN);
        let most = last_stable(&self.items, high_watermark, start, start);
        assert!((least..=most).contains(&stable), "{stable} is not within {least}..={most}");
        let from = self.random.between(start, stable);
        let bytes_max = 1 + self.random.below(700) as usize;
        let seen = consumed(&log, from, stable, bytes_max);
        assert_eq!(seen, committed(&self.items, from, stable), "{from}..{stable}, {bytes_max} at a time");
        self.check_lists(&log, from, stable);
    }

    /// No aborted transaction is missing or made up, and hardly one comes that does not concern what was read.
    fn check_lists(&mut self, log: &Log, from: i64, stable: i64) {
        let (data, aborted) = log.read_committed(Offset::new(from), 300, Offset::new(stable), true).unwrap();
        let bytes = data.into_bytes().unwrap();
        let Some(next) = towpath_record::batches(&bytes).last().map(|batch| batch.unwrap().next_offset())
        else {
            assert!(aborted.is_empty());
            return;
        };
        let known = transactions(&self.items, i64::MIN);
        let is = |transaction: &Transaction, producer: i64, first: i64| {
            // Its beginning may be before the log's.
            transaction.producer == producer
                && transaction.first <= first
                && transaction.end.is_some_and(|(marker, commit)| !commit && marker > first)
        };
        for told in &aborted {
            let (producer, first) = (told.producer_id.get(), told.first_offset.get());
            assert!(known.iter().any(|known| is(known, producer, first)), "{told:?} was never aborted");
        }
        let start = log.log_start_offset().get();
        for known in transactions(&self.items, start) {
            let concerns =
                known.first < next.get() && known.end.is_some_and(|(end, commit)| !commit && end >= from);
            let is_told = aborted.iter().any(|told| {
                told.producer_id.get() == known.producer && told.first_offset.get() <= known.first
            });
            assert!(!concerns || is_told, "{known:?} is missing in {aborted:?}, read {from}..{next}");
        }
    }
}

pub(crate) fn config(random: &mut Random) -> LogConfig {
    LogConfig {
        segment_bytes: 600 + random.below(2000),
        index_interval_bytes: 100 + random.below(400),
        retention_ms: Some(60_000),
        tail_bytes: if random.below(2) == 0 { 0 } else { 4096 },
        ..LogConfig::default()
    }
}

#[test]
fn a_naive_reading_agrees_whatever_happens() {
    let (mut aborts, mut items) = (0, 0);
    for seed in 0..100 {
        let config = config(&mut Random::new(seed + 1_000_000));
        let mut world = World::new(seed, config);
        for step in 0..160 {
            world.step();
            if step % 3 == 0 {
                let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.check()));
                assert!(checked.is_ok(), "seed {seed}, step {step}");
            }
        }
        aborts += world.aborts;
        items += world.items.len();
    }
    assert!(aborts > 500 && items > 2000, "{aborts} {items}");
}

/// What a follower has fetched says the same as the leader, also of transactions that it has only a part of.
#[test]
fn a_follower_says_what_its_leader_says() {
    for seed in 0..40 {
        let mut world = World::new(seed, config(&mut Random::new(seed)));
        let mut follower = World::new(seed, config(&mut Random::new(seed + 77)));
        for _ in 0..40 {
            for _ in 0..5 {
                world.write().unwrap();
            }
            let (leader, log) = (world.log(), follower.log());
            let data = leader.read(log.log_end_offset(), 400, leader.log_end_offset(), true).unwrap();
            let mut bytes = BytesMut::from(&data.into_bytes().unwrap()[..]);
            // A fetch may be cut anywhere.
            bytes.truncate(bytes.len() - follower.random.below(40) as usize);
            log.append_as_follower(&bytes.freeze(), LeaderEpoch::new(0)).unwrap();
            follower.learn();
            follower.advance();
            follower.check();
            if follower.random.below(6) == 0 {
                follower.checkpoint();
                follower.come_back();
                follower.check();
            }
        }
        let end = follower.log().log_end_offset();
        assert_eq!(follower.items[..], world.items[..follower.items.len()]);
        world.high_watermark = end.get();
        let (from, bound) = (0, follower.log().last_stable_offset(end).get());
        assert_eq!(
            consumed(&follower.log(), from, bound, 500),
            consumed(&world.log(), from, bound, 100),
            "seed {seed}"
        );
    }
}
