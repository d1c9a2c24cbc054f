//! W6: capturing a backlog from PostgreSQL.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use towpath_harness::{Postgres, Towpath};

use crate::admin::Admin;
use crate::arrival::{Arrival, arrival};
use crate::cli::{Arguments, Side};
use crate::debezium::{self, Debezium};
use crate::floor;
use crate::report::{Report, higher, lower, say};
use crate::source::{self, DATABASE, TABLE, TOPIC};

const OURS: &str = "ours";
const THEIRS: &str = "theirs";
const FLOOR: &str = "floor";
const GRACE: Duration = Duration::from_secs(60);

/// What the backlog consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Inserts,
    Updates,
    Transactions,
}

/// Everything that reads the same changes, each through its own slot.
struct Stage {
    server: Postgres,
    subjects: Vec<Subject>,
    /// The next id of the table, which is also how many rows there are.
    next_id: u64,
    /// Changes since the slots were made, which every topic must have.
    changes: u64,
}

enum Subject {
    Ours { towpath: Box<Towpath>, seen: u64 },
    Theirs { debezium: Box<Debezium>, seen: u64 },
    Floor,
}

/// W6.
pub(crate) fn w6(arguments: &Arguments) -> Result<Vec<Report>> {
    let mut stage = Stage::prepare(arguments)?;
    stage.warm_up(arguments)?;
    let names: Vec<&str> = stage.subjects.iter().map(Subject::name).collect();
    let figures = [higher("rows", "k/s"), lower("worker CPU", "µs/row")];
    let mut reports = Vec::new();
    for (phase, usual, what) in [
        (Phase::Inserts, 1_000_000, "inserts in transactions of 10,000"),
        (Phase::Updates, 1_000_000, "updates in transactions of 10,000"),
        (Phase::Transactions, 200_000, "transactions of one insert"),
    ] {
        let rows = arguments.records(usual);
        let mut written = None;
        let title = format!("capture a backlog of {rows} {what}");
        let report = Report::measure(title, &figures, &names, arguments.pairs(), |subject, pair| {
            if written != Some(pair) {
                stage.write(phase, rows)?;
                written = Some(pair);
            }
            stage.drain(subject, rows).map(|(figures, _)| figures)
        })?;
        reports.push(
            report
                .note(
                    "one backlog in PostgreSQL's log for all, each through a slot of its own; from the first rows seen in \
                     the topic (by its end offset) to the last; all processes on all cores",
                )
                .note(
                    "towpath: CPU of the whole process, embedded broker included, each batch fsynced before it counts. \
                     Debezium: CPU of the Connect worker without its Apache Kafka (page cache), JSON without schemas, \
                     default settings. pg_recvlogical: pgoutput into /dev/null",
                ),
        );
    }
    Ok(reports)
}

impl Subject {
    fn name(&self) -> &'static str {
        match self {
            Self::Ours { .. } => "towpath",
            Self::Theirs { .. } => debezium::SOURCE,
            Self::Floor => "pg_recvlogical",
        }
    }
}

impl Stage {
    /// Starts everything, waits until each follows the changes, and stops the workers again.
    fn prepare(arguments: &Arguments) -> Result<Self> {
        let server = source::server()?;
        source::insert(&server, 0, 1, 1)?;
        let mut subjects = Vec::new();
        if arguments.wants(Side::Towpath) {
            say("starting towpath");
            let mut towpath = Towpath::start(source::capture_options(&server, OURS))?;
            let admin = Admin::connect(towpath.kafka_address())?;
            source::wait_for("towpath's snapshot", 1, || source::captured(&mut towpath, &admin))?;
            subjects.push(Subject::Ours { towpath: Box::new(towpath), seen: 1 });
        }
        if arguments.wants(Side::Peer) {
            say("starting Debezium");
            let mut debezium = Debezium::start(false)?;
            debezium.create_source(THEIRS, &server, "bench")?;
            source::wait_for("Debezium's snapshot", 1, || Ok(debezium.admin.records(TOPIC, 1)))?;
            subjects.push(Subject::Theirs { debezium: Box::new(debezium), seen: 1 });
        }
        if arguments.wants(Side::Floor) {
            let slot = format!(
                "CREATE PUBLICATION {FLOOR} FOR TABLE {TABLE}; \
                 SELECT pg_create_logical_replication_slot('{FLOOR}', 'pgoutput')"
            );
            // The slot must not be made in a transaction that has written.
            for statement in slot.split("; ") {
                server.psql(DATABASE, statement)?;
            }
            subjects.push(Subject::Floor);
        }
        // One change that each must follow shows that the snapshots are over.
        source::insert(&server, 1, 1, 1)?;
        let mut stage = Self { server, subjects, next_id: 2, changes: 0 };
        for subject in &mut stage.subjects {
            subject.settle()?;
        }
        Ok(stage)
    }

    fn warm_up(&mut self, arguments: &Arguments) -> Result<()> {
        let rows = arguments.records(1_000_000).div_ceil(4);
        let mut warm = Duration::ZERO;
        while warm < arguments.warm_up() {
            say("warming up");
            self.write(Phase::Inserts, rows)?;
            let mut longest = Duration::ZERO;
            for subject in 0..self.subjects.len() {
                longest = longest.max(self.drain(subject, rows)?.1);
            }
            warm += longest;
            if arguments.only.is_some_and(|side| side != Side::Peer) {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, phase: Phase, rows: u64) -> Result<()> {
        let first = self.next_id;
        match phase {
            Phase::Inserts => source::insert_in_chunks(&self.server, first, rows)?,
            Phase::Transactions => source::insert(&self.server, first, rows, 1)?,
            Phase::Updates => {
                let first = first.checked_sub(rows).context("fewer rows than updates")?;
                source::update(&self.server, first, rows)?;
                self.changes += rows;
                return Ok(());
            }
        }
        self.next_id += rows;
        self.changes += rows;
        Ok(())
    }

    /// Lets one subject read the backlog.
    fn drain(&mut self, subject: usize, rows: u64) -> Result<(Vec<f64>, Duration)> {
        let server = &self.server;
        let of = |seen: &Arrival| (seen.figures(), seen.wall());
        match self.subjects.get_mut(subject).context("no subject")? {
            Subject::Ours { towpath, seen } => {
                let result = drain_ours(towpath, *seen, rows).with_context(|| towpath.log_tail())?;
                *seen += rows;
                Ok(of(&result))
            }
            Subject::Theirs { debezium, seen } => {
                debezium.resume(THEIRS)?;
                let count = || Ok(debezium.admin.records(TOPIC, 1));
                let result =
                    arrival(debezium.pid(), *seen, rows, count).with_context(|| debezium.log_tail())?;
                debezium.stop(THEIRS)?;
                // At least once: what it sent again is no change of ours.
                *seen = debezium.admin.records(TOPIC, 1);
                Ok(of(&result))
            }
            Subject::Floor => {
                let spent = drain_floor(server)?;
                Ok((floor::figures(&spent, rows), spent.wall))
            }
        }
    }
}

impl Subject {
    /// Waits until the first change after the snapshot has come, and stops.
    fn settle(&mut self) -> Result<()> {
        match self {
            Self::Ours { towpath, seen } => {
                let admin = Admin::connect(towpath.kafka_address())?;
                source::wait_for("towpath's first change", 2, || source::captured(towpath, &admin))?;
                *seen = 2;
                end(towpath)
            }
            Self::Theirs { debezium, seen } => {
                source::wait_for("Debezium's first change", 2, || Ok(debezium.admin.records(TOPIC, 1)))?;
                *seen = 2;
                debezium.stop(THEIRS)
            }
            Self::Floor => Ok(()),
        }
    }
}

fn end(towpath: &mut Towpath) -> Result<()> {
    let status = towpath.terminate(GRACE)?;
    if !status.success() {
        bail!("towpath ended with {status}");
    }
    Ok(())
}

fn drain_ours(towpath: &mut Towpath, seen: u64, rows: u64) -> Result<Arrival> {
    towpath.spawn()?;
    crate::broker::wait_metadata(towpath.kafka_address())?;
    let admin = Admin::connect(towpath.kafka_address())?;
    let pid = towpath.pid().context("towpath has ended")?;
    let result = arrival(pid, seen, rows, || source::captured(towpath, &admin))?;
    // Exactly once: not one more, also a moment later.
    std::thread::sleep(Duration::from_millis(300));
    admin.verify_records(TOPIC, 1, seen + rows)?;
    end(towpath)?;
    Ok(result)
}

fn drain_floor(server: &Postgres) -> Result<crate::meter::Spent> {
    let end = server.psql(DATABASE, "SELECT pg_current_wal_insert_lsn()")?;
    let spent = floor::timed(
        server,
        "pg_recvlogical",
        &[
            "-d",
            DATABASE,
            "--start",
            "--no-loop",
            "-S",
            FLOOR,
            "-E",
            &end,
            "-o",
            "proto_version=1",
            "-o",
            &format!("publication_names={FLOOR}"),
            "-f",
            "-",
        ],
    )?;
    let reached = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{FLOOR}'"
    );
    let deadline = Instant::now() + GRACE;
    while server.psql(DATABASE, &reached)? != "t" {
        if Instant::now() >= deadline {
            bail!("pg_recvlogical has not reached {end}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(spent)
}
