import unittest

from plugin import TYPE
from towpath_sdk import PluginError
from towpath_sdk.http import Response
from towpath_sdk.testing import OpenSource, outside

SETTINGS = {"url": "http://example.org"}


class Test(unittest.TestCase):
    def test_lines_come_once_and_go_on_where_they_were(self):
        outside(http=lambda request: Response(body=b"a\nb\nhalf a line"))
        first = OpenSource(TYPE, SETTINGS).poll()
        self.assertEqual([it.row["line"] for it in first.records], ["a", "b"])
        self.assertEqual(first.offsets, {"lines": "2"})
        outside(http=lambda request: Response(body=b"a\nb\nhalf a line and the rest\n"))
        again = OpenSource(TYPE, SETTINGS, first.offsets).poll()
        self.assertEqual([it.row["line"] for it in again.records], ["half a line and the rest"])

    def test_a_page_that_fails_is_tried_again_later(self):
        outside(http=lambda request: Response(status=503))
        with self.assertRaises(PluginError):
            OpenSource(TYPE, SETTINGS).poll()
