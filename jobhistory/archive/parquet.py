"""The Parquet files of an archive: their types, their compression, and the digest of their ids.

Ids have 16 bytes, times have microseconds and are in UTC, and JSON is text.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobhistory.archive.arrow import compute as pc
from jobhistory.database.archived_rows import ArchivedColumn, Kind

TIME = pa.timestamp("us", tz="UTC")
# Not Parquet's type for UUIDs: Spark refuses to read a file that has one.
UUID_BYTES = pa.binary(16)

# Their values repeat. For other columns, a dictionary makes a file larger.
_DICTIONARIES = ("task_identifier", "worker_id", "status", "error_type", "error_message")
_TYPES: dict[Kind, Any] = {
    Kind.UUID: UUID_BYTES,
    Kind.TIME: TIME,
    Kind.INTEGER: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
}


def schema_of(columns: Sequence[ArchivedColumn]) -> pa.Schema:
    """Return the Arrow schema of a file with these columns."""
    return pa.schema([(each.name, _TYPES.get(each.kind, pa.string())) for each in columns])


def write_file(table: pa.Table) -> memoryview:
    """Return a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    dictionaries: Any = [name for name in _DICTIONARIES if name in table.column_names]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=dictionaries,
        write_page_checksum=True,  # so that damage is found when the file is read
    )
    return memoryview(sink.getvalue())


def read_table(data: bytes | memoryview, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a Parquet file as a table.

    Raises:
        pyarrow.ArrowInvalid: if it is not one, or is damaged.
    """
    return pq.ParquetFile(source_of(data), page_checksum_verification=True).read(columns)


def source_of(data: bytes | memoryview) -> pa.BufferReader:
    """Return the bytes of a file as a source, in memory of Arrow.

    The threads of Arrow release a source a moment after it is read. For memory of Python, they need
    the lock of the interpreter, and if that ends meanwhile, the process aborts.
    """
    memory = pa.allocate_buffer(memoryview(data).nbytes)
    pa.FixedSizeBufferWriter(memory).write(data)
    return pa.BufferReader(memory)


def digest_of(ids: Any) -> str:
    """Return the SHA-256 of sorted ids, 16 bytes each, in hexadecimal.

    Args:
        ids: a chunked array of Arrow of 16 bytes each, without NULL.
    """
    raw = ids.combine_chunks()
    ordered = raw.take(pc.sort_indices(raw))
    data = ordered.buffers()[1]
    start = ordered.offset * 16
    return sha256(memoryview(data)[start : start + len(ordered) * 16]).hexdigest()
