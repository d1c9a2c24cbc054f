//! The binary `towpath`: a connector and mirroring platform in one process.
#![forbid(unsafe_code)]

mod cli;
mod command;
mod failure;
mod http;
mod output;
mod progress;
mod registry;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    if let Err(error) =
        towpath_telemetry::init_tracing(arguments.log_filter(), towpath_telemetry::LogFormat::Text)
    {
        eprintln_safely(&format!("towpath: {error}"));
        return ExitCode::from(2);
    }
    // Two TLS providers in a dependency tree make rustls refuse to choose: choose first, once. The only way this
    // fails is that one is already installed, which is as good.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln_safely(&format!("towpath: the runtime cannot start: {error}"));
            return ExitCode::from(2);
        }
    };
    let json = arguments.json;
    let outcome = runtime.block_on(command::run(arguments));
    // Connections of other people's libraries may still be open; they are not worth waiting for.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Writes to standard error; when even that is closed there is nobody left to tell.
fn eprintln_safely(text: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stderr(), "{text}"));
}
