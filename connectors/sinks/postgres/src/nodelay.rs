//! TCP_NODELAY for the sockets of sqlx.
//!
//! sqlx 0.9.0 leaves Nagle's algorithm on (its issue 4335; fixed after that release, so that this module can go with the
//! next one). The end of a `COPY` is a small message behind a large one, and waited for the server's delayed
//! acknowledgement: 40 ms for each batch.

use std::io;

use rustix::fd::OwnedFd;
use rustix::net::SocketAddrAny;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Lets small messages leave at once on every TCP connection of this process to `port`. sqlx does not hand out its
/// sockets, so they are looked for; that others may be among them does no harm.
pub(crate) fn set(port: u16) {
    if let Err(error) = try_set(port) {
        // Slow, but right: a sandbox may forbid the look at our own descriptors.
        tracing::debug!(%error, "connections to PostgreSQL keep Nagle's algorithm");
    }
}

#[cfg(target_os = "linux")]
fn try_set(port: u16) -> io::Result<()> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may be closed by now; it is no longer ours to set then.
        let Ok(socket) = pidfd_getfd(&this, number, PidfdGetfdFlags::empty()) else { continue };
        if peer_port(&socket) == Some(port) {
            rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn try_set(_port: u16) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn peer_port(socket: &OwnedFd) -> Option<u16> {
    let peer: SocketAddrAny = rustix::net::getpeername(socket).ok()??;
    std::net::SocketAddr::try_from(peer).ok().map(|address| address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_to_the_port_get_it_and_others_do_not() {
        let (wanted, other) = (listener(), listener());
        let ours = TcpStream::connect(wanted.local_addr().unwrap()).unwrap();
        let another = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        assert!(!ours.nodelay().unwrap(), "this test proves nothing where it is on anyway");
        try_set(wanted.local_addr().unwrap().port()).unwrap();
        assert!(ours.nodelay().unwrap());
        assert!(!another.nodelay().unwrap());
    }

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }
}
