//! A TCP proxy that delays, throttles, cuts and swallows, for what no kernel here can (`tc netem` is missing).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What happens to one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Each byte arrives this much later (throughput stays as it is, up to 16 MiB under way).
    pub delay: Duration,
    /// At most so many bytes a second.
    pub bytes_per_second: Option<u64>,
    /// Bytes stay under way until this is lifted; nothing is lost and no one is told (a half-open connection).
    pub stalled: bool,
}

/// What happens to all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// From the client to the server.
    pub up: Way,
    /// From the server to the client.
    pub down: Way,
    /// New connections are closed at once, open ones have been.
    pub cut: bool,
    /// How often open connections have been told to close; see [`TcpProxy::cut_connections`].
    generation: u64,
}

const CHUNK: usize = 64 * 1024;
const CHUNKS_UNDER_WAY: usize = 256;

/// A proxy on a free port in front of one server. Ends on drop.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    accepted: Arc<AtomicU64>,
    listener: JoinHandle<()>,
}

impl TcpProxy {
    /// Starts a proxy to `target` on the current tokio runtime.
    ///
    /// # Errors
    /// If there is no port to be had.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, crate::ports::free_port()?)).await?;
        let address = listener.local_addr().context("a listener has an address")?;
        let (faults, seen) = watch::channel(Faults::default());
        let accepted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&accepted);
        let listener = tokio::spawn(async move {
            // The connections end with this task: dropping the set aborts them.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                while connections.try_join_next().is_some() {}
                if seen.borrow().cut {
                    continue;
                }
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connection(client, target, seen.clone()));
            }
        });
        Ok(Self { address, faults, accepted, listener })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Changes what happens, for open connections too.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }

    /// The same delay both ways: a round trip takes twice as long more.
    pub fn delay(&self, one_way: Duration) {
        self.change(|f| (f.up.delay, f.down.delay) = (one_way, one_way));
    }

    /// The same limit both ways.
    pub fn bandwidth(&self, bytes_per_second: u64) {
        self.change(|f| {
            f.up.bytes_per_second = Some(bytes_per_second);
            f.down.bytes_per_second = Some(bytes_per_second);
        });
    }

    /// Closes all connections, and every new one at once.
    pub fn cut(&self) {
        self.change(|f| {
            f.cut = true;
            f.generation += 1;
        });
    }

    /// Closes all connections; new ones work.
    pub fn cut_connections(&self) {
        self.change(|f| f.generation += 1);
    }

    /// Swallows one or both directions without closing anything.
    pub fn stall(&self, up: bool, down: bool) {
        self.change(|f| (f.up.stalled, f.down.stalled) = (up, down));
    }

    /// No faults any more.
    pub fn heal(&self) {
        self.change(|f| *f = Faults { generation: f.generation, ..Faults::default() });
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn connection(client: TcpStream, target: SocketAddr, faults: watch::Receiver<Faults>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // A proxy that waits for more bytes would be a fault of its own.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let generation = faults.borrow().generation;
    let mut closing = faults.clone();
    let both = async {
        tokio::join!(
            way(client_in, server_out, faults.clone(), |f| f.up),
            way(server_in, client_out, faults.clone(), |f| f.down)
        )
    };
    tokio::select! {
        _ = both => {}
        _ = closing.wait_for(|f| f.generation != generation) => {}
    }
}

/// Reads as fast as there is room, and writes what is due.
async fn way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    faults: watch::Receiver<Faults>,
    side: fn(&Faults) -> Way,
) {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_UNDER_WAY);
    let reader = async move {
        let mut buffer = vec![0u8; CHUNK];
        loop {
            match from.read(&mut buffer).await {
                Ok(n) if n > 0 => {
                    let Some(chunk) = buffer.get(..n) else { return };
                    if send.send((Instant::now(), chunk.to_vec())).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    let writer = async move {
        let mut faults = faults;
        let mut free_at = Instant::now();
        while let Some((read_at, chunk)) = receive.recv().await {
            if faults.wait_for(|f| !side(f).stalled).await.is_err() {
                return;
            }
            let now_applies = side(&faults.borrow());
            tokio::time::sleep_until(read_at + now_applies.delay).await;
            if let Some(rate) = now_applies.bytes_per_second {
                let cost = Duration::from_secs_f64(chunk.len() as f64 / rate.max(1) as f64);
                free_at = free_at.max(Instant::now()) + cost;
                tokio::time::sleep_until(free_at).await;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other side hears of the end as it would without a proxy.
        let _closed = to.shutdown().await;
    };
    tokio::join!(reader, writer);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut a, mut b) = stream.split();
                    tokio::io::copy(&mut a, &mut b).await
                });
            }
        });
        address
    }

    async fn ping(stream: &mut TcpStream) -> Duration {
        let start = Instant::now();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0u8; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
        start.elapsed()
    }

    #[tokio::test]
    async fn delays_both_ways_without_losing_throughput() {
        let proxy = TcpProxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ping(&mut stream).await;
        proxy.delay(Duration::from_millis(50));
        let took = ping(&mut stream).await;
        assert!(took >= Duration::from_millis(100) && took < Duration::from_millis(600), "{took:?}");
        let start = Instant::now();
        let (mut from, mut to) = stream.split();
        let bytes = vec![7u8; 8 << 20];
        let mut back = vec![0u8; bytes.len()];
        let (sent, read) = tokio::join!(to.write_all(&bytes), from.read_exact(&mut back));
        sent.unwrap();
        read.unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}: chunks wait for one another",
            start.elapsed()
        );
        assert_eq!(bytes, back);
    }

    #[tokio::test]
    async fn cuts_and_heals() {
        let proxy = TcpProxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ping(&mut stream).await;
        proxy.cut();
        let mut byte = [0u8; 1];
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte)).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)));
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(5), refused.read(&mut byte)).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)));
        proxy.heal();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ping(&mut stream).await;
    }

    #[tokio::test]
    async fn a_stalled_direction_neither_closes_nor_loses() {
        let proxy = TcpProxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ping(&mut stream).await;
        proxy.stall(false, true);
        stream.write_all(b"held").await.unwrap();
        let mut answer = [0u8; 4];
        let early = tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut answer)).await;
        assert!(early.is_err(), "bytes came through a stalled direction");
        proxy.heal();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"held");
    }

    #[tokio::test]
    async fn holds_the_bandwidth() {
        let proxy = TcpProxy::start(echo().await).await.unwrap();
        proxy.change(|f| f.up.bytes_per_second = Some(1 << 20));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let bytes = vec![1u8; 512 * 1024];
        let mut back = vec![0u8; bytes.len()];
        let start = Instant::now();
        let (mut from, mut to) = stream.split();
        let (sent, read) = tokio::join!(to.write_all(&bytes), from.read_exact(&mut back));
        sent.unwrap();
        read.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    }
}
