//! Brings this node in line with the metadata as they are committed, image by image.

use std::sync::Arc;
use std::time::Duration;

use towpath_controller::MetadataImage;

use super::{ClusterNode, Fetchers};
use crate::connection::ErrorChain;
use crate::state::BrokerState;

/// How long until files are made again that could not be.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until the task is aborted. Images that come while one is applied are taken together.
pub(crate) async fn run(node: Arc<ClusterNode>, broker: Arc<BrokerState>, fetchers: Arc<Fetchers>) {
    let mut images = node.quorum().images();
    loop {
        let image = images.borrow_and_update().clone();
        apply(&broker, &fetchers, image).await;
        let wait = if broker.unmade.lock().is_empty() { Duration::MAX } else { RETRY };
        let changed = tokio::select! {
            changed = tokio::time::timeout(wait, images.changed()) => changed,
            // Another log has taken a partition's place: it is fetched from here on.
            () = broker.replica_moved.notified() => continue,
        };
        let Ok(changed) = changed else { continue };
        if changed.is_err() {
            tracing::error!("the quorum has ended: this node does not hear of changes any more");
            return;
        }
    }
}

/// Takes an image: partitions, groups, fetches; then what clients are told.
pub(crate) async fn apply(broker: &Arc<BrokerState>, fetchers: &Arc<Fetchers>, image: Arc<MetadataImage>) {
    let (state, fetchers) = (Arc::clone(broker), Arc::clone(fetchers));
    let applied = tokio::task::spawn_blocking(move || {
        let _changing = state.changing.lock();
        if state.is_stopping() || image.next_offset() < state.image().next_offset() {
            return;
        }
        if image.cluster_id() != state.cluster_id {
            // R7: another cluster's metadata say nothing about what is on this disk.
            tracing::error!(
                found = image.cluster_id(),
                ours = state.cluster_id,
                "metadata of another cluster are not taken"
            );
            return;
        }
        state.publish(image, |replicas| {
            fetchers.set_per_leader(state.live().fetchers);
            fetchers.assign(replicas.partitions());
        });
    });
    if let Err(error) = applied.await {
        tracing::error!(error = %ErrorChain(&error), "the metadata cannot be applied");
    }
}
