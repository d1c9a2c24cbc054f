"""A transform on the author's machine, without WASM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from .batch import AFTER, ENTRY, HEAD, MAGIC, NOT_THERE, Batch
from .describe import Rejection
from .host import Config
from .output import Output
from .row import ABSENT, RowWriter
from .schema import Schema, Schemas


@dataclass
class Passed:
    """A record that went on: which it was made from, and what it is now."""

    origin: int
    schema: Schema
    row: Optional[dict[str, Any]]
    topic: Optional[str]
    headers: list[tuple[str, Optional[bytes]]]


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
    passed = []
    for record in Batch(out.finish(), schemas):
        after = record.after()
        row = None if after is None else after.to_dict()
        passed.append(Passed(record.entry[5], record.schema(), row, record.topic(), record.headers()))
    return passed, out.rejected
