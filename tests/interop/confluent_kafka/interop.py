"""confluent-kafka (librdkafka) against a broker: python interop.py HOST:PORT"""

import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))

from confluent_kafka import (  # noqa: E402
    OFFSET_BEGINNING, Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition,
)
from confluent_kafka.admin import (  # noqa: E402
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
)
from common import DEADLINE_S, Deadline, bootstrap, equal, eventually, name, records, run, with_new_groups, with_transactions  # noqa: E402

SERVER = bootstrap()
ADMIN = AdminClient({"bootstrap.servers": SERVER, "socket.timeout.ms": 30_000})


def get(futures):
    return {key: future.result(DEADLINE_S) for key, future in futures.items()}


def refused(future):
    try:
        future.result(DEADLINE_S)
    except KafkaException as error:
        return error.args[0].code()
    raise AssertionError("the broker accepted what it had to refuse")


def create(partitions=1, **config):
    topic = name("confluent")
    get(ADMIN.create_topics([NewTopic(topic, partitions, 1, config=config)]))
    return topic


def produce(topic, items, partition=None, config=None):
    """Sends all, and gives the delivered (partition, offset) of each."""
    errors, where = [], [None] * len(items)
    producer = Producer({"bootstrap.servers": SERVER, "linger.ms": 5, "message.timeout.ms": 30_000, **(config or {})})
    for index, (key, value, headers, *timestamp) in enumerate(items):
        def delivered(error, message, index=index):
            if error:
                errors.append(error)
            else:
                where[index] = (message.partition(), message.offset())
        extra = {"timestamp": timestamp[0]} if timestamp else {}
        if partition is not None:
            extra["partition"] = partition
        producer.produce(topic, value, key, headers=headers, on_delivery=delivered, **extra)
    equal(producer.flush(DEADLINE_S), 0, "records left in the producer")
    equal(errors, [], "delivery errors")
    return where


def consume(topic, count, partitions=(0,), group=None, config=None):
    consumer = Consumer({
        "bootstrap.servers": SERVER, "group.id": group or name("reader"), "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "check.crcs": True, **(config or {})})
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        return poll(consumer, count)
    finally:
        consumer.close()


def poll(consumer, count):
    seen, deadline = [], Deadline()
    while len(seen) < count and deadline.check(lambda: f"{count} records, there were {len(seen)}"):
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        seen.append(message)
    return seen


def plain(message):
    return message.key(), message.value(), message.headers() or []


def case_admin():
    topic = name("confluent")
    get(ADMIN.create_topics([NewTopic(topic, 3, 1, config={"retention.ms": "7200000"})]))
    again = ADMIN.create_topics([NewTopic(topic, 3, 1)])[topic]
    equal(refused(again), KafkaError.TOPIC_ALREADY_EXISTS, "creating it again")
    bad = ADMIN.create_topics([NewTopic("no/such name", 1, 1)])["no/such name"]
    equal(refused(bad), KafkaError.TOPIC_EXCEPTION, "an invalid name")
    bad = ADMIN.create_topics([NewTopic(name("x"), 1, 1, config={"no.such.config": "1"})])
    equal(refused(next(iter(bad.values()))), KafkaError.INVALID_CONFIG, "an unknown config")
    only = name("only-validated")
    get(ADMIN.create_topics([NewTopic(only, 1, 1)], validate_only=True))
    eventually(lambda: len(ADMIN.list_topics(topic, timeout=30).topics[topic].partitions), 3, "partitions")
    listed = ADMIN.list_topics(timeout=30)
    equal(only in listed.topics, False, "a topic that was only validated exists")
    equal(len(listed.brokers) >= 1 and listed.cluster_id is not None, True, "brokers and cluster id")
    cluster = ADMIN.describe_cluster().result(DEADLINE_S)
    equal(len(cluster.nodes) >= 1 and cluster.controller is not None, True, "nodes and controller")

    resource = ConfigResource(ResourceType.TOPIC, topic)
    def config():
        return next(iter(get(ADMIN.describe_configs([resource])).values()))
    seen = config()
    equal(seen["retention.ms"].value, "7200000", "retention.ms")
    equal(seen["cleanup.policy"].value, "delete", "cleanup.policy")
    equal(seen["cleanup.policy"].is_default and not seen["retention.ms"].is_default, True, "which are defaults")
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND)])
    get(ADMIN.incremental_alter_configs([change]))
    eventually(lambda: config()["retention.ms"].value, "3600000", "retention.ms after the change")
    equal(config()["cleanup.policy"].value, "delete,compact", "cleanup.policy after the change")
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE)])
    get(ADMIN.incremental_alter_configs([change]))
    eventually(lambda: config()["retention.ms"].value, "604800000", "retention.ms back at its default")
    broker = ConfigResource(ResourceType.BROKER, str(next(iter(listed.brokers))))
    equal("log.retention.ms" in next(iter(get(ADMIN.describe_configs([broker])).values())), True, "a broker's config")

    get(ADMIN.create_partitions([NewPartitions(topic, 5)]))
    eventually(lambda: len(ADMIN.list_topics(topic, timeout=30).topics[topic].partitions), 5, "partitions after adding")
    fewer = ADMIN.create_partitions([NewPartitions(topic, 2)])[topic]
    equal(refused(fewer), KafkaError.INVALID_PARTITIONS, "fewer partitions")
    get(ADMIN.delete_topics([topic]))
    deadline = Deadline()
    while topic in ADMIN.list_topics(timeout=30).topics and deadline.check("the topic to go"):
        pass
    again = ADMIN.delete_topics([topic])[topic]
    equal(refused(again), KafkaError.UNKNOWN_TOPIC_OR_PART, "deleting it again")


def compression(codec):
    def case():
        topic, items = create(), records()
        where = produce(topic, items, config={"compression.type": codec, "batch.num.messages": 40})
        equal(where, [(0, i) for i in range(len(items))], "offsets")
        seen = consume(topic, len(items))
        equal([plain(m) for m in seen], items, "records")
        equal([m.offset() for m in seen], list(range(len(items))), "offsets read")
    case.__name__ = f"case_compression_{codec}"
    return case


def case_acks():
    for acks in ("0", "1", "all"):
        topic, items = create(), records(40, big=1_000)
        produce(topic, items, config={"acks": acks})
        equal([plain(m) for m in consume(topic, len(items))], items, f"records with acks={acks}")


def case_idempotent():
    topic, items = create(3), records(300, big=1_000)
    where = produce(topic, items, config={"enable.idempotence": True, "batch.num.messages": 10})
    equal(len(set(where)), len(items), "distinct positions")
    seen = consume(topic, len(items), partitions=range(3))
    equal(sorted(map(repr, map(plain, seen))), sorted(map(repr, items)), "records")


def case_too_large():
    topic = create(**{"max.message.bytes": "20000"})
    try:
        produce(topic, [(None, bytes(50_000), [])])
    except AssertionError as error:
        equal("MSG_SIZE_TOO_LARGE" in str(error), True, f"the error of a record that is too large ({error})")
    else:
        raise AssertionError("a record larger than max.message.bytes was accepted")
    produce(topic, [(None, b"small", [])])


class Member(threading.Thread):
    """A member of a group that reads until it is told to leave."""

    def __init__(self, group, topic, strategy):
        super().__init__(daemon=True)
        self.seen, self.assigned, self.leave, self.error = [], set(), threading.Event(), None
        self.changes = 0
        self.consumer = Consumer({
            "bootstrap.servers": SERVER, "group.id": group, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 10_000, "heartbeat.interval.ms": 500,
            "partition.assignment.strategy": strategy})
        cooperative = strategy.startswith("cooperative")
        def on_assign(consumer, parts):
            self.changes += 1
            self.assigned |= {p.partition for p in parts}
            (consumer.incremental_assign if cooperative else consumer.assign)(parts)
        def on_revoke(consumer, parts):
            self.changes += 1
            self.commit()
            self.assigned -= {p.partition for p in parts}
            if cooperative:
                consumer.incremental_unassign(parts)
            else:
                consumer.unassign()
        self.consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke)

    def commit(self):
        positions = [p for p in self.consumer.position(self.consumer.assignment()) if p.offset >= 0]
        if positions:
            self.consumer.commit(offsets=positions, asynchronous=False)

    def run(self):
        try:
            while not self.leave.is_set():
                message = self.consumer.poll(0.1)
                if message is not None and not message.error():
                    self.seen.append((message.partition(), message.offset()))
            self.consumer.close()
        except BaseException as error:  # noqa: BLE001 - shown by whoever waits for this member
            self.error = error


def wait(members, condition, what):
    deadline = Deadline()
    while not condition():
        deadline.check(lambda: f"{what}; assigned {[sorted(m.assigned) for m in members]}, "
                               f"read {[len(m.seen) for m in members]}")
        for member in members:
            if member.error:
                raise member.error
        time.sleep(0.01)


def rebalance(strategy):
    def case():
        topic, group, parts = create(4), name("group"), 4
        for p in range(parts):
            produce(topic, [(None, b"%d" % i, []) for i in range(50)], partition=p)
        first = Member(group, topic, strategy)
        first.start()
        wait([first], lambda: len(first.assigned) == parts and len(first.seen) == 200, "one member to read all")
        second = Member(group, topic, strategy)
        second.start()
        both = [first, second]
        wait(both, lambda: len(first.assigned) == 2 and len(second.assigned) == 2
             and not first.assigned & second.assigned, "two partitions each")
        for p in range(parts):
            produce(topic, [(None, b"%d" % i, []) for i in range(50)], partition=p)
        everything = {(p, o) for p in range(parts) for o in range(100)}
        wait(both, lambda: set(first.seen) | set(second.seen) == everything, "both to read all between them")
        equal(len(first.seen) + len(second.seen), 400, "records read, none twice")
        first.leave.set()
        first.join(DEADLINE_S)
        wait([second], lambda: len(second.assigned) == parts, "the partitions of the member that left")
        for p in range(parts):
            produce(topic, [(None, b"last", [])], partition=p)
        everything |= {(p, 100) for p in range(parts)}
        wait([second], lambda: set(first.seen) | set(second.seen) == everything, "the last records")
        second.leave.set()
        second.join(DEADLINE_S)
    case.__name__ = f"case_group_rebalance_{strategy}"
    return case


def case_commit_and_resume():
    topic, group, items = create(), name("group"), [(None, b"%d" % i, []) for i in range(100)]
    produce(topic, items)
    config = {"bootstrap.servers": SERVER, "group.id": group, "auto.offset.reset": "earliest",
              "enable.auto.commit": False}
    consumer = Consumer(config)
    consumer.subscribe([topic])
    poll(consumer, 40)
    consumer.commit(offsets=[TopicPartition(topic, 0, 40, metadata="half-way")], asynchronous=False)
    consumer.close()
    consumer = Consumer(config)
    consumer.subscribe([topic])
    seen = poll(consumer, 60)
    equal([m.offset() for m in seen], list(range(40, 100)), "offsets after resuming")
    committed = consumer.committed([TopicPartition(topic, 0)], timeout=30)[0]
    equal((committed.offset, committed.metadata), (40, "half-way"), "the committed offset and its metadata")
    consumer.close()
    never = Consumer({**config, "group.id": name("never")})
    equal(never.committed([TopicPartition(topic, 0)], timeout=30)[0].offset, -1001, "no offset was committed")
    never.close()


def case_time_lookup():
    topic = create()
    produce(topic, [(None, b"x", [], 1_600_000_000_000 + i * 1000) for i in range(20)])
    consumer = Consumer({"bootstrap.servers": SERVER, "group.id": name("group")})
    def at(timestamp):
        return consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], timeout=30)[0].offset
    equal(at(1_600_000_000_000), 0, "the first record's time")
    equal(at(1_600_000_004_500), 5, "between two records")
    equal(at(1_600_000_019_000), 19, "the last record's time")
    equal(at(1_700_000_000_000), -1, "past the end")
    equal(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30), (0, 20), "watermarks")
    consumer.close()
    part = TopicPartition(topic, 0)
    def spec(spec):
        return get(ADMIN.list_offsets({part: spec}))[part].offset
    equal(spec(OffsetSpec.earliest()), 0, "earliest")
    equal(spec(OffsetSpec.latest()), 20, "latest")
    equal(spec(OffsetSpec.max_timestamp()), 19, "max timestamp")
    equal(spec(OffsetSpec.for_timestamp(1_600_000_010_000)), 10, "by time")


def case_group_admin():
    topic, group = create(2), name("group")
    for p in range(2):
        produce(topic, [(None, b"x", [])] * 10, partition=p)
    member = Member(group, topic, "range")
    member.start()
    wait([member], lambda: len(member.seen) == 20, "the member to read")
    described = get(ADMIN.describe_consumer_groups([group]))[group]
    equal(described.state.name, "STABLE", "state")
    equal(len(described.members), 1, "members")
    equal(sorted(p.partition for p in described.members[0].assignment.topic_partitions), [0, 1], "its assignment")
    try:
        get(ADMIN.delete_consumer_groups([group]))
        raise AssertionError("a group with a member was deleted")
    except KafkaException as error:
        equal(error.args[0].code(), KafkaError.NON_EMPTY_GROUP, "deleting a group with a member")
    member.leave.set()
    member.join(DEADLINE_S)
    listed = ADMIN.list_consumer_groups().result(DEADLINE_S)
    equal(group in [g.group_id for g in listed.valid], True, "the group is listed")
    offsets = get(ADMIN.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))[group]
    equal(sorted((p.partition, p.offset) for p in offsets.topic_partitions), [(0, 10), (1, 10)], "its offsets")
    change = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 1, 3)])
    get(ADMIN.alter_consumer_group_offsets([change]))
    offsets = get(ADMIN.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))[group]
    equal(sorted((p.partition, p.offset) for p in offsets.topic_partitions), [(0, 10), (1, 3)], "altered offsets")
    get(ADMIN.delete_consumer_groups([group]))
    listed = ADMIN.list_consumer_groups().result(DEADLINE_S)
    equal(group in [g.group_id for g in listed.valid], False, "the deleted group is listed")


def case_delete_records():
    topic = create()
    produce(topic, [(None, b"%d" % i, []) for i in range(30)])
    part = TopicPartition(topic, 0, 12)
    equal(get(ADMIN.delete_records([part]))[part].low_watermark, 12, "low watermark")
    seen = consume(topic, 18)
    equal([m.offset() for m in seen], list(range(12, 30)), "offsets left")
    beyond = next(iter(ADMIN.delete_records([TopicPartition(topic, 0, 99)]).values()))
    equal(refused(beyond), KafkaError.OFFSET_OUT_OF_RANGE, "deleting past the end")


def case_read_committed():
    topic, items = create(), records(30, big=1_000)
    produce(topic, items)
    seen = consume(topic, len(items), config={"isolation.level": "read_committed"})
    equal([plain(m) for m in seen], items, "records, read committed")


def transactional(identity, **config):
    producer = Producer({
        "bootstrap.servers": SERVER, "transactional.id": identity, "linger.ms": 5, "error_cb": lambda _: None,
        "log_level": 0, **config})
    producer.init_transactions(DEADLINE_S)
    return producer


def committed(topic, count):
    seen = consume(topic, count, config={"isolation.level": "read_committed"})
    return [m.value() for m in seen]


def case_transactions():
    topic, producer = create(), transactional(name("t"))
    expected = []
    for i in range(12):
        producer.begin_transaction()
        for j in range(3):
            producer.produce(topic, b"%d-%d" % (i, j), partition=0)
        if i % 3 == 0:
            producer.flush(DEADLINE_S)
            producer.abort_transaction(DEADLINE_S)
        else:
            producer.commit_transaction(DEADLINE_S)
            expected += [b"%d-%d" % (i, j) for j in range(3)]
    equal(committed(topic, len(expected)), expected, "what was committed")
    equal(len(consume(topic, 36, config={"isolation.level": "read_uncommitted"})), 36, "all records, dirty")


def case_transaction_fencing():
    topic, identity = create(), name("t")
    old = transactional(identity)
    old.begin_transaction()
    old.produce(topic, b"old", partition=0)
    old.flush(DEADLINE_S)
    young = transactional(identity)
    young.begin_transaction()
    young.produce(topic, b"young", partition=0)
    young.commit_transaction(DEADLINE_S)
    try:
        old.commit_transaction(DEADLINE_S)
    except KafkaException as error:
        equal(error.args[0].code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH), True, f"the error {error}")
    else:
        raise AssertionError("a zombie committed")
    equal(committed(topic, 1), [b"young"], "what was committed")


def exactly_once(protocol):
    def case():
        source, sink, group = create(), create(), name("g")
        produce(source, [(None, b"%d" % i, []) for i in range(100)], partition=0)
        producer = transactional(name("t"))
        consumer = Consumer({
            "bootstrap.servers": SERVER, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "isolation.level": "read_committed", "group.protocol": protocol})
        consumer.subscribe([source])
        done, turn, deadline = 0, 0, Deadline()
        while done < 100 and deadline.check(lambda: f"100 records, there were {done}"):
            messages = [m for m in consumer.consume(9, 1) if not m.error()]
            if not messages:
                continue
            turn += 1
            producer.begin_transaction()
            for message in messages:
                producer.produce(sink, message.value(), partition=0)
            at = [TopicPartition(source, 0, messages[-1].offset() + 1)]
            producer.send_offsets_to_transaction(at, consumer.consumer_group_metadata(), DEADLINE_S)
            if turn % 3 == 1:
                producer.abort_transaction(DEADLINE_S)
                consumer.seek(TopicPartition(source, 0, messages[0].offset()))
            else:
                producer.commit_transaction(DEADLINE_S)
                done += len(messages)
        consumer.close()
        equal(committed(sink, 100), [b"%d" % i for i in range(100)], "what came out")
        offsets = get(ADMIN.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))[group]
        equal([p.offset for p in offsets.topic_partitions], [100], "the group's offset")
    case.__name__ = f"case_exactly_once_{protocol}"
    return case


def case_new_groups():
    topic, group = create(4), name("g")
    config = {
        "bootstrap.servers": SERVER, "group.id": group, "group.protocol": "consumer", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "log_level": 0}
    one, two = Consumer(config), Consumer(config)

    def owned():
        for member in (one, two):
            member.poll(0.1)
        return [len(member.assignment()) for member in (one, two)]

    one.subscribe([topic])
    eventually(lambda: (one.poll(0.1), len(one.assignment()))[1], 4, "all for one")
    two.subscribe([topic])
    eventually(owned, [2, 2], "half each")
    one.close()
    eventually(lambda: (two.poll(0.1), len(two.assignment()))[1], 4, "all for the other")
    described = get(ADMIN.describe_consumer_groups([group]))[group]
    equal(len(described.members), 1, "members left")
    two.close()


run([
    case_admin, *(compression(c) for c in ("none", "gzip", "snappy", "lz4", "zstd")), case_acks, case_idempotent,
    case_too_large, rebalance("range"), rebalance("cooperative-sticky"), case_commit_and_resume, case_time_lookup,
    case_group_admin, case_delete_records, case_read_committed,
    *with_transactions(case_transactions, case_transaction_fencing, exactly_once("classic")),
    *with_new_groups(case_new_groups), *with_new_groups(*with_transactions(exactly_once("consumer"))),
])
