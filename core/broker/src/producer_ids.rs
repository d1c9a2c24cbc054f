//! Producer ids, handed out from blocks that the controller gives.

use std::sync::Arc;
use std::time::Duration;

use towpath_controller::decide::{Decision, ProducerIdBlock, allocate_producer_ids};
use towpath_types::ProducerId;
use towpath_wire::{AllocateProducerIdsRequest, ErrorCode};

use crate::cluster::ClusterNode;
use crate::state::BrokerState;

/// How long a client waits for the cluster's controller.
const PATIENCE: Duration = Duration::from_secs(10);

async fn block_from_here(broker: &Arc<BrokerState>) -> Result<(i64, i64), ErrorCode> {
    let id = broker.config.node_id;
    let decide = move |image: &_| match allocate_producer_ids(image, id) {
        Ok(Decision { records, answer }) => Decision { records, answer: Ok(answer) },
        Err(error) => Decision::unchanged(Err(error)),
    };
    let answer = broker.change(decide).await.map_err(|error| error.code())?;
    let ProducerIdBlock { first, count } = answer.map_err(|error| error.code)?;
    Ok((first.get(), count))
}

async fn block_from_cluster(node: &ClusterNode) -> Result<(i64, i64), ErrorCode> {
    let request =
        AllocateProducerIdsRequest { broker_id: node.me().get(), broker_epoch: node.broker_epoch().get() };
    let response = node.ask_controller(&request, PATIENCE).await;
    let response = response.map_err(|_| ErrorCode::CoordinatorLoadInProgress)?;
    match ErrorCode::from_code(response.error_code) {
        ErrorCode::None => Ok((response.producer_id_start, i64::from(response.producer_id_len))),
        // Clients try again what is loading.
        _ => Err(ErrorCode::CoordinatorLoadInProgress),
    }
}

/// The block in use.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    /// The next id and how many there are; an async lock, so that one request fetches a block and others wait.
    block: tokio::sync::Mutex<(i64, i64)>,
}

impl ProducerIds {
    /// The next producer id. R1: its block is committed before the first of its ids is given away.
    ///
    /// # Errors
    /// The protocol's code when the controller gives no block.
    pub(crate) async fn next(&self, broker: &Arc<BrokerState>) -> Result<ProducerId, ErrorCode> {
        let mut block = self.block.lock().await;
        if block.1 == 0 {
            *block = match broker.cluster() {
                None => block_from_here(broker).await?,
                Some(node) => block_from_cluster(node).await?,
            };
        }
        let id = block.0;
        *block = (id + 1, block.1 - 1);
        Ok(ProducerId::new(id))
    }
}
