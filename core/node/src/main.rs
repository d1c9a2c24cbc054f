//! The binary `towpath`: a connector and mirroring platform in one process.
#![forbid(unsafe_code)]

mod cli;
mod command;
mod failure;
mod first_start;
mod http;
mod local;
mod mirrors;
mod output;
mod paused;
mod preflight;
mod progress;
mod registry;
mod scrape;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    towpath_telemetry::install_panic_hook();
    if let Err(error) =
        towpath_telemetry::init_tracing(arguments.log_filter(), towpath_telemetry::LogFormat::Text)
    {
        output::tell(&format!("towpath: {error}"));
        return ExitCode::from(2);
    }
    // Two TLS providers in a dependency tree make rustls refuse to choose: choose first, once. The only way this
    // fails is that one is already installed, which is as good.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::tell(&format!("towpath: the runtime cannot start: {error}"));
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
