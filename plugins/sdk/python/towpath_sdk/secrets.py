"""Secret options, for use without being seen: those that `plugins.NAME.grants.secrets` names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from . import host
from .outside import call


@dataclass(frozen=True)
class Secret:
    """A secret that can be sent and not read."""

    # Stands for the value in headers and bodies of HTTP and in what is written by TCP.
    mark: str
    # Bytes of the value as it is sent.
    length: int


@dataclass(frozen=True)
class Form:
    """How a secret is sent."""

    kind: str
    before: str = ""
    after: str = ""

    @classmethod
    def json(cls) -> Form:
        """As it stands between the quotes of a JSON text."""
        return cls("json")

    @classmethod
    def base64(cls, before: str = "", after: str = "") -> Form:
        """Base64 with padding, together with what stands around it, at most 1 KiB each."""
        return cls("base64", before, after)


def _secret(found: Any) -> Optional[Secret]:
    return None if found is None else Secret(found.mark, found.length)


def get(option: str) -> Optional[Secret]:
    """The secret option of this name; `None` if it is not given."""
    return _secret(call("secrets", lambda its: its.get(option)))


def get_as(option: str, form: Form) -> Optional[Secret]:
    """The same, to be sent in another form; there can be 64."""

    def run(its: Any) -> Any:
        if host.bound() is None:
            return its.get(option)
        return its.get_as(option, its.Form_Json() if form.kind == "json" else its.Form_Base64(its.Around(form.before, form.after)))

    return _secret(call("secrets", run))
