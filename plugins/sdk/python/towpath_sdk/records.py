"""Writing the records that a source brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Union

from .batch import (
    AFTER, BEFORE, ENTRY, HEAD, HEADERS, KEY, MAGIC, NOT_THERE, POSITION, SOURCE, TOPIC, Op, headers_of,
)
from .describe import Rejection
from .output import Written, row_of
from .schema import Known, Schema, Schemas, Shape

_EMPTY = [0, -1, 0, 0, 0, 0, 0, -1, 0] + [NOT_THERE, 0] * 7


@dataclass(frozen=True)
class RejectedInput:
    """Input that no record could be made of."""

    # Where it stood, for people.
    position: str
    data: bytes
    why: Rejection


class Records:
    """What one poll brings: records, the offsets that hold once they are durable, and input that is no record."""

    def __init__(self, schemas: Schemas):
        self._schemas = schemas
        self._parts: list[bytes] = []
        self._entries: list[bytes] = []
        self._end = HEAD.size
        self.offsets: dict[str, Optional[str]] = {}
        self.rejected: list[RejectedInput] = []

    def define(self, schema: Schema) -> Optional[int]:
        """A number for a schema to write records of; `None` when there are too many, or it is too large."""
        return self._schemas.define(schema)

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Bytes of the records."""
        return self._end - HEAD.size + len(self._entries) * ENTRY.size

    def record(self, number: int) -> NewRecord:
        """Begins a record under the schema of a number."""
        known = self._schemas.get(number)
        if known is None:
            raise ValueError(f"nobody knows the schema {number}")
        return NewRecord(self, number, known)

    def offset(self, partition: str, place: Union[str, int]) -> None:
        """Says where to go on in a source partition, once everything so far is durable: a text of your own."""
        self.offsets[partition] = str(place)

    def forget(self, partition: str) -> None:
        """Forgets a source partition."""
        self.offsets[partition] = None

    def reject(self, position: str, data: Union[str, bytes], why: Rejection) -> None:
        """Sends input that is no record to the dead-letter topic; `position` says where it stood, for people."""
        self.rejected.append(RejectedInput(str(position), data.encode() if isinstance(data, str) else bytes(data), why))

    def put(self, data: bytes) -> tuple[int, int]:
        """Writes bytes, and tells where they stand."""
        start = self._end
        self._parts.append(data)
        self._end += len(data)
        return start, len(data)

    def push(self, entry: list[int]) -> None:
        """Adds a record's entry."""
        entry[5] = len(self._entries)
        self._entries.append(ENTRY.pack(*entry))

    def finish(self) -> bytes:
        """The buffer."""
        head = HEAD.pack(MAGIC, len(self._entries), self._end, 0)
        return b"".join((head, *self._parts, *self._entries))


class NewRecord:
    """A record that is being written; without `finish` there is none. Each other method returns the record."""

    __slots__ = ("_entry", "_known", "_out")

    def __init__(self, out: Records, number: int, known: Known):
        self._out, self._known = out, known
        self._entry = list(_EMPTY)
        self._entry[0] = number

    def _put(self, at: int, data: bytes) -> NewRecord:
        self._entry[at], self._entry[at + 1] = self._out.put(data)
        return self

    def _row(self, at: int, shape: Optional[Shape], write: Written) -> NewRecord:
        return self._put(at, row_of(shape, write))

    def key(self, write: Written) -> NewRecord:
        """Writes the key's row: a function, a list, or a mapping."""
        return self._row(KEY, self._known.key, write)

    def before(self, write: Written) -> NewRecord:
        """Writes the row before the change."""
        return self._row(BEFORE, self._known.value, write)

    def after(self, write: Written) -> NewRecord:
        """Writes the row after the change, or a plain record's row."""
        return self._row(AFTER, self._known.value, write)

    def source(self, write: Written) -> NewRecord:
        """Writes the source block's row."""
        return self._row(SOURCE, self._known.source, write)

    def op(self, op: Optional[Op]) -> NewRecord:
        """Sets the operation; without one it is a plain record."""
        self._entry[2] = 0 if op is None else op.value
        return self

    def flat(self, flat: bool) -> NewRecord:
        """Sets whether formats write the row alone."""
        self._entry[3] = int(flat)
        return self

    def timestamp_ms(self, timestamp: int) -> NewRecord:
        self._entry[6] = timestamp
        return self

    def position(self, lane: int, place: Union[bytes, str, int]) -> NewRecord:
        """Sets the place of the record in its lane: bytes, text, or a whole number from 0 (which stands as 8 bytes). Places
        grow within their lane, compared as bytes, and are the same when the record is read again: by them a restarted task
        knows what its topic holds already."""
        self._entry[8] = lane
        if isinstance(place, int):
            place = place.to_bytes(8, "big")
        return self._put(POSITION, place.encode() if isinstance(place, str) else bytes(place))

    def topic(self, topic: str) -> NewRecord:
        """Chooses the topic."""
        return self._put(TOPIC, topic.encode())

    def partition(self, partition: int) -> NewRecord:
        """Chooses the partition."""
        self._entry[1] = partition
        return self

    def headers(self, headers: Iterable[tuple[str, Union[str, bytes, None]]]) -> NewRecord:
        """Sets the headers."""
        return self._put(HEADERS, headers_of(headers))

    def finish(self) -> None:
        """Adds the record."""
        self._out.push(self._entry)
