"""The schema of the history tables: create, upgrade, downgrade, check and maintain it.

Every function takes an `Engine` or a `Connection`. With a connection, the function works in the
connection's transaction and leaves the commit to the caller. For asyncio, pass the function to
`run_sync`::

    async with engine.begin() as connection:
        await connection.run_sync(migrate.upgrade)

`schema` is the database schema that contains the tables; the default is the connection's own.

The revisions have their own version table, so they coexist with an app's migrations in one
database. They use none of Alembic's global state, so an app's revision may call
`migrate.upgrade(op.get_bind())`. The functions are thread-safe, except for calls that share a
connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from sqlalchemy import (
    Connection,
    Engine,
    delete,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.schema import CreateSchema

from jobhistory.archive_schema import ARCHIVE, RESTORED_NAME
from jobhistory.database import exclusive, grants, running_index
from jobhistory.database.differences import compare
from jobhistory.database.exclusive import transaction as transaction
from jobhistory.database.partitions.catalog import read_layout
from jobhistory.database.partitions.leaves import is_name_of_leaf
from jobhistory.database.revision import (
    BEFORE_ARCHIVE,
    BEFORE_EXPECTATIONS,
    BEFORE_ROLLUPS,
    connected,
    has_table,
    quoted_table,
    version_of,
    version_table,
)
from jobhistory.database.revision import HEAD as HEAD
from jobhistory.database.revision import VERSION_TABLE as VERSION_TABLE
from jobhistory.database.revision import current as current
from jobhistory.errors import InvalidInput, JobHistoryError, SchemaOutOfDate
from jobhistory.expectation_schema import EXPECTATION, EXPECTATION_TABLES
from jobhistory.rollup_schema import ENDED, ROLLUP_TABLES
from jobhistory.schema import TABLE_NAME, Base

if TYPE_CHECKING:
    from alembic.migration import MigrationContext
    from alembic.runtime.migration import RevisionStep
    from alembic.script import ScriptDirectory

    # Returns the steps to run from the current heads of a database.
    _Steps: TypeAlias = Callable[[Any, Any], list[RevisionStep]]

_INDEX_LOCK = exclusive.LOCK + 1


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
            raise SchemaOutOfDate(None, HEAD, schema=schema)
        _refuse_newer(connection, schema)
        found = version_of(connection, schema)
        if found != HEAD and found in _known(_scripts()):
            raise SchemaOutOfDate(found, HEAD, schema=schema)
        differences, additions = compare(connection, schema)
        if differences:
            raise SchemaOutOfDate(found, HEAD, differences, schema)
        return additions


def missing_grants(bind: Engine | Connection, *, schema: str | None = None) -> tuple[str, ...]:
    """Return the `GRANT` statements without which this role can neither read statistics nor fold.

    Recording works without them. They are for a role of PostgreSQL that may write history. There
    are none under row-level security, because statistics count what all roles wrote. The tables
    must be up to date: call `check` first.
    """
    with connected(bind) as connection:
        return grants.missing_grants(connection, schema)


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
    updates the planner's statistics. Several processes may call it at the same time. On other
    servers, it only updates the statistics of a partitioned table, and returns 0.

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
            raise SchemaOutOfDate(None, HEAD, schema=schema)
        table = quoted_table(connection, schema)
        if not running_index.is_supported(connection):
            if read_layout(connection, schema) is not None:
                _analyze(connection, table)
            return 0
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
        _analyze(connection, table)
        return total


def _analyze(connection: Connection, table: str) -> None:
    """Update the planner's statistics. Autovacuum does so only for partitions, not their parent."""
    connection.execute(text(f"ANALYZE {running_index.escaped(table)}"))


def write_sql(
    dialect: str, output: TextIO, revision: str = "head", *, schema: str | None = None
) -> None:
    """Write the SQL of an upgrade, for databases that are changed by hand.

    Args:
        dialect: `"postgresql"` or `"sqlite"`.
        output: the file to write to.
        revision: the target; `"jobhistory_0011:jobhistory_0013"` also gives the start.
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
    ours = type_ == "table" and (
        name in (*Base.metadata.tables, VERSION_TABLE, RESTORED_NAME) or is_name_of_leaf(name or "")
    )
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
def _creating_index(connection: Connection, is_ours: bool) -> Iterator[None]:
    """Exclude others that create the index; each would wait for the other, and both would fail."""
    if not is_ours:
        exclusive.wait_for_lock(connection, func.pg_try_advisory_xact_lock(_INDEX_LOCK), False)
        yield
        return
    # Not in a transaction, because CREATE INDEX CONCURRENTLY would wait for its end.
    exclusive.wait_for_lock(connection, func.pg_try_advisory_lock(_INDEX_LOCK), False)
    try:
        yield
    finally:
        connection.scalar(select(func.pg_advisory_unlock(_INDEX_LOCK)))


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
        raise SchemaOutOfDate(found, HEAD, schema=schema)


def _adopt(connection: Connection, schema: str | None, scripts: ScriptDirectory) -> None:
    """Correct the version table if another tool made or dropped the history table.

    A history table without the tables of statistics, of expectations, or of archives is adopted at
    the revision before these.
    """
    found = version_of(connection, schema)
    exists = has_table(connection, schema)
    if exists == (found in _known(scripts)):
        return
    revision = HEAD
    if exists:
        tables = tuple(Base.metadata.tables)
        if not has_table(connection, schema, ENDED.name):
            revision, tables = BEFORE_ROLLUPS, (TABLE_NAME,)
        elif not has_table(connection, schema, EXPECTATION.name):
            revision = BEFORE_EXPECTATIONS
            tables = (TABLE_NAME, *(table.name for table in ROLLUP_TABLES))
        elif not has_table(connection, schema, ARCHIVE.name):
            revision = BEFORE_ARCHIVE
            others = (*ROLLUP_TABLES, *EXPECTATION_TABLES)
            tables = (TABLE_NAME, *(table.name for table in others))
        differences, _ = compare(connection, schema, tables=tables)
        if differences:
            raise SchemaOutOfDate(found, HEAD, differences, schema)
    if found is not None:
        connection.execute(delete(version_table(schema)))
    if exists:
        _context(schema, connection=connection).stamp(scripts, revision)


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
