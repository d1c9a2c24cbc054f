import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.UnknownMemberIdException;
import org.junit.jupiter.api.Test;

/** What administrators do to groups, of both kinds. */
class GroupAdminTest {
    private final Admin admin = Support.admin();

    private Map<TopicPartition, OffsetAndMetadata> offsets(String group) throws Exception {
        return Support.get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
    }

    private ConsumerGroupDescription describe(String group) throws Exception {
        return Support.get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
    }

    /** A group with one member that has read and committed 10 records of partition 0. */
    private KafkaConsumer<String, String> joined(String group, String topic, String protocol, Object... more)
        throws Exception {
        Object[] all = new Object[more.length + 4];
        System.arraycopy(more, 0, all, 4, more.length);
        all[0] = "group.id";
        all[1] = group;
        all[2] = "group.protocol";
        all[3] = protocol;
        KafkaConsumer<String, String> consumer = Support.consumer(all);
        consumer.subscribe(List.of(topic));
        Support.poll(consumer, 10);
        consumer.commitSync();
        return consumer;
    }

    private String topicOfTen() throws Exception {
        String topic = Support.create(2);
        Support.produce(topic, 0, 0, 10);
        return topic;
    }

    @Test
    void aClassicGroupIsDescribed() throws Exception {
        String topic = topicOfTen();
        String group = Support.name("g");
        try (KafkaConsumer<String, String> consumer = joined(group, topic, "classic", "client.id", "first")) {
            ConsumerGroupDescription seen = describe(group);
            assertEquals(GroupState.STABLE, seen.groupState());
            assertEquals(GroupType.CLASSIC, seen.type());
            assertEquals("range", seen.partitionAssignor());
            assertEquals(1, seen.members().size());
            MemberDescription member = seen.members().iterator().next();
            assertEquals("first", member.clientId());
            assertEquals("/127.0.0.1", member.host());
            assertEquals(new HashSet<>(Support.all(topic, 2)), member.assignment().topicPartitions());
            assertTrue(member.consumerId().startsWith("first-"), member.consumerId());
            assertFalse(seen.isSimpleConsumerGroup());
            assertEquals(group, Support.get(admin.describeClassicGroups(List.of(group)).all()).get(group).groupId());
        }
        Support.eventually(GroupState.EMPTY, () -> describe(group).groupState());
    }

    @Test
    void anUnknownGroup() throws Exception {
        Support.refused(GroupIdNotFoundException.class,
            admin.describeConsumerGroups(List.of(Support.name("nobody"))).all());
        assertEquals(Map.of(), offsets(Support.name("nobody")));
        Support.refused(GroupIdNotFoundException.class,
            admin.deleteConsumerGroups(List.of(Support.name("nobody"))).all());
    }

    @Test
    void groupsAreListedByStateAndType() throws Exception {
        String topic = topicOfTen();
        String classic = Support.name("classic");
        String young = Support.name("young");
        String empty = Support.name("empty");
        joined(empty, topic, "classic").close();
        try (KafkaConsumer<String, String> one = joined(classic, topic, "classic");
             KafkaConsumer<String, String> two = joined(young, topic, "consumer")) {
            Set<String> mine = Set.of(classic, young, empty);
            Support.eventually(mine, () -> names(new ListGroupsOptions(), mine));
            assertEquals(Set.of(young), names(new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER)), mine));
            assertEquals(Set.of(classic, empty), names(new ListGroupsOptions().withTypes(Set.of(GroupType.CLASSIC)), mine));
            assertEquals(Set.of(empty), names(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY)), mine));
            assertEquals(Set.of(classic, young),
                names(new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE)), mine));
            assertEquals(mine, names(new ListGroupsOptions().withProtocolTypes(Set.of("consumer")), mine));
        }
    }

    private Set<String> names(ListGroupsOptions options, Set<String> mine) throws Exception {
        Collection<GroupListing> all = Support.get(admin.listGroups(options).all());
        return all.stream().map(GroupListing::groupId).filter(mine::contains).collect(Collectors.toSet());
    }

    @Test
    void offsetsAreAlteredWhileTheGroupIsEmpty() throws Exception {
        alterOffsets("classic");
    }

    @Test
    void offsetsOfANewGroupAreAlteredWhileItIsEmpty() throws Exception {
        alterOffsets("consumer");
    }

    private void alterOffsets(String protocol) throws Exception {
        String topic = topicOfTen();
        String group = Support.name("g");
        TopicPartition part = Support.tp(topic, 0);
        try (KafkaConsumer<String, String> consumer = joined(group, topic, protocol)) {
            Throwable error = Support.refused(Exception.class,
                admin.alterConsumerGroupOffsets(group, Map.of(part, new OffsetAndMetadata(3))).all());
            assertTrue(error instanceof UnknownMemberIdException, "" + error);
        }
        Support.get(admin.alterConsumerGroupOffsets(group, Map.of(part, new OffsetAndMetadata(3, "by hand"))).all());
        assertEquals(3, offsets(group).get(part).offset());
        assertEquals("by hand", offsets(group).get(part).metadata());
        try (KafkaConsumer<String, String> consumer =
                 Support.consumer("group.id", group, "group.protocol", protocol)) {
            consumer.subscribe(List.of(topic));
            assertEquals(Support.numbers(3, 10), Support.values(Support.poll(consumer, 7)));
        }
    }

    @Test
    void offsetsForAGroupThatIsNot() throws Exception {
        String topic = topicOfTen();
        String group = Support.name("g");
        Support.get(admin.alterConsumerGroupOffsets(group, Map.of(Support.tp(topic, 0), new OffsetAndMetadata(4))).all());
        assertEquals(4, offsets(group).get(Support.tp(topic, 0)).offset());
        assertTrue(describe(group).isSimpleConsumerGroup());
    }

    @Test
    void offsetsAreDeleted() throws Exception {
        String topic = topicOfTen();
        String group = Support.name("g");
        TopicPartition part = Support.tp(topic, 0);
        try (KafkaConsumer<String, String> consumer = joined(group, topic, "classic")) {
            Support.refused(GroupSubscribedToTopicException.class,
                admin.deleteConsumerGroupOffsets(group, Set.of(part)).all());
        }
        Support.get(admin.deleteConsumerGroupOffsets(group, Set.of(part)).all());
        assertFalse(offsets(group).containsKey(part));
    }

    @Test
    void groupsAreDeleted() throws Exception {
        String topic = topicOfTen();
        for (String protocol : List.of("classic", "consumer")) {
            String group = Support.name("g");
            try (KafkaConsumer<String, String> consumer = joined(group, topic, protocol)) {
                Support.refused(GroupNotEmptyException.class, admin.deleteConsumerGroups(List.of(group)).all());
            }
            Support.eventually(GroupState.EMPTY, () -> describe(group).groupState());
            Support.get(admin.deleteConsumerGroups(List.of(group)).all());
            assertEquals(Map.of(), offsets(group));
        }
    }

    @Test
    void offsetsOfManyGroupsAtOnce() throws Exception {
        String topic = topicOfTen();
        Map<String, ListConsumerGroupOffsetsSpec> specs = new HashMap<>();
        Map<String, Long> expected = new HashMap<>();
        for (long i = 1; i <= 6; i++) {
            String group = Support.name("g");
            Support.get(admin.alterConsumerGroupOffsets(group,
                Map.of(Support.tp(topic, 0), new OffsetAndMetadata(i), Support.tp(topic, 1), new OffsetAndMetadata(0))).all());
            specs.put(group, new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(Support.tp(topic, 0))));
            expected.put(group, i);
        }
        var seen = Support.get(admin.listConsumerGroupOffsets(specs).all());
        assertEquals(expected, seen.entrySet().stream()
            .collect(Collectors.toMap(Map.Entry::getKey, e -> e.getValue().get(Support.tp(topic, 0)).offset())));
        assertTrue(seen.values().stream().allMatch(offsets -> offsets.size() == 1));
    }

    @Test
    void staticMembersAreRemoved() throws Exception {
        String topic = topicOfTen();
        String group = Support.name("g");
        KafkaConsumer<String, String> consumer = joined(group, topic, "classic", "group.instance.id", "one");
        consumer.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
        assertEquals("one", describe(group).members().iterator().next().groupInstanceId().orElseThrow());
        Support.refused(Exception.class, admin.removeMembersFromConsumerGroup(group,
            new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("another")))).all());
        Support.get(admin.removeMembersFromConsumerGroup(group,
            new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("one")))).all());
        Support.eventually(GroupState.EMPTY, () -> describe(group).groupState());
    }

    @Test
    void allMembersAreRemoved() throws Exception {
        String topic = topicOfTen();
        String group = Support.name("g");
        try (KafkaConsumer<String, String> consumer = joined(group, topic, "classic")) {
            Support.get(admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions()).all());
            Support.eventually(0, () -> describe(group).members().size());
        }
    }

    @Test
    void lagIsWhatIsLeft() throws Exception {
        String topic = topicOfTen();
        String group = Support.name("g");
        try (KafkaConsumer<String, String> consumer = joined(group, topic, "classic")) {
            Support.produce(topic, 0, 10, 15);
            long lag = Support.end(topic, 0) - offsets(group).get(Support.tp(topic, 0)).offset();
            assertEquals(5, lag);
            assertEquals(5, Support.poll(consumer, 5).size());
            assertEquals(0, consumer.currentLag(Support.tp(topic, 0)).orElseThrow());
            assertEquals(0, consumer.poll(Duration.ofMillis(200)).count());
        }
    }
}
