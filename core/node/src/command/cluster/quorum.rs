//! `towpath cluster quorum`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use towpath_client::{Admin, QuorumDescription, QuorumListener, QuorumReplica, RaftVoter};
use uuid::Uuid;

use super::admin;
use crate::cli::QuorumChange;
use crate::failure::Failure;
use crate::output::Listing;

/// Kafka's usual name of the listener between controllers.
const LISTENER: &str = "CONTROLLER";

pub(super) async fn show(admin: &Admin, json: bool) -> Result<(), Failure> {
    let quorum = admin.describe_quorum().await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    table(&quorum, i64::try_from(now.as_millis()).unwrap_or(i64::MAX)).print(json)
}

fn table(quorum: &QuorumDescription, now_ms: i64) -> Listing {
    let mut listing = Listing::new(&[
        ("NODE", "node"),
        ("ROLE", "role"),
        ("LOG END", "log_end_offset"),
        ("LAG", "lag"),
        ("FETCHED MS AGO", "fetched_ms_ago"),
        ("CAUGHT UP MS AGO", "caught_up_ms_ago"),
        ("ADDRESS", "address"),
        ("DIRECTORY", "directory_id"),
    ]);
    let leader = quorum.voters.iter().find(|voter| Some(voter.id) == quorum.leader);
    // A leader that does not tell where its log ends has at least what is committed.
    let end = leader.and_then(|leader| leader.log_end_offset).unwrap_or(quorum.high_watermark);
    let mut replicas: Vec<_> = quorum.voters.iter().map(|it| (it, "voter")).collect();
    replicas.extend(quorum.observers.iter().map(|it| (it, "observer")));
    replicas.sort_by_key(|(it, _)| it.id);
    for (replica, role) in replicas {
        let is_leader = Some(replica.id) == quorum.leader;
        let ago = |time_ms: Option<i64>| time_ms.filter(|_| !is_leader).map(|time| (now_ms - time).max(0));
        let node = quorum.nodes.iter().find(|node| node.id == replica.id);
        let address =
            node.and_then(|node| node.listeners.first()).map(|it| format!("{}:{}", it.host, it.port));
        listing.row(vec![
            json!(replica.id),
            json!(if is_leader { "leader" } else { role }),
            json!(replica.log_end_offset),
            json!(replica.log_end_offset.map(|offset| (end - offset).max(0))),
            json!(ago(replica.last_fetch_ms)),
            json!(ago(replica.last_caught_up_ms)),
            json!(address),
            json!((!replica.directory_id.is_nil()).then(|| replica.directory_id.to_string())),
        ]);
    }
    listing
}

pub(super) async fn change(change: QuorumChange, json: bool) -> Result<(), Failure> {
    let mut listing = Listing::new(&[("NODE", "node"), ("DIRECTORY", "directory_id")]);
    let (what, voter) = match change {
        QuorumChange::Add { cluster, node, address, directory } => {
            let listener = listener(&address)?;
            let admin = admin(&cluster).await?;
            let quorum = admin.describe_quorum().await?;
            let voter = RaftVoter { id: node, directory_id: directory_of(&quorum, node, directory, true)? };
            let id = admin.describe_cluster().await?.cluster_id;
            admin.add_raft_voter(id.as_deref(), voter, &[listener]).await?;
            ("now a voter: node", voter)
        }
        QuorumChange::Remove { cluster, node, directory } => {
            let admin = admin(&cluster).await?;
            let quorum = admin.describe_quorum().await?;
            let voter = RaftVoter { id: node, directory_id: directory_of(&quorum, node, directory, false)? };
            let id = admin.describe_cluster().await?.cluster_id;
            admin.remove_raft_voter(id.as_deref(), voter).await?;
            ("no longer a voter: node", voter)
        }
    };
    listing.row(vec![json!(voter.id), json!(voter.directory_id.to_string())]);
    listing.tell_done(what, json)
}

fn listener(address: &str) -> Result<QuorumListener, Failure> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() && port > 0 => Ok(QuorumListener {
            name: LISTENER.to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
        }),
        _ => Err(Failure::new(format!("`{address}` is no address"))
            .with_hint("write HOST:PORT, such as 10.0.0.4:9093")),
    }
}

/// The directory of a node that is to become a voter (`adding`), or of one that is.
fn directory_of(
    quorum: &QuorumDescription,
    node: i32,
    named: Option<Uuid>,
    adding: bool,
) -> Result<Uuid, Failure> {
    let find = |list: &[QuorumReplica]| list.iter().find(|it| it.id == node).map(|it| it.directory_id);
    let hint = "`towpath cluster quorum` shows every node and what it is";
    match (named, find(&quorum.voters), find(&quorum.observers), adding) {
        (Some(named), ..) => Ok(named),
        (None, _, Some(directory), true) | (None, Some(directory), _, false) => Ok(directory),
        (None, Some(_), None, true) => {
            Err(Failure::new(format!("node {node} is a voter already")).with_hint(hint))
        }
        (None, None, None, true) => Err(Failure::new(format!("node {node} does not follow the quorum"))
            .with_hint("start it first, with `roles: [broker]` or as a controller of this cluster")),
        (None, None, _, false) => Err(Failure::new(format!("node {node} is no voter")).with_hint(hint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;
    use towpath_client::QuorumNode;

    fn quorum() -> QuorumDescription {
        let replica = |id: i32, end, time| QuorumReplica {
            id,
            directory_id: Uuid::from_u128(u128::try_from(id).unwrap()),
            log_end_offset: end,
            last_fetch_ms: time,
            last_caught_up_ms: time,
        };
        QuorumDescription {
            leader: Some(2),
            leader_epoch: 7,
            high_watermark: 90,
            voters: vec![replica(1, Some(95), Some(9_500)), replica(2, Some(100), Some(1))],
            observers: vec![replica(3, None, None)],
            nodes: vec![QuorumNode { id: 1, listeners: vec![listener("a:9093").unwrap()] }],
        }
    }

    #[test]
    fn every_node_has_its_lag() {
        let rows = table(&quorum(), 10_000).to_json();
        assert_eq!(
            (&rows[0]["role"], &rows[0]["lag"], &rows[0]["fetched_ms_ago"]),
            (&json!("voter"), &json!(5), &json!(500))
        );
        assert_eq!(
            (&rows[1]["role"], &rows[1]["lag"], &rows[1]["fetched_ms_ago"]),
            (&json!("leader"), &json!(0), &Json::Null)
        );
        assert_eq!((&rows[2]["role"], &rows[2]["lag"]), (&json!("observer"), &Json::Null));
        assert_eq!((&rows[0]["address"], &rows[1]["address"]), (&json!("a:9093"), &Json::Null));
    }

    #[test]
    fn the_directory_is_that_of_the_node() {
        let quorum = quorum();
        let id = Uuid::from_u128;
        assert_eq!(directory_of(&quorum, 3, None, true).unwrap(), id(3));
        assert_eq!(directory_of(&quorum, 1, None, false).unwrap(), id(1));
        assert_eq!(directory_of(&quorum, 9, Some(id(8)), true).unwrap(), id(8));
        for (node, adding, says) in [
            (1, true, "already"),
            (9, true, "does not follow"),
            (3, false, "no voter"),
            (9, false, "no voter"),
        ] {
            let refused = directory_of(&quorum, node, None, adding).unwrap_err();
            assert!(refused.to_string().contains(says), "{refused}");
        }
        for wrong in ["h", "h:0", ":1", "h:x"] {
            assert!(listener(wrong).is_err(), "{wrong}");
        }
        assert_eq!(listener("[::1]:9").unwrap().host, "::1");
    }
}
