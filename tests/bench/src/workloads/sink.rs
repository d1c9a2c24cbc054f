//! W8: delivering rows into PostgreSQL.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use towpath_harness::{Postgres, TempDir, Towpath};

use crate::admin::Admin;
use crate::arrival::{Arrival, arrival};
use crate::cli::{Arguments, Side};
use crate::debezium::{self, Debezium};
use crate::floor;
use crate::report::{Report, higher, lower, say};
use crate::source::{self, DATABASE, TABLE, TOPIC};
use crate::sql::Sql;

/// The table that is written.
const TARGET: &str = "delivered";
const COPY_ROWS: usize = 1_000;

struct Stage {
    server: Postgres,
    rows: u64,
    /// Bytes of a table that has all rows.
    full_bytes: u64,
    towpath: Option<Towpath>,
    debezium: Option<Debezium>,
    /// A script of COPY statements.
    copies: Option<TempDir>,
    number: u32,
}

/// W8.
pub(crate) fn w8(arguments: &Arguments) -> Result<Vec<Report>> {
    let mut stage = Stage::prepare(arguments)?;
    let mut reports = Vec::new();
    for (mode, sides) in [
        ("upsert", &[Side::Towpath, Side::Peer, Side::Floor][..]),
        ("append", &[Side::Towpath, Side::Floor][..]),
    ] {
        let sides: Vec<Side> = sides.iter().copied().filter(|side| arguments.wants(*side)).collect();
        if sides.is_empty() {
            continue;
        }
        if mode == "upsert" {
            stage.warm_up(arguments)?;
        }
        let names: Vec<&str> = sides.iter().map(|side| name(*side)).collect();
        let figures = [higher("rows", "k/s"), lower("worker CPU", "µs/row")];
        let title = format!("{mode} {} rows into PostgreSQL", stage.rows);
        let report = Report::measure(title, &figures, &names, arguments.pairs(), |subject, _| {
            stage.run(*sides.get(subject).context("no subject")?, mode)
        })?;
        let table = if mode == "upsert" { "with a primary key" } else { "without a key" };
        reports.push(
            report
                .note(format!(
                    "the topic was filled before, by each one's own capture; into an empty table {table}, made \
                     beforehand, commits fsynced; from the first rows seen in the table to the last; afterwards the table \
                     equals its source; all processes on all cores"
                ))
                .note(
                    "towpath: exactly once, CPU of the whole process, embedded broker included. Debezium: at least once, \
                     CPU of the Connect worker without its Apache Kafka, batches of 3000. COPY: psql, 1000 rows a \
                     transaction",
                ),
        );
    }
    Ok(reports)
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Towpath => "towpath",
        Side::Peer => debezium::SINK,
        Side::Floor => "COPY FROM, 1000 rows a transaction",
    }
}

impl Stage {
    fn prepare(arguments: &Arguments) -> Result<Self> {
        let rows = arguments.records(1_000_000);
        let server = source::server()?;
        source::insert_in_chunks(&server, 0, rows)?;
        let full_bytes = Sql::connect(&server, DATABASE)?.number(&size(TABLE))?;
        let mut stage =
            Self { server, rows, full_bytes, towpath: None, debezium: None, copies: None, number: 0 };
        if arguments.wants(Side::Towpath) {
            say("filling towpath's topic");
            stage.towpath = Some(stage.fill_ours()?);
        }
        if arguments.wants(Side::Peer) {
            say("filling Debezium's topic");
            stage.debezium = Some(stage.fill_theirs()?);
        }
        if arguments.wants(Side::Floor) {
            stage.copies = Some(stage.script()?);
        }
        Ok(stage)
    }

    fn fill_ours(&self) -> Result<Towpath> {
        let mut towpath = Towpath::start(source::capture_options(&self.server, "ours"))?;
        let admin = Admin::connect(towpath.kafka_address())?;
        source::wait_for("towpath's capture", self.rows, || source::captured(&mut towpath, &admin))?;
        towpath.terminate(Duration::from_secs(60))?;
        source::drop_slot(&self.server, "ours")?;
        Ok(towpath)
    }

    fn fill_theirs(&self) -> Result<Debezium> {
        let mut debezium = Debezium::start(true)?;
        debezium.create_source("theirs", &self.server, "bench")?;
        source::wait_for("Debezium's capture", self.rows, || Ok(debezium.admin.records(TOPIC, 1)))?;
        debezium.delete("theirs")?;
        source::drop_slot(&self.server, "theirs")?;
        Ok(debezium)
    }

    /// A file with a COPY statement for every thousand rows.
    fn script(&self) -> Result<TempDir> {
        let folder = TempDir::new("copies")?;
        let rows = self.server.psql(DATABASE, &format!("COPY {TABLE} TO STDOUT"))?;
        let mut text = String::with_capacity(rows.len() + rows.len() / 8);
        let lines: Vec<&str> = rows.lines().collect();
        for chunk in lines.chunks(COPY_ROWS) {
            writeln!(text, "COPY {TARGET} FROM STDIN;\n{}\n\\.", chunk.join("\n"))?;
        }
        std::fs::write(folder.join("copies.sql"), text)?;
        Ok(folder)
    }

    fn warm_up(&mut self, arguments: &Arguments) -> Result<()> {
        let begin = Instant::now();
        while self.debezium.is_some() && begin.elapsed() < arguments.warm_up() {
            say("warming up Debezium");
            self.run(Side::Peer, "upsert")?;
        }
        Ok(())
    }

    /// One delivery into an empty table.
    fn run(&mut self, side: Side, mode: &str) -> Result<Vec<f64>> {
        let like = if mode == "upsert" { "INCLUDING ALL" } else { "" };
        for statement in [
            format!("DROP TABLE IF EXISTS {TARGET}, towpath_sink_offsets"),
            format!("CREATE TABLE {TARGET} (LIKE {TABLE} {like})"),
            "CHECKPOINT".to_owned(),
        ] {
            self.server.psql(DATABASE, &statement)?;
        }
        self.number += 1;
        let figures = match side {
            Side::Towpath => self.ours(mode)?.figures(),
            Side::Peer => self.theirs()?.figures(),
            Side::Floor => {
                let script = self.copies.as_ref().context("no script")?.join("copies.sql");
                let script = script.display().to_string();
                let arguments = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", DATABASE, "-f", &script];
                floor::figures(&floor::timed(&self.server, "psql", &arguments)?, self.rows)
            }
        };
        self.verify()?;
        Ok(figures)
    }

    fn ours(&mut self, mode: &str) -> Result<Arrival> {
        let yaml = format!(
            "pipelines:\n  deliver_{}:\n    topics: [{TOPIC}]\n    transforms: [{{ type: unwrap }}]\n    sink:\n      \
             type: postgres\n      url: \"${{env:BENCH_URL}}\"\n      mode: {mode}\n      table: {TARGET}\n",
            self.number
        );
        let mut looks = Looks::new(&self.server, self.full_bytes)?;
        let towpath = self.towpath.as_mut().context("no towpath")?;
        towpath.set_yaml(yaml)?;
        towpath.spawn()?;
        let pid = towpath.pid().context("towpath has ended")?;
        let seen = arrival(pid, 0, self.rows, || {
            if !towpath.is_running()? {
                bail!("towpath has ended");
            }
            looks.count()
        })
        .with_context(|| towpath.log_tail())?;
        towpath.terminate(Duration::from_secs(60))?;
        Ok(seen)
    }

    fn theirs(&mut self) -> Result<Arrival> {
        let name = format!("deliver_{}", self.number);
        let mut looks = Looks::new(&self.server, self.full_bytes)?;
        let debezium = self.debezium.as_mut().context("no worker")?;
        debezium.create_sink(&name, &self.server, TOPIC, TARGET)?;
        let seen =
            arrival(debezium.pid(), 0, self.rows, || looks.count()).with_context(|| debezium.log_tail())?;
        debezium.delete(&name)?;
        Ok(seen)
    }

    /// The table equals its source.
    fn verify(&self) -> Result<()> {
        let sum = |table: &str| {
            self.server.psql(
                DATABASE,
                &format!("SELECT count(*), sum(id), sum(amount), sum(customer), sum(length(note)), max(created) FROM {table}"),
            )
        };
        let (theirs, ours) = (sum(TABLE)?, sum(TARGET)?);
        if theirs != ours {
            bail!("the source has {theirs}, the target {ours}");
        }
        Ok(())
    }
}

fn size(table: &str) -> String {
    format!("SELECT pg_relation_size('{table}')")
}

/// Counting rows costs the server; so the table's size tells until it is nearly full.
struct Looks {
    sql: Sql,
    full_bytes: u64,
    begun: bool,
}

impl Looks {
    fn new(server: &Postgres, full_bytes: u64) -> Result<Self> {
        Ok(Self { sql: Sql::connect(server, DATABASE)?, full_bytes, begun: false })
    }

    /// Rows: counted until there are some, and near the end; one for "some" in between.
    fn count(&mut self) -> Result<u64> {
        let bytes = self.sql.number(&size(TARGET))?;
        if bytes == 0 {
            return Ok(0);
        }
        if self.begun && bytes < self.full_bytes / 100 * 98 {
            return Ok(1);
        }
        let rows = self.sql.number(&format!("SELECT count(*) FROM {TARGET}"))?;
        self.begun |= rows > 0;
        Ok(rows)
    }
}
