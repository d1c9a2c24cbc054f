import dataclasses
import unittest
from enum import Enum
from types import SimpleNamespace

from towpath_sdk import (
    Batch, Descriptor, Field, Op, PluginError, Polled, Records, Rejection, Schema, Schemas, TopicPartition, Written, component,
    host, http, secrets, state, tcp,
)
from towpath_sdk.batch import POSITION
from towpath_sdk.http import Response
from towpath_sdk.secrets import Form
from towpath_sdk.testing import OpenSink, OpenSource, outside

SCHEMA = Schema("t", (Field("id", "int64"), Field("text", "text")), (Field("id", "int64"),))


class Numbers:
    @staticmethod
    def descriptor():
        return Descriptor("numbers", "1", "s").exactly_once()

    @classmethod
    def open(cls, config, task, offsets):
        it = cls()
        it.next, it.end = int(offsets.get("n", "0")), config.integer("end")
        return it

    def poll(self, budget, out):
        if self.next == self.end:
            return Polled.END
        number = out.define(SCHEMA)
        while self.next < self.end and len(out) < budget.records:
            if self.next == 3:
                out.reject("number 3", "3", Rejection("NO", "a three"))
            else:
                out.record(number).after([self.next]).finish()
            self.next += 1
        out.offset("n", self.next)


class Thirteens:
    def __init__(self):
        self.written = []

    @classmethod
    def open(cls, config):
        return cls()

    def write(self, delivery):
        ids = [record.after().get(0) for record in delivery.batch]
        bad = [record for record in delivery.batch if record.after().get(0) == 13]
        if bad:
            return Written.rejected((record, Rejection("NO", "unlucky")) for record in bad)
        self.written += ids
        return Written.accepted()

    def flush(self):
        pass


class Outside(unittest.TestCase):
    def setUp(self):
        outside()

    def test_without_a_host_there_is_nothing(self):
        for call in (
            lambda: http.send("http://a"), lambda: secrets.get("a"), lambda: state.keys(), lambda: tcp.connect("a", 1),
        ):
            with self.assertRaises(PluginError) as raised:
                call()
            self.assertEqual(raised.exception.why.code, "PLUGIN_OUTSIDE")

    def test_a_test_stands_in_for_it(self):
        asked, kept = [], {}

        def answer(request):
            asked.append(request)
            return Response([("X-A", "1")], b'{"a":1}', 201)

        outside(answer, {"token": "väl"}, kept)
        headers = {"a": "1", "b": None, "authorization": http.bearer_auth("token")}
        said = http.send("http://a/b", "PUT", headers, "ü")
        self.assertEqual((said.status, said.ok, said.header("x-a"), said.json()), (201, True, "1", {"a": 1}))
        expected = ("PUT", "http://a/b", [("a", "1"), ("authorization", "Bearer <token>")], "ü".encode(), 10_000)
        (it,) = asked
        self.assertEqual((it.method, it.url, it.headers, it.body, it.timeout_ms), expected)
        self.assertEqual((secrets.get("token").length, secrets.get("other")), (4, None))
        self.assertEqual(secrets.get_as("token", Form.json()).mark, "<token>")
        self.assertEqual(http.basic_auth("u", "token"), "Basic <token>")
        state.set("k", "v")
        self.assertEqual((state.get("k"), state.keys()), (b"v", ["k"]))
        state.set("k", None)
        self.assertEqual(kept, {})


class Connectors(unittest.TestCase):
    def test_records_are_written_with_what_belongs_to_them(self):
        schemas = Schemas()
        out = Records(schemas)
        self.assertEqual(out.bytes, 0)
        number = out.define(SCHEMA)
        (
            out.record(number).op(Op.CREATE).timestamp_ms(5).key([1]).before({"id": 1}).after(lambda row: row.value(2))
            .headers([("h", "v"), ("n", None)]).topic("there").partition(4).flat(True).position(2**63, 258).finish()
        )
        out.record(number)  # Without an end it is none.
        out.record(number).after({"text": "b"}).position(3, "here").finish()
        with self.assertRaisesRegex(ValueError, "no field `other`"):
            out.record(number).after({"other": 1})
        with self.assertRaises(ValueError):
            out.record(number + 1)
        with self.assertRaises(OverflowError):
            out.record(number).position(0, -1)
        self.assertEqual(len(out), 2)
        batch = Batch(out.finish(), schemas)
        first, second = batch
        self.assertEqual((first.op(), first.timestamp_ms(), first.offset(), first.partition()), (Op.CREATE, 5, -1, 4))
        self.assertEqual((first.is_flat(), first.topic(), first.headers()), (True, "there", [("h", b"v"), ("n", None)]))
        rows = [row.to_dict() for row in (first.key(), first.before(), first.after())]
        self.assertEqual(rows, [{"id": 1}, {"id": 1}, {"id": 2}])
        self.assertEqual((second.op(), second.key(), second.partition(), second.topic()), (None, None, None, None))
        places = []
        for record in (first, second):
            start, length = record.slot(POSITION)
            places.append((record.entry[8], batch.data[start:start + length]))
        self.assertEqual(places, [(2**63, b"\0\0\0\0\0\0\1\2"), (3, b"here")])

    def test_a_source_is_read_and_goes_on_where_it_was(self):
        first = OpenSource(Numbers, {"end": 5}).poll(records=2)
        self.assertEqual(([it.row["id"] for it in first.records], first.offsets, first.end), ([0, 1], {"n": "2"}, False))
        second = OpenSource(Numbers, {"end": 5}, first.offsets).poll()
        self.assertEqual([it.row["id"] for it in second.records], [2, 4])
        self.assertEqual([it.position for it in second.rejected], ["number 3"])
        self.assertTrue(OpenSource(Numbers, {"end": 5}, second.offsets).poll().end)

    def test_a_sink_is_given_rows_and_tells_how_far_they_are_safe(self):
        sink = OpenSink(Thirteens, {})
        self.assertEqual(sink.write(SCHEMA, [{"id": 1}, {"id": 2}]), Written.accepted())
        self.assertEqual([index for index, _ in sink.write(SCHEMA, [{"id": 1}, {"id": 13}]).rejections], [1])
        self.assertEqual((sink.flush(), sink.sink.written), ({TopicPartition("test", 0): 2}, [1, 2]))

    def test_answers_that_cannot_be_are_told(self):
        def plugin(**functions):
            return SimpleNamespace(open=lambda *_: SimpleNamespace(**functions))

        with self.assertRaisesRegex(TypeError, "returns nothing"):
            OpenSource(plugin(poll=lambda budget, out: 7), {}).poll()
        with self.assertRaisesRegex(TypeError, "returns a Written"):
            OpenSink(plugin(write=lambda delivery: None), {}).write(SCHEMA, [])
        with self.assertRaisesRegex(TypeError, "without `flush`"):
            OpenSink(plugin(write=lambda delivery: Written.accepted()), {}).write(SCHEMA, [])


class Err(Exception):
    def __init__(self, value):
        self.value = value


def records(**names):
    """Classes as the binding makes them."""
    return SimpleNamespace(**{name: dataclasses.make_dataclass(name, fields.split()) for name, fields in names.items()})


class Exports(unittest.TestCase):
    """What the classes that the worlds export answer, over a host that is none. The binding itself is not here."""

    def setUp(self):
        types = records(
            Description="name version summary", Details="code message hint path", Retry="delay_ms details", Error_RetryAfter="value",
            Error_NeedsOperator="value", Error_Terminal="value", Rejection="index details", Problem="path message hint",
        )
        types.Guarantee = Enum("Guarantee", "AT_LEAST_ONCE EXACTLY_ONCE")
        sources = records(
            Task="index assignment", Offset="partition place", Position="document text", RejectedInput="position bytes details",
            Records="batch offsets rejected", Found_Records="value", Found_Idle="value", Found_End="", Polled="found status",
        )
        sinks = records(TopicPartition="topic partition", Position="partition next_offset", Written="durability rejected")
        sinks.Durability = Enum("Durability", "ACCEPTED DURABLE")
        self.bound = SimpleNamespace(Err=Err, types=types, sources=sources, sinks=sinks)
        # Bound for real it would take the clock and the paths of this process.
        bind, self.logged = host.bind, []
        bound, log = host.bound, host.log
        host.bind, host.bound = lambda _: None, lambda: self.its
        host.log = lambda level, line: self.logged.append(line)
        self.its = SimpleNamespace(Err=Err, types=types, schemas=SimpleNamespace())
        self.addCleanup(lambda: host.__dict__.update(bind=bind, bound=bound, log=log))
        hush, host.hush = host.hush, lambda: None
        self.addCleanup(lambda: host.__dict__.update(hush=hush))

    def source(self, plugin):
        return component.source(lambda: plugin, self.bound)()

    def test_a_source(self):
        class Plugin:
            descriptor = Numbers.descriptor
            open = classmethod(lambda cls, config, task, offsets: cls.opened(task, offsets))
            opened = classmethod(lambda cls, task, offsets: setattr(cls, "offsets", offsets) or cls())

            def poll(self, budget, out):
                out.offset("n", budget.records)

            def commit(self, offsets):
                raise PluginError.retry("LATER", "not now", delay_ms=7)

        wit, source = self.bound.sources, self.source(Plugin)
        with self.assertRaises(Err) as raised:
            source.poll(SimpleNamespace(bytes=1, records=2))
        self.assertEqual(raised.exception.value.value.code, "PLUGIN_NOT_OPEN")
        self.assertEqual(source.promise().name, "EXACTLY_ONCE")
        self.assertEqual((source.check(), source.plan(3)), ([], [wit.Task(0, "")]))
        self.assertEqual(source.open(wit.Task(0, ""), [wit.Offset("n", "1"), wit.Offset("x", None)]), "running")
        self.assertEqual(Plugin.offsets, {"n": "1"})
        polled = source.poll(SimpleNamespace(bytes=1, records=2))
        self.assertEqual(polled, wit.Polled(wit.Found_Idle([wit.Offset("n", "2")]), "running"))
        with self.assertRaises(Err) as raised:
            source.commit([])
        self.assertEqual(raised.exception.value.value.delay_ms, 7)
        self.assertEqual((source.upstream_end(), source.has_passed([], wit.Position("", ""))), (None, False))
        source.close()

    def test_all_that_is_wrong_is_told_at_once(self):
        def failing(error):
            def probe(config):
                raise error

            return self.source(SimpleNamespace(probe=probe)).check()

        told = [PluginError.retry("A", "a"), PluginError.terminal("B", "b")]
        for error, count in ((ExceptionGroup("", told), 2), (told[0], 1)):
            with self.assertRaises(Err) as raised:
                failing(error)
            self.assertEqual(len(raised.exception.value), count)
        with self.assertRaises(ExceptionGroup):
            failing(ExceptionGroup("", [told[0], ValueError("on purpose")]))
        self.assertIn("on purpose", self.logged[-1])

    def test_what_cannot_fail_has_no_answer_for_it(self):
        def check(config):
            raise PluginError.terminal("A", "no more")

        with self.assertRaises(PluginError):
            self.source(SimpleNamespace(check=check)).check_config()
        self.assertIn("no more", self.logged[-1])

    def test_a_sink(self):
        class Plugin:
            open = classmethod(lambda cls, config: cls())

            def assign(self, added):
                return {it.partition: len(it.topic_id) for it in added}

            def write(self, delivery):
                return Written.durable()

        wit = self.bound.sinks
        sink = component.sink(lambda: Plugin, self.bound)()
        sink.open()
        partition = wit.TopicPartition("a", 3)
        self.assertEqual(sink.assign([SimpleNamespace(partition=partition, topic_id="xyz")]), [wit.Position(partition, 3)])
        data = Records(Schemas()).finish()
        delivery = SimpleNamespace(partition=partition, topic_id="xyz", first_offset=3, next_offset=9, batch=data)
        self.assertEqual(sink.write(delivery), wit.Written(wit.Durability.DURABLE, []))
        self.assertEqual(sink.flush(), [wit.Position(partition, 9)])
        sink.revoke([partition])
        self.assertEqual(sink.flush(), [])
        sink.close()


if __name__ == "__main__":
    unittest.main()
