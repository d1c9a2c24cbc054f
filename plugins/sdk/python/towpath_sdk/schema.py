"""The shapes of records."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Optional

from . import host

_KINDS = {
    "boolean": "boolean", "int16": "int", "int32": "int", "int64": "int", "float32": "float32", "float64": "float64",
    "bytes": "bytes",
}


@dataclass(frozen=True)
class Field:
    """One field of a row. `type` is a scalar of the contract in lower case (`text`, `int64`, `timestamp_tz` …)."""

    name: str
    type: str
    dimensions: int = 0
    nullable: bool = True
    source_type: Optional[str] = None
    renamed_from: Optional[str] = None
    initial: Optional[str] = None
    # The column's identity: a table and a column in it.
    id: Optional[tuple[int, int]] = None

    @property
    def kind(self) -> str:
        """What its values are in a row."""
        return _KINDS.get(self.type, "text") if self.dimensions == 0 else "text"


@dataclass(frozen=True)
class SourceBlock:
    """Debezium's `source` block: constant entries, and fields of each record."""

    constants: tuple[tuple[str, str], ...]
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Schema:
    """The schema of the records of one table, file or stream."""

    name: str
    value: tuple[Field, ...]
    key: Optional[tuple[Field, ...]] = None
    variables: tuple[tuple[str, str], ...] = ()
    # Columns that records do not carry: name, source type, expression.
    computed: tuple[tuple[str, str, str], ...] = ()
    source: Optional[SourceBlock] = None


class Shape:
    """Fields, and what is looked up of them for every record."""

    __slots__ = ("fields", "index", "kinds", "struct", "table")

    def __init__(self, fields: tuple[Field, ...]):
        self.fields = fields
        self.kinds = [it.kind for it in fields]
        self.index = {it.name: at for at, it in reversed(list(enumerate(fields)))}
        self.struct = struct.Struct(f"<{len(fields)}I")
        self.table = self.struct.size


@dataclass
class Known:
    """A schema that has a number, with the shapes of its rows."""

    schema: Schema
    key: Optional[Shape] = field(init=False)
    value: Shape = field(init=False)
    source: Optional[Shape] = field(init=False)

    def __post_init__(self) -> None:
        schema = self.schema
        self.key = None if schema.key is None else Shape(schema.key)
        self.value = Shape(schema.value)
        self.source = None if schema.source is None else Shape(schema.source.fields)


class Schemas:
    """The schemas that an instance knows by number: each is asked for once."""

    def __init__(self) -> None:
        self._known: dict[int, Known] = {}
        self._numbers: dict[Schema, int] = {}

    def get(self, number: int) -> Optional[Known]:
        known = self._known.get(number)
        if known is None and host.bound() is not None:
            schema = host.bound().schemas.get(number)
            if schema is not None:
                known = self._keep(number, _schema_in(schema))
        return known

    def define(self, schema: Schema) -> Optional[int]:
        """A number for a schema; `None` when there are too many, or it is too large."""
        number = self._numbers.get(schema)
        if number is not None:
            return number
        bound = host.bound()
        if bound is None:
            number = len(self._known)
        else:
            try:
                number = bound.schemas.define(_schema_out(bound.schemas, schema))
            except bound.Err:
                return None
        self._keep(number, schema)
        return number

    def _keep(self, number: int, schema: Schema) -> Known:
        known = self._known[number] = Known(schema)
        self._numbers[schema] = number
        return known


def _field_in(it: Any) -> Field:
    return Field(
        it.name, it.field_type.scalar.name.lower(), it.field_type.dimensions, it.nullable, it.source_type, it.renamed_from,
        it.initial, None if it.id is None else (it.id.table, it.id.column),
    )


def _schema_in(it: Any) -> Schema:
    def fields(all: Any) -> tuple[Field, ...]:
        return tuple(map(_field_in, all))

    source = it.source and SourceBlock(tuple(map(tuple, it.source.constants)), fields(it.source.fields))
    computed = tuple((at.name, at.source_type, at.expression) for at in it.computed)
    key = None if it.key is None else fields(it.key)
    return Schema(it.name, fields(it.value), key, tuple(map(tuple, it.variables)), computed, source)


def _schema_out(wit: Any, it: Schema) -> Any:
    def field(at: Field) -> Any:
        column = None if at.id is None else wit.ColumnId(*at.id)
        kind = wit.FieldType(wit.Scalar[at.type.upper()], at.dimensions)
        return wit.Field(at.name, kind, at.nullable, at.source_type, at.renamed_from, at.initial, column)

    def fields(all: tuple[Field, ...]) -> list[Any]:
        return list(map(field, all))

    source = it.source and wit.SourceBlock(list(it.source.constants), fields(it.source.fields))
    computed = [wit.Computed(*at) for at in it.computed]
    key = None if it.key is None else fields(it.key)
    return wit.Schema(it.name, list(it.variables), key, fields(it.value), computed, source)
