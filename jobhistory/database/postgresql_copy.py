"""Bulk inserts with PostgreSQL's COPY through psycopg, the fastest way to write many rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from jobhistory.database.driver_errors import as_sqlalchemy_errors, sqlstate
from jobhistory.database.driver_values import row_for_driver
from jobhistory.rollup_schema import BULK_SETTING
from jobhistory.schema import COLUMN_NAMES, TABLE_NAME

Row = dict[str, Any]

# One trigger then feeds the queue of ended executions for all rows, until the transaction ends. For
# fewer rows, the round trip takes longer than a trigger for each row.
_MANY = 50
_IN_BULK = select(func.set_config(BULK_SETTING, "on", literal_column("true")))
_ALLOWED = "jobhistory.copy_is_allowed"
_NOT_SUPPORTED = "0A000"


def is_allowed(connection: Connection, options: Mapping[str, Any]) -> bool:
    """Return whether COPY may write to the table. It may not if row-level security is active.

    The first call on a connection queries the server, and caches the result on the connection. To
    try COPY instead would abort the transaction if it is not allowed.
    """
    allowed: dict[str, bool] = connection.info.setdefault(_ALLOWED, {})
    table = _table(connection, options)
    if table not in allowed:
        is_active = func.row_security_active(cast(table, REGCLASS))
        allowed[table] = not connection.scalar(select(is_active))
    return allowed[table]


def copy_rows(connection: Connection, rows: list[Row], options: Mapping[str, Any]) -> None:
    """Write new rows. Columns without a value become NULL.

    Args:
        connection: the connection, in the transaction to write in.
        rows: values by column.
        options: the execution options, of which only `schema_translate_map` is used.
    """
    statement = _copy_statement(connection, options)
    if len(rows) >= _MANY:
        connection.execute(_IN_BULK)
    lines = [row_for_driver(row) for row in rows]
    driver: Any = connection.connection.driver_connection
    try:
        with as_sqlalchemy_errors(connection, statement):
            if connection.dialect.is_async:
                await_only(_copy_async(driver, statement, lines))
            else:
                with driver.cursor() as cursor, cursor.copy(statement) as copy:
                    for line in lines:
                        copy.write_row(line)
    except DBAPIError as error:
        if sqlstate(error) == _NOT_SUPPORTED:
            # Row-level security has been enabled since the server was queried.
            connection.info.pop(_ALLOWED, None)
        raise


async def _copy_async(driver: Any, statement: str, lines: list[list[Any]]) -> None:
    async with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for line in lines:
            await copy.write_row(line)


def _copy_statement(connection: Connection, options: Mapping[str, Any]) -> str:
    return f"COPY {_table(connection, options)} ({', '.join(COLUMN_NAMES)}) FROM STDIN"


def _table(connection: Connection, options: Mapping[str, Any]) -> str:
    all_options = {**connection.get_execution_options(), **options}
    schema = (all_options.get("schema_translate_map") or {}).get(None)
    return ".".join(_quoted(name) for name in (schema, TABLE_NAME) if name is not None)


def _quoted(name: str) -> str:
    # The dialect's preparer doubles percent signs, which is wrong without parameters.
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
