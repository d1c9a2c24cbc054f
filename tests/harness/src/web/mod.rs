//! A small HTTP server in the test's own process, for clients that are to meet one: an API of pages, and an index that is
//! written in bulk.

mod index;
mod pages;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use index::Index;
pub use pages::Pages;

/// What is read of a request at most, head and body each.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A request.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// The first header of this name, which is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(its, _)| its == name).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query, as it stands there.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .find_map(|it| it.split_once('=').filter(|(its, _)| *its == name))
            .map(|(_, value)| value)
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Answers with a status, headers and a body.
    With(u16, Vec<(&'static str, String)>, String),
    /// Closes the connection without a word.
    Hangup,
}

impl Answer {
    /// 200, with JSON.
    #[must_use]
    pub fn json(document: &serde_json::Value) -> Self {
        Self::With(200, vec![("content-type", "application/json".to_owned())], document.to_string())
    }

    /// A status and nothing else.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::With(status, Vec::new(), String::new())
    }
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

/// A server, which ends when it is dropped.
pub struct Web {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl Web {
    /// Answers requests with what `handler` says, each connection in a thread of its own.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port for a web server")?;
        let address = listener.local_addr()?;
        let (stop, asked): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let handler: Arc<Handler> = Arc::new(handler);
        let (until, count) = (Arc::clone(&stop), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if until.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (handler, until, count) = (Arc::clone(&handler), Arc::clone(&until), Arc::clone(&count));
                // A client that breaks off has nobody to be told.
                std::thread::spawn(move || drop(serve(&stream, &*handler, &until, &count)));
            }
        });
        Ok(Self { address, stop, asked })
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Requests so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _woken = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// The requests of one connection.
fn serve(stream: &TcpStream, handler: &Handler, stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader)? {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        count.fetch_add(1, Ordering::Relaxed);
        let Answer::With(status, headers, body) = handler(&asked) else { return Ok(()) };
        let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        let mut writer = stream;
        writer.write_all(format!("{head}\r\n{body}").as_bytes())?;
    }
    Ok(())
}

/// One request; `None` where the connection ends before it.
fn read(reader: &mut BufReader<&TcpStream>) -> Result<Option<Asked>> {
    let mut asked = Asked::default();
    let mut line = String::new();
    if reader.take(BYTES_MAX).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { bail!("no request: {line}") };
    (asked.method, asked.target) = (method.to_owned(), target.to_owned());
    loop {
        line.clear();
        reader.take(BYTES_MAX).read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        asked.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length: u64 = asked.header("content-length").map_or(Ok(0), str::parse)?;
    if length > BYTES_MAX {
        bail!("a body of {length} bytes");
    }
    reader.take(length).read_to_end(&mut asked.body)?;
    if asked.body.len() as u64 != length {
        bail!("the body ends early");
    }
    Ok(Some(asked))
}
