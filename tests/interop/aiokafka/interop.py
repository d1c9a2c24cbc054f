"""aiokafka against a broker: python interop.py HOST:PORT"""

import asyncio
import pathlib
import sys

# This folder is called like the package: keep it out of the way of the import.
HERE = pathlib.Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent / "python")

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition  # noqa: E402
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete  # noqa: E402
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # noqa: E402
from aiokafka.coordinator.assignors.range import RangePartitionAssignor  # noqa: E402
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor  # noqa: E402
from aiokafka.errors import (  # noqa: E402
    InvalidPartitionsError, InvalidTopicError, MessageSizeTooLargeError, TopicAlreadyExistsError,
    ProducerFenced, UnknownTopicOrPartitionError,
)
from aiokafka.structs import OffsetAndMetadata  # noqa: E402
from common import DEADLINE_S, Deadline, bootstrap, equal, name, records, run, with_transactions  # noqa: E402

SERVER = bootstrap()


class Admin:
    async def __aenter__(self):
        self.client = AIOKafkaAdminClient(bootstrap_servers=SERVER)
        await self.client.start()
        return self.client

    async def __aexit__(self, *_):
        await self.client.close()


def code(response):
    """The error of the only topic in an answer: (name, code, …) as the versions have it."""
    rows = getattr(response, "topic_errors", None) or response.topic_error_codes
    return rows[0][1]


async def create(admin, partitions=1, **config):
    topic = name("aiokafka")
    answer = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
    equal(code(answer), 0, "creating a topic")
    return topic


async def produce(topic, items, partition=None, **config):
    producer = AIOKafkaProducer(bootstrap_servers=SERVER, **config)
    await producer.start()
    try:
        futures = []
        for key, value, headers, *timestamp in items:
            extra = {"timestamp_ms": timestamp[0]} if timestamp else {}
            futures.append(await producer.send(topic, value, key, partition, headers=headers, **extra))
        done = await asyncio.wait_for(asyncio.gather(*futures), DEADLINE_S)
        return [(m.partition, m.offset) for m in done if m is not None]
    finally:
        await producer.stop()


def some(count=120, big=200_000):
    # This client sends neither a record without key and value, nor headers that are null.
    return [(k, v, [(n, h) for n, h in headers if h is not None]) for k, v, headers in records(count, big)]


async def eventually(ask, expected, what):
    """Asks until the answer is the expected one: metadata travels to the broker that answers."""
    deadline = Deadline()
    while (seen := await ask()) != expected:
        deadline.check(lambda: f"{what}: {seen} instead of {expected}")
        await asyncio.sleep(0.01)


async def consume(topic, count, partitions=(0,), **config):
    consumer = AIOKafkaConsumer(bootstrap_servers=SERVER, auto_offset_reset="earliest", check_crcs=True, **config)
    consumer.assign([TopicPartition(topic, p) for p in partitions])
    await consumer.start()
    try:
        return await poll(consumer, count)
    finally:
        await consumer.stop()


async def poll(consumer, count):
    seen, deadline = [], Deadline()
    while len(seen) < count and deadline.check(lambda: f"{count} records, there were {len(seen)}"):
        for batch in (await consumer.getmany(timeout_ms=500, max_records=count - len(seen))).values():
            seen.extend(batch)
    return seen


def plain(message):
    return message.key, message.value, list(message.headers)


async def _admin():
    async with Admin() as admin:
        topic = await create(admin, 3, **{"retention.ms": "7200000"})
        again = await admin.create_topics([NewTopic(topic, 3, 1)])
        equal(code(again), TopicAlreadyExistsError.errno, "creating it again")
        bad = await admin.create_topics([NewTopic("no/such name", 1, 1)])
        equal(code(bad), InvalidTopicError.errno, "an invalid name")
        only = name("only-validated")
        await admin.create_topics([NewTopic(only, 1, 1)], validate_only=True)
        listed = await admin.list_topics()
        equal((topic in listed, only in listed), (True, False), "the topics listed")
        described = (await admin.describe_topics([topic]))[0]
        equal(len(described["partitions"]), 3, "partitions")
        equal(len((await admin.describe_cluster())["brokers"]) >= 1, True, "brokers")

        async def config(key):
            resource = ConfigResource(ConfigResourceType.TOPIC, topic)
            answer = (await admin.describe_configs([resource]))[0]
            return {entry[0]: entry[1] for entry in answer.resources[0][4]}[key]
        await eventually(lambda: config("retention.ms"), "7200000", "retention.ms")
        equal(await config("cleanup.policy"), "delete", "cleanup.policy")
        # The old call replaces all: what is not named goes back to its default.
        change = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": "123456"})
        answer = (await admin.alter_configs([change]))[0]
        equal(answer.resources[0][0], 0, "altering")
        await eventually(lambda: config("max.message.bytes"), "123456", "max.message.bytes after the change")
        equal(await config("retention.ms"), "604800000", "retention.ms, which was not named")

        await admin.create_partitions({topic: NewPartitions(5)})
        deadline = Deadline()
        while len((await admin.describe_topics([topic]))[0]["partitions"]) != 5:
            deadline.check("five partitions")
        try:
            await admin.create_partitions({topic: NewPartitions(2)})
            raise AssertionError("fewer partitions were accepted")
        except InvalidPartitionsError:
            pass
        answer = await admin.delete_topics([topic])
        equal(answer.topic_error_codes[0][1], 0, "deleting")
        deadline = Deadline()
        while topic in await admin.list_topics() and deadline.check("the topic to go"):
            pass
        answer = await admin.delete_topics([topic])
        equal(answer.topic_error_codes[0][1], UnknownTopicOrPartitionError.errno, "deleting it again")


def compression(codec):
    async def body():
        async with Admin() as admin:
            topic = await create(admin)
        sent = some()
        where = await produce(topic, sent, compression_type=codec, linger_ms=5)
        equal(where, [(0, i) for i in range(len(sent))], "offsets")
        seen = await consume(topic, len(sent))
        equal([plain(m) for m in seen], sent, "records")
        equal([m.offset for m in seen], list(range(len(sent))), "offsets read")
    return case(f"compression_{codec or 'none'}", body)


async def _acks():
    async with Admin() as admin:
        for acks in (0, 1, "all"):
            topic, sent = await create(admin), some(40, big=1_000)
            await produce(topic, sent, acks=acks)
            equal([plain(m) for m in await consume(topic, len(sent))], sent, f"records with acks={acks}")


async def _idempotent():
    async with Admin() as admin:
        topic = await create(admin, 3)
    sent = some(300, big=1_000)
    where = await produce(topic, sent, enable_idempotence=True, max_batch_size=2_000)
    equal(len(set(where)), len(sent), "distinct positions")
    seen = await consume(topic, len(sent), partitions=range(3))
    equal(sorted(map(repr, map(plain, seen))), sorted(map(repr, sent)), "records")


async def _too_large():
    async with Admin() as admin:
        topic = await create(admin, **{"max.message.bytes": "20000"})
    try:
        await produce(topic, [(b"k", bytes(50_000), [])])
        raise AssertionError("a record larger than max.message.bytes was accepted")
    except MessageSizeTooLargeError:
        pass
    await produce(topic, [(b"k", b"small", [])])


class Member(ConsumerRebalanceListener):
    """A member of a group that reads until it is told to leave."""

    def __init__(self, group, topic, assignor):
        self.seen, self.assigned = [], set()
        self.topic = topic
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=SERVER, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
            session_timeout_ms=10_000, heartbeat_interval_ms=300, partition_assignment_strategy=[assignor])
        self.task = None

    async def start(self):
        self.consumer.subscribe([self.topic], listener=self)
        await self.consumer.start()
        self.task = asyncio.create_task(self.read())
        return self

    async def on_partitions_assigned(self, assigned):
        self.assigned = {p.partition for p in assigned}

    async def on_partitions_revoked(self, revoked):
        if revoked and self.seen:
            await self.consumer.commit()
        self.assigned = set()

    async def read(self):
        while True:
            for batch in (await self.consumer.getmany(timeout_ms=100)).values():
                self.seen.extend((m.partition, m.offset) for m in batch)

    async def stop(self):
        self.task.cancel()
        await self.consumer.commit()
        await self.consumer.stop()


async def wait(members, condition, what):
    deadline = Deadline()
    while not condition():
        deadline.check(lambda: f"{what}; assigned {[sorted(m.assigned) for m in members]}, "
                               f"read {[len(m.seen) for m in members]}")
        for member in members:
            if member.task.done() and not member.task.cancelled():
                member.task.result()
        await asyncio.sleep(0.01)


def rebalance(assignor):
    async def body():
        parts, group = 4, name("group")
        async with Admin() as admin:
            topic = await create(admin, parts)
        for p in range(parts):
            await produce(topic, [(None, b"%d" % i, []) for i in range(50)], partition=p)
        first = await Member(group, topic, assignor).start()
        await wait([first], lambda: len(first.assigned) == parts and len(first.seen) == 200, "one member to read all")
        second = await Member(group, topic, assignor).start()
        both = [first, second]
        await wait(both, lambda: len(first.assigned) == 2 and len(second.assigned) == 2
                   and not first.assigned & second.assigned, "two partitions each")
        for p in range(parts):
            await produce(topic, [(None, b"%d" % i, []) for i in range(50)], partition=p)
        everything = {(p, o) for p in range(parts) for o in range(100)}
        await wait(both, lambda: set(first.seen) | set(second.seen) == everything, "both to read all between them")
        await first.stop()
        await wait([second], lambda: len(second.assigned) == parts, "the partitions of the member that left")
        for p in range(parts):
            await produce(topic, [(None, b"last", [])], partition=p)
        everything |= {(p, 100) for p in range(parts)}
        await wait([second], lambda: set(first.seen) | set(second.seen) == everything, "the last records")
        await second.stop()
    return case(f"group_rebalance_{assignor.name}", body)


async def _commit_and_resume():
    async with Admin() as admin:
        topic, group = await create(admin), name("group")
    part = TopicPartition(topic, 0)
    await produce(topic, [(None, b"%d" % i, []) for i in range(100)])
    config = {"bootstrap_servers": SERVER, "group_id": group, "auto_offset_reset": "earliest",
              "enable_auto_commit": False}
    consumer = AIOKafkaConsumer(topic, **config)
    await consumer.start()
    await poll(consumer, 40)
    await consumer.commit({part: OffsetAndMetadata(40, "half-way")})
    await consumer.stop()
    consumer = AIOKafkaConsumer(topic, **config)
    await consumer.start()
    seen = await poll(consumer, 60)
    equal([m.offset for m in seen], list(range(40, 100)), "offsets after resuming")
    equal(await consumer.committed(part), 40, "the committed offset")
    await consumer.stop()
    never = AIOKafkaConsumer(**{**config, "group_id": name("never")})
    never.assign([part])
    await never.start()
    equal(await never.committed(part), None, "no offset was committed")
    await never.stop()


async def _time_lookup():
    async with Admin() as admin:
        topic = await create(admin)
    part = TopicPartition(topic, 0)
    await produce(topic, [(None, b"x", [], 1_600_000_000_000 + i * 1000) for i in range(20)])
    consumer = AIOKafkaConsumer(bootstrap_servers=SERVER)
    await consumer.start()

    async def at(timestamp):
        found = (await consumer.offsets_for_times({part: timestamp}))[part]
        return found and found.offset
    equal(await at(1_600_000_000_000), 0, "the first record's time")
    equal(await at(1_600_000_004_500), 5, "between two records")
    equal(await at(1_600_000_019_000), 19, "the last record's time")
    equal(await at(1_700_000_000_000), None, "past the end")
    equal((await consumer.beginning_offsets([part]))[part], 0, "beginning")
    equal((await consumer.end_offsets([part]))[part], 20, "end")
    await consumer.stop()


async def _group_admin():
    async with Admin() as admin:
        topic, group = await create(admin, 2), name("group")
        for p in range(2):
            await produce(topic, [(None, b"x", [])] * 10, partition=p)
        member = await Member(group, topic, RangePartitionAssignor).start()
        await wait([member], lambda: len(member.seen) == 20, "the member to read")
        described = (await admin.describe_consumer_groups([group]))[0].groups[0]
        equal(described[:3], (0, group, "Stable"), "error, name and state")
        equal(len(described[5]), 1, "members")
        await member.stop()
        equal(group in [g[0] for g in await admin.list_consumer_groups()], True, "the group is listed")
        offsets = await admin.list_consumer_group_offsets(group)
        equal(sorted((p.partition, o.offset) for p, o in offsets.items()), [(0, 10), (1, 10)], "its offsets")


async def _delete_records():
    async with Admin() as admin:
        topic = await create(admin)
        part = TopicPartition(topic, 0)
        await produce(topic, [(None, b"%d" % i, []) for i in range(30)])
        equal((await admin.delete_records({part: RecordsToDelete(12)}))[part], 12, "low watermark")
        equal([m.offset for m in await consume(topic, 18)], list(range(12, 30)), "offsets left")


async def transactional(identity):
    producer = AIOKafkaProducer(bootstrap_servers=SERVER, transactional_id=identity)
    await producer.start()
    return producer


async def committed(topic, count):
    return [m.value for m in await consume(topic, count, isolation_level="read_committed")]


async def _transactions():
    async with Admin() as admin:
        topic = await create(admin)
    producer = await transactional(name("t"))
    expected = []
    for i in range(9):
        await producer.begin_transaction()
        for j in range(3):
            await producer.send_and_wait(topic, b"%d-%d" % (i, j), partition=0)
        if i % 3 == 0:
            await producer.abort_transaction()
        else:
            await producer.commit_transaction()
            expected += [b"%d-%d" % (i, j) for j in range(3)]
    await producer.stop()
    equal(await committed(topic, len(expected)), expected, "what was committed")
    equal(len(await consume(topic, 27)), 27, "all records, dirty")


async def _transaction_fencing():
    async with Admin() as admin:
        topic = await create(admin)
    identity = name("t")
    old = await transactional(identity)
    await old.begin_transaction()
    await old.send_and_wait(topic, b"old", partition=0)
    young = await transactional(identity)
    async with young.transaction():
        await young.send_and_wait(topic, b"young", partition=0)
    try:
        await old.send_and_wait(topic, b"zombie", partition=0)
        await old.commit_transaction()
    except ProducerFenced:
        pass
    else:
        raise AssertionError("a zombie committed")
    await young.stop()
    equal(await committed(topic, 1), [b"young"], "what was committed")


async def _exactly_once():
    async with Admin() as admin:
        source, sink = await create(admin), await create(admin)
    group, part = name("g"), TopicPartition(source, 0)
    await produce(source, [(None, b"%d" % i, []) for i in range(60)], 0)
    producer = await transactional(name("t"))
    consumer = AIOKafkaConsumer(source, bootstrap_servers=SERVER, group_id=group, auto_offset_reset="earliest",
                                enable_auto_commit=False, isolation_level="read_committed")
    await consumer.start()
    done, turn, deadline = 0, 0, Deadline()
    while done < 60 and deadline.check(lambda: f"60 records, there were {done}"):
        messages = [m for batch in (await consumer.getmany(timeout_ms=500, max_records=7)).values() for m in batch]
        if not messages:
            continue
        turn += 1
        await producer.begin_transaction()
        for message in messages:
            await producer.send(sink, message.value, partition=0)
        await producer.send_offsets_to_transaction({part: messages[-1].offset + 1}, group)
        if turn % 3 == 1:
            await producer.abort_transaction()
            consumer.seek(part, messages[0].offset)
        else:
            await producer.commit_transaction()
            done += len(messages)
    await consumer.stop()
    await producer.stop()
    equal(await committed(sink, 60), [b"%d" % i for i in range(60)], "what came out")


def case(title, body):
    def run_it():
        asyncio.run(asyncio.wait_for(body(), 3 * DEADLINE_S))
    run_it.__name__ = f"case_{title}"
    return run_it


run([
    case("admin", _admin), *(compression(c) for c in (None, "gzip", "snappy", "lz4", "zstd")), case("acks", _acks),
    case("idempotent", _idempotent), case("too_large", _too_large), rebalance(RangePartitionAssignor),
    rebalance(StickyPartitionAssignor), case("commit_and_resume", _commit_and_resume),
    case("time_lookup", _time_lookup), case("group_admin", _group_admin), case("delete_records", _delete_records),
    *with_transactions(case("transactions", _transactions), case("transaction_fencing", _transaction_fencing),
                       case("exactly_once", _exactly_once)),
])
