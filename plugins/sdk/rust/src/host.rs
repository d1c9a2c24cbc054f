//! What the host does for a plugin, but for options and schemas. Outside of it, as in tests: the machine's own.

/// How important a line in the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
}

#[cfg(target_arch = "wasm32")]
mod inside {
    use super::Level;
    use crate::bindings::towpath::plugin as host;

    /// Writes a line into Towpath's log.
    pub fn log(level: Level, message: &str) {
        let level = match level {
            Level::Debug => host::log::Level::Debug,
            Level::Info => host::log::Level::Info,
            Level::Warn => host::log::Level::Warn,
            Level::Error => host::log::Level::Error,
        };
        host::log::write(level, message);
    }

    /// Milliseconds since 1970 UTC.
    #[must_use]
    pub fn now_ms() -> i64 {
        host::clock::now_ms()
    }

    /// Nanoseconds of a clock that never goes back.
    #[must_use]
    pub fn monotonic_ns() -> u64 {
        host::clock::monotonic_ns()
    }

    /// Random bytes, at most 64 KiB of them.
    #[must_use]
    pub fn random(length: u32) -> Vec<u8> {
        host::random::bytes(length)
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod inside {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::Level;

    /// Writes a line into Towpath's log; outside of it, nowhere.
    pub fn log(level: Level, message: &str) {
        let _ = (level, message);
    }

    /// Milliseconds since 1970 UTC.
    #[must_use]
    pub fn now_ms() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// Nanoseconds of a clock that never goes back.
    #[must_use]
    pub fn monotonic_ns() -> u64 {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Random bytes, at most 64 KiB of them; good enough for tests.
    #[must_use]
    pub fn random(length: u32) -> Vec<u8> {
        (0..length).map(|_| RandomState::new().build_hasher().finish().to_le_bytes()[0]).collect()
    }
}

pub use inside::{log, monotonic_ns, now_ms, random};
