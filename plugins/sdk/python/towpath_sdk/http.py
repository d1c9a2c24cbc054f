"""HTTP, to the hosts of `plugins.NAME.grants.http`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Union

from . import host, secrets
from .outside import call


@dataclass
class _Message:
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> Optional[str]:
        """The first header of this name."""
        return next((value for its, value in self.headers if its.lower() == name.lower()), None)

    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Request(_Message):
    """A request, as a test sees it."""

    method: str = "GET"
    url: str = ""
    timeout_ms: int = 10_000


@dataclass
class Response(_Message):
    """An answer, whatever its status."""

    status: int = 200

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300


def send(
    url: str, method: str = "GET", headers: Optional[Mapping[str, Optional[str]]] = None,
    body: Union[str, bytes] = b"", timeout_ms: int = 10_000,
) -> Response:
    """Sends a request, and waits for the whole answer. Marks of secrets are replaced in values of headers and in the body. A
    header whose value is `None` is left out."""
    all = [(name, str(value)) for name, value in (headers or {}).items() if value is not None]
    data = body.encode() if isinstance(body, str) else bytes(body)

    def run(its: Any) -> Any:
        if host.bound() is None:
            return its(Request(all, data, method, url, timeout_ms))
        return its.send(its.Request(method, url, all, data, timeout_ms))

    answer = call("http", run)
    return Response(list(answer.headers), answer.body, answer.status)


def basic_auth(user: str, option: str) -> Optional[str]:
    """The header `authorization` of Basic authentication, with a secret option as the password; `None` if it is not given."""
    secret = secrets.get_as(option, secrets.Form.base64(before=f"{user}:"))
    return secret and f"Basic {secret.mark}"


def bearer_auth(option: str) -> Optional[str]:
    """The header `authorization` with a secret option as the token; `None` if it is not given."""
    secret = secrets.get(option)
    return secret and f"Bearer {secret.mark}"
