"""Publishing the files of an archive that the manifest names, and noting it there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from jobhistory.database import manifest
from jobhistory.database.blocking import run_blocking
from jobhistory.database.manifest import Entry
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.errors import ArchiveError

_OLDEST_PREPARED = timedelta(hours=12)
"""Other calls delete prepared files that are older than a day. Clocks may differ."""


class Publisher(Protocol):
    """An archive whose prepared files become visible."""

    @property
    def location(self) -> str:
        """Its URL, without credentials."""
        ...

    def now(self) -> datetime:
        """Return the current time."""
        ...

    def publish(self, entry: Entry) -> None:
        """Publish a file that the manifest names. Another call may have published it before."""
        ...

    def is_intact(self, entry: Entry) -> bool:
        """Return whether the published file exists and has the bytes that were written."""
        ...

    def delete(self, entry: Entry) -> None:
        """Delete a published file, if it exists."""
        ...


def refuse_old(archive: Publisher, prepared_at: datetime) -> None:
    """Check that no other call deletes prepared files soon, before they are committed.

    Raises:
        ArchiveError: if they are older than 12 hours.
    """
    if archive.now() - prepared_at > _OLDEST_PREPARED:
        raise ArchiveError(
            archive.location, f"has taken longer than {_OLDEST_PREPARED} for a batch; try again"
        )


def publish(history: RunsTransactions, archive: Publisher, entries: Sequence[Entry]) -> None:
    """Publish committed files, or delete those without executions; note it in the manifest.

    Raises:
        ArchiveError: if the archive fails.
    """
    if not entries:
        return
    for entry in entries:
        act = archive.delete if entry.is_to_be_deleted else archive.publish
        run_blocking(act, entry)
    note = partial(_note, entries=entries, at=archive.now())
    for entry in history.run(Purpose.MAINTAIN_AS_ONE, note):
        _settle(history, archive, entry)


def _note(transaction: Transaction, entries: Sequence[Entry], at: datetime) -> list[Entry]:
    """Note what has been done; return the files that others have published or replaced."""
    overtaken = []
    for entry in entries:
        if entry.is_to_be_deleted:
            manifest.forget(transaction, entry)
        elif not manifest.note_published(transaction, entry, at):
            overtaken.append(entry)
    return overtaken


def _settle(history: RunsTransactions, archive: Publisher, entry: Entry) -> None:
    """Make sure that a published file is the one that the manifest names now.

    In an object store, publishing is a copy. If it ends late, it brings a file back that another
    call has replaced or deleted meanwhile.
    """
    known = _newest(history, entry)
    while known is None or known.file_digest != entry.file_digest:
        if known is not None and known.location != entry.location:
            raise ArchiveError(entry.location, f"has been moved; copy {entry.file} once more")
        if known is None:
            return run_blocking(archive.delete, entry)
        if known.published_at is None:
            return publish(history, archive, [known])
        if run_blocking(archive.is_intact, known):
            return None
        before, known = known, _newest(history, entry)
        if known == before:
            raise ArchiveError(
                entry.location,
                f"has an old version of {entry.file}, which another call has replaced meanwhile: "
                "restore it from a backup",
            )
    return None


def _newest(history: RunsTransactions, entry: Entry) -> Entry | None:
    return history.run(Purpose.MAINTAIN, partial(manifest.newest, file=entry.file))
