"""A source that reads a REST API in pages: each page has a list of items, and the cursor of the page after it.

The API must be one that grows at its end: an item stays on its page, in its place. Then every item comes exactly once.
"""

from __future__ import annotations

import json
from typing import Any, Optional
from urllib.parse import urlsplit

from api import Api, Page
from place import Place
from towpath_sdk import (
    Budget, Config, Descriptor, Element, Field, OptionSpec, PluginError, Position, Problem, Records, Rejection, Schema, Task,
    monotonic_ns,
)

PARTITION = "pages"
# Pages that are walked at most to see where the API ends.
WALK_MOST = 10_000


class RestPages:
    """One open task."""

    @staticmethod
    def descriptor() -> Descriptor:
        return (
            Descriptor("rest_pages", "0.1.0", "Reads a REST API in pages, and goes on where it was")
            .exactly_once()
            .option(OptionSpec("url", Element.url(["http", "https"]), "The first page; its host must be granted.", required=True))
            .option(OptionSpec("items", Element.text(), "Where a page has its list: `data.items`, or nothing for the page itself.")
                    .with_default("items"))
            .option(OptionSpec("next", Element.non_empty_text(), "Where a page has the cursor of the next one.").with_default("next"))
            .option(OptionSpec("cursor_parameter", Element.non_empty_text(), "The parameter of the URL that takes the cursor.")
                    .with_default("cursor"))
            .option(OptionSpec("key", Element.non_empty_text(), "The member of an item that is its key."))
            .option(OptionSpec("name", Element.non_empty_text(), "What the records are called: `{stream}` in topics.")
                    .with_default("items"))
            .option(OptionSpec("interval", Element.duration(), "How often the end is looked at for more.").with_default(5_000))
            .option(OptionSpec("timeout", Element.duration(), "How long a page may take.").with_default(10_000))
            .option(OptionSpec("token", Element.text(), "Sent as `authorization: Bearer …`.").as_secret())
        )

    @staticmethod
    def check(config: Config) -> list[Problem]:
        parts = urlsplit(config.text("url") or "")
        return [Problem("url", "a fragment is never sent")] if parts.fragment else []

    @staticmethod
    def probe(config: Config) -> list[str]:
        page = Api(config).page(None)
        return [f"the first page has {len(page.items)} items"]

    @classmethod
    def open(cls, config: Config, task: Task, offsets: dict[str, str]) -> RestPages:
        place = Place.of(offsets[PARTITION]) if PARTITION in offsets else Place()
        return cls(config, place)

    def __init__(self, config: Config, place: Place):
        self.api, self.key, self.place = Api(config), config.text("key"), place
        self.interval_ns = (config.integer("interval") or 0) * 1_000_000
        # The page that is being read, while it has more than has been.
        self.page: Optional[Page] = None
        # When the end is looked at again.
        self.due_ns = 0
        name = config.text("name") or "items"
        key = None if self.key is None else (Field(self.key, "text", nullable=False),)
        id = () if self.key is None else (Field(self.key, "text", nullable=False),)
        self.schema = Schema(name, (*id, Field("item", "json")), key, (("stream", name),))

    def fetch(self) -> Optional[Page]:
        """The page at the place, with more than has been read of it; or nothing for the moment."""
        if self.page is not None:
            return self.page
        if monotonic_ns() < self.due_ns:
            return None
        page = self.api.page(self.place.cursor)
        if len(page.items) < self.place.seen:
            # R7: whatever it was, it is not what has been read.
            raise PluginError.needs_operator(
                "REST_SHRUNK", f"page {self.place.page} had {self.place.seen} items, and has {len(page.items)} now",
                "the source reads APIs whose pages only grow; `towpath pipelines reset` begins anew",
            )
        if len(page.items) == self.place.seen and page.following is None:
            self.due_ns = monotonic_ns() + self.interval_ns
            return None
        self.page = page
        return page

    def poll(self, budget: Budget, out: Records) -> None:
        page = self.fetch()
        if page is None:
            return
        number = out.define(self.schema)
        if number is None:
            raise PluginError.terminal("REST_SCHEMA", "there are too many schemas")
        place = self.place
        while place.seen < len(page.items) and len(out) + len(out.rejected) < budget.records and out.bytes < budget.bytes:
            self.write(out, number, place, page.items[place.seen])
            place = Place(place.page, place.cursor, place.seen + 1)
        if place.seen == len(page.items):
            self.page = None
            if page.following is not None:
                place = Place(place.page + 1, page.following)
        self.place = place
        out.offset(PARTITION, place.text())

    def write(self, out: Records, number: int, place: Place, item: Any) -> None:
        text = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
        values: list[Any] = [text]
        if self.key is not None:
            key = item.get(self.key) if isinstance(item, dict) else None
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                why = Rejection("REST_KEY", f"the item has no text or number in `{self.key}`", path="key")
                return out.reject(f"page {place.page}, item {place.seen}", text, why)
            values.insert(0, str(key))
        record = out.record(number).position(0, place.position()).after(values)
        if self.key is not None:
            record.key(values[:1])
        record.finish()

    def upstream_end(self) -> Optional[Position]:
        """Walks to the last page."""
        place, page = self.place, self.page or self.api.page(self.place.cursor)
        for _ in range(WALK_MOST):
            if page.following is None:
                end = Place(place.page, place.cursor, len(page.items))
                return Position(end.text(), f"item {end.seen} of page {end.page}")
            place = Place(place.page + 1, page.following)
            page = self.api.page(place.cursor)
        return None

    def has_passed(self, durable: dict[str, str], end: Position) -> bool:
        return PARTITION in durable and Place.of(durable[PARTITION]).has_passed(Place.of(end.document))

    def status(self) -> str:
        return f"item {self.place.seen} of page {self.place.page}"
