"""Whether a place is an archive of a database, so that an answer about it is true."""

from __future__ import annotations

from functools import partial

from sqlalchemy import select

from jobhistory.archive.reading import Window
from jobhistory.archive.storage import Storage
from jobhistory.archive_schema import ARCHIVE
from jobhistory.database.manifest import Entry, entries_of
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.errors import ArchiveError, InvalidInput

_MOST_SHOWN = 3
_LOCATIONS = select(ARCHIVE.c.location).distinct().order_by(ARCHIVE.c.location)


def check_known(history: RunsTransactions, location: str) -> None:
    """Check that the manifest in the database names the location.

    Raises:
        InvalidInput: if it does not, with the locations that it names.
    """
    known = history.run(Purpose.READ, _locations)
    if location in known:
        return
    if not known:
        raise InvalidInput(
            "archive", location, "is not an archive of this database, which has archived nothing"
        )
    shown = ", ".join(map(repr, known[:_MOST_SHOWN])) + (", ..." if known[_MOST_SHOWN:] else "")
    raise InvalidInput("archive", location, f"is not an archive of this database; it has {shown}")


def check_not_gone(history: RunsTransactions, storage: Storage) -> None:
    """Check that the storage has files if the manifest names published ones.

    Raises:
        ArchiveError: if it has none, for example because a disk is not mounted.
    """
    named = _published(history, storage)
    if named and not storage.files() and _published(history, storage) == named:
        raise ArchiveError(storage.location, "has none of the files that its manifest names")


def check_all_there(history: RunsTransactions, storage: Storage, window: Window) -> None:
    """Check that the storage has the files with the executions of a window.

    Raises:
        ArchiveError: if any is missing.
    """
    named = {each.file for each in _published(history, storage) if _is_within(each, window)}
    missing = named - set(storage.files())
    if missing:  # or others have deleted its executions meanwhile, and then the manifest knows
        missing &= {each.file for each in _published(history, storage)}
    if missing:
        others = f" and {len(missing) - 1} more" if missing - {min(missing)} else ""
        raise ArchiveError(
            storage.location,
            f"does not have {min(missing)}{others}, which its manifest names; all other files of "
            "the window are restored",
        )


def check_all_named(history: RunsTransactions, storage: Storage) -> None:
    """Check that the manifest names all published files, whose executions can then be deleted.

    Raises:
        ArchiveError: if it does not, for example because an archive of others was copied there.
    """
    # In this order, because a file is in the manifest before it is published.
    files = storage.files()
    unnamed = set(files) - {entry.file for entry in _entries(history, storage)}
    if unnamed:  # or one was deleted meanwhile, and then left the manifest
        unnamed &= set(storage.files())
    if unnamed:
        shown = f"{min(unnamed)}, a file"
        if others := len(unnamed) - 1:
            shown = f"{min(unnamed)} and {others} more files"
        raise ArchiveError(
            storage.location,
            f"has {shown} that its manifest does not name; executions there would stay; "
            "'archive verify' lists such files",
        )


def _is_within(entry: Entry, window: Window) -> bool:
    first, last = entry.first_started_at, entry.last_started_at
    if first is None or last is None:
        return False
    return (window[1] is None or first <= window[1]) and (window[0] is None or last >= window[0])


def _locations(transaction: Transaction) -> list[str]:
    return list(transaction.execute(_LOCATIONS).scalars())


def _published(history: RunsTransactions, storage: Storage) -> list[Entry]:
    return [each for each in _entries(history, storage) if each.published_at is not None]


def _entries(history: RunsTransactions, storage: Storage) -> list[Entry]:
    return history.run(Purpose.READ, partial(entries_of, location=storage.location))
