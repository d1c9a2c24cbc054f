//! Workers share the tasks out among themselves as a classic Kafka group of their own protocol.
//!
//! Each worker tells which pipelines it knows, by the hash of their content, and which tasks it runs. The leader
//! gives every task to one worker that knows the pipeline in its newest content, and moves as little as possible. A
//! task that is to move is first taken from its old worker, which joins again when the task has ended; only then does
//! the new one get it, so that no task ever runs twice (R6). The newest content of each pipeline, and the generation
//! of the assignment, are in the compacted topic `_towpath_config`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use towpath_api::ConnectorError;
use towpath_api::pipeline::Compression;
use towpath_client::{
    ClientError, GroupProtocol, JoinedMember, Membership, MembershipConfig, MembershipEvent, ProducerRecord,
};
use towpath_formats::header::CONFIG_TOPIC;
use towpath_types::{GroupId, TopicName, TopicPartition};

use crate::error::{SupervisorError, cluster_error};
use crate::reader::read_to_end;
use crate::status::Phase;
use crate::supervisor::Inner;
use crate::topics::TopicKind;

const PROTOCOL_TYPE: &str = "towpath-worker";
const PROTOCOL: &str = "sticky-v1";
const IDENTITY_FILE: &str = "worker-id";
const RETRY_DELAY: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How a worker belongs to its group.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The group; workers of one group share their tasks.
    pub group: String,
    /// Where the worker keeps its identity: killed and started again, it is the same member and rejoins at once.
    pub data_dir: PathBuf,
    /// After how long without a heartbeat its tasks go to others.
    pub session_timeout: Duration,
}

impl WorkerConfig {
    /// A worker of the group `towpath-workers`.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self { group: "towpath-workers".to_owned(), data_dir, session_timeout: Duration::from_secs(30) }
    }

    /// The worker's identity, made at the first start.
    pub(crate) fn identity(&self) -> Result<String, SupervisorError> {
        let path = self.data_dir.join(IDENTITY_FILE);
        let failed = |source| SupervisorError::Identity { path: path.display().to_string(), source };
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let identity = format!("worker-{:032x}", rand::random::<u128>());
        std::fs::create_dir_all(&self.data_dir).map_err(failed)?;
        std::fs::write(&path, &identity).map_err(failed)?;
        Ok(identity)
    }
}

/// What a worker writes into its join.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Known {
    /// Pipeline → hash of its content.
    pipelines: BTreeMap<String, String>,
    /// Pipeline → its tasks.
    tasks: BTreeMap<String, Vec<String>>,
    /// The tasks that have not ended here.
    running: BTreeSet<String>,
}

/// What the leader writes for a worker.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Share {
    generation: u64,
    tasks: BTreeSet<String>,
}

/// Shares the tasks out; pure. Tasks that have to move are given to nobody this time.
fn share_out(
    members: &BTreeMap<String, Known>,
    newest: &BTreeMap<String, String>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut shares: BTreeMap<String, BTreeSet<String>> =
        members.keys().map(|member| (member.clone(), BTreeSet::new())).collect();
    let mut tasks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (member, known) in members {
        for (pipeline, hash) in &known.pipelines {
            if newest.get(pipeline).is_some_and(|newest| newest != hash) {
                continue;
            }
            for task in known.tasks.get(pipeline).into_iter().flatten() {
                tasks.entry(task).or_default().push(member);
            }
        }
    }
    let runs = |task: &str| {
        members.iter().find(|(_, known)| known.running.contains(task)).map(|(id, _)| id.as_str())
    };
    // What runs stays, what is free goes where least is, and then tasks move as long as that evens the load.
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut loads: BTreeMap<&str, usize> = members.keys().map(|member| (member.as_str(), 0)).collect();
    let mut free = Vec::new();
    for (task, candidates) in &tasks {
        match runs(task).filter(|owner| candidates.contains(owner)) {
            Some(owner) => {
                owners.insert(task, owner);
                *loads.entry(owner).or_default() += 1;
            }
            None => free.push(*task),
        }
    }
    for task in free {
        if let Some(member) = tasks[task].iter().min_by_key(|member| loads[**member]) {
            owners.insert(task, member);
            *loads.entry(member).or_default() += 1;
        }
    }
    while let Some((task, to)) = uneven(&tasks, &owners, &loads) {
        let from = owners.insert(task, to).unwrap_or(to);
        *loads.entry(from).or_default() -= 1;
        *loads.entry(to).or_default() += 1;
    }
    for (task, owner) in owners {
        // It has to end where it runs before anybody else may have it.
        if runs(task).is_none_or(|running| running == owner) {
            shares.entry(owner.to_owned()).or_default().insert(task.to_owned());
        }
    }
    shares
}

/// A task whose move to another member evens the load.
fn uneven<'a>(
    tasks: &BTreeMap<&'a str, Vec<&'a str>>,
    owners: &BTreeMap<&'a str, &'a str>,
    loads: &BTreeMap<&str, usize>,
) -> Option<(&'a str, &'a str)> {
    owners.iter().find_map(|(task, owner)| {
        let least = tasks[task].iter().min_by_key(|member| loads[**member])?;
        (loads[owner] > loads[least] + 1).then_some((*task, *least))
    })
}

struct Workers {
    inner: Arc<Inner>,
}

impl Workers {
    fn known(&self) -> Known {
        let mut known = Known::default();
        for (name, pipeline) in &self.inner.pipelines {
            let hash: String = pipeline.spec.content_hash.iter().map(|byte| format!("{byte:02x}")).collect();
            known.pipelines.insert(name.clone(), hash);
            let ids = pipeline.units.iter().map(|unit| unit.work.id()).collect();
            known.tasks.insert(name.clone(), ids);
        }
        let live = |phase| !matches!(phase, Phase::Unassigned | Phase::Stopped);
        let running = self.inner.units().filter(|unit| live(unit.shared().phase()));
        known.running = running.map(|unit| unit.work.id()).collect();
        known
    }

    async fn generation(&self, newest: &mut Newest) -> Result<u64, ConnectorError> {
        let generation = newest.generation + 1;
        let value = json!({"generation": generation}).to_string();
        put(&self.inner, &json!(["generation"]).to_string(), &value).await?;
        newest.generation = generation;
        Ok(generation)
    }
}

#[async_trait]
impl GroupProtocol for Workers {
    fn protocol_type(&self) -> &str {
        PROTOCOL_TYPE
    }

    fn protocols(&mut self) -> Vec<(String, Bytes)> {
        // Maps with text keys always serialise.
        let metadata = serde_json::to_vec(&self.known()).unwrap_or_default();
        vec![(PROTOCOL.to_owned(), Bytes::from(metadata))]
    }

    async fn assign(
        &mut self,
        _protocol: &str,
        members: Vec<JoinedMember>,
    ) -> Result<Vec<(String, Bytes)>, ClientError> {
        let known = members
            .into_iter()
            .map(|member| {
                let known = serde_json::from_slice(&member.metadata).unwrap_or_else(|error| {
                    tracing::warn!(member = member.member_id, %error, "a worker's metadata cannot be read");
                    Known::default()
                });
                (member.member_id, known)
            })
            .collect();
        let failed = |error: ConnectorError| {
            tracing::warn!(%error, "the tasks cannot be shared out yet");
            ClientError::Timeout { what: "reading the workers' configuration", after_ms: 0, source: None }
        };
        let mut newest = Newest::read(&self.inner).await.map_err(failed)?;
        let generation = self.generation(&mut newest).await.map_err(failed)?;
        let shares = share_out(&known, &newest.pipelines);
        let encode = |(member, tasks)| {
            let share = serde_json::to_vec(&Share { generation, tasks }).unwrap_or_default();
            (member, Bytes::from(share))
        };
        Ok(shares.into_iter().map(encode).collect())
    }
}

/// What the config topic says.
#[derive(Debug, Default)]
struct Newest {
    pipelines: BTreeMap<String, String>,
    generation: u64,
}

fn config_topic() -> Result<TopicName, ConnectorError> {
    TopicName::new(CONFIG_TOPIC).map_err(|error| ConnectorError::bug("TOPIC_NAME", error.to_string()))
}

impl Newest {
    async fn read(inner: &Inner) -> Result<Self, ConnectorError> {
        let topic = config_topic()?;
        inner.env.topics.ensure(&topic, TopicKind::State).await?;
        let mut newest = Self::default();
        read_to_end(&inner.env.client, &TopicPartition::new(topic, 0), None, |record| {
            newest.learn(record.key, record.value);
            Ok(())
        })
        .await?;
        Ok(newest)
    }

    fn learn(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<()> {
        let key: Vec<String> = serde_json::from_slice(key?).ok()?;
        let value: serde_json::Value = serde_json::from_slice(value?).ok()?;
        match key.as_slice() {
            [kind, name] if kind == "pipeline" => {
                let hash = value.get("content_hash")?.as_str()?;
                self.pipelines.insert(name.clone(), hash.to_owned());
            }
            [kind] if kind == "generation" => self.generation = value.get("generation")?.as_u64()?,
            _ => {}
        }
        Some(())
    }
}

async fn put(inner: &Inner, key: &str, value: &str) -> Result<(), ConnectorError> {
    let topic = config_topic()?;
    let producer = inner.env.producer(Compression::None, None);
    let record = ProducerRecord {
        partition: Some(0),
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        ..ProducerRecord::new(&topic)
    };
    let failed = |error| cluster_error("writing the workers' configuration", error);
    producer.send_with_ack(record).await.map_err(failed)?.await.map_err(failed)?;
    Ok(())
}

/// Announces this worker's pipelines: the content that was announced last is the newest.
async fn announce(inner: &Arc<Inner>, identity: &str) -> Result<(), ConnectorError> {
    let newest = Newest::read(inner).await?;
    let known = Workers { inner: Arc::clone(inner) }.known();
    for (pipeline, hash) in known.pipelines {
        if newest.pipelines.get(&pipeline) != Some(&hash) {
            let value = json!({"content_hash": hash, "worker": identity}).to_string();
            put(inner, &json!(["pipeline", pipeline]).to_string(), &value).await?;
        }
    }
    Ok(())
}

/// Belongs to the group until `stop`.
pub(crate) async fn run(inner: Arc<Inner>, config: WorkerConfig, identity: String, stop: CancellationToken) {
    let Ok(group_id) = GroupId::new(&config.group) else {
        tracing::error!(group = config.group, "the workers' group has no valid id");
        return;
    };
    while let Err(error) = announce(&inner, &identity).await {
        tracing::warn!(%error, "the cluster does not take this worker's configuration yet");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY_DELAY) => {}
        }
    }
    let session_timeout_ms = config.session_timeout.as_millis() as u64;
    let membership = MembershipConfig {
        group_instance_id: Some(identity),
        session_timeout_ms,
        heartbeat_interval_ms: session_timeout_ms / 10,
        ..MembershipConfig::new(group_id)
    };
    let protocol = Box::new(Workers { inner: Arc::clone(&inner) });
    let mut membership = Membership::new(&inner.env.client, membership, protocol);
    follow(&inner, &mut membership, &stop).await;
    // The tasks end first; then the others may have them.
    while inner.units().any(|unit| {
        !matches!(
            unit.shared().phase(),
            Phase::Stopped | Phase::Failed | Phase::Completed | Phase::Unassigned
        )
    }) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    membership.leave().await;
}

async fn follow(inner: &Inner, membership: &mut Membership, stop: &CancellationToken) {
    let mut ending: BTreeSet<String> = BTreeSet::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_INTERVAL), if !ending.is_empty() => {
                let ended = |id: &String| inner.units().any(|unit| {
                    unit.work.id() == *id && matches!(unit.shared().phase(), Phase::Unassigned | Phase::Stopped)
                });
                ending.retain(|id| !ended(id));
                if ending.is_empty() {
                    membership.request_rejoin();
                }
                continue;
            }
            event = membership.next() => event,
        };
        match event {
            Ok(MembershipEvent::Joined { assignment, leader, .. }) => {
                let share: Share = serde_json::from_slice(&assignment).unwrap_or_default();
                tracing::info!(
                    generation = share.generation,
                    tasks = share.tasks.len(),
                    leader,
                    "joined the workers"
                );
                ending = take(inner, &share.tasks);
            }
            Ok(MembershipEvent::Rebalancing) => {}
            Ok(MembershipEvent::Lost(code)) => {
                // R6: what belonged to this worker may belong to others by now.
                tracing::warn!(%code, "this worker has lost its membership, and ends its tasks");
                ending = take(inner, &BTreeSet::new());
            }
            Err(error) => {
                tracing::error!(%error, "this worker cannot belong to its group");
                ending = take(inner, &BTreeSet::new());
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_DELAY) => {}
                }
            }
        }
    }
}

/// Starts and ends tasks so that those of `share` run here. Returns those that have yet to end.
fn take(inner: &Inner, share: &BTreeSet<String>) -> BTreeSet<String> {
    let mut ending = BTreeSet::new();
    for unit in inner.units() {
        let id = unit.work.id();
        let mine = share.contains(&id);
        unit.set_assigned(mine);
        if !mine && unit.shared().phase() != Phase::Unassigned {
            ending.insert(id);
        }
    }
    ending
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(hash: &str, running: &[&str]) -> Known {
        let tasks = ["p/source/0", "p/sink/0", "p/sink/1", "p/sink/2"];
        Known {
            pipelines: [("p".to_owned(), hash.to_owned())].into(),
            tasks: [("p".to_owned(), tasks.iter().map(|id| (*id).to_owned()).collect())].into(),
            running: running.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    /// Rounds until nothing moves: tasks that were taken away end in between.
    fn settle(members: &mut BTreeMap<String, Known>, newest: &BTreeMap<String, String>) -> Vec<usize> {
        for _ in 0..10 {
            let shares = share_out(members, newest);
            let mut seen = BTreeSet::new();
            for (member, tasks) in &shares {
                for task in tasks {
                    assert!(seen.insert(task.clone()), "{task} was given twice");
                    let elsewhere =
                        members.iter().any(|(other, known)| other != member && known.running.contains(task));
                    assert!(!elsewhere, "{task} still runs elsewhere");
                }
            }
            for (member, known) in members.iter_mut() {
                known.running.clone_from(&shares[member]);
            }
        }
        members.values().map(|known| known.running.len()).collect()
    }

    #[test]
    fn tasks_are_shared_evenly_and_never_run_twice() {
        let newest = [("p".to_owned(), "h".to_owned())].into();
        let mut members: BTreeMap<_, _> = [("a".to_owned(), known("h", &[]))].into();
        assert_eq!(settle(&mut members, &newest), [4]);
        members.insert("b".to_owned(), known("h", &[]));
        assert_eq!(settle(&mut members, &newest), [2, 2]);
        let before = members["b"].running.clone();
        members.remove("a");
        assert_eq!(settle(&mut members, &newest), [4]);
        assert!(before.is_subset(&members["b"].running), "what ran goes on");
    }

    #[test]
    fn a_worker_with_old_content_gives_up_its_tasks() {
        let newest = [("p".to_owned(), "new".to_owned())].into();
        let mut members: BTreeMap<_, _> =
            [("a".to_owned(), known("old", &["p/source/0"])), ("b".to_owned(), known("new", &[]))].into();
        assert_eq!(settle(&mut members, &newest), [0, 4]);
    }

    #[test]
    fn the_identity_stays() {
        let folder = tempfile::tempdir().unwrap();
        let config = WorkerConfig::new(folder.path().join("data"));
        let identity = config.identity().unwrap();
        assert_eq!(config.identity().unwrap(), identity);
        assert_ne!(WorkerConfig::new(folder.path().join("other")).identity().unwrap(), identity);
    }
}
