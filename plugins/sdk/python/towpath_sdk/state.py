"""A source's small memory that survives crashes: `plugins.NAME.grants.state`. It is durable with the offsets."""

from __future__ import annotations

from typing import Optional, Union

from .outside import call


def get(key: str) -> Optional[bytes]:
    """The value under a key."""
    return call("state", lambda its: its.get(key))


def set(key: str, value: Union[str, bytes, None]) -> None:
    """Replaces the value under a key; `None` removes it. Keys have at most 256 bytes, values 64 KiB, all together 1 MiB."""
    data = value.encode() if isinstance(value, str) else value
    call("state", lambda its: its.set(key, data))


def keys() -> list[str]:
    """All keys, in order."""
    return call("state", lambda its: its.keys())
