//! A `towpath` process, and clients that speak the protocol by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use towpath_harness::process::Options;
use towpath_harness::{Towpath, stats};
use towpath_record::{BatchBuilder, Compression, batches};
use towpath_wire::create_topics::{CreatableTopic, CreatableTopicConfig};
use towpath_wire::fetch::{FetchPartition, FetchTopic};
use towpath_wire::frame::{decode_response, encode_request};
use towpath_wire::produce::{PartitionProduceData, TopicProduceData};
use towpath_wire::{CreateTopicsRequest, FetchRequest, ProduceRequest, Request};

pub(crate) const MIB: u64 = 1024 * 1024;
/// How long anything may take, on a machine with other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A `towpath` process that is just a broker.
pub(crate) struct Broker {
    pub(crate) process: Towpath,
    /// Resident memory after the first requests were served.
    baseline: u64,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::start_with(Options::broker())
    }

    pub(crate) fn start_with(options: Options) -> Self {
        let process = Towpath::start(options).unwrap();
        let mut broker = Self { process, baseline: 0 };
        let mut client = broker.client();
        client.create_topic("served", 1, &[]);
        for _ in 0..50 {
            broker.assert_serves();
        }
        broker.baseline = broker.process.usage().unwrap().rss_bytes;
        broker
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.kafka_address()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A new client is served: it produces a record and reads it.
    pub(crate) fn assert_serves(&self) {
        let began = Instant::now();
        let mut client = self.client();
        let offset = client.produce("served", batch(Compression::None, &[b"served"]));
        let fetched = client.fetch_one("served", offset);
        assert_eq!(fetched, [(offset, b"served".to_vec())], "{}", self.process.log_tail());
        assert!(began.elapsed() < PATIENCE, "served after {:?}", began.elapsed());
    }

    /// Bytes of resident memory more than at the beginning.
    pub(crate) fn growth(&self) -> u64 {
        self.process.usage().unwrap().rss_bytes.saturating_sub(self.baseline)
    }

    /// The most that resident memory has been above the beginning.
    pub(crate) fn peak_growth(&self) -> u64 {
        self.process.usage().unwrap().peak_rss_bytes.saturating_sub(self.baseline)
    }

    /// The process lives, and holds no more than `bytes` above the beginning; and never held more than `peak`.
    pub(crate) fn assert_bounded(&mut self, what: &str, bytes: u64, peak: u64) {
        assert!(self.process.is_running().unwrap(), "{what}: it died\n{}", self.process.log_tail());
        let usage = stats::usage(self.process.pid().unwrap()).unwrap();
        println!(
            "{what}: {} MiB at the beginning, {:+} now, {:+} at most",
            self.baseline / MIB,
            self.growth() / MIB,
            self.peak_growth() / MIB
        );
        assert!(self.growth() <= bytes, "{what}: grew by {} MiB\n{usage:?}", self.growth() / MIB);
        assert!(self.peak_growth() <= peak, "{what}: held {} MiB more\n{usage:?}", self.peak_growth() / MIB);
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = connect(address);
        Self { socket, correlation_id: 0 }
    }

    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation_id += 1;
        let frame = encode_request(request, version, self.correlation_id, Some("test")).unwrap();
        self.socket.write_all(&frame.into_bytes()).unwrap();
    }

    pub(crate) fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).expect("the broker answers");
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.socket.read_exact(&mut frame).expect("the broker answers");
        decode_response::<R>(Bytes::from(frame), version).unwrap().1
    }

    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version)
    }

    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        });
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.to_owned(),
                num_partitions: partitions,
                replication_factor: 1,
                configs: configs.collect(),
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        let response = self.call(7, &request);
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0]);
    }

    /// Produces a batch and returns its first offset.
    pub(crate) fn produce(&mut self, topic: &str, batch: Bytes) -> i64 {
        let answer = self.call(9, &produce_request(topic, batch)).responses[0].partition_responses[0].clone();
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer.base_offset
    }

    /// The records of the batch at `offset`.
    pub(crate) fn fetch_one(&mut self, topic: &str, offset: i64) -> Vec<(i64, Vec<u8>)> {
        let response = self.call(12, &fetch_request(topic, offset, 1));
        let data = &response.responses[0].partitions[0];
        assert_eq!(data.error_code, 0);
        let mut found = Vec::new();
        for batch in batches(data.records.as_ref().unwrap()) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            for record in &batch.records().unwrap() {
                let record = record.unwrap();
                found.push((record.offset.get(), record.value.unwrap().to_vec()));
            }
        }
        found
    }
}

/// Connects, and gives up on anything after a while.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("the broker accepts");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Whether the broker closes the connection, of its own accord. What it still sends is read.
pub(crate) fn is_closed(socket: &mut TcpStream) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            // With bytes of ours unread, a reset is as good as an end.
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Whether the broker has closed the connection by now.
pub(crate) fn was_closed(socket: &mut TcpStream) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match socket.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

pub(crate) fn batch(compression: Compression, values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for value in values {
        builder.append(i64::try_from(now.as_millis()).unwrap(), None, Some(value), &[]).unwrap();
    }
    builder.build().unwrap()
}

pub(crate) fn produce_request(topic: &str, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData { index: 0, records: Some(records) }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

pub(crate) fn fetch_request(topic: &str, offset: i64, bytes_max: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 10_000,
        min_bytes: 1,
        max_bytes: bytes_max,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition: 0,
                fetch_offset: offset,
                partition_max_bytes: bytes_max,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// Lets this process have as many open files as the system allows, and returns how many.
pub(crate) fn raise_open_files_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}
