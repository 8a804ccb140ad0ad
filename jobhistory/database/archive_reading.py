"""Reading the rows of a batch for an archive: as CSV with COPY where the driver has it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection, Select, literal_column, select, text
from sqlalchemy.util import await_only

from jobhistory.database.archived_rows import ArchivedColumn, RawRows
from jobhistory.database.driver_errors import as_sqlalchemy_errors
from jobhistory.database.partitions.sql import identifier
from jobhistory.database.revision import quoted_table
from jobhistory.database.running_index import escaped
from jobhistory.database.statements import archive as statements
from jobhistory.database.statements.expire import Branch, Place
from jobhistory.database.transaction import Transaction
from jobhistory.schema import TABLE

MOST_BYTES = 128 << 20
"""How much of a batch is in memory. Its table and its files take as much again.

Of a partition, the next batch is read meanwhile.
"""


class TooLarge(Exception):
    """The rows of a batch have more bytes than fit into memory."""


class Rows(Protocol):
    """Rows to archive and delete, in the order of a time."""

    @property
    def branch(self) -> Branch | None:
        """The table that has them; `None` stands for the history with all its descendants."""
        ...

    @property
    def moment(self) -> str:
        """The column of the time."""
        ...

    def batch(self, *, exact: bool) -> Select[*tuple[Any, ...]]:
        """Return the statement that selects and locks a batch, see `expired_batch`."""
        ...

    def parameters(self, low: Place, batch_size: int) -> dict[str, Any]:
        """Return the parameters of the statement."""
        ...


@dataclass(frozen=True)
class ReadBatch:
    """Rows as they were at some moment.

    Attributes:
        found: their number.
        last: the place of the last one.
        rows: their values.
        addresses, versions: where they are on PostgreSQL, and in which versions.
    """

    found: int
    last: Place | None
    rows: RawRows
    addresses: str = ""
    versions: str = ""


def read_batch(
    transaction: Transaction,
    rows: Rows,
    columns: tuple[ArchivedColumn, ...],
    low: Place,
    batch_size: int,
) -> ReadBatch:
    """Read one batch, starting at a place. Rows that another session has locked are not in it.

    Raises:
        TooLarge: if the batch has more than one row and is too large.
    """
    exact = low.id is not None
    batch, parameters = rows.batch(exact=exact), rows.parameters(low, batch_size)
    if transaction.dialect != "postgresql":
        return _read_sqlite(transaction, rows, columns, batch, parameters)
    found = _execute(transaction, statements.find_rows(batch, exact=exact), parameters, rows.branch)
    count, *last, addresses, versions = found.one()
    if not count:
        return ReadBatch(0, None, RawRows(columns))
    name, array = ("ctid", "tid[]") if rows.branch else ("id", "uuid[]")
    raw = read_table(
        transaction,
        columns,
        source_of(transaction, rows.branch),
        f"{name} = ANY(CAST('{addresses}' AS {array}))",
        MOST_BYTES if count > 1 else None,
    )
    return ReadBatch(count, Place(*last), raw, addresses, versions)


def source_of(transaction: Transaction, branch: Branch | None) -> str:
    """Return the name of a table for SQL, without its descendants if it is a branch."""
    if branch is None:
        return quoted_table(transaction.connection, transaction.schema)
    return f"ONLY {identifier(branch.schema, branch.name)}"


def read_table(
    transaction: Transaction,
    columns: tuple[ArchivedColumn, ...],
    source: str,
    condition: str,
    limit: int | None,
) -> RawRows:
    """Read rows of a table on PostgreSQL.

    Args:
        source, condition: as in SQL.
        limit: the number of bytes; `None` means any.

    Raises:
        TooLarge: if they have more bytes than the limit.
    """
    transaction.execute(statements.ISO_DATES)
    expressions = statements.selected(columns, "postgresql", identifier)
    query = f"SELECT {expressions} FROM {source} WHERE {condition}"  # noqa: S608
    copy = _COPY.get(transaction.connection.dialect.driver)
    if copy is None:
        values = transaction.execute(text(escaped(query)), schema_translate_map={}).all()
        return RawRows(columns, values=values)
    with as_sqlalchemy_errors(transaction.connection, query):
        return RawRows(columns, csv=copy(transaction.connection, query, _Limited(limit)))


class _Limited:
    """A file in memory that does not grow beyond a limit.

    It reads on, because not every driver can stop a COPY.
    """

    def __init__(self, limit: int | None) -> None:
        # Not a list of parts: to keep each row's memory costs more time than to copy it.
        self._file = io.BytesIO()
        self._limit = limit
        self._size = 0

    def write(self, part: Any) -> None:
        self._size += len(part)
        if self._limit is None or self._size <= self._limit:
            self._file.write(part)

    async def write_later(self, part: bytes) -> None:
        self.write(part)

    @property
    def content(self) -> bytes:
        """The bytes.

        Raises:
            TooLarge: if there are more than the limit.
        """
        if self._limit is not None and self._size > self._limit:
            raise TooLarge
        return self._file.getvalue()


def _copy_psycopg(connection: Connection, query: str, to: _Limited) -> bytes:
    driver: Any = connection.connection.driver_connection
    statement = f"COPY ({query}) TO STDOUT (FORMAT csv)"
    if connection.dialect.is_async:
        await_only(_copy_psycopg_async(driver, statement, to))
    else:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for part in copy:
                to.write(part)
    return to.content


async def _copy_psycopg_async(driver: Any, statement: str, to: _Limited) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement) as copy:
        async for part in copy:
            to.write(part)


def _copy_psycopg2(connection: Connection, query: str, to: _Limited) -> bytes:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv)", to)
    return to.content


def _copy_asyncpg(connection: Connection, query: str, to: _Limited) -> bytes:
    driver: Any = connection.connection.driver_connection
    await_only(driver.copy_from_query(query, output=to.write_later, format="csv"))
    return to.content


_COPY: dict[str, Callable[[Connection, str, _Limited], bytes]] = {
    "psycopg": _copy_psycopg,
    "psycopg_async": _copy_psycopg,
    "psycopg2": _copy_psycopg2,
    "asyncpg": _copy_asyncpg,
}


def _read_sqlite(
    transaction: Transaction,
    rows: Rows,
    columns: tuple[ArchivedColumn, ...],
    batch: Select[*tuple[Any, ...]],
    parameters: dict[str, Any],
) -> ReadBatch:
    # One statement, so that it sees one state of the table.
    wanted = TABLE.c.id.in_(select(batch.subquery().c.address))
    statement = select(*sqlite_columns(columns)).select_from(TABLE).where(wanted)
    values = limited(transaction.execute(statement, parameters))
    if not values:
        return ReadBatch(0, None, RawRows(columns))
    names = [each.name for each in columns]
    moment, id_ = names.index(rows.moment), names.index("id")
    at, hexadecimal = max((row[moment], row[id_]) for row in values)
    exact = {"id": UUID(hexadecimal)} if "low_id" in parameters else {}
    last = Place(datetime.fromisoformat(at).replace(tzinfo=UTC), **exact)
    return ReadBatch(len(values), last, RawRows(columns, values=values))


def sqlite_columns(columns: tuple[ArchivedColumn, ...]) -> list[Any]:
    """Return the expressions that select columns on SQLite, without conversions."""
    return [
        literal_column(statements.selected((each,), "sqlite", identifier)).label(f"c{number}")
        for number, each in enumerate(columns)
    ]


def limited(found: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Return the rows of a result.

    Raises:
        TooLarge: if there is more than one, and their texts are longer than the limit.
    """
    values: list[tuple[Any, ...]] = []
    left = MOST_BYTES
    for row in found:
        values.append(tuple(row))
        left -= sum(len(value) for value in row if type(value) is str)
        if left < 0 and len(values) > 1:
            raise TooLarge
    return values


def _execute(
    transaction: Transaction, statement: Any, parameters: dict[str, Any], branch: Branch | None
) -> Any:
    # A branch has its actual name, which a map must not translate.
    options: dict[str, Any] = {} if branch is None else {"schema_translate_map": {}}
    return transaction.execute(statement, parameters, **options)
