"""How far an API has been read: a page, its cursor, and how many of its items."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Optional

from towpath_sdk import PluginError


@dataclass(frozen=True)
class Place:
    """`seen` items of the page that `cursor` brings have been read; pages are counted from 0."""

    page: int = 0
    cursor: Optional[str] = None
    seen: int = 0

    def text(self) -> str:
        """The form in which it is stored."""
        return json.dumps({"v": 1, "page": self.page, "cursor": self.cursor, "seen": self.seen})

    @classmethod
    def of(cls, text: str) -> Place:
        """Reads the stored form. What cannot be read is told, and never taken for the beginning."""
        try:
            it = json.loads(text)
            if it["v"] == 1 and all(type(it[name]) is int and it[name] >= 0 for name in ("page", "seen")):
                cursor = it["cursor"]
                if cursor is None or isinstance(cursor, str):
                    return cls(it["page"], cursor, it["seen"])
        except (ValueError, KeyError, TypeError):
            pass
        raise PluginError.terminal("REST_OFFSET", "the stored place cannot be read")

    def position(self) -> bytes:
        """The place of the next record: it grows from item to item, and is the same when the page is read again."""
        return self.page.to_bytes(8, "big") + self.seen.to_bytes(8, "big")

    def has_passed(self, other: Place) -> bool:
        return (self.page, self.seen) >= (other.page, other.seen)
