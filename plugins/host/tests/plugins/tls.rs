//! TLS around the plugins' connections, over a real Redis: what is encrypted is whom the grant names, or nothing.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use towpath_api::conformance;
use towpath_api::{
    ConnectorError, ErrorKind, Guarantee, PluginLoader as _, PluginScope, RawConfig, SourceConnector,
    TaskContext,
};
use towpath_harness::Redis;

use crate::connectors::{REDIS_SINK, REDIS_STREAMS, load};
use crate::redis::add;
use crate::support::PLUGINS;

const PASSWORD: &str = "let me in, Redis!";

fn grants(place: &str, authority: Option<&Redis>) -> Json {
    let mut grants = json!({ "tcp": [place], "secrets": ["password"] });
    if let Some(redis) = authority {
        grants["tls_ca"] = json!(redis.authority());
    }
    json!({ "grants": grants })
}

fn streams(entry: &Json, address: &str) -> Box<dyn SourceConnector> {
    let factory = load(&REDIS_STREAMS, entry).source.unwrap();
    let options = json!({ "address": address, "streams": ["s"], "key": "n", "password": PASSWORD });
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"))
}

async fn refused(entry: &Json, address: &str) -> ConnectorError {
    let checked = streams(entry, address).check(&TaskContext::new("test", 0)).await;
    checked.unwrap_err().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn connectors_keep_the_contract_within_tls() {
    let redis = Redis::with_tls(PASSWORD).unwrap();
    let address = format!("127.0.0.1:{}", redis.tls_port());
    let entry = grants(&format!("tls://{address}"), Some(&redis));
    add(&redis, "s", 60);
    let limit = std::time::Duration::from_secs(20);
    let report =
        conformance::source_as_given(&*streams(&entry, &address), Guarantee::ExactlyOnce, limit).await;
    assert!(report.broken.is_none() && report.not_judged.is_empty(), "{report:?}");
    let factory = load(&REDIS_SINK, &entry).sink.unwrap();
    let options = json!({ "address": address, "prefix": "row:", "password": PASSWORD });
    let config = RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    let sink = factory.parse(&config).unwrap_or_else(|problems| panic!("{problems}"));
    let report = conformance::sink_as_given(sink, Guarantee::ExactlyOnce).await;
    assert!(report.broken.is_none(), "{report:?}");
    assert_eq!(redis.cli(&["HGET", "row:3", "text"]).unwrap(), "text");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_believed_is_told_nothing() {
    let redis = Redis::with_tls(PASSWORD).unwrap();
    let other = Redis::with_tls(PASSWORD).unwrap();
    let port = redis.tls_port();
    let (address, name) = (format!("127.0.0.1:{port}"), format!("localhost:{port}"));
    // Another authority, those that the public trusts, another name than the certificate's.
    for (place, authority) in [(&address, Some(&other)), (&address, None), (&name, Some(&redis))] {
        let error = refused(&grants(&format!("tls://{place}"), authority), place).await;
        assert_eq!((error.code(), error.kind()), ("PLUGIN_TLS", ErrorKind::NeedsOperator), "{error}");
        assert!(error.hint().unwrap().contains("grants.tls_ca"), "{error:?}");
    }
    // A grant without TLS is one for what is plain, and the other way round.
    let error = refused(&grants(&address, None), &address).await;
    assert!(error.code() != "PLUGIN_GRANT", "{error}");
    let plain = redis.address();
    let error = refused(&grants(&format!("tls://{plain}"), Some(&redis)), &plain).await;
    assert!(["PLUGIN_TLS", "PLUGIN_TCP"].contains(&error.code()), "{error}");
    let entry = grants(&format!("tls://{address}"), Some(&redis));
    assert_eq!(refused(&entry, &plain).await.code(), "PLUGIN_GRANT");
}

/// A server that speaks no TLS hears the beginning of it, and never the password.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard: Arc<parking_lot::Mutex<Vec<u8>>> = Arc::default();
    let ear = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let length = stream.read(&mut bytes).await.unwrap_or(0);
            ear.lock().extend_from_slice(&bytes[..length]);
        }
    });
    let error = refused(&grants(&format!("tls://{address}"), None), &address).await;
    assert!(["PLUGIN_TLS", "PLUGIN_TCP"].contains(&error.code()), "{error}");
    let heard = heard.lock();
    assert!(heard.first() == Some(&0x16), "a handshake of TLS begins with 22: {:?}", heard.first());
    assert!(!heard.windows(PASSWORD.len()).any(|it| it == PASSWORD.as_bytes()));
}

#[test]
fn an_authority_that_is_none_is_told_where_it_is_written() {
    let entry = grants("tls://127.0.0.1:1", None);
    let mut values = json!({ "path": &*REDIS_STREAMS, "grants": entry["grants"] });
    values["grants"]["tls_ca"] = json!(&*REDIS_STREAMS);
    let config = RawConfig::with_defaults(&PLUGINS.options(), values).unwrap();
    let problems = PLUGINS.load("mine", &config, &PluginScope::default()).unwrap_err().problems;
    assert_eq!((problems[0].path.as_str(), problems.len()), ("grants.tls_ca", 1), "{problems:?}");
}
