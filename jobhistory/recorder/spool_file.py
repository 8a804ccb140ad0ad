"""Create, lock, check and remove the files of spools."""

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
"""The `PRAGMA application_id` of a spool."""

FORMAT = 1
"""The version of the tables, stored in `PRAGMA user_version`."""

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
    """The file is not a spool that this process may use. The message says why."""


class DamagedError(Exception):
    """The file is a damaged spool, and has been renamed.

    Attributes:
        aside: its new path.
    """

    def __init__(self, aside: Path) -> None:
        super().__init__(aside)
        self.aside = aside


class _Opening:
    """Lets the threads of a process open spools one at a time.

    When a process closes any descriptor of a file, it loses all its POSIX locks on that file. So no
    thread may close one while another thread is opening the file.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held during the fork."""
        self.lock = Lock()


_opening = _Opening()


def open_locked(
    path: Path, name: str, *, create: bool, is_named: bool = False
) -> sqlite3.Connection:
    """Return a connection to a spool that no one else can open until the connection is closed.

    Args:
        path: an absolute path.
        name: the common name of all spools that share a path. It is stored in a new file.
        create: create the file if it is missing.
        is_named: the user named this file, so it may be empty or have another stored name.

    Raises:
        FileNotFoundError: if `create` is false and the file is missing.
        InUseError: if the file is open elsewhere.
        NotASpoolError: if the file is not a spool. It stays unchanged.
        DamagedError: if the file is damaged. It has been renamed.
        OSError, sqlite3.Error: if the file cannot be created or opened.
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
                # Only the holder of the lock removes the file, so from here on it stays in place.
                # No other file gets the inode number of an open file.
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
    """Remove a spool, then close its connection, so that no one can open it in between."""
    if os.name == "nt":  # Windows cannot remove an open file
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
    """Yield the bodies of all readable operations of a damaged spool, in order."""
    with closing(_connect(path, "mode=ro&immutable=1")) as connection:
        connection.execute("PRAGMA writable_schema = ON")  # also opens truncated files
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
    """Return whether an error means that the file itself is damaged."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part


def _create(path: Path) -> bool:
    """Create an empty file and its folder, and return whether the file was missing."""
    create_private_folder(path.parent)
    return create_private_file(path)


def _check_owner(path: Path) -> os.stat_result:
    """Check that a file and its journals belong to this user, and return the file's status."""
    for suffix in _JOURNALS:  # SQLite would play them back into the file
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
    """Return whether a spool, which may be in use, looks intact."""
    for pragma in ("OFF", "ON"):  # with it on, SQLite also opens a truncated file
        # SQLite reads an immutable file without a lock. Closing a descriptor of our own would
        # release locks: see `_Opening`.
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
                f"is a spool of format {version}, but this version of jobhistory reads {FORMAT}"
            )
        return pragma == "OFF"
    raise NotASpoolError("is not a spool")


def _lock(path: Path) -> sqlite3.Connection:
    connection = _connect(path, "mode=rw")
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA writable_schema = ON")
        # The lock belongs to the operating system, which releases it even if the process is killed.
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
    """Create the tables of a new spool, or check an existing one; return whether it is intact.

    Raises:
        NotASpoolError: if an existing spool does not have the expected name.
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
            raise NotASpoolError("is a spool of other recorders")
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
    connection.text_factory = bytes  # a damaged body may not be text
    return connection
