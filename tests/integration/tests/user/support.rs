//! Commands, their words, and waiting for what must come.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use towpath_harness::{Towpath, process};

/// Nothing here takes this long unless it hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// What a command has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Everything, without line breaks and the frames around messages.
    pub(crate) fn flat(&self) -> String {
        let frame = |word: &&str| !matches!(*word, "│" | "·");
        format!("{} {}", self.err, self.out).split_whitespace().filter(frame).collect::<Vec<_>>().join(" ")
    }

    /// Fails unless the exit code is `code` and every text was said.
    pub(crate) fn says(&self, code: i32, texts: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        let flat = self.flat();
        for text in texts {
            assert!(flat.contains(text), "`{text}` was not said:\n{}{}", self.out, self.err);
        }
        self
    }

    /// Standard output as JSON, after success.
    pub(crate) fn json(&self) -> Json {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// Every line of standard output as JSON.
    pub(crate) fn json_lines(&self) -> Vec<Json> {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A `towpath` command in a folder, with an input.
pub(crate) fn type_in(folder: &Path, arguments: &[&str], input: &str, env: &[(&str, &str)]) -> Said {
    let mut command = process::command().unwrap();
    command.args(arguments).current_dir(folder).envs(env.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Said::of(&child.wait_with_output().unwrap())
}

/// A `towpath` command about a running one.
pub(crate) fn ask(towpath: &Towpath, arguments: &[&str]) -> Said {
    ask_with(towpath, arguments, "")
}

/// The same with an input.
pub(crate) fn ask_with(towpath: &Towpath, arguments: &[&str], input: &str) -> Said {
    let (kafka, http) = (towpath.bootstrap(), towpath.http_address().to_string());
    let env = [("TOWPATH_BOOTSTRAP_SERVER", kafka.as_str()), ("TOWPATH_HTTP", http.as_str())];
    type_in(towpath.folder(), arguments, input, &env)
}

/// Looks again until it is so; tells what was last seen when that takes too long.
pub(crate) fn wait_until<T: std::fmt::Debug>(
    what: &str,
    mut look: impl FnMut() -> T,
    so: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        let seen = look();
        if so(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}; at last: {seen:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A task in `/status`.
pub(crate) fn task(towpath: &Towpath, id: &str) -> Json {
    let status = towpath.status().unwrap();
    let pipelines = status["pipelines"].as_array().unwrap();
    let mut tasks = pipelines.iter().flat_map(|pipeline| pipeline["tasks"].as_array().unwrap());
    tasks.find(|task| task["id"] == id).cloned().unwrap_or_default()
}

/// Waits for the state of a task.
pub(crate) fn wait_state(towpath: &Towpath, id: &str, state: &str) -> Json {
    wait_until(&format!("{id} is {state}"), || task(towpath, id), |task| task["state"] == state)
}

/// Ctrl-C.
pub(crate) fn interrupt(pid: u32) {
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
}
