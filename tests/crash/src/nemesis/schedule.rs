//! Which faults strike when: all decided by a seed before anything starts.

use std::time::Duration;

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and started again.
    Kill,
    /// `kill -9` of all nodes at once, and all started again.
    Power,
    /// SIGSTOP and SIGCONT.
    Stop,
    /// SIGTERM, and started again.
    Restart,
    /// The link between two nodes is cut, both ways.
    Cut,
    /// What one node sends to another is lost, and only that.
    OneWay,
    /// A node is cut off from all others, but not from clients.
    Isolate,
    /// What a node sends to the others goes slowly.
    Slow,
    /// A node's disk is full; restarted when it is not any more.
    Disk,
    /// A node's clock jumps, and jumps back.
    Clock,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Kill,
        Self::Power,
        Self::Stop,
        Self::Restart,
        Self::Cut,
        Self::OneWay,
        Self::Isolate,
        Self::Slow,
        Self::Disk,
        Self::Clock,
    ];

    /// Its name in `--faults`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Power => "power",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Cut => "cut",
            Self::OneWay => "oneway",
            Self::Isolate => "isolate",
            Self::Slow => "slow",
            Self::Disk => "disk",
            Self::Clock => "clock",
        }
    }

    /// Reads names, divided by commas; `all` is all of them.
    ///
    /// # Errors
    /// If there is no fault of a name.
    pub fn list(text: &str) -> Result<Vec<Self>> {
        if text.trim() == "all" {
            return Ok(Self::ALL.to_vec());
        }
        let mut faults = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match Self::ALL.into_iter().find(|fault| fault.name() == name) {
                Some(fault) => faults.push(fault),
                None => {
                    bail!("no fault is called {name}; there are {}", Self::ALL.map(Self::name).join(", "))
                }
            }
        }
        Ok(faults)
    }

    /// How long it lasts, in milliseconds: on both sides of the 9 s after which a silent node is fenced.
    fn lasts(self) -> std::ops::Range<u64> {
        match self {
            Self::Power => 500..3_000,
            Self::Kill => 500..12_000,
            Self::Restart => 100..2_000,
            Self::Stop | Self::Cut | Self::OneWay | Self::Isolate => 1_000..20_000,
            Self::Slow | Self::Clock => 5_000..20_000,
            Self::Disk => 3_000..12_000,
        }
    }
}

/// One fault, from its begin to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub fault: Fault,
    /// The node that it strikes.
    pub node: u8,
    /// The other node, for links between two.
    pub other: u8,
    /// How hard: kbit/s of a slow link, seconds of a clock.
    pub measure: i64,
    /// When it begins, after the schedule does.
    pub begin: Duration,
    /// When it ends.
    pub end: Duration,
}

impl Step {
    /// What no other fault may hold at the same time.
    fn claims(&self, other: &Self) -> bool {
        let process = |s: &Self| matches!(s.fault, Fault::Kill | Fault::Stop | Fault::Restart | Fault::Disk);
        let link = |s: &Self| matches!(s.fault, Fault::Cut | Fault::OneWay | Fault::Isolate);
        let power = |s: &Self| s.fault == Fault::Power;
        let same_kind = self.fault == other.fault && self.node == other.node;
        same_kind
            || (power(self) && (process(other) || power(other)))
            || (power(other) && process(self))
            || (process(self) && process(other) && self.node == other.node)
            || (link(self) && link(other))
    }

    /// What it does, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { fault, node, other, measure, .. } = self;
        match fault {
            Fault::Power => "power".to_owned(),
            Fault::Cut => format!("cut {node} from {other}"),
            Fault::OneWay => format!("cut {node} to {other}"),
            Fault::Slow => format!("slow {node} to {measure} kbit/s"),
            Fault::Clock => format!("clock of {node} by {measure:+} s"),
            _ => format!("{} {node}", fault.name()),
        }
    }
}

/// Faults for so long, in the order of their begins. A third of them begin while another lasts; at most one of those
/// that end a process holds the same process, and at most one the links.
#[must_use]
pub fn schedule(seed: u64, length: Duration, faults: &[Fault], nodes: u8) -> Vec<Step> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut steps: Vec<Step> = Vec::new();
    let mut at = Duration::from_millis(dice.random_range(3_000..6_000));
    while let Some(fault) = faults.choose(&mut dice) {
        let node = dice.random_range(1..=nodes);
        let other = (node - 1 + dice.random_range(1..nodes.max(2))) % nodes + 1;
        let measure = match fault {
            Fault::Slow => 1 << dice.random_range(6..11),
            Fault::Clock => [-7200, -30, 30, 7200].choose(&mut dice).copied().unwrap_or(30),
            _ => 0,
        };
        let lasts = Duration::from_millis(dice.random_range(fault.lasts()));
        let mut step = Step { fault: *fault, node, other, measure, begin: at, end: at + lasts };
        while let Some(held) = steps.iter().find(|s| s.claims(&step) && s.end >= step.begin) {
            step.begin = held.end + Duration::from_millis(1_000);
            step.end = step.begin + lasts;
        }
        if step.end > length {
            break;
        }
        steps.push(step);
        at = if dice.random_ratio(1, 3) {
            step.begin + Duration::from_millis(dice.random_range(200..2_000))
        } else {
            step.end + Duration::from_millis(dice.random_range(1_000..8_000))
        };
    }
    steps.sort_by_key(|step| step.begin);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule() {
        let length = Duration::from_secs(3600);
        let steps = schedule(7, length, &Fault::ALL, 3);
        assert_eq!(steps, schedule(7, length, &Fault::ALL, 3));
        assert_ne!(steps, schedule(8, length, &Fault::ALL, 3));
        assert!(Fault::ALL.iter().all(|fault| steps.iter().any(|step| step.fault == *fault)));
        assert!(steps.len() > 150, "{} faults in an hour", steps.len());
        let mut overlaps = 0;
        for (i, step) in steps.iter().enumerate() {
            assert!(step.begin < step.end && step.end <= length, "{step:?}");
            assert!((1..=3).contains(&step.node) && (1..=3).contains(&step.other) && step.node != step.other);
            for later in steps.iter().skip(i + 1).filter(|later| later.begin <= step.end) {
                overlaps += 1;
                assert!(!step.claims(later), "{step:?} and {later:?}");
            }
        }
        assert!(overlaps > 20, "{overlaps} overlaps");
        assert!(schedule(7, length, &[], 3).is_empty());
    }

    #[test]
    fn names_are_read() {
        assert_eq!(Fault::list("kill, oneway").unwrap(), [Fault::Kill, Fault::OneWay]);
        assert_eq!(Fault::list("all").unwrap().len(), 10);
        assert!(Fault::list("kil").is_err());
    }
}
