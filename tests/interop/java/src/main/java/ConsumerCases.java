import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.OffsetMetadataTooLarge;
import org.apache.kafka.common.errors.WakeupException;
import org.junit.jupiter.api.Test;

/** What a consumer does with either protocol of groups. */
abstract class ConsumerCases {
    abstract String protocol();

    final KafkaConsumer<String, String> member(String group, Object... more) {
        Object[] all = new Object[more.length + 4];
        System.arraycopy(more, 0, all, 4, more.length);
        all[0] = "group.id";
        all[1] = group;
        all[2] = "group.protocol";
        all[3] = protocol();
        return Support.consumer(all);
    }

    /** A member that polls in a thread of its own. */
    final class Member implements AutoCloseable {
        final KafkaConsumer<String, String> consumer;
        final List<ConsumerRecord<String, String>> seen = new CopyOnWriteArrayList<>();
        volatile Set<TopicPartition> assigned = Set.of();
        volatile Throwable error;
        private final AtomicBoolean stopping = new AtomicBoolean();
        private final Thread thread;
        private volatile CloseOptions.GroupMembershipOperation ending = CloseOptions.GroupMembershipOperation.DEFAULT;

        Member(KafkaConsumer<String, String> consumer, List<String> topics) {
            this.consumer = consumer;
            consumer.subscribe(topics);
            thread = new Thread(this::run);
            thread.start();
        }

        private void run() {
            try {
                while (!stopping.get()) {
                    ConsumerRecords<String, String> records = consumer.poll(Support.TICK);
                    records.forEach(seen::add);
                    if (!records.isEmpty()) {
                        consumer.commitSync();
                    }
                    assigned = consumer.assignment();
                }
            } catch (WakeupException e) {
                // The end.
            } catch (Throwable e) {
                error = e;
            } finally {
                consumer.close(CloseOptions.groupMembershipOperation(ending).withTimeout(Duration.ofSeconds(20)));
            }
        }

        Set<Integer> partitions() {
            if (error != null) {
                throw new AssertionError(error);
            }
            Set<Integer> found = new TreeSet<>();
            assigned.forEach(p -> found.add(p.partition()));
            return found;
        }

        void remain() {
            ending = CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP;
        }

        @Override
        public void close() throws InterruptedException {
            stopping.set(true);
            thread.join(60_000);
            assertFalse(thread.isAlive(), "the member does not end");
        }
    }

    @Test
    void subscribeAndRead() throws Exception {
        String topic = Support.create(3);
        for (int p = 0; p < 3; p++) {
            Support.produce(topic, p, p * 100, p * 100 + 100);
        }
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<String, String>> seen = Support.poll(consumer, 300);
            for (int p = 0; p < 3; p++) {
                int partition = p;
                assertEquals(Support.numbers(p * 100, p * 100 + 100),
                    Support.values(seen.stream().filter(r -> r.partition() == partition).toList()));
            }
            assertEquals(new HashSet<>(Support.all(topic, 3)), consumer.assignment());
            assertEquals(Set.of(topic), consumer.subscription());
        }
    }

    @Test
    void commitAndResume() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        TopicPartition part = Support.tp(topic, 0);
        Support.produce(topic, 0, 0, 20);
        try (KafkaConsumer<String, String> consumer = member(group, "max.poll.records", 10)) {
            consumer.subscribe(List.of(topic));
            assertEquals(Support.numbers(0, 10), Support.values(Support.poll(consumer, 10)));
            consumer.commitSync();
            assertEquals(10, consumer.committed(Set.of(part)).get(part).offset());
        }
        try (KafkaConsumer<String, String> consumer = member(group)) {
            consumer.subscribe(List.of(topic));
            assertEquals(Support.numbers(10, 20), Support.values(Support.poll(consumer, 10)));
        }
    }

    @Test
    void autoCommit() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        Support.produce(topic, 0, 0, 10);
        try (KafkaConsumer<String, String> consumer =
                 member(group, "enable.auto.commit", true, "auto.commit.interval.ms", 200)) {
            consumer.subscribe(List.of(topic));
            Support.poll(consumer, 10);
            TopicPartition part = Support.tp(topic, 0);
            Support.eventually(10L, () -> {
                consumer.poll(Support.TICK);
                OffsetAndMetadata at = Support.get(Support.admin().listConsumerGroupOffsets(group)
                    .partitionsToOffsetAndMetadata()).get(part);
                return at == null ? -1L : at.offset();
            });
        }
    }

    @Test
    void autoCommitAtTheEnd() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        Support.produce(topic, 0, 0, 10);
        try (KafkaConsumer<String, String> consumer =
                 member(group, "enable.auto.commit", true, "auto.commit.interval.ms", 3_600_000)) {
            consumer.subscribe(List.of(topic));
            Support.poll(consumer, 10);
        }
        assertEquals(10, Support.get(Support.admin().listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata())
            .get(Support.tp(topic, 0)).offset());
    }

    @Test
    void commitAsyncTellsItsEnd() throws Exception {
        String topic = Support.create(1);
        Support.produce(topic, 0, 0, 10);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            consumer.subscribe(List.of(topic));
            Support.poll(consumer, 10);
            AtomicInteger done = new AtomicInteger();
            for (int i = 1; i <= 10; i++) {
                consumer.commitAsync(Map.of(Support.tp(topic, 0), new OffsetAndMetadata(i, "m" + i)), (offsets, error) -> {
                    assertEquals(null, error);
                    done.incrementAndGet();
                });
            }
            Support.eventually(10, () -> {
                consumer.poll(Support.TICK);
                return done.get();
            });
            OffsetAndMetadata at = consumer.committed(Set.of(Support.tp(topic, 0))).get(Support.tp(topic, 0));
            assertEquals(10, at.offset());
            assertEquals("m10", at.metadata());
        }
    }

    @Test
    void metadataOfACommitTooLarge() throws Exception {
        String topic = Support.create(1);
        Support.produce(topic, 0, 0, 1);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            consumer.subscribe(List.of(topic));
            Support.poll(consumer, 1);
            assertThrows(OffsetMetadataTooLarge.class,
                () -> consumer.commitSync(Map.of(Support.tp(topic, 0), new OffsetAndMetadata(1, "x".repeat(5000)))));
        }
    }

    @Test
    void commitsOfPartitionsWithoutAMember() throws Exception {
        String topic = Support.create(2);
        String group = Support.name("g");
        Support.produce(topic, 1, 0, 5);
        TopicPartition part = Support.tp(topic, 1);
        try (KafkaConsumer<String, String> consumer = member(group)) {
            consumer.assign(List.of(part));
            assertEquals(5, Support.poll(consumer, 5).size());
            consumer.commitSync();
        }
        try (KafkaConsumer<String, String> consumer = member(group)) {
            consumer.assign(List.of(part));
            assertEquals(5, consumer.position(part));
        }
    }

    @Test
    void twoMembersShare() throws Exception {
        String topic = Support.create(4);
        String group = Support.name("g");
        try (Member one = new Member(member(group), List.of(topic))) {
            Support.eventually(Set.of(0, 1, 2, 3), one::partitions);
            try (Member two = new Member(member(group), List.of(topic))) {
                Support.eventually(List.of(2, 2), () -> List.of(one.partitions().size(), two.partitions().size()));
                for (int p = 0; p < 4; p++) {
                    Support.produce(topic, p, p * 10, p * 10 + 10);
                }
                Support.eventually(40, () -> one.seen.size() + two.seen.size());
                Set<String> all = new HashSet<>(Support.values(one.seen));
                all.addAll(Support.values(two.seen));
                assertEquals(40, all.size());
            }
            Support.eventually(Set.of(0, 1, 2, 3), one::partitions);
            for (int p = 0; p < 4; p++) {
                Support.produce(topic, p, 100 + p, 101 + p);
            }
            Support.eventually(true, () -> Support.values(one.seen).containsAll(Support.numbers(100, 104)));
        }
    }

    @Test
    void moreMembersThanPartitions() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        try (Member one = new Member(member(group), List.of(topic));
             Member two = new Member(member(group), List.of(topic))) {
            Support.eventually(1, () -> one.partitions().size() + two.partitions().size());
            Support.produce(topic, 0, 0, 10);
            Support.eventually(10, () -> one.seen.size() + two.seen.size());
        }
    }

    @Test
    void listenersAreToldInOrder() throws Exception {
        String topic = Support.create(4);
        String group = Support.name("g");
        List<String> told = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = member(group)) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    told.add("revoked " + partitions.size());
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    told.add("assigned " + partitions.size());
                }
            });
            Support.eventually(4, () -> {
                consumer.poll(Support.TICK);
                return consumer.assignment().size();
            });
            told.removeIf(text -> text.endsWith(" 0"));
            assertEquals(List.of("assigned 4"), told);
            consumer.unsubscribe();
        }
        // One implementation tells the end of a subscription again at the consumer's end.
        assertEquals(List.of("assigned 4", "revoked 4"),
            told.stream().filter(text -> !text.endsWith(" 0")).distinct().toList());
    }

    @Test
    void topicsByPattern() throws Exception {
        String prefix = Support.name("pattern");
        for (String suffix : List.of("-a", "-b")) {
            Support.get(Support.admin().createTopics(
                List.of(new org.apache.kafka.clients.admin.NewTopic(prefix + suffix, 1, (short) 1))).all());
            Support.produce(prefix + suffix, 0, 0, 5);
        }
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"), "metadata.max.age.ms", 1000)) {
            consumer.subscribe(Pattern.compile(prefix + "-.*"));
            Support.poll(consumer, 10);
            consumer.commitSync();
            Support.get(Support.admin().createTopics(
                List.of(new org.apache.kafka.clients.admin.NewTopic(prefix + "-c", 1, (short) 1))).all());
            Support.produce(prefix + "-c", 0, 0, 5);
            assertEquals(5, Support.poll(consumer, 5).size());
            assertEquals(3, consumer.assignment().size());
        }
    }

    @Test
    void partitionsAddedMeanwhile() throws Exception {
        String topic = Support.create(1);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"), "metadata.max.age.ms", 1000)) {
            consumer.subscribe(List.of(topic));
            Support.eventually(1, () -> {
                consumer.poll(Support.TICK);
                return consumer.assignment().size();
            });
            Support.get(Support.admin().createPartitions(
                Map.of(topic, org.apache.kafka.clients.admin.NewPartitions.increaseTo(3))).all());
            Support.eventually(3, () -> {
                consumer.poll(Support.TICK);
                return consumer.assignment().size();
            });
            Support.produce(topic, 2, 0, 5);
            assertEquals(5, Support.poll(consumer, 5).size());
        }
    }

    @Test
    void aStaticMemberComesBack() throws Exception {
        String topic = Support.create(2);
        String group = Support.name("g");
        Object[] first = {"group.instance.id", "one"};
        Object[] second = {"group.instance.id", "two"};
        try (Member two = new Member(member(group, second), List.of(topic))) {
            Set<Integer> before;
            try (Member one = new Member(member(group, first), List.of(topic))) {
                Support.eventually(List.of(1, 1), () -> List.of(one.partitions().size(), two.partitions().size()));
                before = one.partitions();
                if (protocol().equals("consumer")) {
                    one.remain();
                }
            }
            // Its partitions wait for it.
            Thread.sleep(1000);
            assertEquals(1, two.partitions().size());
            try (Member one = new Member(member(group, first), List.of(topic))) {
                Support.eventually(before, one::partitions);
                assertEquals(1, two.partitions().size());
            }
        }
    }

    @Test
    void positionsAndSeeks() throws Exception {
        String topic = Support.create(2);
        Support.produce(topic, 0, 0, 50);
        TopicPartition part = Support.tp(topic, 0);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"), "max.poll.records", 10)) {
            consumer.assign(List.of(part, Support.tp(topic, 1)));
            assertEquals(0, consumer.position(part));
            consumer.seek(part, 25);
            assertEquals(Support.numbers(25, 35), Support.values(Support.poll(consumer, 10)));
            assertEquals(35, consumer.position(part));
            consumer.seekToEnd(List.of(part));
            assertEquals(50, consumer.position(part));
            consumer.seekToBeginning(List.of(part));
            assertEquals(0, consumer.position(part));
            consumer.seek(part, new OffsetAndMetadata(40, "with metadata"));
            assertEquals(Support.numbers(40, 50), Support.values(Support.poll(consumer, 10)));
        }
    }

    @Test
    void pauseAndResume() throws Exception {
        String topic = Support.create(2);
        Support.produce(topic, 0, 0, 10);
        Support.produce(topic, 1, 10, 20);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            consumer.assign(Support.all(topic, 2));
            consumer.pause(List.of(Support.tp(topic, 0)));
            assertEquals(Support.numbers(10, 20), Support.values(Support.poll(consumer, 10)));
            assertEquals(0, consumer.poll(Duration.ofMillis(300)).count());
            assertEquals(Set.of(Support.tp(topic, 0)), consumer.paused());
            consumer.resume(List.of(Support.tp(topic, 0)));
            assertEquals(Support.numbers(0, 10), Support.values(Support.poll(consumer, 10)));
        }
    }

    @Test
    void timesAreLookedUp() throws Exception {
        String topic = Support.create(2);
        TopicPartition part = Support.tp(topic, 0);
        try (KafkaProducer<String, String> producer = Support.producer()) {
            for (long i = 0; i < 10; i++) {
                Support.get(producer.send(new ProducerRecord<>(topic, 0, 1000 + i * 10, null, "" + i)));
            }
        }
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            for (var each : Map.of(0L, 0L, 1000L, 0L, 1001L, 1L, 1090L, 9L).entrySet()) {
                OffsetAndTimestamp at = consumer.offsetsForTimes(Map.of(part, each.getKey())).get(part);
                assertEquals(each.getValue(), at.offset());
                assertEquals(1000 + each.getValue() * 10, at.timestamp());
            }
            Map<TopicPartition, Long> late = new HashMap<>(Map.of(part, 1091L, Support.tp(topic, 1), 0L));
            var none = consumer.offsetsForTimes(late);
            assertEquals(null, none.get(part));
            assertEquals(null, none.get(Support.tp(topic, 1)));
            assertEquals(Map.of(part, 0L), consumer.beginningOffsets(List.of(part)));
            assertEquals(Map.of(part, 10L), consumer.endOffsets(List.of(part)));
        }
    }

    @Test
    void resetPolicies() throws Exception {
        String topic = Support.create(1);
        TopicPartition part = Support.tp(topic, 0);
        Support.produce(topic, 0, 0, 10);
        try (KafkaConsumer<String, String> latest = member(Support.name("g"), "auto.offset.reset", "latest");
             KafkaConsumer<String, String> duration =
                 member(Support.name("g"), "auto.offset.reset", "by_duration:PT1H");
             KafkaConsumer<String, String> none = member(Support.name("g"), "auto.offset.reset", "none")) {
            latest.assign(List.of(part));
            assertEquals(10, latest.position(part));
            duration.assign(List.of(part));
            assertEquals(0, duration.position(part));
            none.assign(List.of(part));
            assertThrows(NoOffsetForPartitionException.class, () -> {
                for (int i = 0; i < 100; i++) {
                    none.poll(Support.TICK);
                }
            });
        }
    }

    @Test
    void offsetsOutOfRange() throws Exception {
        String topic = Support.create(1);
        TopicPartition part = Support.tp(topic, 0);
        Support.produce(topic, 0, 0, 20);
        Support.get(Support.admin().deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(10))).all());
        try (KafkaConsumer<String, String> none = member(Support.name("g"), "auto.offset.reset", "none");
             KafkaConsumer<String, String> earliest = member(Support.name("g"))) {
            none.assign(List.of(part));
            for (long offset : List.of(5L, 100L)) {
                none.seek(part, offset);
                assertThrows(OffsetOutOfRangeException.class, () -> {
                    for (int i = 0; i < 100; i++) {
                        none.poll(Support.TICK);
                    }
                });
            }
            earliest.assign(List.of(part));
            earliest.seek(part, 3);
            assertEquals(Support.numbers(10, 20), Support.values(Support.poll(earliest, 10)));
        }
    }

    @Test
    void largeRecordsArriveOverTheLimits() throws Exception {
        String topic = Support.create(1, Map.of("max.message.bytes", "3000000"));
        try (KafkaProducer<String, String> producer = Support.producer("max.request.size", 3_000_000)) {
            for (int i = 0; i < 3; i++) {
                Support.get(producer.send(new ProducerRecord<>(topic, 0, null, i + "x".repeat(2_000_000))));
            }
        }
        try (KafkaConsumer<String, String> consumer =
                 member(Support.name("g"), "max.partition.fetch.bytes", 1000, "fetch.max.bytes", 1000)) {
            consumer.assign(List.of(Support.tp(topic, 0)));
            List<String> seen = Support.values(Support.poll(consumer, 3));
            assertEquals(List.of(2_000_001, 2_000_001, 2_000_001), seen.stream().map(String::length).toList());
        }
    }

    @Test
    void minimumBytesAreWaitedFor() throws Exception {
        String topic = Support.create(1);
        try (KafkaConsumer<String, String> consumer =
                 member(Support.name("g"), "fetch.min.bytes", 100_000, "fetch.max.wait.ms", 1500)) {
            consumer.assign(List.of(Support.tp(topic, 0)));
            consumer.poll(Support.TICK);
            Support.produce(topic, 0, 0, 10);
            assertEquals(Support.numbers(0, 10), Support.values(Support.poll(consumer, 10)));
        }
    }

    @Test
    void wakeupEndsAPoll() throws Exception {
        String topic = Support.create(1);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            consumer.assign(List.of(Support.tp(topic, 0)));
            Thread other = new Thread(() -> {
                try {
                    Thread.sleep(300);
                } catch (InterruptedException e) {
                    throw new AssertionError(e);
                }
                consumer.wakeup();
            });
            other.start();
            assertThrows(WakeupException.class, () -> consumer.poll(Duration.ofSeconds(30)));
            other.join();
        }
    }

    @Test
    void topicsAndPartitionsAreListed() throws Exception {
        String topic = Support.create(3);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            assertEquals(3, consumer.partitionsFor(topic).size());
            assertTrue(consumer.listTopics().containsKey(topic));
        }
    }

    @Test
    void enforcedRebalance() throws Exception {
        String topic = Support.create(2);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            consumer.subscribe(List.of(topic));
            Support.eventually(2, () -> {
                consumer.poll(Support.TICK);
                return consumer.assignment().size();
            });
            consumer.enforceRebalance("a reason");
            Support.produce(topic, 0, 0, 5);
            assertEquals(5, Support.poll(consumer, 5).size());
        }
    }

    @Test
    void aMemberThatDoesNotPollLosesItsPartitions() throws Exception {
        String topic = Support.create(2);
        String group = Support.name("g");
        KafkaConsumer<String, String> idle = member(group, "max.poll.interval.ms", 3000);
        try {
            idle.subscribe(List.of(topic));
            Support.eventually(2, () -> {
                idle.poll(Support.TICK);
                return idle.assignment().size();
            });
            try (Member other = new Member(member(group), List.of(topic))) {
                // While `idle` does not poll, the other one gets everything.
                Support.eventually(Set.of(0, 1), other::partitions);
            }
        } finally {
            idle.close(CloseOptions.timeout(Duration.ofSeconds(5)));
        }
    }
}
