//! Options for the sockets of sqlx.
//!
//! sqlx 0.9.0 leaves Nagle's algorithm on (its issue 4335; fixed after that release). The end of a `COPY` is a small
//! message behind a large one, and waited for the server's delayed acknowledgement: 40 ms for each batch.
//!
//! A server that vanishes without a word (its machine is gone, a firewall forgot the connection) is noticed by
//! keepalives, and by data that is not acknowledged; without, an answer is waited for without end.

use std::io;
#[cfg(target_os = "linux")]
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::{SocketAddrAny, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Silence after which the server is asked whether it is there; the same as the server's settings for us.
#[cfg(target_os = "linux")]
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
#[cfg(target_os = "linux")]
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
#[cfg(target_os = "linux")]
const KEEPALIVE_COUNT: u32 = 3;
/// How long data may stay unacknowledged: longer than a COPY waits for a row that somebody else holds.
#[cfg(target_os = "linux")]
const USER_TIMEOUT_MS: u32 = 300_000;

/// Lets small messages leave at once on every TCP connection of this process to `port`, and notices when nobody is
/// there. sqlx does not hand out its sockets, so they are looked for; that others may be among them does no harm.
pub(crate) fn set(port: u16) {
    if let Err(error) = try_set(port) {
        // Slow, but right: a sandbox may forbid the look at our own descriptors.
        tracing::debug!(%error, "connections to PostgreSQL keep Nagle's algorithm and the system's patience");
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
            sockopt::set_tcp_nodelay(&socket, true)?;
            sockopt::set_socket_keepalive(&socket, true)?;
            sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
            sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
            sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_COUNT)?;
            sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT_MS)?;
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
        assert!(sockopt::socket_keepalive(&ours).unwrap() && !sockopt::socket_keepalive(&another).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&ours).unwrap(), KEEPALIVE_IDLE);
        assert_eq!(sockopt::tcp_user_timeout(&ours).unwrap(), USER_TIMEOUT_MS);
    }

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }
}
