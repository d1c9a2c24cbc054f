//! Every API at every version that the broker advertises, in bytes that are kept in `files/`: what is said there, and
//! what is answered, changes only where a change of the files says so. `TOWPATH_GOLDEN=write` writes them anew; the
//! difference in the repository is then what has to be judged. The same is said to an Apache Kafka (`judge.rs`): what
//! it answers otherwise stands in `kafka-differences.txt`, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod families;
mod judge;
mod record;
mod settle;
mod talk;

use std::collections::BTreeSet;

use tempfile::TempDir;
use towpath_broker::{Broker, BrokerConfig, Endpoint};
use towpath_wire::ApiVersionsRequest;

use crate::talk::{Exchange, Server, Talk};

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Bytes of the data directory's path.
const DATA_DIR_BYTES: usize = 100;

/// A broker whose answers can be foretold.
async fn start() -> (Broker, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    // Paths stand in requests and answers: their length must not be this machine's.
    let length = dir.path().as_os_str().len() + 1;
    assert!(length < DATA_DIR_BYTES, "TMPDIR is too long a path");
    let mut config = BrokerConfig::new(dir.path().join("d".repeat(DATA_DIR_BYTES - length)));
    config.advertised = Some(Endpoint { host: "127.0.0.1".to_owned(), port: 9092 });
    config.offsets_partitions = 4;
    config.transactions_partitions = 4;
    config.share_state_partitions = 4;
    (Broker::start(config).await.unwrap(), dir)
}

/// The versions that a broker says it has.
async fn advertised(server: Server<'_>) -> BTreeSet<(i16, i16)> {
    let request = ApiVersionsRequest {
        client_software_name: "golden".to_owned(),
        client_software_version: "1".to_owned(),
    };
    let keys = Talk::begin(server).await.ask(4, &request).await.api_keys;
    keys.iter()
        .flat_map(|it| (it.min_version..=it.max_version).map(|version| (it.api_key, version)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_of_every_api_answers_as_it_is_kept() {
    let mut exchanges: Vec<Exchange> = Vec::new();
    let mut advertised_versions = BTreeSet::new();
    for family in families::ALL {
        // Each family has a broker of its own, and does not see what others left behind.
        let (broker, _dir) = start().await;
        advertised_versions = advertised(Server::Ours(&broker)).await;
        exchanges.extend(family.run(Server::Ours(&broker)).await);
        broker.shutdown().await.unwrap();
    }
    let (broker, _dir) = start().await;
    exchanges.extend(families::malformed(Server::Ours(&broker), &exchanges).await);
    broker.shutdown().await.unwrap();

    let asked: BTreeSet<_> = exchanges.iter().map(|it| (it.key, it.version)).collect();
    let missing: Vec<_> = advertised_versions
        .difference(&asked)
        .map(|(key, version)| format!("{} v{version}", talk::name(*key)))
        .collect();
    assert!(missing.is_empty(), "advertised, and asked by no golden test: {missing:?}");

    if std::env::var(record::WRITE).is_ok_and(|value| value == "write") {
        record::write(&exchanges);
    }
    let differences = record::differences(&exchanges);
    assert!(
        differences.is_empty(),
        "answers are not as they are kept. If they are meant to change, set {}=write, and look at what it changes in \
         {}:\n{differences}",
        record::WRITE,
        record::folder().display(),
    );
}
