"""Asking an API for a page, and what its answers mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Optional
from urllib.parse import urlencode, urlsplit, urlunsplit

from towpath_sdk import Config, PluginError, http, now_ms

# What is waited at most because the API asks for it, and at least where it does not say how long.
DELAY_MOST_MS = 3_600_000
DELAY_MS = 1_000


@dataclass(frozen=True)
class Page:
    """What an API answers: items, and the cursor of the page after them."""

    items: list[Any]
    following: Optional[str]


def member(document: Any, path: str) -> Any:
    """What stands at a path like `meta.next`; the document itself where the path is empty."""
    for name in path.split(".") if path else ():
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def delay_ms(retry_after: Optional[str]) -> int:
    """How long `Retry-After` says to wait: seconds, or a date."""
    text = (retry_after or "").strip()
    try:
        delay = int(text) * 1000 if text.isdecimal() else int(parsedate_to_datetime(text).timestamp() * 1000) - now_ms()
    except (ValueError, TypeError, OverflowError):
        return DELAY_MS
    return min(max(delay, DELAY_MS), DELAY_MOST_MS)


def check(answer: http.Response, has_cursor: bool) -> None:
    """Raises what a status means that is no success."""
    status = answer.status
    if status in (429, 503):
        wait = delay_ms(answer.header("retry-after"))
        raise PluginError.retry("REST_BUSY", f"the API asks to come again later ({status})", delay_ms=wait)
    if status >= 500 or status in (408, 425):
        raise PluginError.retry("REST_STATUS", f"the API answers with {status}")
    if status in (401, 403):
        hint = "look at `token`, and at what it may read"
        raise PluginError.needs_operator("REST_AUTH", f"the API answers with {status}", hint)
    if status in (404, 410) and has_cursor:
        # R7: what lay behind it would be lost silently if the source began anew.
        hint = "`towpath pipelines reset` begins anew"
        raise PluginError.needs_operator("REST_CURSOR", f"the API does not know the stored cursor any more ({status})", hint)
    if not answer.ok:
        raise PluginError.needs_operator("REST_STATUS", f"the API answers with {status}")


class Api:
    """An API as the options describe it."""

    def __init__(self, config: Config):
        self.url = config.text("url") or ""
        self.items, self.next = config.text("items") or "", config.text("next") or ""
        self.cursor_parameter = config.text("cursor_parameter") or ""
        self.headers = {"accept": "application/json"}
        token = http.bearer_auth("token")
        if token is not None:
            self.headers["authorization"] = token
        self.timeout_ms = config.integer("timeout") or 10_000

    def address(self, cursor: Optional[str]) -> str:
        """The URL of a page."""
        if cursor is None:
            return self.url
        parts = urlsplit(self.url)
        query = "&".join(filter(None, (parts.query, urlencode({self.cursor_parameter: cursor}))))
        return urlunsplit(parts._replace(query=query))

    def page(self, cursor: Optional[str]) -> Page:
        """Asks for a page."""
        answer = http.send(self.address(cursor), headers=self.headers, timeout_ms=self.timeout_ms)
        check(answer, cursor is not None)
        try:
            document = json.loads(answer.body)
        except ValueError:
            raise PluginError.needs_operator("REST_ANSWER", "the API answers with what is no JSON") from None
        items, following = member(document, self.items), member(document, self.next)
        if not isinstance(items, list):
            where = f"at `{self.items}`" if self.items else "in its answer"
            raise PluginError.needs_operator("REST_ANSWER", f"there is no list {where}", "look at `items`")
        if following == "" or following is False:
            following = None
        if following is not None and (isinstance(following, bool) or not isinstance(following, (str, int))):
            raise PluginError.needs_operator("REST_ANSWER", f"what stands at `{self.next}` is no cursor", "look at `next`")
        return Page(items, None if following is None else str(following))
