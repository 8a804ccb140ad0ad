"""Reading the Parquet files of an archive."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobhistory.archive.parquet import TIME, read_table, write_file
from jobhistory.archive.reading import rows_between

NOW = datetime(2015, 11, 1, 12, tzinfo=UTC)


def read_whole(data):
    return read_table(data).num_rows


def read_in_batches(data):
    storage = SimpleNamespace(read=lambda file: data)
    return sum(rows.num_rows for rows in rows_between(storage, "", (NOW, NOW), 10))


@pytest.mark.parametrize("read", [read_whole, read_in_batches])
def test_arrow_does_not_hold_the_memory_of_python(monkeypatch, read):
    """Its threads release it late, and abort the process if the interpreter ends meanwhile."""
    data = bytearray(write_file(pa.table({"started_at": pa.array([NOW], TIME)})))

    class Watched(pq.ParquetFile):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            data.append(0)  # an error as long as anything else holds its memory

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    assert read(data) == 1
