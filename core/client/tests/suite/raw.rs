//! Whole batches, several requests on their way, and who may write them.

use bytes::Bytes;
use futures_util::future::join_all;
use towpath_client::{
    Client, ClientError, ErrorCode, Fenced, IsolationLevel, Producer, ProducerConfig, ProducerRecord,
    RawClient, RawFetch,
};
use towpath_record::{BatchBuilder, Compression};
use towpath_types::{Offset, TopicPartition};

use super::{PATIENCE, partitions, topic};

/// A batch of `count` records whose values are `from`, `from + 1` and so on.
fn batch(writer: Fenced, from: i32, count: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(writer.producer_id, writer.epoch, from);
    for value in from..from + count {
        builder.append(i64::from(value), None, Some(value.to_string().as_bytes()), &[]).unwrap();
    }
    builder.build().unwrap()
}

async fn send(raw: &RawClient, partition: &TopicPartition, batch: Bytes) -> Result<Offset, ClientError> {
    let mut results = raw.produce(vec![(partition.clone(), batch)], towpath_client::Acks::All).await.unwrap();
    results.pop().unwrap().1.map(|produced| produced.base_offset)
}

/// The values of a partition's records, control records left out, and where its log ends.
async fn read(raw: &RawClient, partition: &TopicPartition) -> (Vec<String>, Offset) {
    let fetch = RawFetch {
        partitions: vec![(partition.clone(), Offset::ZERO)],
        wait_max: PATIENCE,
        bytes_min: 1,
        bytes_max: 1 << 24,
        partition_bytes_max: 1 << 24,
        isolation_level: IsolationLevel::ReadUncommitted,
    };
    let fetched = raw.fetch(&fetch).await.unwrap().pop().unwrap().1.unwrap();
    let mut values = Vec::new();
    for batch in towpath_record::batches(&fetched.batches) {
        let batch = batch.unwrap();
        if batch.is_control() {
            continue;
        }
        let records = batch.records().unwrap();
        values
            .extend(records.iter().map(|r| String::from_utf8_lossy(r.unwrap().value.unwrap()).into_owned()));
    }
    (values, fetched.high_watermark)
}

pub(crate) async fn a_successor_shuts_out_who_wrote_before(client: Client) {
    let topic = topic(&client, "fenced", 3).await;
    let partitions = partitions(&topic, 3);
    let id = format!("fenced-{:08x}", rand::random::<u32>());
    let (first, second) = (client.raw(), client.raw());
    let writer = first.fence(&id, &partitions).await.unwrap();
    // The marker.
    assert_eq!(send(&first, &partitions[0], batch(writer, 0, 2)).await.unwrap(), Offset::new(1));
    assert_eq!(send(&first, &partitions[0], batch(writer, 2, 1)).await.unwrap(), Offset::new(3));
    let again = send(&first, &partitions[0], batch(writer, 2, 1)).await.unwrap();
    assert_eq!(again, Offset::new(3), "a batch that is sent again is recognised");

    let next = second.fence(&id, &partitions).await.unwrap();
    assert_eq!(next.producer_id, writer.producer_id);
    assert!(next.epoch > writer.epoch);
    // Where it has written, and where it has not.
    for partition in &partitions {
        let error = send(&first, partition, batch(writer, 3, 1)).await.unwrap_err();
        let code = match &error {
            ClientError::Broker { code, .. } => *code,
            other => panic!("{other}"),
        };
        assert_eq!(code, ErrorCode::InvalidProducerEpoch, "{error}");
    }
    send(&second, &partitions[0], batch(next, 0, 1)).await.unwrap();
    let (values, end) = read(&second, &partitions[0]).await;
    assert_eq!(values, ["0", "1", "2", "0"]);
    assert_eq!(end, Offset::new(6), "two markers");
}

pub(crate) async fn a_producer_that_is_shut_out_stays_so(client: Client) {
    let topic = topic(&client, "taken-over", 2).await;
    let partitions = partitions(&topic, 2);
    let id = format!("taken-over-{:08x}", rand::random::<u32>());
    let raw = client.raw();
    let write = async |producer: &Producer, partition: i32, value: &str| {
        let record = ProducerRecord {
            partition: Some(partition),
            value: Some(value.as_bytes()),
            ..ProducerRecord::new(&topic)
        };
        producer.send(record).await?;
        producer.flush().await
    };
    let fence = raw.take_over(&id).await.unwrap();
    fence.shut_out(&partitions[..1]).await.unwrap();
    // Of what is not shut out one by one, it is the turn later.
    fence.shut_out(&partitions[1..]).await.unwrap();
    let producer =
        |identity| client.producer(ProducerConfig { identity: Some(identity), ..ProducerConfig::default() });
    let first = producer(fence.identity());
    for value in ["0", "1"] {
        write(&first, 0, value).await.unwrap();
    }
    let next = raw.take_over(&id).await.unwrap();
    assert!(next.identity().epoch > fence.identity().epoch);
    write(&first, 0, "2").await.unwrap();
    next.shut_out(&partitions).await.unwrap();
    for _ in 0..2 {
        for partition in 0..2 {
            let error = write(&first, partition, "late").await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::InvalidProducerEpoch), "{error}");
        }
    }
    let second = producer(next.identity());
    for partition in 0..2 {
        write(&second, partition, "3").await.unwrap();
    }
    assert_eq!(read(&raw, &partitions[0]).await.0, ["0", "1", "2", "3"]);
    assert_eq!(read(&raw, &partitions[1]).await.0, ["3"]);
}

pub(crate) async fn requests_on_their_way_keep_their_order(client: Client) {
    let topic = topic(&client, "pipelined", 1).await;
    let partition = partitions(&topic, 1).remove(0);
    let raw = client.raw();
    let id = format!("pipelined-{:08x}", rand::random::<u32>());
    let writer = raw.fence(&id, std::slice::from_ref(&partition)).await.unwrap();
    for round in 0..20 {
        let mut pending = Vec::new();
        for at in 0..5 {
            let bytes = batch(writer, (round * 5 + at) * 10, 10);
            let (begun, failed) = raw.begin_produce(vec![(partition.clone(), bytes)]).await;
            assert!(failed.is_empty(), "{failed:?}");
            assert_eq!(begun[0].partitions().collect::<Vec<_>>(), [&partition]);
            pending.extend(begun);
        }
        let answers = join_all(pending.into_iter().map(towpath_client::PendingProduce::answer)).await;
        let offsets: Vec<i64> =
            answers.into_iter().flatten().map(|(_, result)| result.unwrap().base_offset.get()).collect();
        let from = i64::from(1 + round * 50);
        assert_eq!(offsets, [from, from + 10, from + 20, from + 30, from + 40]);
    }
    let (values, _) = read(&raw, &partition).await;
    assert_eq!(values, (0..1000).map(|value| value.to_string()).collect::<Vec<_>>());
}
