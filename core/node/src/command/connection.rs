//! What the commands that talk to a cluster share.

use towpath_client::{Client, ClientConfig, ClientError, ErrorCode, PerItem};
use towpath_types::{GroupId, InvalidName, TopicName};

use crate::failure::{Failure, chain};

/// Connects to a cluster.
pub(crate) async fn connect(bootstrap_servers: &[String]) -> Result<Client, Failure> {
    let config = ClientConfig {
        bootstrap_servers: bootstrap_servers.to_vec(),
        client_id: "towpath-cli".to_owned(),
        ..ClientConfig::default()
    };
    Client::connect(config).await.map_err(|error| {
        let servers = bootstrap_servers.join(",");
        // A name that is no address is told as such; for the others it is most often that nobody is there.
        let hint = match error {
            ClientError::Bootstrap { .. } => format!(
                "is a cluster running at {servers}? `towpath up FILE` starts one; `-b HOST:PORT` names another"
            ),
            _ => "write `-b HOST:PORT`, such as 127.0.0.1:9092".to_owned(),
        };
        Failure::new(chain(&error)).with_hint(hint)
    })
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Self::new(chain(&error));
        let hint = match &error {
            ClientError::UnknownTopic { .. } => Some(NO_TOPIC),
            _ => error.code().and_then(hint_of).or_else(|| error.hint()),
        };
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

const NO_TOPIC: &str = "`towpath topics list` shows what there is; `towpath topics create NAME` makes one";

/// What somebody at a shell can type.
const fn hint_of(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::UnknownTopicOrPartition => Some(NO_TOPIC),
        ErrorCode::TopicAlreadyExists => Some("`towpath topics describe NAME` shows it"),
        ErrorCode::InvalidConfig => Some("`towpath topics config NAME --all` shows every config of a topic"),
        ErrorCode::GroupIdNotFound => Some("`towpath groups list` shows what there is"),
        ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId => {
            Some("the group has members: end them first; `towpath groups describe NAME` shows them")
        }
        ErrorCode::InvalidReplicaAssignment | ErrorCode::BrokerIdNotRegistered => {
            Some("`towpath cluster brokers` shows which brokers there are")
        }
        ErrorCode::NoReassignmentInProgress => Some("`towpath cluster reassign --list` shows what moves"),
        ErrorCode::ReassignmentInProgress => {
            Some("it is being moved: `towpath cluster reassign --list` shows how, `--cancel` takes it back")
        }
        ErrorCode::PreferredLeaderNotAvailable | ErrorCode::EligibleLeadersNotAvailable => Some(
            "no replica that may lead is there: `towpath cluster status` shows which are in sync; start their brokers \
             (or, and acknowledged records may be lost, `towpath cluster elect --unclean TOPIC:PARTITION`)",
        ),
        ErrorCode::DuplicateVoter | ErrorCode::VoterNotFound => {
            Some("`towpath cluster quorum` shows every node and what it is")
        }
        ErrorCode::InvalidReplicationFactor => {
            Some("fewer brokers are there than replicas are wanted: `towpath cluster brokers` shows them")
        }
        _ => None,
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

/// Takes single items apart: what was done, and one failure for all that was not.
pub(crate) fn sorted_out<K: Ord + std::fmt::Display, V>(
    outcome: PerItem<K, V>,
) -> (Vec<(K, V)>, Result<(), Failure>) {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    let mut hint = None;
    for (item, result) in outcome {
        match result {
            Ok(value) => done.push((item, value)),
            Err(error) => {
                let (item, text) = (item.to_string(), chain(&error));
                failed.push(if text.contains(&item) { text } else { format!("{item}: {text}") });
                hint = hint.or_else(|| error.code().and_then(hint_of));
            }
        }
    }
    let failure = Failure::new(failed.join("\n       "));
    let outcome = match (failed.is_empty(), hint) {
        (true, _) => Ok(()),
        (false, Some(hint)) => Err(failure.with_hint(hint)),
        (false, None) => Err(failure),
    };
    (done, outcome)
}

/// As [`sorted_out`], where all or nothing counts.
pub(crate) fn all_done<K: Ord + std::fmt::Display, V>(
    outcome: PerItem<K, V>,
) -> Result<Vec<(K, V)>, Failure> {
    let (done, failed) = sorted_out(outcome);
    failed.map(|()| done)
}
