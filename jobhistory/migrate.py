"""The schema of the history table: create, upgrade, downgrade, check and maintain it.

Every function takes an `Engine` or a `Connection`. With a connection, the function works in the
connection's transaction and leaves the commit to the caller. For asyncio, pass the function to
`run_sync`::

    async with engine.begin() as connection:
        await connection.run_sync(migrate.upgrade)

`schema` is the database schema that contains the table; the default is the connection's own.

The revisions have their own version table, so they coexist with an app's migrations in one
database. They use none of Alembic's global state, so an app's revision may call
`migrate.upgrade(op.get_bind())`. The functions are thread-safe, except for calls that share a
connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from sqlalchemy import (
    Connection,
    Engine,
    Function,
    delete,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.schema import CreateSchema

from jobhistory.database import running_index
from jobhistory.database.differences import compare
from jobhistory.database.revision import HEAD as HEAD
from jobhistory.database.revision import VERSION_TABLE as VERSION_TABLE
from jobhistory.database.revision import (
    connected,
    has_table,
    quoted_table,
    version_of,
    version_table,
)
from jobhistory.database.revision import current as current
from jobhistory.errors import InvalidInput, JobHistoryError, SchemaOutOfDate
from jobhistory.schema import TABLE_NAME

if TYPE_CHECKING:
    from alembic.migration import MigrationContext
    from alembic.runtime.migration import RevisionStep
    from alembic.script import ScriptDirectory

    # Returns the steps to run from the current heads of a database.
    _Steps: TypeAlias = Callable[[Any, Any], list[RevisionStep]]

# The key of a PostgreSQL advisory lock: "jobhist" in ASCII.
_LOCK = 0x6A6F6268697374
_INDEX_LOCK = _LOCK + 1
_POLL_SECONDS = 0.05


def upgrade(
    bind: Engine | Connection, revision: str = "head", *, schema: str | None = None
) -> None:
    """Create the history table, or bring it to a later revision.

    Several processes may call this at the same time: one does the work, the others wait. With an
    engine, each revision is a transaction, so a failure keeps the revisions before it. A `schema`
    that does not exist is created. A table that another tool made is adopted if it equals the
    model.

    On PostgreSQL, the role needs CREATE on the schema, and must own the table to change it. If the
    table is at the newest revision, SELECT on the version table is enough.

    Raises:
        InvalidInput: if there is no such revision, or no such schema on SQLite.
        SchemaOutOfDate: if this version of the library does not know the table's revision, or if
            another tool made the table and it differs from the model.
    """
    scripts = _scripts()
    with transaction(bind) as connection:
        _ensure_schema(connection, schema)
        _refuse_newer(connection, schema)
        _adopt(connection, schema, scripts)
        with _naming(revision):
            steps = _up(scripts, revision)(version_of(connection, schema) or (), None)
    for step in steps:
        with transaction(bind) as connection:
            # Between the transactions, another process may have taken this step.
            _run(connection, schema, _up(scripts, step.to_revisions))


def downgrade(bind: Engine | Connection, revision: str, *, schema: str | None = None) -> None:
    """Return the table to an earlier revision, in one transaction.

    `"base"` drops the table and all history.

    Raises:
        InvalidInput: if there is no such revision.
        SchemaOutOfDate: as `upgrade`.
    """
    scripts = _scripts()
    with transaction(bind) as connection:
        _refuse_newer(connection, schema)
        _adopt(connection, schema, scripts)
        with _naming(revision):
            _run(connection, schema, lambda heads, _: scripts._downgrade_revs(revision, heads))


def check(bind: Engine | Connection, *, schema: str | None = None) -> tuple[str, ...]:
    """Check that the table is up to date; return the app's additions, such as `"index ix_mine"`.

    The table is up to date if it has everything that the model has. Additions do no harm. The role
    needs only SELECT on the version table.

    Raises:
        SchemaOutOfDate: if the table is missing, at another revision, or lacks something.
    """
    with connected(bind) as connection:
        if not has_table(connection, schema):
            _refuse_no_schema(connection, schema)
            raise SchemaOutOfDate(None, HEAD)
        _refuse_newer(connection, schema)
        found = version_of(connection, schema)
        if found != HEAD and found in _known(_scripts()):
            raise SchemaOutOfDate(found, HEAD)
        differences, additions = compare(connection, schema)
        if differences:
            raise SchemaOutOfDate(found, HEAD, differences)
        return additions


def maintain(
    bind: Engine | Connection,
    *,
    schema: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Renew the index that finds running executions, and return the number of page ranges.

    Call it from time to time, for example once a week, as the owner of the table. On PostgreSQL 16
    and later, `running` and `reap_lost` use this index. It gets slower as new rows take the space
    of expired ones. The call also creates the index if the table was not made by a migration, and
    updates the planner's statistics. Several processes may call it at the same time. Elsewhere, it
    does nothing and returns 0.

    It reads the whole table. With an engine, each batch is a short transaction, and the index is
    created without blocking writers unless the table is partitioned. Recording goes on meanwhile.

    Args:
        progress: called after each batch with the number of page ranges done and their total.

    Raises:
        SchemaOutOfDate: if the table is missing.
        sqlalchemy.exc.ProgrammingError: if the role does not own the table.
    """
    with connected(bind) as connection:
        is_ours = connection is not bind
        if is_ours:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        if not has_table(connection, schema):
            raise SchemaOutOfDate(None, HEAD)
        if not running_index.is_supported(connection):
            return 0
        table = quoted_table(connection, schema)
        indexes = running_index.find_indexes(connection, table)
        if not indexes:
            with _creating_index(connection, is_ours):
                indexes = running_index.ensure(connection, table, concurrently=is_ours)
        total = sum(len(index.ranges) for index in indexes)
        done = 0
        for index in indexes:
            for first in range(0, len(index.ranges), running_index.RANGES_PER_STATEMENT):
                ranges = index.ranges[first : first + running_index.RANGES_PER_STATEMENT]
                running_index.summarize(connection, index, ranges)
                done += len(ranges)
                if progress is not None:
                    progress(done, total)
        connection.execute(text(f"ANALYZE {running_index.escaped(table)}"))
        return total


def write_sql(
    dialect: str, output: TextIO, revision: str = "head", *, schema: str | None = None
) -> None:
    """Write the SQL of an upgrade, for databases that are changed by hand.

    Args:
        dialect: `"postgresql"` or `"sqlite"`.
        output: the file to write to.
        revision: the target; `"jobhistory_0011:jobhistory_0012"` also gives the start.
        schema: an existing schema.

    Raises:
        InvalidInput: if the dialect is not supported or there is no such revision.
    """
    from alembic.operations import Operations

    if dialect not in ("postgresql", "sqlite"):
        raise InvalidInput("dialect", dialect, "is not supported; pass 'postgresql' or 'sqlite'")
    scripts = _scripts()
    start, _, target = revision.rpartition(":")
    with _naming(revision):
        context = _context(
            schema,
            dialect_name=dialect,
            starting_rev=start or None,
            script=scripts,
            as_sql=True,
            output_buffer=output,
            literal_binds=True,
            fn=_up(scripts, target),
        )
        with context.begin_transaction():
            context.run_migrations(op=Operations(context))


def include_object(
    item: Any, name: str | None, type_: str, reflected: bool, compare_to: Any
) -> bool:
    """Return false for the history tables, so that the app's autogenerate does not drop them.

    Pass it to `context.configure(include_object=...)` in the app's `env.py`.
    """
    ours = type_ == "table" and name in (TABLE_NAME, VERSION_TABLE)
    return not (ours and reflected and compare_to is None)


def scripts_location() -> Path:
    """Return the folder of the revisions, in the installed package or in a checkout.

    Raises:
        JobHistoryError: if neither exists.
    """
    package = Path(__file__).parent
    if (package / "migrations" / "env.py").is_file():
        return package / "migrations"
    root = package.parent
    if all((root / name).is_file() for name in ("alembic.ini", "pyproject.toml")):
        return root / "migrations"
    raise JobHistoryError(f"there are no migrations in {package}; reinstall jobhistory")


@contextmanager
def transaction(bind: Engine | Connection) -> Iterator[Connection]:
    """Run a transaction that excludes other migrations; commit it unless it is the caller's."""
    with connected(bind) as connection:
        is_ours = connection is not bind
        if connection.dialect.name == "sqlite":
            _begin_immediate(connection)
        else:
            if is_ours:
                # The engine's own level may commit each statement, or hide what others commit.
                connection.execution_options(isolation_level="READ COMMITTED")
            _wait_for_lock(connection, func.pg_try_advisory_xact_lock(_LOCK), is_ours)
        yield connection
        if is_ours:
            connection.commit()


def _begin_immediate(connection: Connection) -> None:
    """Take SQLite's write lock before the first read.

    A transaction that has read cannot write any more after another one has written.
    """
    is_callers = connection.in_transaction()
    if not is_callers:
        connection.begin()  # a listener of the app may emit BEGIN now
    driver_connection: Any = connection.connection.driver_connection
    if driver_connection.in_transaction:
        if is_callers:
            return
        connection.exec_driver_sql("COMMIT")  # the empty transaction of the listener or the driver
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _creating_index(connection: Connection, is_ours: bool) -> Iterator[None]:
    """Exclude others that create the index; each would wait for the other, and both would fail."""
    if not is_ours:
        _wait_for_lock(connection, func.pg_try_advisory_xact_lock(_INDEX_LOCK), False)
        yield
        return
    # Not in a transaction, because CREATE INDEX CONCURRENTLY would wait for its end.
    _wait_for_lock(connection, func.pg_try_advisory_lock(_INDEX_LOCK), False)
    try:
        yield
    finally:
        connection.scalar(select(func.pg_advisory_unlock(_INDEX_LOCK)))


def _wait_for_lock(connection: Connection, take: Function[bool], may_roll_back: bool) -> None:
    """Take a lock of PostgreSQL by a function that returns whether it has taken it.

    It polls, because a waiting statement would hold a snapshot, and CREATE INDEX CONCURRENTLY, run
    by the holder of the lock, waits for snapshots.
    """
    while not connection.scalar(select(take)):
        if may_roll_back:
            connection.rollback()
        if connection.dialect.is_async:  # the holder may be a task of this event loop
            adapted: Any = connection.connection.dbapi_connection
            adapted.run_async(lambda _: asyncio.sleep(_POLL_SECONDS))
        else:
            sleep(_POLL_SECONDS)


def _ensure_schema(connection: Connection, schema: str | None) -> None:
    if schema is None or schema in inspect(connection).get_schema_names():
        return
    if connection.dialect.name == "sqlite":
        raise InvalidInput(
            "schema", schema, "is not attached, and SQLite has no other schemas; leave it out"
        )
    connection.execute(CreateSchema(schema))


def _refuse_no_schema(connection: Connection, schema: str | None) -> None:
    if schema is None and connection.dialect.default_schema_name is None:
        raise InvalidInput(
            "schema", schema, "selects no schema: grant this role USAGE on one, or pass its name"
        )


def _refuse_newer(connection: Connection, schema: str | None) -> None:
    found = version_of(connection, schema)
    if found is not None and found > HEAD:
        raise SchemaOutOfDate(found, HEAD)


def _adopt(connection: Connection, schema: str | None, scripts: ScriptDirectory) -> None:
    """Correct the version table if another tool made or dropped the history table."""
    found = version_of(connection, schema)
    exists = has_table(connection, schema)
    if exists == (found in _known(scripts)):
        return
    if exists:
        differences, _ = compare(connection, schema)
        if differences:
            raise SchemaOutOfDate(found, HEAD, differences)
    if found is not None:
        connection.execute(delete(version_table(schema)))
    if exists:
        _context(schema, connection=connection).stamp(scripts, HEAD)


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(scripts_location()))


def _known(scripts: ScriptDirectory) -> set[str | None]:
    return {script.revision for script in scripts.walk_revisions()}


def _up(scripts: ScriptDirectory, target: Any) -> _Steps:
    return lambda heads, _: scripts._upgrade_revs(target, heads)


def _run(connection: Connection, schema: str | None, steps: _Steps) -> None:
    from alembic.operations import Operations

    context = _context(schema, connection=connection, fn=steps)
    context.run_migrations(op=Operations(context))


def _context(
    schema: str | None,
    *,
    connection: Connection | None = None,
    dialect_name: str | None = None,
    **options: Any,
) -> MigrationContext:
    from alembic.migration import MigrationContext

    return MigrationContext.configure(
        connection,
        dialect_name=dialect_name,
        opts={"version_table": VERSION_TABLE, "version_table_schema": schema, **options},
    )


@contextmanager
def _naming(revision: str) -> Iterator[None]:
    """Turn Alembic's errors into `InvalidInput` that names the revision."""
    from alembic.util import CommandError

    try:
        yield
    except CommandError as error:
        raise InvalidInput(
            "revision", revision, f"cannot be reached: {error}; write it like 'head' or {HEAD!r}"
        ) from error
