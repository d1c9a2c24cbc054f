//! Who writes, and who reads as a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use towpath_client::{
    Client, ClientError, ConsumerConfig, ConsumerEvent, IsolationLevel, OffsetReset, Producer,
    ProducerConfig, ProducerRecord, Subscription, TransactionConfig, TransactionalProducer,
};
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

use super::side::{Side, partitions, topic};

/// What a topic holds.
pub(crate) type Values = BTreeMap<TopicPartition, Vec<String>>;

/// Records of one burst, for each partition.
const BURST: usize = 10;

/// Writes until it is told to stop: bursts without a transaction, in one, and in one that is aborted.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Values>,
    runtime: tokio::runtime::Handle,
}

impl Writer {
    pub(crate) fn start(side: &Side, origin: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (bootstrap, stopped) = (side.bootstrap(), Arc::clone(&stop));
        let task = side
            .runtime()
            .spawn(async move { write(&Side::connect(bootstrap).await, origin, &stopped).await });
        Self { stop, task, runtime: side.runtime().handle().clone() }
    }

    /// What was acknowledged, in order.
    pub(crate) fn stop(self) -> Values {
        self.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(self.task).unwrap()
    }
}

async fn write(client: &Client, origin: &str, stop: &AtomicBool) -> Values {
    let mut acknowledged: Values = partitions().into_iter().map(|it| (it, Vec::new())).collect();
    let (mut plain, mut transactional) = (None, None);
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let burst: Vec<(TopicPartition, String)> = (0..BURST)
            .flat_map(|number| {
                partitions()
                    .into_iter()
                    .map(move |partition| (partition, format!("{origin} {round} {number}")))
            })
            .collect();
        // What becomes of a burst that fails is not known: its producer is not used any more.
        let sent = if round % 3 == 0 {
            let producer = match transactional.take() {
                Some(producer) => Ok(producer),
                None => {
                    client.transactional_producer(TransactionConfig::new(format!("writer-{origin}"))).await
                }
            };
            match producer {
                Ok(producer) => {
                    let sent = in_transaction(&producer, &burst, round % 2 == 0).await;
                    transactional = sent.is_ok().then_some(producer);
                    sent
                }
                Err(error) => Err(error),
            }
        } else {
            let producer = plain.take().unwrap_or_else(|| client.producer(ProducerConfig::default()));
            let sent = send(&producer, &burst).await;
            plain = sent.is_ok().then_some(producer);
            sent
        };
        match sent {
            Ok(true) => {
                for (partition, value) in burst {
                    acknowledged.get_mut(&partition).unwrap().push(value);
                }
            }
            Ok(false) => {}
            Err(error) => eprintln!("{origin}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    acknowledged
}

fn record<'a>(topic: &'a TopicName, partition: &TopicPartition, value: &'a str) -> ProducerRecord<'a> {
    ProducerRecord {
        partition: Some(partition.partition),
        value: Some(value.as_bytes()),
        ..ProducerRecord::new(topic)
    }
}

async fn send(producer: &Producer, burst: &[(TopicPartition, String)]) -> Result<bool, ClientError> {
    let topic = topic();
    for (partition, value) in burst {
        producer.send(record(&topic, partition, value)).await?;
    }
    producer.flush().await.map(|()| true)
}

async fn in_transaction(
    producer: &TransactionalProducer,
    burst: &[(TopicPartition, String)],
    commits: bool,
) -> Result<bool, ClientError> {
    let topic = topic();
    let transaction = producer.begin().await?;
    for (partition, value) in burst {
        transaction.send(record(&topic, partition, value)).await?;
    }
    if commits {
        transaction.commit().await?
    } else {
        transaction.abort().await?
    }
    Ok(commits)
}

/// A consumer of the group `shop`, which processes and commits.
pub(crate) struct Group {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicUsize>,
    task: JoinHandle<Values>,
    runtime: tokio::runtime::Handle,
}

impl Group {
    pub(crate) fn join(side: &Side) -> Self {
        let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (bootstrap, stopped, counted) = (side.bootstrap(), Arc::clone(&stop), Arc::clone(&read));
        let task = side
            .runtime()
            .spawn(async move { process(&Side::connect(bootstrap).await, &stopped, &counted).await });
        Self { stop, read, task, runtime: side.runtime().handle().clone() }
    }

    /// What was processed and committed, in order.
    pub(crate) fn leave(self) -> Values {
        self.stop.store(true, Ordering::Relaxed);
        self.runtime.block_on(self.task).unwrap()
    }

    /// Waits until it stands at the end of everything: nothing more comes for a while.
    pub(crate) fn wait_until_it_has_read_to_the_end(&self, all: &Values, patience: Duration) {
        let most: usize = all.values().map(Vec::len).sum();
        let deadline = Instant::now() + patience;
        let (mut before, mut since) = (0, Instant::now());
        while since.elapsed() < Duration::from_secs(6) {
            let now = self.read.load(Ordering::Relaxed);
            if now != before {
                (before, since) = (now, Instant::now());
            }
            assert!(now <= most && Instant::now() < deadline, "{now} of {most} records");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

async fn process(client: &Client, stop: &AtomicBool, read: &AtomicUsize) -> Values {
    let config = ConsumerConfig {
        group_id: Some(GroupId::new("shop").unwrap()),
        auto_offset_reset: OffsetReset::Earliest,
        isolation_level: IsolationLevel::ReadCommitted,
        session_timeout_ms: 10_000,
        ..ConsumerConfig::default()
    };
    let consumer = client.consumer(config);
    consumer.subscribe(Subscription::Topics(vec![topic()])).unwrap();
    let mut processed: Values = partitions().into_iter().map(|it| (it, Vec::new())).collect();
    while !stop.load(Ordering::Relaxed) {
        let batches = match consumer.poll_event(Duration::from_millis(100)).await {
            Ok(ConsumerEvent::Records(batches)) => batches,
            Ok(_) => continue,
            Err(error) => {
                eprintln!("group: {error}");
                continue;
            }
        };
        let mut done: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        let mut values: Values = BTreeMap::new();
        for batch in batches {
            for record in batch.records() {
                let record = record.unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                values.entry((*batch.partition).clone()).or_default().push(value);
                done.insert((*batch.partition).clone(), record.offset.next());
            }
        }
        // Processed is what was committed: a commit that fails brings the same records again.
        while let Err(error) = consumer.commit(&done).await {
            eprintln!("group, commit: {error}");
            if stop.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for (partition, values) in values {
            read.fetch_add(values.len(), Ordering::Relaxed);
            let list = processed.get_mut(&partition).unwrap();
            list.extend(values);
        }
    }
    consumer.close().await;
    processed
}
