//! Accepts connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use towpath_telemetry::names;

use crate::connection::{Connection, Peer};
use crate::open_files;
use crate::state::BrokerState;
use crate::stream::Stream;

/// How long to wait after a failed accept: out of file descriptors, most likely.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Counts connections, and starts them.
#[derive(Debug)]
pub(crate) struct Acceptor {
    broker: Arc<BrokerState>,
    places: Arc<Semaphore>,
    places_max: usize,
    /// For other nodes' connections: clients that hold all places do not keep followers out.
    node_places: Arc<Semaphore>,
    /// Connections so far.
    served: AtomicU64,
}

/// Connections of nodes for records that may be open (R10).
const NODE_CONNECTIONS_MAX: usize = 1024;

/// Connections that may be open at the same time: `max.connections`, and never so many that none of the process's file
/// descriptors would be left for segments, indexes and checkpoints.
fn places_max(connections_max: usize, open_files_max: Option<u64>) -> usize {
    let files = open_files_max.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let possible = files - files / 4;
    if possible < connections_max {
        // No fault, and so on most machines.
        tracing::debug!(
            connections = possible,
            open_files = files,
            "the limit of open files allows fewer connections than max.connections"
        );
    }
    connections_max.min(possible)
}

impl Acceptor {
    pub(crate) fn new(broker: Arc<BrokerState>) -> Arc<Self> {
        let node_places = Arc::new(Semaphore::new(NODE_CONNECTIONS_MAX));
        let places_max = places_max(broker.config.limits.connections_max, open_files::limit());
        let places = Arc::new(Semaphore::new(places_max));
        Arc::new(Self { broker, places, places_max, node_places, served: AtomicU64::new(0) })
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.places_max.saturating_sub(self.places.available_permits())
    }

    /// Waits until all connections are gone, no longer than `patience`.
    pub(crate) async fn closed(&self, patience: Duration) {
        let all = u32::try_from(self.places_max).unwrap_or(u32::MAX);
        if tokio::time::timeout(patience, self.places.acquire_many(all)).await.is_err() {
            tracing::warn!(open = self.open(), "stopping over connections that are still open");
        }
    }

    /// Serves a connection, if there is a place for it; else it is closed at once.
    pub(crate) fn serve(&self, stream: Stream, mut peer: Peer) {
        if self.broker.is_stopping() {
            return;
        }
        self.broker.metrics.accepted.increment(1);
        let places = if peer.node.is_some() { &self.node_places } else { &self.places };
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => {
                let id = 1 + self.served.fetch_add(1, Ordering::Relaxed);
                peer.connection = id;
                let connection = Connection::new(Arc::clone(&self.broker), stream, peer);
                tokio::spawn(run(Arc::clone(&self.broker), connection, place, id));
            }
            Err(_) => {
                ::metrics::counter!(names::CONNECTIONS_CLOSED, "reason" => "too_many").increment(1);
                tracing::warn!(peer = ?peer.address, max = self.places_max, "refused: no more connections may be open");
            }
        }
    }

    /// Accepts until the task is aborted.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, address)) => {
                    if let Err(error) = configure(&socket) {
                        tracing::debug!(%address, %error, "a socket cannot be configured");
                        continue;
                    }
                    self.serve(
                        Stream::Tcp(socket),
                        Peer { address: Some(address.ip()), node: None, connection: 0 },
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

fn configure(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(socket, true)?;
    Ok(())
}

/// What ends with a connection, however it ends: what its members of share groups have comes back, and its place is free.
struct Ending {
    broker: Arc<BrokerState>,
    id: u64,
    _place: OwnedSemaphorePermit,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.broker.shares.connection_ended(&self.broker, self.id);
        self.broker.metrics.connections.decrement(1.0);
    }
}

async fn run(broker: Arc<BrokerState>, connection: Connection, place: OwnedSemaphorePermit, id: u64) {
    broker.metrics.connections.increment(1.0);
    let _ending = Ending { broker, id, _place: place };
    connection.run().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_file_descriptors_for_the_storage() {
        assert_eq!(places_max(20_000, None), 20_000);
        assert_eq!(places_max(20_000, Some(1_000_000)), 20_000);
        assert_eq!(places_max(20_000, Some(20_000)), 15_000);
        assert_eq!(places_max(10, Some(20_000)), 10);
    }
}
