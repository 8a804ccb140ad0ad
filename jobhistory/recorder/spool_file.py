"""Files that identify themselves as spools: create, lock, check and remove them."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from threading import Lock

from jobhistory._runtime.fork import register_for_fork
from jobhistory._runtime.private_files import create_private_file, create_private_folder

APPLICATION_ID = int.from_bytes(b"JHsp", "big")
"""What `PRAGMA application_id` returns for a spool."""

FORMAT = 1
"""The version of the tables, in `PRAGMA user_version`."""

_JOURNALS = ("-journal", "-wal", "-shm")
_SCHEMA = """
    CREATE TABLE spool (name TEXT NOT NULL);
    CREATE TABLE operations (number INTEGER PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE rejected (number INTEGER PRIMARY KEY, body TEXT, reason TEXT NOT NULL);
"""
_MOST_TRIES = 20
_MOST_PROBES = 100_000


class InUseError(Exception):
    """Another process, or another recorder of this one, has the file open."""


class NotASpoolError(Exception):
    """The file is not a spool that this process may use; the text says why."""


class DamagedError(Exception):
    """The file was a spool and is damaged, and has been set aside.

    Attributes:
        aside: where it is now.
    """

    def __init__(self, aside: Path) -> None:
        super().__init__(aside)
        self.aside = aside


class _Opening:
    """Lets the threads of a process open files in turn.

    Whichever descriptor of a file a process closes, it loses all its POSIX locks on that file. So
    none may be closed between another thread's `open` and its end.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Forget a thread of the parent that had its turn during the fork."""
        self.lock = Lock()


_opening = _Opening()


def open_locked(
    path: Path, name: str, *, create: bool, is_named: bool = False
) -> sqlite3.Connection:
    """Return a connection to a spool that no one else can open until it is closed.

    Args:
        path: an absolute path.
        name: the name that the recorders which share a spool know it by. A new file keeps it.
        create: create the file if it is missing.
        is_named: the user named this very file, so it may be empty or have another name.

    Raises:
        FileNotFoundError: if `create` is false and the file is missing.
        InUseError: if it is open elsewhere.
        NotASpoolError: if it is anything else. Nothing is changed in it.
        DamagedError: if it is damaged. It has another path now.
        OSError, sqlite3.Error: if it cannot be created or opened.
    """
    with _opening.lock:
        for _ in range(_MOST_TRIES):
            is_new = create and _create(path)
            found = _check_owner(path)
            if found.st_size == 0 and not (is_new or is_named):
                raise NotASpoolError("is empty")
            is_whole = found.st_size == 0 or _check_header(path)
            connection = _lock(path)
            try:
                # Only who has the lock removes a file, so from here on it stays where it is. The
                # number of a file that is open is not given to another.
                if _is_at(path, found):
                    if is_whole:
                        is_whole = _set_up(connection, path, None if is_named else name, name)
                    if not is_whole:
                        raise DamagedError(set_aside(path))
                    return connection
            except BaseException:
                connection.close()
                raise
            connection.close()
    raise InUseError(path)


def remove(path: Path, connection: sqlite3.Connection) -> None:
    """Remove a spool and close its connection, in this order, so that no one opens it between."""
    if os.name == "nt":  # where nothing can remove a file that someone has open
        connection.close()
    for each in (path, *(Path(f"{path}{suffix}") for suffix in _JOURNALS)):
        with suppress(FileNotFoundError):
            each.unlink()
    connection.close()


def set_aside(path: Path) -> Path:
    """Rename a damaged spool and its journal, and return its new path."""
    names = (f"{path}.damaged{f'-{number}' if number > 1 else ''}" for number in count(1))
    aside = next(Path(name) for name in names if not os.path.lexists(name))
    path.rename(aside)
    for suffix in _JOURNALS:
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return aside


def readable_bodies(path: Path) -> Iterator[tuple[bytes]]:
    """Yield the bodies of all operations that can be read from a damaged spool, in order."""
    with closing(_connect(path, "mode=ro&immutable=1")) as connection:
        connection.execute("PRAGMA writable_schema = ON")  # which also opens truncated files
        last = 0
        with suppress(sqlite3.Error):
            for number, body in connection.execute(
                "SELECT number, body FROM operations ORDER BY number"
            ):
                yield (body,)
                last = number
        try:
            (highest,) = connection.execute("SELECT max(number) FROM operations").fetchone()
        except sqlite3.Error:
            highest = last + _MOST_PROBES
        for number in range(last + 1, (highest or 0) + 1):
            with suppress(sqlite3.Error):
                yield from connection.execute(
                    "SELECT body FROM operations WHERE number = ?", (number,)
                )


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error says that the file itself is damaged."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part


def _create(path: Path) -> bool:
    """Create an empty file, and its folder; return whether it was missing."""
    create_private_folder(path.parent)
    return create_private_file(path)


def _check_owner(path: Path) -> os.stat_result:
    """Return the status of a file that is this user's own, as its journals are."""
    for suffix in _JOURNALS:  # which SQLite would play back into the file
        with suppress(FileNotFoundError):
            _check_status(Path(f"{path}{suffix}").lstat(), f"has a journal, '{path}{suffix}', that")
    found = path.lstat()
    _check_status(found, "")
    return found


def _check_status(status: os.stat_result, which: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise NotASpoolError(f"{which} is a symbolic link".strip())
    if not stat.S_ISREG(status.st_mode):
        raise NotASpoolError(f"{which} is not a regular file".strip())
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise NotASpoolError(f"{which} belongs to another user".strip())


def _check_header(path: Path) -> bool:
    """Return whether a spool looks whole; it may be in use."""
    for pragma in ("OFF", "ON"):  # with it on, SQLite also opens a truncated file
        # An immutable file is read without a lock. Not by a descriptor of our own: see `_Opening`.
        with closing(_connect(path, "mode=ro&immutable=1")) as connection:
            connection.execute(f"PRAGMA writable_schema = {pragma}")
            try:
                (application,) = connection.execute("PRAGMA application_id").fetchone()
                (version,) = connection.execute("PRAGMA user_version").fetchone()
            except sqlite3.DatabaseError:
                continue
        if application != APPLICATION_ID:
            break
        if version != FORMAT:
            raise NotASpoolError(
                f"is a spool of format {version}, and this version of jobhistory reads {FORMAT}"
            )
        return pragma == "OFF"
    raise NotASpoolError("is not a spool")


def _lock(path: Path) -> sqlite3.Connection:
    connection = _connect(path, "mode=rw")
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA writable_schema = ON")
        # The lock is the operating system's, which ends with the process, however that ends.
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("PRAGMA writable_schema = OFF")
    except sqlite3.Error as error:
        connection.close()
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise InUseError(path) from error
        raise
    return connection


def _is_at(path: Path, found: os.stat_result) -> bool:
    try:
        now = path.lstat()
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino)


def _set_up(connection: sqlite3.Connection, path: Path, expected: str | None, name: str) -> bool:
    """Create the tables of a new spool; return whether an old one is whole.

    Raises:
        NotASpoolError: if an old one does not have the expected name.
    """
    try:
        if path.lstat().st_size == 0:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO spool VALUES (?)", (os.fsencode(name),))
        elif connection.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",):
            return False
        connection.execute("SELECT 1 FROM spool, operations, rejected LIMIT 0")
        (its_name,) = connection.execute("SELECT name FROM spool").fetchone()
        if expected is not None and its_name != os.fsencode(expected):
            raise NotASpoolError("is the spool of other recorders")
        connection.commit()
    except sqlite3.DatabaseError as error:
        if is_damage(error) or "no such table" in str(error):
            return False
        raise
    if os.name != "nt" and stat.S_IMODE(path.lstat().st_mode) & 0o077:
        path.chmod(0o600)
    return True


def _connect(path: Path, options: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{options}", uri=True, timeout=0, check_same_thread=False
    )
    connection.text_factory = bytes  # as a body may not even be text
    return connection
