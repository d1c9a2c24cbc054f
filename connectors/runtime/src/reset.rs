//! Forgets how far a source has been read, on purpose (R7: it never happens otherwise).

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_api::ConnectorError;
use towpath_api::pipeline::{Compression, PipelineSpec};
use towpath_client::OffsetSpec;
use towpath_types::{Offset, TopicPartition};

use crate::error::cluster_error;
use crate::offsets::{self, Changes, TargetOffset};
use crate::sink_assignment::list_topics;
use crate::status::{Direction, Phase};
use crate::supervisor::{Inner, Supervisor};

impl Supervisor {
    /// Forgets the stored offsets of a paused pipeline's source: resumed, it begins anew, and what it brings is written
    /// again. False if there is no such pipeline.
    ///
    /// # Errors
    /// When the pipeline is not paused or has no source, or the cluster does not take it.
    pub async fn reset(&self, pipeline: &str) -> Result<bool, ConnectorError> {
        forget(&self.inner, pipeline).await
    }
}

async fn forget(inner: &Inner, name: &str) -> Result<bool, ConnectorError> {
    let Some(pipeline) = inner.pipelines.get(name) else { return Ok(false) };
    if pipeline.spec.source.is_none() {
        let error =
            ConnectorError::needs_operator("NO_SOURCE", format!("the pipeline `{name}` has no source"));
        let hint = format!("`towpath groups reset {} --to-earliest` moves its sink", pipeline.spec.group());
        return Err(error.with_hint(hint));
    }
    // A task that runs would store its offsets again.
    if pipeline.units.iter().any(|unit| unit.shared().phase() != Phase::Paused) {
        let error =
            ConnectorError::needs_operator("NOT_PAUSED", format!("the pipeline `{name}` is not paused"));
        return Err(
            error.with_hint(format!("type `towpath pipelines pause {name}` before, and `resume` afterwards"))
        );
    }
    let keys = offsets::keys(&inner.env.client, &inner.env.topics, name).await?;
    let producer = inner.env.producer(Compression::None, None);
    // First of all, what stands in the topics is covered: it must not be taken for what a predecessor has already
    // written of what comes now, or nothing of it would be written again.
    let targets = ends(inner, &pipeline.spec, &keys).await?;
    let changes = Arc::new(Changes { offsets: BTreeMap::new(), targets });
    for unit in pipeline.units.iter().filter(|unit| unit.work.direction() == Direction::Source) {
        offsets::store(producer.clone(), Arc::from(name), unit.work.index(), Arc::clone(&changes)).await?;
    }
    offsets::forget(&producer, &keys.documents).await?;
    tracing::info!(pipeline = name, documents = keys.documents.len(), "the source's offsets are forgotten");
    Ok(true)
}

/// The ends of every partition that the pipeline has written to, or may have.
async fn ends(
    inner: &Inner,
    spec: &PipelineSpec,
    keys: &offsets::StoredKeys,
) -> Result<BTreeMap<TopicPartition, TargetOffset>, ConnectorError> {
    let pattern = spec.topic.as_ref().map(towpath_api::TopicTemplate::pattern);
    let mut ids = BTreeMap::new();
    for (topic, id, partitions) in list_topics(&inner.env.client).await? {
        let written = pattern.as_ref().is_some_and(|pattern| pattern.matches(topic.as_str()));
        for partition in (0..partitions).filter_map(|partition| i32::try_from(partition).ok()) {
            let partition = TopicPartition::new(topic.clone(), partition);
            if written || keys.targets.contains(&partition) {
                ids.insert(partition, id);
            }
        }
    }
    let failed = |error| cluster_error("looking up the ends of the topics", error);
    let wanted: Vec<_> = ids.keys().map(|partition| (partition.clone(), OffsetSpec::Latest)).collect();
    let listed = inner.env.client.admin().list_offsets(&wanted).await.map_err(failed)?;
    let mut ends = BTreeMap::new();
    for (partition, end) in listed {
        let next = end.map_err(failed)?.offset.unwrap_or(Offset::ZERO);
        if let Some(id) = ids.get(&partition) {
            ends.insert(partition, TargetOffset { id: *id, next, ahead: offsets::Lanes::new() });
        }
    }
    Ok(ends)
}
