//! The quorum's messages over the connections between nodes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use towpath_controller::QuorumTransport;
use towpath_wire::{ErrorCode, QuorumRequest};

use super::peer::{Lane, PeerAddress, Peers};

/// Calls other nodes of the quorum.
#[derive(Debug)]
pub(crate) struct PeerTransport {
    peers: Arc<Peers>,
}

impl PeerTransport {
    pub(crate) const fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }
}

#[async_trait]
impl QuorumTransport for PeerTransport {
    async fn call(
        &self,
        to: &towpath_controller::PeerAddress,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, io::Error> {
        let peer = PeerAddress { node: to.id, address: Arc::from(to.address.as_str()) };
        let request = QuorumRequest { message };
        let response = self.peers.call(&peer, Lane::Quorum, &request, timeout).await;
        let response = response.map_err(super::peer::PeerError::into_io)?;
        if response.error_code == ErrorCode::None.code() {
            return Ok(response.message);
        }
        Err(io::Error::other(response.error_message.unwrap_or_else(|| "the node refuses".to_owned())))
    }
}
