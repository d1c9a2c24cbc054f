//! The processes that mirror.

use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use towpath_harness::Towpath;
use towpath_harness::process::{Options, Runs};

use super::PATIENCE;
use super::side::Side;

/// One that mirrors, and those that it has shut out.
pub(crate) struct Mirrors {
    options: Options,
    current: Towpath,
}

impl Mirrors {
    /// Starts one; `links` are the lines under `mirrors:`, with `MIRROR` for what all have in common.
    pub(crate) fn start(us: &Side, eu: &Side, links: &str) -> Self {
        let cluster =
            |side: &Side| format!("  {}: {{ bootstrap_servers: {:?} }}\n", side.alias(), side.bootstrap());
        let links = links.replace("MIRROR", "topics: [orders], naming: identical, refresh: 300ms");
        let yaml = format!("clusters:\n{}{}mirrors:\n  {links}\n", cluster(us), cluster(eu));
        let options = Options { runs: Runs::Mirrors, ..Options::yaml(yaml).without_broker() };
        let current = Towpath::start(options.clone()).unwrap();
        Self { options, current }
    }

    /// Kills it, and starts it again.
    pub(crate) fn kill(&mut self, dice: &mut StdRng) {
        let pause = Duration::from_millis(dice.random_range(0..1_000));
        eprintln!("the mirror is killed for {pause:?}");
        self.current.kill9().unwrap();
        std::thread::sleep(pause);
        self.current.start_again().unwrap();
    }

    /// Another one takes over while this one is stopped, as by a machine that stands still; then it goes on, and has to
    /// notice (R6).
    pub(crate) fn take_over(&mut self, dice: &mut StdRng) {
        let pause = Duration::from_millis(dice.random_range(0..2_000));
        eprintln!("the mirror stands still, and another takes over; it goes on after {pause:?}");
        let pid = Pid::from_raw(self.current.pid().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        let next = Towpath::start(self.options.clone()).unwrap();
        std::thread::sleep(pause);
        kill_process(pid, Signal::CONT).unwrap();
        let old = std::mem::replace(&mut self.current, next);
        std::thread::sleep(Duration::from_millis(dice.random_range(0..2_000)));
        // Ended at the latest now: it mirrors nothing while the other does.
        drop(old);
    }

    /// What the mirror says of itself, for people.
    pub(crate) fn told(&self) -> String {
        let status = self.current.status().map(|status| format!("{:#}", status["mirrors"]));
        format!("{}\n{}", status.unwrap_or_else(|error| error.to_string()), self.current.log_tail())
    }

    fn link(&self) -> Json {
        self.current.status().unwrap()["mirrors"][0].clone()
    }

    /// Waits until all is mirrored and the group's offsets have followed; returns how many records the group will read a
    /// second time at most, as the status says.
    pub(crate) fn wait_in_step(&self, us: &Side, eu: &Side) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let link = self.link();
            let none_left =
                link["partitions"].as_array().is_some_and(|all| all.iter().all(|it| it["lag"] == 0));
            let group = &link["groups"]["shop"];
            let in_step =
                group["state"] == "in step" && group["committed"] == 0 && group["problem"].is_null();
            if link["state"] == "running" && none_left && in_step {
                let twice = group["twice"].as_u64().unwrap();
                return usize::try_from(twice).unwrap();
            }
            assert!(Instant::now() < deadline, "{} to {}: {link:#}", us.alias(), eu.alias());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
