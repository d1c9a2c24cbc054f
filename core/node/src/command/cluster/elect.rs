//! `towpath cluster elect`.

use serde_json::json;
use towpath_client::{Admin, Election, ErrorCode, PerItem};
use towpath_types::TopicPartition;

use super::named_partitions;
use crate::cli::PartitionsArgument;
use crate::command::connection::sorted_out;
use crate::failure::Failure;
use crate::output::{Listing, tell};

pub(super) async fn run(
    admin: &Admin,
    named: &[PartitionsArgument],
    unclean: bool,
    json: bool,
) -> Result<(), Failure> {
    let election = if unclean { Election::Unclean } else { Election::Preferred };
    let partitions: Option<Vec<_>> = match named {
        [] => None,
        named => Some(named_partitions(admin, named).await?.into_keys().collect()),
    };
    let (done, failed) = sorted_out(outcomes(admin.elect_leaders(election, partitions.as_deref()).await?));
    let mut listing = Listing::new(&[("TOPIC", "topic"), ("PARTITION", "partition"), ("LEADER", "outcome")]);
    for (at, outcome) in &done {
        listing.row(vec![json!(at.topic.as_str()), json!(at.partition), json!(outcome)]);
    }
    if done.is_empty() && failed.is_ok() && !json {
        tell("every partition is led by its first replica already");
        return Ok(());
    }
    if json || !done.is_empty() {
        listing.print(json)?;
    }
    failed
}

/// What became of each partition; a leader that is right already is no failure.
fn outcomes(results: PerItem<TopicPartition, ()>) -> PerItem<TopicPartition, &'static str> {
    let outcome = |result| match result {
        Ok(()) => Ok("elected"),
        Err(error) => match towpath_client::ClientError::code(&error) {
            Some(ErrorCode::ElectionNotNeeded) => Ok("unchanged"),
            _ => Err(error),
        },
    };
    results.into_iter().map(|(at, result)| (at, outcome(result))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;
    use towpath_client::{ApiKey, ClientError};

    #[test]
    fn a_leader_that_is_right_is_no_failure() {
        let refused = |code| ClientError::Broker {
            code,
            api: ApiKey::ElectLeaders,
            broker: "b:1".into(),
            subject: "a-1".into(),
            message: None,
        };
        let results = PerItem::from([
            (at("a", 0), Ok(())),
            (at("a", 1), Err(refused(ErrorCode::ElectionNotNeeded))),
            (at("a", 2), Err(refused(ErrorCode::PreferredLeaderNotAvailable))),
        ]);
        let (done, failed) = sorted_out(outcomes(results));
        assert_eq!(done, [(at("a", 0), "elected"), (at("a", 1), "unchanged")]);
        assert!(failed.unwrap_err().to_string().contains("PREFERRED_LEADER_NOT_AVAILABLE"));
    }
}
