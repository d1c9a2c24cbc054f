"""Rows: reading one under its fields, and writing one. The form stands in plugins/wit/README.md."""

from __future__ import annotations

import struct
from typing import Any, Iterator

from .schema import Field, Shape

_NULL, _ABSENT = 1, 2
_END_MASK = 0x3FFFFFFF
_INT64, _FLOAT64, _FLOAT32 = struct.Struct("<q"), struct.Struct("<d"), struct.Struct("<f")
_BITS = {"int16": 15, "int32": 31, "int64": 63}


class _Absent:
    """What the source did not tell: never to be taken for null."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT = _Absent()


class Row:
    """A row of a record."""

    __slots__ = ("_bytes", "_ends", "shape")

    def __init__(self, shape: Shape, data: bytes, start: int, length: int):
        if length < shape.table:
            raise ValueError("a row is shorter than its table")
        self.shape = shape
        self._bytes = data[start + shape.table:start + length]
        self._ends = shape.struct.unpack_from(data, start)

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.shape.fields

    def __len__(self) -> int:
        return len(self._ends)

    def raw(self, index: int) -> tuple[int, bytes]:
        """The state of a field and its bytes as they stand."""
        entry = self._ends[index]
        if entry > _END_MASK:
            return entry >> 30, b""
        start = self._ends[index - 1] & _END_MASK if index > 0 else 0
        if start > entry or entry > len(self._bytes):
            raise ValueError("a field is outside of its row")
        return 0, self._bytes[start:entry]

    def get(self, index: int) -> Any:
        """A value: `None` for null, `ABSENT` where the source did not tell, or what the field's type says."""
        state, data = self.raw(index)
        if state:
            return None if state == _NULL else ABSENT
        kind = self.shape.kinds[index]
        if kind == "text":
            return data.decode()
        if kind == "int":
            return int.from_bytes(data, "little", signed=True) if len(data) == 8 else _width()
        if kind == "boolean":
            return data != b"\0" if len(data) == 1 else _width()
        if kind == "float64":
            return _FLOAT64.unpack(data)[0] if len(data) == 8 else _width()
        if kind == "float32":
            return _FLOAT32.unpack(data)[0] if len(data) == 4 else _width()
        return data

    def by_name(self, name: str) -> Any:
        """The value of a field; `ABSENT` also where there is no such field."""
        index = self.shape.index.get(name)
        return ABSENT if index is None else self.get(index)

    def __contains__(self, name: str) -> bool:
        return name in self.shape.index

    def values(self) -> Iterator[Any]:
        return map(self.get, range(len(self._ends)))

    def to_dict(self) -> dict[str, Any]:
        """`{name: value}`, without absent fields."""
        pairs = zip(self.shape.fields, self.values())
        return {field.name: value for field, value in pairs if value is not ABSENT}


def _width() -> Any:
    raise ValueError("a field has the wrong width")


class RowWriter:
    """Writes the values of a row, in the order of its fields. Fields that are not written are absent."""

    __slots__ = ("_ends", "_length", "_parts", "_shape")

    def __init__(self, shape: Shape):
        self._shape = shape
        self._ends: list[int] = []
        self._parts: list[bytes] = []
        self._length = 0

    def _put(self, state: int, data: bytes) -> None:
        if len(self._ends) >= len(self._shape.fields):
            raise ValueError(f"the row has {len(self._shape.fields)} fields and no more")
        self._length += len(data)
        if self._length > _END_MASK:
            raise ValueError("a row is larger than a row may be")
        self._parts.append(data)
        self._ends.append(state << 30 | self._length)

    def value(self, value: Any) -> None:
        """Writes the next value: `None`, `ABSENT`, or what the field's type says."""
        if value is None:
            return self._put(_NULL, b"")
        if value is ABSENT:
            return self._put(_ABSENT, b"")
        at = len(self._ends)
        if at >= len(self._shape.fields):
            raise ValueError(f"the row has {at} fields and no more")
        return self._put(0, _encoded(self._shape.fields[at], self._shape.kinds[at], value))

    def copy(self, row: Row, index: int) -> None:
        """Writes the next field as it stands in another row."""
        self._put(*row.raw(index))

    def finish(self) -> bytes:
        missing = len(self._shape.fields) - len(self._ends)
        self._ends.extend([_ABSENT << 30 | self._length] * missing)
        return self._shape.struct.pack(*self._ends) + b"".join(self._parts)


def _encoded(field: Field, kind: str, value: Any) -> bytes:
    if kind == "text" and isinstance(value, str):
        return value.encode()
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        most = 1 << _BITS[field.type]
        if not -most <= value < most:
            raise ValueError(f"{value} is no {field.type}, which `{field.name}` is")
        return _INT64.pack(value)
    if kind == "boolean" and isinstance(value, bool):
        return b"\1" if value else b"\0"
    if kind in ("float64", "float32") and isinstance(value, (int, float)) and not isinstance(value, bool):
        return (_FLOAT64 if kind == "float64" else _FLOAT32).pack(value)
    if kind == "bytes" and isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"`{field.name}` takes no {type(value).__name__}: its type is {field.type}")
