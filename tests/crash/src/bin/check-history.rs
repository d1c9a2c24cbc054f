//! `check-history [--transactions] FOLDER`: checks the histories of a cluster test again. Ends with 1 if something is
//! wrong with them.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use towpath_crash::check::check;
use towpath_crash::history::History;
use towpath_crash::transactions;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let is_flag = |argument: &std::ffi::OsString| argument == "--transactions";
    let transactional = arguments.next_if(is_flag).is_some();
    let folder = arguments.next().map(PathBuf::from).context("check-history [--transactions] FOLDER")?;
    let report = if transactional {
        transactions::check(&transactions::History::read(&folder)?)
    } else {
        check(&History::read(&folder)?)
    };
    write!(std::io::stdout(), "{report}").context("cannot write")?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
