//! A broker alone: `cargo run --release -p towpath-broker --example broker -- DATA_DIR [HOST:PORT]`. It stops on
//! ctrl-c, cleanly.

use std::process::ExitCode;

use towpath_broker::{Broker, BrokerConfig};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            tracing::error!("{text}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    towpath_telemetry::init_tracing(&filter, towpath_telemetry::LogFormat::Text)?;
    towpath_broker::raise_open_files_limit();
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments.next().ok_or("usage: broker DATA_DIR [HOST:PORT]")?;
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let config = BrokerConfig { listen: Some(listen.parse()?), ..BrokerConfig::new(data_dir) };
    let broker = Broker::start(config).await?;
    tokio::signal::ctrl_c().await?;
    broker.shutdown().await?;
    Ok(())
}
