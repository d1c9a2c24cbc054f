//! The embedded broker's settings from `node:`.

use towpath_broker::{BrokerConfig, Endpoint};
use towpath_config::{Config, Problem};

use crate::failure::{Failure, chain};

/// The settings, without a listener, which takes an address of this machine.
///
/// # Errors
/// With the place of each setting under `node: settings:` that does not fit.
pub(crate) fn broker_config(config: &Config) -> Result<BrokerConfig, Failure> {
    let advertised = config.node.advertised.as_ref().and_then(|address| {
        let (host, port) = address.rsplit_once(':')?;
        Some(Endpoint { host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
    });
    let mut broker = BrokerConfig { advertised, ..BrokerConfig::new(&config.node.data_dir) };
    let mut problems = Vec::new();
    for (name, value) in &config.node.settings {
        if let Err(error) = broker.set(name, value) {
            let mut problem = Problem::without_place("CONFIG_VALUE", chain(&error));
            problem.place = config.setting_place(name);
            problems.push(problem.with_hint("the settings and their values are Kafka's"));
        }
    }
    if problems.is_empty() { Ok(broker) } else { Err(Failure::Config(config.problems(problems))) }
}
