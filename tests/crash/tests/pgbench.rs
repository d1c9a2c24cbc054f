//! The main job under fire: a live pgbench load is captured and delivered into a second database, while towpath is
//! killed with -9 again and again and PostgreSQL is restarted. Afterwards the databases are equal, row by row.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]
#![allow(clippy::print_stderr, reason = "a seed that failed must be seen")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use towpath_crash::{Fire, Table, assert_equal, deliver};
use towpath_harness::cluster::{self, Cluster, Peer};
use towpath_harness::process::Options;
use towpath_harness::{Kafka, Postgres, Towpath, kafka, postgres};

const SCALE: u32 = 10;
const CLIENTS: u32 = 4;
/// Seconds of load, in two halves: PostgreSQL's restart in between ends pgbench's connections.
const SECONDS: u32 = 60;

const PIPELINES: &str = r#"
pipelines:
  shop:
    source:
      type: postgres_cdc
      url: "${env:SHOP_URL}"
      tables: ["public.pgbench_*"]
      insert_only: [public.pgbench_history]
    topic: "shop.{schema}.{table}"
  warehouse:
    topics: ["shop.public.*"]
    transforms: [{ type: unwrap }]
    sink: { type: postgres, url: "${env:WAREHOUSE_URL}", mode: upsert, table: "{topic.2}" }
"#;

/// What the pipelines run on.
enum Through<'a> {
    Embedded,
    Kafka(&'a Kafka),
    /// Three nodes of ours, which are killed one after the other as well.
    Cluster(&'a mut Cluster),
}

impl Through<'_> {
    fn bootstrap(&self) -> Option<String> {
        match self {
            Self::Embedded => None,
            Self::Kafka(kafka) => Some(kafka.bootstrap()),
            Self::Cluster(cluster) => Some(cluster.bootstrap()),
        }
    }

    /// Kills the next node, and starts it again a moment later.
    fn harm(&mut self, round: u8) -> Result<()> {
        if let Self::Cluster(cluster) = self {
            let node = cluster.node_mut(1 + round % 3)?;
            node.kill9()?;
            std::thread::sleep(Duration::from_millis(1500));
            cluster.node_mut(1 + round % 3)?.start()?;
            cluster.wait_whole(cluster::READY_TIMEOUT)?;
        }
        Ok(())
    }
}

fn under_fire(mut through: Through<'_>) -> Result<()> {
    let mut fire = Fire::new()?;
    eprintln!("seed {}", fire.seed);
    let mut server = Postgres::start(&postgres::Options::logical())?;
    server.create_database("shop")?;
    server.create_database("warehouse")?;
    server.pgbench_init("shop", SCALE)?;

    let cluster = through.bootstrap();
    let yaml = match &cluster {
        Some(servers) => {
            let servers: Vec<_> = servers.split(',').map(|server| format!("\"{server}\"")).collect();
            format!("cluster: {{ bootstrap_servers: [{}] }}\n{PIPELINES}", servers.join(", "))
        }
        None => PIPELINES.to_owned(),
    };
    let mut options =
        Options::yaml(yaml).env("SHOP_URL", server.url("shop")).env("WAREHOUSE_URL", server.url("warehouse"));
    if cluster.is_some() {
        options = options.without_broker();
    }
    let load = server.pgbench("shop", CLIENTS, SECONDS / 2, &[])?;
    // The snapshot is taken while the load runs.
    let mut towpath = Towpath::start(options)?;
    let moments = Duration::from_millis(500)..Duration::from_secs(9);
    for round in 0..3 {
        fire.strike(&mut towpath, moments.clone())?;
        through.harm(round)?;
    }
    let first = load.wait(Duration::from_secs(300))?;
    server.restart()?;
    let load = server.pgbench("shop", CLIENTS, SECONDS / 2, &[])?;
    for round in 0..2 {
        fire.strike(&mut towpath, moments.clone())?;
        through.harm(round)?;
    }
    let second = load.wait(Duration::from_secs(300))?;
    ensure!(first.whole && second.whole, "pgbench was cut short: {} {}", first.text, second.text);

    let begin = Instant::now();
    deliver(&mut towpath, Duration::from_secs(900))?;
    eprintln!(
        "{} transactions; delivered {:.1} s after the load",
        first.transactions + second.transactions,
        begin.elapsed().as_secs_f64()
    );
    let tables =
        ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"].map(Table::same);
    assert_equal(&server, "shop", "warehouse", &tables)
        .map_err(|error| error.context(format!("seed {}\n{}", fire.seed, towpath.log_tail())))
}

#[test]
fn pgbench_through_the_embedded_broker() -> Result<()> {
    under_fire(Through::Embedded)
}

#[test]
fn pgbench_through_apache_kafka() -> Result<()> {
    under_fire(Through::Kafka(&Kafka::start(&kafka::Options::default())?))
}

/// Connectors outlast the loss of brokers, their own and each other's, and double nothing.
#[test]
fn pgbench_through_a_cluster_whose_nodes_are_killed() -> Result<()> {
    let mut cluster = Cluster::start(cluster::Options::three(Peer::Towpath))?;
    under_fire(Through::Cluster(&mut cluster))
}
