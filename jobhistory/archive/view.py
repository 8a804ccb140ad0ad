"""DuckDB with a view of an archive's published files."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobhistory.archive.location import EXAMPLE
from jobhistory.archive.storage import Storage, storage_at
from jobhistory.database.archived_rows import OWN_COLUMNS, Kind
from jobhistory.errors import ArchiveError, InvalidInput, JobHistoryError, reason

if TYPE_CHECKING:
    import duckdb

VIEW = "job_history"
"""The name of the view."""

_FILES = "day=*/*.parquet"
_DAY = ("day", "DATE")
_TYPES = {
    Kind.UUID: "UUID",
    Kind.TIME: "TIMESTAMPTZ",
    Kind.INTEGER: "BIGINT",
    Kind.FLOAT: "DOUBLE",
    Kind.BOOLEAN: "BOOLEAN",
}
_IDS = ", ".join(
    f"CAST(hex({each.name}) AS UUID) AS {each.name}"
    for each in OWN_COLUMNS
    if each.kind is Kind.UUID
)


def connect(url: str) -> duckdb.DuckDBPyConnection:
    """Open DuckDB in memory, with a view `job_history` of an archive's published files.

    The view has all columns of the table, and `day`, the UTC day of the start. It is empty if the
    archive has no file. Times are in UTC. It needs the extra `archive`, and no database. A column
    `day` that the app has added to the table is not in the view, but in the files.

    Args:
        url: the archive, as for `expire`.

    Raises:
        InvalidInput: if the URL cannot be used, or there is no such folder.
        ArchiveError: if the archive cannot be read.
    """
    storage = storage_at(url)
    connection = _duckdb()
    with _without_secrets(storage):
        if storage.filesystem is not None:
            connection.register_filesystem(storage.filesystem)
        for statement in _statements(connection, storage):
            connection.execute(statement)
    return connection


def statements_for_command(url: str) -> list[str] | None:
    """Return the statements that make the view in DuckDB's own command.

    It returns `None` if that cannot read the archive, because it is not a local folder.

    Raises:
        InvalidInput, ArchiveError: as for `connect`.
    """
    storage = storage_at(url)
    if storage.filesystem is not None:
        return None
    with _without_secrets(storage):
        return _statements(_duckdb(), storage)


@contextmanager
def _without_secrets(storage: Storage) -> Iterator[None]:
    """Turn errors into `ArchiveError`: DuckDB and fsspec quote URLs with their credentials."""
    try:
        yield
    except (JobHistoryError, ModuleNotFoundError):
        raise
    except Exception as error:  # a file system of fsspec may raise anything
        why = reason(error) if storage.filesystem is None else type(error).__name__
        raise ArchiveError(storage.location, f"cannot be read: {why}") from None


def _duckdb() -> duckdb.DuckDBPyConnection:
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "questions to an archive need DuckDB; install it with: "
            "pip install 'jobhistory[archive]'",
            name=error.name,
        ) from error
    return duckdb.connect()


def _statements(connection: duckdb.DuckDBPyConnection, storage: Storage) -> list[str]:
    pattern = _quoted(f"{glob.escape(storage.root.rstrip('/'))}/{_FILES}")
    find = f"SELECT file FROM glob({pattern}) LIMIT 1"  # noqa: S608 - it is quoted
    if storage.filesystem is None:
        storage.files()  # fails for a folder that may not be listed, which DuckDB leaves out
    first = connection.execute(find).fetchone()
    if not first and not storage.files() and not storage.exists():
        raise InvalidInput(
            "archive", storage.location, f"does not exist, or is not a folder; {EXAMPLE}"
        )
    # The first part has no rows, but all columns: files of earlier versions may lack some.
    read = (
        f" UNION ALL BY NAME SELECT * REPLACE ({_IDS}) FROM read_parquet({pattern}, "  # noqa: S608
        "hive_partitioning = true, union_by_name = true)"
    )
    return [
        "SET TimeZone = 'UTC'",
        f"CREATE VIEW {VIEW} AS {_no_rows()}{read if first else ''}",
    ]


def _no_rows() -> str:
    """Return a query for no rows, with the columns of the newest version."""
    types = [(each.name, _TYPES.get(each.kind, "VARCHAR")) for each in OWN_COLUMNS]
    nulls = ", ".join(f"CAST(NULL AS {type_}) AS {name}" for name, type_ in [*types, _DAY])
    return f"SELECT {nulls} WHERE false"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
