import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TransactionAbortedException;
import org.apache.kafka.common.errors.TransactionalIdNotFoundException;
import org.junit.jupiter.api.Test;

class TransactionTest {
    private static KafkaProducer<String, String> transactional(String id, Object... more) {
        Object[] all = new Object[more.length + 2];
        System.arraycopy(more, 0, all, 2, more.length);
        all[0] = "transactional.id";
        all[1] = id;
        KafkaProducer<String, String> producer = Support.producer(all);
        producer.initTransactions();
        return producer;
    }

    private static void put(KafkaProducer<String, String> producer, String topic, int partition, String... values)
        throws Exception {
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        for (String value : values) {
            futures.add(producer.send(new ProducerRecord<>(topic, partition, null, value)));
        }
        for (Future<RecordMetadata> future : futures) {
            Support.get(future);
        }
    }

    private static List<String> dirty(String topic, int partition) throws Exception {
        return Support.read(topic, partition, "read_uncommitted");
    }

    private static TransactionDescription describe(String id) throws Exception {
        return Support.get(Support.admin().describeTransactions(List.of(id)).description(id));
    }

    private static void settled(String id, TransactionState state) throws Exception {
        Support.eventually(state, () -> describe(id).state());
    }

    @Test
    void committedRecordsAreSeen() throws Exception {
        String topic = Support.create(2);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"))) {
            producer.beginTransaction();
            put(producer, topic, 0, "a", "b");
            put(producer, topic, 1, "c");
            assertEquals(List.of(), Support.committed(topic, 0));
            assertEquals(List.of("a", "b"), dirty(topic, 0));
            producer.commitTransaction();
            assertEquals(List.of("a", "b"), Support.committed(topic, 0));
            assertEquals(List.of("c"), Support.committed(topic, 1));
        }
        // The marker takes an offset of its own.
        Support.eventually(3L, () -> Support.end(topic, 0));
    }

    @Test
    void abortedRecordsAreNot() throws Exception {
        String topic = Support.create(2);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"))) {
            producer.beginTransaction();
            put(producer, topic, 0, "a", "b");
            put(producer, topic, 1, "c");
            producer.abortTransaction();
            producer.beginTransaction();
            put(producer, topic, 0, "d");
            producer.commitTransaction();
        }
        assertEquals(List.of("d"), Support.committed(topic, 0));
        assertEquals(List.of(), Support.committed(topic, 1));
        assertEquals(List.of("a", "b", "d"), dirty(topic, 0));
    }

    @Test
    void manyTransactionsInterleaved() throws Exception {
        String topic = Support.create(1);
        List<String> expected = new ArrayList<>();
        try (KafkaProducer<String, String> one = transactional(Support.name("t"));
             KafkaProducer<String, String> two = transactional(Support.name("t"));
             KafkaProducer<String, String> plain = Support.producer()) {
            for (int i = 0; i < 30; i++) {
                one.beginTransaction();
                two.beginTransaction();
                put(one, topic, 0, "one-" + i);
                put(two, topic, 0, "two-" + i);
                put(plain, topic, 0, "plain-" + i);
                put(one, topic, 0, "one-more-" + i);
                if (i % 3 == 0) {
                    one.abortTransaction();
                } else {
                    one.commitTransaction();
                }
                if (i % 2 == 0) {
                    two.abortTransaction();
                } else {
                    two.commitTransaction();
                }
                if (i % 3 != 0) {
                    expected.add("one-" + i);
                }
                if (i % 2 != 0) {
                    expected.add("two-" + i);
                }
                expected.add("plain-" + i);
                if (i % 3 != 0) {
                    expected.add("one-more-" + i);
                }
            }
        }
        assertEquals(expected, Support.committed(topic, 0));
        assertEquals(120, dirty(topic, 0).size());
    }

    @Test
    void aReaderWaitsAtTheFirstOpenTransaction() throws Exception {
        String topic = Support.create(1);
        try (KafkaProducer<String, String> open = transactional(Support.name("t"));
             KafkaProducer<String, String> plain = Support.producer();
             KafkaConsumer<String, String> consumer = Support.consumer("isolation.level", "read_committed")) {
            put(plain, topic, 0, "before");
            open.beginTransaction();
            put(open, topic, 0, "within");
            put(plain, topic, 0, "after");
            TopicPartition part = Support.tp(topic, 0);
            consumer.assign(List.of(part));
            assertEquals(List.of("before"), Support.values(Support.poll(consumer, 1)));
            assertEquals(0, consumer.poll(Duration.ofMillis(500)).count());
            assertEquals(1L, consumer.endOffsets(List.of(part)).get(part), "the last stable offset");
            assertEquals(0L, consumer.currentLag(part).orElseThrow());
            try (KafkaConsumer<String, String> other = Support.consumer()) {
                assertEquals(3L, other.endOffsets(List.of(part)).get(part), "the high watermark");
            }
            open.commitTransaction();
            assertEquals(List.of("within", "after"), Support.values(Support.poll(consumer, 2)));
        }
    }

    @Test
    void aWaitingFetchIsAnsweredByTheMarker() throws Exception {
        String topic = Support.create(1);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"));
             KafkaConsumer<String, String> consumer =
                 Support.consumer("isolation.level", "read_committed", "fetch.max.wait.ms", 20_000)) {
            consumer.assign(List.of(Support.tp(topic, 0)));
            producer.beginTransaction();
            put(producer, topic, 0, "v");
            consumer.poll(Duration.ofMillis(300));
            producer.commitTransaction();
            long begin = System.nanoTime();
            assertEquals(List.of("v"), Support.values(Support.poll(consumer, 1)));
            assertTrue(System.nanoTime() - begin < 10_000_000_000L, "the fetch waited for its whole time");
        }
    }

    @Test
    void theOlderProducerIsFenced() throws Exception {
        String topic = Support.create(1);
        String id = Support.name("t");
        KafkaProducer<String, String> old = transactional(id);
        old.beginTransaction();
        put(old, topic, 0, "old");
        try (KafkaProducer<String, String> young = transactional(id)) {
            // The new one's start has aborted what was open.
            young.beginTransaction();
            put(young, topic, 0, "young");
            young.commitTransaction();
            Exception error = assertThrows(Exception.class, () -> {
                put(old, topic, 0, "zombie");
                old.commitTransaction();
            }, "a zombie committed");
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            assertTrue(cause instanceof ProducerFencedException || cause instanceof InvalidProducerEpochException,
                "" + error);
        } finally {
            old.close(Duration.ZERO);
        }
        assertEquals(List.of("young"), Support.committed(topic, 0));
    }

    @Test
    void aFencedProducerCannotCommit() throws Exception {
        String topic = Support.create(1);
        String id = Support.name("t");
        KafkaProducer<String, String> old = transactional(id);
        old.beginTransaction();
        put(old, topic, 0, "old");
        try (KafkaProducer<String, String> young = transactional(id)) {
            assertThrows(ProducerFencedException.class, old::commitTransaction);
            assertThrows(KafkaException.class, old::beginTransaction);
            young.beginTransaction();
            put(young, topic, 0, "young");
            young.commitTransaction();
        } finally {
            old.close(Duration.ZERO);
        }
        assertEquals(List.of("young"), Support.committed(topic, 0));
    }

    @Test
    void aTransactionThatTakesTooLongIsAborted() throws Exception {
        String topic = Support.create(1);
        String id = Support.name("t");
        KafkaProducer<String, String> slow = transactional(id, "transaction.timeout.ms", 1000);
        try {
            slow.beginTransaction();
            put(slow, topic, 0, "late");
            settled(id, TransactionState.COMPLETE_ABORT);
            assertEquals(List.of(), Support.committed(topic, 0));
            assertEquals(2, Support.end(topic, 0));
            assertThrows(KafkaException.class, slow::commitTransaction);
        } finally {
            slow.close(Duration.ZERO);
        }
        try (KafkaProducer<String, String> next = transactional(id)) {
            next.beginTransaction();
            put(next, topic, 0, "next");
            next.commitTransaction();
        }
        assertEquals(List.of("next"), Support.committed(topic, 0));
    }

    @Test
    void aTimeoutBeyondTheBrokersIsRefused() {
        KafkaException error = assertThrows(KafkaException.class,
            () -> transactional(Support.name("t"), "transaction.timeout.ms", 3_600_000));
        assertTrue(error.getMessage().contains("transaction timeout is larger than the maximum"), "" + error);
    }

    @Test
    void offsetsAreCommittedWithTheTransaction() throws Exception {
        String from = Support.create(1);
        String to = Support.create(1);
        String group = Support.name("g");
        Support.produce(from, 0, 0, 10);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"));
             KafkaConsumer<String, String> consumer = Support.consumer("group.id", group)) {
            consumer.subscribe(List.of(from));
            List<ConsumerRecord<String, String>> seen = Support.poll(consumer, 10);
            TopicPartition part = Support.tp(from, 0);
            producer.beginTransaction();
            put(producer, to, 0, Support.values(seen).toArray(String[]::new));
            producer.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(10, "so far")), consumer.groupMetadata());
            try (KafkaConsumer<String, String> other = Support.consumer("group.id", group, "isolation.level",
                "read_uncommitted")) {
                assertEquals(null, Support.get(Support.admin().listConsumerGroupOffsets(group)
                    .partitionsToOffsetAndMetadata()).get(part), "visible before the transaction ends");
            }
            producer.commitTransaction();
            Support.eventually(new OffsetAndMetadata(10, "so far"), () -> {
                OffsetAndMetadata at = Support.get(Support.admin().listConsumerGroupOffsets(group)
                    .partitionsToOffsetAndMetadata()).get(part);
                return at == null ? null : new OffsetAndMetadata(at.offset(), at.metadata());
            });
        }
        assertEquals(Support.numbers(0, 10), Support.committed(to, 0));
    }

    @Test
    void abortedOffsetsAreForgotten() throws Exception {
        String from = Support.create(1);
        String group = Support.name("g");
        Support.produce(from, 0, 0, 10);
        TopicPartition part = Support.tp(from, 0);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"));
             KafkaConsumer<String, String> consumer = Support.consumer("group.id", group)) {
            consumer.subscribe(List.of(from));
            Support.poll(consumer, 10);
            consumer.commitSync(Map.of(part, new OffsetAndMetadata(3)));
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(10)), consumer.groupMetadata());
            producer.abortTransaction();
            assertEquals(3, consumer.committed(Set.of(part)).get(part).offset());
        }
    }

    @Test
    void anUnstableOffsetIsWaitedFor() throws Exception {
        String from = Support.create(1);
        String group = Support.name("g");
        Support.produce(from, 0, 0, 10);
        TopicPartition part = Support.tp(from, 0);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"));
             KafkaConsumer<String, String> reader = Support.consumer("group.id", group)) {
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(7)), new ConsumerGroupMetadata(group));
            producer.flush();
            assertThrows(org.apache.kafka.common.errors.TimeoutException.class,
                () -> reader.committed(Set.of(part), Duration.ofSeconds(2)));
            producer.commitTransaction();
            assertEquals(7, reader.committed(Set.of(part)).get(part).offset());
        }
    }

    @Test
    void offsetsOfAStaleGenerationAreRefused() throws Exception {
        staleMember("classic");
    }

    @Test
    void offsetsOfAStaleMemberEpochAreRefused() throws Exception {
        staleMember("consumer");
    }

    private static void staleMember(String protocol) throws Exception {
        String from = Support.create(1);
        String group = Support.name("g");
        Support.produce(from, 0, 0, 10);
        TopicPartition part = Support.tp(from, 0);
        ConsumerGroupMetadata stale;
        try (KafkaConsumer<String, String> consumer =
                 Support.consumer("group.id", group, "group.protocol", protocol)) {
            consumer.subscribe(List.of(from));
            Support.poll(consumer, 10);
            stale = consumer.groupMetadata();
        }
        try (KafkaConsumer<String, String> other = Support.consumer("group.id", group, "group.protocol", protocol);
             KafkaProducer<String, String> producer = transactional(Support.name("t"))) {
            other.subscribe(List.of(from));
            Support.poll(other, 10);
            producer.beginTransaction();
            assertThrows(CommitFailedException.class, () -> {
                producer.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(5)), stale);
                producer.commitTransaction();
            });
            producer.abortTransaction();
            assertEquals(null, other.committed(Set.of(part)).get(part));
            // Those of the member that is there are taken.
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(6)), other.groupMetadata());
            producer.commitTransaction();
            assertEquals(6, other.committed(Set.of(part)).get(part).offset());
        }
    }

    @Test
    void consumeTransformProduce() throws Exception {
        String from = Support.create(2);
        String to = Support.create(2);
        String group = Support.name("g");
        Support.produce(from, 0, 0, 100);
        Support.produce(from, 1, 100, 200);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"));
             KafkaConsumer<String, String> consumer = Support.consumer("group.id", group, "max.poll.records", 15,
                 "isolation.level", "read_committed")) {
            consumer.subscribe(List.of(from));
            int done = 0;
            int turn = 0;
            long end = System.nanoTime() + Support.DEADLINE_S * 1_000_000_000;
            while (done < 200 && System.nanoTime() < end) {
                var records = consumer.poll(Support.TICK);
                if (records.isEmpty()) {
                    continue;
                }
                producer.beginTransaction();
                for (ConsumerRecord<String, String> record : records) {
                    producer.send(new ProducerRecord<>(to, record.partition(), null, record.value()));
                }
                producer.sendOffsetsToTransaction(records.nextOffsets(), consumer.groupMetadata());
                if (turn++ % 3 == 1) {
                    producer.abortTransaction();
                    // As after a crash: from what is committed.
                    consumer.committed(records.partitions()).forEach((part, at) -> {
                        consumer.seek(part, at == null ? 0 : at.offset());
                    });
                } else {
                    producer.commitTransaction();
                    done += records.count();
                }
            }
        }
        assertEquals(Support.numbers(0, 100), Support.committed(to, 0));
        assertEquals(Support.numbers(100, 200), Support.committed(to, 1));
    }

    @Test
    void anErrorWithinIsAbortable() throws Exception {
        String topic = Support.create(1);
        String small = Support.create(1, Map.of("max.message.bytes", "500"));
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"))) {
            producer.beginTransaction();
            put(producer, topic, 0, "a");
            Support.refused(RecordTooLargeException.class,
                producer.send(new ProducerRecord<>(small, 0, null, "x".repeat(1000))));
            assertThrows(KafkaException.class, producer::commitTransaction);
            producer.abortTransaction();
            producer.beginTransaction();
            put(producer, topic, 0, "b");
            producer.commitTransaction();
        }
        assertEquals(List.of("b"), Support.committed(topic, 0));
    }

    @Test
    void whatIsNotSentIsAborted() throws Exception {
        String topic = Support.create(1);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"), "linger.ms", 60_000,
            "delivery.timeout.ms", 120_000)) {
            producer.beginTransaction();
            Future<RecordMetadata> waiting = producer.send(new ProducerRecord<>(topic, 0, null, "a"));
            producer.abortTransaction();
            Support.refused(TransactionAbortedException.class, waiting);
        }
        assertEquals(List.of(), Support.committed(topic, 0));
    }

    @Test
    void emptyTransactionsAreFine() throws Exception {
        String topic = Support.create(1);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"))) {
            producer.beginTransaction();
            producer.commitTransaction();
            producer.beginTransaction();
            producer.abortTransaction();
            producer.beginTransaction();
            put(producer, topic, 0, "v");
            producer.commitTransaction();
        }
        assertEquals(List.of("v"), Support.committed(topic, 0));
        assertEquals(2, Support.end(topic, 0));
    }

    @Test
    void aRestartGoesOn() throws Exception {
        String topic = Support.create(1);
        String id = Support.name("t");
        for (int i = 0; i < 5; i++) {
            try (KafkaProducer<String, String> producer = transactional(id)) {
                producer.beginTransaction();
                put(producer, topic, 0, "" + i);
                producer.commitTransaction();
            }
        }
        assertEquals(Support.numbers(0, 5), Support.committed(topic, 0));
    }

    @Test
    void commitsOfManyPartitions() throws Exception {
        String topic = Support.create(12);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"))) {
            for (int round = 0; round < 4; round++) {
                producer.beginTransaction();
                for (int p = 0; p < 12; p++) {
                    producer.send(new ProducerRecord<>(topic, p, null, "" + round));
                }
                if (round == 2) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        for (int p = 0; p < 12; p++) {
            assertEquals(List.of("0", "1", "3"), Support.committed(topic, p));
        }
    }

    @Test
    void aTransactionOverManySegments() throws Exception {
        String topic = Support.create(1, Map.of("segment.bytes", "1048576", "segment.ms", "600000"));
        String filler = "x".repeat(20_000);
        try (KafkaProducer<String, String> open = transactional(Support.name("t"));
             KafkaProducer<String, String> plain = Support.producer()) {
            open.beginTransaction();
            put(open, topic, 0, "aborted-first");
            for (int i = 0; i < 150; i++) {
                plain.send(new ProducerRecord<>(topic, 0, null, "plain-" + i + filler));
            }
            plain.flush();
            put(open, topic, 0, "aborted-last");
            open.abortTransaction();
        }
        List<String> seen = Support.committed(topic, 0).stream()
            .map(v -> v.length() > 100 ? v.substring(0, v.indexOf('x')) : v).toList();
        List<String> expected = new ArrayList<>();
        for (int i = 0; i < 150; i++) {
            expected.add("plain-" + i);
        }
        assertEquals(expected, seen);
    }

    @Test
    void transactionsAreDescribedAndListed() throws Exception {
        String topic = Support.create(2);
        String id = Support.name("t");
        try (KafkaProducer<String, String> producer = transactional(id, "transaction.timeout.ms", 40_000)) {
            assertEquals(TransactionState.EMPTY, describe(id).state());
            producer.beginTransaction();
            put(producer, topic, 0, "a");
            put(producer, topic, 1, "b");
            TransactionDescription seen = describe(id);
            assertEquals(TransactionState.ONGOING, seen.state());
            assertEquals(40_000, seen.transactionTimeoutMs());
            assertEquals(Set.of(Support.tp(topic, 0), Support.tp(topic, 1)), seen.topicPartitions());
            assertTrue(seen.transactionStartTimeMs().orElseThrow() > System.currentTimeMillis() - 60_000);
            List<TransactionListing> ongoing = Support.get(Support.admin().listTransactions(
                new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING))).all()).stream()
                .filter(t -> t.transactionalId().equals(id)).toList();
            assertEquals(1, ongoing.size());
            assertEquals(seen.producerId(), ongoing.get(0).producerId());
            assertEquals(1, Support.get(Support.admin().listTransactions(
                new ListTransactionsOptions().filterProducerIds(Set.of(seen.producerId()))).all()).size());
            assertEquals(List.of(), Support.get(Support.admin().listTransactions(new ListTransactionsOptions()
                .filterOnDuration(3_600_000).filterProducerIds(Set.of(seen.producerId()))).all()).stream().toList());
            assertEquals(1, Support.get(Support.admin().listTransactions(
                new ListTransactionsOptions().filterOnTransactionalIdPattern(id + ".*")).all()).size());
            producer.commitTransaction();
            settled(id, TransactionState.COMPLETE_COMMIT);
            producer.beginTransaction();
            put(producer, topic, 0, "c");
            producer.abortTransaction();
            settled(id, TransactionState.COMPLETE_ABORT);
            assertEquals(Set.of(), describe(id).topicPartitions());
        }
        Support.refused(TransactionalIdNotFoundException.class,
            Support.admin().describeTransactions(List.of("nobody")).description("nobody"));
    }

    @Test
    void producersAreDescribed() throws Exception {
        String topic = Support.create(1);
        String id = Support.name("t");
        TopicPartition part = Support.tp(topic, 0);
        try (KafkaProducer<String, String> producer = transactional(id)) {
            producer.beginTransaction();
            put(producer, topic, 0, "a", "b", "c");
            TransactionDescription transaction = describe(id);
            List<ProducerState> seen = Support.get(Support.admin().describeProducers(List.of(part)).partitionResult(part))
                .activeProducers();
            assertEquals(1, seen.size());
            ProducerState state = seen.get(0);
            assertEquals(transaction.producerId(), state.producerId());
            assertEquals(transaction.producerEpoch(), state.producerEpoch());
            assertEquals(2, state.lastSequence());
            assertEquals(0L, state.currentTransactionStartOffset().orElseThrow());
            producer.commitTransaction();
            settled(id, TransactionState.COMPLETE_COMMIT);
            state = Support.get(Support.admin().describeProducers(List.of(part)).partitionResult(part))
                .activeProducers().get(0);
            assertTrue(state.currentTransactionStartOffset().isEmpty());
            assertTrue(state.coordinatorEpoch().isPresent());
        }
    }

    @Test
    void anOpenTransactionIsAbortedByTheAdministrator() throws Exception {
        String topic = Support.create(1);
        String id = Support.name("t");
        TopicPartition part = Support.tp(topic, 0);
        KafkaProducer<String, String> hanging = transactional(id, "transaction.timeout.ms", 600_000);
        try {
            hanging.beginTransaction();
            put(hanging, topic, 0, "a");
            ProducerState state = Support.get(Support.admin().describeProducers(List.of(part)).partitionResult(part))
                .activeProducers().get(0);
            Support.get(Support.admin().abortTransaction(new AbortTransactionSpec(part, state.producerId(),
                (short) state.producerEpoch(), state.coordinatorEpoch().orElse(0))).all());
            Support.eventually(2L, () -> Support.offset(topic, 0, org.apache.kafka.clients.admin.OffsetSpec.latest()));
            assertEquals(List.of(), Support.committed(topic, 0));
        } finally {
            hanging.close(Duration.ZERO);
        }
    }

    @Test
    void anAdministratorTerminatesATransaction() throws Exception {
        String topic = Support.create(1);
        String id = Support.name("t");
        KafkaProducer<String, String> hanging = transactional(id, "transaction.timeout.ms", 600_000);
        try {
            hanging.beginTransaction();
            put(hanging, topic, 0, "a");
            Support.get(Support.admin().forceTerminateTransaction(id).result());
            settled(id, TransactionState.EMPTY);
            assertThrows(KafkaException.class, hanging::commitTransaction);
        } finally {
            hanging.close(Duration.ZERO);
        }
        assertEquals(List.of(), Support.committed(topic, 0));
    }

    @Test
    void producersAreFencedByTheAdministrator() throws Exception {
        String topic = Support.create(1);
        String id = Support.name("t");
        KafkaProducer<String, String> old = transactional(id);
        try {
            old.beginTransaction();
            put(old, topic, 0, "a");
            var fenced = Support.admin().fenceProducers(List.of(id));
            Support.get(fenced.all());
            assertTrue(Support.get(fenced.producerId(id)) >= 0);
            assertThrows(ProducerFencedException.class, old::commitTransaction);
        } finally {
            old.close(Duration.ZERO);
        }
        Support.eventually(List.of(), () -> Support.committed(topic, 0));
        assertEquals(2, Support.end(topic, 0));
    }

    @Test
    void recordsOfTransactionsAreDeleted() throws Exception {
        String topic = Support.create(1);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"))) {
            producer.beginTransaction();
            put(producer, topic, 0, "a", "b");
            producer.abortTransaction();
            producer.beginTransaction();
            put(producer, topic, 0, "c", "d");
            producer.commitTransaction();
        }
        Support.eventually(6L, () -> Support.end(topic, 0));
        Support.get(Support.admin().deleteRecords(Map.of(Support.tp(topic, 0),
            org.apache.kafka.clients.admin.RecordsToDelete.beforeOffset(1))).all());
        // The first record of an aborted transaction is gone, its second one still aborted.
        assertEquals(List.of("c", "d"), Support.committed(topic, 0));
        assertEquals(List.of("b", "c", "d"), dirty(topic, 0));
    }

    @Test
    void timesAreLookedUpBelowTheStableOffset() throws Exception {
        String topic = Support.create(1);
        TopicPartition part = Support.tp(topic, 0);
        try (KafkaProducer<String, String> producer = transactional(Support.name("t"));
             KafkaConsumer<String, String> consumer = Support.consumer("isolation.level", "read_committed")) {
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 0, 5000L, null, "a"));
            producer.flush();
            assertEquals(null, consumer.offsetsForTimes(Map.of(part, 1000L)).get(part), "in an open transaction");
            producer.commitTransaction();
            Support.eventually(0L, () -> {
                var seen = consumer.offsetsForTimes(Map.of(part, 1000L)).get(part);
                return seen == null ? null : seen.offset();
            });
        }
    }
}
