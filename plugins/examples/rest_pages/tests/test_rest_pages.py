import json
import unittest
from urllib.parse import parse_qs, urlsplit

from api import delay_ms
from place import Place
from rest_pages import RestPages
from towpath_sdk import PluginError
from towpath_sdk.http import Response
from towpath_sdk.testing import OpenSource, outside

SETTINGS = {
    "url": "https://api.example.org/things?kind=a", "items": "data.things", "next": "data.next", "cursor_parameter": "after",
    "key": "id", "name": "things", "interval": 0,
}


class Api:
    """Pages of two items."""

    def __init__(self, count):
        self.items = [{"id": n, "name": f"thing {n}"} for n in range(count)]
        self.status, self.asked = 200, []

    def __call__(self, request):
        query = parse_qs(urlsplit(request.url).query)
        self.asked.append((query, request.header("authorization")))
        start = int(query.get("after", ["0"])[0])
        following = str(start + 2) if start + 2 < len(self.items) else None
        body = json.dumps({"data": {"things": self.items[start:start + 2], "next": following}})
        return Response([("retry-after", "7")], body.encode(), self.status)


class Test(unittest.TestCase):
    def setUp(self):
        self.api = Api(5)
        outside(http=self.api, secrets={"token": "x"})

    def read(self, source, most=1000):
        found, offsets = [], {}
        for _ in range(20):
            brought = source.poll(records=most)
            found += [it.key["id"] for it in brought.records]
            offsets.update(brought.offsets)
        return found, offsets

    def test_pages_come_in_their_order(self):
        found, offsets = self.read(OpenSource(RestPages, SETTINGS))
        self.assertEqual(found, ["0", "1", "2", "3", "4"])
        self.assertEqual(Place.of(offsets["pages"]), Place(2, "4", 1))
        query, authorization = self.api.asked[1]
        self.assertEqual((query, authorization), ({"kind": ["a"], "after": ["2"]}, "Bearer <token>"))

    def test_it_goes_on_anywhere(self):
        for most in (1, 2, 3):
            offsets, found = {}, []
            for _ in range(12):
                brought = OpenSource(RestPages, SETTINGS, offsets).poll(records=most)
                found += [it.key["id"] for it in brought.records]
                offsets.update(brought.offsets)
            self.assertEqual(found, ["0", "1", "2", "3", "4"])
            self.api.items += [{"id": "late"}, {"id": "later"}]
            self.assertEqual(self.read(OpenSource(RestPages, SETTINGS, offsets))[0], ["late", "later"])
            del self.api.items[5:]

    def test_what_has_no_key_is_no_record(self):
        self.api.items[1] = {"name": "nameless"}
        brought = OpenSource(RestPages, SETTINGS).poll()
        self.assertEqual([it.key["id"] for it in brought.records], ["0"])
        self.assertEqual([it.position for it in brought.rejected], ["page 0, item 1"])

    def test_what_the_api_says_is_understood(self):
        for status, kind, code in [
            (429, "retry_after", "REST_BUSY"), (503, "retry_after", "REST_BUSY"), (500, "retry_after", "REST_STATUS"),
            (401, "needs_operator", "REST_AUTH"), (404, "needs_operator", "REST_STATUS"),
        ]:
            self.api.status = status
            with self.assertRaises(PluginError) as raised:
                OpenSource(RestPages, SETTINGS).poll()
            self.assertEqual((raised.exception.kind, raised.exception.why.code), (kind, code), status)
            if code == "REST_BUSY":
                self.assertEqual(raised.exception.delay_ms, 7000)

    def test_what_is_gone_is_told(self):
        _, offsets = self.read(OpenSource(RestPages, SETTINGS))
        self.api.items = self.api.items[:4]
        with self.assertRaisesRegex(PluginError, "had 1 items, and has 0 now"):
            OpenSource(RestPages, SETTINGS, offsets).poll()
        self.api.status = 410
        with self.assertRaisesRegex(PluginError, "cursor any more"):
            OpenSource(RestPages, SETTINGS, offsets).poll()
        for text in ("", "{}", "7", '{"v":2,"page":0,"cursor":null,"seen":0}', '{"v":1,"page":-1,"cursor":null,"seen":0}'):
            with self.assertRaises(PluginError):
                OpenSource(RestPages, SETTINGS, {"pages": text})

    def test_delays(self):
        self.assertEqual(delay_ms("3"), 3000)
        self.assertEqual([delay_ms(text) for text in (None, "0", "soon", "Thu, 01 Jan 1970 00:00:00 GMT")], [1000] * 4)
        self.assertEqual(delay_ms("99999999"), 3_600_000)

    def test_the_end(self):
        opened = OpenSource(RestPages, SETTINGS)
        end = opened.source.upstream_end()
        self.assertEqual(end.text, "item 1 of page 2")
        self.assertFalse(opened.source.has_passed({}, end))
        _, offsets = self.read(opened)
        self.assertTrue(opened.source.has_passed(offsets, end))


if __name__ == "__main__":
    unittest.main()
