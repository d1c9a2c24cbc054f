//! A network of its own for the nodes of a cluster: a network namespace for each, joined by a bridge that the test
//! process reaches too, with links that can be cut one way and slowed down.
//!
//! A direction is cut by a wrong hardware address for the receiver in the sender's namespace: packets vanish without an
//! error on either side, as on a real network, and those the other way still arrive. This needs neither a packet
//! filter nor `tc netem`. Links are slowed with the token buckets of `tc htb`: a queue that drains slowly, so that small
//! requests wait behind large ones.
//!
//! Where the kernel lets this process make no network, the members are addresses of the loopback device, and links cannot
//! be cut: [`Network::has_links`] says so, and whoever wanted to cut some says what was not tested.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::watchdog::{self, Undo};

/// Nobody's hardware address.
const NOBODY: &str = "02:77:ff:ff:ff:ff";

/// A bridge `10.77.N.0/24` and the namespaces on it. All of it is gone on drop.
#[derive(Debug)]
pub struct Network {
    octet: u8,
    /// Whether the members have namespaces; else they are loopback addresses.
    has_links: bool,
    bridge: String,
    members: BTreeSet<u8>,
    /// Holds the octet while this process lives.
    _lock: File,
}

impl Network {
    /// Makes the bridge, where this process may: it takes root (or the capability for network administration) and
    /// iproute2.
    ///
    /// # Errors
    /// If all networks are in use.
    pub fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join("towpath-ports");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let first = rand::random::<u8>();
        for step in 0..=u8::MAX {
            let octet = first.wrapping_add(step);
            let lock =
                File::create(folder.join(format!("network-{octet}"))).context("cannot make a lock file")?;
            if lock.try_lock().is_err() {
                continue;
            }
            let bridge = format!("tp{octet}");
            if std::path::Path::new("/sys/class/net").join(&bridge).exists() {
                continue;
            }
            let mut network = Self { octet, has_links: true, bridge, members: BTreeSet::new(), _lock: lock };
            if let Err(error) = network.make_bridge() {
                say(&format!(
                    "NOT TESTED: links between nodes that are cut or slow; network namespaces take root (CAP_NET_ADMIN) \
                     and iproute2: {error:#}"
                ));
                network.has_links = false;
            }
            return Ok(network);
        }
        bail!("all networks 10.77.N.0/24 are in use")
    }

    fn make_bridge(&self) -> Result<()> {
        if std::env::var_os("TOWPATH_NO_NAMESPACES").is_some() {
            bail!("TOWPATH_NO_NAMESPACES is set");
        }
        // Some kernels give bridges, and no namespaces.
        let probe = self.namespace(0);
        ip(&["netns", "add", &probe])?;
        ip(&["netns", "del", &probe])?;
        ip(&["link", "add", &self.bridge, "type", "bridge"])?;
        watchdog::watch(Undo::Link, &self.bridge)?;
        ip(&["addr", "add", &format!("10.77.{}.254/24", self.octet), "dev", &self.bridge])?;
        ip(&["link", "set", &self.bridge, "up"])
    }

    /// Whether links between members can be cut.
    #[must_use]
    pub fn has_links(&self) -> bool {
        self.has_links
    }

    /// Adds a namespace for a member, whose address ends with its number.
    ///
    /// # Errors
    /// If the kernel refuses, or the number is 0, above 250 or taken.
    pub fn add(&mut self, member: u8) -> Result<()> {
        if member == 0 || member > 250 || self.members.contains(&member) {
            bail!("{member} cannot be a new member of the network");
        }
        if !self.has_links {
            self.members.insert(member);
            return Ok(());
        }
        let namespace = self.namespace(member);
        ip(&["netns", "add", &namespace])?;
        self.members.insert(member);
        watchdog::watch(Undo::Namespace, &namespace)?;
        let outer = format!("{}v{member}", self.bridge);
        let hardware = self.hardware(member);
        ip(&[
            "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "address", &hardware, "netns",
            &namespace,
        ])?;
        ip(&["link", "set", &outer, "master", &self.bridge, "up"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        ip(&["-n", &namespace, "addr", "add", &format!("{}/24", self.address(member)), "dev", "eth0"])?;
        ip(&["-n", &namespace, "link", "set", "eth0", "up"])
    }

    fn namespace(&self, member: u8) -> String {
        format!("{}-{member}", self.bridge)
    }

    fn hardware(&self, member: u8) -> String {
        format!("02:77:00:00:{:02x}:{member:02x}", self.octet)
    }

    /// A member's address.
    #[must_use]
    pub fn address(&self, member: u8) -> Ipv4Addr {
        Ipv4Addr::new(if self.has_links { 10 } else { 127 }, 77, self.octet, member)
    }

    /// The words before a command that is to run in a member's namespace. The process that is started becomes the
    /// command itself, so its process id is the command's.
    #[must_use]
    pub fn prefix(&self, member: u8) -> Vec<String> {
        if !self.has_links {
            return vec!["env".to_owned()];
        }
        ["ip", "netns", "exec", &self.namespace(member)].map(str::to_owned).to_vec()
    }

    /// From now on, nothing that one member sends reaches the other.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn cut(&self, from: u8, to: u8) -> Result<()> {
        self.neighbour(from, to, NOBODY)
    }

    /// Undoes [`Network::cut`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn join(&self, from: u8, to: u8) -> Result<()> {
        self.neighbour(from, to, &self.hardware(to))
    }

    fn neighbour(&self, from: u8, to: u8, hardware: &str) -> Result<()> {
        let to = self.address(to).to_string();
        ip(&[
            "-n",
            &self.namespace(from),
            "neigh",
            "replace",
            &to,
            "lladdr",
            hardware,
            "dev",
            "eth0",
            "nud",
            "permanent",
        ])
    }

    /// From now on, what one member sends to the others goes at so many kbit/s to each. What it sends to the test
    /// process and its clients is not slowed down.
    ///
    /// # Errors
    /// If the kernel has no `htb`.
    pub fn slow(&self, from: u8, kbit: u32) -> Result<()> {
        let namespace = self.namespace(from);
        let tc = |words: &str| {
            let mut all = vec!["-n", namespace.as_str()];
            all.extend(words.split(' '));
            run("tc", &all)
        };
        tc("qdisc replace dev eth0 root handle 1: htb default 255")?;
        tc("class replace dev eth0 parent 1: classid 1:255 htb rate 10gbit quantum 60000")?;
        for to in self.members.iter().filter(|to| **to != from) {
            let rate =
                format!("class replace dev eth0 parent 1: classid 1:{to:x} htb rate {kbit}kbit quantum 1600");
            tc(&rate)?;
            let address = self.address(*to);
            tc(&format!(
                "filter replace dev eth0 parent 1: protocol ip prio {to} u32 match ip dst {address}/32 flowid 1:{to:x}"
            ))?;
        }
        Ok(())
    }

    /// Undoes [`Network::slow`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn unslow(&self, from: u8) -> Result<()> {
        run("tc", &["-n", &self.namespace(from), "qdisc", "del", "dev", "eth0", "root"])
    }

    /// Whether links can be slowed down here: tried on a member.
    #[must_use]
    pub fn can_slow(&self) -> bool {
        self.has_links
            && self
                .members
                .first()
                .is_some_and(|m| self.slow(*m, 1_000_000).and_then(|()| self.unslow(*m)).is_ok())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if !self.has_links {
            return;
        }
        // The kernel takes the devices away with their namespaces, once the last process in them has ended.
        for member in &self.members {
            let namespace = self.namespace(*member);
            if ip(&["netns", "del", &namespace]).is_ok() {
                watchdog::forget(Undo::Namespace, &namespace);
            }
        }
        if ip(&["link", "del", &self.bridge]).is_ok() {
            watchdog::forget(Undo::Link, &self.bridge);
        }
    }
}

fn say(text: &str) {
    use std::io::Write as _;
    // A message that cannot be written is no reason to fail.
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start {program}: is iproute2 installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Guarded, TempDir};

    /// Starts something in a member's namespace that answers "4 octets of echo" to whoever connects.
    fn echo(network: &Network, member: u8, folder: &TempDir) -> Guarded {
        let script = format!(
            "import socket\ns=socket.create_server(('{}',7))\nprint('listens',flush=True)\n\
             while True:\n  c,_=s.accept()\n  n=0\n  while n<65536:\n    b=c.recv(65536)\n    n+=len(b)\n    \
             if not b: break\n  c.close()",
            network.address(member)
        );
        let log = folder.join(format!("echo-{member}"));
        let mut echo = Guarded::spawn("echo", python(network, member, &script), &log, &log).unwrap();
        for _ in 0..500 {
            if echo.stdout().contains("listens") {
                return echo;
            }
            assert!(echo.is_running().unwrap(), "{}", echo.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no echo: {}", echo.log_tail());
    }

    fn python(network: &Network, member: u8, script: &str) -> Command {
        let prefix = network.prefix(member);
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).args(["python3", "-c", script]);
        command
    }

    /// Sends 64 KiB from one to the other and waits for the end; gives the seconds, or what went wrong.
    fn send(network: &Network, from: u8, to: u8) -> String {
        let script = format!(
            "import socket,time\nb=time.monotonic()\ntry:\n  s=socket.create_connection(('{}',7),1.5)\n  \
             s.settimeout(20)\n  s.sendall(b'x'*65536)\n  s.recv(1)\n  print(time.monotonic()-b)\n\
             except Exception as e:\n  print(type(e).__name__)",
            network.address(to)
        );
        Guarded::run("send", python(network, from, &script), Duration::from_secs(60))
            .unwrap()
            .trim()
            .to_owned()
    }

    #[test]
    fn links_are_cut_slowed_and_joined() {
        let folder = TempDir::new("network").unwrap();
        let mut network = Network::new().unwrap();
        if !network.has_links() {
            return;
        }
        network.add(1).unwrap();
        network.add(2).unwrap();
        network.add(3).unwrap();
        assert!(network.add(2).is_err());
        let _echoes = [1, 2].map(|member| echo(&network, member, &folder));
        let quick = |text: &str| text.parse::<f64>().is_ok_and(|seconds| seconds < 1.0);
        assert!(quick(&send(&network, 1, 2)));
        network.cut(1, 2).unwrap();
        assert_eq!(send(&network, 1, 2), "TimeoutError");
        // The answer to a connection from 2 would have to travel from 1.
        assert_eq!(send(&network, 2, 1), "TimeoutError");
        assert!(quick(&send(&network, 3, 2)), "a third member is cut off too");
        network.join(1, 2).unwrap();
        assert!(quick(&send(&network, 1, 2)));
        if network.can_slow() {
            network.slow(1, 512).unwrap();
            let seconds: f64 = send(&network, 1, 2).parse().unwrap();
            assert!(seconds > 0.7, "{seconds} s for 64 KiB at 512 kbit/s");
            assert!(quick(&send(&network, 3, 2)));
            network.unslow(1).unwrap();
        }
        assert!(quick(&send(&network, 1, 2)));
        let bridge = network.bridge.clone();
        drop(network);
        assert!(!std::path::Path::new("/sys/class/net").join(bridge).exists());
    }
}
