//! `check-history FOLDER`: checks the histories of a cluster test again. Ends with 1 if something is wrong with them.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use towpath_crash::check::check;
use towpath_crash::history::History;

fn main() -> Result<ExitCode> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("check-history FOLDER")?;
    let report = check(&History::read(&folder)?);
    write!(std::io::stdout(), "{report}").context("cannot write")?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
