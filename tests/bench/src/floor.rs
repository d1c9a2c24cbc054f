//! What PostgreSQL's own programs take for the same work.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use towpath_harness::{Guarded, Postgres, TempDir};

use crate::meter::Spent;

const TIMEOUT: Duration = Duration::from_secs(600);

/// Runs a program of PostgreSQL to its end, which must be success; its output is thrown away. Time and CPU are what the
/// shell says of it.
pub(crate) fn timed(server: &Postgres, program: &str, arguments: &[&str]) -> Result<Spent> {
    let folder = TempDir::new("floor")?;
    let real = server.program(program);
    let mut shell = Command::new("bash");
    shell.envs(real.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.args(["-c", "TIMEFORMAT='%3R %3U %3S'; time \"$0\" \"$@\" > /dev/null"]);
    shell.arg(real.get_program()).args(arguments).current_dir(folder.path());
    let output = Guarded::output(program, shell, TIMEOUT)?;
    if !output.status.success() {
        anyhow::bail!("{program} ended with {}: {}", output.status, output.stderr);
    }
    parse(&output.stderr).with_context(|| format!("no times of {program} in {:?}", output.stderr))
}

/// The last line: seconds of wall, user and system time.
fn parse(text: &str) -> Option<Spent> {
    let line = text.lines().next_back()?;
    let seconds: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    match seconds.as_slice() {
        [wall, user, system] if [wall, user, system].iter().all(|s| s.is_finite() && **s >= 0.0) => {
            Some(Spent { cpu: Duration::from_secs_f64(user + system), wall: Duration::from_secs_f64(*wall) })
        }
        _ => None,
    }
}

/// Thousand rows per second, and CPU microseconds per row.
pub(crate) fn figures(spent: &Spent, rows: u64) -> Vec<f64> {
    vec![spent.rate(rows as f64 / 1e3), spent.cpu_us_per(rows as f64)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_shell_says() {
        let spent = parse("NOTICE: hello\n1.500 0.250 0.125\n").unwrap();
        assert_eq!((spent.wall.as_millis(), spent.cpu.as_millis()), (1500, 375));
        assert!(parse("1.5 0.2").is_none() && parse("").is_none() && parse("1 2 x").is_none());
        assert_eq!(figures(&spent, 3_000), [2.0, 125.0]);
    }
}
