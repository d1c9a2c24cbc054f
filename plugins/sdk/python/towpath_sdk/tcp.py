"""TCP, to the hosts and ports of `plugins.NAME.grants.tcp`."""

from __future__ import annotations

from typing import Any, Optional, Union

from .outside import call


class Connection:
    """A connection; `with` closes it."""

    def __init__(self, number: int):
        self._number = number

    def read(self, most: int = 65_536, timeout_ms: int = 10_000) -> Optional[bytes]:
        """What has come: bytes, none of them where the other side has closed the connection, and `None` for nothing in
        time."""

        def run(its: Any) -> Optional[bytes]:
            received = its.read(self._number, most, timeout_ms)
            if isinstance(received, its.Received_Bytes):
                return received.value
            return b"" if isinstance(received, its.Received_Closed) else None

        return call("tcp", run)

    def write(self, data: Union[str, bytes], timeout_ms: int = 10_000) -> None:
        """Writes all of it. Marks of secrets are replaced."""
        data = data.encode() if isinstance(data, str) else bytes(data)
        call("tcp", lambda its: its.write(self._number, data, timeout_ms))

    def close(self) -> None:
        call("tcp", lambda its: its.close(self._number))

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def connect(address: str, port: int, timeout_ms: int = 10_000) -> Connection:
    """Connects; there can be 16 connections at a time."""
    return Connection(call("tcp", lambda its: its.connect(address, port, timeout_ms)))
