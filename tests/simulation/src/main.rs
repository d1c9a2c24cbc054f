//! Runs seeds of the simulated cluster, repeats one with a trace, and measures.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use towpath_simulation::{Counters, Outcome, Run, Script, Tracer};
use towpath_types::Rule;
use tracing_subscriber::filter::LevelFilter;

/// Run a replicated cluster from seeds, every failure included, and check the invariants after every step.
#[derive(Debug, Parser)]
#[command(name = "towpath-simulation", version)]
struct Arguments {
    /// The seed to run.
    #[arg(long)]
    seed: Option<u64>,
    /// Events until everything is healed.
    #[arg(long, default_value_t = 1000, global = true)]
    steps: u64,
    /// Switch a rule off, by its number.
    #[arg(long, value_parser = rule, global = true)]
    without: Option<Rule>,
    /// Keep all rules, and bend the run to where this one matters.
    #[arg(long, value_parser = rule, global = true)]
    focus: Option<Rule>,
    /// Without transactions, several partitions, compaction and deletion.
    #[arg(long, global = true)]
    plain: bool,
    /// Play a scenario, by its name.
    #[arg(long, value_parser = script, global = true)]
    script: Option<Script>,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds.
    Run {
        /// The first.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// Go on after a violation.
        #[arg(long)]
        all: bool,
    },
    /// Measure histories a minute on one core.
    Bench {
        /// How many.
        #[arg(long, default_value_t = 300)]
        count: u64,
    },
}

fn rule(text: &str) -> Result<Rule, String> {
    let number: u8 = text.parse().map_err(|_| "a number from 1 to 21".to_owned())?;
    Rule::ALL
        .into_iter()
        .find(|rule| rule.number() == number)
        .ok_or_else(|| "there are rules 1 to 21".to_owned())
}

fn script(text: &str) -> Result<Script, String> {
    let known = || Script::ALL.map(|script| format!("{script:?}")).join(", ");
    Script::ALL
        .into_iter()
        .find(|script| format!("{script:?}") == text)
        .ok_or_else(|| format!("there are {}", known()))
}

fn say(line: &str) {
    // Nothing is left to be done when standard output is gone.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn report(run: &Run, outcome: &Outcome) {
    match &outcome.violation {
        None => say(&format!("seed {}: {}", run.seed, outcome.counters)),
        Some(violation) => {
            say(&format!("seed {} FAILS after {} steps: {violation}", run.seed, outcome.counters.steps));
            say(&format!("  {}", outcome.counters));
            say(&format!("  repeat: {}", run.command()));
        }
    }
}

fn many(arguments: &Arguments, from: u64, count: u64, all: bool) -> ExitCode {
    let mut sum = Counters::default();
    let mut failed = 0;
    for seed in from..from.saturating_add(count) {
        let run = Run {
            steps: arguments.steps,
            without: arguments.without,
            focus: arguments.focus,
            plain: arguments.plain,
            script: arguments.script,
            ..Run::new(seed)
        };
        let outcome = run.run(None);
        sum.add(&outcome.counters);
        if outcome.violation.is_some() {
            report(&run, &outcome);
            failed += 1;
            if !all {
                break;
            }
        }
    }
    say(&format!("{count} seeds, {failed} failed: {sum}"));
    let missing = sum.missing();
    if !missing.is_empty() {
        say(&format!("never happened: {}", missing.join(", ")));
    }
    if failed == 0 && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bench(arguments: &Arguments, count: u64) -> ExitCode {
    let started = Instant::now();
    let mut sum = Counters::default();
    for seed in 0..count {
        let run =
            Run { steps: arguments.steps, focus: arguments.focus, plain: arguments.plain, ..Run::new(seed) };
        sum.add(&run.run(None).counters);
    }
    let seconds = started.elapsed().as_secs_f64();
    say(&format!(
        "{count} histories of {} steps (and {} to come to rest) in {seconds:.1} s: {:.0} histories a minute, {:.0} events a second",
        arguments.steps,
        (sum.steps / count.max(1)).saturating_sub(arguments.steps),
        count as f64 * 60.0 / seconds,
        sum.steps as f64 / seconds,
    ));
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Run { from, count, all }) => many(&arguments, from, count, all),
        Some(Command::Bench { count }) => bench(&arguments, count),
        None => {
            let run = Run {
                steps: arguments.steps,
                without: arguments.without,
                focus: arguments.focus,
                plain: arguments.plain,
                script: arguments.script,
                ..Run::new(arguments.seed.unwrap_or_default())
            };
            if arguments.trace {
                // What logs and replicas have to say comes between the events.
                tracing_subscriber::fmt()
                    .without_time()
                    .with_ansi(false)
                    .with_max_level(LevelFilter::DEBUG)
                    .init();
            }
            let tracer: Option<Tracer> = arguments.trace.then(|| Box::new(|line: &str| say(line)) as Tracer);
            let outcome = run.run(tracer);
            report(&run, &outcome);
            if outcome.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}
