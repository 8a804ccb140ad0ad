"""Rows of a database as Arrow tables: sorted, and split by the day of their start.

No Python object is made for a row that comes as CSV.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterator
from datetime import date
from typing import Any

import pyarrow as pa
from pyarrow import csv

from jobhistory.archive.arrow import compute as pc
from jobhistory.archive.parquet import TIME, UUID_BYTES, schema_of
from jobhistory.database.archived_rows import ArchivedColumn, Kind, RawRows

_PLAIN_TIME = pa.timestamp("us")
_READ_AS: dict[Kind, Any] = {
    Kind.TIME: _PLAIN_TIME,
    Kind.INTEGER: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
}
_PARSED = csv.ParseOptions(newlines_in_values=True)
_BLOCK = 1 << 23


def table_of(rows: RawRows) -> pa.Table:
    """Return rows as a table, in the order of `started_at` and `id`."""
    table = _parsed(rows) if rows.csv is not None else _built(rows)
    table = table.combine_chunks()
    arrays = [_converted(column, table.column(column.name)) for column in rows.columns]
    raw = pa.table(arrays, names=[column.name for column in rows.columns])
    order = pc.sort_indices(
        raw.select(["started_at", "id"]),
        sort_keys=[("started_at", "ascending"), ("id", "ascending")],
    )
    ordered = raw.take(order).combine_chunks()
    return _with_types(ordered, schema_of(rows.columns))


def by_day(table: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    """Yield each day of a sorted table, in UTC, with its rows."""
    days = pc.value_counts(table.column("started_at").cast(pa.date32()))
    start = 0
    for each in days.to_pylist():
        yield each["values"], table.slice(start, each["counts"])
        start += each["counts"]


def _parsed(rows: RawRows) -> pa.Table:
    assert rows.csv is not None
    names = [column.name for column in rows.columns]
    types = {each.name: _READ_AS.get(each.kind, pa.string()) for each in rows.columns}
    if not rows.csv:
        return pa.schema(types).empty_table()
    options = csv.ConvertOptions(
        column_types=types,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        true_values=["t"],
        false_values=["f"],
    )

    def parsed(block_size: int) -> pa.Table:
        reading = csv.ReadOptions(column_names=names, block_size=block_size)
        return csv.read_csv(pa.BufferReader(rows.csv), reading, _PARSED, options)

    try:
        return parsed(_BLOCK)
    except pa.ArrowInvalid:  # a row may be longer than a block
        if len(rows.csv) <= _BLOCK:
            raise
        return parsed(len(rows.csv))


def _built(rows: RawRows) -> pa.Table:
    columns = list(zip(*rows.values, strict=True)) or [()] * len(rows.columns)
    arrays = [_array(column, values) for column, values in zip(rows.columns, columns, strict=True)]
    return pa.table(arrays, names=[column.name for column in rows.columns])


def _array(column: ArchivedColumn, values: Any) -> Any:
    if column.kind is Kind.TIME:
        # Text from SQLite, datetimes from drivers for PostgreSQL.
        is_text = any(isinstance(value, str) for value in values)
        array = pa.array(values, pa.string() if is_text else _PLAIN_TIME)
        return array.cast(_PLAIN_TIME)
    if column.kind is Kind.BOOLEAN:
        return pa.array([None if value is None else bool(value) for value in values], pa.bool_())
    return pa.array(values, _READ_AS.get(column.kind, pa.string()))


def _converted(column: ArchivedColumn, values: Any) -> Any:
    if column.kind is Kind.UUID:
        return _unhexlified(values)
    return values.cast(TIME) if column.kind is Kind.TIME else values


def _unhexlified(texts: Any) -> Any:
    """Return hexadecimal texts as arrays of 16 bytes, with one conversion for all of them."""
    found = pc.drop_null(texts)
    joined = b"".join(_text_of(chunk) for chunk in found.chunks)
    ids = pa.Array.from_buffers(UUID_BYTES, len(found), [None, pa.py_buffer(unhexlify(joined))])
    if texts.null_count == 0:
        return ids
    # The position of each id among those that are not NULL.
    is_there = pc.is_valid(texts).combine_chunks()
    positions = pc.subtract(pc.cumulative_sum(is_there.cast(pa.int64())), 1)
    return ids.take(pc.if_else(is_there, positions, pa.scalar(None, pa.int64())))


def _text_of(chunk: Any) -> memoryview:
    offsets = memoryview(chunk.buffers()[1]).cast("i")
    data = chunk.buffers()[2]
    if data is None:
        return memoryview(b"")
    return memoryview(data)[offsets[chunk.offset] : offsets[chunk.offset + len(chunk)]]


def _with_types(table: pa.Table, schema: pa.Schema) -> pa.Table:
    arrays = [
        pa.chunked_array(
            [pa.ExtensionArray.from_storage(field.type, chunk) for chunk in column.chunks],
            field.type,
        )
        if isinstance(field.type, pa.BaseExtensionType)
        else column
        for field, column in zip(schema, table.columns, strict=True)
    ]
    return pa.table(arrays, schema=schema)
