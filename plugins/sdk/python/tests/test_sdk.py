import unittest

from towpath_sdk import (
    ABSENT, Batch, Config, Element, Field, Op, OptionSpec, Output, PluginError, Rejection, Schema, Schemas,
)
from towpath_sdk.testing import encode, transform

SCHEMA = Schema("t", (
    Field("id", "int64"), Field("text", "text"), Field("flag", "boolean"), Field("real", "float64"),
    Field("single", "float32"), Field("raw", "bytes"), Field("list", "int32", dimensions=1),
))
ROW = {"id": 1, "text": "Zoë", "flag": True, "real": 1.5, "single": 0.25, "raw": b"\0\xff", "list": "[1]"}


def through(process, rows):
    class Plugin:
        @classmethod
        def open(cls, config):
            return cls()

    Plugin.process = lambda self, batch, out: process(batch, out)
    return transform(Plugin, {}, SCHEMA, rows)


class Sdk(unittest.TestCase):
    def test_records_are_kept_rewritten_rejected_and_dropped(self):
        why = Rejection("NO", "not this one", hint="another")

        def process(batch, out):
            for record in batch:
                match record.after().get(0):
                    case 0:
                        out.keep(record)
                    case 1:
                        out.reject(record, why)
                    case 2:
                        headers = [("a", "1"), ("b", None)]
                        out.rewrite(record).after([None, "Ω"]).topic("elsewhere").headers(headers).finish()
                    case 3:
                        out.rewrite(record).set({"text": "set"}).op(Op.UPDATE).finish()

        passed, rejected = through(process, [{**ROW, "id": id} for id in range(5)])
        self.assertEqual(rejected, [(1, why)])
        self.assertEqual([it.origin for it in passed], [0, 2, 3])
        self.assertEqual(passed[0].row, {**ROW, "id": 0})
        self.assertEqual(passed[1].row, {"id": None, "text": "Ω"})
        self.assertEqual((passed[1].topic, passed[1].headers), ("elsewhere", [("a", b"1"), ("b", None)]))
        self.assertEqual(passed[2].row, {**ROW, "id": 3, "text": "set"})

    def test_what_is_kept_takes_the_dropped_bytes_not_along(self):
        schemas = Schemas()
        batch = Batch(encode(SCHEMA, [{"id": id, "text": "x" * 1000} for id in range(100)], schemas), schemas)
        out = Output(batch)
        records = list(batch)
        out.keep(records[7])
        out.rewrite(records[50]).set({"text": "y"}).finish()
        sent = out.finish()
        self.assertLess(len(sent), 1600)
        rows = [record.after().to_dict() for record in Batch(sent, schemas)]
        self.assertEqual(rows, [{"id": 7, "text": "x" * 1000}, {"id": 50, "text": "y"}])

    def test_what_is_only_kept_is_sent_as_it_came(self):
        schemas = Schemas()
        data = encode(SCHEMA, [ROW] * 3, schemas)
        out = Output(batch := Batch(data, schemas))
        for record in batch:
            out.keep(record)
        self.assertIs(out.finish(), data)

    def test_another_schema(self):
        def process(batch, out):
            number = out.define(Schema("u", (Field("twice", "int32"),)))
            for record in batch:
                out.rewrite_as(record, number).after([record.after().get(0) * 2]).finish()

        passed, _ = through(process, [{"id": 21}])
        self.assertEqual((passed[0].schema.name, passed[0].row), ("u", {"twice": 42}))

    def test_what_does_not_fit_is_told(self):
        for changes, expected in [
            ({"id": "1"}, "takes no str"), ({"id": True}, "takes no bool"), ({"id": 2**63}, "no int64"),
            ({"text": 7}, "`text` takes no int"), ({"other": 7}, "no field `other`"),
        ]:
            def process(batch, out):
                for record in batch:
                    out.rewrite(record).set(changes).finish()

            with self.assertRaisesRegex((TypeError, ValueError), expected):
                through(process, [ROW])

    def test_a_record_goes_on_once(self):
        def process(batch, out):
            (record,) = batch
            out.keep(record)
            out.keep(record)

        with self.assertRaisesRegex(ValueError, "once"):
            through(process, [ROW])

    def test_what_is_no_batch_is_not_read(self):
        schemas = Schemas()
        data = encode(SCHEMA, [ROW], schemas)
        for length in (0, 3, 16, len(data) - 1):
            with self.assertRaises(ValueError):
                Batch(data[:length], schemas)
        with self.assertRaisesRegex(ValueError, "schema 0"):
            list(Batch(data, Schemas()))
        # Whatever a slot or a row says, nothing outside of its record is read.
        for at in range(16, len(data)):
            forged = data[:at] + b"\xff" + data[at + 1:]
            try:
                for record in Batch(forged, schemas):
                    record.headers()
                    after = record.after()
                    after is None or after.to_dict()
            except ValueError:
                pass

    def test_options_and_settings(self):
        option = OptionSpec("w", Element.one_of({"a": "A."}), "W.", required=True).many().with_default(["a"]).as_secret()
        self.assertEqual((option.shape, option.default, option.secret, option.required), ("MANY", '["a"]', True, True))
        config = Config({"t": "x", "n": 1, "f": False, "l": ["a"]})
        self.assertEqual((config.text("t"), config.integer("n"), config.flag("f")), ("x", 1, False))
        self.assertEqual((config.texts("l"), config.texts("no"), config.json("n")), (["a"], [], 1))
        self.assertFalse(ABSENT)
        self.assertEqual(PluginError.retry("C", "m", delay_ms=7).delay_ms, 7)


if __name__ == "__main__":
    unittest.main()
