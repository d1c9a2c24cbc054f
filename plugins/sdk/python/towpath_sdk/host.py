"""What the host does for a plugin. Outside of it, as in tests: the machine's own."""

from __future__ import annotations

import json
import linecache
import os
import sys
import time
from typing import Any, Mapping, Optional

# The interfaces of the contract, once they are bound.
_host: Any = None


def bind(interfaces: Any) -> None:
    """Takes the interfaces of the contract; the entry that the build writes calls it."""
    global _host
    _host = interfaces
    # There is no clock and no output but the host's: `print` writes into Towpath's log.
    time.time = lambda: now_ms() / 1e3
    time.time_ns = lambda: now_ms() * 1_000_000
    time.monotonic_ns = time.perf_counter_ns = monotonic_ns
    time.monotonic = time.perf_counter = lambda: monotonic_ns() / 1e9
    sys.stdout, sys.stderr = _Lines("info"), _Lines("warn")
    os.urandom = random
    if "random" in sys.modules:
        # Its state is of the build: every instance would draw the same numbers.
        sys.modules["random"]._urandom = random
        sys.modules["random"].seed(int.from_bytes(random(32), "little"))
    # There are no files: looking for one would end the instance. What is imported late is told as missing instead.
    sys.path.clear()
    sys.path_importer_cache.clear()
    linecache.checkcache = lambda filename=None: None
    linecache.getlines = lambda filename, module_globals=None: []
    linecache.getline = lambda filename, lineno, module_globals=None: ""
    linecache.lazycache = lambda filename, module_globals: False


def bound() -> Any:
    """The bound interfaces; `None` outside of Towpath."""
    return _host


class _Lines:
    """A text stream whose lines are lines of the log."""

    def __init__(self, level: str):
        self._level, self._rest = level, ""

    def write(self, text: str) -> int:
        *lines, rest = (self._rest + text).split("\n")
        self._rest = rest[-4096:]
        for line in lines:
            log(self._level, line)
        return len(text)

    def flush(self) -> None:
        pass


def hush() -> None:
    """What the binding writes of an exception has been told already."""
    sys.stderr = _Lines("debug")


def log(level: str, message: str) -> None:
    """Writes a line into Towpath's log: `debug`, `info`, `warn` or `error`."""
    if _host is not None:
        _host.log.write(_host.log.Level[level.upper()], str(message))


def now_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return _host.clock.now_ms() if _host is not None else int(time.time() * 1e3)


def monotonic_ns() -> int:
    """Nanoseconds of a clock that never goes back."""
    return _host.clock.monotonic_ns() if _host is not None else time.monotonic_ns()


def random(length: int) -> bytes:
    """Random bytes, at most 64 KiB of them."""
    return _host.random.bytes(length) if _host is not None else os.urandom(length)


class Config:
    """The options of this instance, validated, with defaults filled in. What is not given is `None`, or empty."""

    def __init__(self, settings: Optional[Mapping[str, Any]] = None):
        """`settings` are the options of a test."""
        self._settings = settings

    def text(self, name: str) -> Optional[str]:
        return _host.config.text(name) if self._settings is None else self._settings.get(name)

    def integer(self, name: str) -> Optional[int]:
        """A number, a duration in milliseconds, or a size in bytes."""
        return _host.config.integer(name) if self._settings is None else self._settings.get(name)

    def flag(self, name: str) -> Optional[bool]:
        return _host.config.flag(name) if self._settings is None else self._settings.get(name)

    def texts(self, name: str) -> list[str]:
        return _host.config.texts(name) if self._settings is None else list(self._settings.get(name) or ())

    def json(self, name: str) -> Any:
        """Any option, as the value that it is."""
        if self._settings is not None:
            return self._settings.get(name)
        text = _host.config.json(name)
        return None if text is None else json.loads(text)
