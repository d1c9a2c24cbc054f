//! What one broker says about the cluster: Metadata, version 1, decoded by hand so that no client stands between.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// An answer larger than this is none.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A partition as one broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Its leader, −1 without one.
    pub leader: i32,
    /// Its replicas, in order of preference.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
}

impl Partition {
    /// A leader, and every replica in sync.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.leader >= 0 && self.isr.len() == self.replicas.len()
    }
}

/// All that one broker says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The ids of the live brokers.
    pub brokers: Vec<i32>,
    /// The partitions of all topics, internal ones too.
    pub partitions: Vec<Partition>,
}

impl Metadata {
    /// The partitions of one topic.
    pub fn of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Partition> {
        self.partitions.iter().filter(move |p| p.topic == topic)
    }
}

/// Asks a broker.
///
/// # Errors
/// If it does not answer in time, or not with Kafka's protocol.
pub fn ask(address: SocketAddr, timeout: Duration) -> Result<Metadata> {
    let mut stream =
        TcpStream::connect_timeout(&address, timeout).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // length, api key 3, version 1, correlation 7, client id null, topics: null, which is all of them
    let request: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    stream.write_all(&request)?;
    let mut length = [0u8; 4];
    stream.read_exact(&mut length).with_context(|| format!("metadata from {address}"))?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    if length > ANSWER_BYTES_MAX {
        bail!("{address} announces an answer of {length} bytes");
    }
    let mut bytes = vec![0u8; length];
    stream.read_exact(&mut bytes).with_context(|| format!("metadata from {address}"))?;
    decode(&bytes).with_context(|| format!("{address} answered something that is no metadata"))
}

fn decode(bytes: &[u8]) -> Result<Metadata> {
    let mut reader = Reader(bytes);
    if reader.i32()? != 7 {
        bail!("another correlation id");
    }
    let mut metadata = Metadata::default();
    for _ in 0..reader.i32()? {
        metadata.brokers.push(reader.i32()?);
        reader.string()?;
        reader.i32()?;
        reader.string()?;
    }
    reader.i32()?;
    for _ in 0..reader.i32()? {
        reader.i16()?;
        let topic = reader.string()?;
        reader.take(1)?;
        for _ in 0..reader.i32()? {
            reader.i16()?;
            let (partition, leader) = (reader.i32()?, reader.i32()?);
            let (replicas, isr) = (reader.list()?, reader.list()?);
            metadata.partitions.push(Partition { topic: topic.clone(), partition, leader, replicas, isr });
        }
    }
    metadata.brokers.sort_unstable();
    Ok(metadata)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let (head, rest) = self.0.split_at_checked(count).context("it ends too early")?;
        self.0 = rest;
        Ok(head)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn string(&mut self) -> Result<String> {
        match usize::try_from(self.i16()?) {
            Ok(length) => Ok(String::from_utf8_lossy(self.take(length)?).into_owned()),
            Err(_) => Ok(String::new()),
        }
    }

    fn list(&mut self) -> Result<Vec<i32>> {
        (0..self.i32()?).map(|_| self.i32()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_an_answer_and_refuses_half_of_one() {
        let mut bytes = vec![0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, b'h', 0, 0, 0x23, 0x84, 0xff, 0xff];
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, b't', 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 5]);
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 3]);
        let metadata = decode(&bytes).unwrap();
        assert_eq!(metadata.brokers, [2]);
        let partition = metadata.of("t").next().unwrap();
        assert_eq!((partition.partition, partition.leader), (5, -1));
        assert_eq!(
            (partition.replicas.as_slice(), partition.isr.as_slice()),
            ([2, 3].as_slice(), [3].as_slice())
        );
        assert!(!partition.is_whole());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err());
        }
    }
}
