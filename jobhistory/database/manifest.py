"""The manifest of archives in a database: which files hold archived rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

from sqlalchemy import bindparam, delete, insert, select, update

from jobhistory.archive_schema import ARCHIVE
from jobhistory.database.transaction import Transaction

_COLUMNS = ARCHIVE.c
_KEY = ("location", "file")
_IN_ORDER = (_COLUMNS.day, _COLUMNS.first_started_at, _COLUMNS.file)


class Entry(NamedTuple):
    """A file of an archive, with the values of the columns of the manifest.

    Attributes:
        location: the URL of the archive, without credentials.
        file: the path of the file below it.
        day: the day on which its executions started, in UTC.
        row_count, byte_count: the number of executions, and the size of the file.
        digest: the SHA-256 of the sorted ids, in hexadecimal.
        file_digest: the SHA-256 of the bytes of the file, in hexadecimal.
        first_started_at, last_started_at: the first and the last start; `None` without executions.
        archived_at: the time at which the executions were deleted from the table.
        pending: the name in `_pending/` under which the file waits to be published.
        published_at: the time at which it was published.
    """

    location: str
    file: str
    day: date
    row_count: int
    byte_count: int
    digest: str
    file_digest: str
    first_started_at: datetime | None
    last_started_at: datetime | None
    archived_at: datetime
    pending: str | None = None
    published_at: datetime | None = None

    @property
    def is_to_be_deleted(self) -> bool:
        """Whether no execution is left in the file, and it still exists."""
        return self.row_count == 0 and self.pending is None and self.published_at is None


_OF_LOCATION = (
    select(*(_COLUMNS[name] for name in Entry._fields))
    .where(_COLUMNS.location == bindparam("location"))
    .order_by(*_IN_ORDER)
)
_PENDING = select(_COLUMNS.pending).where(
    _COLUMNS.published_at.is_(None), _COLUMNS.pending.is_not(None)
)
_UNPUBLISHED = _OF_LOCATION.where(_COLUMNS.published_at.is_(None))
_NAMED = select(*(_COLUMNS[name] for name in Entry._fields)).where(
    _COLUMNS.file == bindparam("named")
)
_THIS = (_COLUMNS.location == bindparam("of"), _COLUMNS.file == bindparam("named"))
# Only if it is still the same file that waits: another call may have replaced it meanwhile.
_SET_PUBLISHED = (
    update(ARCHIVE)
    .where(*_THIS, _COLUMNS.pending == bindparam("name"))
    .values(pending=None, published_at=bindparam("at"))
)
# Only if it is still the file that was read: another call may have replaced it meanwhile.
_REPLACE = update(ARCHIVE).where(
    *_THIS, _COLUMNS.file_digest == bindparam("old"), _COLUMNS.published_at == bindparam("since")
)
_FORGET = delete(ARCHIVE).where(
    *_THIS, _COLUMNS.row_count == 0, _COLUMNS.pending.is_(None), _COLUMNS.published_at.is_(None)
)


def enter(transaction: Transaction, entries: Sequence[Entry]) -> None:
    """Add files to the manifest, in the transaction that deletes their executions."""
    if entries:  # a partition that is dropped may be empty
        transaction.execute(insert(ARCHIVE), [entry._asdict() for entry in entries])


def entries_of(transaction: Transaction, location: str) -> list[Entry]:
    """Return the files of an archive, in the order of their days and starts."""
    return [Entry(*row) for row in transaction.execute(_OF_LOCATION, {"location": location})]


def unpublished(transaction: Transaction, location: str) -> list[Entry]:
    """Return the files of an archive that wait to be published or deleted."""
    return [Entry(*row) for row in transaction.execute(_UNPUBLISHED, {"location": location})]


def pending_names(transaction: Transaction) -> set[str]:
    """Return the names of files in `_pending/` that wait to be published, of all archives."""
    return set(transaction.execute(_PENDING).scalars())


def note_published(transaction: Transaction, entry: Entry, at: datetime) -> bool:
    """Note that a file is published under its name; return `False` if it no longer waits."""
    values = {"of": entry.location, "named": entry.file, "name": entry.pending, "at": at}
    changed: int = transaction.execute(_SET_PUBLISHED, values).rowcount
    return changed == 1


def newest(transaction: Transaction, file: str) -> Entry | None:
    """Return what the manifest says about a file, wherever its archive is now."""
    row = transaction.execute(_NAMED, {"named": file}).first()
    return None if row is None else Entry(*row)


def replace(transaction: Transaction, old: Entry, new: Entry) -> bool:
    """Replace a published file in the manifest; return `False` if others have changed it."""
    key = {"of": old.location, "named": old.file, "old": old.file_digest, "since": old.published_at}
    values = {name: value for name, value in new._asdict().items() if name not in _KEY}
    changed: int = transaction.execute(_REPLACE, key | values).rowcount
    return changed == 1


def forget(transaction: Transaction, entry: Entry) -> None:
    """Remove a file without executions from the manifest, after its deletion."""
    transaction.execute(_FORGET, {"of": entry.location, "named": entry.file})
