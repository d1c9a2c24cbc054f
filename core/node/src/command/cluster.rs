//! What the commands that talk to a cluster share.

use towpath_client::{Client, ClientConfig, ClientError, PerItem};
use towpath_types::{GroupId, InvalidName, TopicName};

use crate::failure::Failure;

/// Connects to a cluster.
pub(crate) async fn connect(bootstrap_servers: &[String]) -> Result<Client, Failure> {
    let config = ClientConfig {
        bootstrap_servers: bootstrap_servers.to_vec(),
        client_id: "towpath-cli".to_owned(),
        ..ClientConfig::default()
    };
    Client::connect(config).await.map_err(|error| {
        let failure = Failure::from(error);
        match failure {
            Failure::Other { message, hint: None } => Failure::new(message).with_hint(format!(
                "is a cluster running at {}? `towpath up FILE` starts one; -b names another",
                bootstrap_servers.join(",")
            )),
            other => other,
        }
    })
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Self::new(error.to_string());
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Self {
        Self::new(error.to_string())
    }
}

/// Names as typed, checked.
pub(crate) fn topic_names(names: &[String]) -> Result<Vec<TopicName>, Failure> {
    names.iter().map(|name| TopicName::new(name).map_err(Failure::from)).collect()
}

/// Group ids as typed, checked.
pub(crate) fn group_ids(ids: &[String]) -> Result<Vec<GroupId>, Failure> {
    ids.iter().map(|id| GroupId::new(id).map_err(Failure::from)).collect()
}

/// Tells what went wrong with single items; `Err` when something did.
pub(crate) fn all_done<K: Ord + std::fmt::Display, V>(
    outcome: PerItem<K, V>,
) -> Result<Vec<(K, V)>, Failure> {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for (item, result) in outcome {
        match result {
            Ok(value) => done.push((item, value)),
            Err(error) => failed.push(format!("{item}: {error}")),
        }
    }
    if failed.is_empty() { Ok(done) } else { Err(Failure::new(failed.join("\n       "))) }
}
