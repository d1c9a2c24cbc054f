//! Producer ids, handed out from blocks that the controller gives.

use std::sync::Arc;

use towpath_controller::decide::{Decision, ProducerIdBlock, allocate_producer_ids};
use towpath_types::ProducerId;
use towpath_wire::ErrorCode;

use crate::state::BrokerState;

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
            let id = broker.config.node_id;
            let decide = move |image: &_| match allocate_producer_ids(image, id) {
                Ok(Decision { records, answer }) => Decision { records, answer: Ok(answer) },
                Err(error) => Decision::unchanged(Err(error)),
            };
            let answer = broker.change(decide).await.map_err(|error| error.code())?;
            let ProducerIdBlock { first, count } = answer.map_err(|error| error.code)?;
            *block = (first.get(), count);
        }
        let id = block.0;
        *block = (id + 1, block.1 - 1);
        Ok(ProducerId::new(id))
    }
}
