import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.junit.jupiter.api.Test;

/** Apache Kafka's command-line tools. */
class ToolsTest {
    private static String topic(int partitions, String... config) throws Exception {
        String topic = Support.name("tool");
        List<String> all = new ArrayList<>(List.of("--create", "--topic", topic, "--partitions", "" + partitions));
        for (String each : config) {
            all.add("--config");
            all.add(each);
        }
        Tools.run(Tools.TOPICS, all.toArray(String[]::new)).must("Created topic " + topic + ".");
        return topic;
    }

    private static void produce(String topic, int partition, int from, int until) throws Exception {
        Support.eventually(true, () -> Tools.run(Tools.TOPICS, "--list").has(topic));
        Support.produce(topic, partition, from, until);
    }

    /** A group without members that stands at 10 of 20. */
    private static String group(String topic) throws Exception {
        String group = Support.name("g");
        Support.get(Support.admin().alterConsumerGroupOffsets(group,
            Map.of(Support.tp(topic, 0), new OffsetAndMetadata(10))).all());
        return group;
    }

    /** The time of the first record of a topic of twenty, a second each; on a whole second, so that dates can say it. */
    private static final long BASE = System.currentTimeMillis() / 1000 * 1000 - 7_200_000;

    private static String topicOfTwenty() throws Exception {
        String topic = topic(1);
        try (KafkaProducer<String, String> producer = Support.producer()) {
            Support.eventually(true, () -> Tools.run(Tools.TOPICS, "--list").has(topic));
            for (long i = 0; i < 20; i++) {
                Support.get(producer.send(new ProducerRecord<>(topic, 0, BASE + i * 1000, null, "" + i)));
            }
        }
        return topic;
    }

    // ---- kafka-topics

    @Test
    void topicsCreateListDescribe() throws Exception {
        String topic = topic(3, "retention.ms=3600000", "cleanup.policy=compact,delete");
        Tools.eventually(() -> Tools.run(Tools.TOPICS, "--list").said().lines().anyMatch(topic::equals));
        Tools.Ended seen = Tools.run(Tools.TOPICS, "--describe", "--topic", topic);
        seen.must("PartitionCount: 3\tReplicationFactor: 1");
        seen.must("cleanup.policy=compact,delete");
        seen.must("retention.ms=3600000");
        assertEquals(3, seen.count("Leader: "));
        Tools.refused("already exists", Tools.TOPICS, "--create", "--topic", topic);
        Tools.run(Tools.TOPICS, "--create", "--topic", topic, "--if-not-exists");
    }

    @Test
    void topicsAlterDelete() throws Exception {
        String topic = topic(1);
        Tools.eventually(() -> Tools.run(Tools.TOPICS, "--list").has(topic));
        Tools.run(Tools.TOPICS, "--alter", "--topic", topic, "--partitions", "4");
        Tools.eventually(() -> Tools.run(Tools.TOPICS, "--describe", "--topic", topic).has("PartitionCount: 4"));
        Tools.refused("currently has 4 partition(s)", Tools.TOPICS, "--alter", "--topic", topic, "--partitions", "2");
        Tools.run(Tools.TOPICS, "--delete", "--topic", topic);
        Tools.eventually(() -> !Tools.run(Tools.TOPICS, "--list").has(topic));
        Tools.refused("does not exist", Tools.TOPICS, "--describe", "--topic", topic);
        Tools.run(Tools.TOPICS, "--delete", "--topic", topic, "--if-exists");
    }

    @Test
    void topicsFiltersOfDescribe() throws Exception {
        String topic = topic(1, "min.insync.replicas=1");
        Tools.eventually(() -> Tools.run(Tools.TOPICS, "--list").has(topic));
        Tools.run(Tools.TOPICS, "--describe", "--under-replicated-partitions").mustNot(topic);
        Tools.run(Tools.TOPICS, "--describe", "--unavailable-partitions").mustNot(topic);
        Tools.run(Tools.TOPICS, "--describe", "--under-min-isr-partitions").mustNot(topic);
        Tools.run(Tools.TOPICS, "--describe", "--at-min-isr-partitions").must(topic);
        Tools.run(Tools.TOPICS, "--describe", "--topics-with-overrides").must(topic);
        Tools.run(Tools.TOPICS, "--list", "--exclude-internal").mustNot("__consumer_offsets");
        String id = Tools.run(Tools.TOPICS, "--describe", "--topic", topic).said().split("TopicId: ")[1].split("\t")[0];
        Tools.run(Tools.TOPICS, "--describe", "--topic-id", id).must(topic);
    }

    @Test
    void topicsAssignments() throws Exception {
        String topic = Support.name("tool");
        Tools.run(Tools.TOPICS, "--create", "--topic", topic, "--replica-assignment", "1,1");
        Tools.eventually(() -> Tools.any(Tools.TOPICS, "--describe", "--topic", topic).count("Replicas: 1") == 2);
        Tools.refused("no such broker is registered", Tools.TOPICS, "--create", "--topic", topic + "-x", "--replica-assignment", "4711");
    }

    // ---- kafka-configs

    @Test
    void configsOfTopics() throws Exception {
        String topic = topic(1, "retention.ms=3600000");
        String[] entity = {"--entity-type", "topics", "--entity-name", topic};
        Tools.eventually(() -> Tools.run(Tools.TOPICS, "--list").has(topic));
        Tools.run(Tools.CONFIGS, Tools.before(entity, "--alter", "--add-config", "retention.ms=7200000,segment.bytes=2000000"))
            .must("Completed updating config for topic " + topic);
        Tools.eventually(() -> Tools.run(Tools.CONFIGS, Tools.before(entity, "--describe")).has(
            "retention.ms=7200000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=7200000}"));
        Tools.run(Tools.CONFIGS, Tools.before(entity, "--alter", "--delete-config", "segment.bytes"));
        Tools.eventually(() -> !Tools.run(Tools.CONFIGS, Tools.before(entity, "--describe")).has("segment.bytes"));
        assertTrue(Tools.run(Tools.CONFIGS, Tools.before(entity, "--describe", "--all")).count("sensitive=false") > 25);
        Tools.run(Tools.CONFIGS, Tools.before(entity, "--alter", "--add-config", "cleanup.policy=[compact,delete]"));
        Tools.eventually(() -> Tools.run(Tools.CONFIGS, Tools.before(entity, "--describe")).has("cleanup.policy=compact,delete"));
        Tools.refused("nvalid", Tools.CONFIGS, Tools.before(entity, "--alter", "--add-config", "retention.ms=soon"));
        Tools.run(Tools.CONFIGS, "--alter", "--topic", topic, "--add-config-file",
            Tools.file("retention.ms=1800000\nmax.message.bytes=5000\n"));
        Tools.eventually(() -> Tools.run(Tools.CONFIGS, "--describe", "--topic", topic).has("max.message.bytes=5000"));
    }

    @Test
    void configsOfBrokers() throws Exception {
        String[] one = {"--entity-type", "brokers", "--entity-name", "1"};
        String[] all = {"--entity-type", "brokers", "--entity-default"};
        Tools.run(Tools.CONFIGS, Tools.before(one, "--describe", "--all")).must("socket.request.max.bytes=104857600");
        Tools.run(Tools.CONFIGS, Tools.before(all, "--alter", "--add-config", "log.cleaner.backoff.ms=14000"));
        try {
            Tools.eventually(() -> Tools.run(Tools.CONFIGS, Tools.before(all, "--describe")).has("log.cleaner.backoff.ms=14000"));
            Tools.run(Tools.CONFIGS, Tools.before(one, "--alter", "--add-config", "log.cleaner.backoff.ms=13000"));
            Tools.eventually(() -> Tools.run(Tools.CONFIGS, Tools.before(one, "--describe")).has(
                "log.cleaner.backoff.ms=13000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:log.cleaner.backoff.ms=13000, "
                + "DYNAMIC_DEFAULT_BROKER_CONFIG:log.cleaner.backoff.ms=14000, DEFAULT_CONFIG:log.cleaner.backoff.ms=15000}"));
        } finally {
            Tools.any(Tools.CONFIGS, Tools.before(one, "--alter", "--delete-config", "log.cleaner.backoff.ms"));
            Tools.any(Tools.CONFIGS, Tools.before(all, "--alter", "--delete-config", "log.cleaner.backoff.ms"));
        }
        Tools.refused("annot update", Tools.CONFIGS, Tools.before(one, "--alter", "--add-config", "log.dirs=/nowhere"));
    }

    @Test
    void configsOfGroups() throws Exception {
        String group = Support.name("g");
        String[] entity = {"--entity-type", "groups", "--entity-name", group};
        Tools.run(Tools.CONFIGS, Tools.before(entity, "--alter", "--add-config", "consumer.session.timeout.ms=50000"));
        Tools.eventually(() -> Tools.run(Tools.CONFIGS, Tools.before(entity, "--describe")).has("consumer.session.timeout.ms=50000"));
        Tools.run(Tools.CONFIGS, Tools.before(entity, "--alter", "--delete-config", "consumer.session.timeout.ms"));
    }

    // ---- kafka-consumer-groups, kafka-groups

    @Test
    void groupsListAndDescribe() throws Exception {
        String topic = topicOfTwenty();
        String group = group(topic);
        assertEquals(List.of(group), Tools.run(Tools.GROUPS, "--list").line(group));
        assertEquals(List.of(group, "Classic", "Empty"), Tools.run(Tools.GROUPS, "--list", "--state", "--type").line(group)
            .subList(0, 3));
        Tools.run(Tools.GROUPS, "--list", "--state", "Empty").must(group);
        Tools.run(Tools.GROUPS, "--list", "--state", "Stable").mustNot(group);
        Tools.run(Tools.GROUPS, "--list", "--type", "consumer").mustNot(group);
        assertEquals(List.of("10", "20", "10"), Tools.run(Tools.GROUPS, "--describe", "--group", group).line(group, topic, "0")
            .subList(3, 6));
        assertEquals("Empty", Tools.run(Tools.GROUPS, "--describe", "--group", group, "--state").line(group).get(4));
        Tools.run(Tools.GROUPS, "--describe", "--group", group, "--members").must("has no active members");
        Tools.run(Tools.GROUPS, "--describe", "--all-groups").must(group);
        Tools.run(Tools.ALL_GROUPS, "--list").must(group);
        Tools.any(Tools.GROUPS, "--describe", "--group", Support.name("nobody")).must("not found");
    }

    private static void members(String protocol) throws Exception {
        String topic = topicOfTwenty();
        String group = Support.name("g");
        try (KafkaConsumer<String, String> consumer = Support.consumer("group.id", group, "group.protocol", protocol,
            "client.id", "first")) {
            consumer.subscribe(List.of(topic));
            Support.poll(consumer, 20);
            consumer.commitSync();
            List<String> offsets = Tools.run(Tools.GROUPS, "--describe", "--group", group).line(group, topic, "0");
            assertEquals(List.of("20", "20", "0"), offsets.subList(3, 6));
            assertEquals("first", offsets.get(8));
            List<String> member = Tools.run(Tools.GROUPS, "--describe", "--group", group, "--members").line(group);
            assertEquals("1", member.get(4));
            Tools.run(Tools.GROUPS, "--describe", "--group", group, "--members", "--verbose").must(topic);
            Tools.run(Tools.GROUPS, "--describe", "--group", group, "--state").must("Stable");
            Tools.run(Tools.GROUPS, "--describe", "--group", group, "--state", "--verbose").must(
                protocol.equals("classic") ? "range" : "uniform");
            Tools.run(Tools.ALL_GROUPS, "--list").must(protocol.equals("classic") ? "Classic" : "Consumer");
            Tools.any(Tools.GROUPS, "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
                .must("can only be reset if the group");
            Tools.any(Tools.GROUPS, "--delete", "--group", group).must("could not be deleted");
        }
    }

    @Test
    void groupsMembersOfAClassicGroup() throws Exception {
        members("classic");
    }

    @Test
    void groupsMembersOfANewGroup() throws Exception {
        members("consumer");
    }

    @Test
    void groupsResetOffsetsInAllWays() throws Exception {
        String topic = topicOfTwenty();
        String group = group(topic);
        Map<String[], Integer> ways = new java.util.LinkedHashMap<>();
        ways.put(new String[] {"--to-earliest"}, 0);
        ways.put(new String[] {"--to-latest"}, 20);
        ways.put(new String[] {"--to-offset", "7"}, 7);
        ways.put(new String[] {"--shift-by", "3"}, 10);
        ways.put(new String[] {"--shift-by", "-4"}, 6);
        ways.put(new String[] {"--to-current"}, 6);
        ways.put(new String[] {"--to-datetime", java.time.Instant.ofEpochMilli(BASE + 5000).toString().replace("Z", ".000")}, 5);
        ways.put(new String[] {"--by-duration", "PT1H"}, 20);
        ways.put(new String[] {"--to-offset", "1000"}, 20);
        ways.put(new String[] {"--shift-by", "-1000"}, 0);
        for (var way : ways.entrySet()) {
            String[] arguments = Tools.before(way.getKey(), "--reset-offsets", "--group", group, "--topic", topic, "--execute");
            // The tool warns of offsets beyond the log, and takes its ends.
            assertEquals("" + way.getValue(), Tools.any(Tools.GROUPS, arguments).line(group, topic, "0").get(3),
                String.join(" ", way.getKey()));
            assertEquals("" + way.getValue(), Tools.run(Tools.GROUPS, "--describe", "--group", group)
                .line(group, topic, "0").get(3), String.join(" ", way.getKey()));
        }
        // Nothing is done without --execute.
        Tools.run(Tools.GROUPS, "--reset-offsets", "--group", group, "--all-topics", "--to-latest", "--dry-run");
        assertEquals("0", Tools.run(Tools.GROUPS, "--describe", "--group", group).line(group, topic, "0").get(3));
        Tools.Ended exported = Tools.run(Tools.GROUPS, "--reset-offsets", "--group", group, "--topic", topic + ":0",
            "--to-offset", "4", "--export", "--dry-run");
        exported.must(topic + ",0,4");
        Tools.run(Tools.GROUPS, "--reset-offsets", "--group", group, "--from-file",
            Tools.file(topic + ",0,13\n"), "--execute");
        assertEquals("13", Tools.run(Tools.GROUPS, "--describe", "--group", group).line(group, topic, "0").get(3));
    }

    @Test
    void groupsDeleteOffsetsAndGroups() throws Exception {
        String topic = topicOfTwenty();
        String group = group(topic);
        assertEquals("Successful", Tools.run(Tools.GROUPS, "--delete-offsets", "--group", group, "--topic", topic)
            .line(topic, "0").get(2));
        String other = group(topic);
        Tools.run(Tools.GROUPS, "--delete", "--group", other).must("was successful");
        Tools.run(Tools.GROUPS, "--list").mustNot(other);
        Tools.any(Tools.GROUPS, "--delete", "--group", Support.name("nobody")).must("could not be deleted");
    }

    // ---- kafka-transactions

    private static KafkaProducer<String, String> open(String id, String topic) throws Exception {
        KafkaProducer<String, String> producer =
            Support.producer("transactional.id", id, "transaction.timeout.ms", 600_000);
        producer.initTransactions();
        producer.beginTransaction();
        Support.get(producer.send(new ProducerRecord<>(topic, 0, null, "open")));
        return producer;
    }

    @Test
    void transactionsListAndDescribe() throws Exception {
        String topic = topicOfTwenty();
        String id = Support.name("t");
        try (KafkaProducer<String, String> producer = open(id, topic)) {
            List<String> listed = Tools.run(Tools.TRANSACTIONS, "list").line(id);
            assertEquals("Ongoing", listed.get(3));
            Tools.run(Tools.TRANSACTIONS, "list", "--duration-filter", "3600000").mustNot(id);
            Tools.run(Tools.TRANSACTIONS, "list", "--transactional-id-pattern", id + ".*").must(id);
            Tools.Ended described = Tools.run(Tools.TRANSACTIONS, "describe", "--transactional-id", id);
            described.must("Ongoing");
            described.must(topic + "-0");
            described.must("600000");
            List<String> producers = Tools.run(Tools.TRANSACTIONS, "describe-producers", "--topic", topic, "--partition", "0")
                .line(listed.get(2));
            assertEquals("20", producers.get(producers.size() - 1));
            producer.commitTransaction();
            Tools.eventually(() -> Tools.run(Tools.TRANSACTIONS, "describe", "--transactional-id", id).has("CompleteCommit"));
        }
    }

    @Test
    void transactionsAbort() throws Exception {
        String topic = topicOfTwenty();
        KafkaProducer<String, String> producer = open(Support.name("t"), topic);
        try {
            Tools.run(Tools.TRANSACTIONS, "abort", "--topic", topic, "--partition", "0", "--start-offset", "20");
            Support.eventually(22L, () -> Support.end(topic, 0));
            assertEquals(Support.numbers(0, 20), Support.committed(topic, 0));
        } finally {
            producer.close(java.time.Duration.ZERO);
        }
    }

    @Test
    void transactionsFindHanging() throws Exception {
        String topic = topicOfTwenty();
        KafkaProducer<String, String> producer = open(Support.name("t"), topic);
        try {
            // It is open in its coordinator too, so it does not hang.
            Tools.run(Tools.TRANSACTIONS, "find-hanging", "--topic", topic, "--max-transaction-timeout", "0").mustNot(topic);
            Tools.run(Tools.TRANSACTIONS, "find-hanging", "--broker-id", "1");
        } finally {
            producer.close(java.time.Duration.ZERO);
        }
    }

    @Test
    void transactionsForceTerminate() throws Exception {
        String topic = topicOfTwenty();
        String id = Support.name("t");
        KafkaProducer<String, String> producer = open(id, topic);
        try {
            Tools.run(Tools.TRANSACTIONS, "forceTerminateTransaction", "--transactionalId", id);
            Tools.eventually(() -> Tools.run(Tools.TRANSACTIONS, "describe", "--transactional-id", id).has("Empty"));
        } finally {
            producer.close(java.time.Duration.ZERO);
        }
    }

    // ---- performance and verification

    @Test
    void perfProducer() throws Exception {
        String topic = topic(2);
        for (String[] more : new String[][] {{}, {"--payload-monotonic"}}) {
            String[] size = more.length == 0 ? new String[] {"--record-size", "100"} : more;
            Tools.bare("org.apache.kafka.tools.ProducerPerformance", Tools.before(size, "--topic", topic, "--num-records", "5000",
                "--throughput", "-1", "--bootstrap-server", Support.server)).must("5000 records sent");
        }
    }

    @Test
    void perfProducerWithTransactions() throws Exception {
        String topic = topic(1);
        Tools.bare("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", "3000", "--throughput",
            "3000", "--record-size", "50", "--transactional-id", Support.name("t"), "--transaction-duration-ms", "100",
            "--bootstrap-server", Support.server).must("3000 records sent");
        assertEquals(3000, Support.committed(topic, 0).size());
        assertTrue(Support.end(topic, 0) > 3003, "there is more than one marker");
    }

    @Test
    void perfConsumer() throws Exception {
        String topic = topic(1);
        produce(topic, 0, 0, 5000);
        for (String protocol : List.of("classic", "consumer")) {
            Tools.Ended seen = Tools.run("org.apache.kafka.tools.ConsumerPerformance", "--topic", topic, "--num-records", "5000",
                "--group", Support.name("g"), "--hide-header", "--command-config", Tools.file("group.protocol=" + protocol));
            assertTrue(seen.said().trim().split(", ")[4].equals("5000"), seen.said());
        }
    }

    @Test
    void perfShareConsumer() throws Exception {
        String topic = topic(1);
        String group = Support.name("s");
        produce(topic, 0, 0, 2000);
        Tools.run(Tools.CONFIGS, "--alter", "--entity-type", "groups", "--entity-name", group, "--add-config",
            "share.auto.offset.reset=earliest");
        Tools.Ended seen = Tools.run("org.apache.kafka.tools.ShareConsumerPerformance", "--topic", topic, "--num-records", "2000",
            "--group", group, "--hide-header");
        seen.must("2000");
    }

    @Test
    void endToEndLatency() throws Exception {
        String topic = topic(1);
        Tools.eventually(() -> Tools.run(Tools.TOPICS, "--list").has(topic));
        Tools.run("org.apache.kafka.tools.EndToEndLatency", "--topic", topic, "--num-records", "50", "--producer-acks", "all",
            "--record-size", "20").must("Percentiles:");
    }

    @Test
    void verifiableProducerAndConsumer() throws Exception {
        String topic = topic(2);
        Tools.process(60, "org.apache.kafka.tools.VerifiableProducer", "--topic", topic, "--max-messages", "500")
            .must("\"sent\":500,\"acked\":500");
        for (String protocol : List.of("classic", "consumer")) {
            Tools.process(60, "org.apache.kafka.tools.VerifiableConsumer", "--topic", topic, "--group-id", Support.name("g"),
                "--max-messages", "500", "--group-protocol", protocol).must("offsets_committed");
        }
    }

    // ---- records and offsets

    @Test
    void offsetsOfTopics() throws Exception {
        String topic = topicOfTwenty();
        assertEquals(topic + ":0:20", Tools.run(Tools.OFFSETS, "--topic", topic).said().trim());
        for (var each : Map.of("earliest", "0", "latest", "20", "-2", "0", "-1", "20", "max-timestamp", "19",
            "" + (BASE + 5000), "5", "earliest-local", "0").entrySet()) {
            assertEquals(topic + ":0:" + each.getValue(),
                Tools.run(Tools.OFFSETS, "--topic", topic, "--time", each.getKey()).said().trim(), each.getKey());
        }
        assertEquals(topic + ":0:20", Tools.run(Tools.OFFSETS, "--topic-partitions", topic + ":0-5").said().trim());
        Tools.run(Tools.OFFSETS).must(topic + ":0:20");
        Tools.run(Tools.OFFSETS, "--exclude-internal-topics").mustNot("__consumer_offsets");
    }

    @Test
    void deleteRecords() throws Exception {
        String topic = topicOfTwenty();
        String plan = "{\"version\":1,\"partitions\":[{\"topic\":\"%s\",\"partition\":0,\"offset\":%d}]}";
        Tools.run("org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", Tools.file(plan.formatted(topic, 7)))
            .must("partition: " + topic + "-0\tlow_watermark: 7");
        assertEquals(topic + ":0:7", Tools.run(Tools.OFFSETS, "--topic", topic, "--time", "earliest").said().trim());
        Tools.any("org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", Tools.file(plan.formatted(topic, 99)))
            .must("error: ");
    }

    @Test
    void consoleProducerAndConsumer() throws Exception {
        String topic = topic(1);
        Tools.typed("k1:v1\nk2:v2\nk3:v3\n", Tools.PRODUCER, "--topic", topic, "--reader-property", "parse.key=true",
            "--reader-property", "key.separator=:", "--sync");
        Tools.Ended seen = Tools.run(Tools.CONSUMER, "--topic", topic, "--from-beginning", "--max-messages", "3",
            "--formatter-property", "print.key=true", "--formatter-property", "print.offset=true",
            "--formatter-property", "print.partition=true");
        seen.must("Partition:0\tOffset:1\tk2\tv2");
        seen.must("Processed a total of 3 messages");
        Tools.run(Tools.CONSUMER, "--topic", topic, "--partition", "0", "--offset", "2", "--max-messages", "1").must("v3");
        Tools.run(Tools.CONSUMER, "--topic", topic, "--from-beginning", "--max-messages", "3", "--isolation-level",
            "read_committed", "--group", Support.name("g")).must("v1");
    }

    @Test
    void consoleConsumerOfOffsets() throws Exception {
        String topic = topicOfTwenty();
        String group = group(topic);
        Tools.Ended seen = Tools.any(Tools.CONSUMER, "--topic", "__consumer_offsets", "--from-beginning", "--timeout-ms",
            "8000", "--formatter", "org.apache.kafka.tools.consumer.OffsetsMessageFormatter");
        seen.must("\"group\":\"" + group + "\",\"topic\":\"" + topic + "\",\"partition\":0");
    }

    @Test
    void consoleConsumerOfTransactions() throws Exception {
        String topic = topicOfTwenty();
        String id = Support.name("t");
        try (KafkaProducer<String, String> producer = open(id, topic)) {
            producer.commitTransaction();
        }
        Tools.Ended seen = Tools.any(Tools.CONSUMER, "--topic", "__transaction_state", "--from-beginning", "--timeout-ms",
            "8000", "--formatter", "org.apache.kafka.tools.consumer.TransactionLogMessageFormatter");
        seen.must("\"transactionalId\":\"" + id + "\"");
    }

    // ---- the broker's files

    private static Tools.Ended dump(List<String> files, String... more) throws Exception {
        assertFalse(files.isEmpty(), "there are no files");
        return Tools.bare("org.apache.kafka.tools.DumpLogSegments", Tools.before(more, "--files", String.join(",", files)));
    }

    @Test
    void dumpOfATopic() throws Exception {
        String topic = topicOfTwenty();
        Tools.Ended seen = dump(Tools.files(topic + "-0", ".log"), "--deep-iteration", "--print-data-log");
        seen.mustNot("isvalid: false");
        assertEquals(20, seen.count("| offset: "));
        seen.must("payload: 19");
        dump(Tools.files(topic + "-0", ".log"), "--skip-record-metadata");
        // A broker may write indexes only when a segment is full.
        for (String index : Tools.files(topic + "-0", ".index")) {
            dump(List.of(index), "--index-sanity-check").must("passed sanity check");
        }
    }

    @Test
    void dumpOfTransactions() throws Exception {
        String topic = topicOfTwenty();
        String id = Support.name("t");
        try (KafkaProducer<String, String> producer = open(id, topic)) {
            producer.abortTransaction();
            producer.beginTransaction();
            Support.get(producer.send(new ProducerRecord<>(topic, 0, null, "good")));
            producer.commitTransaction();
        }
        Support.eventually(24L, () -> Support.end(topic, 0));
        Tools.Ended seen = dump(Tools.files(topic + "-0", ".log"), "--deep-iteration");
        assertEquals(2, seen.count("isTransactional: true isControl: true"), seen.said());
        seen.must("endTxnMarker: ABORT");
        seen.must("endTxnMarker: COMMIT");
        dump(Tools.files(topic + "-0", ".txnindex")).must("firstOffset: 20 lastOffset: 21 lastStableOffset: 22");
        int partition = Math.abs(id.hashCode() & 0x7fffffff) % partitions("__transaction_state");
        dump(Tools.files("__transaction_state-" + partition, ".log"), "--transaction-log-decoder")
            .must("\"transactionalId\":\"" + id + "\"");
    }

    private static int partitions(String topic) throws Exception {
        return Support.get(Support.admin().describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size();
    }

    @Test
    void dumpOfOffsets() throws Exception {
        String topic = topicOfTwenty();
        String group = group(topic);
        int partition = (group.hashCode() & 0x7fffffff) % partitions("__consumer_offsets");
        dump(Tools.files("__consumer_offsets-" + partition, ".log"), "--offsets-decoder")
            .must("\"group\":\"" + group + "\",\"topic\":\"" + topic + "\"");
    }

    // ---- the cluster

    @Test
    void featuresDescribe() throws Exception {
        Tools.Ended seen = Tools.run("org.apache.kafka.tools.FeatureCommand", "describe");
        for (String feature : List.of("group.version", "metadata.version", "transaction.version")) {
            seen.must("Feature: " + feature);
        }
        assertEquals("2", seen.line("Feature:", "transaction.version").get(7), seen.said());
    }

    @Test
    void featuresDowngradeForTrial() throws Exception {
        Tools.run("org.apache.kafka.tools.FeatureCommand", "downgrade", "--feature", "transaction.version=1", "--dry-run")
            .must("can be downgraded");
        Tools.any("org.apache.kafka.tools.FeatureCommand", "upgrade", "--feature", "group.version=99", "--dry-run")
            .must("Can not upgrade group.version to 99");
    }

    @Test
    void metadataQuorum() throws Exception {
        Tools.Ended status = Tools.run("org.apache.kafka.tools.MetadataQuorumCommand", "describe", "--status");
        status.must("LeaderId:");
        status.must("HighWatermark:");
        Tools.run("org.apache.kafka.tools.MetadataQuorumCommand", "describe", "--replication").must("Leader");
        Tools.run("org.apache.kafka.tools.MetadataQuorumCommand", "describe", "--replication", "--human-readable").must("ms ago");
    }

    @Test
    void clusterTool() throws Exception {
        Tools.command("org.apache.kafka.tools.ClusterTool", "cluster-id").must("Cluster ID: ");
        Tools.command("org.apache.kafka.tools.ClusterTool", "list-endpoints").must("127.0.0.1");
    }

    @Test
    void apiVersions() throws Exception {
        Tools.Ended seen = Tools.run("org.apache.kafka.tools.BrokerApiVersionsCommand");
        seen.must("Produce(0): 0 to 13");
        seen.must("Fetch(1): 4 to 18");
        seen.must("InitProducerId(22): 0 to ");
        seen.must("ConsumerGroupHeartbeat(68): 0 to 1");
    }

    @Test
    void logDirs() throws Exception {
        String topic = topicOfTwenty();
        Tools.Ended seen = Tools.run("org.apache.kafka.tools.LogDirsCommand", "--describe", "--topic-list", topic);
        seen.must("\"partition\":\"" + topic + "-0\"");
        seen.must("\"error\":null");
    }

    @Test
    void leaderElection() throws Exception {
        String topic = topicOfTwenty();
        Tools.run("org.apache.kafka.tools.LeaderElectionCommand", "--election-type", "preferred", "--topic", topic,
            "--partition", "0").must("Valid replica already elected");
        Tools.run("org.apache.kafka.tools.LeaderElectionCommand", "--election-type", "preferred", "--all-topic-partitions");
        Tools.run("org.apache.kafka.tools.LeaderElectionCommand", "--election-type", "unclean", "--path-to-json-file",
            Tools.file("{\"partitions\":[{\"topic\":\"" + topic + "\",\"partition\":0}]}"));
    }

    private static final String REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";

    @Test
    void reassignments() throws Exception {
        String topic = topicOfTwenty();
        Tools.run(REASSIGN, "--generate", "--topics-to-move-json-file",
            Tools.file("{\"version\":1,\"topics\":[{\"topic\":\"" + topic + "\"}]}"), "--broker-list", "1")
            .must("\"topic\":\"" + topic + "\"");
        String plan = Tools.file("{\"version\":1,\"partitions\":[{\"topic\":\"" + topic
            + "\",\"partition\":0,\"replicas\":[1],\"log_dirs\":[\"any\"]}]}");
        Tools.run(REASSIGN, "--execute", "--reassignment-json-file", plan).must("Successfully started partition reassignment");
        Tools.eventually(() -> Tools.run(REASSIGN, "--verify", "--reassignment-json-file", plan).has("is completed"));
        Tools.run(REASSIGN, "--list").must("No partition reassignments found");
        Tools.any(REASSIGN, "--cancel", "--reassignment-json-file", plan).must("None of the specified partition moves are active");
    }

    // ---- share groups

    @Test
    void shareGroups() throws Exception {
        String topic = topicOfTwenty();
        String group = Support.name("s");
        Tools.run(Tools.CONFIGS, "--alter", "--entity-type", "groups", "--entity-name", group, "--add-config",
            "share.auto.offset.reset=earliest");
        Tools.Ended seen = Tools.run("org.apache.kafka.tools.consumer.ConsoleShareConsumer", "--topic", topic, "--group", group,
            "--max-messages", "20", "--timeout-ms", "30000");
        seen.must("Processed a total of 20 messages");
        Tools.run(Tools.SHARES, "--list").must(group);
        Tools.run(Tools.SHARES, "--list", "--state").must("Empty");
        // The start is stored with the next change; what is left is known at once.
        Tools.eventually(() -> Tools.run(Tools.SHARES, "--describe", "--group", group).line(group, topic, "0").get(4).equals("0"));
        Tools.run(Tools.SHARES, "--describe", "--group", group, "--state").must("Empty");
        Tools.run(Tools.SHARES, "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute");
        assertEquals("0", Tools.run(Tools.SHARES, "--describe", "--group", group).line(group, topic, "0").get(3));
        Tools.run(Tools.SHARES, "--delete-offsets", "--group", group, "--topic", topic).must("Successful");
        Tools.run(Tools.SHARES, "--delete", "--group", group).must("was successful");
        Tools.run(Tools.SHARES, "--list").mustNot(group);
    }

    @Test
    void streamsResetter() throws Exception {
        String topic = topicOfTwenty();
        String group = group(topic);
        Tools.run("org.apache.kafka.tools.StreamsResetter", "--application-id", group, "--input-topics", topic, "--to-earliest")
            .must("Partition: 0");
        assertEquals("0", Tools.run(Tools.GROUPS, "--describe", "--group", group).line(group, topic, "0").get(3));
    }
}
