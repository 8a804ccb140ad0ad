"""The schema of the history table: bring it to a revision, tell which it has, check it.

Every function takes an `Engine`, or a `Connection` for those who want the change in a transaction
of their own: with a connection nothing is committed, that is left to the caller. `schema` names the
database schema that holds the table; without it, it is the connection's default.

The revisions keep their own version table, so they live beside those of an app in one database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, inspect, select, text
from sqlalchemy.schema import CreateSchema

from jobhistory.engines import shown_url
from jobhistory.errors import InvalidInput, JobHistoryError, SchemaOutOfDate
from jobhistory.models import TABLE_NAME

VERSION_TABLE = "job_history_alembic_version"

# Alembic can tell it from the scripts, but takes longer to import than the rest of the library.
HEAD = "0003"
"""The revision that this version of the library needs."""

# The key of a PostgreSQL advisory lock: "jobhist" in ASCII.
_LOCK = 0x6A6F6268697374


def upgrade(
    bind: Engine | Connection, revision: str = "head", *, schema: str | None = None
) -> None:
    """Create the history table, or bring it to a later revision.

    Safe to call at once from several processes: one does the work, the others wait for it. A
    `schema` that does not exist is created.

    Raises:
        InvalidInput: if there is no such revision; or no such schema, where none can be made.
        SchemaOutOfDate: if the table is at a revision that only a later version knows.
    """
    with transaction(bind) as connection:
        _ensure_schema(connection, schema)
        _refuse_newer(connection, schema)
        _alembic("upgrade", revision, connection=connection, schema=schema)


def downgrade(bind: Engine | Connection, revision: str, *, schema: str | None = None) -> None:
    """Bring the table back to an earlier revision; `"base"` drops it, and all history with it.

    Raises:
        InvalidInput, SchemaOutOfDate: as `upgrade`.
    """
    with transaction(bind) as connection:
        _refuse_newer(connection, schema)
        _alembic("downgrade", revision, connection=connection, schema=schema)


def current(bind: Engine | Connection, *, schema: str | None = None) -> str | None:
    """The revision that the database is at; `None` if the history table is not there."""
    with _connection(bind) as connection:
        if not inspect(connection).has_table(VERSION_TABLE, schema=schema):
            return None
        versions = Table(VERSION_TABLE, MetaData(schema=schema), Column("version_num", String(32)))
        return connection.scalar(select(versions.c.version_num))


def check(bind: Engine | Connection, *, schema: str | None = None) -> None:
    """Make sure that the table is as this version of the library needs it.

    Raises:
        SchemaOutOfDate: if its revision is another, or it differs from what the revision made.
    """
    with _connection(bind) as connection:
        found = current(connection, schema=schema)
        if found != HEAD:
            raise SchemaOutOfDate(found, HEAD)
        differences = _differences(connection, schema)
        if differences:
            raise SchemaOutOfDate(found, HEAD, differences)


def write_sql(
    dialect: str, output: TextIO, revision: str = "head", *, schema: str | None = None
) -> None:
    """Write the SQL of an upgrade, for those whose databases are changed by hand.

    Args:
        dialect: `"postgresql"` or `"sqlite"`.
        output: where the SQL goes.
        revision: where to; `"0001:0002"` tells where from, too.
        schema: which must exist when the SQL is run.
    """
    _alembic("upgrade", revision, output=output, dialect=dialect, schema=schema)


def include_object(
    item: Any, name: str | None, type_: str, reflected: bool, compare_to: Any
) -> bool:
    """Keep an app's autogenerate from dropping the history table.

    For `context.configure(include_object=...)` in the app's `env.py`.
    """
    ours = type_ == "table" and name in (TABLE_NAME, VERSION_TABLE)
    return not (ours and reflected and compare_to is None)


def scripts_location() -> Path:
    """The folder of the revisions: the installed package's, or the one of a checkout.

    Raises:
        JobHistoryError: if neither is there.
    """
    package = Path(__file__).parent
    if (package / "migrations" / "env.py").is_file():
        return package / "migrations"
    root = package.parent
    if all((root / name).is_file() for name in ("alembic.ini", "pyproject.toml")):
        return root / "migrations"
    raise JobHistoryError(f"there are no migrations in {package}; install jobhistory again")


@contextmanager
def _connection(bind: Engine | Connection) -> Iterator[Connection]:
    if isinstance(bind, Connection):
        yield bind
    elif isinstance(bind, Engine):
        with bind.connect() as connection:
            yield connection
    else:
        shown = shown_url(bind) if isinstance(bind, str) else bind
        raise InvalidInput(
            "bind", shown, "is neither an Engine nor a Connection; give create_engine(url)"
        )


@contextmanager
def transaction(bind: Engine | Connection) -> Iterator[Connection]:
    """One transaction for all that is changed, with a lock that makes others wait."""
    with _connection(bind) as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        if connection is not bind and not is_sqlite:
            # An engine may commit every statement by itself; a migration must not.
            connection.execution_options(isolation_level=connection.default_isolation_level)
        if is_sqlite:
            if not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
                # sqlite3 begins none by itself before DDL.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield connection
        if connection is not bind:
            connection.commit()


def _ensure_schema(connection: Connection, schema: str | None) -> None:
    if schema is None or schema in inspect(connection).get_schema_names():
        return
    if connection.dialect.name == "sqlite":
        raise InvalidInput(
            "schema", schema, "is not attached, and SQLite has no other schemas; leave it out"
        )
    connection.execute(CreateSchema(schema))


def _refuse_newer(connection: Connection, schema: str | None) -> None:
    found = current(connection, schema=schema)
    if found is not None and found > HEAD:
        raise SchemaOutOfDate(found, HEAD)


def _differences(connection: Connection, schema: str | None) -> tuple[str, ...]:
    from alembic.util import AutogenerateDiffsDetected

    try:
        _alembic("check", connection=connection, schema=schema)
    except AutogenerateDiffsDetected as detected:
        return tuple(_describe(difference) for difference in detected.diffs)
    return ()


def _describe(difference: Any) -> str:
    # ("remove_index", Index), ("add_column", schema, table, Column), or, of one column,
    # [("modify_nullable", schema, table, column, ...), ...]
    if isinstance(difference, list):
        return "; ".join(_describe(part) for part in difference)
    what, *subject = difference
    if what.startswith("modify"):
        return f"{what} {subject[2]}"
    return f"{what} {getattr(subject[-1], 'name', subject[-1])}"


def _alembic(command: str, *args: Any, output: TextIO | None = None, **attributes: Any) -> None:
    import alembic.command
    from alembic.config import Config
    from alembic.util import CommandError

    # A connection, never a URL as text: that would have to show its password or to lose it.
    config = Config(stdout=StringIO(), output_buffer=output, attributes=attributes)
    config.set_main_option("script_location", str(scripts_location()).replace("%", "%%"))
    sql = {} if output is None else {"sql": True}
    try:
        getattr(alembic.command, command)(config, *args, **sql)
    except CommandError as error:
        if not args:
            raise
        raise InvalidInput(
            "revision", args[0], f"cannot be reached: {error}; write it like 'head' or {HEAD!r}"
        ) from error
