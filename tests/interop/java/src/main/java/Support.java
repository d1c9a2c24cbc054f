import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.fail;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** What the cases share. */
final class Support {
    static final long DEADLINE_S = 60;
    static final Duration TICK = Duration.ofMillis(100);
    static String server;
    private static Admin admin;

    private Support() {
    }

    static synchronized Admin admin() {
        if (admin == null) {
            admin = Admin.create(Map.of("bootstrap.servers", server, "default.api.timeout.ms", "30000"));
        }
        return admin;
    }

    static String name(String what) {
        return what + "-" + UUID.randomUUID().toString().substring(0, 13);
    }

    static String clip(Object value) {
        String text = String.valueOf(value);
        return text.length() > 600 ? text.substring(0, 600) + "…" : text;
    }

    static <T> T get(Future<T> future) throws Exception {
        return future.get(DEADLINE_S, TimeUnit.SECONDS);
    }

    /** The future has to fail with this. */
    static <T extends Throwable> T refused(Class<T> error, Future<?> future) throws Exception {
        try {
            Object seen = get(future);
            return fail("accepted (" + seen + ") what had to be refused with " + error.getSimpleName());
        } catch (ExecutionException e) {
            return assertInstanceOf(error, e.getCause());
        }
    }

    /** Asks until the answer is the expected one: metadata travels to the broker that answers. */
    static <T> void eventually(T expected, Callable<? extends T> question) throws Exception {
        eventually(expected, question, () -> "");
    }

    static <T> void eventually(T expected, Callable<? extends T> question, Supplier<String> more) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
        Object seen = null;
        do {
            try {
                seen = question.call();
                if (Objects.equals(seen, expected)) {
                    return;
                }
            } catch (ExecutionException e) {
                if (!(e.getCause() instanceof RetriableException)) {
                    throw e;
                }
                seen = e.getCause();
            }
            Thread.sleep(20);
        } while (System.nanoTime() < end);
        fail("not within " + DEADLINE_S + " s: " + clip(seen) + " instead of " + clip(expected) + more.get());
    }

    static String create(int partitions, Map<String, String> configs) throws Exception {
        String topic = name("java");
        get(admin().createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all());
        // On a cluster the leaders are known a moment later.
        eventually(partitions, () -> (int) get(admin().describeTopics(List.of(topic)).allTopicNames()).get(topic)
            .partitions().stream().filter(p -> p.leader() != null && !p.leader().isEmpty()).count());
        return topic;
    }

    static String create(int partitions) throws Exception {
        return create(partitions, Map.of());
    }

    static TopicPartition tp(String topic, int partition) {
        return new TopicPartition(topic, partition);
    }

    static List<TopicPartition> all(String topic, int partitions) {
        List<TopicPartition> found = new ArrayList<>();
        for (int p = 0; p < partitions; p++) {
            found.add(tp(topic, p));
        }
        return found;
    }

    static Map<String, Object> settings(Object... more) {
        Map<String, Object> made = new HashMap<>(Map.of("bootstrap.servers", server));
        for (int i = 0; i < more.length; i += 2) {
            made.put((String) more[i], String.valueOf(more[i + 1]));
        }
        return made;
    }

    static KafkaProducer<String, String> producer(Object... more) {
        Map<String, Object> made = settings("linger.ms", 5, "delivery.timeout.ms", 60000);
        made.putAll(settings(more));
        return new KafkaProducer<>(made, new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(Object... more) {
        Map<String, Object> made = settings("auto.offset.reset", "earliest", "enable.auto.commit", false,
            "default.api.timeout.ms", 30000, "group.protocol", "classic");
        made.putAll(settings(more));
        return new KafkaConsumer<>(made, new StringDeserializer(), new StringDeserializer());
    }

    /** Sends values from..until to one partition, without keys. */
    static List<RecordMetadata> send(KafkaProducer<String, String> producer, String topic, int partition, int from,
                                     int until) throws Exception {
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        for (int i = from; i < until; i++) {
            futures.add(producer.send(new ProducerRecord<>(topic, partition, null, "" + i)));
        }
        List<RecordMetadata> done = new ArrayList<>();
        for (Future<RecordMetadata> future : futures) {
            done.add(get(future));
        }
        return done;
    }

    static void produce(String topic, int partition, int from, int until) throws Exception {
        try (KafkaProducer<String, String> producer = producer()) {
            send(producer, topic, partition, from, until);
        }
    }

    static List<ConsumerRecord<String, String>> poll(KafkaConsumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> seen = new ArrayList<>();
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
        while (seen.size() < count) {
            if (System.nanoTime() > end) {
                fail("not within " + DEADLINE_S + " s: " + count + " records; " + clip(values(seen)));
            }
            consumer.poll(TICK).forEach(seen::add);
        }
        return seen;
    }

    /** Everything from the beginning of a partition to its end, as the isolation level sees it. */
    static List<String> read(String topic, int partition, String isolation) throws Exception {
        try (KafkaConsumer<String, String> consumer = consumer("isolation.level", isolation)) {
            TopicPartition part = tp(topic, partition);
            consumer.assign(List.of(part));
            consumer.seekToBeginning(List.of(part));
            long end = consumer.endOffsets(List.of(part)).get(part);
            List<String> seen = new ArrayList<>();
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
            while (consumer.position(part) < end) {
                consumer.poll(TICK).forEach(record -> seen.add(record.value()));
                if (System.nanoTime() > deadline) {
                    fail("at " + consumer.position(part) + " instead of " + end + " after " + DEADLINE_S + " s");
                }
            }
            return seen;
        }
    }

    /** What is committed. A commit is answered before its markers are written: waits a moment for those. */
    static List<String> committed(String topic, int partition) throws Exception {
        TopicPartition part = tp(topic, partition);
        var latest = Map.of(part, org.apache.kafka.clients.admin.OffsetSpec.latest());
        for (int i = 0; i < 40; i++) {
            long high = get(admin().listOffsets(latest).partitionResult(part)).offset();
            long stable = get(admin().listOffsets(latest, new org.apache.kafka.clients.admin.ListOffsetsOptions(
                org.apache.kafka.common.IsolationLevel.READ_COMMITTED)).partitionResult(part)).offset();
            if (high == stable) {
                break;
            }
            Thread.sleep(50);
        }
        return read(topic, partition, "read_committed");
    }

    static List<String> values(List<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).toList();
    }

    static List<String> numbers(int from, int until) {
        List<String> made = new ArrayList<>();
        for (int i = from; i < until; i++) {
            made.add("" + i);
        }
        return made;
    }

    static long end(String topic, int partition) throws Exception {
        return offset(topic, partition, org.apache.kafka.clients.admin.OffsetSpec.latest());
    }

    static long offset(String topic, int partition, org.apache.kafka.clients.admin.OffsetSpec which) throws Exception {
        return get(admin().listOffsets(Map.of(tp(topic, partition), which)).partitionResult(tp(topic, partition))).offset();
    }

    static void alter(ConfigResource resource, AlterConfigOp.OpType type, String key, String value) throws Exception {
        get(admin().incrementalAlterConfigs(
            Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(key, value), type)))).all());
    }

    static void same(Object expected, Object seen) {
        assertEquals(expected, seen);
    }
}
