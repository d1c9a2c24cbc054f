"""The clients of the cluster tests, with confluent-kafka: every one writes a history of what it asked and was told.

A history is a file of JSON lines. `t` is the machine's monotonic clock in nanoseconds, one for all processes; an
invocation is written before it begins and a result after it is known, so that `t` of a result before `t` of an
invocation proves their order. The lines are described in src/history.rs, where they are read.
"""

import argparse
import json
import logging
import random
import signal
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

# Errors that say that a record was not and will not be appended. Whatever else went wrong may have happened or not.
DEFINITE = {
    KafkaError._QUEUE_FULL,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.INVALID_REQUIRED_ACKS,
}
DEADLINE_S = 240
POLLED_MAX = 100

stopping = threading.Event()


def settings(bootstrap, **more):
    base = {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "socket.connection.setup.timeout.ms": 5000,
        "topic.metadata.refresh.interval.ms": 5000,
        "log_level": 2,
    }
    base.update({name.replace("_", "."): value for name, value in more.items()})
    return base


class History:
    """Appends lines; safe for several threads."""

    def __init__(self, path):
        self.file = open(path, "a", buffering=1 << 16)
        self.lock = threading.Lock()

    def write(self, op, **more):
        line = json.dumps({"t": time.monotonic_ns(), "op": op, **more}, separators=(",", ":"))
        with self.lock:
            self.file.write(line + "\n")

    def close(self):
        with self.lock:
            self.file.close()


def trouble(history, who, error):
    """Connections that break are what the test is about; there are thousands."""
    if error.fatal() or error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
        history.write("error", who=who, code=error.name(), fatal=error.fatal(), text=error.str())


class Bumps(logging.Handler):
    """Writes down when the library takes a new producer epoch: no broker can tell its second tries after that from new
    records (librdkafka's issue 4953)."""

    def __init__(self, history, producer):
        super().__init__()
        self.history, self.producer = history, producer

    def emit(self, record):
        text = record.getMessage()
        if "IDEMPSTATE" in text and ("-> DrainBump" in text or "-> DrainReset" in text):
            self.history.write("bump", producer=self.producer, text=text[-200:])


def value_of(producer, seq):
    """Unique, and of a length that varies so that batches do."""
    return f"{producer}:{seq}:".encode() + b"x" * ((seq * 37 + producer * 11) % 200)


def parse(value):
    """[producer, sequence number]; anything else was never sent by us, and -1 says so."""
    try:
        producer, seq, padding = value.split(b":", 2)
        producer, seq = int(producer), int(seq)
        return [producer, seq] if value == value_of(producer, seq) else [-1, -1]
    except (ValueError, AttributeError):
        return [-1, -1]


def create(a):
    """Creates the topic, and waits until every partition has a leader."""
    admin = AdminClient(settings(a.bootstrap))
    config = dict(pair.split("=", 1) for pair in a.config)
    topic = NewTopic(a.topic, num_partitions=a.partitions, replication_factor=a.replicas, config=config)
    admin.create_topics([topic], operation_timeout=30)[a.topic].result(60)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        known = admin.list_topics(a.topic, timeout=30).topics[a.topic]
        if len(known.partitions) == a.partitions and all(p.leader >= 0 for p in known.partitions.values()):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"{a.topic} has no leaders: {known.partitions}")
        time.sleep(0.05)


def alter(a):
    """Sets configurations of the topic."""
    admin = AdminClient(settings(a.bootstrap))
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in (pair.split("=", 1) for pair in a.config)
    ]
    resource = ConfigResource(ResourceType.TOPIC, a.topic, incremental_configs=entries)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(60)


def produce(a):
    """One producer: `rate` records a second until told to stop, then waits for every answer.

    Producers differ by their number: linger and compression, and the last of four gives up soon, which leaves
    records whose fate is unknown.
    """
    kind = a.id % 4
    more = {"linger.ms": [0, 5, 40, 2][kind], "compression.type": ["none", "lz4", "none", "zstd"][kind]}
    if a.acks == "all":
        more.update({"enable.idempotence": True, "acks": "all"})
    else:
        more.update({"enable.idempotence": False, "acks": a.acks})
    more["message.timeout.ms"] = a.timeout_ms if a.timeout_ms else (10_000 if kind == 3 else 150_000)
    more["queue.buffering.max.messages"] = 20_000
    history = History(a.history)
    history.write("producer", producer=a.id, idempotent=a.acks == "all", acks=a.acks)
    fatal = []

    def problem(error):
        if error.fatal():
            fatal.append(error)
        trouble(history, f"p{a.id}", error)

    logger = logging.getLogger(f"p{a.id}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(Bumps(history, a.id))
    producer = Producer(
        {**settings(a.bootstrap), **more, "error_cb": problem, "log_level": 7, "debug": "eos"}, logger=logger
    )

    def told(seq):
        def callback(error, message):
            if error is None:
                # A duplicate that the broker knows only as such has no offset.
                offset = -1 if message.offset() is None else message.offset()
                history.write("ack", producer=a.id, seq=seq, partition=message.partition(), offset=offset)
            else:
                history.write("fail", producer=a.id, seq=seq, code=error.name(), definite=error.code() in DEFINITE)

        return callback

    seq, begin = 0, time.monotonic()
    dice = random.Random(a.id)
    while not stopping.is_set() and not fatal:
        if seq >= (time.monotonic() - begin) * a.rate:
            producer.poll(0.005)
            continue
        # Sometimes the rate is caught up with in one burst: batches of many records.
        if dice.random() < 0.002:
            time.sleep(0.3)
        key = f"{a.id}-{seq % 7}".encode()
        history.write("send", producer=a.id, seq=seq)
        try:
            producer.produce(a.topic, value=value_of(a.id, seq), key=key, on_delivery=told(seq))
        except BufferError:
            history.write("fail", producer=a.id, seq=seq, code="_QUEUE_FULL", definite=True)
            producer.poll(0.2)
        seq += 1
        producer.poll(0)
    left = producer.flush(DEADLINE_S)
    history.write("producer_end", producer=a.id, sent=seq, unanswered=left, fatal=bool(fatal))
    history.close()


class Polls:
    """Collects what a consumer polled into lines of many records; in order with everything else that it writes."""

    def __init__(self, history, who):
        self.history, self.who, self.records = history, who, []
        self.since = time.monotonic()

    def add(self, message):
        epoch = message.leader_epoch()
        value = parse(message.value())
        self.records.append([message.partition(), message.offset(), -1 if epoch is None else epoch, *value])
        if len(self.records) >= POLLED_MAX:
            self.flush()

    def flush(self):
        if self.records:
            self.history.write("poll", who=self.who, records=self.records)
            self.records = []
        self.since = time.monotonic()

    def write(self, op, **more):
        self.flush()
        self.history.write(op, who=self.who, **more)


def group(a):
    """One member of the group: polls, and commits what it has polled, once a second and before it gives up partitions."""
    history = History(a.history)
    polls = Polls(history, f"g{a.id}")
    done = {}
    more = {"partition.assignment.strategy": a.strategy} if a.protocol == "classic" else {}
    if a.protocol == "classic":
        more["session.timeout.ms"] = 8000
        more["heartbeat.interval.ms"] = 1000

    def commit():
        if not done:
            return
        offsets = sorted((p, o + 1) for p, o in done.items())
        polls.write("commit", offsets=offsets)
        try:
            told = consumer.commit(
                offsets=[TopicPartition(a.topic, p, o) for p, o in offsets], asynchronous=False
            )
            good = [[tp.partition, tp.offset] for tp in told if tp.error is None]
            polls.write("committed", offsets=good)
            for p, o in offsets:
                if done.get(p) == o - 1:
                    del done[p]
        except KafkaException as error:
            polls.write("commit_failed", code=error.args[0].name())

    def forget(partitions):
        for tp in partitions:
            done.pop(tp.partition, None)

    def assigned(_, partitions):
        polls.write("assign", starts=[[tp.partition, tp.offset] for tp in partitions])

    def revoked(_, partitions):
        commit()
        forget(partitions)
        polls.write("revoke", partitions=[tp.partition for tp in partitions])

    def lost(_, partitions):
        forget(partitions)
        polls.write("lost", partitions=[tp.partition for tp in partitions])

    def problem(error):
        trouble(history, polls.who, error)

    consumer = Consumer(
        {
            **settings(a.bootstrap),
            "group.id": a.group,
            "group.protocol": a.protocol,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
            "error_cb": problem,
            **more,
        }
    )
    consumer.subscribe([a.topic], on_assign=assigned, on_revoke=revoked, on_lost=lost)
    next_commit = time.monotonic() + 1
    while not stopping.is_set():
        message = consumer.poll(0.1)
        if message is None:
            polls.flush()
        elif message.error():
            polls.write("poll_error", code=message.error().name(), text=message.error().str())
        else:
            polls.add(message)
            done[message.partition()] = message.offset()
        if time.monotonic() >= next_commit:
            commit()
            next_commit = time.monotonic() + 1
    commit()
    polls.flush()
    consumer.close()
    history.close()


def reader(bootstrap, who, more=None):
    return Consumer(
        {
            **settings(bootstrap),
            "group.id": f"nobody-{who}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 100,
            **(more or {}),
        }
    )


def read_one(a, history, partition):
    polls = Polls(history, f"r{partition}")
    consumer = reader(a.bootstrap, polls.who)
    polls.write("assign", starts=[[partition, 0]])
    consumer.assign([TopicPartition(a.topic, partition, 0)])
    while not stopping.is_set():
        message = consumer.poll(0.2)
        if message is None:
            polls.flush()
        elif message.error():
            polls.write("poll_error", code=message.error().name(), text=message.error().str())
        else:
            polls.add(message)
    polls.flush()
    consumer.close()


def read(a):
    """One reader for each partition, from its beginning on, without a group."""
    history = History(a.history)
    threads = [threading.Thread(target=read_one, args=(a, history, p)) for p in range(a.partitions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history.close()


def retried(what, ask):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"{what}: {error}") from error
            time.sleep(0.2)


def final(a):
    """After all has healed: every partition from its beginning to its end; and, if there is a group, waits until it
    has committed that end."""
    history = History(a.history)
    polls = Polls(history, "final")
    consumer = reader(a.bootstrap, polls.who)
    ends = {}
    for p in range(a.partitions):
        low, high = retried(
            f"the end of {p}", lambda p=p: consumer.get_watermark_offsets(TopicPartition(a.topic, p), timeout=10)
        )
        history.write("end", partition=p, low=low, high=high)
        ends[p] = high
    polls.write("assign", starts=[[p, 0] for p in ends])
    consumer.assign([TopicPartition(a.topic, p, 0) for p in ends])
    missing = {p for p, high in ends.items() if high > 0}
    deadline = time.monotonic() + DEADLINE_S
    while missing:
        message = consumer.poll(0.5)
        if message is not None and message.error():
            polls.write("poll_error", code=message.error().name(), text=message.error().str())
        elif message is not None:
            polls.add(message)
            if message.offset() + 1 >= ends[message.partition()]:
                missing.discard(message.partition())
        if time.monotonic() > deadline:
            raise SystemExit(f"the end of partitions {sorted(missing)} was not reached; ends: {ends}")
    polls.flush()
    consumer.close()
    if a.group:
        wait_for_group(a, ends)
    history.close()


def wait_for_group(a, ends):
    consumer = Consumer({**settings(a.bootstrap), "group.id": a.group, "enable.auto.commit": False})
    deadline = time.monotonic() + DEADLINE_S
    asked = [TopicPartition(a.topic, p) for p in ends]
    while True:
        told = retried("committed offsets", lambda: consumer.committed(asked, timeout=10))
        committed = {tp.partition: max(tp.offset, 0) for tp in told}
        if committed == ends:
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"the group stands at {committed}, the ends are {ends}")
        time.sleep(0.2)
    consumer.close()


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["create", "alter", "produce", "group", "read", "final"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--history")
    parser.add_argument("--id", type=int, default=0)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--acks", default="all")
    parser.add_argument("--timeout-ms", type=int, default=0)
    parser.add_argument("--group", default="")
    parser.add_argument("--protocol", default="classic")
    parser.add_argument("--strategy", default="range")
    return parser.parse_args()


def main():
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    a = arguments()
    {"create": create, "alter": alter, "produce": produce, "group": group, "read": read, "final": final}[a.what](a)


if __name__ == "__main__":
    sys.exit(main())
