"""A plugin on the author's machine, without WASM."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Callable, Mapping, Optional, Sequence

from . import outside as _outside
from .batch import AFTER, ENTRY, HEAD, MAGIC, NOT_THERE, Batch, Op
from .connector import Budget, Delivery, Polled, Taken, Task, TopicPartition, Written, polled
from .describe import Rejection
from .host import Config
from .http import Request, Response
from .output import Output
from .records import Records, RejectedInput
from .row import ABSENT, RowWriter
from .schema import Schema, Schemas


@dataclass
class Passed:
    """A record that went on, or that a source has brought: which it was made from, and what it is now."""

    origin: int
    schema: Schema
    row: Optional[dict[str, Any]]
    topic: Optional[str]
    headers: list[tuple[str, Optional[bytes]]]
    key: Optional[dict[str, Any]] = None
    op: Optional[Op] = None


def encode(schema: Schema, rows: Sequence[Mapping[str, Any]], schemas: Schemas) -> bytes:
    """A buffer of plain records, one for each row."""
    number = schemas.define(schema)
    shape = schemas.get(number).value
    parts, entries, end = [], [], HEAD.size
    for index, row in enumerate(rows):
        writer = RowWriter(shape)
        for field in schema.value:
            writer.value(row.get(field.name, ABSENT))
        data = writer.finish()
        entry = [number, -1, 0, 0, 0, index, 0, index, 0] + [NOT_THERE, 0] * 7
        entry[AFTER], entry[AFTER + 1] = end, len(data)
        entries.append(ENTRY.pack(*entry))
        parts.append(data)
        end += len(data)
    return b"".join((HEAD.pack(MAGIC, len(rows), end, 0), *parts, *entries))


def transform(
    plugin: Any, options: Mapping[str, Any], schema: Schema, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[Passed], list[tuple[int, Rejection]]]:
    """Opens a plugin with these options, gives it rows of a schema, and tells what became of them."""
    schemas = Schemas()
    batch = Batch(encode(schema, rows, schemas), schemas)
    out = Output(batch)
    plugin.open(Config(options)).process(batch, out)
    return _passed(out.finish(), schemas), out.rejected


def _passed(data: bytes, schemas: Schemas) -> list[Passed]:
    passed = []
    for record in Batch(data, schemas):
        after, key = record.after(), record.key()
        row = None if after is None else after.to_dict()
        passed.append(Passed(
            record.entry[5], record.schema(), row, record.topic(), record.headers(), None if key is None else key.to_dict(),
            record.op(),
        ))
    return passed


@dataclass
class Brought:
    """What a poll has brought."""

    records: list[Passed]
    offsets: dict[str, Optional[str]]
    rejected: list[RejectedInput]
    end: bool


class OpenSource:
    """A source, opened with these options at these offsets."""

    def __init__(
        self, plugin: Any, options: Mapping[str, Any], offsets: Optional[Mapping[str, str]] = None, task: Task = Task(),
    ):
        self._schemas = Schemas()
        self.source = plugin.open(Config(options), task, dict(offsets or {}))

    def poll(self, records: int = 1000, bytes: int = 1 << 20) -> Brought:
        out = Records(self._schemas)
        said = polled(self.source, Budget(bytes, records), out)
        return Brought(_passed(out.finish(), self._schemas), out.offsets, out.rejected, said is Polled.END)


class OpenSink:
    """A sink, opened with these options, which is given rows of one partition."""

    def __init__(
        self, plugin: Any, options: Mapping[str, Any], partition: TopicPartition = TopicPartition("test", 0),
        topic_id: str = "test-id",
    ):
        self._schemas, self._next, self._from = Schemas(), 0, (partition, topic_id)
        self._taken = Taken(plugin.open(Config(options)))
        self.sink = self._taken.sink

    def write(self, schema: Schema, rows: Sequence[Mapping[str, Any]]) -> Written:
        batch = Batch(encode(schema, rows, self._schemas), self._schemas)
        end = self._next + len(rows)
        written = self._taken.write(Delivery(*self._from, self._next, end, batch))
        if not written.rejections:
            self._next = end
        return written

    def flush(self) -> dict[TopicPartition, int]:
        return self._taken.flush()


def outside(
    http: Optional[Callable[[Request], Response]] = None, secrets: Optional[Mapping[str, str]] = None,
    state: Optional[dict[str, bytes]] = None,
) -> None:
    """Lets a test stand in for what is outside. Secrets are marked as `<option>`; `state` is written to. What is not given
    is not there."""

    def secret(option: str) -> Any:
        value = secrets.get(option)
        return None if value is None else SimpleNamespace(mark=f"<{option}>", length=len(value.encode()))

    def change(key: str, value: Optional[bytes]) -> None:
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value

    doubles = _outside.doubles
    doubles.clear()
    if http is not None:
        doubles["http"] = http
    if secrets is not None:
        doubles["secrets"] = SimpleNamespace(get=secret)
    if state is not None:
        doubles["state"] = SimpleNamespace(get=state.get, set=change, keys=lambda: sorted(state))
