"""Rows of Arrow as CSV, which PostgreSQL's COPY reads."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
from pyarrow import csv

from jobhistory.archive.arrow import compute as pc

_DIGITS = 32
_NO_ID = bytes(16)


def csv_of(rows: pa.RecordBatch) -> bytes:
    """Return rows as CSV without headings: ids as hexadecimal digits, NULL as nothing.

    Texts are in quotes, so an empty one differs from NULL.
    """
    columns = [
        _hexadecimal(each) if pa.types.is_fixed_size_binary(each.type) else each
        for each in rows.columns
    ]
    written = io.BytesIO()
    options = csv.WriteOptions(include_header=False)
    csv.write_csv(pa.record_batch(columns, names=rows.schema.names), written, options)
    return written.getvalue()


def _hexadecimal(ids: Any) -> Any:
    """Return ids as text, without a Python object for each."""
    filled = pc.fill_null(ids, pa.scalar(_NO_ID, ids.type))
    data = filled.buffers()[1].to_pybytes()
    start = filled.offset * len(_NO_ID)
    digits = data[start : start + len(filled) * len(_NO_ID)].hex().encode()
    offsets = pa.array(range(0, len(digits) + 1, _DIGITS), pa.int32())
    texts = pa.StringArray.from_buffers(len(filled), offsets.buffers()[1], pa.py_buffer(digits))
    return pc.if_else(pc.is_valid(ids), texts, None)
