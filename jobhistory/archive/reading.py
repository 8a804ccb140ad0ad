"""Rows of an archive's published files, in batches and in the order of their start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from jobhistory.archive.arrow import compute as pc
from jobhistory.archive.parquet import source_of
from jobhistory.archive.storage import PENDING, Storage
from jobhistory.database.manifest import Entry
from jobhistory.errors import ArchiveError, reason

Window: TypeAlias = tuple[datetime | None, datetime | None]
"""The first and the last start; `None` for no bound."""


def day_of(file: str) -> date | None:
    """Return the day of a file, which its folder names; `None` if it names none."""
    folder, _, _ = file.partition("/")
    try:
        return date.fromisoformat(folder.removeprefix("day="))
    except ValueError:
        return None


def data_of(storage: Storage, entry: Entry) -> bytes:
    """Return the file of an entry of the manifest, from `_pending/` until it is published.

    Raises:
        FileNotFoundError: if there is none.
    """
    if entry.pending is not None:
        with suppress(FileNotFoundError):  # it may have just been published
            return storage.read(f"{PENDING}/{entry.pending}")
    return storage.read(entry.file)


def files_between(storage: Storage, window: Window) -> list[str]:
    """Return the published files of the days of a window, oldest day first."""
    from_, to = window
    first = date.min if from_ is None else from_.astimezone(UTC).date()
    last = date.max if to is None else to.astimezone(UTC).date()
    days = {file: day_of(file) for file in storage.files()}
    return [file for file, day in days.items() if day is not None and first <= day <= last]


@contextmanager
def naming(storage: Storage, file: str) -> Iterator[None]:
    """Turn what goes wrong with a file into `ArchiveError`, except that there is no such file."""
    try:
        yield
    except (ArchiveError, FileNotFoundError):
        raise
    except Exception as error:  # a file system of fsspec may raise anything
        # Arrow knows no credentials, but a file system may quote its URL with them.
        why = reason(error) if isinstance(error, pa.ArrowException) else _told(error)
        raise ArchiveError(
            storage.location, f"cannot read {file}: {why}; 'archive verify' checks all files"
        ) from None


def rows_between(
    storage: Storage, file: str, window: Window, size: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file that started in a window.

    It yields none if the file is gone, because all of its rows have been deleted on request.

    Args:
        size: the maximum number of rows in a batch.

    Raises:
        ArchiveError: if the file is damaged, or the storage fails.
    """
    batches = _batches(storage, file, size)
    while True:
        try:
            with naming(storage, file):
                batch = next(batches, None)
        except FileNotFoundError:
            return
        if batch is None:
            return
        rows = _within(batch, window)
        if rows.num_rows:
            yield rows


def _batches(storage: Storage, file: str, size: int) -> Iterator[pa.RecordBatch]:
    source = source_of(storage.read(file))
    yield from pq.ParquetFile(source, page_checksum_verification=True).iter_batches(batch_size=size)


def _told(error: Exception) -> str:
    if type(error) is OSError and error.errno is None:  # Arrow's, for example of a checksum
        return "it is damaged"
    return getattr(error, "strerror", None) or type(error).__name__


def _within(rows: pa.RecordBatch, window: Window) -> pa.RecordBatch:
    for bound, compare in zip(window, (pc.greater_equal, pc.less_equal), strict=True):
        if bound is not None:
            started_at = rows.column("started_at")
            rows = rows.filter(compare(started_at, pa.scalar(bound, started_at.type)))
    return rows
