//! Free TCP ports that nobody else takes between the choice and the server's bind.
//!
//! Ports come from below the kernel's ephemeral range, so that no outgoing connection takes one while its server is
//! down (a client that reconnects to a port inside that range can even connect to itself). A lock file per port,
//! held until the process ends, keeps parallel test processes apart.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rand::Rng;

static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

const LOWEST: u16 = 12_000;

fn ephemeral_start() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next().and_then(|low| low.parse().ok()))
        .filter(|low| *low > LOWEST + 2_000)
        .unwrap_or(32_000)
}

/// A TCP port on 127.0.0.1 that is free, and is given to no other test of this machine while this process lives.
///
/// # Errors
/// If the lock folder cannot be made, or no port is free.
pub fn free_port() -> Result<u16> {
    let folder = std::env::temp_dir().join("towpath-ports");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let end = ephemeral_start();
    for _ in 0..1_000 {
        let port = rand::rng().random_range(LOWEST..end);
        let path = folder.join(port.to_string());
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if file.try_lock().is_err() || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        return Ok(port);
    }
    bail!("no free port between {LOWEST} and {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_gives_a_port_twice_nor_one_that_is_in_use() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let port = free_port().unwrap();
            assert!(seen.insert(port), "port {port} was given twice");
            assert!((LOWEST..ephemeral_start()).contains(&port));
        }
    }
}
