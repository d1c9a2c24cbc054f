//! Topics that are gone from the source.

use std::collections::BTreeSet;

use towpath_client::{Client, TopicDescription};
use towpath_types::TopicName;

use super::begin::{Ids, Life};
use super::plan::{Change, Planned};
use super::topics::{Mirrored, is_unknown};
use super::{LinkConfig, LinkError, state};

/// How many times in a row the source must not list a topic before it is taken for deleted: a broker that has just
/// started may not know all of them yet.
const LOOKS: u32 = 3;

/// The topics that a link knows by what it has stored.
fn topics(stored: &state::Stored) -> impl Iterator<Item = TopicName> {
    let prefix = format!("{}:", state::TOPIC);
    let named = stored.keys().filter_map(move |key| TopicName::new(key.strip_prefix(&prefix)?).ok());
    named.collect::<Vec<_>>().into_iter()
}

async fn described(
    client: &Client,
    topic: &TopicName,
) -> Result<Option<TopicDescription>, towpath_client::ClientError> {
    match client.admin().describe_topics(std::slice::from_ref(topic)).await?.remove(topic) {
        Some(Ok(described)) => Ok(Some(described)),
        Some(Err(error)) if !is_unknown(&error) => Err(error),
        _ => Ok(None),
    }
}

impl Life<'_> {
    /// Topics that are gone from the source are not waited for. They stay at the target, unless `sync: deletes` says
    /// otherwise.
    pub(super) async fn notice_gone(&mut self, wanted: &[Mirrored]) -> Result<(), LinkError> {
        let there: BTreeSet<&TopicName> = wanted.iter().map(|topic| &topic.source.name).collect();
        for (source, (_, progress)) in self.shared.known.lock().iter() {
            if !there.contains(&source.topic) {
                progress.problem("the source has no such topic any more");
            }
        }
        let config = &self.shared.config;
        if !config.in_line().deletes {
            return Ok(());
        }
        let known: BTreeSet<TopicName> = topics(&self.stored).chain(self.ids.keys().cloned()).collect();
        // What the filter does not take any more is not deleted.
        let gone = known.into_iter().filter(|it| !there.contains(it) && config.topics.takes(it.as_str()));
        let gone: Vec<TopicName> = gone.collect();
        self.missing.retain(|topic, _| gone.contains(topic));
        for topic in gone {
            let times = self.missing.entry(topic.clone()).or_default();
            *times += 1;
            if *times < LOOKS || described(&self.source, &topic).await.map_err(LinkError::Source)?.is_some() {
                continue;
            }
            let known = match self.ids.get(&topic) {
                Some(known) => Some(*known),
                None => self.read(&state::topic_key(&topic), Ids::decode)?,
            };
            let target = config.naming.target(&config.from, &topic)?;
            if let Some(known) = known {
                self.delete(&topic, &target, known).await?;
            }
            self.forget(&topic).await?;
        }
        Ok(())
    }

    /// Deletes what the target has of a topic, if it is what the link has made of it. A link that moves its partitions
    /// begins a new life.
    pub(super) async fn delete(
        &mut self,
        source: &TopicName,
        target: &TopicName,
        known: Ids,
    ) -> Result<(), LinkError> {
        let found = described(&self.target, target).await.map_err(LinkError::Target)?;
        match found {
            Some(found) if found.id == known.target => {
                let deleted = self.target.admin().delete_topics(std::slice::from_ref(target)).await;
                let deleted = deleted.map_err(LinkError::Target)?.remove(target);
                match deleted {
                    Some(Err(error)) if !is_unknown(&error) => return Err(LinkError::Target(error)),
                    _ => {}
                }
                let id = known.target;
                tracing::warn!(topic = %source, %target, %id, "deleted at the target: it is gone from the source");
            }
            // Somebody else's of the same name stays.
            Some(_) | None => {}
        }
        if self.begun.iter().any(|partition| partition.topic == *source) {
            return Err(LinkError::Deleted { topic: target.clone() });
        }
        Ok(())
    }

    /// Forgets what was stored of a topic.
    pub(super) async fn forget(&mut self, topic: &TopicName) -> Result<(), LinkError> {
        let partitions = format!(":{topic}:");
        let own = state::topic_key(topic);
        let of_it = |key: &&String| key.contains(&partitions) || **key == own;
        for key in self.stored.keys().filter(of_it).cloned().collect::<Vec<_>>() {
            self.stored.remove(&key);
            self.store.forget(key).await.map_err(LinkError::state)?;
        }
        self.ids.remove(topic);
        Ok(())
    }
}

/// What a link that begins now would delete.
pub(super) async fn plan(
    config: &LinkConfig,
    source: &Client,
    target: &Client,
    wanted: &[Mirrored],
) -> Result<Vec<Planned>, LinkError> {
    let mut planned = Vec::new();
    let topic = state::topic_of(&config.name).map_err(LinkError::Link)?;
    let begun = described(target, &topic).await.map_err(LinkError::Target)?.is_some();
    if !config.in_line().deletes || !begun {
        return Ok(planned);
    }
    let stored = state::read(target, &topic).await.map_err(LinkError::state)?;
    for topic in topics(&stored).filter(|topic| config.topics.takes(topic.as_str())) {
        let Some(Ok(known)) = stored.get(&state::topic_key(&topic)).map(|bytes| Ids::decode(bytes)) else {
            continue;
        };
        let change = match wanted.iter().find(|it| it.source.name == topic) {
            Some(there) if there.source.id == known.source => continue,
            Some(_) => Change::Renew,
            None if described(source, &topic).await.map_err(LinkError::Source)?.is_some() => continue,
            None => Change::Delete,
        };
        let name = config.naming.target(&config.from, &topic)?;
        let found = described(target, &name).await.map_err(LinkError::Target)?;
        if found.is_some_and(|found| found.id == known.target) {
            let (topic, target) = (topic.to_string(), name.to_string());
            planned.push(Planned { topic, target, changes: vec![change] });
        }
    }
    Ok(planned)
}
