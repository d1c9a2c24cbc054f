"""kafka-python against a broker: python interop.py HOST:PORT"""

import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition  # noqa: E402
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType, OffsetSpec  # noqa: E402
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor  # noqa: E402
from kafka.coordinator.assignors.range import RangePartitionAssignor  # noqa: E402
from kafka.errors import (  # noqa: E402
    InvalidPartitionsError, InvalidTopicError, KafkaError, MessageSizeTooLargeError, OffsetOutOfRangeError,
    TopicAlreadyExistsError, UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata  # noqa: E402
from common import DEADLINE_S, Deadline, bootstrap, equal, eventually, name, records, run  # noqa: E402

SERVER = bootstrap()
ADMIN = KafkaAdminClient(bootstrap_servers=SERVER)


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error:
        return
    raise AssertionError(f"the broker accepted what it had to refuse with {error.__name__}")


def create(partitions=1, **config):
    topic = name("kafka-python")
    ADMIN.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1, "configs": config}},
                        wait_for_metadata=True)
    return topic


def produce(topic, items, partition=None, **config):
    producer = KafkaProducer(bootstrap_servers=SERVER, **config)
    try:
        futures = []
        for key, value, headers, *timestamp in items:
            extra = {"timestamp_ms": timestamp[0]} if timestamp else {}
            futures.append(producer.send(topic, value, key, headers=headers, partition=partition, **extra))
        producer.flush(DEADLINE_S)
        return [(m.partition, m.offset) for m in (f.get(DEADLINE_S) for f in futures)]
    finally:
        producer.close(timeout=DEADLINE_S)


def items(count=120, big=200_000):
    # This client refuses headers that are null.
    return [(k, v, [(n, h) for n, h in headers if h is not None]) for k, v, headers in records(count, big)]


def consume(topic, count, partitions=(0,), **config):
    consumer = KafkaConsumer(bootstrap_servers=SERVER, auto_offset_reset="earliest", check_crcs=True, **config)
    try:
        consumer.assign([TopicPartition(topic, p) for p in partitions])
        return poll(consumer, count)
    finally:
        consumer.close()


def poll(consumer, count, at_most=500):
    seen, deadline = [], Deadline()
    while len(seen) < count and deadline.check(lambda: f"{count} records, there were {len(seen)}"):
        for batch in consumer.poll(timeout_ms=500, max_records=min(at_most, count - len(seen))).values():
            seen.extend(batch)
    return seen


def plain(message):
    return message.key, message.value, list(message.headers)


def case_admin():
    topic = name("kafka-python")
    spec = {topic: {"num_partitions": 3, "replication_factor": 1, "configs": {"retention.ms": "7200000"}}}
    ADMIN.create_topics(spec, wait_for_metadata=True)
    refused(TopicAlreadyExistsError, ADMIN.create_topics, spec)
    refused(InvalidTopicError, ADMIN.create_topics, {"no/such name": {}})
    refused(UnknownTopicOrPartitionError, ADMIN.delete_topics, [name("missing")])
    only = name("only-validated")
    ADMIN.create_topics({only: {}}, validate_only=True)
    listed = ADMIN.list_topics()
    equal((topic in listed, only in listed), (True, False), "the topics listed")
    described = ADMIN.describe_topics([topic])[0]
    equal(len(described["partitions"]), 3, "partitions")
    equal(len(ADMIN.describe_cluster()["brokers"]) >= 1, True, "brokers")

    def config(**options):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        return ADMIN.describe_configs([resource], **options)["topic"][topic]
    equal(config()["retention.ms"]["value"], "7200000", "retention.ms")
    equal("cleanup.policy" in config(), False, "a default is listed as modified")
    equal(config(config_filter="all")["cleanup.policy"]["value"], "delete", "cleanup.policy")
    change = {"retention.ms": "3600000", "cleanup.policy": (AlterConfigOp.APPEND, "compact")}
    ADMIN.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=change)])
    eventually(lambda: config().get("retention.ms", {}).get("value"), "3600000", "retention.ms after the change")
    eventually(lambda: config().get("cleanup.policy", {}).get("value"), "delete,compact", "cleanup.policy after the change")
    ADMIN.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"segment.bytes": "2000000"})],
                        incremental=False)
    eventually(lambda: config().get("segment.bytes", {}).get("value"), "2000000", "segment.bytes, altered in the old way")
    ADMIN.reset_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=["retention.ms"])])
    eventually(lambda: "retention.ms" in config(), False, "retention.ms after its reset")

    ADMIN.create_partitions({topic: 5})
    ADMIN.wait_for_topics([topic])
    eventually(lambda: len(ADMIN.describe_topics([topic])[0]["partitions"]), 5, "partitions after adding")
    refused(InvalidPartitionsError, ADMIN.create_partitions, {topic: 2})
    equal(len(ADMIN.describe_topic_partitions([topic])["topics"][0]["partitions"]), 5, "partitions, by their own API")
    ADMIN.delete_topics([topic])
    deadline = Deadline()
    while topic in ADMIN.list_topics() and deadline.check("the topic to go"):
        pass


def compression(codec):
    def case():
        topic, sent = create(), items()
        where = produce(topic, sent, compression_type=codec, linger_ms=5)
        equal(where, [(0, i) for i in range(len(sent))], "offsets")
        seen = consume(topic, len(sent))
        equal([plain(m) for m in seen], sent, "records")
        equal([m.offset for m in seen], list(range(len(sent))), "offsets read")
    case.__name__ = f"case_compression_{codec or 'none'}"
    return case


def case_acks():
    for acks in (0, 1, "all"):
        topic, sent = create(), items(40, big=1_000)
        produce(topic, sent, acks=acks, enable_idempotence=False)
        equal([plain(m) for m in consume(topic, len(sent))], sent, f"records with acks={acks}")


def case_idempotent():
    topic, sent = create(3), items(300, big=1_000)
    where = produce(topic, sent, enable_idempotence=True, batch_size=500)
    equal(len(set(where)), len(sent), "distinct positions")
    seen = consume(topic, len(sent), partitions=range(3))
    equal(sorted(map(repr, map(plain, seen))), sorted(map(repr, sent)), "records")


def case_too_large():
    topic = create(**{"max.message.bytes": "20000"})
    refused(MessageSizeTooLargeError, produce, topic, [(None, bytes(50_000), [])])
    produce(topic, [(None, b"small", [])])


class Member(threading.Thread):
    """A member of a group that reads until it is told to leave; the client commits before it gives a partition up."""

    def __init__(self, group, topic, assignor):
        super().__init__(daemon=True)
        self.seen, self.assigned, self.leave, self.error = [], set(), threading.Event(), None
        self.topic, self.group = topic, group
        self.consumer = KafkaConsumer(
            bootstrap_servers=SERVER, group_id=group, auto_offset_reset="earliest", enable_auto_commit=True,
            auto_commit_interval_ms=200, session_timeout_ms=10_000, heartbeat_interval_ms=300,
            metadata_max_age_ms=2_000,  # a leader that joins before it knows the topic assigns nothing until then
            partition_assignment_strategy=[assignor])

    def run(self):
        try:
            self.consumer.subscribe([self.topic])
            while not self.leave.is_set():
                for batch in self.consumer.poll(timeout_ms=100).values():
                    self.seen.extend((m.partition, m.offset) for m in batch)
                self.assigned = {p.partition for p in self.consumer.assignment()}
            self.consumer.close()
        except BaseException as error:  # noqa: BLE001 - shown by whoever waits for this member
            self.error = error


def wait(members, condition, what):
    deadline = Deadline()
    while not condition():
        deadline.check(lambda: f"{what}; assigned {[sorted(m.assigned) for m in members]}, "
                               f"read {[len(m.seen) for m in members]}; "
                               f"{ADMIN.describe_groups([members[0].group])}")
        for member in members:
            if member.error:
                raise member.error
        time.sleep(0.01)


def rebalance(assignor):
    def case():
        topic, group, parts = create(4), name("group"), 4
        for p in range(parts):
            produce(topic, [(None, b"%d" % i, []) for i in range(50)], partition=p)
        first = Member(group, topic, assignor)
        first.start()
        wait([first], lambda: len(first.assigned) == parts and len(first.seen) == 200, "one member to read all")
        second = Member(group, topic, assignor)
        second.start()
        both = [first, second]
        wait(both, lambda: len(first.assigned) == 2 and len(second.assigned) == 2
             and not first.assigned & second.assigned, "two partitions each")
        for p in range(parts):
            produce(topic, [(None, b"%d" % i, []) for i in range(50)], partition=p)
        everything = {(p, o) for p in range(parts) for o in range(100)}
        wait(both, lambda: set(first.seen) | set(second.seen) == everything, "both to read all between them")
        first.leave.set()
        first.join(DEADLINE_S)
        wait([second], lambda: len(second.assigned) == parts, "the partitions of the member that left")
        for p in range(parts):
            produce(topic, [(None, b"last", [])], partition=p)
        everything |= {(p, 100) for p in range(parts)}
        wait([second], lambda: set(first.seen) | set(second.seen) == everything, "the last records")
        second.leave.set()
        second.join(DEADLINE_S)
        wait(both, lambda: True, "the members' own errors")
    case.__name__ = f"case_group_rebalance_{assignor.name}"
    return case


def case_commit_and_resume():
    topic, group = create(), name("group")
    part = TopicPartition(topic, 0)
    produce(topic, [(None, b"%d" % i, []) for i in range(100)])
    config = {"bootstrap_servers": SERVER, "group_id": group, "auto_offset_reset": "earliest",
              "enable_auto_commit": False}
    consumer = KafkaConsumer(topic, **config)
    poll(consumer, 40)
    consumer.commit({part: OffsetAndMetadata(40, "half-way", -1)})
    consumer.close()
    consumer = KafkaConsumer(topic, **config)
    seen = poll(consumer, 60)
    equal([m.offset for m in seen], list(range(40, 100)), "offsets after resuming")
    committed = consumer.committed(part, metadata=True)
    equal((committed.offset, committed.metadata), (40, "half-way"), "the committed offset and its metadata")
    consumer.close()
    never = KafkaConsumer(**{**config, "group_id": name("never")})
    equal(never.committed(part), None, "no offset was committed")
    never.close()


def case_time_lookup():
    topic = create()
    part = TopicPartition(topic, 0)
    produce(topic, [(None, b"x", [], 1_600_000_000_000 + i * 1000) for i in range(20)])
    consumer = KafkaConsumer(bootstrap_servers=SERVER)
    def at(timestamp):
        found = consumer.offsets_for_times({part: timestamp})[part]
        return found and found.offset
    equal(at(1_600_000_000_000), 0, "the first record's time")
    equal(at(1_600_000_004_500), 5, "between two records")
    equal(at(1_600_000_019_000), 19, "the last record's time")
    equal(at(1_700_000_000_000), None, "past the end")
    equal(consumer.beginning_offsets([part])[part], 0, "beginning")
    equal(consumer.end_offsets([part])[part], 20, "end")
    consumer.close()
    found = ADMIN.list_partition_offsets({part: OffsetSpec.MAX_TIMESTAMP})[part]
    equal(found.offset, 19, "max timestamp")


def case_group_admin():
    topic, group = create(2), name("group")
    for p in range(2):
        produce(topic, [(None, b"x", [])] * 10, partition=p)
    member = Member(group, topic, RangePartitionAssignor)
    member.start()
    wait([member], lambda: len(member.seen) == 20, "the member to read")
    described = ADMIN.describe_groups([group])[group]
    equal(str(described["group_state"]).split(".")[-1].upper(), "STABLE", "state")
    equal(len(described["members"]), 1, "members")
    equal(ADMIN.delete_groups([group])[group], "NonEmptyGroupError", "deleting a group with a member")
    member.leave.set()
    member.join(DEADLINE_S)
    equal(group in [g["group_id"] for g in ADMIN.list_groups()], True, "the group is listed")
    def offsets():
        found = ADMIN.list_group_offsets([group])[group]
        return sorted((p.partition, o.offset) for p, o in found.items() if o.offset >= 0)
    equal(offsets(), [(0, 10), (1, 10)], "its offsets")
    ADMIN.alter_group_offsets(group, {TopicPartition(topic, 1): OffsetAndMetadata(3, "", -1)})
    equal(offsets(), [(0, 10), (1, 3)], "altered offsets")
    ADMIN.delete_group_offsets(group, [TopicPartition(topic, 1)])
    equal(offsets(), [(0, 10)], "offsets after one was deleted")
    equal(ADMIN.delete_groups([group])[group], "OK", "deleting the group")
    equal(group in [g["group_id"] for g in ADMIN.list_groups()], False, "the deleted group is listed")


def case_delete_records():
    topic = create()
    part = TopicPartition(topic, 0)
    produce(topic, [(None, b"%d" % i, []) for i in range(30)])
    equal(ADMIN.delete_records({part: 12})[part]["low_watermark"], 12, "low watermark")
    equal([m.offset for m in consume(topic, 18)], list(range(12, 30)), "offsets left")
    try:
        beyond = ADMIN.delete_records({part: 99})[part]
        equal(beyond.get("error_code"), OffsetOutOfRangeError.errno, "deleting past the end")
    except KafkaError as error:
        equal("OffsetOutOfRange" in f"{type(error).__name__} {error}", True, f"deleting past the end: {error!r}")


run([
    case_admin, *(compression(c) for c in (None, "gzip", "snappy", "lz4", "zstd")), case_acks, case_idempotent,
    case_too_large, rebalance(RangePartitionAssignor), rebalance(CooperativeStickyAssignor),
    case_commit_and_resume, case_time_lookup, case_group_admin, case_delete_records,
])
