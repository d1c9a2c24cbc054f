"""Clients with transactions for the cluster tests, with confluent-kafka: every one writes a history of what it asked and
was told. They may be killed at any moment, so each line goes to its file at once, and the last one may be cut short.

An attempt is one transaction: its name is unique, and so is the value `attempt/index` of each of its records. The lines
are described in src/transactions/history.rs, where they are read.
"""

import argparse
import json
import os
import random
import select
import signal
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

DEADLINE_S = 240
CALL_S = 30
ACCOUNTS = 12

# A call that has its time and has not come back by then never does (librdkafka's issues 5456 and 5511: offsets are not
# sent while the group's coordinator that it remembers is gone).
HUNG_S = CALL_S + 15

stopping = threading.Event()
# The call that is under way: since when, and what to do before the process begins anew.
calling = [None, None]


def settings(bootstrap, **more):
    base = {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "socket.connection.setup.timeout.ms": 5000,
        "topic.metadata.refresh.interval.ms": 5000,
        "log_level": 2,
        "error_cb": lambda error: None,
    }
    base.update({name.replace("_", "."): value for name, value in more.items()})
    if os.environ.get("TOWPATH_CLIENT_DEBUG"):
        base.update({"debug": os.environ["TOWPATH_CLIENT_DEBUG"], "log_level": 7})
    return base


class History:
    """Appends lines, each with one call of the system, so that nothing is lost with the process."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, op, **more):
        line = json.dumps({"t": time.monotonic_ns(), "op": op, **more}, separators=(",", ":"))
        os.write(self.file, line.encode() + b"\n")


def text(error):
    return error.args[0].name() if isinstance(error, KafkaException) else type(error).__name__


def create(a):
    """Creates the topics, and waits until every partition has a leader."""
    admin = AdminClient(settings(a.bootstrap))
    config = dict(pair.split("=", 1) for pair in a.config)
    topics = [NewTopic(t, num_partitions=a.partitions, replication_factor=a.replicas, config=config) for t in a.topics]
    for future in admin.create_topics(topics, operation_timeout=30).values():
        future.result(60)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        known = admin.list_topics(timeout=30).topics
        if all(t in known and len(known[t].partitions) == a.partitions
               and all(p.leader >= 0 for p in known[t].partitions.values()) for t in a.topics):
            return
        if time.monotonic() > deadline:
            raise SystemExit("the topics have no leaders")
        time.sleep(0.05)


class Fatal(Exception):
    """The producer is of no more use."""


class Transactions:
    """A transactional producer, and what it writes down."""

    def __init__(self, a, transactional_id, timeout_ms=10_000):
        self.a, self.id, self.timeout_ms = a, transactional_id, timeout_ms
        self.history = History(a.history)
        self.producer = None
        self.incarnation = 0
        self.count = 0
        self.fatal = False

    def renew(self):
        """A new producer with the same id, which fences all before it."""
        while not stopping.is_set():
            self.incarnation += 1
            self.count = 0
            self.who = f"{self.a.name}.{self.incarnation}"
            self.history.write("init", who=self.who, id=self.id)
            self.producer = Producer(settings(
                self.a.bootstrap, transactional_id=self.id, transaction_timeout_ms=self.timeout_ms, linger_ms=2,
                enable_idempotence=True))
            try:
                self.producer.init_transactions(CALL_S)
                self.history.write("ready", who=self.who)
                return True
            except KafkaException as error:
                self.history.write("init_failed", who=self.who, code=text(error))
                time.sleep(0.3)
        return False

    def begin(self, more=None):
        """Names an attempt. What is not written with `commit` afterwards must never be seen."""
        self.count += 1
        self.attempt = f"{self.who}-{self.count}"
        self.index = 0
        self.failed = None
        self.producer.begin_transaction()
        self.history.write("begin", attempt=self.attempt, who=self.who, **(more or {}))

    def write(self, topic, partition, more=""):
        """One record; told before it is sent."""
        value = f"{self.attempt}/{self.index}{more}"
        self.index += 1
        self.history.write("write", attempt=self.attempt, topic=topic, partition=partition)

        def told(error, _):
            if error is not None:
                self.failed = error

        while True:
            try:
                self.producer.produce(topic, value=value, partition=partition, on_delivery=told)
                return
            except BufferError:
                self.producer.poll(0.1)

    def call(self, what):
        """A call that may be repeated while the library says so; others end the attempt."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            calling[:] = time.monotonic(), self.hung
            try:
                return what()
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            finally:
                calling[:] = None, None

    def hung(self):
        self.history.write("unknown", attempt=self.attempt, code="HUNG")

    def end(self, commit):
        """Commits or aborts; true if it is committed for certain."""
        try:
            if commit:
                self.history.write("commit", attempt=self.attempt)
                self.call(lambda: self.producer.commit_transaction(CALL_S))
                self.history.write("committed", attempt=self.attempt)
                return True
            self.abort("own wish")
        except KafkaException as error:
            self.give_up(error)
        return False

    def abort(self, code):
        self.call(lambda: self.producer.abort_transaction(CALL_S))
        self.history.write("aborted", attempt=self.attempt, code=code)

    def give_up(self, error):
        """After an error: aborts where that is asked for, and otherwise lets go of the producer."""
        if error.args[0].txn_requires_abort():
            try:
                self.abort(text(error))
                return
            except KafkaException as other:
                error = other
        self.history.write("unknown", attempt=self.attempt, code=text(error))
        raise Fatal(text(error))

    def run(self, once):
        """Runs transactions until told to stop."""
        while not stopping.is_set():
            if not self.renew():
                return
            try:
                while not stopping.is_set():
                    try:
                        once()
                    except KafkaException as error:
                        self.give_up(error)
            except Fatal:
                time.sleep(0.05)


def generate(a):
    """Requests of transfers, from a plain producer."""
    history = History(a.history)
    producer = Producer(settings(a.bootstrap, enable_idempotence=True, linger_ms=2))
    count, begin = 0, time.monotonic()
    while not stopping.is_set():
        if count >= (time.monotonic() - begin) * a.rate:
            producer.poll(0.01)
            continue
        producer.produce("requests", value=f"{a.name}/{count}", partition=count % a.partitions)
        count += 1
    left = producer.flush(DEADLINE_S)
    history.write("generated", count=count, unanswered=left)


def bank(a):
    """Transfers: takes requests, and for each writes what one account loses and another one gets, together with the
    group's offsets."""
    transactions = Transactions(a, a.transactional_id or a.name)
    dice = random.Random(a.name)
    rewind = [True]
    consumer = Consumer(settings(
        a.bootstrap, group_id="bank", group_protocol=a.protocol, enable_auto_commit=False, auto_offset_reset="earliest",
        isolation_level="read_committed", fetch_wait_max_ms=100,
        **({"session_timeout_ms": 8000, "heartbeat_interval_ms": 1000} if a.protocol == "classic" else {})))
    consumer.subscribe(["requests"])

    def back():
        """To what is committed: what was read since was for nothing."""
        mine = consumer.assignment()
        for at in consumer.committed(mine, timeout=CALL_S):
            consumer.seek(TopicPartition(at.topic, at.partition, max(at.offset, 0)))
        rewind[0] = False

    def once():
        if rewind[0]:
            back()
        records = [r for r in consumer.consume(dice.randrange(1, 8), 0.2) if r.error() is None]
        if not records:
            return
        rewind[0] = True
        transactions.begin({"requests": [[r.partition(), r.offset()] for r in records]})
        for _ in records:
            one, other = dice.sample(range(ACCOUNTS), 2)
            amount = dice.randrange(1, 100)
            transactions.write("accounts", one % a.partitions, f"/{one}/{-amount}")
            transactions.write("accounts", other % a.partitions, f"/{other}/{amount}")
        if dice.random() < 0.1:
            time.sleep(dice.random())
        ends = {}
        for r in records:
            ends[r.partition()] = r.offset() + 1
        offsets = [TopicPartition("requests", p, o) for p, o in ends.items()]
        transactions.call(lambda: transactions.producer.send_offsets_to_transaction(
            offsets, consumer.consumer_group_metadata(), CALL_S))
        if transactions.end(dice.random() > 0.15):
            rewind[0] = False

    def again():
        try:
            once()
        except (KafkaException, Fatal):
            rewind[0] = True
            raise

    while not stopping.is_set():
        if not transactions.renew():
            break
        try:
            while not stopping.is_set():
                open_before = transactions.count
                try:
                    again()
                except KafkaException as error:
                    if transactions.count > open_before:
                        transactions.give_up(error)
                    else:
                        time.sleep(0.1)
        except Fatal:
            time.sleep(0.05)
    consumer.close()


def append(a):
    """List-append: transactions of appends to lists (partitions) and of reads of them, as Jepsen makes them."""
    transactions = Transactions(a, a.transactional_id or a.name)
    dice = random.Random(a.name)
    consumer = Consumer(settings(
        a.bootstrap, group_id=f"nobody-{a.name}", enable_auto_commit=False, auto_offset_reset="error",
        isolation_level="read_committed", fetch_wait_max_ms=50))
    parts = [TopicPartition("lists", p, 0) for p in range(a.partitions)]
    transactions.history.write("assign", who=a.name, starts=[["lists", p.partition, 0] for p in parts])
    consumer.assign(parts)

    def poll(attempt):
        records = [["lists", r.partition(), r.offset(), r.value().decode()]
                   for r in consumer.consume(20, 0.05) if r.error() is None]
        if records:
            transactions.history.write("poll", who=a.name, attempt=attempt, records=records)

    def once():
        transactions.begin()
        for _ in range(dice.randrange(1, 6)):
            if dice.random() < 0.6:
                transactions.write("lists", dice.randrange(a.partitions))
            else:
                poll(transactions.attempt)
        transactions.end(dice.random() > 0.2)

    transactions.run(once)
    consumer.close()


def fight(a):
    """Several of these have one transactional id: each fences the others whenever it starts anew."""
    transactions = Transactions(a, a.transactional_id)
    dice = random.Random(a.name)
    left = [dice.randrange(1, 30)]

    def once():
        if left[0] == 0:
            left[0] = dice.randrange(1, 30)
            raise Fatal("starts anew by itself")
        left[0] -= 1
        transactions.begin()
        for _ in range(dice.randrange(1, 4)):
            transactions.write("fight", dice.randrange(a.partitions))
            if dice.random() < 0.3:
                time.sleep(dice.random() * 0.2)
        transactions.end(dice.random() > 0.1)

    transactions.run(once)


def late(a):
    """Transactions that take longer than they may, most of them."""
    transactions = Transactions(a, a.name, 2_000)
    dice = random.Random(a.name)

    def once():
        transactions.begin()
        for _ in range(3):
            transactions.write("fight", dice.randrange(a.partitions))
        transactions.producer.flush(CALL_S)
        end = time.monotonic() + dice.choice([0.1, 3, 15])
        while time.monotonic() < end and not stopping.is_set():
            time.sleep(0.1)
        transactions.end(True)

    transactions.run(once)


def reader(bootstrap, who, isolation):
    return Consumer(settings(
        bootstrap, group_id=f"nobody-{who}", enable_auto_commit=False, auto_offset_reset="error",
        isolation_level=isolation, fetch_wait_max_ms=100))


def read_one(a, history, topic):
    who = f"r-{topic}"
    consumer = reader(a.bootstrap, who, "read_committed")
    history.write("assign", who=who, starts=[[topic, p, 0] for p in range(a.partitions)])
    consumer.assign([TopicPartition(topic, p, 0) for p in range(a.partitions)])
    while not stopping.is_set():
        records = [[topic, r.partition(), r.offset(), r.value().decode()]
                   for r in consumer.consume(100, 0.2) if r.error() is None]
        if records:
            history.write("poll", who=who, records=records)
    consumer.close()


def read(a):
    """Readers that see what is committed, from the beginning on."""
    history = History(a.history)
    threads = [threading.Thread(target=read_one, args=(a, history, topic)) for topic in a.topics if topic != "requests"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def retried(what, ask):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"{what}: {error}") from error
            time.sleep(0.2)


def ends(a, isolation):
    consumer = reader(a.bootstrap, "ends", isolation)
    found = {}
    for topic in a.topics:
        for p in range(a.partitions):
            found[topic, p] = retried("an end", lambda t=topic, p=p: consumer.get_watermark_offsets(
                TopicPartition(t, p), timeout=10))[1]
    consumer.close()
    return found


def read_all(a, history, who, isolation, until):
    """Every partition from its beginning to its end."""
    consumer = reader(a.bootstrap, who, isolation)
    history.write("assign", who=who, starts=[[t, p, 0] for t, p in until])
    consumer.assign([TopicPartition(t, p, 0) for t, p in until])
    deadline = time.monotonic() + DEADLINE_S
    while True:
        records = [[r.topic(), r.partition(), r.offset(), r.value().decode()]
                   for r in consumer.consume(200, 0.3) if r.error() is None]
        if records:
            history.write("poll", who=who, records=records)
        # Positions move over what is not shown.
        at = {(p.topic, p.partition): p.offset for p in consumer.position([TopicPartition(t, p) for t, p in until])}
        if not records and all(at[part] >= end or end == 0 for part, end in until.items()):
            break
        if not records and time.monotonic() > deadline:
            raise SystemExit(f"{who} stands at {at}, the ends are {until}")
    consumer.close()


def settle(a):
    """Waits until all requests are done for certain: the group has committed the end of their topic."""
    consumer = Consumer(settings(a.bootstrap, group_id="bank", enable_auto_commit=False))
    parts = [TopicPartition("requests", p) for p in range(a.partitions)]
    before, deadline = None, 0
    while True:
        want = {p: end for (t, p), end in ends(a, "read_committed").items() if t == "requests"}
        told = retried("committed offsets", lambda: consumer.committed(parts, timeout=10))
        done = {tp.partition: max(tp.offset, 0) for tp in told}
        if done == want:
            break
        if done != before:
            before, deadline = done, time.monotonic() + DEADLINE_S
        if time.monotonic() > deadline:
            raise SystemExit(f"the group stands at {done}, the ends are {want}")
        time.sleep(0.2)
    consumer.close()


def final(a):
    """After all has healed and every client has ended: waits until no transaction is open, and reads everything."""
    history = History(a.history)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        high, stable = ends(a, "read_uncommitted"), ends(a, "read_committed")
        if high == stable or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for (topic, partition), end in high.items():
        history.write("end", topic=topic, partition=partition, high=end, stable=stable[topic, partition])
    read_all(a, history, "final", "read_committed", stable)
    read_all(a, history, "raw", "read_uncommitted", high)
    history.write("over")


def watch(a, signals):
    """Makes another process of this one when a call hangs, as whoever looks after it would."""
    while True:
        if select.select([signals], [], [], 1)[0]:
            # The main thread would look at it after its call only.
            os.read(signals, 100)
            stopping.set()
        since, hung = calling
        if since is None or time.monotonic() - since < HUNG_S:
            continue
        hung()
        if stopping.is_set():
            os._exit(0)
        renamed = {a.name: f"{a.name}h", a.history: a.history.replace(f"{a.name}.jsonl", f"{a.name}h.jsonl")}
        os.execv(sys.executable, [sys.executable, *(renamed.get(word, word) for word in sys.argv)])


def main():
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    parser = argparse.ArgumentParser()
    kinds = {f.__name__: f for f in (create, generate, bank, append, fight, late, read, settle, final)}
    parser.add_argument("what", choices=kinds)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topics", default="requests,accounts,lists,fight", type=lambda text: text.split(","))
    parser.add_argument("--history")
    parser.add_argument("--name", default="")
    parser.add_argument("--transactional-id", default="")
    parser.add_argument("--partitions", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--protocol", default="classic")
    a = parser.parse_args()
    signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    threading.Thread(target=watch, args=(a, signals), daemon=True).start()
    kinds[a.what](a)


if __name__ == "__main__":
    sys.exit(main())
