package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

func saramaCases() []testCase {
	cases := []testCase{}
	for name, codec := range map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP,
		"snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD} {
		cases = append(cases, testCase{"sarama.compression_" + name, func(t *T) { saramaCompression(t, codec) }})
	}
	for name, acks := range map[string]sarama.RequiredAcks{"none": sarama.NoResponse, "leader": sarama.WaitForLocal,
		"all": sarama.WaitForAll} {
		cases = append(cases, testCase{"sarama.acks_" + name, func(t *T) { saramaAcks(t, acks) }})
	}
	for name, strategy := range map[string]sarama.BalanceStrategy{"range": sarama.NewBalanceStrategyRange(),
		"roundrobin": sarama.NewBalanceStrategyRoundRobin(), "sticky": sarama.NewBalanceStrategySticky(),
		"cooperative_sticky": sarama.NewBalanceStrategyCooperativeSticky()} {
		cases = append(cases, testCase{"sarama.group_" + name, func(t *T) { saramaGroup(t, strategy) }})
	}
	for _, version := range []sarama.KafkaVersion{sarama.V2_1_0_0, sarama.V2_8_0_0, sarama.V3_6_0_0} {
		cases = append(cases, testCase{"sarama.version_" + version.String(), func(t *T) { saramaVersion(t, version) }})
	}
	slices.SortFunc(cases, func(a, b testCase) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return append(cases,
		testCase{"sarama.idempotent_order", saramaIdempotent},
		testCase{"sarama.static_member", saramaStatic},
		testCase{"sarama.commit_and_resume", saramaCommit},
		testCase{"sarama.transactions", saramaTransactions},
		testCase{"sarama.transaction_fencing", saramaFencing},
		testCase{"sarama.exactly_once", saramaExactlyOnce},
		testCase{"sarama.time_lookup", saramaTimes},
		testCase{"sarama.admin_topics", saramaTopics},
		testCase{"sarama.admin_configs", saramaConfigs},
		testCase{"sarama.admin_groups", saramaGroups},
		testCase{"sarama.admin_transactions", saramaAdminTransactions},
		testCase{"sarama.admin_cluster", saramaCluster},
		testCase{"sarama.admin_reassignments_and_elections", saramaReassign},
	)
}

func settings() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	config.Consumer.Group.Session.Timeout = 10 * time.Second
	config.Consumer.Return.Errors = true
	return config
}

func saramaProducer(t *T, config *sarama.Config) sarama.SyncProducer {
	producer, err := sarama.NewSyncProducer([]string{server}, config)
	t.must(err)
	t.later(func() { _ = producer.Close() })
	return producer
}

func saramaAdmin(t *T) sarama.TransactionClusterAdmin {
	made, err := sarama.NewClusterAdmin([]string{server}, settings())
	t.must(err)
	t.later(func() { _ = made.Close() })
	return made.(sarama.TransactionClusterAdmin)
}

func message(topic string, partition int32, value string) *sarama.ProducerMessage {
	return &sarama.ProducerMessage{Topic: topic, Partition: partition, Value: sarama.StringEncoder(value)}
}

func send(t *T, producer sarama.SyncProducer, topic string, partition int32, values ...string) {
	messages := []*sarama.ProducerMessage{}
	for _, v := range values {
		messages = append(messages, message(topic, partition, v))
	}
	t.must(producer.SendMessages(messages))
}

// saramaRead reads so many records of partition 0 from its beginning.
func saramaRead(t *T, config *sarama.Config, topic string, count int) []string {
	consumer, err := sarama.NewConsumer([]string{server}, config)
	t.must(err)
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	t.must(err)
	defer partition.Close()
	seen := []string{}
	late := time.After(deadline)
	for len(seen) < count {
		select {
		case m := <-partition.Messages():
			seen = append(seen, string(m.Value))
		case err := <-partition.Errors():
			t.must(err)
		case <-late:
			t.fail("%d of %d records: %s", len(seen), count, clip(seen))
		}
	}
	return seen
}

func saramaCompression(t *T, codec sarama.CompressionCodec) {
	config := settings()
	config.Producer.Compression = codec
	made := topic(t, 1)
	send(t, saramaProducer(t, config), made, 0, numbers(0, 1000)...)
	t.equal(numbers(0, 1000), saramaRead(t, settings(), made, 1000))
}

func saramaAcks(t *T, acks sarama.RequiredAcks) {
	config := settings()
	config.Producer.RequiredAcks = acks
	made := topic(t, 1)
	send(t, saramaProducer(t, config), made, 0, numbers(0, 300)...)
	t.equal(numbers(0, 300), saramaRead(t, settings(), made, 300))
}

func saramaVersion(t *T, version sarama.KafkaVersion) {
	config := settings()
	config.Version = version
	made := topic(t, 2)
	send(t, saramaProducer(t, config), made, 0, numbers(0, 100)...)
	t.equal(numbers(0, 100), saramaRead(t, config, made, 100))
	one := saramaJoin(t, name("g"), made, config)
	t.eventually(100, func() any { return len(one.read()) })
	t.must(one.leave())
}

func saramaIdempotent(t *T) {
	config := settings()
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Flush.MaxMessages = 10
	made := topic(t, 1)
	producer, err := sarama.NewAsyncProducer([]string{server}, config)
	t.must(err)
	go func() {
		for i := range 2000 {
			producer.Input() <- message(made, 0, fmt.Sprint(i))
		}
	}()
	for range 2000 {
		select {
		case <-producer.Successes():
		case err := <-producer.Errors():
			t.must(err)
		}
	}
	t.must(producer.Close())
	t.equal(numbers(0, 2000), saramaRead(t, settings(), made, 2000))
}

type saramaMember struct {
	lock    sync.Mutex
	owned   int
	seen    []string
	errors  []error
	stop    context.CancelFunc
	done    chan struct{}
	session sarama.ConsumerGroupSession
	group   sarama.ConsumerGroup
}

func (m *saramaMember) Setup(session sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.owned, m.session = 0, session
	for _, partitions := range session.Claims() {
		m.owned += len(partitions)
	}
	return nil
}

func (m *saramaMember) Cleanup(session sarama.ConsumerGroupSession) error { return nil }

func (m *saramaMember) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case each, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.lock.Lock()
			m.seen = append(m.seen, string(each.Value))
			m.lock.Unlock()
			session.MarkMessage(each, "")
		case <-session.Context().Done():
			return nil
		}
	}
}

func saramaJoin(t *T, group, topic string, config *sarama.Config) *saramaMember {
	joined, err := sarama.NewConsumerGroup([]string{server}, group, config)
	t.must(err)
	m := &saramaMember{done: make(chan struct{}), group: joined}
	ctx, cancel := context.WithCancel(t)
	m.stop = cancel
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			if err := joined.Consume(ctx, []string{topic}, m); err != nil && !errors.Is(err, sarama.ErrClosedConsumerGroup) {
				m.lock.Lock()
				m.errors = append(m.errors, err)
				m.lock.Unlock()
			}
		}
	}()
	go func() {
		for range joined.Errors() { //nolint:revive // told by Consume
		}
	}()
	return m
}

func (m *saramaMember) leave() error {
	m.stop()
	<-m.done
	return m.group.Close()
}

func (m *saramaMember) read() []string {
	m.lock.Lock()
	defer m.lock.Unlock()
	return slices.Clone(m.seen)
}

func (m *saramaMember) count() int {
	m.lock.Lock()
	defer m.lock.Unlock()
	// A cooperative member keeps its session while it is given more.
	owned := 0
	if m.session != nil {
		for _, partitions := range m.session.Claims() {
			owned += len(partitions)
		}
	}
	return owned
}

func saramaGroup(t *T, strategy sarama.BalanceStrategy) {
	config := settings()
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	made, group := topic(t, 4), name("g")
	one := saramaJoin(t, group, made, config)
	t.eventually(4, func() any { return one.count() })
	two := saramaJoin(t, group, made, config)
	t.eventually([]int{2, 2}, func() any { return []int{one.count(), two.count()} })
	producer := saramaProducer(t, settings())
	for p := range int32(4) {
		send(t, producer, made, p, numbers(int(p)*10, int(p)*10+10)...)
	}
	t.eventually(40, func() any { return len(one.read()) + len(two.read()) })
	t.must(two.leave())
	t.eventually(4, func() any { return one.count() })
	t.must(one.leave())
}

func saramaStatic(t *T) {
	made, group := topic(t, 2), name("g")
	config := settings()
	config.Consumer.Group.InstanceId = "one"
	other := settings()
	other.Consumer.Group.InstanceId = "two"
	one, two := saramaJoin(t, group, made, config), saramaJoin(t, group, made, other)
	t.eventually([]int{1, 1}, func() any { return []int{one.count(), two.count()} })
	t.must(one.leave())
	time.Sleep(time.Second)
	t.equal(1, two.count())
	again := saramaJoin(t, group, made, config)
	t.eventually([]int{1, 1}, func() any { return []int{again.count(), two.count()} })
	t.must(again.leave())
	t.must(two.leave())
	answer := value[*sarama.LeaveGroupResponse](t)(saramaAdmin(t).RemoveMemberFromConsumerGroup(group, []string{"one", "two"}))
	t.equal(sarama.ErrNoError, answer.Err)
}

func saramaCommit(t *T) {
	made, group := topic(t, 1), name("g")
	send(t, saramaProducer(t, settings()), made, 0, numbers(0, 20)...)
	client := value[sarama.Client](t)(sarama.NewClient([]string{server}, settings()))
	t.later(func() { _ = client.Close() })
	manager := value[sarama.OffsetManager](t)(sarama.NewOffsetManagerFromClient(group, client))
	partition := value[sarama.PartitionOffsetManager](t)(manager.ManagePartition(made, 0))
	partition.MarkOffset(12, "by hand")
	manager.Commit()
	t.must(partition.Close())
	t.must(manager.Close())
	one := saramaJoin(t, group, made, settings())
	t.eventually(numbers(12, 20), func() any { return one.read() })
	t.must(one.leave())
}

func txnSettings(id string) *sarama.Config {
	config := settings()
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Transaction.ID = id
	return config
}

func isolated() *sarama.Config {
	config := settings()
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	return config
}

func saramaTransactions(t *T) {
	made := topic(t, 1)
	producer := saramaProducer(t, txnSettings(name("t")))
	expected := []string{}
	for i := range 10 {
		t.must(producer.BeginTxn())
		send(t, producer, made, 0, fmt.Sprint(i), fmt.Sprint(i, "-more"))
		if i%3 == 0 {
			t.must(producer.AbortTxn())
			continue
		}
		t.must(producer.CommitTxn())
		expected = append(expected, fmt.Sprint(i), fmt.Sprint(i, "-more"))
	}
	t.equal(expected, saramaRead(t, isolated(), made, len(expected)))
	t.equal(20, len(saramaRead(t, settings(), made, 20)))
	t.equal(expected, committed(t, made))
}

func saramaFencing(t *T) {
	made, id := topic(t, 1), name("t")
	old := saramaProducer(t, txnSettings(id))
	t.must(old.BeginTxn())
	send(t, old, made, 0, "old")
	young := saramaProducer(t, txnSettings(id))
	t.must(young.BeginTxn())
	send(t, young, made, 0, "young")
	t.must(young.CommitTxn())
	_, _, err := old.SendMessage(message(made, 0, "zombie"))
	if err == nil {
		err = old.CommitTxn()
	}
	if err == nil {
		t.fail("a zombie committed")
	}
	t.equal([]string{"young"}, committed(t, made))
}

func saramaExactlyOnce(t *T) {
	source, sink, group := topic(t, 1), topic(t, 1), name("g")
	send(t, saramaProducer(t, settings()), source, 0, numbers(0, 60)...)
	one := saramaJoin(t, group, source, isolated())
	t.eventually(60, func() any { return len(one.read()) })
	producer := saramaProducer(t, txnSettings(name("t")))
	metadata := sarama.NewConsumerGroupMetadataFromSession(one.session, group, nil)
	for turn := range 6 {
		t.must(producer.BeginTxn())
		send(t, producer, sink, 0, numbers(turn*10, turn*10+10)...)
		t.must(producer.AddOffsetsToTxnWithGroupMetadata(map[string][]*sarama.PartitionOffsetMetadata{
			source: {{Partition: 0, Offset: int64(turn*10 + 10), Metadata: nil}}}, metadata))
		if turn == 3 {
			t.must(producer.AbortTxn())
		} else {
			t.must(producer.CommitTxn())
		}
	}
	t.equal(append(numbers(0, 30), numbers(40, 60)...), committed(t, sink))
	t.must(one.leave())
}

func saramaTimes(t *T) {
	made := topic(t, 1)
	producer := saramaProducer(t, settings())
	for i := range 10 {
		m := message(made, 0, fmt.Sprint(i))
		m.Timestamp = time.UnixMilli(1_000_000 + int64(i)*1000)
		_, _, err := producer.SendMessage(m)
		t.must(err)
	}
	client := value[sarama.Client](t)(sarama.NewClient([]string{server}, settings()))
	t.later(func() { _ = client.Close() })
	for ask, expected := range map[int64]int64{sarama.OffsetOldest: 0, sarama.OffsetNewest: 10, 1_000_000: 0, 1_003_500: 4} {
		t.equal(expected, value[int64](t)(client.GetOffset(made, 0, ask)))
	}
}

func saramaTopics(t *T) {
	a := saramaAdmin(t)
	made := name("sarama")
	hour := "3600000"
	t.must(a.CreateTopic(made, &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"retention.ms": &hour}}, false))
	var told *sarama.TopicError
	if err := a.CreateTopic(made, &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1}, false); !errors.As(err, &told) ||
		told.Err != sarama.ErrTopicAlreadyExists {
		t.fail("%v", err)
	}
	t.must(a.CreatePartitions(made, 4, nil, false))
	t.eventually(4, func() any {
		seen, err := a.DescribeTopics([]string{made})
		t.must(err)
		return len(seen[0].Partitions)
	})
	listed := value[map[string]sarama.TopicDetail](t)(a.ListTopics())
	t.equal(int32(4), listed[made].NumPartitions)
	t.equal("3600000", *listed[made].ConfigEntries["retention.ms"])
	send(t, saramaProducer(t, settings()), made, 0, numbers(0, 10)...)
	t.must(a.DeleteRecords(made, map[int32]int64{0: 7}))
	t.equal(numbers(7, 10), saramaRead(t, settings(), made, 3))
	t.must(a.DeleteTopic(made))
	t.eventually(false, func() any {
		_, there := value[map[string]sarama.TopicDetail](t)(a.ListTopics())[made]
		return there
	})
}

func saramaConfigs(t *T) {
	a := saramaAdmin(t)
	made := topic(t, 1)
	of := func(name string) string {
		seen := value[[]sarama.ConfigEntry](t)(a.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: made,
			ConfigNames: []string{name}}))
		return fmt.Sprint(seen[0].Value, " ", seen[0].Source)
	}
	t.equal("604800000 Default", of("retention.ms"))
	hour := "3600000"
	t.must(a.IncrementalAlterConfig(sarama.TopicResource, made, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &hour}}, false))
	t.eventually("3600000 Topic", func() any { return of("retention.ms") })
	t.must(a.AlterConfig(sarama.TopicResource, made, map[string]*string{"segment.ms": &hour}, false))
	t.eventually("604800000 Default", func() any { return of("retention.ms") })
	soon := "soon"
	if a.AlterConfig(sarama.TopicResource, made, map[string]*string{"retention.ms": &soon}, true) == nil {
		t.fail("a bad value was accepted")
	}
}

func saramaGroups(t *T) {
	a := saramaAdmin(t)
	made, group := topic(t, 2), name("g")
	send(t, saramaProducer(t, settings()), made, 0, numbers(0, 10)...)
	one := saramaJoin(t, group, made, settings())
	t.eventually(10, func() any { return len(one.read()) })
	seen := value[[]*sarama.GroupDescription](t)(a.DescribeConsumerGroups([]string{group}))
	t.equal("Stable", seen[0].State)
	t.equal(1, len(seen[0].Members))
	listed := value[map[string]string](t)(a.ListConsumerGroups())
	t.equal("consumer", listed[group])
	if a.DeleteConsumerGroup(group) == nil {
		t.fail("a group with a member was deleted")
	}
	t.must(one.leave())
	at := value[*sarama.OffsetFetchResponse](t)(a.ListConsumerGroupOffsets(group, map[string][]int32{made: {0}}))
	t.equal(int64(10), at.GetBlock(made, 0).Offset)
	altered := value[*sarama.OffsetCommitResponse](t)(a.AlterConsumerGroupOffsets(group,
		map[string]map[int32]sarama.OffsetAndMetadata{made: {0: {Offset: 3}}}, nil))
	t.equal(sarama.ErrNoError, altered.Errors[made][0])
	at = value[*sarama.OffsetFetchResponse](t)(a.ListConsumerGroupOffsets(group, map[string][]int32{made: {0}}))
	t.equal(int64(3), at.GetBlock(made, 0).Offset)
	t.must(a.DeleteConsumerGroupOffset(group, made, 0))
	t.must(a.DeleteConsumerGroup(group))
}

func saramaAdminTransactions(t *T) {
	a := saramaAdmin(t)
	made, id := topic(t, 1), name("t")
	producer := saramaProducer(t, txnSettings(id))
	t.must(producer.BeginTxn())
	send(t, producer, made, 0, "a")
	seen := value[map[string]sarama.TransactionState](t)(a.DescribeTransactions([]string{id}))
	t.equal("Ongoing", seen[id].TransactionState)
	listed := value[[]sarama.ListTransactionsResponseTransactionState](t)(a.ListTransactions([]string{"Ongoing"}, nil, -1))
	t.equal(true, slices.ContainsFunc(listed, func(l sarama.ListTransactionsResponseTransactionState) bool {
		return l.TransactionalID == id
	}))
	producers := value[map[string]map[int32]sarama.DescribeProducersResponsePartition](t)(
		a.DescribeProducers(map[string][]int32{made: {0}}))
	t.equal(1, len(producers[made][0].ActiveProducers))
	t.must(producer.CommitTxn())
}

func saramaCluster(t *T) {
	a := saramaAdmin(t)
	brokers, controller, err := a.DescribeCluster()
	t.must(err)
	if len(brokers) == 0 || controller < 0 {
		t.fail("%v %v", brokers, controller)
	}
	made := topic(t, 1)
	send(t, saramaProducer(t, settings()), made, 0, "a")
	dirs := value[map[int32][]sarama.DescribeLogDirsResponseDirMetadata](t)(a.DescribeLogDirs([]int32{brokers[0].ID()}))
	t.equal(true, len(dirs[brokers[0].ID()]) > 0)
	_ = value[*sarama.Broker](t)(a.Controller())
	_ = value[*sarama.Broker](t)(a.Coordinator(name("g")))
}

func saramaReassign(t *T) {
	a := saramaAdmin(t)
	made := topic(t, 1)
	brokers, _, err := a.DescribeCluster()
	t.must(err)
	t.must(a.AlterPartitionReassignments(made, [][]int32{{brokers[0].ID()}}))
	t.eventually(0, func() any {
		seen, err := a.ListPartitionReassignments(made, []int32{0})
		t.must(err)
		return len(seen[made])
	})
	elected := value[map[string]map[int32]*sarama.PartitionResult](t)(
		a.ElectLeaders(sarama.PreferredElection, map[string][]int32{made: {0}}))
	t.equal(sarama.ErrElectionNotNeeded, elected[made][0].ErrorCode)
}
