import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka's own Java client against a broker: java Interop HOST:PORT */
public final class Interop {
    private static final long DEADLINE_S = 60;
    private static final Duration TICK = Duration.ofMillis(100);
    private static String server;
    private static Admin admin;

    private interface Case {
        void run() throws Exception;
    }

    /** A key, a value and headers, any of them null. */
    private record Item(byte[] key, byte[] value, List<Map.Entry<String, byte[]>> headers, Long timestamp) {
        String text() {
            String all = headers.stream().map(h -> h.getKey() + "=" + Arrays.toString(h.getValue()))
                .collect(Collectors.joining(","));
            return Arrays.toString(key) + " " + Arrays.toString(value) + " " + all;
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 1) {
            System.err.println("usage: Interop HOST:PORT");
            System.exit(2);
        }
        server = arguments[0];
        Map<String, Case> cases = new java.util.LinkedHashMap<>();
        cases.put("admin", Interop::admin);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            cases.put("compression_" + codec, () -> compression(codec));
        }
        cases.put("acks", Interop::acks);
        cases.put("idempotent", Interop::idempotent);
        cases.put("log_append_time", Interop::logAppendTime);
        cases.put("too_large", Interop::tooLarge);
        cases.put("compacted_needs_keys", Interop::compactedNeedsKeys);
        for (Class<?> assignor : List.of(RangeAssignor.class, StickyAssignor.class, CooperativeStickyAssignor.class)) {
            cases.put("group_rebalance_" + assignor.getSimpleName(), () -> rebalance(assignor.getName()));
        }
        cases.put("static_member", Interop::staticMember);
        cases.put("commit_and_resume", Interop::commitAndResume);
        cases.put("time_lookup", Interop::timeLookup);
        cases.put("group_admin", Interop::groupAdmin);
        cases.put("delete_records", Interop::deleteRecords);
        long begin = System.nanoTime();
        try (Admin client = Admin.create(Map.of("bootstrap.servers", server, "default.api.timeout.ms", "30000"))) {
            admin = client;
            for (Map.Entry<String, Case> entry : cases.entrySet()) {
                long start = System.nanoTime();
                try {
                    entry.getValue().run();
                } catch (Throwable error) {
                    error.printStackTrace();
                    System.out.println("FAILED " + entry.getKey() + ": " + error);
                    System.out.flush();
                    Runtime.getRuntime().halt(1);
                }
                System.out.printf("ok %s (%.2f s)%n", entry.getKey(), (System.nanoTime() - start) / 1e9);
            }
        }
        System.out.println(cases.size() + " passed, 0 failed");
        System.out.printf("done in %.1f s%n", (System.nanoTime() - begin) / 1e9);
        System.exit(0);
    }

    // ---- helpers

    private static String name(String what) {
        return what + "-" + UUID.randomUUID().toString().substring(0, 13);
    }

    private static void equal(Object seen, Object expected, String what) {
        if (!java.util.Objects.equals(seen, expected)) {
            throw new AssertionError(what + ": " + clip(seen) + " instead of " + clip(expected));
        }
    }

    private static String clip(Object value) {
        String text = String.valueOf(value);
        return text.length() > 600 ? text.substring(0, 600) + "…" : text;
    }

    private static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(DEADLINE_S, TimeUnit.SECONDS);
    }

    private static void refused(Class<? extends Throwable> error, KafkaFuture<?> future) throws Exception {
        try {
            get(future);
        } catch (ExecutionException e) {
            if (error.isInstance(e.getCause())) {
                return;
            }
            throw e;
        }
        throw new AssertionError("the broker accepted what it had to refuse with " + error.getSimpleName());
    }

    private static void until(BooleanSupplier condition, java.util.function.Supplier<String> what) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > end) {
                throw new AssertionError("not within " + DEADLINE_S + " s: " + what.get());
            }
            Thread.sleep(5);
        }
    }

    private interface Question {
        Object ask() throws Exception;
    }

    /** Asks until the answer is the expected one: metadata travels to the broker that answers. */
    private static void eventually(Question question, Object expected, String what) throws Exception {
        Object[] seen = new Object[1];
        until(() -> {
            try {
                seen[0] = question.ask();
            } catch (ExecutionException e) {
                if (!(e.getCause() instanceof org.apache.kafka.common.errors.RetriableException)) {
                    throw new AssertionError(e);
                }
                seen[0] = e;
            } catch (Exception e) {
                throw new AssertionError(e);
            }
            return java.util.Objects.equals(seen[0], expected);
        }, () -> what + ": " + clip(seen[0]) + " instead of " + clip(expected));
    }

    private static Config configOf(ConfigResource resource) throws Exception {
        return get(admin.describeConfigs(List.of(resource)).all()).get(resource);
    }

    private static int partitionsOf(String topic) throws Exception {
        return get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size();
    }

    private static String create(int partitions, Map<String, String> configs) throws Exception {
        String topic = name("java");
        get(admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all());
        return topic;
    }

    private static String create(int partitions) throws Exception {
        return create(partitions, Map.of());
    }

    private static List<Item> items(int count, int big) {
        List<Item> made = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            byte[] key = i % 7 == 3 ? null : i % 7 == 5 ? new byte[0] : ("key-" + i).getBytes();
            byte[] value = i % 11 == 5 ? new byte[0] : i % 11 == 7 ? null : bytes(i * 3, i);
            List<Map.Entry<String, byte[]>> headers = new ArrayList<>();
            if (i % 3 == 0) {
                headers.add(Map.entry("h", new byte[] {1}));
                headers.add(Map.entry("h", new byte[] {2}));
                headers.add(Map.entry("empty", new byte[0]));
                headers.add(new java.util.AbstractMap.SimpleEntry<>("null", null));
            }
            made.add(new Item(key, value, headers, null));
        }
        made.add(new Item("big".getBytes(), bytes(big, 7), List.of(Map.entry("größe", new byte[] {-1})), null));
        return made;
    }

    private static byte[] bytes(int length, int seed) {
        byte[] made = new byte[length];
        for (int i = 0; i < length; i++) {
            made[i] = (byte) (seed * 31 + i);
        }
        return made;
    }

    private static List<Item> plain(int count) {
        List<Item> made = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            made.add(new Item(null, ("" + i).getBytes(), List.of(), null));
        }
        return made;
    }

    private static List<RecordMetadata> produce(String topic, List<Item> items, Integer partition,
                                                Map<String, String> config) throws Exception {
        Properties properties = new Properties();
        properties.putAll(Map.of("bootstrap.servers", server, "linger.ms", "5", "delivery.timeout.ms", "35000",
            "key.serializer", ByteArraySerializer.class.getName(),
            "value.serializer", ByteArraySerializer.class.getName()));
        properties.putAll(config);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties)) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (Item item : items) {
                ProducerRecord<byte[], byte[]> record =
                    new ProducerRecord<>(topic, partition, item.timestamp(), item.key(), item.value());
                item.headers().forEach(h -> record.headers().add(h.getKey(), h.getValue()));
                futures.add(producer.send(record));
            }
            List<RecordMetadata> done = new ArrayList<>();
            for (Future<RecordMetadata> future : futures) {
                done.add(future.get(DEADLINE_S, TimeUnit.SECONDS));
            }
            return done;
        }
    }

    private static void produce(String topic, int count, int partition) throws Exception {
        produce(topic, plain(count), partition, Map.of());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String group, Map<String, String> config) {
        Properties properties = new Properties();
        properties.putAll(Map.of("bootstrap.servers", server, "auto.offset.reset", "earliest",
            "enable.auto.commit", "false", "default.api.timeout.ms", "30000", "group.protocol", "classic",
            "key.deserializer", ByteArrayDeserializer.class.getName(),
            "value.deserializer", ByteArrayDeserializer.class.getName()));
        if (group != null) {
            properties.put("group.id", group);
        }
        properties.putAll(config);
        return new KafkaConsumer<>(properties);
    }

    private static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> seen = new ArrayList<>();
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
        while (seen.size() < count) {
            if (System.nanoTime() > end) {
                throw new AssertionError("not within " + DEADLINE_S + " s: " + count + " records, " + seen.size());
            }
            consumer.poll(TICK).forEach(seen::add);
        }
        return seen;
    }

    private static List<ConsumerRecord<byte[], byte[]>> consume(String topic, int count, int partitions,
                                                                Map<String, String> config) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(null, config)) {
            List<TopicPartition> parts = new ArrayList<>();
            for (int p = 0; p < partitions; p++) {
                parts.add(new TopicPartition(topic, p));
            }
            consumer.assign(parts);
            return poll(consumer, count);
        }
    }

    private static String text(ConsumerRecord<byte[], byte[]> record) {
        List<Map.Entry<String, byte[]>> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            headers.add(new java.util.AbstractMap.SimpleEntry<>(header.key(), header.value()));
        }
        return new Item(record.key(), record.value(), headers, null).text();
    }

    private static List<String> texts(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(Interop::text).collect(Collectors.toList());
    }

    // ---- cases

    private static void admin() throws Exception {
        String topic = name("java");
        NewTopic wanted = new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", "7200000"));
        CreateTopicsResult made = admin.createTopics(List.of(wanted));
        get(made.all());
        equal(get(made.numPartitions(topic)), 3, "partitions in the answer");
        equal(get(made.config(topic)).get("retention.ms").value(), "7200000", "retention.ms in the answer");
        equal(get(made.topicId(topic)) != null, true, "the topic's id");
        refused(TopicExistsException.class, admin.createTopics(List.of(wanted)).all());
        refused(InvalidTopicException.class, admin.createTopics(List.of(new NewTopic("no/such name", 1, (short) 1))).all());
        refused(InvalidReplicationFactorException.class,
            admin.createTopics(List.of(new NewTopic(name("x"), 1, (short) 99))).all());
        refused(InvalidConfigurationException.class, admin.createTopics(
            List.of(new NewTopic(name("x"), 1, (short) 1).configs(Map.of("no.such.config", "1")))).all());
        String defaults = name("defaults");
        get(admin.createTopics(List.of(new NewTopic(defaults, Optional.empty(), Optional.empty()))).all());
        eventually(() -> get(admin.listTopics().names()).containsAll(Set.of(topic, defaults)), true, "the topics listed");
        TopicDescription described = get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
        equal(described.partitions().size(), 3, "partitions");
        equal(described.partitions().get(0).isr().size(), 1, "in-sync replicas");
        equal(get(admin.describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(described.topicId())))
            .allTopicIds()).get(described.topicId()).name(), topic, "the topic by its id");
        equal(get(admin.describeCluster().nodes()).size() >= 1, true, "nodes");
        equal(get(admin.describeCluster().clusterId()) != null, true, "the cluster's id");
        equal(get(admin.describeCluster().controller()) != null, true, "the controller");

        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config config = configOf(resource);
        equal(config.get("retention.ms").value(), "7200000", "retention.ms");
        equal(config.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "its source");
        equal(config.get("cleanup.policy").value(), "delete", "cleanup.policy");
        equal(config.get("cleanup.policy").isDefault(), true, "a default");
        equal(config.get("cleanup.policy").type(), ConfigEntry.ConfigType.LIST, "its type");
        get(admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "3600000"), AlterConfigOp.OpType.SET),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND)))).all());
        eventually(() -> configOf(resource).get("retention.ms").value(), "3600000", "retention.ms after the change");
        equal(configOf(resource).get("cleanup.policy").value(), "delete,compact", "cleanup.policy after the change");
        get(admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", null), AlterConfigOp.OpType.DELETE),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "delete"), AlterConfigOp.OpType.SUBTRACT)))).all());
        eventually(() -> configOf(resource).get("retention.ms").value(), "604800000", "retention.ms back at its default");
        equal(configOf(resource).get("cleanup.policy").value(), "compact", "cleanup.policy after the subtraction");
        refused(InvalidConfigurationException.class, admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), AlterConfigOp.OpType.SET)))).all());

        get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all());
        eventually(() -> partitionsOf(topic), 5, "partitions after adding");
        refused(InvalidPartitionsException.class, admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all());
        get(admin.deleteTopics(List.of(topic, defaults)).all());
        eventually(() -> get(admin.listTopics().names()).contains(topic), false, "the topic is still listed");
        refused(UnknownTopicOrPartitionException.class, admin.deleteTopics(List.of(topic)).all());
    }

    private static void compression(String codec) throws Exception {
        String topic = create(1);
        List<Item> sent = items(120, 200_000);
        List<RecordMetadata> where = produce(topic, sent, null, Map.of("compression.type", codec, "batch.size", "3000"));
        for (int i = 0; i < where.size(); i++) {
            equal(where.get(i).offset(), (long) i, "offsets");
        }
        equal(texts(consume(topic, sent.size(), 1, Map.of())),
            sent.stream().map(Item::text).collect(Collectors.toList()), "records");
        String recoded = create(1, Map.of("compression.type", codec.equals("none") ? "uncompressed" : codec));
        produce(recoded, sent, null, Map.of("compression.type", "gzip"));
        equal(texts(consume(recoded, sent.size(), 1, Map.of())),
            sent.stream().map(Item::text).collect(Collectors.toList()), "records of a topic with its own compression");
    }

    private static void acks() throws Exception {
        for (String acks : List.of("0", "1", "all")) {
            String topic = create(1);
            List<Item> sent = items(40, 1_000);
            produce(topic, sent, null, Map.of("acks", acks, "enable.idempotence", "false"));
            equal(texts(consume(topic, sent.size(), 1, Map.of())),
                sent.stream().map(Item::text).collect(Collectors.toList()), "records with acks=" + acks);
        }
    }

    private static void idempotent() throws Exception {
        String topic = create(3);
        List<Item> sent = items(500, 1_000);
        List<RecordMetadata> where = produce(topic, sent, null,
            Map.of("enable.idempotence", "true", "batch.size", "200", "max.in.flight.requests.per.connection", "5"));
        equal(where.stream().map(m -> m.partition() + "-" + m.offset()).distinct().count(), (long) sent.size(),
            "distinct positions");
        equal(texts(consume(topic, sent.size(), 3, Map.of("isolation.level", "read_committed"))).stream().sorted().toList(),
            sent.stream().map(Item::text).sorted().toList(), "records");
    }

    private static void logAppendTime() throws Exception {
        String topic = create(1, Map.of("message.timestamp.type", "LogAppendTime"));
        long before = System.currentTimeMillis();
        List<RecordMetadata> where = produce(topic,
            List.of(new Item(null, new byte[] {1}, List.of(), 1_600_000_000_000L)), 0, Map.of());
        equal(where.get(0).timestamp() >= before, true, "the time in the answer");
        ConsumerRecord<byte[], byte[]> record = consume(topic, 1, 1, Map.of()).get(0);
        equal(record.timestampType().name, "LogAppendTime", "the kind of time");
        equal(record.timestamp(), where.get(0).timestamp(), "the time of the record");
    }

    private static void tooLarge() throws Exception {
        String topic = create(1, Map.of("max.message.bytes", "20000"));
        try {
            produce(topic, List.of(new Item(null, new byte[50_000], List.of(), null)), 0, Map.of());
            throw new AssertionError("a record larger than max.message.bytes was accepted");
        } catch (ExecutionException e) {
            equal(e.getCause().getClass(), RecordTooLargeException.class, "the error");
        }
        produce(topic, 1, 0);
    }

    private static void compactedNeedsKeys() throws Exception {
        String topic = create(1, Map.of("cleanup.policy", "compact"));
        try {
            produce(topic, 1, 0);
            throw new AssertionError("a record without a key was accepted by a compacted topic");
        } catch (ExecutionException e) {
            equal(e.getCause().getClass().getSimpleName(), "InvalidRecordException", "the error");
        }
    }

    /** A member of a group that reads until it is told to leave. */
    private static final class Member extends Thread implements ConsumerRebalanceListener {
        final Set<String> seen = ConcurrentHashMap.newKeySet();
        volatile Set<Integer> assigned = Set.of();
        volatile int read;
        volatile boolean leave;
        volatile Throwable error;
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final Map<TopicPartition, OffsetAndMetadata> done = new HashMap<>();

        Member(String group, String topic, String assignor) {
            setDaemon(true);
            consumer = consumer(group, Map.of("partition.assignment.strategy", assignor,
                "session.timeout.ms", "10000", "heartbeat.interval.ms", "300"));
            consumer.subscribe(List.of(topic), this);
        }

        private void commit() {
            if (!done.isEmpty()) {
                consumer.commitSync(done);
            }
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> parts) {
            commit();
            parts.forEach(done::remove);
            show();
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> parts) {
            show();
        }

        private void show() {
            assigned = consumer.assignment().stream().map(TopicPartition::partition).collect(Collectors.toSet());
        }

        @Override
        public void run() {
            try {
                while (!leave) {
                    consumer.poll(TICK).forEach(record -> {
                        seen.add(record.partition() + ":" + record.offset());
                        read++;
                        done.put(new TopicPartition(record.topic(), record.partition()),
                            new OffsetAndMetadata(record.offset() + 1));
                    });
                    show();
                }
                commit();
                consumer.close();
            } catch (Throwable e) {
                error = e;
            }
        }
    }

    private static void wait(List<Member> members, BooleanSupplier condition, String what) throws Exception {
        until(() -> {
            members.forEach(m -> {
                if (m.error != null) {
                    throw new AssertionError(m.error);
                }
            });
            return condition.getAsBoolean();
        }, () -> what + "; assigned " + members.stream().map(m -> m.assigned.toString()).toList()
            + ", read " + members.stream().map(m -> m.read).toList());
    }

    private static Set<String> positions(int partitions, int count) {
        Set<String> all = new HashSet<>();
        for (int p = 0; p < partitions; p++) {
            for (int o = 0; o < count; o++) {
                all.add(p + ":" + o);
            }
        }
        return all;
    }

    private static Set<String> both(Member a, Member b) {
        Set<String> all = new HashSet<>(a.seen);
        all.addAll(b.seen);
        return all;
    }

    private static void rebalance(String assignor) throws Exception {
        int parts = 4;
        String topic = create(parts);
        String group = name("group");
        for (int p = 0; p < parts; p++) {
            produce(topic, 50, p);
        }
        Member first = new Member(group, topic, assignor);
        first.start();
        wait(List.of(first), () -> first.assigned.size() == 4 && first.read == 200, "one member to read all");
        Member second = new Member(group, topic, assignor);
        second.start();
        List<Member> members = List.of(first, second);
        wait(members, () -> first.assigned.size() == 2 && second.assigned.size() == 2
            && Collections.disjoint(first.assigned, second.assigned), "two partitions each");
        for (int p = 0; p < parts; p++) {
            produce(topic, 50, p);
        }
        wait(members, () -> both(first, second).equals(positions(parts, 100)), "both to read all between them");
        equal(first.read + second.read, 400, "records read, none twice");
        first.leave = true;
        first.join(DEADLINE_S * 1000);
        wait(List.of(second), () -> second.assigned.size() == 4, "the partitions of the member that left");
        for (int p = 0; p < parts; p++) {
            produce(topic, 1, p);
        }
        wait(List.of(second), () -> both(first, second).equals(positions(parts, 101)), "the last records");
        second.leave = true;
        second.join(DEADLINE_S * 1000);
        wait(members, () -> true, "the members' own errors");
    }

    private static void staticMember() throws Exception {
        String topic = create(1);
        String group = name("group");
        produce(topic, 10, 0);
        Map<String, String> config = Map.of("group.instance.id", "the-one", "session.timeout.ms", "10000");
        KafkaConsumer<byte[], byte[]> old = consumer(group, config);
        old.subscribe(List.of(topic));
        poll(old, 10);
        old.commitSync();
        ConsumerGroupDescription before = get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
        equal(before.members().iterator().next().groupInstanceId(), Optional.of("the-one"), "the instance's id");
        // A static member that closes does not leave: the one that comes back takes its place at once.
        old.close();
        try (KafkaConsumer<byte[], byte[]> back = consumer(group, config)) {
            back.subscribe(List.of(topic));
            produce(topic, 5, 0);
            equal(poll(back, 5).get(0).offset(), 10L, "the offset after coming back");
            equal(get(admin.describeConsumerGroups(List.of(group)).all()).get(group).members().size(), 1, "members");
        }
    }

    private static void commitAndResume() throws Exception {
        String topic = create(1);
        String group = name("group");
        TopicPartition part = new TopicPartition(topic, 0);
        produce(topic, 100, 0);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(group, Map.of("max.poll.records", "10"))) {
            consumer.subscribe(List.of(topic));
            poll(consumer, 40);
            consumer.commitSync(Map.of(part, new OffsetAndMetadata(40, Optional.of(0), "half-way")));
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(group, Map.of())) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<byte[], byte[]>> seen = poll(consumer, 60);
            equal(seen.get(0).offset(), 40L, "the offset after resuming");
            equal(seen.size(), 60, "records after resuming");
            OffsetAndMetadata committed = consumer.committed(Set.of(part)).get(part);
            equal(committed, new OffsetAndMetadata(40, Optional.of(0), "half-way"), "the committed offset");
        }
        try (KafkaConsumer<byte[], byte[]> never = consumer(name("never"), Map.of())) {
            equal(never.committed(Set.of(part)).get(part), null, "no offset was committed");
        }
    }

    private static void timeLookup() throws Exception {
        String topic = create(1);
        TopicPartition part = new TopicPartition(topic, 0);
        List<Item> sent = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            sent.add(new Item(null, new byte[] {1}, List.of(), 1_600_000_000_000L + i * 1000));
        }
        produce(topic, sent, 0, Map.of());
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(null, Map.of())) {
            equal(consumer.offsetsForTimes(Map.of(part, 1_600_000_004_500L)).get(part).offset(), 5L, "between two");
            equal(consumer.offsetsForTimes(Map.of(part, 1_600_000_000_000L)).get(part).offset(), 0L, "the first");
            equal(consumer.offsetsForTimes(Map.of(part, 1_700_000_000_000L)).get(part), null, "past the end");
            equal(consumer.beginningOffsets(Set.of(part)).get(part), 0L, "beginning");
            equal(consumer.endOffsets(Set.of(part)).get(part), 20L, "end");
        }
        equal(get(admin.listOffsets(Map.of(part, OffsetSpec.maxTimestamp())).all()).get(part).offset(), 19L, "max time");
        equal(get(admin.listOffsets(Map.of(part, OffsetSpec.latest())).all()).get(part).offset(), 20L, "latest");
        equal(get(admin.listOffsets(Map.of(part, OffsetSpec.earliest())).all()).get(part).offset(), 0L, "earliest");
        equal(get(admin.listOffsets(Map.of(part, OffsetSpec.forTimestamp(1_600_000_010_000L))).all()).get(part).offset(),
            10L, "by time");
    }

    private static void groupAdmin() throws Exception {
        String topic = create(2);
        String group = name("group");
        produce(topic, 10, 0);
        produce(topic, 10, 1);
        Member member = new Member(group, topic, RangeAssignor.class.getName());
        member.start();
        wait(List.of(member), () -> member.read == 20, "the member to read");
        ConsumerGroupDescription described = get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
        equal(described.groupState().toString(), "Stable", "state");
        equal(described.members().size(), 1, "members");
        equal(described.members().iterator().next().assignment().topicPartitions().size(), 2, "its assignment");
        refused(GroupNotEmptyException.class, admin.deleteConsumerGroups(List.of(group)).all());
        member.leave = true;
        member.join(DEADLINE_S * 1000);
        wait(List.of(member), () -> true, "the member's own error");
        Collection<GroupListing> listed = get(admin.listGroups(ListGroupsOptions.forConsumerGroups()).all());
        equal(listed.stream().anyMatch(g -> g.groupId().equals(group)), true, "the group is listed");
        equal(offsets(group), new TreeMap<>(Map.of(0, 10L, 1, 10L)), "its offsets");
        get(admin.alterConsumerGroupOffsets(group,
            Map.of(new TopicPartition(topic, 1), new OffsetAndMetadata(3))).all());
        equal(offsets(group), new TreeMap<>(Map.of(0, 10L, 1, 3L)), "altered offsets");
        get(admin.deleteConsumerGroupOffsets(group, Set.of(new TopicPartition(topic, 1))).all());
        equal(offsets(group), new TreeMap<>(Map.of(0, 10L)), "offsets after one was deleted");
        get(admin.deleteConsumerGroups(List.of(group)).all());
        listed = get(admin.listGroups().all());
        equal(listed.stream().anyMatch(g -> g.groupId().equals(group)), false, "the deleted group is listed");
    }

    private static Map<Integer, Long> offsets(String group) throws Exception {
        Map<Integer, Long> found = new TreeMap<>();
        get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata())
            .forEach((part, offset) -> found.put(part.partition(), offset.offset()));
        return found;
    }

    private static void deleteRecords() throws Exception {
        String topic = create(1);
        TopicPartition part = new TopicPartition(topic, 0);
        produce(topic, 30, 0);
        equal(get(admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(12))).lowWatermarks().get(part))
            .lowWatermark(), 12L, "low watermark");
        List<ConsumerRecord<byte[], byte[]>> left = consume(topic, 18, 1, Map.of());
        equal(new TreeSet<>(left.stream().map(ConsumerRecord::offset).toList()).first(), 12L, "the first offset left");
        refused(OffsetOutOfRangeException.class,
            admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(99))).all());
    }
}
