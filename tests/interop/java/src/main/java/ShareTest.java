import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ShareGroupDescription;
import org.apache.kafka.clients.admin.SharePartitionOffsetInfo;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.junit.jupiter.api.Test;

/** Share groups (KIP-932). */
class ShareTest {
    private static String group(String... settings) throws Exception {
        String group = Support.name("s");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        Support.alter(resource, AlterConfigOp.OpType.SET, "share.auto.offset.reset", "earliest");
        for (int i = 0; i < settings.length; i += 2) {
            Support.alter(resource, AlterConfigOp.OpType.SET, settings[i], settings[i + 1]);
        }
        return group;
    }

    private static KafkaShareConsumer<String, String> consumer(String group, Object... more) {
        Map<String, Object> made = Support.settings("group.id", group, "default.api.timeout.ms", 30000);
        made.putAll(Support.settings(more));
        return new KafkaShareConsumer<>(made, new StringDeserializer(), new StringDeserializer());
    }

    private static List<ConsumerRecord<String, String>> poll(KafkaShareConsumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> seen = new ArrayList<>();
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(Support.DEADLINE_S);
        while (seen.size() < count) {
            if (System.nanoTime() > end) {
                fail(count + " records in " + Support.DEADLINE_S + " s; " + Support.clip(Support.values(seen)));
            }
            consumer.poll(Support.TICK).forEach(seen::add);
        }
        return seen;
    }

    private static Set<String> set(List<ConsumerRecord<String, String>> records) {
        return new HashSet<>(Support.values(records));
    }

    @Test
    void recordsAreSharedByMembers() throws Exception {
        String topic = Support.create(1);
        String group = group();
        try (KafkaShareConsumer<String, String> one = consumer(group, "max.poll.records", 10);
             KafkaShareConsumer<String, String> two = consumer(group, "max.poll.records", 10)) {
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic));
            Set<String> seen = new HashSet<>();
            int count = 0;
            Support.produce(topic, 0, 0, 500);
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(Support.DEADLINE_S);
            while (count < 500 && System.nanoTime() < end) {
                for (KafkaShareConsumer<String, String> each : List.of(one, two)) {
                    for (ConsumerRecord<String, String> record : each.poll(Duration.ofMillis(50))) {
                        seen.add(record.value());
                        count++;
                    }
                }
            }
            assertEquals(500, count, "once each");
            assertEquals(500, seen.size());
        }
    }

    @Test
    void implicitAcknowledgement() throws Exception {
        String topic = Support.create(1);
        String group = group();
        Support.produce(topic, 0, 0, 10);
        try (KafkaShareConsumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            assertEquals(10, poll(consumer, 10).size());
            assertTrue(consumer.commitSync().values().stream().allMatch(java.util.Optional::isEmpty));
        }
        Support.produce(topic, 0, 10, 12);
        try (KafkaShareConsumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            assertEquals(Set.of("10", "11"), set(poll(consumer, 2)));
        }
    }

    @Test
    void explicitAcceptReleaseReject() throws Exception {
        String topic = Support.create(1);
        String group = group();
        Support.produce(topic, 0, 0, 6);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "share.acknowledgement.mode", "explicit")) {
            consumer.subscribe(List.of(topic));
            for (ConsumerRecord<String, String> record : poll(consumer, 6)) {
                assertEquals((short) 1, record.deliveryCount().orElseThrow());
                int n = Integer.parseInt(record.value());
                consumer.acknowledge(record, n < 2 ? AcknowledgeType.ACCEPT : n < 4 ? AcknowledgeType.RELEASE
                    : AcknowledgeType.REJECT);
            }
            consumer.commitSync();
            List<ConsumerRecord<String, String>> again = poll(consumer, 2);
            assertEquals(Set.of("2", "3"), set(again));
            for (ConsumerRecord<String, String> record : again) {
                assertEquals((short) 2, record.deliveryCount().orElseThrow());
                consumer.acknowledge(record);
            }
            consumer.commitSync();
            assertEquals(0, consumer.poll(Duration.ofSeconds(1)).count());
        }
    }

    @Test
    void whatIsNotAcknowledgedComesAgainAfterTheLock() throws Exception {
        String topic = Support.create(1);
        String group = group("share.record.lock.duration.ms", "15000");
        Support.produce(topic, 0, 0, 3);
        try (KafkaShareConsumer<String, String> slow = consumer(group, "share.acknowledgement.mode", "explicit");
             KafkaShareConsumer<String, String> other = consumer(group)) {
            slow.subscribe(List.of(topic));
            assertEquals(3, poll(slow, 3).size());
            other.subscribe(List.of(topic));
            List<ConsumerRecord<String, String>> again = poll(other, 3);
            assertEquals(Set.of("0", "1", "2"), set(again));
            assertTrue(again.stream().allMatch(r -> r.deliveryCount().orElseThrow() == 2));
        }
    }

    @Test
    void aMembersEndReleasesItsRecords() throws Exception {
        String topic = Support.create(1);
        String group = group();
        Support.produce(topic, 0, 0, 5);
        try (KafkaShareConsumer<String, String> first = consumer(group, "share.acknowledgement.mode", "explicit")) {
            first.subscribe(List.of(topic));
            assertEquals(5, poll(first, 5).size());
        }
        try (KafkaShareConsumer<String, String> second = consumer(group)) {
            second.subscribe(List.of(topic));
            assertEquals(5, poll(second, 5).size());
        }
    }

    @Test
    void deliveriesAreLimited() throws Exception {
        String topic = Support.create(1);
        String group = group();
        Support.produce(topic, 0, 0, 1);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "share.acknowledgement.mode", "explicit")) {
            consumer.subscribe(List.of(topic));
            for (int attempt = 1; attempt <= 5; attempt++) {
                ConsumerRecord<String, String> record = poll(consumer, 1).get(0);
                assertEquals((short) attempt, record.deliveryCount().orElseThrow());
                consumer.acknowledge(record, AcknowledgeType.RELEASE);
                consumer.commitSync();
            }
            assertEquals(0, consumer.poll(Duration.ofSeconds(2)).count());
            Support.produce(topic, 0, 1, 2);
            assertEquals("1", poll(consumer, 1).get(0).value());
        }
    }

    @Test
    void theLatestIsTheDefault() throws Exception {
        String topic = Support.create(1);
        Support.produce(topic, 0, 0, 5);
        try (KafkaShareConsumer<String, String> consumer = consumer(Support.name("s"))) {
            consumer.subscribe(List.of(topic));
            assertEquals(0, consumer.poll(Duration.ofSeconds(3)).count());
            Support.eventually(true, () -> {
                Support.produce(topic, 0, 5, 6);
                return consumer.poll(Duration.ofSeconds(1)).count() > 0;
            });
        }
    }

    @Test
    void abortedTransactionsAreHidden() throws Exception {
        String topic = Support.create(1);
        String group = group("share.isolation.level", "read_committed");
        try (KafkaProducer<String, String> producer = Support.producer("transactional.id", Support.name("t"));
             KafkaShareConsumer<String, String> consumer = consumer(group)) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 0, null, "aborted"));
            producer.flush();
            producer.abortTransaction();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 0, null, "committed"));
            producer.commitTransaction();
            consumer.subscribe(List.of(topic));
            assertEquals(Set.of("committed"), set(poll(consumer, 1)));
        }
    }

    @Test
    void theGroupIsDescribedAndDeleted() throws Exception {
        String topic = Support.create(2);
        String group = group();
        Support.produce(topic, 0, 0, 5);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "client.id", "sharer")) {
            consumer.subscribe(List.of(topic));
            poll(consumer, 5);
            consumer.commitSync();
            Support.eventually(GroupState.STABLE, () -> describe(group).groupState());
            ShareGroupDescription seen = describe(group);
            assertEquals("sharer", seen.members().iterator().next().clientId());
            assertEquals(new HashSet<>(Support.all(topic, 2)),
                seen.members().iterator().next().assignment().topicPartitions());
            assertTrue(Support.get(Support.admin().listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.SHARE)))
                .all()).stream().anyMatch(g -> g.groupId().equals(group)));
            Support.refused(GroupNotEmptyException.class, Support.admin().deleteShareGroups(List.of(group)).all());
        }
        Support.eventually(GroupState.EMPTY, () -> describe(group).groupState());
        Support.get(Support.admin().deleteShareGroups(List.of(group)).all());
    }

    private static ShareGroupDescription describe(String group) throws Exception {
        return Support.get(Support.admin().describeShareGroups(List.of(group)).all()).get(group);
    }

    private static SharePartitionOffsetInfo offsets(String group, String topic) throws Exception {
        return Support.get(Support.admin().listShareGroupOffsets(
            Map.of(group, new ListShareGroupOffsetsSpec().topicPartitions(List.of(Support.tp(topic, 0)))))
            .partitionsToOffsetInfo(group)).get(Support.tp(topic, 0));
    }

    @Test
    void offsetsAreListedAlteredAndDeleted() throws Exception {
        String topic = Support.create(1);
        String group = group();
        Support.produce(topic, 0, 0, 10);
        try (KafkaShareConsumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            poll(consumer, 10);
            consumer.commitSync();
        }
        // The start is stored with the next change; what is left is known at once.
        Support.eventually(0L, () -> offsets(group, topic).lag().orElse(-1L));
        Support.eventually(GroupState.EMPTY, () -> describe(group).groupState());
        Support.get(Support.admin().alterShareGroupOffsets(group, Map.of(Support.tp(topic, 0), 4L)).all());
        Support.eventually(4L, () -> offsets(group, topic).startOffset());
        try (KafkaShareConsumer<String, String> consumer = consumer(group)) {
            consumer.subscribe(List.of(topic));
            assertEquals(new HashSet<>(Support.numbers(4, 10)), set(poll(consumer, 6)));
        }
        Support.eventually(GroupState.EMPTY, () -> describe(group).groupState());
        Support.get(Support.admin().deleteShareGroupOffsets(group, Set.of(topic)).all());
        Support.eventually(null, () -> offsets(group, topic));
    }

    @Test
    void modesAreNotMixed() throws Exception {
        String topic = Support.create(1);
        String group = group();
        Support.produce(topic, 0, 0, 2);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "share.acknowledgement.mode", "explicit")) {
            consumer.subscribe(List.of(topic));
            poll(consumer, 2);
            assertThrows(IllegalStateException.class, () -> consumer.poll(Support.TICK));
        }
    }
}
