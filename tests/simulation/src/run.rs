//! Running seeds.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use towpath_types::{Rule, Rules};

use crate::counters::Counters;
use crate::profile::Profile;
use crate::scripts::Script;
use crate::sim::{Simulation, Tracer};
use crate::violation::{MISSED, Violation};

/// How many times as many events a history with transactions has.
const TRANSACTIONAL_STRETCH: u64 = 4;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where all chance comes from.
    pub seed: u64,
    /// Events until everything is healed; with transactions four times as many.
    pub steps: u64,
    /// The rule that is switched off; the run is then about where that rule matters.
    pub without: Option<Rule>,
    /// The rule that the run is about, with all rules in force.
    pub focus: Option<Rule>,
    /// The scenario that is played; else everything comes by chance.
    pub script: Option<Script>,
    /// Without transactions, several partitions, compaction and deletion.
    pub plain: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What happened.
    pub counters: Counters,
    /// The invariant that did not hold, if there was one.
    pub violation: Option<Violation>,
    /// Whether chance kept the script from what it is about.
    pub is_missed: bool,
}

impl Run {
    /// A run of a seed with all rules.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, steps: 1000, without: None, focus: None, script: None, plain: false }
    }

    /// The command that repeats it.
    #[must_use]
    pub fn command(&self) -> String {
        let mut command = format!(
            "cargo run --release -p towpath-simulation -- --seed {} --steps {}",
            self.seed, self.steps
        );
        if let Some(rule) = self.without {
            command.push_str(&format!(" --without {}", rule.number()));
        }
        if let Some(rule) = self.focus {
            command.push_str(&format!(" --focus {}", rule.number()));
        }
        if let Some(script) = self.script {
            command.push_str(&format!(" --script {script:?}"));
        }
        if self.plain {
            command.push_str(" --plain");
        }
        command + " --trace"
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self, tracer: Option<Tracer>) -> Outcome {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut profile = match self.without.or(self.focus) {
            Some(rule) => Profile::draw_for(rule, &mut random),
            None if self.plain => Profile::plain(&mut random),
            None => Profile::draw(&mut random),
        };
        let rules = self.without.map_or(Rules::ALL, |rule| Rules::ALL.without(rule));
        if let Some(script) = self.script {
            profile = script.profile();
        }
        // A transaction is many events: with as few as elsewhere hardly one would come to its end.
        let steps = if profile.transactional { self.steps * TRANSACTIONAL_STRETCH } else { self.steps };
        let mut simulation = match Simulation::new(self.seed, profile, rules, tracer) {
            Ok(simulation) => simulation,
            Err(violation) => {
                let counters = Counters::default();
                return Outcome { counters, violation: Some(violation), is_missed: false };
            }
        };
        let result = match self.script {
            Some(script) => script.play(&mut simulation),
            None => (0..steps).try_for_each(|_| simulation.step().map(drop)),
        };
        let is_missed = result.as_ref().is_err_and(|violation| violation.invariant == MISSED);
        let result = if is_missed { Ok(()) } else { result };
        let result = result.and_then(|()| simulation.settle());
        Outcome { counters: *simulation.counters(), violation: result.err(), is_missed }
    }
}
