//! What plugins reach outside: what is granted, and nothing else (R11).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use towpath_api::{ConnectorError, ErrorKind};

use crate::connectors::finds;

/// Answers every request with the same; what was asked is told by the one that takes `echo`.
async fn server(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = std::sync::Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = std::sync::Arc::clone(&answer);
            tokio::spawn(async move {
                let mut asked = Vec::new();
                let mut buffer = [0; 4096];
                while !asked.contains(&b'>') && !asked.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(length) if length > 0 => asked.extend_from_slice(&buffer[..length]),
                        _ => return,
                    }
                }
                let _ = stream.write_all(&answer(&String::from_utf8_lossy(&asked))).await;
            });
        }
    });
    address
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

async fn refused(entry: Json, options: Json) -> ConnectorError {
    finds(entry, options).await.unwrap_err()
}

fn is_refusal(error: &ConnectorError, grant: &str) {
    assert_eq!((error.code(), error.kind()), ("PLUGIN_GRANT", ErrorKind::NeedsOperator), "{error}");
    assert!(error.hint().unwrap().contains(grant), "{:?} names not {grant}", error.hint());
}

#[tokio::test]
async fn http_goes_to_granted_hosts_with_secrets_that_nobody_saw() {
    let address = server(ok).await;
    let url = format!("http://{address}/x");
    let options = |how: &str| json!({ "at": "poll", "how": how, "target": url, "token": "hunter2-hunter2" });
    let other = json!({ "grants": { "http": ["127.0.0.1"], "tcp": [address] } });
    is_refusal(&refused(other, options("get")).await, &format!("plugins.mine.grants.http: [\"{address}\"]"));
    let no_secret = json!({ "grants": { "http": [address] } });
    is_refusal(&refused(no_secret, options("http")).await, "plugins.mine.grants.secrets: [token]");
    let grants = json!({ "grants": { "http": [address], "secrets": ["token"] } });
    let (said, _) = finds(grants, options("http")).await.unwrap();
    assert!(said.starts_with("200 POST /x HTTP/1.1"), "{said}");
    // The server tells what it was sent: that is between it and whoever granted it.
    assert!(
        said.contains("authorization: Bearer hunter2-hunter2") && said.ends_with("<hunter2-hunter2>"),
        "{said}"
    );
}

#[tokio::test]
async fn redirects_go_to_granted_hosts() {
    let target = server(ok).await;
    let to = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{target}/y\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let first = server(move |_| to.clone().into_bytes()).await;
    let options = || json!({ "at": "poll", "how": "get", "target": format!("http://{first}/x") });
    let error = refused(json!({ "grants": { "http": [first] } }), options()).await;
    is_refusal(&error, "plugins.mine.grants.http");
    assert!(error.to_string().contains(&target), "{error}");
    let (said, _) = finds(json!({ "grants": { "http": [first, target] } }), options()).await.unwrap();
    assert!(said.starts_with("200 "), "{said}");
    let around =
        server(|_| b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let options = json!({ "at": "poll", "how": "get", "target": format!("http://{around}/x") });
    let error = refused(json!({ "grants": { "http": [around] } }), options).await;
    assert!(error.to_string().contains("redirect"), "{error}");
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time() {
    let long =
        server(|_| [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec(), vec![b'x'; 17 << 20]].concat())
            .await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    let grants =
        |address: &str, wait: u64| json!({ "wait": wait, "grants": { "http": [address], "tcp": [address] } });
    let options = |how: &str, target: String| json!({ "at": "poll", "how": how, "target": target });
    let error = refused(grants(&long, 60_000), options("get", format!("http://{long}"))).await;
    assert_eq!(error.code(), "PLUGIN_LIMIT", "{error}");
    let begun = Instant::now();
    let error =
        refused(grants(&silent_address, 400), options("get", format!("http://{silent_address}"))).await;
    assert_eq!(error.code(), "PLUGIN_HTTP", "{error}");
    // A plugin that waits again and again has used up its wait, and then its time.
    let error = refused(grants(&silent_address, 400), options("waits", silent_address.clone())).await;
    assert!(["PLUGIN_TIMEOUT", "PLUGIN_TCP"].contains(&error.code()), "{error}");
    let patient = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = patient.local_addr().unwrap().to_string();
    let error = refused(grants(&address, 60_000), options("connections", address.clone())).await;
    assert_eq!(error.code(), "PLUGIN_LIMIT", "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn tcp_goes_to_granted_places() {
    let address = server(|asked| format!("you said {asked}").into_bytes()).await;
    let options = |how: &str| json!({ "at": "poll", "how": how, "target": address, "token": "hunter2>" });
    is_refusal(
        &refused(json!({}), options("tcp")).await,
        &format!("plugins.mine.grants.tcp: [\"{address}\"]"),
    );
    let port = address.rsplit_once(':').unwrap().1;
    let elsewhere =
        json!({ "grants": { "tcp": [format!("localhost:{port}"), "127.0.0.1:1"], "http": [address] } });
    is_refusal(&refused(elsewhere, options("tcp")).await, "grants.tcp");
    // The server waits for a `>`, which is what the secret ends with; its length comes behind it.
    let grants = json!({ "grants": { "tcp": [address], "secrets": ["token"] } });
    let (said, _) =
        finds(grants, json!({ "at": "poll", "how": "tcp", "target": address, "token": "a>" })).await.unwrap();
    assert!(said.starts_with("you said a>"), "{said}");
    let nobody = json!({ "grants": { "tcp": ["127.0.0.1:1"] } });
    let error = refused(nobody, json!({ "at": "poll", "how": "tcp", "target": "127.0.0.1:1" })).await;
    assert_eq!((error.code(), error.kind()), ("PLUGIN_TCP", ErrorKind::RetryAfter(Duration::from_secs(1))));
}

/// Calls that are refused cost the time of whoever makes them.
#[tokio::test]
async fn a_flood_of_calls_ends_as_a_loop_does() {
    for how in ["flood", "secrets"] {
        let options = json!({ "at": "poll", "how": how, "target": "127.0.0.1:1" });
        assert_eq!(refused(json!({}), options).await.code(), "PLUGIN_TIMEOUT", "{how}");
    }
    // R10: forms of a secret that are kept are few.
    let grants = json!({ "time": 60_000, "grants": { "secrets": ["token"] } });
    let options = json!({ "at": "poll", "how": "marks", "token": "hunter2-hunter2" });
    assert_eq!(refused(grants, options).await.code(), "PLUGIN_LIMIT");
}

/// What is logged while a test holds it.
#[derive(Clone, Default)]
struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn hold(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

/// R13: a secret goes out in the form that its protocol wants, unseen; and where it comes back, it is not told in any form.
#[tokio::test(flavor = "current_thread")]
async fn secrets_are_sent_in_other_forms_and_told_in_none() {
    const TOKEN: &str = "pass\"word\\ hunter2";
    let log = Log::default();
    let _held = log.hold();
    let address = server(ok).await;
    let url = format!("http://{address}/x");
    let options = || json!({ "at": "poll", "how": "basic", "target": url, "token": TOKEN });
    let grants = json!({ "grants": { "http": [address], "secrets": ["token"] } });
    let (said, _) = finds(grants, options()).await.unwrap();
    // The server tells what it was sent: base64 of `user:` and the value, and JSON that can be read.
    let basic = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("user:{TOKEN}"));
    assert!(said.contains(&format!("authorization: Basic {basic}")), "{said}");
    let body = said.split("\r\n\r\n").last().unwrap().trim_end_matches('>');
    assert_eq!(serde_json::from_str::<Json>(body).unwrap(), json!({ "token": TOKEN }));
    // The plugin has logged all of it.
    let logged = log.text();
    assert!(logged.contains("authorization: Basic ") && logged.contains("***"), "{logged}");
    for secret in [TOKEN, &basic, &basic[8..basic.len() - 4], "hunter2", "word"] {
        assert!(!logged.contains(secret), "{secret} is in {logged}");
    }
    let other = json!({ "grants": { "http": [address] } });
    is_refusal(&refused(other, options()).await, "plugins.mine.grants.secrets: [token]");
}

/// R13: what a plugin may see it may not tell.
#[tokio::test(flavor = "current_thread")]
async fn a_secret_that_is_logged_is_struck_out() {
    let log = Log::default();
    let _held = log.hold();
    let both = json!({ "grants": { "secrets": ["token"], "reveal": ["token"] } });
    let options = json!({ "at": "poll", "how": "secret", "token": "hunter2-hunter2" });
    let (said, _) = finds(both, options).await.unwrap();
    assert!(said.starts_with("hunter2-hunter2|"), "{said}");
    let logged = log.text();
    assert!(logged.contains("the token is ***") && !logged.contains("hunter2"), "{logged}");
}

/// R13: a secret is not seen unless that is granted, and is said to nobody in any case.
#[tokio::test]
async fn secrets_are_not_told() {
    let options = |how: &str| json!({ "at": "poll", "how": how, "token": "hunter2-hunter2" });
    let (said, _) = finds(json!({ "grants": { "secrets": ["token"] } }), options("secret")).await.unwrap();
    assert_eq!(said, "||true");
    let both = json!({ "grants": { "secrets": ["token"], "reveal": ["token"] } });
    let (said, _) = finds(both, options("secret")).await.unwrap();
    assert!(said.starts_with("hunter2-hunter2|"), "{said}");
    let error = refused(json!({ "grants": { "reveal": ["token"] } }), options("fail")).await;
    assert_eq!(error.message(), "no more ***");
    assert_eq!(refused(json!({}), options("fail")).await.message(), "no more ");
}

/// Nothing outside is reached before a pipeline runs.
#[test]
fn options_are_checked_without_the_world() {
    let entry = json!({ "time": 300, "grants": { "tcp": ["127.0.0.1:1"] } });
    let factory = crate::connectors::load(&crate::connectors::HOSTILE_SOURCE, &entry).source.unwrap();
    let options = json!({ "at": "check_config", "how": "tcp", "target": "127.0.0.1:1" });
    let config = towpath_api::RawConfig::with_defaults(&factory.descriptor().options, options).unwrap();
    let problems = factory.parse(&config).err().unwrap();
    assert!(problems.to_string().contains("PLUGIN_OUTSIDE"), "{problems}");
}
