//! Shutting out the process that ran a source task before (R6).
//!
//! A process that was killed may have left requests in the sockets of brokers, which carry them out whenever they come to
//! it. A task looks at what its topics hold and goes on behind that, so nothing of that kind may come any more: the task
//! takes over a transactional id of its own, under whose producer it writes (idempotent, outside of transactions), and has
//! a marker of the new epoch written to each partition before it looks there. The embedded broker died with its process:
//! nothing is on its way to that one.

use std::collections::BTreeSet;

use towpath_api::ConnectorError;
use towpath_client::{Fence, Fenced};
use towpath_types::{TopicName, TopicPartition};

use crate::env::Env;
use crate::error::cluster_error;
use crate::sink_assignment::list_topics;

/// What keeps a predecessor out.
#[derive(Debug)]
pub(crate) struct Predecessor {
    fence: Option<Fence>,
    /// Where it is out.
    topics: BTreeSet<TopicName>,
}

fn failed(error: towpath_client::ClientError) -> ConnectorError {
    cluster_error("shutting out an earlier process of this task", error)
}

impl Predecessor {
    /// Takes the task over.
    pub(crate) async fn shut_out(env: &Env, pipeline: &str, task: u32) -> Result<Self, ConnectorError> {
        if env.embedded {
            return Ok(Self { fence: None, topics: BTreeSet::new() });
        }
        let id = format!("towpath-source.{pipeline}.{task}");
        let fence = env.client.raw().take_over(&id).await.map_err(failed)?;
        Ok(Self { fence: Some(fence), topics: BTreeSet::new() })
    }

    /// Under which the task writes.
    pub(crate) fn identity(&self) -> Option<Fenced> {
        self.fence.as_ref().map(Fence::identity)
    }

    /// Once this returns, nothing of a predecessor is added to the topic.
    pub(crate) async fn of_topic(
        &mut self,
        topic: &TopicName,
        partitions: i32,
    ) -> Result<(), ConnectorError> {
        match &self.fence {
            Some(fence) if !self.topics.contains(topic) => {
                let all: Vec<_> =
                    (0..partitions).map(|index| TopicPartition::new(topic.clone(), index)).collect();
                fence.shut_out(&all).await.map_err(failed)?;
                self.topics.insert(topic.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// As [`Self::of_topic`], of those of these that there are, all at once: a topic costs some round trips.
    pub(crate) async fn of_topics(
        &mut self,
        env: &Env,
        topics: &BTreeSet<TopicName>,
    ) -> Result<(), ConnectorError> {
        let Some(fence) = &self.fence else { return Ok(()) };
        let mut all = Vec::new();
        for (topic, _, partitions) in list_topics(&env.client).await? {
            if topics.contains(&topic) && self.topics.insert(topic.clone()) {
                let count = i32::try_from(partitions).unwrap_or(i32::MAX);
                all.extend((0..count).map(|index| TopicPartition::new(topic.clone(), index)));
            }
        }
        fence.shut_out(&all).await.map_err(failed)
    }
}
