import unittest

from plugin import TYPE
from towpath_sdk import Field, Schema
from towpath_sdk.testing import transform


class Test(unittest.TestCase):
    def test_records_that_hold_the_text_are_dropped(self):
        schema = Schema("lines", (Field("level", "text"), Field("n", "int64")))
        rows = [{"level": "info", "n": 1}, {"level": "debug", "n": 2}, {"n": 3}]
        passed, _ = transform(TYPE, {"field": "level", "text": "debug"}, schema, rows)
        self.assertEqual([it.row["n"] for it in passed], [1, 3])
