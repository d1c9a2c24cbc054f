import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.errors.InvalidTimestampException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.junit.jupiter.api.Test;

class ProducerTest {
    private record Item(byte[] key, byte[] value, List<Map.Entry<String, byte[]>> headers) {
        String text() {
            StringBuilder all = new StringBuilder(Arrays.toString(key) + " " + Arrays.toString(value));
            headers.forEach(h -> all.append(' ').append(h.getKey()).append('=').append(Arrays.toString(h.getValue())));
            return all.toString();
        }
    }

    private static byte[] bytes(int length, int seed) {
        byte[] made = new byte[length];
        for (int i = 0; i < length; i++) {
            made[i] = (byte) (seed * 31 + i);
        }
        return made;
    }

    /** All that a log must keep apart: null and empty, twice the same header, every byte. */
    private static List<Item> items() {
        List<Item> made = new ArrayList<>();
        for (int i = 0; i < 120; i++) {
            byte[] key = i % 7 == 3 ? null : i % 7 == 5 ? new byte[0] : ("key-" + i).getBytes();
            byte[] value = i % 11 == 5 ? new byte[0] : i % 11 == 7 ? null : bytes(i * 3, i);
            List<Map.Entry<String, byte[]>> headers = new ArrayList<>();
            if (i % 3 == 0) {
                headers.add(Map.entry("h", new byte[] {1}));
                headers.add(Map.entry("h", new byte[] {2}));
                headers.add(Map.entry("empty", new byte[0]));
                headers.add(new java.util.AbstractMap.SimpleEntry<>("null", null));
            }
            made.add(new Item(key, value, headers));
        }
        made.add(new Item("big".getBytes(), bytes(200_000, 7), List.of(Map.entry("größe", new byte[] {-1}))));
        return made;
    }

    private static void roundTrip(Object... config) throws Exception {
        String topic = Support.create(1);
        List<Item> items = items();
        Map<String, Object> settings = Support.settings("linger.ms", 20);
        settings.putAll(Support.settings(config));
        try (KafkaProducer<byte[], byte[]> producer =
                 new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (Item item : items) {
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, 0, item.key(), item.value());
                item.headers().forEach(h -> record.headers().add(h.getKey(), h.getValue()));
                futures.add(producer.send(record));
            }
            for (int i = 0; i < futures.size(); i++) {
                RecordMetadata seen = Support.get(futures.get(i));
                if (!"0".equals(settings.get("acks"))) {
                    assertEquals(i, seen.offset());
                }
            }
        }
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(
            Support.settings("auto.offset.reset", "earliest"), new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(List.of(Support.tp(topic, 0)));
            List<String> seen = new ArrayList<>();
            long end = System.nanoTime() + Support.DEADLINE_S * 1_000_000_000;
            while (seen.size() < items.size() && System.nanoTime() < end) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Support.TICK)) {
                    List<Map.Entry<String, byte[]>> headers = new ArrayList<>();
                    for (Header header : record.headers()) {
                        headers.add(new java.util.AbstractMap.SimpleEntry<>(header.key(), header.value()));
                    }
                    seen.add(new Item(record.key(), record.value(), headers).text());
                }
            }
            assertEquals(items.stream().map(Item::text).toList(), seen);
        }
    }

    @Test
    void compressionNone() throws Exception {
        roundTrip("compression.type", "none");
    }

    @Test
    void compressionGzip() throws Exception {
        roundTrip("compression.type", "gzip", "compression.gzip.level", 9);
    }

    @Test
    void compressionSnappy() throws Exception {
        roundTrip("compression.type", "snappy");
    }

    @Test
    void compressionLz4() throws Exception {
        roundTrip("compression.type", "lz4", "compression.lz4.level", 12);
    }

    @Test
    void compressionZstd() throws Exception {
        roundTrip("compression.type", "zstd", "compression.zstd.level", 6);
    }

    @Test
    void acksNone() throws Exception {
        roundTrip("acks", "0", "enable.idempotence", false);
    }

    @Test
    void acksLeader() throws Exception {
        roundTrip("acks", "1", "enable.idempotence", false);
    }

    @Test
    void acksAllWithoutIdempotence() throws Exception {
        roundTrip("acks", "all", "enable.idempotence", false);
    }

    @Test
    void theTopicsCodecWins() throws Exception {
        String topic = Support.create(1, Map.of("compression.type", "zstd"));
        try (KafkaProducer<String, String> producer = Support.producer("compression.type", "gzip")) {
            Support.send(producer, topic, 0, 0, 500);
        }
        assertEquals(Support.numbers(0, 500), Support.read(topic, 0, "read_uncommitted"));
    }

    @Test
    void idempotentInOrderWithFiveInFlight() throws Exception {
        String topic = Support.create(1);
        try (KafkaProducer<String, String> producer = Support.producer("enable.idempotence", true, "acks", "all",
            "max.in.flight.requests.per.connection", 5, "batch.size", 200, "linger.ms", 0)) {
            List<RecordMetadata> done = Support.send(producer, topic, 0, 0, 3000);
            for (int i = 0; i < done.size(); i++) {
                assertEquals(i, done.get(i).offset());
            }
        }
        assertEquals(Support.numbers(0, 3000), Support.read(topic, 0, "read_uncommitted"));
    }

    @Test
    void twoIdempotentProducersInOnePartition() throws Exception {
        String topic = Support.create(1);
        try (KafkaProducer<String, String> one = Support.producer("batch.size", 100);
             KafkaProducer<String, String> two = Support.producer("batch.size", 100)) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (int i = 0; i < 500; i++) {
                futures.add(one.send(new ProducerRecord<>(topic, 0, null, "a" + i)));
                futures.add(two.send(new ProducerRecord<>(topic, 0, null, "b" + i)));
            }
            for (Future<RecordMetadata> future : futures) {
                Support.get(future);
            }
        }
        List<String> seen = Support.read(topic, 0, "read_uncommitted");
        for (String who : List.of("a", "b")) {
            assertEquals(Support.numbers(0, 500),
                seen.stream().filter(v -> v.startsWith(who)).map(v -> v.substring(1)).toList());
        }
    }

    @Test
    void keysChooseThePartition() throws Exception {
        String topic = Support.create(4);
        try (KafkaProducer<String, String> producer = Support.producer()) {
            Set<Integer> all = new HashSet<>();
            for (int round = 0; round < 2; round++) {
                for (int i = 0; i < 40; i++) {
                    RecordMetadata first = Support.get(producer.send(new ProducerRecord<>(topic, "k" + i, "x")));
                    RecordMetadata again = Support.get(producer.send(new ProducerRecord<>(topic, "k" + i, "y")));
                    assertEquals(first.partition(), again.partition());
                    all.add(first.partition());
                }
            }
            assertEquals(Set.of(0, 1, 2, 3), all);
            List<PartitionInfo> known = producer.partitionsFor(topic);
            assertEquals(4, known.size());
            assertTrue(known.stream().allMatch(p -> p.leader() != null && p.replicas().length > 0));
        }
    }

    @Test
    void logAppendTime() throws Exception {
        String topic = Support.create(1, Map.of("message.timestamp.type", "LogAppendTime"));
        long before = System.currentTimeMillis();
        try (KafkaProducer<String, String> producer = Support.producer()) {
            RecordMetadata seen = Support.get(producer.send(new ProducerRecord<>(topic, 0, 1000L, "k", "v")));
            assertTrue(seen.timestamp() >= before - 1000, "" + seen.timestamp());
        }
        try (KafkaConsumer<String, String> consumer = Support.consumer()) {
            consumer.assign(List.of(Support.tp(topic, 0)));
            ConsumerRecord<String, String> record = Support.poll(consumer, 1).get(0);
            assertEquals(TimestampType.LOG_APPEND_TIME, record.timestampType());
            assertTrue(record.timestamp() >= before - 1000);
        }
    }

    @Test
    void createTime() throws Exception {
        String topic = Support.create(1);
        long time = System.currentTimeMillis() - 100_000;
        try (KafkaProducer<String, String> producer = Support.producer()) {
            assertEquals(time, Support.get(producer.send(new ProducerRecord<>(topic, 0, time, "k", "v"))).timestamp());
        }
        try (KafkaConsumer<String, String> consumer = Support.consumer()) {
            consumer.assign(List.of(Support.tp(topic, 0)));
            ConsumerRecord<String, String> record = Support.poll(consumer, 1).get(0);
            assertEquals(TimestampType.CREATE_TIME, record.timestampType());
            assertEquals(time, record.timestamp());
        }
    }

    @Test
    void timestampsOutOfBounds() throws Exception {
        String topic = Support.create(1,
            Map.of("message.timestamp.before.max.ms", "60000", "message.timestamp.after.max.ms", "60000"));
        long now = System.currentTimeMillis();
        try (KafkaProducer<String, String> producer = Support.producer()) {
            Support.get(producer.send(new ProducerRecord<>(topic, 0, now, null, "now")));
            Support.refused(InvalidTimestampException.class,
                producer.send(new ProducerRecord<>(topic, 0, now - 3_600_000, null, "past")));
            Support.refused(InvalidTimestampException.class,
                producer.send(new ProducerRecord<>(topic, 0, now + 3_600_000, null, "future")));
        }
        assertEquals(List.of("now"), Support.read(topic, 0, "read_uncommitted"));
    }

    @Test
    void tooLargeForTheTopic() throws Exception {
        String topic = Support.create(1, Map.of("max.message.bytes", "1000"));
        try (KafkaProducer<String, String> producer = Support.producer()) {
            Support.refused(RecordTooLargeException.class,
                producer.send(new ProducerRecord<>(topic, 0, null, "x".repeat(2000))));
            Support.get(producer.send(new ProducerRecord<>(topic, 0, null, "small")));
        }
        assertEquals(List.of("small"), Support.read(topic, 0, "read_uncommitted"));
    }

    @Test
    void aBatchTooLargeIsSplit() throws Exception {
        String topic = Support.create(1, Map.of("max.message.bytes", "4000"));
        try (KafkaProducer<String, String> producer = Support.producer("batch.size", 100_000, "linger.ms", 500)) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (int i = 0; i < 60; i++) {
                futures.add(producer.send(new ProducerRecord<>(topic, 0, null, i + "-" + "x".repeat(200))));
            }
            for (Future<RecordMetadata> future : futures) {
                Support.get(future);
            }
        }
        assertEquals(Support.numbers(0, 60),
            Support.read(topic, 0, "read_uncommitted").stream().map(v -> v.substring(0, v.indexOf('-'))).toList());
    }

    @Test
    void compactedTopicsNeedKeys() throws Exception {
        String topic = Support.create(1, Map.of("cleanup.policy", "compact"));
        try (KafkaProducer<String, String> producer = Support.producer()) {
            Support.refused(org.apache.kafka.common.InvalidRecordException.class,
                producer.send(new ProducerRecord<>(topic, 0, null, "no key")));
            Support.get(producer.send(new ProducerRecord<>(topic, 0, "k", "v")));
        }
    }

    @Test
    void anInvalidTopicName() {
        try (KafkaProducer<String, String> producer = Support.producer("max.block.ms", 10_000)) {
            Support.refused(InvalidTopicException.class, producer.send(new ProducerRecord<>("no such/name", "v")));
        } catch (Exception e) {
            throw new AssertionError(e);
        }
    }

    @Test
    void anUnknownPartition() throws Exception {
        String topic = Support.create(1);
        try (KafkaProducer<String, String> producer = Support.producer("max.block.ms", 2_000)) {
            Support.refused(TimeoutException.class, producer.send(new ProducerRecord<>(topic, 7, null, "v")));
        }
    }

    @Test
    void aDeletedTopicIsMadeAnew() throws Exception {
        String topic = Support.create(1);
        try (KafkaProducer<String, String> producer =
                 Support.producer("metadata.max.age.ms", 1000, "enable.idempotence", false)) {
            Support.get(producer.send(new ProducerRecord<>(topic, 0, null, "old")));
            Support.get(Support.admin().deleteTopics(List.of(topic)).all());
            Support.eventually(false, () -> Support.get(Support.admin().listTopics().names()).contains(topic));
            Support.get(Support.admin().createTopics(
                List.of(new org.apache.kafka.clients.admin.NewTopic(topic, 1, (short) 1))).all());
            RecordMetadata seen = Support.get(producer.send(new ProducerRecord<>(topic, 0, null, "new")));
            assertEquals(0, seen.offset());
        }
        assertEquals(List.of("new"), Support.read(topic, 0, "read_uncommitted"));
    }

    @Test
    void topicsMadeByFirstUse() throws Exception {
        String topic = Support.name("java-auto");
        try (KafkaProducer<String, String> producer = Support.producer()) {
            Support.get(producer.send(new ProducerRecord<>(topic, 0, null, "v")));
        }
        assertEquals(List.of("v"), Support.read(topic, 0, "read_uncommitted"));
    }

    @Test
    void flushWaitsForAll() throws Exception {
        String topic = Support.create(2);
        try (KafkaProducer<String, String> producer = Support.producer("linger.ms", 10_000)) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (int i = 0; i < 100; i++) {
                futures.add(producer.send(new ProducerRecord<>(topic, i % 2, null, "" + i)));
            }
            producer.flush();
            assertTrue(futures.stream().allMatch(Future::isDone));
        }
        assertThrows(IllegalArgumentException.class, () -> new ProducerRecord<>(topic, -1, null, "v"));
    }

    @Test
    void manyPartitionsAtOnce() throws Exception {
        String topic = Support.create(30);
        try (KafkaProducer<String, String> producer = Support.producer("linger.ms", 50)) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (int i = 0; i < 3000; i++) {
                futures.add(producer.send(new ProducerRecord<>(topic, i % 30, null, "" + i)));
            }
            for (int i = 0; i < futures.size(); i++) {
                RecordMetadata seen = Support.get(futures.get(i));
                assertEquals(i % 30, seen.partition());
                assertEquals(i / 30, seen.offset());
            }
        }
    }
}
