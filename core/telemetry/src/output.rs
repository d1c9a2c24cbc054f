//! Where the process's words for people go: standard error, without secrets (R13), and past whatever is drawn there.

use std::borrow::Cow;
use std::io::Write;
use std::sync::{OnceLock, RwLock};

use tracing_subscriber::fmt::MakeWriter;

type Redaction = Box<dyn Fn(&str) -> String + Send + Sync>;
/// What writes text in place of standard error.
pub type Route = Box<dyn Fn(&str) + Send + Sync>;

static REDACTION: OnceLock<Redaction> = OnceLock::new();
static ROUTE: RwLock<Option<Route>> = RwLock::new(None);

/// From now on every log line, every panic and everything told goes through `redaction`. Only the first call counts.
pub fn redact_with(redaction: impl Fn(&str) -> String + Send + Sync + 'static) {
    // A second configuration in one process does not exist.
    drop(REDACTION.set(Box::new(redaction)));
}

/// `text` without the secrets that are known.
#[must_use]
pub fn redacted(text: &str) -> Cow<'_, str> {
    REDACTION.get().map_or(Cow::Borrowed(text), |redaction| Cow::Owned(redaction(text)))
}

/// Lets `route` write what goes to standard error, until it is taken back with `None`: a progress bar must step aside.
pub fn route_output(route: Option<Route>) {
    *ROUTE.write().unwrap_or_else(std::sync::PoisonError::into_inner) = route;
}

/// Writes text to standard error. When even that is closed there is nobody left to tell.
pub fn write_output(text: &str) {
    let text = redacted(text);
    let route = ROUTE.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    match &*route {
        Some(route) => route(&text),
        None => drop(std::io::stderr().lock().write_all(text.as_bytes())),
    }
}

/// Panics are told like everything else, and where.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("(no message)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        let shown = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        write_output(&format!("towpath panicked at {place}: {text}{shown}\n"));
    }));
}

/// A log line's way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        write_output(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogOutput {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn what_goes_out_holds_no_secret_not_even_in_a_panic() {
        let told = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&told);
        redact_with(|text| text.replace("hunter2", "***"));
        route_output(Some(Box::new(move |text| heard.lock().unwrap().push_str(text))));
        LogOutput.write_all(b"pw hunter2\n").unwrap();
        install_panic_hook();
        std::thread::spawn(|| panic!("lost hunter2")).join().unwrap_err();
        drop(std::panic::take_hook());
        route_output(None);
        let told = told.lock().unwrap();
        assert!(told.starts_with("pw ***\ntowpath panicked at ") && told.contains("lost ***"), "{told}");
    }
}
