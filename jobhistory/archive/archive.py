"""An archive, as `expire` writes it and as readers find it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Unpack
from uuid import UUID

from jobhistory._runtime.clock import utc_now
from jobhistory.archive.storage import PENDING, Storage, storage_at
from jobhistory.archive.verified import VerifiedArchive
from jobhistory.archive_schema import RESTORED_NAME
from jobhistory.database.archived_rows import RawRows
from jobhistory.database.manifest import Entry
from jobhistory.database.transaction import RunsTransactions
from jobhistory.errors import ArchiveError, InvalidInput, check_count
from jobhistory.execution.ids import new_execution_id
from jobhistory.query.criteria import HistoryQuery, coerce
from jobhistory.typing import CountCriteria

_SUFFIX = ".parquet"
_ABANDONED = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Archive:
    """Parquet files with the executions that `expire` has deleted, one folder for each day.

    The files are `day=2026-11-28/*.parquet` below the location, compressed with zstd and sorted by
    `started_at` and `id`. Files in `_pending/` are not part of the archive yet.

    Args:
        url: a local folder, or a URL for fsspec, such as `"s3://bucket/archive"`.
        storage_options: passed to the file system of fsspec, such as `{"anon": False}`.
        clock: returns the current time, aware.

    Attributes:
        location: the URL without credentials, as the manifest has it.

    Raises:
        InvalidInput: if the URL cannot be used.
        ModuleNotFoundError: if the extra `archive` is not installed.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, Any] | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if not isinstance(url, str | os.PathLike):
            raise InvalidInput("archive", url, "is not a folder or URL; pass '/var/lib/archive'")
        require_extra()
        self.storage: Storage = storage_at(url, storage_options)
        self.location = self.storage.location
        self._clock = clock

    def __repr__(self) -> str:
        return f"Archive({self.location!r})"

    def now(self) -> datetime:
        """Return the current time."""
        return self._clock()

    def prepare(self, rows: RawRows, owner: str) -> list[Entry]:
        """Write rows to files in `_pending/`, one for each day, and check them; return the files.

        Args:
            owner: the id of the history that has the rows.

        Raises:
            ArchiveError: if a file cannot be written, or reads differently.
        """
        from jobhistory.archive.conversion import by_day, table_of

        entries: list[Entry] = []
        try:
            with self._naming("convert", "the rows"):
                table = table_of(rows)
            for day, part in by_day(table):
                entries.append(self._prepare_day(day, part, owner))
        except ArchiveError:
            self.discard(entries)
            raise
        return entries

    def prepare_rest(self, entry: Entry, table: Any, owner: str) -> Entry:
        """Write the rows that are left of a published file to `_pending/`; return its new entry.

        Raises:
            ArchiveError: as for `prepare`.
        """
        new = self._prepare_day(entry.day, table, owner)
        return new._replace(file=entry.file, archived_at=entry.archived_at)

    def publish(self, entry: Entry) -> None:
        """Move a file from `_pending/` to its path, once the manifest names it.

        Raises:
            ArchiveError: if it is gone, or the storage fails.
        """
        assert entry.pending is not None
        with self._naming("publish", entry.file):
            try:
                self.storage.publish(entry.pending, entry.file)
            except FileNotFoundError:
                # Another call has published it, or this one before a crash.
                if not self.is_intact(entry):
                    raise

    def is_intact(self, entry: Entry) -> bool:
        """Return whether the published file exists and has the bytes that were written.

        Raises:
            ArchiveError: if the storage fails.
        """
        with self._naming("read", entry.file):
            try:
                return sha256(self.storage.read(entry.file)).hexdigest() == entry.file_digest
            except FileNotFoundError:
                return False

    def delete(self, entry: Entry) -> None:
        """Delete a published file, if it exists.

        Raises:
            ArchiveError: if the storage fails.
        """
        with self._naming("delete", entry.file):
            self.storage.delete(entry.file)

    def discard(self, entries: Sequence[Entry]) -> None:
        """Delete files of `_pending/` that are not needed; errors do not matter."""
        for entry in entries:
            try:
                self.storage.delete(f"{PENDING}/{entry.pending}")
            except Exception:  # noqa: S112 - `clean` deletes it a day later
                continue

    def clean(self, owner: str, named: Collection[str]) -> None:
        """Delete the files of a history in `_pending/` that are older than a day.

        Args:
            owner: the id of the history. The files of others stay: they may be committed.
            named: the names of files that stay.

        Raises:
            ArchiveError: if the storage fails.
        """
        with self._naming("clean", PENDING):
            for name in self.storage.pending():
                made_at = _made_at(name, owner)
                if name in named or made_at is None or self.now() - made_at <= _ABANDONED:
                    continue
                self.storage.delete(f"{PENDING}/{name}")

    def verify(
        self, store: Any, *, progress: Callable[[int], None] | None = None
    ) -> VerifiedArchive:
        """Compare each file with the manifest, which is in the database of a store.

        It checks whether each file exists, can be read and has the bytes that were written, and the
        number of its executions, their ids and their day. It reads all files, writes nothing and
        locks nothing: others may use the archive meanwhile.

        Args:
            store: a `HistoryStore` on the database that has the manifest.
            progress: called after each file with the number of executions so far.

        Raises:
            InvalidInput: if the manifest does not name this archive.
            ArchiveError: if the storage cannot be listed.
        """
        from jobhistory.archive.verifying import Verifying

        history = self._known_to(store)
        return Verifying(history, self.storage, progress or _ignore).run()

    def restore(
        self,
        store: Any,
        from_: datetime | None = None,
        to: datetime | None = None,
        *,
        into: str = RESTORED_NAME,
        batch_size: int = 10_000,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Copy executions that started in a window into a table, and return their number.

        The table is in the schema of the history and has its columns. If there is none, it is
        created, with a primary key and an index by start, and without triggers: its executions do
        not count in statistics once more. Nothing expires them. Drop the table when you are done.

        Executions whose ids are in the table stay as they are, and do not count. So an interrupted
        call can be repeated. Each batch is a transaction. The files stay as they are, except that
        the call first publishes or deletes those that a killed `expire` or `purge` has left.

        Args:
            store: a `HistoryStore` on the database.
            from_, to: the window, with both ends; `None` for no bound.
            into: the name of the table. `job_history` is refused: its triggers would count the
                executions again, and the next `expire` would remove and archive them again.
            batch_size: the maximum number of rows that one transaction inserts.
            progress: called after each batch with the number of executions so far.

        Raises:
            InvalidInput: if an argument cannot be used, the table lacks a column or a unique key,
                or the manifest does not name this archive.
            ArchiveError: if the storage cannot be listed, or has none of the archive's files; or,
                once all others are restored, if a file of the window is missing.
        """
        from jobhistory.archive.known import check_all_there, check_not_gone
        from jobhistory.archive.restored_table import RestoredTable
        from jobhistory.archive.restoring import restore

        window = coerce(None, {"from_": from_, "to": to})
        check_count(batch_size, "batch_size", example=10_000)
        table = RestoredTable(into)
        history = self._known_to(store)
        check_not_gone(history, self.storage)
        self._finish_interrupted(history)
        found = (window.from_, window.to)
        progress = progress or _ignore
        restored = restore(history, self.storage, table, found, batch_size, progress)
        check_all_there(history, self.storage, found)
        return restored

    def purge(
        self,
        store: Any,
        /,
        criteria: HistoryQuery | Mapping[str, Any] | None = None,
        *,
        ids: Collection[UUID] | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        **named: Unpack[CountCriteria],
    ) -> int:
        """Delete the archived executions that meet all criteria, and return their number.

        It is for requests such as "delete all that you know about me". Executions that are still in
        the table are not archived yet: call `HistoryStore.purge` first. Tables of `restore` and
        backups keep theirs.

        Each file that holds such executions is replaced by one without them, or deleted. It is
        safe to kill the process at any time, and to run `expire` and other calls meanwhile.

        Args:
            store: a `HistoryStore` on the database that has the manifest.
            criteria, named: as for `HistoryStore.purge`.
            ids: the ids of executions. At least one criterion or id is needed.
            dry_run: delete nothing, and return the number of executions that meet the criteria.
            progress: called after each file with the number of executions so far.

        Raises:
            InvalidInput: if an argument cannot be used, there is no criterion, or the manifest
                does not name this archive.
            ArchiveError: if a file cannot be read or written, or differs from the manifest, or is
                not in it. Nothing is deleted from files that are not in the manifest.
        """
        from jobhistory.archive.deleting import Deleting
        from jobhistory.archive.known import check_all_named
        from jobhistory.archive.matching import Criteria

        query = coerce(criteria, named, without=("limit", "order"))
        if query == HistoryQuery() and ids is None:
            raise InvalidInput(
                "criteria", {}, "would delete the whole archive; pass one, such as job_id='order-7'"
            )
        meeting = Criteria(query, ids)
        history = self._known_to(store)
        check_all_named(history, self.storage)
        deleting = Deleting(history, self, meeting)
        return (deleting.count if dry_run else deleting.run)(progress or _ignore)

    def _finish_interrupted(self, history: RunsTransactions) -> None:
        """Publish or delete the files that a killed call has committed, as the manifest says."""
        from jobhistory.database import manifest
        from jobhistory.database.publishing import publish
        from jobhistory.database.transaction import Purpose

        find = partial(manifest.unpublished, location=self.location)
        publish(history, self, history.run(Purpose.MAINTAIN, find))

    def _known_to(self, store: Any) -> RunsTransactions:
        """Return what runs transactions on the database of a store, which has the manifest."""
        from jobhistory.archive.known import check_known

        history = _history_of(store)
        check_known(history, self.location)
        return history

    def _prepare_day(self, day: date, table: Any, owner: str) -> Entry:
        from jobhistory.archive.parquet import digest_of, write_file

        now = self.now()
        file = f"{new_execution_id(now).hex}{_SUFFIX}"
        name = f"{owner}-{file}"
        data = write_file(table)
        digest = digest_of(table.column("id"))
        file_digest = sha256(data).hexdigest()
        starts = table.column("started_at")
        with self._naming("write", f"{PENDING}/{name}"):
            self.storage.write(name, data)
            self._check(name, len(table), digest, file_digest)
        return Entry(
            location=self.location,
            file=f"day={day.isoformat()}/{file}",
            day=day,
            row_count=len(table),
            byte_count=len(data),
            digest=digest,
            file_digest=file_digest,
            first_started_at=starts[0].as_py(),
            last_started_at=starts[-1].as_py(),
            archived_at=now,
            pending=name,
        )

    def _check(self, name: str, row_count: int, digest: str, file_digest: str) -> None:
        """Read a file back, and compare the number of rows and the digests."""
        from jobhistory.archive.parquet import digest_of, read_table

        data = self.storage.read(f"{PENDING}/{name}")
        written = read_table(data)
        is_same = len(written) == row_count and digest_of(written.column("id")) == digest
        if not is_same or sha256(data).hexdigest() != file_digest:
            raise ArchiveError(self.location, f"has not stored what was written to {name}")

    @contextmanager
    def _naming(self, verb: str, path: str) -> Iterator[None]:
        """Turn the errors of a storage into `ArchiveError`, without what may hold credentials."""
        try:
            yield
        except ArchiveError:
            raise
        except Exception as error:  # a file system of fsspec may raise anything
            said = getattr(error, "strerror", None) or type(error).__name__
            raise ArchiveError(self.location, f"cannot {verb} {path}: {said}") from error


def _ignore(count: int) -> None:
    """Ignore progress."""


def _history_of(store: Any) -> RunsTransactions:
    history: Any = getattr(getattr(store, "internals", None), "history", None)
    if not hasattr(history, "run"):
        raise InvalidInput("store", store, "has no database; pass create_store(engine)")
    found: RunsTransactions = history
    return found


def require_extra() -> None:
    """Check that the packages of the extra are installed.

    Raises:
        ModuleNotFoundError: if they are not.
    """
    try:
        import fsspec  # noqa: F401
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "archives require pip install 'jobhistory[archive]'", name=error.name
        ) from error


def _made_at(name: str, owner: str) -> datetime | None:
    """Return when a history has made a file of `_pending/`; `None` if another one has."""
    if not name.startswith(f"{owner}-"):
        return None
    try:
        milliseconds = UUID(hex=name.removeprefix(f"{owner}-").removesuffix(_SUFFIX)).int >> 80
    except ValueError:
        return None
    return _EPOCH + timedelta(milliseconds=milliseconds)
