"""The revision of the history table in a database, found without Alembic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, inspect, select

from jobhistory.database.urls import shown_url
from jobhistory.errors import InvalidInput, SchemaOutOfDate
from jobhistory.schema import COLUMN_NAMES, TABLE_NAME

VERSION_TABLE = "job_history_alembic_version"

# A constant, because Alembic takes longer to import than the rest of the library.
REVISIONS = (
    "jobhistory_0011",
    "jobhistory_0013",
    "jobhistory_0015",
    "jobhistory_0016",
    "jobhistory_0017",
)
"""The revisions that exist in this version of the library, oldest first."""

BEFORE_ROLLUPS = REVISIONS[1]
"""The revision that creates only the history table and its indexes."""

BEFORE_EXPECTATIONS = REVISIONS[2]
"""The revision that creates no tables of expectations and incidents, nor later ones."""

BEFORE_ARCHIVE = REVISIONS[3]
"""The revision that creates everything except the manifest of archives."""

HEAD = REVISIONS[-1]
"""The revision that this version of the library requires."""


def current(bind: Engine | Connection, *, schema: str | None = None) -> str | None:
    """Return the revision of the history table; `None` if there is no table.

    A table that was not created by a migration, but for example by `create_all`, has no revision
    either, until `upgrade` adopts it.
    """
    with connected(bind) as connection:
        return version_of(connection, schema) if has_table(connection, schema) else None


def refuse_outdated(connection: Connection, *, schema: str | None = None) -> None:
    """Check that the history table exists, is at the required revision and has all columns.

    Unlike `migrate.check`, this does not import Alembic.

    Raises:
        SchemaOutOfDate: if it does not.
    """
    found = current(connection, schema=schema)
    has_known_revision = found in REVISIONS or (found is not None and found > HEAD)
    if has_known_revision or not has_table(connection, schema):
        if found != HEAD:
            raise SchemaOutOfDate(found, HEAD, schema=schema)
        return
    columns = inspect(connection).get_columns(TABLE_NAME, schema=schema)
    missing = [name for name in COLUMN_NAMES if name not in {each["name"] for each in columns}]
    if missing:
        differences = tuple(f"column {name} is missing" for name in missing)
        raise SchemaOutOfDate(found, HEAD, differences, schema)


@contextmanager
def connected(bind: Engine | Connection) -> Iterator[Connection]:
    """Yield a connection of an engine, or the caller's connection.

    Raises:
        InvalidInput: if `bind` is neither.
    """
    if isinstance(bind, Connection):
        yield bind
    elif isinstance(bind, Engine):
        with bind.connect() as connection:
            yield connection
    else:
        raise InvalidInput("bind", *_wrong_bind(bind))


def _wrong_bind(bind: Any) -> tuple[object, str]:
    if hasattr(bind, "sync_engine"):
        return bind, (
            "is for asyncio; pass the function to an AsyncConnection: "
            "await connection.run_sync(migrate.upgrade)"
        )
    if hasattr(bind, "engine"):
        return bind, (
            "only prints SQL, as 'alembic --sql' does; call jobhistory.migrate.write_sql instead"
        )
    shown = shown_url(bind) if isinstance(bind, str) else bind
    return shown, "is neither an Engine nor a Connection; pass create_engine(url)"


def has_table(connection: Connection, schema: str | None, name: str = TABLE_NAME) -> bool:
    """Return whether a table exists."""
    return inspect(connection).has_table(name, schema=schema)


def quoted_table(connection: Connection, schema: str | None) -> str:
    """Return the name of the history table for SQL, or as the value of a parameter."""
    return quoted_name(connection, schema, TABLE_NAME)


def quoted_name(connection: Connection, schema: str | None, table: str) -> str:
    """Return the name of a table for SQL, or as the value of a parameter."""
    quote = connection.dialect.identifier_preparer.quote
    name = ".".join(quote(each) for each in (schema, table) if each is not None)
    # SQLAlchemy doubles percent signs for some drivers, and text() would double them again.
    return name.replace("%%", "%") if quote("%") == '"%%"' else name


def version_table(schema: str | None) -> Table:
    """Return the table in which Alembic stores the revision."""
    return Table(VERSION_TABLE, MetaData(schema=schema), Column("version_num", String(32)))


def version_of(connection: Connection, schema: str | None) -> str | None:
    """Return the revision in the version table; `None` if there is no such table."""
    if not has_table(connection, schema, VERSION_TABLE):
        return None
    return connection.scalar(select(version_table(schema).c.version_num))
