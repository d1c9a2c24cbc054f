//! W7: a snapshot of a table.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use towpath_harness::{Postgres, Towpath};

use crate::admin::Admin;
use crate::arrival::{Arrival, arrival};
use crate::cli::{Arguments, Side};
use crate::debezium::{self, Debezium};
use crate::floor;
use crate::report::{Report, higher, lower, say};
use crate::source::{self, DATABASE, TABLE};

/// W7.
pub(crate) fn w7(arguments: &Arguments) -> Result<Vec<Report>> {
    let rows = arguments.records(1_000_000);
    let server = source::server()?;
    source::insert_in_chunks(&server, 0, rows)?;
    server.psql(DATABASE, &format!("VACUUM ANALYZE {TABLE}"))?;
    let mut sides = Vec::new();
    let mut debezium = None;
    let mut number = 0;
    if arguments.wants(Side::Towpath) {
        sides.push((Side::Towpath, "towpath"));
    }
    if arguments.wants(Side::Peer) {
        sides.push((Side::Peer, debezium::SOURCE));
        let mut worker = Debezium::start(false)?;
        let begin = Instant::now();
        while begin.elapsed() < arguments.warm_up() {
            say("warming up Debezium");
            number += 1;
            theirs(&mut worker, &server, number, rows)?;
        }
        debezium = Some(worker);
    }
    if arguments.wants(Side::Floor) {
        sides.push((Side::Floor, "COPY TO STDOUT"));
    }
    let names: Vec<&str> = sides.iter().map(|(_, name)| *name).collect();
    let figures = [higher("rows", "k/s"), lower("worker CPU", "µs/row")];
    let title = format!("snapshot of {rows} rows");
    let report = Report::measure(title, &figures, &names, arguments.pairs(), |subject, _| {
        number += 1;
        match sides.get(subject).context("no subject")?.0 {
            Side::Towpath => Ok(ours(&server, number, rows)?.figures()),
            Side::Peer => {
                Ok(theirs(debezium.as_mut().context("no worker")?, &server, number, rows)?.figures())
            }
            Side::Floor => {
                let copy = format!("COPY {TABLE} TO STDOUT");
                let spent = floor::timed(&server, "psql", &["-X", "-q", "-d", DATABASE, "-c", &copy])?;
                Ok(floor::figures(&spent, rows))
            }
        }
    })?;
    Ok(vec![
        report
            .note(
                "from the first rows seen in the topic (by its end offset) to the last; COPY: one connection, psql into \
                 /dev/null; all processes on all cores",
            )
            .note(
                "towpath: CPU of the whole process, embedded broker included, each batch fsynced before it counts. \
                 Debezium: CPU of the Connect worker without its Apache Kafka (page cache), JSON without schemas",
            ),
    ])
}

/// A fresh node takes the snapshot.
fn ours(server: &Postgres, number: u32, rows: u64) -> Result<Arrival> {
    let name = format!("ours_{number}");
    let mut towpath = Towpath::prepare(source::capture_options(server, &name))?;
    towpath.spawn()?;
    crate::broker::wait_metadata(towpath.kafka_address()).with_context(|| towpath.log_tail())?;
    let admin = Admin::connect(towpath.kafka_address())?;
    let pid = towpath.pid().context("towpath has ended")?;
    let seen = arrival(pid, 0, rows, || source::captured(&mut towpath, &admin))?;
    // Exactly once: not one more, also a moment later.
    std::thread::sleep(Duration::from_millis(300));
    admin.verify_records(source::TOPIC, 1, rows).with_context(|| towpath.log_tail())?;
    towpath.terminate(Duration::from_secs(60))?;
    source::drop_slot(server, &name)?;
    Ok(seen)
}

/// The warm worker takes the snapshot with a new connector.
fn theirs(debezium: &mut Debezium, server: &Postgres, number: u32, rows: u64) -> Result<Arrival> {
    let name = format!("theirs_{number}");
    let prefix = format!("bench{number}");
    let topic = format!("{prefix}.public.{TABLE}");
    debezium.create_source(&name, server, &prefix)?;
    let count = || Ok(debezium.admin.records(&topic, 1));
    let seen = arrival(debezium.pid(), 0, rows, count).with_context(|| debezium.log_tail())?;
    debezium.delete(&name)?;
    debezium.admin.verify_records(&topic, 1, rows)?;
    debezium.admin.delete_topic(&topic)?;
    source::drop_slot(server, &name)?;
    Ok(seen)
}
