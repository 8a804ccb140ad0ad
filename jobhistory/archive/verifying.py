"""Whether the files of an archive are those of its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from hashlib import sha256

import pyarrow as pa

from jobhistory.archive.arrow import compute as pc
from jobhistory.archive.parquet import digest_of, read_table
from jobhistory.archive.reading import data_of, day_of
from jobhistory.archive.storage import PENDING, Storage
from jobhistory.archive.verified import ArchiveProblem, VerifiedArchive
from jobhistory.database.manifest import Entry, entries_of
from jobhistory.database.transaction import Purpose, RunsTransactions
from jobhistory.errors import reason


class Verifying:
    """One call of `Archive.verify`, which reads all files and changes nothing.

    Others may write to the archive meanwhile: where a file differs from the manifest, the manifest
    is read once more.

    Args:
        progress: called after each file with the number of executions so far.
    """

    def __init__(
        self, history: RunsTransactions, storage: Storage, progress: Callable[[int], None]
    ) -> None:
        self._history = history
        self._storage = storage
        self._location = storage.location
        self._progress = progress

    def run(self) -> VerifiedArchive:
        """Compare each entry of the manifest with its file."""
        # In this order, because a file is in the manifest before it is published.
        published = set(self._storage.files())
        waiting = {f"{PENDING}/{name}" for name in self._storage.pending()}
        entries = self._entries()
        problems: list[ArchiveProblem] = []
        rows = 0
        for entry in entries.values():
            problems += self._problems_of(entry)
            rows += entry.row_count
            self._progress(rows)
        problems += [_unknown(file) for file in published - entries.keys()]
        done = [entry for entry in entries.values() if entry.published_at is not None]
        undone = {entry.file for entry in entries.values() if entry.published_at is None}
        return VerifiedArchive(
            files=len(done),
            rows=sum(entry.row_count for entry in done),
            bytes=sum(entry.byte_count for entry in done),
            pending=tuple(sorted(undone | waiting)),
            problems=tuple(sorted(problems, key=lambda problem: problem.file)),
        )

    def _problems_of(self, entry: Entry) -> list[ArchiveProblem]:
        """Return what is wrong with a file, unless it is replaced while it is read."""
        while problems := list(_compare(self._storage, entry)):
            newest = self._entries().get(entry.file)
            if newest is None:  # all its executions have been deleted on request
                return []
            if newest == entry:
                return problems
            entry = newest
        return []

    def _entries(self) -> dict[str, Entry]:
        read = partial(entries_of, location=self._location)
        return {entry.file: entry for entry in self._history.run(Purpose.READ, read)}


def _compare(storage: Storage, entry: Entry) -> Iterator[ArchiveProblem]:
    """Yield what is wrong with the file of an entry, which may still be in `_pending/`."""
    if entry.is_to_be_deleted:
        return
    try:
        data = data_of(storage, entry)
        rows = read_table(data)  # all of it, so that damage is found anywhere
        ids, days = digest_of(rows["id"]), _days(rows)
    except FileNotFoundError:
        yield ArchiveProblem(entry.file, "missing", "there is no such file")
        return
    except Exception as error:  # damage may lead to any
        yield ArchiveProblem(entry.file, "unreadable", f"cannot be read: {reason(error)}")
        return
    if len(rows) != entry.row_count:
        detail = f"has {len(rows)} executions, and the manifest says {entry.row_count}"
        yield ArchiveProblem(entry.file, "rows", detail)
    elif ids != entry.digest:
        yield ArchiveProblem(entry.file, "digest", "has other executions than the manifest says")
    elif len(data) != entry.byte_count:
        detail = f"has {len(data)} bytes, and the manifest says {entry.byte_count}"
        yield ArchiveProblem(entry.file, "size", detail)
    elif sha256(data).hexdigest() != entry.file_digest:
        yield ArchiveProblem(entry.file, "bytes", "has other bytes than were written")
    others = {*days, day_of(entry.file)} - {entry.day}
    if others:
        detail = f"holds executions of {', '.join(sorted(map(str, others)))}"
        yield ArchiveProblem(entry.file, "day", detail)


def _days(rows: pa.Table) -> list[date]:
    days: list[date] = pc.unique(rows["started_at"].cast(pa.date32())).to_pylist()
    return days


def _unknown(file: str) -> ArchiveProblem:
    return ArchiveProblem(file, "unknown", "is not in the manifest")
