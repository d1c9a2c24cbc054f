import unittest

from plugin import TYPE
from towpath_sdk import Field, PluginError, Schema
from towpath_sdk.http import Response
from towpath_sdk.testing import OpenSink, outside

SCHEMA = Schema("logs", (Field("message", "text"), Field("n", "int64")))
SETTINGS = {"url": "http://example.org", "field": "message"}


class Test(unittest.TestCase):
    def test_lines_are_sent_and_records_without_one_are_rejected(self):
        sent = []

        def receive(request):
            sent.append(request.text())
            return Response(status=204)

        outside(http=receive)
        sink = OpenSink(TYPE, SETTINGS)
        self.assertTrue(sink.write(SCHEMA, [{"message": "a"}, {"message": "b"}]).is_durable)
        written = sink.write(SCHEMA, [{"message": "c"}, {"n": 1}])
        self.assertEqual([index for index, _ in written.rejections], [1])
        self.assertEqual(sent, ["a\nb\n"])

    def test_a_receiver_that_fails_is_tried_again_later(self):
        outside(http=lambda request: Response(status=503))
        with self.assertRaises(PluginError):
            OpenSink(TYPE, SETTINGS).write(SCHEMA, [{"message": "a"}])
