import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.InconsistentGroupProtocolException;
import org.apache.kafka.common.errors.InvalidSessionTimeoutException;
import org.junit.jupiter.api.Test;

/** Groups whose leader assigns. */
class ClassicConsumerTest extends ConsumerCases {
    @Override
    String protocol() {
        return "classic";
    }

    private void rebalance(Class<?>... assignors) throws Exception {
        String topic = Support.create(6);
        String group = Support.name("g");
        String names = String.join(",", List.of(assignors).stream().map(Class::getName).toList());
        Object[] config = {"partition.assignment.strategy", names};
        try (Member one = new Member(member(group, config), List.of(topic))) {
            Support.eventually(6, () -> one.partitions().size());
            try (Member two = new Member(member(group, config), List.of(topic));
                 Member three = new Member(member(group, config), List.of(topic))) {
                Support.eventually(List.of(2, 2, 2), () -> List.of(one.partitions().size(), two.partitions().size(),
                    three.partitions().size()));
                for (int p = 0; p < 6; p++) {
                    Support.produce(topic, p, 0, 10);
                }
                Support.eventually(60, () -> one.seen.size() + two.seen.size() + three.seen.size());
            }
            Support.eventually(6, () -> one.partitions().size());
        }
    }

    @Test
    void rangeAssignor() throws Exception {
        rebalance(RangeAssignor.class);
    }

    @Test
    void roundRobinAssignor() throws Exception {
        rebalance(RoundRobinAssignor.class);
    }

    @Test
    void stickyAssignor() throws Exception {
        rebalance(StickyAssignor.class);
    }

    @Test
    void cooperativeStickyAssignor() throws Exception {
        rebalance(CooperativeStickyAssignor.class);
    }

    @Test
    void severalAssignors() throws Exception {
        rebalance(CooperativeStickyAssignor.class, RangeAssignor.class);
    }

    @Test
    void noCommonAssignor() throws Exception {
        String topic = Support.create(2);
        String group = Support.name("g");
        Object[] range = {"partition.assignment.strategy", RangeAssignor.class.getName()};
        Object[] robin = {"partition.assignment.strategy", RoundRobinAssignor.class.getName()};
        try (Member one = new Member(member(group, range), List.of(topic));
             KafkaConsumer<String, String> other = member(group, robin)) {
            Support.eventually(2, () -> one.partitions().size());
            other.subscribe(List.of(topic));
            assertThrows(InconsistentGroupProtocolException.class, () -> other.poll(Duration.ofSeconds(20)));
        }
    }

    @Test
    void sessionTimeoutsOutOfBounds() throws Exception {
        String topic = Support.create(1);
        for (int timeout : List.of(100, 86_400_000)) {
            Object[] config = {"session.timeout.ms", timeout, "heartbeat.interval.ms", 50};
            try (KafkaConsumer<String, String> consumer = member(Support.name("g"), config)) {
                consumer.subscribe(List.of(topic));
                assertThrows(InvalidSessionTimeoutException.class, () -> consumer.poll(Duration.ofSeconds(20)));
            }
        }
    }

    @Test
    void aStaticMemberIsFencedByItsNamesake() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        Object[] config = {"group.instance.id", "one", "heartbeat.interval.ms", 300};
        Member old = new Member(member(group, config), List.of(topic));
        try {
            Support.eventually(1, () -> old.partitions().size());
            try (Member young = new Member(member(group, config), List.of(topic))) {
                Support.eventually(1, () -> young.partitions().size());
                Support.eventually(true, () -> old.error instanceof FencedInstanceIdException);
            }
        } finally {
            old.close();
        }
    }

    @Test
    void aSilentMemberIsRemovedAfterItsSession() throws Exception {
        String topic = Support.create(2);
        String group = Support.name("g");
        Object[] config = {"session.timeout.ms", 6000, "heartbeat.interval.ms", 500};
        KafkaConsumer<String, String> gone = member(group, config);
        gone.subscribe(List.of(topic));
        Support.eventually(2, () -> {
            gone.poll(Support.TICK);
            return gone.assignment().size();
        });
        // Neither leaves nor heartbeats.
        gone.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
        try (Member other = new Member(member(group, config), List.of(topic))) {
            Support.eventually(Set.of(0, 1), other::partitions);
        }
    }

    @Test
    void commitsOfAnOldGenerationAreRefused() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        KafkaConsumer<String, String> old = member(group, "max.poll.interval.ms", 2000);
        try {
            old.subscribe(List.of(topic));
            Support.eventually(1, () -> {
                old.poll(Support.TICK);
                return old.assignment().size();
            });
            AtomicReference<ConsumerGroupMetadata> metadata = new AtomicReference<>(old.groupMetadata());
            assertEquals(group, metadata.get().groupId());
            try (Member other = new Member(member(group), List.of(topic))) {
                Support.eventually(1, () -> other.partitions().size());
                assertThrows(org.apache.kafka.clients.consumer.CommitFailedException.class,
                    () -> old.commitSync(Map.of(Support.tp(topic, 0), new OffsetAndMetadata(1))));
            }
        } finally {
            old.close(CloseOptions.timeout(Duration.ofSeconds(5)));
        }
    }
}
