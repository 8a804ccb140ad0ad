"""A local file for operations that a `Recorder` cannot write yet."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from jobhistory.errors import InvalidInput
from jobhistory.execution.batch import Operation
from jobhistory.recorder import spool_file
from jobhistory.recorder.operation_text import UnreadableError, from_text, to_text

logger = logging.getLogger(__name__)

_MOST_SHARERS = 1000
_INSERT = "INSERT INTO operations (body) VALUES (CAST(? AS TEXT))"  # from bytes

_parents_spools: list[Spool] = []


@dataclass(frozen=True)
class Stretch:
    """Consecutive operations of a spool.

    Attributes:
        operations: the readable ones.
        up_to: the number of the last one, readable or not.
        unreadable: by number, why each of the others cannot be read.
    """

    operations: list[Operation]
    up_to: int
    unreadable: dict[int, str]

    def __len__(self) -> int:
        return len(self.operations) + len(self.unreadable)


class Spool:
    """Operations in the order of the calls, in an SQLite file that only one process has open.

    If another process has the file open, for example because several workers share a path, this one
    uses a file beside it: the path and a number. Operations left behind by dead processes are moved
    into its file. A damaged file is renamed, and its readable operations are moved, too.

    Not thread-safe. Its methods raise `sqlite3.Error`.

    Args:
        path: an absolute path.
        avoid: files that must not be used.
        damaged: damaged files that were renamed before, and whose operations are moved.

    Raises:
        InvalidInput: if the path cannot be used.
    """

    def __init__(
        self, path: Path, *, avoid: Collection[Path] = (), damaged: Iterable[Path] = ()
    ) -> None:
        self._path = path
        self._avoid = avoid
        self._damaged = list(damaged)
        self._written_up_to = 0
        self._unreadable: dict[int, str] = {}
        try:
            self._open_first_free()
            try:
                self._adopt_all()
                self._warn_of_rejected()
            except BaseException:
                self._connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, f"cannot be opened ({error})") from error

    @property
    def file(self) -> Path:
        """The path of the file in use."""
        return self._file

    def append(self, operations: Iterable[Operation]) -> None:
        """Add operations. They are on the disk when the call returns."""
        self._insert((to_text(operation).encode(),) for operation in operations)

    def first(self, count: int, size: int) -> Stretch:
        """Return the oldest operations, up to a count and, unless it is only one, to a size."""
        operations: list[Operation] = []
        unreadable: dict[int, str] = {}
        total = up_to = 0
        rows = self._connection.execute(
            "SELECT number, body FROM operations WHERE number > ? ORDER BY number LIMIT ?",
            (self._written_up_to, count),
        )
        with closing(rows):
            for number, body in rows:
                total += len(body) if isinstance(body, bytes) else 0
                if up_to and total > size:
                    break
                up_to = number
                try:
                    operations.append(from_text(body))
                except UnreadableError as error:
                    unreadable[number] = str(error)
        return Stretch(operations, up_to, unreadable)

    def remove(self, stretch: Stretch) -> None:
        """Remove operations; move unreadable ones to the table `rejected`.

        If the disk is full, they stay in the file until there is room, and are skipped.
        """
        for number, why in stretch.unreadable.items():
            logger.error(
                "operation %d in the spool %s is unreadable: %s; it stays in the table 'rejected' "
                "of the file",
                number,
                self._file,
                why,
            )
        was_behind = self._written_up_to > 0
        self._written_up_to = stretch.up_to
        self._unreadable |= stretch.unreadable
        try:
            self._forget_written()
        except sqlite3.OperationalError as error:
            if not was_behind:
                logger.warning("the spool %s cannot be shortened yet: %s", self._file, error)

    def __len__(self) -> int:
        (count,) = self._connection.execute(
            "SELECT count(*) FROM operations WHERE number > ?", (self._written_up_to,)
        ).fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file, and remove it if it is empty."""
        try:
            with suppress(sqlite3.OperationalError):
                self._forget_written()
            (is_used,) = self._connection.execute(
                "SELECT EXISTS (SELECT 1 FROM operations) OR EXISTS (SELECT 1 FROM rejected)"
            ).fetchone()
            if not is_used:
                spool_file.remove(self._file, self._connection)
        finally:
            self._connection.close()

    def set_aside(self) -> Path:
        """Rename and close a damaged file, and return its new path."""
        aside = spool_file.set_aside(self._file)
        self._connection.close()
        return aside

    def _insert(self, bodies: Iterable[tuple[bytes]]) -> None:
        with self._connection:
            self._connection.executemany(_INSERT, bodies)

    def _forget_written(self) -> None:
        if not self._written_up_to:
            return
        with self._connection:
            self._connection.executemany(
                "INSERT INTO rejected (body, reason) "
                "SELECT body, ? FROM operations WHERE number = ?",
                [(reason, number) for number, reason in self._unreadable.items()],
            )
            self._connection.execute(
                "DELETE FROM operations WHERE number <= ?", (self._written_up_to,)
            )
        self._written_up_to, self._unreadable = 0, {}  # SQLite may use the numbers again

    def _open_first_free(self) -> None:
        for number in range(1, _MOST_SHARERS):
            file = self._path if number == 1 else Path(f"{self._path}.{number}")
            if file in self._avoid:
                continue
            try:
                self._connection = self._open(file)
            except spool_file.InUseError:
                continue
            except spool_file.NotASpoolError as error:
                if number == 1:
                    raise _unusable(file, str(error)) from error
                continue
            self._file = file
            return
        raise _unusable(self._path, "is in use, and so is every file beside it")

    def _open(self, file: Path) -> sqlite3.Connection:
        def open_it() -> sqlite3.Connection:
            return spool_file.open_locked(
                file, self._path.name, create=True, is_named=file == self._path
            )

        try:
            return open_it()
        except spool_file.DamagedError as error:
            self._note_damage(file, error.aside)
            return open_it()

    def _note_damage(self, file: Path, aside: Path) -> None:
        logger.error("the spool %s is damaged; it was renamed to %s", file, aside)
        self._damaged.append(aside)

    def _adopt_all(self) -> None:
        for file in self._left_behind():
            try:
                self._adopt(file)
            except spool_file.DamagedError as error:
                self._note_damage(file, error.aside)
            except (spool_file.InUseError, spool_file.NotASpoolError, FileNotFoundError):
                continue  # its process still runs, or it is not ours
            except (OSError, sqlite3.Error) as error:
                logger.error("the spool %s cannot be read and is left as it is: %s", file, error)
        for file in self._damaged:
            try:
                before = len(self)
                self._insert(spool_file.readable_bodies(file))
            except (OSError, sqlite3.Error) as error:
                logger.error("cannot recover the damaged spool %s: %s", file, error)
            else:
                kept = len(self) - before
                logger.error("recovered %d operations from the damaged spool %s", kept, file)

    def _left_behind(self) -> list[Path]:
        """Return the path and the files beside it that others may have left, ordered by number."""

        def number_of(file: Path) -> int:
            prefix, _, number = file.name.rpartition(".")
            is_beside = prefix == self._path.name and number.isascii() and number.isdecimal()
            return int(number) if is_beside else 0

        beside = sorted(filter(number_of, self._path.parent.iterdir()), key=number_of)
        files = [self._path, *beside]
        return [file for file in files if file != self._file and file not in self._avoid]

    def _adopt(self, file: Path) -> None:
        connection = spool_file.open_locked(file, self._path.name, create=False)
        with closing(connection), self._connection:
            self._connection.executemany(
                _INSERT, connection.execute("SELECT body FROM operations ORDER BY number")
            )
            self._connection.executemany(
                "INSERT INTO rejected (body, reason) VALUES (?, ?)",
                connection.execute("SELECT body, reason FROM rejected ORDER BY number"),
            )
            self._connection.commit()
            # If the process ends before this, the operations are found twice, and written once.
            spool_file.remove(file, connection)

    def _warn_of_rejected(self) -> None:
        (count,) = self._connection.execute("SELECT count(*) FROM rejected").fetchone()
        if count:
            logger.warning(
                "the spool %s has %d unreadable operations in its table 'rejected'",
                self._file,
                count,
            )


def keep_open(spool: Spool) -> None:
    """Never close a spool in a forked child, not even at the end of the process.

    If the child closed its copy, SQLite would remove the journal that the parent is using.
    """
    _parents_spools.append(spool)
    with suppress(ImportError):
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(spool._connection))


def _unusable(file: Path, why: str) -> InvalidInput:
    return InvalidInput(
        "spool", str(file), f"{why}; pass the path of a new file, like '/var/lib/app/history.spool'"
    )
