import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreatePartitionsOptions;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.QuorumInfo;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.TopicListing;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicaAssignmentException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidRequestException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.InvalidUpdateVersionException;
import org.apache.kafka.common.errors.NoReassignmentInProgressException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.junit.jupiter.api.Test;

class AdminTest {
    private final Admin admin = Support.admin();

    private static ConfigResource topicResource(String topic) {
        return new ConfigResource(ConfigResource.Type.TOPIC, topic);
    }

    private Config config(ConfigResource resource) throws Exception {
        return Support.get(admin.describeConfigs(List.of(resource)).all()).get(resource);
    }

    private TopicDescription describe(String topic) throws Exception {
        return Support.get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
    }

    private int broker() throws Exception {
        return Support.get(admin.describeCluster().nodes()).iterator().next().id();
    }

    private ConfigResource brokerResource() throws Exception {
        return new ConfigResource(ConfigResource.Type.BROKER, "" + broker());
    }

    // ---- topics

    @Test
    void topicsAreMade() throws Exception {
        String topic = Support.name("java");
        NewTopic wanted = new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", "7200000"));
        CreateTopicsResult made = admin.createTopics(List.of(wanted));
        Support.get(made.all());
        assertEquals(3, Support.get(made.numPartitions(topic)));
        assertEquals(1, Support.get(made.replicationFactor(topic)));
        assertEquals("7200000", Support.get(made.config(topic)).get("retention.ms").value());
        assertTrue(Support.get(made.config(topic)).entries().size() > 20);
        Support.eventually(Set.of(topic),
            () -> Support.get(admin.listTopics().names()).stream().filter(topic::equals).collect(Collectors.toSet()));
        TopicDescription seen = describe(topic);
        assertEquals(Support.get(made.topicId(topic)), seen.topicId());
        assertEquals(3, seen.partitions().size());
        assertFalse(seen.isInternal());
        Support.refused(TopicExistsException.class, admin.createTopics(List.of(wanted)).all());
    }

    @Test
    void topicsWithTheDefaults() throws Exception {
        String topic = Support.name("java");
        CreateTopicsResult made = admin.createTopics(List.of(new NewTopic(topic, Optional.empty(), Optional.empty())));
        Support.get(made.all());
        assertTrue(Support.get(made.numPartitions(topic)) >= 1);
        assertTrue(Support.get(made.replicationFactor(topic)) >= 1);
    }

    @Test
    void topicsWithAnAssignment() throws Exception {
        String topic = Support.name("java");
        int id = broker();
        Support.get(admin.createTopics(List.of(new NewTopic(topic, Map.of(0, List.of(id), 1, List.of(id))))).all());
        Support.eventually(2, () -> describe(topic).partitions().size());
        assertEquals(List.of(id), describe(topic).partitions().get(1).replicas().stream().map(Node::id).toList());
        Support.refused(InvalidReplicaAssignmentException.class,
            admin.createTopics(List.of(new NewTopic(Support.name("java"), Map.of(0, List.of(id, id))))).all());
        Support.refused(InvalidReplicaAssignmentException.class,
            admin.createTopics(List.of(new NewTopic(Support.name("java"), Map.of(1, List.of(id))))).all());
    }

    @Test
    void topicsThatCannotBe() throws Exception {
        for (String bad : List.of("no/such name", ".", "..", "x".repeat(250))) {
            Support.refused(InvalidTopicException.class, admin.createTopics(List.of(new NewTopic(bad, 1, (short) 1))).all());
        }
        Support.refused(InvalidPartitionsException.class,
            admin.createTopics(List.of(new NewTopic(Support.name("java"), 0, (short) 1))).all());
        Support.refused(InvalidReplicationFactorException.class,
            admin.createTopics(List.of(new NewTopic(Support.name("java"), 1, (short) 17))).all());
        Support.refused(InvalidReplicationFactorException.class,
            admin.createTopics(List.of(new NewTopic(Support.name("java"), 1, (short) 0))).all());
        for (Map<String, String> config : List.of(Map.of("nonsense.setting", "1"), Map.of("retention.ms", "soon"),
            Map.of("cleanup.policy", "shred"), Map.of("min.insync.replicas", "0"))) {
            Support.refused(InvalidConfigurationException.class,
                admin.createTopics(List.of(new NewTopic(Support.name("java"), 1, (short) 1).configs(config))).all());
        }
        // Names that metrics could not tell apart.
        String dotted = Support.name("a.b").replace('-', '.');
        Support.get(admin.createTopics(List.of(new NewTopic(dotted, 1, (short) 1))).all());
        Support.refused(InvalidTopicException.class,
            admin.createTopics(List.of(new NewTopic(dotted.replace('.', '_'), 1, (short) 1))).all());
    }

    @Test
    void topicsAreOnlyValidated() throws Exception {
        String topic = Support.name("java");
        CreateTopicsResult made = admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1)),
            new CreateTopicsOptions().validateOnly(true));
        Support.get(made.all());
        assertEquals(2, Support.get(made.numPartitions(topic)));
        assertFalse(Support.get(admin.listTopics().names()).contains(topic));
        Support.refused(InvalidPartitionsException.class, admin.createTopics(
            List.of(new NewTopic(topic, -7, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all());
    }

    @Test
    void oneOfManyTopicsIsRefusedAlone() throws Exception {
        String good = Support.name("java");
        CreateTopicsResult made = admin.createTopics(
            List.of(new NewTopic(good, 1, (short) 1), new NewTopic("bad name", 1, (short) 1)));
        Support.get(made.values().get(good));
        Support.refused(InvalidTopicException.class, made.values().get("bad name"));
    }

    @Test
    void topicsAreDeletedByNameAndById() throws Exception {
        String byName = Support.create(1);
        String byId = Support.create(1);
        Uuid id = describe(byId).topicId();
        assertEquals(byId, Support.get(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds())
            .get(id).name());
        Support.get(admin.deleteTopics(List.of(byName)).all());
        Support.get(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        Support.eventually(true, () -> {
            Set<String> left = Support.get(admin.listTopics().names());
            return !left.contains(byName) && !left.contains(byId);
        });
        Support.refused(UnknownTopicOrPartitionException.class, admin.describeTopics(List.of(byName)).allTopicNames());
        Support.refused(UnknownTopicIdException.class,
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        try (Admin impatient = Admin.create(Support.settings("default.api.timeout.ms", 3000, "request.timeout.ms", 2000))) {
            Support.refused(UnknownTopicOrPartitionException.class, impatient.deleteTopics(List.of(byName)).all());
        }
    }

    @Test
    void aTopicMadeAnewHasAnotherId() throws Exception {
        String topic = Support.create(1);
        Support.produce(topic, 0, 0, 5);
        Uuid before = describe(topic).topicId();
        Support.get(admin.deleteTopics(List.of(topic)).all());
        Support.eventually(false, () -> Support.get(admin.listTopics().names()).contains(topic));
        Support.get(admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all());
        Support.eventually(true, () -> !describe(topic).topicId().equals(before));
        assertEquals(0, Support.end(topic, 0));
    }

    @Test
    void partitionsAreAdded() throws Exception {
        String topic = Support.create(1);
        Support.get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all());
        Support.eventually(3, () -> describe(topic).partitions().size());
        int id = broker();
        Support.get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4, List.of(List.of(id))))).all());
        Support.eventually(4, () -> describe(topic).partitions().size());
        Support.get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(9)),
            new CreatePartitionsOptions().validateOnly(true)).all());
        assertEquals(4, describe(topic).partitions().size());
        Support.refused(InvalidPartitionsException.class,
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all());
        Support.refused(InvalidPartitionsException.class,
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all());
        Support.refused(InvalidReplicaAssignmentException.class,
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5, List.of(List.of(4711))))).all());
        Support.refused(UnknownTopicOrPartitionException.class,
            admin.createPartitions(Map.of(Support.name("none"), NewPartitions.increaseTo(2))).all());
    }

    @Test
    void internalTopicsAreListedOnRequest() throws Exception {
        String topic = Support.create(1);
        Support.produce(topic, 0, 0, 1);
        try (var consumer = Support.consumer("group.id", Support.name("g"))) {
            consumer.subscribe(List.of(topic));
            Support.poll(consumer, 1);
            consumer.commitSync();
        }
        Collection<TopicListing> all =
            Support.get(admin.listTopics(new ListTopicsOptions().listInternal(true)).listings());
        TopicListing offsets = all.stream().filter(t -> t.name().equals("__consumer_offsets")).findFirst().orElseThrow();
        assertTrue(offsets.isInternal());
        assertFalse(Support.get(admin.listTopics().names()).contains("__consumer_offsets"));
        assertTrue(describe("__consumer_offsets").isInternal());
    }

    @Test
    void manyTopicsAreDescribedPageByPage() throws Exception {
        List<String> topics = new java.util.ArrayList<>();
        for (int i = 0; i < 12; i++) {
            topics.add(Support.name("page"));
        }
        Support.get(admin.createTopics(topics.stream().map(t -> new NewTopic(t, 20, (short) 1)).toList()).all());
        Support.eventually(240, () -> Support.get(admin.describeTopics(topics,
            new org.apache.kafka.clients.admin.DescribeTopicsOptions().partitionSizeLimitPerResponse(7))
            .allTopicNames()).values().stream().mapToInt(t -> t.partitions().size()).sum());
        Support.get(admin.deleteTopics(topics).all());
    }

    // ---- the cluster

    @Test
    void theClusterIsDescribed() throws Exception {
        DescribeClusterResult seen = admin.describeCluster(new DescribeClusterOptions().includeFencedBrokers(true));
        assertFalse(Support.get(seen.clusterId()).isEmpty());
        assertFalse(Support.get(seen.nodes()).isEmpty());
        assertNotNull(Support.get(seen.controller()));
        assertTrue(Support.get(seen.nodes()).stream().noneMatch(Node::isFenced));
    }

    @Test
    void featuresAreDescribed() throws Exception {
        var seen = Support.get(admin.describeFeatures().featureMetadata());
        assertTrue(seen.finalizedFeaturesEpoch().isPresent());
        assertEquals(2, seen.finalizedFeatures().get("transaction.version").maxVersionLevel());
        assertEquals(1, seen.finalizedFeatures().get("group.version").maxVersionLevel());
        assertTrue(seen.finalizedFeatures().get("metadata.version").maxVersionLevel() >= 20);
        assertTrue(seen.supportedFeatures().get("transaction.version").maxVersion() >= 2);
    }

    @Test
    void aFeatureBeyondWhatIsSupportedIsRefused() throws Exception {
        Support.refused(InvalidUpdateVersionException.class, admin.updateFeatures(
            Map.of("group.version", new FeatureUpdate((short) 99, FeatureUpdate.UpgradeType.UPGRADE)),
            new UpdateFeaturesOptions()).all());
        Support.refused(InvalidUpdateVersionException.class, admin.updateFeatures(
            Map.of("nonsense", new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE)),
            new UpdateFeaturesOptions()).all());
    }

    @Test
    void aFeatureIsUpdatedForTrial() throws Exception {
        Support.get(admin.updateFeatures(
            Map.of("transaction.version", new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.SAFE_DOWNGRADE)),
            new UpdateFeaturesOptions().validateOnly(true)).all());
        assertEquals(2, Support.get(admin.describeFeatures().featureMetadata()).finalizedFeatures()
            .get("transaction.version").maxVersionLevel());
    }

    @Test
    void theQuorumIsDescribed() throws Exception {
        QuorumInfo seen = Support.get(admin.describeMetadataQuorum().quorumInfo());
        assertTrue(seen.leaderId() >= 0);
        assertTrue(seen.leaderEpoch() >= 0);
        assertTrue(seen.highWatermark() > 0);
        assertTrue(seen.voters().stream().anyMatch(v -> v.replicaId() == seen.leaderId() && v.logEndOffset() > 0));
    }

    @Test
    void anUnknownBrokerIsNotUnregistered() throws Exception {
        Support.refused(org.apache.kafka.common.errors.BrokerIdNotRegisteredException.class,
            admin.unregisterBroker(4711).all());
    }

    @Test
    void resourcesWithSettingsAreListed() throws Exception {
        String topic = Support.create(1);
        String group = Support.name("g");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        Support.alter(resource, OpType.SET, "consumer.session.timeout.ms", "50000");
        Support.eventually(true, () -> {
            Collection<ConfigResource> all = Support.get(admin.listConfigResources().all());
            return all.contains(resource) && all.contains(topicResource(topic)) && all.contains(brokerResource());
        });
        Collection<ConfigResource> groups = Support.get(admin.listConfigResources(Set.of(ConfigResource.Type.GROUP),
            new org.apache.kafka.clients.admin.ListConfigResourcesOptions()).all());
        assertTrue(groups.stream().allMatch(r -> r.type() == ConfigResource.Type.GROUP));
    }

    // ---- configurations

    @Test
    void settingsOfATopic() throws Exception {
        String topic = Support.create(1, Map.of("retention.ms", "7200000"));
        ConfigResource resource = topicResource(topic);
        Config seen = Support.get(admin.describeConfigs(List.of(resource), new DescribeConfigsOptions()
            .includeSynonyms(true).includeDocumentation(true)).all()).get(resource);
        ConfigEntry retention = seen.get("retention.ms");
        assertEquals("7200000", retention.value());
        assertEquals(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, retention.source());
        assertEquals(ConfigEntry.ConfigType.LONG, retention.type());
        assertFalse(retention.isReadOnly() || retention.isSensitive() || retention.isDefault());
        assertFalse(retention.documentation().isEmpty());
        // The broker's settings for it are not set, and have no defaults of their own.
        assertEquals("[ConfigSynonym(name=retention.ms, value=7200000, source=DYNAMIC_TOPIC_CONFIG)]",
            "" + retention.synonyms());
        assertEquals("[ConfigSynonym(name=message.max.bytes, value=1048588, source=DEFAULT_CONFIG)]",
            "" + seen.get("max.message.bytes").synonyms());
        assertEquals("[ConfigSynonym(name=log.segment.bytes, value=1073741824, source=DEFAULT_CONFIG)]",
            "" + seen.get("segment.bytes").synonyms());
        ConfigEntry policy = seen.get("cleanup.policy");
        assertEquals("delete", policy.value());
        assertEquals(ConfigEntry.ConfigType.LIST, policy.type());
        for (String name : List.of("cleanup.policy", "compression.gzip.level", "compression.lz4.level",
            "compression.type", "compression.zstd.level", "delete.retention.ms", "file.delete.delay.ms",
            "flush.messages", "flush.ms", "index.interval.bytes", "local.retention.bytes", "local.retention.ms",
            "max.compaction.lag.ms", "max.message.bytes", "message.timestamp.after.max.ms",
            "message.timestamp.before.max.ms", "message.timestamp.type", "min.cleanable.dirty.ratio",
            "min.compaction.lag.ms", "min.insync.replicas", "preallocate", "remote.storage.enable",
            "retention.bytes", "retention.ms", "segment.bytes", "segment.index.bytes", "segment.jitter.ms",
            "segment.ms", "unclean.leader.election.enable")) {
            assertNotNull(seen.get(name), name);
        }
    }

    @Test
    void settingsAreSetAndReset() throws Exception {
        String topic = Support.create(1);
        ConfigResource resource = topicResource(topic);
        Support.alter(resource, OpType.SET, "retention.ms", "3600000");
        Support.eventually("3600000", () -> config(resource).get("retention.ms").value());
        Support.alter(resource, OpType.APPEND, "cleanup.policy", "compact");
        Support.eventually("delete,compact", () -> config(resource).get("cleanup.policy").value());
        Support.alter(resource, OpType.SUBTRACT, "cleanup.policy", "delete");
        Support.eventually("compact", () -> config(resource).get("cleanup.policy").value());
        Support.alter(resource, OpType.DELETE, "retention.ms", "");
        Support.eventually(true, () -> config(resource).get("retention.ms").isDefault());
        assertEquals("604800000", config(resource).get("retention.ms").value());
    }

    @Test
    void settingsThatCannotBe() throws Exception {
        String topic = Support.create(1);
        ConfigResource resource = topicResource(topic);
        for (AlterConfigOp op : List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), OpType.SET),
            new AlterConfigOp(new ConfigEntry("no.such.setting", "1"), OpType.SET),
            new AlterConfigOp(new ConfigEntry("retention.ms", "1"), OpType.APPEND))) {
            Throwable error = Support.refused(Exception.class,
                admin.incrementalAlterConfigs(Map.of(resource, List.of(op))).all());
            assertTrue(error instanceof InvalidConfigurationException || error instanceof InvalidRequestException,
                "" + error);
        }
        Support.refused(UnknownTopicOrPartitionException.class, admin.incrementalAlterConfigs(
            Map.of(topicResource(Support.name("none")),
                List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "1"), OpType.SET)))).all());
        Support.get(admin.incrementalAlterConfigs(Map.of(resource,
            List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "5000"), OpType.SET))),
            new AlterConfigsOptions().validateOnly(true)).all());
        assertTrue(config(resource).get("retention.ms").isDefault());
        Support.refused(UnknownTopicOrPartitionException.class,
            admin.describeConfigs(List.of(topicResource(Support.name("none")))).all());
    }

    @Test
    void settingsOfABroker() throws Exception {
        ConfigResource resource = brokerResource();
        Config seen = Support.get(admin.describeConfigs(List.of(resource),
            new DescribeConfigsOptions().includeSynonyms(true)).all()).get(resource);
        assertTrue(seen.entries().size() > 100, "only " + seen.entries().size());
        ConfigEntry directories = seen.get("log.dirs");
        assertTrue(directories.isReadOnly());
        assertEquals(ConfigEntry.ConfigSource.STATIC_BROKER_CONFIG, directories.source());
        assertEquals(ConfigEntry.ConfigSource.DEFAULT_CONFIG, seen.get("socket.request.max.bytes").source());
        assertEquals("104857600", seen.get("socket.request.max.bytes").value());
        assertFalse(seen.get("log.retention.ms").isReadOnly());
        Config one = Support.get(admin.describeConfigs(List.of(resource)).all()).get(resource);
        assertEquals(seen.entries().size(), one.entries().size());
    }

    @Test
    void aBrokersSettingIsDynamic() throws Exception {
        ConfigResource one = brokerResource();
        ConfigResource all = new ConfigResource(ConfigResource.Type.BROKER, "");
        String name = "log.retention.ms";
        String topic = Support.create(1);
        try {
            Support.alter(all, OpType.SET, name, "86400000");
            Support.eventually(ConfigEntry.ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG,
                () -> config(one).get(name).source());
            Support.alter(one, OpType.SET, name, "43200000");
            Support.eventually(ConfigEntry.ConfigSource.DYNAMIC_BROKER_CONFIG, () -> config(one).get(name).source());
            assertEquals("43200000", config(one).get(name).value());
            // Topics that say nothing take it from their broker.
            ConfigEntry retention = config(topicResource(topic)).get("retention.ms");
            assertEquals("43200000", retention.value());
            assertEquals(ConfigEntry.ConfigSource.DYNAMIC_BROKER_CONFIG, retention.source());
            assertEquals(1, config(all).entries().stream().filter(e -> e.name().equals(name)).count());
        } finally {
            Support.alter(one, OpType.DELETE, name, "");
            Support.alter(all, OpType.DELETE, name, "");
        }
        Support.eventually(true, () -> !config(one).get(name).source().name().startsWith("DYNAMIC"));
    }

    @Test
    void brokersSettingsThatCannotBe() throws Exception {
        ConfigResource one = brokerResource();
        for (AlterConfigOp op : List.of(
            new AlterConfigOp(new ConfigEntry("log.dirs", "/nowhere"), OpType.SET),
            new AlterConfigOp(new ConfigEntry("log.cleaner.threads", "none"), OpType.SET))) {
            Throwable error = Support.refused(Exception.class,
                admin.incrementalAlterConfigs(Map.of(one, List.of(op))).all());
            assertTrue(error instanceof InvalidConfigurationException || error instanceof InvalidRequestException,
                "" + error);
        }
    }

    // ---- offsets and records

    @Test
    void offsetsAreListed() throws Exception {
        String topic = Support.create(1);
        TopicPartition part = Support.tp(topic, 0);
        try (KafkaProducer<String, String> producer = Support.producer()) {
            for (long time : List.of(1000L, 9000L, 5000L)) {
                Support.get(producer.send(new ProducerRecord<>(topic, 0, time, null, "v")));
            }
        }
        assertEquals(0, Support.offset(topic, 0, OffsetSpec.earliest()));
        assertEquals(3, Support.offset(topic, 0, OffsetSpec.latest()));
        assertEquals(1, Support.offset(topic, 0, OffsetSpec.forTimestamp(1001)));
        assertEquals(-1, Support.offset(topic, 0, OffsetSpec.forTimestamp(9001)));
        var most = Support.get(admin.listOffsets(Map.of(part, OffsetSpec.maxTimestamp())).partitionResult(part));
        assertEquals(1, most.offset());
        assertEquals(9000, most.timestamp());
        assertEquals(0, Support.offset(topic, 0, OffsetSpec.earliestLocal()));
        assertEquals(-1, Support.offset(topic, 0, OffsetSpec.latestTiered()));
        assertEquals(3, Support.get(admin.listOffsets(Map.of(part, OffsetSpec.latest()),
            new ListOffsetsOptions(IsolationLevel.READ_COMMITTED)).partitionResult(part)).offset());
        assertTrue(Support.get(admin.listOffsets(Map.of(part, OffsetSpec.latest())).partitionResult(part))
            .leaderEpoch().isPresent());
        try (Admin impatient = Admin.create(Support.settings("default.api.timeout.ms", 3000, "request.timeout.ms", 2000))) {
            Support.refused(Exception.class, impatient.listOffsets(
                Map.of(Support.tp(Support.name("none"), 0), OffsetSpec.latest())).all());
        }
    }

    @Test
    void recordsAreDeleted() throws Exception {
        String topic = Support.create(1);
        TopicPartition part = Support.tp(topic, 0);
        Support.produce(topic, 0, 0, 20);
        assertEquals(7, Support.get(admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(7)))
            .lowWatermarks().get(part)).lowWatermark());
        assertEquals(7, Support.offset(topic, 0, OffsetSpec.earliest()));
        assertEquals(Support.numbers(7, 20), Support.read(topic, 0, "read_uncommitted"));
        // Less than that changes nothing.
        assertEquals(7, Support.get(admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(3)))
            .lowWatermarks().get(part)).lowWatermark());
        Support.refused(OffsetOutOfRangeException.class,
            admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(21))).all());
        assertEquals(20, Support.get(admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(-1)))
            .lowWatermarks().get(part)).lowWatermark());
    }

    // ---- replicas

    @Test
    void logDirectories() throws Exception {
        String topic = Support.create(1);
        Support.produce(topic, 0, 0, 100);
        int id = broker();
        Map<String, LogDirDescription> seen = Support.get(admin.describeLogDirs(List.of(id)).allDescriptions()).get(id);
        TopicPartition part = Support.tp(topic, 0);
        LogDirDescription mine = seen.values().stream().filter(d -> d.replicaInfos().containsKey(part)).findFirst()
            .orElseThrow();
        assertNull(mine.error());
        assertTrue(mine.replicaInfos().get(part).size() > 0);
        assertEquals(0, mine.replicaInfos().get(part).offsetLag());
        assertFalse(mine.replicaInfos().get(part).isFuture());
        assertTrue(mine.totalBytes().orElseThrow() > 0);
        assertTrue(mine.usableBytes().orElseThrow() > 0);
        var replica = new TopicPartitionReplica(topic, 0, id);
        assertTrue(seen.containsKey(Support.get(admin.describeReplicaLogDirs(List.of(replica)).all()).get(replica)
            .getCurrentReplicaLogDir()));
    }

    @Test
    void replicasMoveBetweenDirectories() throws Exception {
        String topic = Support.create(1);
        Support.produce(topic, 0, 0, 100);
        int id = broker();
        var replica = new TopicPartitionReplica(topic, 0, id);
        Set<String> all = Support.get(admin.describeLogDirs(List.of(id)).allDescriptions()).get(id).keySet();
        String from = Support.get(admin.describeReplicaLogDirs(List.of(replica)).all()).get(replica)
            .getCurrentReplicaLogDir();
        Support.refused(org.apache.kafka.common.errors.LogDirNotFoundException.class,
            admin.alterReplicaLogDirs(Map.of(replica, "/no/such/directory")).all());
        Support.get(admin.alterReplicaLogDirs(Map.of(replica, from)).all());
        Optional<String> to = all.stream().filter(d -> !d.equals(from)).findFirst();
        assumeTrue(to.isPresent(), "the broker has one directory");
        Support.get(admin.alterReplicaLogDirs(Map.of(replica, to.get())).all());
        Support.eventually(to.get(), () -> Support.get(admin.describeReplicaLogDirs(List.of(replica)).all())
            .get(replica).getCurrentReplicaLogDir());
        assertEquals(Support.numbers(0, 100), Support.read(topic, 0, "read_uncommitted"));
        Support.produce(topic, 0, 100, 110);
        assertEquals(Support.numbers(0, 110), Support.read(topic, 0, "read_uncommitted"));
    }

    @Test
    void leadersAreElected() throws Exception {
        String topic = Support.create(1);
        TopicPartition part = Support.tp(topic, 0);
        var preferred = Support.get(admin.electLeaders(ElectionType.PREFERRED, Set.of(part)).partitions());
        assertTrue(preferred.get(part).orElseThrow() instanceof ElectionNotNeededException, "" + preferred);
        var unclean = Support.get(admin.electLeaders(ElectionType.UNCLEAN, Set.of(part)).partitions());
        assertTrue(unclean.get(part).orElseThrow() instanceof ElectionNotNeededException, "" + unclean);
        TopicPartition none = Support.tp(Support.name("none"), 0);
        var unknown = Support.get(admin.electLeaders(ElectionType.PREFERRED, Set.of(none)).partitions());
        assertTrue(unknown.get(none).orElseThrow() instanceof UnknownTopicOrPartitionException, "" + unknown);
        // All of them: only those that had to be are told.
        assertFalse(Support.get(admin.electLeaders(ElectionType.PREFERRED, null).partitions()).containsKey(part));
    }

    @Test
    void replicasAreReassigned() throws Exception {
        String topic = Support.create(1);
        TopicPartition part = Support.tp(topic, 0);
        int id = broker();
        Support.get(admin.alterPartitionReassignments(
            Map.of(part, Optional.of(new NewPartitionReassignment(List.of(id))))).all());
        Support.eventually(Map.of(), () -> Support.get(admin.listPartitionReassignments(Set.of(part)).reassignments()));
        Support.eventually(List.of(id),
            () -> describe(topic).partitions().get(0).replicas().stream().map(Node::id).toList());
        Support.refused(NoReassignmentInProgressException.class,
            admin.alterPartitionReassignments(Map.of(part, Optional.empty())).all());
        Support.refused(InvalidReplicaAssignmentException.class, admin.alterPartitionReassignments(
            Map.of(part, Optional.of(new NewPartitionReassignment(List.of(4711))))).all());
        Support.refused(UnknownTopicOrPartitionException.class, admin.alterPartitionReassignments(
            Map.of(Support.tp(Support.name("none"), 0), Optional.of(new NewPartitionReassignment(List.of(id))))).all());
        assertEquals(Map.of(), Support.get(admin.listPartitionReassignments().reassignments()));
    }

    @Test
    void theClientHasNoTelemetryToSend() throws Exception {
        // The broker either offers telemetry or does not advertise it; the client has to live with both.
        try (Admin one = Admin.create(Support.settings("enable.metrics.push", true))) {
            assertNotEquals(null, Support.get(one.describeCluster().clusterId()));
            one.close(Duration.ofSeconds(10));
        }
    }
}
