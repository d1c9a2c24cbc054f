//! `towpath up --nodes`: several nodes of one cluster on this machine, each a process of its own, for development.

use std::net::TcpListener;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;
use towpath_config::Config;
use towpath_types::limits;

use super::start::Signals;
use super::up::check_first;
use crate::cli::Up;
use crate::failure::Failure;
use crate::first_start::Remembered;
use crate::local::{self, LocalNode};
use crate::output::tell;

/// How long a node may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the output of a node that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Starts the nodes, and waits until a signal comes or all of them have ended.
pub(super) async fn run(
    config: &Config,
    up: &Up,
    count: u16,
    signals: &mut Signals,
    json: bool,
) -> Result<(), Failure> {
    if config.foreign_servers().is_some() {
        return Err(Failure::new(
            "`cluster: bootstrap_servers:` names someone else's brokers, and --nodes starts some",
        )
        .with_hint("remove `cluster:`, or start without --nodes"));
    }
    let nodes = local::plan(config, count, free_port)?;
    // Once, here, and not by every node.
    let remembered = Remembered::load(&config.node.data_dir.join("node-1"));
    tokio::select! {
        outcome = check_first(config, &remembered, up) => outcome?,
        () = signals.wait() => return Err(Failure::new("interrupted; nothing was started")),
    }
    let mut running = Nodes::default();
    for node in &nodes {
        running.start(node, up, json)?;
        tell(&format!("node {}: kafka {}, http://{}/status", node.id, node.kafka, node.http));
    }
    let outcome = tokio::select! {
        () = running.all_ended() => None,
        () = signals.wait() => Some(()),
    };
    if outcome.is_some() {
        tell("ending, node by node (Ctrl-C again ends at once)");
        tokio::select! {
            () = running.stop() => {}
            () = signals.again() => {
                running.kill().await;
                running.listen().await;
                return Err(Failure::new("stopped at once; what was not durable will be done again"));
            }
        }
    }
    running.listen().await;
    running.outcome()
}

/// A port that nobody has at the moment. Somebody may take it before the node does: then the node says so.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// One child.
struct Running {
    id: i32,
    child: Child,
    /// Its life line, apart from `child`, whose `wait` would close it.
    input: Option<ChildStdin>,
}

/// The children, and those of them that have ended by themselves.
#[derive(Default)]
struct Nodes {
    running: Vec<Running>,
    /// What writes their words down.
    printers: JoinSet<()>,
    failed: Vec<String>,
}

impl Nodes {
    fn start(&mut self, node: &LocalNode, up: &Up, json: bool) -> Result<(), Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        if json {
            command.arg("--json");
        }
        // What was not locked is, by now: each of them takes the same.
        command.arg("up").args(["--no-check", "--locked"]).arg("--local-node").arg(node.to_argument()?);
        command.args(&up.files.files);
        // A node ends when its standard input does: it never outlives this process. In a group of its own it does not
        // see the terminal's Ctrl-C, so that the nodes end in order.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let started = command.spawn();
        let mut child =
            started.map_err(|error| Failure::new(format!("node {} cannot be started: {error}", node.id)))?;
        if let Some(output) = child.stdout.take() {
            self.printers.spawn(prefix(node.id, output));
        }
        if let Some(output) = child.stderr.take() {
            self.printers.spawn(prefix(node.id, output));
        }
        let input = child.stdin.take();
        self.running.push(Running { id: node.id, child, input });
        Ok(())
    }

    /// Waits until the last one has ended by itself, and tells of each; the others go on.
    async fn all_ended(&mut self) {
        while !self.running.is_empty() {
            let waits = self.running.iter_mut().map(|it| Box::pin(async { (it.id, it.child.wait().await) }));
            let (id, status) = first(waits.collect()).await;
            self.running.retain(|it| it.id != id);
            let left = self.running.len();
            tell(&format!("node {id} has ended by itself ({}); {left} still running", described(&status)));
            self.note(id, &status);
        }
    }

    /// Ends one after the other, the last one first, so that each can hand over to those that are left.
    async fn stop(&mut self) {
        while let Some(last) = self.running.last_mut() {
            drop(last.input.take());
            let id = last.id;
            match tokio::time::timeout(STOP_TIMEOUT, last.child.wait()).await {
                Ok(status) => self.note(id, &status),
                Err(_) => {
                    let seconds = STOP_TIMEOUT.as_secs();
                    tell(&format!("node {id} has not ended within {seconds} s and is killed"));
                    // It may have ended meanwhile.
                    let _ = last.child.kill().await;
                    self.failed.push(format!("node {id} (killed)"));
                }
            }
            self.running.pop();
        }
    }

    fn note(&mut self, id: i32, status: &std::io::Result<ExitStatus>) {
        if !status.as_ref().is_ok_and(ExitStatus::success) {
            self.failed.push(format!("node {id} ({})", described(status)));
        }
    }

    async fn kill(&mut self) {
        for it in &mut self.running {
            // It may have ended meanwhile.
            let _ = it.child.kill().await;
        }
    }

    /// Passes on the last words.
    async fn listen(&mut self) {
        let last = async { while self.printers.join_next().await.is_some() {} };
        // What a child has started itself may still hold its output.
        let _ = tokio::time::timeout(LAST_WORDS, last).await;
    }

    fn outcome(&self) -> Result<(), Failure> {
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("ended without success: {}", self.failed.join(", "))))
    }
}

/// The first of several futures that is ready.
async fn first<F: Future + Unpin>(mut futures: Vec<F>) -> F::Output {
    std::future::poll_fn(|context| {
        for future in &mut futures {
            let polled = std::pin::Pin::new(future).poll(context);
            if polled.is_ready() {
                return polled;
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn described(status: &std::io::Result<ExitStatus>) -> String {
    status.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

/// Passes on what a node says, line by line, with its name in front.
async fn prefix(id: i32, output: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        // R10: a line without an end is passed on in pieces.
        let mut limited = tokio::io::AsyncReadExt::take(&mut lines, limits::OUTPUT_LINE_BYTES_MAX);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tell(&prefixed(id, &String::from_utf8_lossy(&line))),
        }
    }
}

fn prefixed(id: i32, line: &str) -> String {
    format!("node {id} | {}", line.trim_end_matches(['\n', '\r']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_has_its_name_in_front() {
        assert_eq!(prefixed(2, "up\r\n"), "node 2 | up");
        assert_eq!(prefixed(12, ""), "node 12 | ");
    }

    #[tokio::test]
    async fn the_first_to_end_is_told() {
        let slow = Box::pin(async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            1
        });
        let quick: std::pin::Pin<Box<dyn Future<Output = i32>>> = Box::pin(async { 2 });
        assert_eq!(first(vec![slow as std::pin::Pin<Box<dyn Future<Output = i32>>>, quick]).await, 2);
    }
}
