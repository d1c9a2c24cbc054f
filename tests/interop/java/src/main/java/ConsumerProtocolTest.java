import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidRegularExpression;
import org.apache.kafka.common.errors.UnreleasedInstanceIdException;
import org.apache.kafka.common.errors.UnsupportedAssignorException;
import org.junit.jupiter.api.Test;

/** Groups whose broker assigns (KIP-848). */
class ConsumerProtocolTest extends ConsumerCases {
    @Override
    String protocol() {
        return "consumer";
    }

    private void rebalance(String assignor) throws Exception {
        String topic = Support.create(6);
        String group = Support.name("g");
        Object[] config = {"group.remote.assignor", assignor};
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
                ConsumerGroupDescription seen = described(group);
                assertEquals(assignor, seen.partitionAssignor());
            }
            Support.eventually(6, () -> one.partitions().size());
        }
    }

    private static ConsumerGroupDescription described(String group) throws Exception {
        return Support.get(Support.admin().describeConsumerGroups(List.of(group)).all()).get(group);
    }

    @Test
    void uniformAssignor() throws Exception {
        rebalance("uniform");
    }

    @Test
    void rangeAssignor() throws Exception {
        rebalance("range");
    }

    @Test
    void anUnknownAssignor() throws Exception {
        String topic = Support.create(1);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"), "group.remote.assignor", "nonsense")) {
            consumer.subscribe(List.of(topic));
            assertThrows(UnsupportedAssignorException.class, () -> {
                for (int i = 0; i < 100; i++) {
                    consumer.poll(Support.TICK);
                }
            });
        }
    }

    @Test
    void topicsByTheBrokersPattern() throws Exception {
        String prefix = Support.name("re2");
        Support.get(Support.admin().createTopics(List.of(new NewTopic(prefix + "-a", 1, (short) 1),
            new NewTopic(prefix + "-b", 1, (short) 1), new NewTopic("other-" + prefix, 1, (short) 1))).all());
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            consumer.subscribe(new SubscriptionPattern(prefix + "-[ab]"));
            Support.eventually(Set.of(Support.tp(prefix + "-a", 0), Support.tp(prefix + "-b", 0)), () -> {
                consumer.poll(Support.TICK);
                return consumer.assignment();
            });
            Support.produce(prefix + "-b", 0, 0, 5);
            assertEquals(5, Support.poll(consumer, 5).size());
        }
    }

    @Test
    void aBadPattern() throws Exception {
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"))) {
            consumer.subscribe(new SubscriptionPattern("(["));
            assertThrows(InvalidRegularExpression.class, () -> {
                for (int i = 0; i < 100; i++) {
                    consumer.poll(Support.TICK);
                }
            });
        }
    }

    @Test
    void aTopicMadeAfterTheSubscription() throws Exception {
        String topic = Support.name("later");
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"), "allow.auto.create.topics", false)) {
            consumer.subscribe(List.of(topic));
            consumer.poll(Duration.ofSeconds(1));
            Support.get(Support.admin().createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all());
            Support.eventually(new HashSet<>(Support.all(topic, 2)), () -> {
                consumer.poll(Support.TICK);
                return consumer.assignment();
            });
        }
    }

    @Test
    void aDeletedTopicIsTakenAway() throws Exception {
        String topic = Support.create(1);
        String other = Support.create(1);
        try (KafkaConsumer<String, String> consumer = member(Support.name("g"), "allow.auto.create.topics", false)) {
            consumer.subscribe(List.of(topic, other));
            Support.eventually(2, () -> {
                consumer.poll(Support.TICK);
                return consumer.assignment().size();
            });
            Support.get(Support.admin().deleteTopics(List.of(topic)).all());
            Support.eventually(Set.of(Support.tp(other, 0)), () -> {
                consumer.poll(Support.TICK);
                return consumer.assignment();
            });
        }
    }

    @Test
    void aStaticMemberIsNotFencedByItsNamesake() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        Object[] config = {"group.instance.id", "one"};
        try (Member one = new Member(member(group, config), List.of(topic));
             KafkaConsumer<String, String> namesake = member(group, config)) {
            Support.eventually(1, () -> one.partitions().size());
            namesake.subscribe(List.of(topic));
            assertThrows(UnreleasedInstanceIdException.class, () -> {
                for (int i = 0; i < 100; i++) {
                    namesake.poll(Support.TICK);
                }
            });
        }
    }

    @Test
    void theGroupIsDescribed() throws Exception {
        String topic = Support.create(2);
        String group = Support.name("g");
        try (Member one = new Member(member(group, "client.id", "first", "client.rack", "r1"), List.of(topic))) {
            Support.eventually(2, () -> one.partitions().size());
            Support.eventually(GroupState.STABLE, () -> described(group).groupState());
            ConsumerGroupDescription seen = described(group);
            assertEquals(GroupType.CONSUMER, seen.type());
            assertEquals("uniform", seen.partitionAssignor());
            assertTrue(seen.groupEpoch().orElseThrow() > 0);
            assertEquals(seen.groupEpoch(), seen.targetAssignmentEpoch());
            MemberDescription member = seen.members().iterator().next();
            assertEquals("first", member.clientId());
            assertEquals(seen.groupEpoch(), member.memberEpoch());
            assertEquals(new HashSet<>(Support.all(topic, 2)), member.assignment().topicPartitions());
            assertEquals(member.assignment(), member.targetAssignment().orElseThrow());
            assertEquals(true, member.upgraded().orElseThrow());
        }
        Support.eventually(GroupState.EMPTY, () -> described(group).groupState());
    }

    @Test
    void groupMetadataCarryTheEpoch() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        Support.produce(topic, 0, 0, 1);
        try (KafkaConsumer<String, String> consumer = member(group)) {
            consumer.subscribe(List.of(topic));
            Support.poll(consumer, 1);
            ConsumerGroupMetadata seen = consumer.groupMetadata();
            assertEquals(group, seen.groupId());
            assertTrue(seen.generationId() > 0);
            MemberDescription member = described(group).members().iterator().next();
            assertEquals(member.consumerId(), seen.memberId());
            assertEquals(member.memberEpoch().orElseThrow(), seen.generationId());
        }
    }

    @Test
    void settingsOfAGroup() throws Exception {
        String group = Support.name("g");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        Support.alter(resource, AlterConfigOp.OpType.SET, "consumer.session.timeout.ms", "50000");
        Support.eventually("50000", () -> Support.get(Support.admin().describeConfigs(List.of(resource)).all())
            .get(resource).get("consumer.session.timeout.ms").value());
        Support.refused(org.apache.kafka.common.errors.InvalidConfigurationException.class,
            Support.admin().incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(
                new org.apache.kafka.clients.admin.ConfigEntry("consumer.session.timeout.ms", "1"),
                AlterConfigOp.OpType.SET)))).all());
        Support.alter(resource, AlterConfigOp.OpType.DELETE, "consumer.session.timeout.ms", "");
    }

    @Test
    void aClassicGroupIsConvertedAndBack() throws Exception {
        String topic = Support.create(4);
        String group = Support.name("g");
        try (Member old = new Member(Support.consumer("group.id", group, "partition.assignment.strategy",
            "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"), List.of(topic))) {
            Support.eventually(4, () -> old.partitions().size());
            assertEquals(GroupType.CLASSIC, described(group).type());
            try (Member young = new Member(member(group), List.of(topic))) {
                Support.eventually(List.of(2, 2), () -> List.of(old.partitions().size(), young.partitions().size()));
                assertEquals(GroupType.CONSUMER, described(group).type());
                for (int p = 0; p < 4; p++) {
                    Support.produce(topic, p, p * 10, p * 10 + 10);
                }
                Support.eventually(40, () -> old.seen.size() + young.seen.size());
            }
            // The last member of the new kind has left.
            Support.eventually(GroupType.CLASSIC, () -> described(group).type());
            Support.eventually(4, () -> old.partitions().size());
        }
    }

    @Test
    void anEmptyClassicGroupIsConvertedWithItsOffsets() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        Support.produce(topic, 0, 0, 20);
        try (KafkaConsumer<String, String> old = Support.consumer("group.id", group, "max.poll.records", 10)) {
            old.subscribe(List.of(topic));
            Support.poll(old, 10);
            old.commitSync();
        }
        try (KafkaConsumer<String, String> young = member(group)) {
            young.subscribe(List.of(topic));
            assertEquals(Support.numbers(10, 20), Support.values(Support.poll(young, 10)));
        }
        try (KafkaConsumer<String, String> old = Support.consumer("group.id", group)) {
            old.subscribe(List.of(topic));
            assertEquals(Support.numbers(10, 20), Support.values(Support.poll(old, 10)));
        }
    }
}
