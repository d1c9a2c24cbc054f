//! Drives the moves of replicas between the directories of this broker (AlterReplicaLogDirs), one after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use towpath_log::FutureKey;
use towpath_replica::{MoveStep, ReplicaMove};

use crate::connection::ErrorChain;
use crate::state::{BrokerState, OFFSETS_TOPIC};

/// How often it is looked whether there is something to move.
const LOOK: Duration = Duration::from_millis(200);
/// How long a copy that has everything waits for the next attempt.
const WAIT: Duration = Duration::from_millis(10);
/// How long a move waits after an error.
const RETRY: Duration = Duration::from_secs(2);
/// Pieces that are copied in one go.
const PIECES: usize = 16;

/// A move that goes on later.
struct Later {
    attempts: u32,
    rounds: u32,
    at: Instant,
}

/// Runs until the task is aborted.
pub(crate) async fn run(broker: Arc<BrokerState>) {
    let mut later: HashMap<FutureKey, Later> = HashMap::new();
    loop {
        let moves = broker.replicas.moves();
        later.retain(|key, _| moves.iter().any(|it| (it.topic_id, it.partition) == *key));
        let mut wait = LOOK;
        for moving in moves {
            let key = (moving.topic_id, moving.partition);
            let now = Instant::now();
            let waiting = later.get(&key);
            if waiting.is_some_and(|later| later.at > now) || !broker.throttles.moving.is_open(now) {
                wait = wait.min(WAIT);
                continue;
            }
            let (attempts, rounds) = waiting.map_or((0, 0), |later| (later.attempts, later.rounds));
            match step(&broker, moving, attempts, rounds).await {
                MoveStep::Copied(_) => {
                    wait = Duration::ZERO;
                    later.insert(key, Later { attempts, rounds: rounds + 1, at: now });
                }
                MoveStep::Flushed => {
                    wait = Duration::ZERO;
                    later.insert(key, Later { attempts: attempts + 1, rounds, at: now });
                }
                MoveStep::Waiting => {
                    wait = wait.min(WAIT);
                    later.insert(key, Later { attempts: attempts + 1, rounds, at: now + WAIT });
                }
                MoveStep::Moved => {
                    later.remove(&key);
                }
                MoveStep::GivenUp => {
                    later.insert(key, Later { attempts, rounds, at: now + RETRY });
                }
            }
        }
        tokio::time::sleep(wait).await;
    }
}

/// Goes on with one move; an error is told, and tried again later.
async fn step(broker: &Arc<BrokerState>, moving: ReplicaMove, attempts: u32, rounds: u32) -> MoveStep {
    let state = Arc::clone(broker);
    let task = tokio::task::spawn_blocking(move || {
        let mut copied = MoveStep::Copied(0);
        for _ in 0..PIECES {
            match state.replicas.advance_move(&moving, attempts, rounds) {
                Ok(step @ MoveStep::Copied(bytes)) => {
                    state.throttles.moving.take(bytes);
                    copied = step;
                    if !state.throttles.moving.is_open(Instant::now()) {
                        break;
                    }
                }
                Ok(step) => {
                    if step == MoveStep::Moved {
                        moved(&state, &moving);
                    }
                    return step;
                }
                Err(error) => {
                    let partition = moving.copy.partition();
                    tracing::error!(%partition, error = %ErrorChain(&error), "a replica cannot be moved");
                    return MoveStep::GivenUp;
                }
            }
        }
        copied
    });
    match task.await {
        Ok(step) => step,
        Err(error) => {
            tracing::error!(%error, "the move of a replica failed");
            MoveStep::GivenUp
        }
    }
}

/// Whoever held the partition by its old log takes the new one.
fn moved(broker: &BrokerState, moving: &ReplicaMove) {
    let partition = moving.copy.partition();
    tracing::info!(%partition, to = %moving.to.path().display(), "a replica has moved");
    if let (OFFSETS_TOPIC, Some(groups)) = (partition.topic.as_str(), broker.groups.get()) {
        // What it was told had failed while the partition stood still may be in the log all the same.
        groups.resigned(partition.partition);
        groups.elected(partition.partition);
    }
    broker.replica_moved.notify_one();
}
