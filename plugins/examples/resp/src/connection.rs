//! A connection.

use towpath_sdk::{Error, secrets, tcp};

use crate::reply::{Reply, parse};
use crate::settings::Settings;

const CONNECT_MS: u32 = 5_000;
/// How long the server may take to answer what it answers at once.
const ANSWER_MS: u32 = 10_000;
const READ_BYTES: u32 = 256 * 1024;
/// Bytes of replies that are held before one is whole.
const BUFFER_BYTES_MAX: usize = 40 * 1024 * 1024;

/// A connection to a server. After an error it is of no use any more.
#[derive(Debug)]
pub struct Redis {
    connection: tcp::Connection,
    /// What has been read.
    read: Vec<u8>,
    /// How much of it has been taken.
    taken: usize,
    /// Commands on their way.
    write: Vec<u8>,
    /// Replies that are still to come.
    owed: usize,
}

fn begin(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(format!("*{count}\r\n").as_bytes());
}

fn word(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// What an error of the server is for us.
fn refusal(text: &str) -> Error {
    let message = format!("Redis says: {text}");
    match text.split(' ').next().unwrap_or_default() {
        "WRONGPASS" | "NOAUTH" | "NOPERM" => Error::needs_operator("REDIS_AUTH", message),
        "LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN" => Error::retry("REDIS_BUSY", message),
        "READONLY" | "OOM" | "MISCONF" | "NOREPLICAS" => Error::needs_operator("REDIS_REFUSES", message),
        _ => Error::terminal("REDIS_ERROR", message),
    }
}

impl Redis {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Nobody answers, or the server does not let us in.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let connection = tcp::Connection::open(&settings.host, settings.port, CONNECT_MS)?;
        let mut redis = Self { connection, read: Vec::new(), taken: 0, write: Vec::new(), owed: 0 };
        if let Some(password) = secrets::get("password")? {
            begin(&mut redis.write, if settings.username.is_some() { 3 } else { 2 });
            word(&mut redis.write, b"AUTH");
            if let Some(username) = &settings.username {
                word(&mut redis.write, username.as_bytes());
            }
            // The host puts the password in the place of its mark; it is as long as it says.
            redis
                .write
                .extend_from_slice(format!("${}\r\n{}\r\n", password.length, password.mark).as_bytes());
            redis.owed += 1;
            redis.answer(ANSWER_MS)?;
        }
        if settings.database != 0 {
            redis.ask(&[b"SELECT", settings.database.to_string().as_bytes()])?;
        }
        Ok(redis)
    }

    /// Adds a command to those that go with the next [`Redis::answer`].
    pub fn push(&mut self, words: &[&[u8]]) {
        begin(&mut self.write, words.len());
        words.iter().for_each(|bytes| word(&mut self.write, bytes));
        self.owed += 1;
    }

    /// Sends what waits, and takes the next reply. An error of the server is an error.
    ///
    /// # Errors
    /// The connection fails, or the server refuses.
    pub fn answer(&mut self, timeout_ms: u32) -> Result<Reply, Error> {
        match self.answer_or_error(timeout_ms)? {
            Reply::Error(text) => Err(refusal(&text)),
            reply => Ok(reply),
        }
    }

    /// The same, but for errors of the server, which are replies.
    ///
    /// # Errors
    /// The connection fails.
    pub fn answer_or_error(&mut self, timeout_ms: u32) -> Result<Reply, Error> {
        if !self.write.is_empty() {
            self.connection.write(&self.write, ANSWER_MS)?;
            self.write.clear();
        }
        loop {
            let parsed = parse(&self.read[self.taken..]);
            let parsed = parsed.map_err(|what| {
                Error::needs_operator(
                    "REDIS_PROTOCOL",
                    format!("what answers does not speak as Redis does: {what}"),
                )
            })?;
            if let Some((reply, length)) = parsed {
                self.taken += length;
                self.owed = self.owed.saturating_sub(1);
                if self.taken == self.read.len() {
                    self.read.clear();
                    self.taken = 0;
                }
                return Ok(reply);
            }
            if self.read.len() > BUFFER_BYTES_MAX {
                return Err(Error::needs_operator("REDIS_LARGE", "a reply is larger than 40 MiB"));
            }
            self.read.drain(..self.taken);
            self.taken = 0;
            match self.connection.read(READ_BYTES, timeout_ms)? {
                tcp::Received::Bytes(bytes) => self.read.extend_from_slice(&bytes),
                tcp::Received::Nothing => {
                    return Err(Error::retry("REDIS_TIMEOUT", "Redis does not answer in time"));
                }
                tcp::Received::Closed => {
                    return Err(Error::retry("REDIS_CLOSED", "Redis has closed the connection"));
                }
            }
        }
    }

    /// Sends one command and takes its reply; nothing else may be on its way.
    ///
    /// # Errors
    /// The connection fails, or the server refuses.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<Reply, Error> {
        self.push(words);
        self.answer(ANSWER_MS)
    }

    /// Takes all replies that are still to come. Errors of the server are among them.
    ///
    /// # Errors
    /// The connection fails.
    pub fn answers(&mut self) -> Result<Vec<Reply>, Error> {
        let mut replies = Vec::with_capacity(self.owed);
        while self.owed > 0 {
            replies.push(self.answer_or_error(ANSWER_MS)?);
        }
        Ok(replies)
    }

    /// The same, of which the first error is an error.
    ///
    /// # Errors
    /// The connection fails, or the server refuses.
    pub fn good_answers(&mut self) -> Result<Vec<Reply>, Error> {
        let replies = self.answers()?;
        let error = replies.iter().find_map(|it| if let Reply::Error(text) = it { Some(text) } else { None });
        match error {
            Some(text) => Err(refusal(text)),
            None => Ok(replies),
        }
    }

    /// What the server is, for a check: `Redis 7.0.15`.
    ///
    /// # Errors
    /// The connection fails, or the server refuses.
    pub fn version(&mut self) -> Result<String, Error> {
        let info = self.ask(&[b"INFO", b"server"])?.as_string().unwrap_or_default();
        let version =
            info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("of some version");
        Ok(format!("Redis {}", version.trim()))
    }
}
