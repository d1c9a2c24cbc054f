"""Writing the batch that goes on."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Union

from .batch import (
    AFTER, BEFORE, ENTRY, HEAD, HEADERS, KEY, MAGIC, NOT_THERE, POSITION, SOURCE, TOPIC, Batch, Op, Record, headers_of,
)
from .describe import Rejection
from .row import ABSENT, RowWriter
from .schema import Known, Schema, Shape

_SLOTS = (KEY, BEFORE, AFTER, SOURCE, HEADERS, TOPIC)
# What a row is written from: a function, its values in order, or values by name.
Written = Union[Callable[[RowWriter], None], Sequence[Any], Mapping[str, Any]]


def row_of(shape: Optional[Shape], write: Written) -> bytes:
    """A row in its form."""
    if shape is None:
        raise ValueError("the schema has no such row")
    row = RowWriter(shape)
    if callable(write):
        write(row)
    elif isinstance(write, Mapping):
        unknown = next((name for name in write if name not in shape.index), None)
        if unknown is not None:
            raise ValueError(f"there is no field `{unknown}`")
        for field in shape.fields:
            row.value(write.get(field.name, ABSENT))
    else:
        for value in write:
            row.value(value)
    return row.finish()


class Output:
    """The records that go on, and those that are rejected. Each record can go on once, in the order in which it came.

    What is kept stays where it stands in the incoming buffer: what is written is counted from the end of it, and both are
    put together at the end.
    """

    def __init__(self, batch: Batch):
        self.batch = batch
        self._entries: list[Sequence[int]] = []
        self._parts: list[bytes] = []
        self._end = batch.entries
        self._next = 0
        self.rejected: list[tuple[int, Rejection]] = []

    def define(self, schema: Schema) -> Optional[int]:
        """A number for a schema to write records of; `None` when there are too many, or it is too large."""
        return self.batch.schemas.define(schema)

    def keep(self, record: Record) -> None:
        """Lets the record go on as it is."""
        self.push(record, record.entry)

    def rewrite(self, record: Record) -> Rewrite:
        """Lets the record go on, but for what is written of it."""
        return Rewrite(self, record, record.entry[0], record.known, True)

    def rewrite_as(self, record: Record, number: int) -> Rewrite:
        """Lets the record go on under another schema: its images are those that are written, its key and source block
        stay."""
        known = self.batch.schemas.get(number)
        if known is None:
            raise ValueError(f"nobody knows the schema {number}")
        return Rewrite(self, record, number, known, False)

    def reject(self, record: Record, why: Rejection) -> None:
        """Sends the record, as it came, to the dead-letter topic."""
        self.rejected.append((record.index, why))

    def put(self, data: bytes) -> tuple[int, int]:
        """Writes bytes, and tells where they stand."""
        start = self._end
        self._parts.append(data)
        self._end += len(data)
        return start, len(data)

    def push(self, record: Record, entry: Sequence[int]) -> None:
        """Adds a record's entry."""
        if record.index < self._next:
            raise ValueError("a record goes on once, and in the order in which it came")
        self._next = record.index + 1
        self._entries.append(entry)

    def finish(self) -> bytes:
        """The buffer."""
        batch, base = self.batch, self.batch.entries
        everything = len(self._entries) == len(batch)
        if everything and not self._parts and not any(isinstance(it, list) for it in self._entries):
            return batch.data
        # Where little was kept, it is not worth to send all of what came in.
        kept = 0
        for entry in self._entries:
            kept += sum(entry[at + 1] for at in _SLOTS if entry[at] < base)
        if kept * 2 < base - HEAD.size:
            return self._gathered()
        entries = b"".join(ENTRY.pack(*entry) for entry in self._entries)
        head = HEAD.pack(MAGIC, len(self._entries), self._end, 0)
        return b"".join((head, memoryview(batch.data)[HEAD.size:base], *self._parts, entries))

    def _gathered(self) -> bytes:
        data, base = self.batch.data, self.batch.entries
        parts, end = [], HEAD.size
        moved = []
        for entry in self._entries:
            entry = list(entry)
            entry[POSITION] = NOT_THERE
            for at in _SLOTS:
                start, length = entry[at], entry[at + 1]
                if start < base:
                    parts.append(data[start:start + length])
                    entry[at] = end
                    end += length
                elif start != NOT_THERE:
                    # Marked by a negative start until it is known where what was written begins.
                    entry[at] = base - start - 1
            moved.append(entry)
        for entry in moved:
            for at in _SLOTS:
                if entry[at] < 0:
                    entry[at] = end - entry[at] - 1
        head = HEAD.pack(MAGIC, len(moved), end + self._end - base, 0)
        return b"".join((head, *parts, *self._parts, *(ENTRY.pack(*entry) for entry in moved)))


class Rewrite:
    """A record on its way out; without `finish` it does not go on. Each method returns the rewrite."""

    __slots__ = ("_entry", "_images", "_known", "_out", "_record")

    def __init__(self, out: Output, record: Record, number: int, known: Known, images: bool):
        self._out, self._record, self._known, self._images = out, record, known, images
        self._entry = entry = list(record.entry)
        entry[0] = number
        # Positions are the host's business.
        entry[POSITION] = NOT_THERE
        if not images:
            entry[BEFORE] = entry[AFTER] = NOT_THERE

    def _row(self, at: int, shape: Optional[Shape], write: Written) -> Rewrite:
        return self._put(at, row_of(shape, write))

    def _put(self, at: int, data: bytes) -> Rewrite:
        self._entry[at], self._entry[at + 1] = self._out.put(data)
        return self

    def key(self, write: Written) -> Rewrite:
        """Writes the key's row anew."""
        return self._row(KEY, self._known.key, write)

    def before(self, write: Written) -> Rewrite:
        """Writes the row before the change anew."""
        return self._row(BEFORE, self._known.value, write)

    def after(self, write: Written) -> Rewrite:
        """Writes the row after the change anew."""
        return self._row(AFTER, self._known.value, write)

    def set(self, changes: Mapping[str, Any]) -> Rewrite:
        """Writes these fields of the row after the change anew; the others stay."""
        row = self._record.after()
        if row is None or not self._images:
            raise ValueError("the record has no row to change")
        unknown = next((name for name in changes if name not in row), None)
        if unknown is not None:
            raise ValueError(f"the record has no field `{unknown}`")

        def write(writer: RowWriter) -> None:
            for index, field in enumerate(row.fields):
                if field.name in changes:
                    writer.value(changes[field.name])
                else:
                    writer.copy(row, index)

        return self.after(write)

    def op(self, op: Optional[Op]) -> Rewrite:
        self._entry[2] = 0 if op is None else op.value
        return self

    def flat(self, flat: bool) -> Rewrite:
        """Whether formats write the row alone."""
        self._entry[3] = int(flat)
        return self

    def timestamp_ms(self, timestamp: int) -> Rewrite:
        self._entry[6] = timestamp
        return self

    def topic(self, topic: str) -> Rewrite:
        """Chooses the topic."""
        return self._put(TOPIC, topic.encode())

    def partition(self, partition: int) -> Rewrite:
        """Chooses the partition."""
        self._entry[1] = partition
        return self

    def headers(self, headers: Iterable[tuple[str, Union[str, bytes, None]]]) -> Rewrite:
        """Replaces all headers."""
        return self._put(HEADERS, headers_of(headers))

    def finish(self) -> None:
        """The record goes on; what has not been written stays."""
        self._out.push(self._record, self._entry)
