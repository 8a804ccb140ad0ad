"""A local file that keeps what a `Recorder` cannot write, until the next one on it can."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from jobhistory.errors import InvalidInput
from jobhistory.executions import ExecutionKey, Outcome
from jobhistory.models import COLUMN_NAMES
from jobhistory.status import Status

Operation = dict[str, Any] | Outcome
"""A new row, or the outcome of one."""

_MOST_SHARERS = 1000

_READ: dict[str, Callable[[str], Any]] = {
    "id": UUID,
    "status": Status,
    **{name: datetime.fromisoformat for name in COLUMN_NAMES if name.endswith("_at")},
}


class Spool:
    """Operations in the order in which they came, in an SQLite file that only one process has open.

    If another has it, as when several workers are told the same path, a file beside it is taken:
    the path and a number. What is in the files of those who are gone is moved into the own one.
    Not thread-safe.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._file, self._connection = self._open_first_free()
        for left in self._left_behind():
            self._adopt(left)

    def append(self, operations: Iterable[Operation]) -> None:
        """Keep operations; they are on the disk when this returns."""
        with self._connection:
            self._connection.executemany(
                "INSERT INTO operations (body) VALUES (?)",
                ((_to_text(operation),) for operation in operations),
            )

    def first(self, count: int) -> list[tuple[int, Operation]]:
        """The oldest operations, each with the number by which to remove it."""
        rows = self._connection.execute(
            "SELECT number, body FROM operations ORDER BY number LIMIT ?", (count,)
        )
        return [(number, _from_text(body)) for number, body in rows]

    def remove(self, numbers: Iterable[int]) -> None:
        """Forget operations."""
        with self._connection:
            self._connection.executemany(
                "DELETE FROM operations WHERE number = ?", ((number,) for number in numbers)
            )

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT count(*) FROM operations").fetchone()
        return int(count)

    def close(self) -> None:
        """Let others have the file, and delete it if there is nothing in it."""
        is_empty = not len(self)
        self._connection.close()
        if is_empty:
            self._file.unlink(missing_ok=True)

    def _open_first_free(self) -> tuple[Path, sqlite3.Connection]:
        for number in range(1, _MOST_SHARERS):
            file = self._path if number == 1 else Path(f"{self._path}.{number}")
            connection = _open(file)
            if connection is not None:
                return file, connection
        raise InvalidInput("spool", str(self._path), "is in use, like every file beside it")

    def _left_behind(self) -> list[Path]:
        beside = self._path.parent.glob(f"{self._path.name}.*")
        files = [self._path, *(file for file in beside if file.suffix[1:].isdigit())]
        return sorted(file for file in files if file != self._file and file.exists())

    def _adopt(self, file: Path) -> None:
        connection = _open(file)
        if connection is None:  # its process lives
            return
        bodies = connection.execute("SELECT body FROM operations ORDER BY number").fetchall()
        with self._connection:
            self._connection.executemany("INSERT INTO operations (body) VALUES (?)", bodies)
        connection.close()
        # If we end before this, they are found twice, and written once.
        file.unlink(missing_ok=True)


def _open(file: Path) -> sqlite3.Connection | None:
    """Open a file for this process alone; `None` if another has it."""
    try:
        # Its lock is the operating system's, which ends with the process, however that ends.
        connection = sqlite3.connect(file, timeout=0, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise _unusable(file, error) from error
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        with connection:
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS operations (number INTEGER PRIMARY KEY, body TEXT)"
            )
    except sqlite3.DatabaseError as error:
        with suppress(sqlite3.Error):
            connection.close()
        if "locked" in str(error):
            return None
        raise _unusable(file, error) from error
    return connection


def _unusable(file: Path, error: Exception) -> InvalidInput:
    return InvalidInput(
        "spool", str(file), f"cannot be used ({error}); name a file in a folder you may write to"
    )


def _to_text(operation: Operation) -> str:
    if isinstance(operation, Outcome):
        key = operation.key
        body = {
            "key": [key.job_id, key.worker_id, key.correlation_id],
            "values": operation.values,
            "row": operation.row,
        }
    else:
        body = {"row": operation}
    return json.dumps(body, default=str)


def _from_text(text: str) -> Operation:
    body = json.loads(text)
    row = body["row"] and _from_json(body["row"])
    if "key" in body:
        return Outcome(ExecutionKey(*body["key"]), _from_json(body["values"]), row)
    operation: dict[str, Any] = row
    return operation


def _from_json(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if value is None or name not in _READ else _READ[name](value)
        for name, value in values.items()
    }
