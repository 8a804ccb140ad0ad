"""Deletion on request from an archive: each file with such executions is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from jobhistory.archive.arrow import compute as pc
from jobhistory.archive.matching import Criteria
from jobhistory.archive.parquet import read_table
from jobhistory.archive.reading import data_of, naming
from jobhistory.database import manifest
from jobhistory.database.history_id import history_id
from jobhistory.database.manifest import Entry
from jobhistory.database.publishing import publish, refuse_old
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.errors import ArchiveError

if TYPE_CHECKING:
    from jobhistory.archive.archive import Archive

_NOTHING = sha256().hexdigest()


class Deleting:
    """One call of `Archive.purge`.

    For each file, the new one is written to `_pending/`. Then a transaction enters it in the
    manifest in place of the old one, unless that has changed meanwhile: this deletes the
    executions. Then it takes the name of the old one. A file without executions is deleted. If the
    process is killed, the next call with the archive finishes what the manifest says. So each
    execution is in exactly one file, or in none.
    """

    def __init__(self, history: RunsTransactions, archive: Archive, criteria: Criteria) -> None:
        self._history = history
        self._archive = archive
        self._criteria = criteria

    def count(self, progress: Callable[[int], None]) -> int:
        """Return the number of executions that meet the criteria, and change nothing."""
        found = 0
        for entry in self._entries():
            found += self._count_in(entry)
            progress(found)
        return found

    def run(self, progress: Callable[[int], None]) -> int:
        """Delete the executions that meet the criteria, and return their number."""
        deleted = 0
        for entry in self._entries():
            deleted += self._delete_from(entry)
            progress(deleted)
        return deleted

    def _count_in(self, entry: Entry) -> int:
        storage = self._archive.storage
        while not entry.is_to_be_deleted:
            try:
                with naming(storage, entry.file):
                    return pc.sum(self._mask(data_of(storage, entry))).as_py() or 0
            except FileNotFoundError:
                self._refuse_unless_changed(entry, "there is no such file")
            newest = self._newest(entry)
            if newest is None:
                break
            entry = newest
        return 0

    def _delete_from(self, entry: Entry) -> int:
        """Delete executions from a file, as often as others change it meanwhile."""
        while True:
            if entry.published_at is None:
                self._finish(entry)
            elif (deleted := self._attempt(entry)) is not None:
                return deleted
            newest = self._newest(entry)
            if newest is None:  # others have deleted all of its executions
                return 0
            entry = newest

    def _attempt(self, entry: Entry) -> int | None:
        """Delete executions from a file; return `None` if others have changed it meanwhile."""
        try:
            with naming(self._archive.storage, entry.file):
                data = self._archive.storage.read(entry.file)
        except FileNotFoundError:
            self._refuse_unless_changed(entry, "there is no such file")
            return None
        if sha256(data).hexdigest() != entry.file_digest:
            self._refuse_unless_changed(entry, "has other bytes than were written")
            return None
        found = self._mask(data)
        count: int = pc.sum(found).as_py() or 0
        if not count:
            return 0
        began_at = self._archive.now()
        kept = read_table(data).filter(pc.invert(found))
        new = (
            self._archive.prepare_rest(entry, kept, self._owner)
            if len(kept)
            else _without_executions(entry)
        )

        def replace(transaction: Transaction) -> bool:
            refuse_old(self._archive, began_at)
            return manifest.replace(transaction, entry, new)

        if not self._history.run(Purpose.MAINTAIN_AS_ONE, replace):
            self._archive.discard([new])
            return None
        self._finish(new)
        return count

    def _finish(self, entry: Entry) -> None:
        """Publish the new file, or delete one without executions, as the manifest says."""
        publish(self._history, self._archive, [entry])

    @cached_property
    def _owner(self) -> str:
        return self._history.run(Purpose.MAINTAIN_AS_ONE, history_id)

    def _mask(self, data: bytes) -> Any:
        return self._criteria.mask(read_table(data, self._criteria.columns))

    def _entries(self) -> Iterator[Entry]:
        """Yield the files that may hold such executions, oldest first."""
        query = self._criteria.query
        for entry in self._read():
            first, last = entry.first_started_at, entry.last_started_at
            if first is None or last is None:
                is_in_window = entry.is_to_be_deleted  # which this call then finishes
            else:
                starts_before = query.to is None or first <= query.to
                is_in_window = starts_before and (query.from_ is None or last >= query.from_)
            if is_in_window:
                yield entry

    def _newest(self, entry: Entry) -> Entry | None:
        return next((each for each in self._read() if each.file == entry.file), None)

    def _read(self) -> list[Entry]:
        read = partial(manifest.entries_of, location=self._archive.location)
        return self._history.run(Purpose.READ, read)

    def _refuse_unless_changed(self, entry: Entry, why: str) -> None:
        """Raise an error if the manifest still says what the file contradicts."""
        if self._newest(entry) == entry:
            raise ArchiveError(
                self._archive.location, f"differs from its manifest: {entry.file}: {why}"
            )


def _without_executions(entry: Entry) -> Entry:
    """Return the entry of a file that is to be deleted."""
    return entry._replace(
        row_count=0,
        byte_count=0,
        digest=_NOTHING,
        file_digest=_NOTHING,
        first_started_at=None,
        last_started_at=None,
        pending=None,
        published_at=None,
    )
