//! `towpath completions`

use clap::CommandFactory as _;

use crate::cli::Arguments;
use crate::failure::Failure;
use crate::output::print_line;

pub(super) fn run(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "towpath", &mut script);
    print_line(String::from_utf8_lossy(&script).trim_end())
}
