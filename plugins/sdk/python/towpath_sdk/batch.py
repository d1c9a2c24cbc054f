"""Reading the batch that comes in. The form stands in plugins/wit/README.md."""

from __future__ import annotations

import struct
from enum import Enum
from typing import Iterator, Optional

from .row import Row
from .schema import Known, Schema, Schemas, Shape

MAGIC = b"TPB1"
HEAD = struct.Struct("<4sIII")
# Schema, partition, operation, flat, 0, origin, timestamp, offset, lane; then start and length of seven slots.
ENTRY = struct.Struct("<IiBBHIqqQ14I")
NOT_THERE = 0xFFFFFFFF
KEY, BEFORE, AFTER, SOURCE, HEADERS, POSITION, TOPIC = range(9, 23, 2)
_LENGTH = struct.Struct("<I")


class Op(Enum):
    """What became of a row."""

    CREATE = 1
    READ = 2
    UPDATE = 3
    DELETE = 4
    TRUNCATE = 5
    TOMBSTONE = 6


class Batch:
    """Records as they came."""

    def __init__(self, data: bytes, schemas: Schemas):
        """Reads a buffer; a `ValueError` where it is none."""
        if len(data) < HEAD.size:
            raise ValueError("the batch is shorter than its header")
        magic, count, entries, _ = HEAD.unpack_from(data)
        if magic != MAGIC:
            raise ValueError("the batch does not begin with TPB1")
        if entries < HEAD.size or entries + count * ENTRY.size != len(data):
            raise ValueError("the batch has its entries at a wrong place")
        self.data, self.entries, self.schemas, self._count = data, entries, schemas, count

    def __len__(self) -> int:
        return self._count

    def records(self) -> Iterator[Record]:
        """The records, in their order."""
        number, known = -1, None
        for index, entry in enumerate(ENTRY.iter_unpack(memoryview(self.data)[self.entries:])):
            if entry[0] != number:
                number = entry[0]
                known = self.schemas.get(number)
                if known is None:
                    raise ValueError(f"nobody knows the schema {number}")
            yield Record(self, entry, index, known)

    __iter__ = records


class Record:
    """One record of a batch."""

    __slots__ = ("batch", "entry", "index", "known")

    def __init__(self, batch: Batch, entry: tuple[int, ...], index: int, known: Known):
        self.batch, self.entry, self.index, self.known = batch, entry, index, known

    def schema(self) -> Schema:
        return self.known.schema

    def schema_number(self) -> int:
        return self.entry[0]

    def op(self) -> Optional[Op]:
        """What became of the row; `None` for a plain record."""
        return Op(self.entry[2]) if self.entry[2] else None

    def is_flat(self) -> bool:
        """Whether formats write the row alone."""
        return self.entry[3] == 1

    def timestamp_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self.entry[6]

    def offset(self) -> int:
        """The offset in the partition it was read from; -1 on the way into a topic."""
        return self.entry[7]

    def partition(self) -> Optional[int]:
        """The partition chosen for it."""
        return None if self.entry[1] < 0 else self.entry[1]

    def slot(self, at: int) -> Optional[tuple[int, int]]:
        """Where a part of it stands: start and length."""
        start, length = self.entry[at], self.entry[at + 1]
        if start == NOT_THERE:
            return None
        if start < HEAD.size or start + length > self.batch.entries:
            raise ValueError("a slot is outside of the arena")
        return start, length

    def _row(self, at: int, shape: Optional[Shape]) -> Optional[Row]:
        slot = None if shape is None else self.slot(at)
        return None if slot is None else Row(shape, self.batch.data, *slot)

    def key(self) -> Optional[Row]:
        return self._row(KEY, self.known.key)

    def before(self) -> Optional[Row]:
        """The row before the change."""
        return self._row(BEFORE, self.known.value)

    def after(self) -> Optional[Row]:
        """The row after the change; a plain record's row."""
        return self._row(AFTER, self.known.value)

    def source(self) -> Optional[Row]:
        """The row of Debezium's source block."""
        return self._row(SOURCE, self.known.source)

    def _bytes(self, at: int) -> Optional[bytes]:
        slot = self.slot(at)
        return None if slot is None else self.batch.data[slot[0]:slot[0] + slot[1]]

    def topic(self) -> Optional[str]:
        """The topic chosen for it."""
        data = self._bytes(TOPIC)
        return None if data is None else data.decode()

    def headers(self) -> list[tuple[str, Optional[bytes]]]:
        data = self._bytes(HEADERS) or b""
        at = 0

        def take() -> Optional[bytes]:
            nonlocal at
            if at + 4 > len(data):
                raise ValueError("a header is outside of its record")
            (length,) = _LENGTH.unpack_from(data, at)
            at += 4
            if length == NOT_THERE:
                return None
            if at + length > len(data):
                raise ValueError("a header is outside of its record")
            at += length
            return data[at - length:at]

        all = []
        while at < len(data):
            name = take()
            if name is None:
                raise ValueError("a header has no name")
            all.append((name.decode(), take()))
        return all


def headers_of(headers) -> bytes:
    """Headers in their form."""
    parts = []
    for name, value in headers:
        name = name.encode()
        value = value.encode() if isinstance(value, str) else value
        parts += [_LENGTH.pack(len(name)), name]
        parts += [_LENGTH.pack(NOT_THERE)] if value is None else [_LENGTH.pack(len(value)), bytes(value)]
    return b"".join(parts)
