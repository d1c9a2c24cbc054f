//! Accepts connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use towpath_telemetry::names;

use crate::connection::{Connection, Peer};
use crate::state::BrokerState;
use crate::stream::Stream;

/// How long to wait after a failed accept: out of file descriptors, most likely.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Counts connections, and starts them.
#[derive(Debug)]
pub(crate) struct Acceptor {
    broker: Arc<BrokerState>,
    places: Arc<Semaphore>,
}

impl Acceptor {
    pub(crate) fn new(broker: Arc<BrokerState>) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(broker.config.limits.connections_max));
        Arc::new(Self { broker, places })
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.broker.config.limits.connections_max.saturating_sub(self.places.available_permits())
    }

    /// Serves a connection, if there is a place for it; else it is closed at once.
    pub(crate) fn serve(&self, stream: Stream, peer: Peer) {
        self.broker.metrics.accepted.increment(1);
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => {
                let connection = Connection::new(Arc::clone(&self.broker), stream, peer);
                tokio::spawn(run(Arc::clone(&self.broker), connection, place));
            }
            Err(_) => {
                ::metrics::counter!(names::CONNECTIONS_CLOSED, "reason" => "too_many").increment(1);
                tracing::warn!(peer = ?peer.address, "refused: max.connections are open");
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
                    self.serve(Stream::Tcp(socket), Peer { address: Some(address.ip()) });
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

async fn run(broker: Arc<BrokerState>, connection: Connection, place: OwnedSemaphorePermit) {
    broker.metrics.connections.increment(1.0);
    connection.run().await;
    broker.metrics.connections.decrement(1.0);
    drop(place);
}
