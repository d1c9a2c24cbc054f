//! The same seeds every time, some that nobody has run before, and all scenarios.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "the seeds and what they met are the test's report")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use towpath_simulation::{Counters, Run, Script};

/// In a build without optimisation a tenth has to do.
const fn scaled(count: u64) -> u64 {
    if cfg!(debug_assertions) { count / 10 } else { count }
}

fn run_all(runs: impl Iterator<Item = Run>) -> Counters {
    let mut sum = Counters::default();
    for run in runs {
        let outcome = run.run(None);
        if let Some(violation) = outcome.violation {
            panic!("seed {}: {violation}\nrepeat: {}\n{}", run.seed, run.command(), outcome.counters);
        }
        sum.add(&outcome.counters);
    }
    sum
}

#[test]
fn fixed_seeds_hold_and_meet_everything() {
    let sum = run_all((0..scaled(3_500)).map(Run::new));
    println!("{sum}");
    assert_eq!(sum.missing(), Vec::<&str>::new(), "these never happened: {sum}");
}

#[test]
fn fresh_seeds_hold() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let first = (now as u64) >> 8;
    println!("seeds from {first} on");
    let sum = run_all((first..first + scaled(1_500)).map(Run::new));
    println!("{sum}");
}

#[test]
fn scenarios_come_to_their_points_and_hold() {
    for script in Script::ALL {
        let mut missed = 0;
        let seeds = scaled(60);
        for seed in 0..seeds {
            let run = Run { script: Some(script), ..Run::new(seed) };
            let outcome = run.run(None);
            if let Some(violation) = outcome.violation {
                panic!("{script:?}: {violation}\nrepeat: {}", run.command());
            }
            missed += u64::from(outcome.is_missed);
        }
        assert!(missed * 4 <= seeds, "{script:?} misses its point in {missed} of {seeds} runs");
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let trace = |seed| {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&lines);
        let tracer = Box::new(move |line: &str| sink.borrow_mut().push(line.to_owned()));
        drop(Run::new(seed).run(Some(tracer)));
        lines.take()
    };
    for seed in 0..scaled(100) {
        let (first, second) = (trace(seed), trace(seed));
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        if let Some(line) = differs {
            panic!("seed {seed}, line {line}:\n{}\n{}", first[line], second[line]);
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}
