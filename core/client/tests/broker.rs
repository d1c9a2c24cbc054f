//! The suite against our own broker, over TCP and in process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod suite;

use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use towpath_broker::{Broker, BrokerConfig};
use towpath_client::{ClientConfig, InProcessTransport};

/// One broker for all tests: it lives in a runtime of its own, since every test ends its own.
fn broker() -> &'static (Arc<Broker>, Runtime, TempDir) {
    static BROKER: OnceLock<(Arc<Broker>, Runtime, TempDir)> = OnceLock::new();
    BROKER.get_or_init(|| {
        let data = TempDir::new().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut config = BrokerConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            auto_create_topics: false,
            ..BrokerConfig::new(data.path())
        };
        for (name, value) in [
            ("share.coordinator.state.topic.num.partitions", "3"),
            ("group.share.min.heartbeat.interval.ms", "100"),
            ("group.share.heartbeat.interval.ms", "200"),
            ("group.share.min.record.lock.duration.ms", "1000"),
        ] {
            config.set(name, value).unwrap();
        }
        let broker = runtime.block_on(Broker::start(config)).unwrap();
        (Arc::new(broker), runtime, data)
    })
}

mod tcp {
    use super::*;

    fn cluster() -> ClientConfig {
        let address = broker().0.local_addr().unwrap();
        ClientConfig { bootstrap_servers: vec![address.to_string()], ..Default::default() }
    }

    crate::suite!(cluster);

    /// `cargo test -- --ignored` shows which of them our broker can do by now.
    mod not_yet {
        use super::*;

        crate::suite!(cluster, not_ours_yet, ignore = "our broker cannot do this yet");
    }
}

mod in_process {
    use super::*;

    fn cluster() -> ClientConfig {
        let (broker, runtime, _) = broker();
        let transport = InProcessTransport::new(move |stream| {
            // The broker's tasks belong to its own runtime, not to the test's, which ends before.
            let _entered = runtime.enter();
            broker.accept_stream(stream);
        });
        ClientConfig {
            bootstrap_servers: vec!["in-process:1".to_owned()],
            transport: Arc::new(transport),
            ..Default::default()
        }
    }

    crate::suite!(cluster);
}
