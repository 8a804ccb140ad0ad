"""Writing rows as CSV with PostgreSQL's COPY, through each driver."""

from __future__ import annotations

import io
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.util import await_only

from jobhistory.database.driver_errors import as_sqlalchemy_errors


def copy_csv(connection: Connection, table: str, rows: bytes) -> None:
    """Write rows to a temporary table, in the order of its columns.

    Args:
        table: its name, which needs no quotes.
        rows: CSV without headings, in which nothing stands for NULL.
    """
    statement = f"COPY pg_temp.{table} FROM STDIN (FORMAT csv)"
    driver: Any = connection.connection.driver_connection
    with as_sqlalchemy_errors(connection, statement):
        _WAYS[connection.dialect.driver](driver, statement, rows)


def _psycopg(driver: Any, statement: str, rows: bytes) -> None:
    if iscoroutinefunction(driver.commit):  # SQLAlchemy names both variants alike
        await_only(_psycopg_async(driver, statement, rows))
        return
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(rows)


async def _psycopg_async(driver: Any, statement: str, rows: bytes) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement) as copy:
        await copy.write(rows)


def _psycopg2(driver: Any, statement: str, rows: bytes) -> None:
    with driver.cursor() as cursor:
        cursor.copy_expert(statement, io.BytesIO(rows))


def _asyncpg(driver: Any, statement: str, rows: bytes) -> None:
    schema, _, table = statement.split()[1].partition(".")
    source = io.BytesIO(rows)
    await_only(driver.copy_to_table(table, schema_name=schema, source=source, format="csv"))


_WAYS: dict[str, Callable[[Any, str, bytes], None]] = {
    "psycopg": _psycopg,
    "psycopg_async": _psycopg,
    "psycopg2": _psycopg2,
    "asyncpg": _asyncpg,
}

DRIVERS = frozenset(_WAYS)
"""The drivers that can."""
