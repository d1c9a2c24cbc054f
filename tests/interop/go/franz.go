package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func franzCases() []testCase {
	cases := []testCase{}
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		cases = append(cases, testCase{"franz.compression_" + codec, func(t *T) { franzCompression(t, codec) }})
	}
	for _, acks := range []string{"none", "leader", "all"} {
		cases = append(cases, testCase{"franz.acks_" + acks, func(t *T) { franzAcks(t, acks) }})
	}
	for _, balancer := range []kgo.GroupBalancer{kgo.RangeBalancer(), kgo.RoundRobinBalancer(), kgo.StickyBalancer(),
		kgo.CooperativeStickyBalancer()} {
		cases = append(cases, testCase{"franz.group_" + balancer.ProtocolName(), func(t *T) {
			franzGroup(t, "classic", kgo.Balancers(balancer))
		}})
	}
	return append(cases,
		testCase{"franz.group_next_generation", func(t *T) { franzGroup(t, "consumer", kgo.ServerSideBalancer()) }},
		testCase{"franz.idempotent_order", franzIdempotent},
		testCase{"franz.headers_and_nulls", franzHeaders},
		testCase{"franz.fetch_sessions_of_many_partitions", franzSessions},
		testCase{"franz.time_lookup", franzTimes},
		testCase{"franz.static_member", franzStatic},
		testCase{"franz.regex_subscription", franzRegex},
		testCase{"franz.commit_and_resume", franzCommit},
		testCase{"franz.transactions", franzTransactions},
		testCase{"franz.transaction_fencing", franzFencing},
		testCase{"franz.transaction_timeout", franzTimeout},
		testCase{"franz.exactly_once_classic", func(t *T) { franzExactlyOnce(t, nil) }},
		testCase{"franz.exactly_once_next_generation", func(t *T) { franzExactlyOnce(t, kgo.ServerSideBalancer()) }},
		testCase{"franz.end_and_begin", franzEndAndBegin},
		testCase{"franz.admin_topics", franzTopics},
		testCase{"franz.admin_configs", franzConfigs},
		testCase{"franz.admin_offsets", franzOffsets},
		testCase{"franz.admin_groups", franzGroups},
		testCase{"franz.admin_transactions", franzAdminTransactions},
		testCase{"franz.admin_write_markers", franzMarkers},
		testCase{"franz.admin_cluster", franzCluster},
		testCase{"franz.admin_reassignments_and_elections", franzReassign},
		testCase{"franz.admin_features", franzFeatures},
		testCase{"franz.share_group", franzShare},
	)
}

func franz(t *T, options ...kgo.Opt) *kgo.Client {
	options = append([]kgo.Opt{kgo.SeedBrokers(server), kgo.MetadataMinAge(200 * time.Millisecond),
		kgo.MetadataMaxAge(5 * time.Second), kgo.RecordDeliveryTimeout(deadline)}, options...)
	client, err := kgo.NewClient(options...)
	t.must(err)
	t.later(client.CloseAllowingRebalance)
	return client
}

func admin(t *T) *kadm.Client { return kadm.NewClient(franz(t)) }

func topic(t *T, partitions int32, config ...string) string {
	made := name("go")
	configs := map[string]*string{}
	for i := 0; i+1 < len(config); i += 2 {
		configs[config[i]] = &config[i+1]
	}
	a := admin(t)
	answer, err := a.CreateTopic(t, partitions, 1, configs, made)
	t.must(err)
	t.must(answer.Err)
	t.eventually(int(partitions), func() any {
		seen, err := a.ListTopics(t, made)
		if err != nil || seen[made].Err != nil {
			return err
		}
		led := 0
		for _, p := range seen[made].Partitions {
			if p.Err == nil && p.Leader >= 0 {
				led++
			}
		}
		return led
	})
	return made
}

func record(topic string, partition int32, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)}
}

func manual() kgo.Opt { return kgo.RecordPartitioner(kgo.ManualPartitioner()) }

func put(t *T, client *kgo.Client, topic string, partition int32, values ...string) {
	records := []*kgo.Record{}
	for _, v := range values {
		records = append(records, record(topic, partition, v))
	}
	t.must(client.ProduceSync(t, records...).FirstErr())
}

func fill(t *T, topic string, partition int32, from, until int) {
	client := franz(t, manual())
	put(t, client, topic, partition, numbers(from, until)...)
}

// poll polls until there are so many records.
func poll(t *T, client *kgo.Client, count int) []*kgo.Record {
	seen := []*kgo.Record{}
	ctx, cancel := context.WithTimeout(t, deadline)
	defer cancel()
	for len(seen) < count {
		fetches := client.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, context.DeadlineExceeded) {
				t.fail("%d of %d records in time: %s", len(seen), count, clip(values(seen)))
			}
			t.must(e.Err)
		}
		seen = append(seen, fetches.Records()...)
	}
	return seen
}

func values(records []*kgo.Record) []string {
	found := []string{}
	for _, r := range records {
		found = append(found, string(r.Value))
	}
	return found
}

func from(topic string, partition int32, offset kgo.Offset) kgo.Opt {
	return kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: offset}})
}

// read reads a partition from its beginning to its end, as the isolation level sees both.
func read(t *T, topic string, isolation kgo.IsolationLevel) []string {
	a := admin(t)
	var ends kadm.ListedOffsets
	var err error
	if isolation == kgo.ReadCommitted() {
		ends, err = a.ListCommittedOffsets(t, topic)
	} else {
		ends, err = a.ListEndOffsets(t, topic)
	}
	t.must(err)
	end, _ := ends.Lookup(topic, 0)
	t.must(end.Err)
	client := franz(t, from(topic, 0, kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords())
	found := []string{}
	for at := int64(0); at < end.Offset; {
		for _, r := range poll(t, client, 1) {
			if !r.Attrs.IsControl() {
				found = append(found, string(r.Value))
			}
			at = r.Offset + 1
		}
		// What an aborted transaction leaves at the end is not told: its marker is.
	}
	return found
}

// committed reads what is committed, once all transactions have ended: a commit is answered before its markers are written.
func committed(t *T, topic string) []string {
	a := admin(t)
	t.eventually(true, func() any {
		high, _ := value[kadm.ListedOffsets](t)(a.ListEndOffsets(t, topic)).Lookup(topic, 0)
		stable, _ := value[kadm.ListedOffsets](t)(a.ListCommittedOffsets(t, topic)).Lookup(topic, 0)
		return high.Offset == stable.Offset
	})
	return read(t, topic, kgo.ReadCommitted())
}

func franzCompression(t *T, codec string) {
	codecs := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	made := topic(t, 1)
	client := franz(t, manual(), kgo.ProducerBatchCompression(codecs[codec]), kgo.ProducerLinger(50*time.Millisecond))
	put(t, client, made, 0, numbers(0, 2000)...)
	reader := franz(t, from(made, 0, kgo.NewOffset().AtStart()))
	t.equal(numbers(0, 2000), values(poll(t, reader, 2000)))
}

func franzAcks(t *T, acks string) {
	made := topic(t, 1)
	options := map[string]kgo.Acks{"none": kgo.NoAck(), "leader": kgo.LeaderAck(), "all": kgo.AllISRAcks()}
	client := franz(t, manual(), kgo.RequiredAcks(options[acks]), kgo.DisableIdempotentWrite())
	put(t, client, made, 0, numbers(0, 500)...)
	reader := franz(t, from(made, 0, kgo.NewOffset().AtStart()))
	t.equal(numbers(0, 500), values(poll(t, reader, 500)))
}

func franzIdempotent(t *T) {
	made := topic(t, 1)
	client := franz(t, manual(), kgo.ProducerBatchMaxBytes(512))
	var lock sync.Mutex
	seen := []string{}
	for i := range 3000 {
		client.Produce(t, record(made, 0, fmt.Sprint(i)), func(r *kgo.Record, err error) {
			lock.Lock()
			defer lock.Unlock()
			if err == nil && r.Offset == int64(len(seen)) {
				seen = append(seen, string(r.Value))
			}
		})
	}
	t.must(client.Flush(t))
	t.equal(numbers(0, 3000), seen)
	reader := franz(t, from(made, 0, kgo.NewOffset().AtStart()))
	t.equal(numbers(0, 3000), values(poll(t, reader, 3000)))
}

func franzHeaders(t *T) {
	made := topic(t, 1)
	client := franz(t, manual())
	sent := []*kgo.Record{
		{Topic: made, Key: nil, Value: nil},
		{Topic: made, Key: []byte{}, Value: []byte{}},
		{Topic: made, Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{
			{Key: "h", Value: []byte{1}}, {Key: "h", Value: []byte{2}}, {Key: "größe", Value: []byte{}}, {Key: "null"}}},
		{Topic: made, Value: []byte(strings.Repeat("x", 300_000))},
	}
	t.must(client.ProduceSync(t, sent...).FirstErr())
	show := func(records []*kgo.Record) []string {
		found := []string{}
		for _, r := range records {
			text := fmt.Sprint(r.Key == nil, r.Value == nil, string(r.Key), string(r.Value))
			for _, h := range r.Headers {
				text += fmt.Sprint(h.Key, h.Value == nil, h.Value)
			}
			found = append(found, text)
		}
		return found
	}
	before := show(sent)
	t.equal(before, show(poll(t, franz(t, from(made, 0, kgo.NewOffset().AtStart())), 4)))
}

func franzSessions(t *T) {
	made := topic(t, 40)
	reader := franz(t, kgo.ConsumeTopics(made), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	client := franz(t, manual())
	for round := range 5 {
		for p := range int32(40) {
			put(t, client, made, p, fmt.Sprintf("%d-%d", round, p))
		}
		seen := poll(t, reader, 40)
		t.equal(40, len(seen))
		for _, r := range seen {
			t.equal(fmt.Sprintf("%d-%d", round, r.Partition), string(r.Value))
		}
	}
}

func franzTimes(t *T) {
	made := topic(t, 1)
	client := franz(t, manual())
	// The client takes an old timestamp for a record that has waited for long.
	base := time.UnixMilli(time.Now().UnixMilli() - 20_000)
	for i := range 10 {
		r := record(made, 0, fmt.Sprint(i))
		r.Timestamp = base.Add(time.Duration(i) * time.Second)
		t.must(client.ProduceSync(t, r).FirstErr())
	}
	a := admin(t)
	for ask, expected := range map[int64]int64{-1000: 0, 0: 0, 1: 1, 9000: 9, 9001: 10} {
		seen, err := a.ListOffsetsAfterMilli(t, base.UnixMilli()+ask, made)
		t.must(err)
		found, _ := seen.Lookup(made, 0)
		t.must(found.Err)
		t.equal(expected, found.Offset)
	}
	highest := value[kadm.ListedOffsets](t)(a.ListMaxTimestampOffsets(t, made))
	found, _ := highest.Lookup(made, 0)
	t.equal(int64(9), found.Offset)
	reader := franz(t, from(made, 0, kgo.NewOffset().AfterMilli(base.UnixMilli()+4500)))
	t.equal(numbers(5, 10), values(poll(t, reader, 5)))
}

type member struct {
	client *kgo.Client
	lock   sync.Mutex
	seen   []string
	owned  map[int32]bool
	done   chan struct{}
	stop   context.CancelFunc
}

// join makes a member that polls, and commits what it has polled.
func join(t *T, group, topic string, options ...kgo.Opt) *member {
	m := &member{owned: map[int32]bool{}, done: make(chan struct{})}
	change := func(owned bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
			if !owned && client != nil {
				_ = client.CommitUncommittedOffsets(context.Background())
			}
			m.lock.Lock()
			defer m.lock.Unlock()
			for _, p := range partitions[topic] {
				if owned {
					m.owned[p] = true
				} else {
					delete(m.owned, p)
				}
			}
		}
	}
	m.client = franz(t, append([]kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.OnPartitionsAssigned(change(true)),
		kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false))}, options...)...)
	var ctx context.Context
	ctx, m.stop = context.WithCancel(t)
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			fetches := m.client.PollFetches(ctx)
			m.lock.Lock()
			fetches.EachRecord(func(r *kgo.Record) { m.seen = append(m.seen, string(r.Value)) })
			m.lock.Unlock()
			_ = m.client.CommitUncommittedOffsets(ctx)
		}
	}()
	return m
}

func (m *member) leave() {
	m.stop()
	<-m.done
	m.client.Close()
}

func (m *member) count() int {
	m.lock.Lock()
	defer m.lock.Unlock()
	return len(m.owned)
}

func (m *member) read() []string {
	m.lock.Lock()
	defer m.lock.Unlock()
	return slices.Clone(m.seen)
}

func franzGroup(t *T, kind string, option kgo.Opt) {
	made, group := topic(t, 6), name("g")
	one := join(t, group, made, option)
	t.eventually(6, func() any { return one.count() })
	two, three := join(t, group, made, option), join(t, group, made, option)
	t.eventually([]int{2, 2, 2}, func() any { return []int{one.count(), two.count(), three.count()} })
	for p := range int32(6) {
		fill(t, made, p, int(p)*10, int(p)*10+10)
	}
	t.eventually(60, func() any { return len(one.read()) + len(two.read()) + len(three.read()) })
	// The client falls back to the old protocol by itself.
	listed := value[kadm.ListedGroups](t)(admin(t).ListGroupsByType(t, []string{kind}))
	t.equal(group, listed[group].Group)
	two.leave()
	three.leave()
	t.eventually(6, func() any { return one.count() })
	for p := range int32(6) {
		fill(t, made, p, 100+int(p), 101+int(p))
	}
	t.eventually(true, func() any {
		seen := one.read()
		return !slices.ContainsFunc(numbers(100, 106), func(n string) bool { return !slices.Contains(seen, n) })
	})
	one.leave()
}

func franzStatic(t *T) {
	made, group := topic(t, 2), name("g")
	one := join(t, group, made, kgo.InstanceID("one"))
	two := join(t, group, made, kgo.InstanceID("two"))
	t.eventually([]int{1, 1}, func() any { return []int{one.count(), two.count()} })
	one.leave()
	time.Sleep(2 * time.Second)
	t.equal(1, two.count())
	again := join(t, group, made, kgo.InstanceID("one"))
	t.eventually([]int{1, 1}, func() any { return []int{again.count(), two.count()} })
	again.leave()
	two.leave()
	a := admin(t)
	left, err := a.LeaveGroup(t, kadm.LeaveGroup(group).InstanceIDs("one", "two").Reason("over"))
	t.must(err)
	t.must(left.Error())
	t.equal(2, len(left))
}

func franzRegex(t *T) {
	prefix := name("re")
	a := admin(t)
	for _, suffix := range []string{"-a", "-b"} {
		answer, err := a.CreateTopic(t, 1, 1, nil, prefix+suffix)
		t.must(err)
		t.must(answer.Err)
	}
	client := franz(t, kgo.ConsumerGroup(name("g")), kgo.ConsumeRegex(), kgo.ConsumeTopics(prefix+"-.*"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	fill(t, prefix+"-a", 0, 0, 5)
	fill(t, prefix+"-b", 0, 5, 10)
	t.equal(10, len(poll(t, client, 10)))
	answer, err := a.CreateTopic(t, 1, 1, nil, prefix+"-c")
	t.must(err)
	t.must(answer.Err)
	fill(t, prefix+"-c", 0, 10, 15)
	t.equal(5, len(poll(t, client, 5)))
}

func franzCommit(t *T) {
	made, group := topic(t, 1), name("g")
	fill(t, made, 0, 0, 20)
	first := franz(t, kgo.ConsumerGroup(group), kgo.ConsumeTopics(made), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	seen := poll(t, first, 20)
	t.must(first.CommitRecords(t, seen[9]))
	first.Close()
	second := franz(t, kgo.ConsumerGroup(group), kgo.ConsumeTopics(made), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	t.equal(numbers(10, 20), values(poll(t, second, 10)))
}

func transactional(t *T, id string, options ...kgo.Opt) *kgo.Client {
	return franz(t, append([]kgo.Opt{kgo.TransactionalID(id), manual()}, options...)...)
}

func franzTransactions(t *T) {
	made := topic(t, 1)
	client := transactional(t, name("t"))
	expected := []string{}
	for i := range 20 {
		t.must(client.BeginTransaction())
		put(t, client, made, 0, fmt.Sprint(i), fmt.Sprint(i, "-more"))
		t.must(client.EndTransaction(t, kgo.TransactionEndTry(i%3 != 0)))
		if i%3 != 0 {
			expected = append(expected, fmt.Sprint(i), fmt.Sprint(i, "-more"))
		}
	}
	t.equal(expected, committed(t, made))
	t.equal(40, len(read(t, made, kgo.ReadUncommitted())))
}

func franzFencing(t *T) {
	made, id := topic(t, 1), name("t")
	old := transactional(t, id)
	t.must(old.BeginTransaction())
	put(t, old, made, 0, "old")
	young := transactional(t, id)
	t.must(young.BeginTransaction())
	put(t, young, made, 0, "young")
	t.must(young.EndTransaction(t, kgo.TryCommit))
	err := old.ProduceSync(t, record(made, 0, "zombie")).FirstErr()
	if err == nil {
		err = old.EndTransaction(t, kgo.TryCommit)
	}
	if err == nil {
		t.fail("a zombie committed")
	}
	t.equal([]string{"young"}, committed(t, made))
}

func franzTimeout(t *T) {
	made, id := topic(t, 1), name("t")
	slow := transactional(t, id, kgo.TransactionTimeout(time.Second))
	t.must(slow.BeginTransaction())
	put(t, slow, made, 0, "late")
	a := admin(t)
	t.eventually("CompleteAbort", func() any {
		seen, err := a.DescribeTransactions(t, id)
		t.must(err)
		return seen[id].State
	})
	t.equal([]string{}, committed(t, made))
	if slow.EndTransaction(t, kgo.TryCommit) == nil {
		t.fail("what was aborted was committed")
	}
}

func franzEndAndBegin(t *T) {
	made := topic(t, 1)
	client := transactional(t, name("t"))
	t.must(client.BeginTransaction())
	for i := range 10 {
		put(t, client, made, 0, fmt.Sprint(i))
		if i < 9 {
			t.must(client.EndAndBeginTransaction(t, kgo.EndBeginTxnSafe, kgo.TryCommit, func(_ context.Context, err error) error { return err }))
		}
	}
	t.must(client.EndTransaction(t, kgo.TryAbort))
	t.equal(numbers(0, 9), committed(t, made))
}

func franzExactlyOnce(t *T, option kgo.Opt) {
	source, sink, group := topic(t, 1), topic(t, 1), name("g")
	fill(t, source, 0, 0, 200)
	options := []kgo.Opt{kgo.SeedBrokers(server), kgo.TransactionalID(name("t")), kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(source), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.FetchMaxBytes(300)}
	if option != nil {
		options = append(options, option)
	}
	session, err := kgo.NewGroupTransactSession(options...)
	t.must(err)
	t.later(session.Close)
	done := 0
	var failed atomic.Pointer[error]
	ctx, cancel := context.WithTimeout(t, deadline)
	defer cancel()
	for turn := 0; done < 200; turn++ {
		fetches := session.PollRecords(ctx, 17)
		for _, e := range fetches.Errors() {
			t.must(e.Err)
		}
		records := fetches.Records()
		if len(records) == 0 {
			continue
		}
		t.must(session.Begin())
		commits := turn%3 != 1
		for _, r := range records {
			session.Produce(t, record(sink, 0, string(r.Value)), func(r *kgo.Record, err error) {
				// What is not sent yet when a transaction is aborted fails with it.
				if err != nil && commits {
					failed.Store(&err)
				}
			})
		}
		ended, err := session.End(t, kgo.TransactionEndTry(commits))
		t.must(err)
		if err := failed.Load(); err != nil {
			t.must(*err)
		}
		if ended {
			done += len(records)
		}
	}
	t.equal(numbers(0, 200), committed(t, sink))
	seen := value[kadm.OffsetResponses](t)(admin(t).FetchOffsets(t, group))
	at, _ := seen.Lookup(source, 0)
	t.equal(int64(200), at.At)
}

func franzTopics(t *T) {
	a := admin(t)
	made := name("go")
	answer := value[kadm.CreateTopicResponse](t)(a.CreateTopic(t, 3, 1, map[string]*string{"retention.ms": kadm.StringPtr("7200000")}, made))
	t.must(answer.Err)
	t.equal(int32(3), answer.NumPartitions)
	again := value[kadm.CreateTopicResponses](t)(a.CreateTopics(t, 3, 1, nil, made))
	if !errors.Is(again[made].Err, kerr.TopicAlreadyExists) {
		t.fail("%v", again[made].Err)
	}
	t.eventually(3, func() any {
		seen, err := a.ListTopics(t, made)
		t.must(err)
		return len(seen[made].Partitions)
	})
	grown := value[kadm.CreatePartitionsResponses](t)(a.CreatePartitions(t, 2, made))
	t.must(grown[made].Err)
	t.eventually(5, func() any {
		seen, err := a.ListTopics(t, made)
		t.must(err)
		return len(seen[made].Partitions)
	})
	fill(t, made, 0, 0, 10)
	offsets := kadm.Offsets{}
	offsets.AddOffset(made, 0, 4, -1)
	deleted := value[kadm.DeleteRecordsResponses](t)(a.DeleteRecords(t, offsets))
	gone, _ := deleted.Lookup(made, 0)
	t.must(gone.Err)
	t.equal(int64(4), gone.LowWatermark)
	removed := value[kadm.DeleteTopicResponse](t)(a.DeleteTopic(t, made))
	t.must(removed.Err)
	t.eventually(true, func() any {
		seen, err := a.ListTopics(t, made)
		t.must(err)
		return errors.Is(seen[made].Err, kerr.UnknownTopicOrPartition)
	})
}

func config(t *T, a *kadm.Client, topic, key string) string {
	seen := value[kadm.ResourceConfigs](t)(a.DescribeTopicConfigs(t, topic))
	t.must(seen[0].Err)
	for _, c := range seen[0].Configs {
		if c.Key == key {
			return fmt.Sprint(c.MaybeValue(), " ", c.Source)
		}
	}
	return "none"
}

func franzConfigs(t *T) {
	a := admin(t)
	made := topic(t, 1)
	t.equal("604800000 DEFAULT_CONFIG", config(t, a, made, "retention.ms"))
	text := func(s string) *string { return &s }
	altered := value[kadm.AlterConfigsResponses](t)(a.AlterTopicConfigs(t, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "retention.ms", Value: text("5000")},
		{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: text("compact")}}, made))
	t.must(altered[0].Err)
	t.eventually("5000 DYNAMIC_TOPIC_CONFIG", func() any { return config(t, a, made, "retention.ms") })
	t.equal("delete,compact DYNAMIC_TOPIC_CONFIG", config(t, a, made, "cleanup.policy"))
	bad := value[kadm.AlterConfigsResponses](t)(a.ValidateAlterTopicConfigs(t, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "retention.ms", Value: text("soon")}}, made))
	if !errors.Is(bad[0].Err, kerr.InvalidConfig) {
		t.fail("%v", bad[0].Err)
	}
	state := value[kadm.AlterConfigsResponses](t)(a.AlterTopicConfigsState(t, []kadm.AlterConfig{
		{Name: "retention.ms", Value: text("6000")}}, made))
	t.must(state[0].Err)
	t.eventually("6000 DYNAMIC_TOPIC_CONFIG", func() any { return config(t, a, made, "retention.ms") })
	t.equal("delete DEFAULT_CONFIG", config(t, a, made, "cleanup.policy"))
	brokers := value[kadm.BrokerDetails](t)(a.ListBrokers(t))
	seen := value[kadm.ResourceConfigs](t)(a.DescribeBrokerConfigs(t, brokers.NodeIDs()...))
	t.must(seen[0].Err)
	if len(seen[0].Configs) < 100 {
		t.fail("only %d settings of a broker", len(seen[0].Configs))
	}
}

func franzOffsets(t *T) {
	a := admin(t)
	made := topic(t, 3)
	for p := range int32(3) {
		fill(t, made, p, 0, int(p)+1)
	}
	starts := value[kadm.ListedOffsets](t)(a.ListStartOffsets(t, made))
	ends := value[kadm.ListedOffsets](t)(a.ListEndOffsets(t, made))
	stable := value[kadm.ListedOffsets](t)(a.ListCommittedOffsets(t, made))
	for p := range int32(3) {
		start, _ := starts.Lookup(made, p)
		end, _ := ends.Lookup(made, p)
		committed, _ := stable.Lookup(made, p)
		t.equal([]int64{0, int64(p) + 1, int64(p) + 1}, []int64{start.Offset, end.Offset, committed.Offset})
		ask := kadm.OffsetForLeaderEpochRequest{}
		ask.Add(made, p, end.LeaderEpoch)
		epochs := value[kadm.OffsetsForLeaderEpochs](t)(a.OffsetForLeaderEpoch(t, ask))
		t.equal(int64(p)+1, epochs[made][p].EndOffset)
	}
}

func franzGroups(t *T) {
	a := admin(t)
	made, group := topic(t, 2), name("g")
	fill(t, made, 0, 0, 10)
	m := join(t, group, made, kgo.ClientID("first"))
	t.eventually(10, func() any { return len(m.read()) })
	seen := value[kadm.DescribedGroups](t)(a.DescribeGroups(t, group))
	t.must(seen[group].Err)
	t.equal("Stable", seen[group].State)
	t.equal(1, len(seen[group].Members))
	t.equal("first", seen[group].Members[0].ClientID)
	listed := value[kadm.ListedGroups](t)(a.ListGroups(t, "Stable"))
	t.equal("Stable", listed[group].State)
	t.eventually(int64(0), func() any {
		lags, err := a.Lag(t, group)
		t.must(err)
		return lags[group].Lag.Total()
	})
	busy := value[kadm.DeleteGroupResponses](t)(a.DeleteGroups(t, group))
	if !errors.Is(busy[group].Err, kerr.NonEmptyGroup) {
		t.fail("%v", busy[group].Err)
	}
	m.leave()
	offsets := kadm.Offsets{}
	offsets.AddOffset(made, 0, 3, -1)
	t.must(a.CommitAllOffsets(t, group, offsets))
	at, _ := value[kadm.OffsetResponses](t)(a.FetchOffsets(t, group)).Lookup(made, 0)
	t.equal(int64(3), at.At)
	many := a.FetchManyOffsets(t, group, name("nobody"))
	t.must(many[group].Err)
	set := kadm.TopicsSet{}
	set.Add(made, 0)
	dropped := value[kadm.DeleteOffsetsResponses](t)(a.DeleteOffsets(t, group, set))
	t.must(dropped.Error())
	gone := value[kadm.DeleteGroupResponses](t)(a.DeleteGroups(t, group))
	t.must(gone[group].Err)
}

func franzAdminTransactions(t *T) {
	a := admin(t)
	made, id := topic(t, 1), name("t")
	client := transactional(t, id)
	t.must(client.BeginTransaction())
	put(t, client, made, 0, "a")
	seen := value[kadm.DescribedTransactions](t)(a.DescribeTransactions(t, id))
	t.must(seen[id].Err)
	t.equal("Ongoing", seen[id].State)
	t.equal(1, len(seen[id].Topics))
	listed := value[kadm.ListedTransactions](t)(a.ListTransactions(t, nil, []string{"Ongoing"}))
	t.equal("Ongoing", listed[id].State)
	set := kadm.TopicsSet{}
	set.Add(made, 0)
	producers := value[kadm.DescribedProducersTopics](t)(a.DescribeProducers(t, set))
	t.equal(1, len(producers[made].Partitions[0].ActiveProducers))
	for _, p := range producers[made].Partitions[0].ActiveProducers {
		t.equal(int64(0), p.CurrentTxnStartOffset)
		t.equal(seen[id].ProducerID, p.ProducerID)
	}
	t.must(client.EndTransaction(t, kgo.TryCommit))
	t.eventually("CompleteCommit", func() any {
		return value[kadm.DescribedTransactions](t)(a.DescribeTransactions(t, id))[id].State
	})
}

func franzMarkers(t *T) {
	a := admin(t)
	made, id := topic(t, 1), name("t")
	client := transactional(t, id, kgo.TransactionTimeout(10*time.Minute))
	t.must(client.BeginTransaction())
	put(t, client, made, 0, "hanging")
	seen := value[kadm.DescribedTransactions](t)(a.DescribeTransactions(t, id))[id]
	set := kadm.TopicsSet{}
	set.Add(made, 0)
	answer, err := a.WriteTxnMarkers(t, kadm.TxnMarkers{ProducerID: seen.ProducerID, ProducerEpoch: seen.ProducerEpoch,
		Commit: false, CoordinatorEpoch: 0, Topics: set})
	t.must(err)
	t.equal(1, len(answer))
	t.eventually([]string{}, func() any { return committed(t, made) })
}

func franzCluster(t *T) {
	a := admin(t)
	seen := value[kadm.Metadata](t)(a.BrokerMetadata(t))
	if seen.Cluster == "" || len(seen.Brokers) == 0 || seen.Controller < 0 {
		t.fail("%+v", seen)
	}
	made := topic(t, 1)
	fill(t, made, 0, 0, 10)
	dirs := value[kadm.DescribedAllLogDirs](t)(a.DescribeAllLogDirs(t, nil))
	size := int64(0)
	dirs.Each(func(d kadm.DescribedLogDir) {
		t.must(d.Err)
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if p.Topic == made {
				size += p.Size
			}
		})
	})
	if size == 0 {
		t.fail("the topic lies in no directory")
	}
	versions := value[kadm.BrokersApiVersions](t)(a.ApiVersions(t))
	versions.Each(func(v kadm.BrokerApiVersions) { t.must(v.Err) })
	found := a.FindGroupCoordinators(t, "a", "b", "c")
	t.equal(3, len(found))
	for _, each := range found {
		t.must(each.Err)
	}
	for _, each := range a.FindTxnCoordinators(t, "a", "b") {
		t.must(each.Err)
	}
}

func franzReassign(t *T) {
	a := admin(t)
	made := topic(t, 1)
	brokers := value[kadm.BrokerDetails](t)(a.ListBrokers(t))
	ask := kadm.AlterPartitionAssignmentsReq{}
	ask.Assign(made, 0, brokers.NodeIDs()[:1])
	answer := value[kadm.AlterPartitionAssignmentsResponses](t)(a.AlterPartitionAssignments(t, ask))
	t.must(answer.Error())
	set := kadm.TopicsSet{}
	set.Add(made, 0)
	t.eventually(0, func() any {
		return len(value[kadm.ListPartitionReassignmentsResponses](t)(a.ListPartitionReassignments(t, set)))
	})
	elected := value[kadm.ElectLeadersResults](t)(a.ElectLeaders(t, kadm.ElectPreferredReplica, set))
	if err := elected[made][0].Err; !errors.Is(err, kerr.ElectionNotNeeded) {
		t.fail("%v", err)
	}
}

func franzFeatures(t *T) {
	a := admin(t)
	answer, err := a.UpdateFeatures(t, true, kadm.FeatureUpdate{Feature: "group.version", MaxVersionLevel: 99,
		UpgradeType: 1})
	if err == nil {
		err = answer["group.version"].Err
	}
	if err == nil {
		t.fail("a feature beyond what is supported was accepted")
	}
}

func franzShare(t *T) {
	made, group := topic(t, 1), name("s")
	fill(t, made, 0, 0, 100)
	setting := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	entry := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	entry.Name, entry.Value = "share.auto.offset.reset", kmsg.StringPtr("earliest")
	resource.Configs = append(resource.Configs, entry)
	setting.Resources = append(setting.Resources, resource)
	answer, err := setting.RequestWith(t, franz(t))
	t.must(err)
	t.must(kerr.ErrorForCode(answer.Resources[0].ErrorCode))
	one := franz(t, kgo.ShareGroup(group), kgo.ConsumeTopics(made))
	seen := poll(t, one, 100)
	t.equal(100, len(seen))
	slices.SortFunc(seen, func(x, y *kgo.Record) int { return int(x.Offset - y.Offset) })
	t.equal(numbers(0, 100), values(seen))
}
