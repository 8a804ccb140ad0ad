"""Upgrade, downgrade, check and print the schema, also in several processes at once."""

from __future__ import annotations

import ast
import asyncio
import io
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.config import main as alembic_main
from alembic.script import ScriptDirectory
from sqlalchemy import URL, MetaData, StaticPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from jobhistory import InvalidInput, Job, SchemaOutOfDate, create_store, migrate
from jobhistory.database.exclusive import LOCK
from jobhistory.database.revision import REVISIONS as KNOWN_REVISIONS
from jobhistory.database.running_index import INDEX_NAME
from jobhistory.schema import Base, HistoryRecord
from tests import command_line
from tests.sqlite_engines import SQLITE_ENGINES
from tests.test_forks import in_children

ROOT = Path(__file__).parent.parent


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(migrate.scripts_location()))
    return ScriptDirectory.from_config(config)


REVISIONS = [script.revision for script in reversed(list(scripts().walk_revisions()))]


def test_the_head_that_the_library_knows_is_that_of_the_scripts():
    assert scripts().get_heads() == [migrate.HEAD]
    assert tuple(REVISIONS) == KNOWN_REVISIONS
    assert sorted(REVISIONS) == REVISIONS, "messages compare revisions as texts"


@pytest.mark.parametrize("path", sorted((ROOT / "migrations" / "versions").glob("*.py")))
def test_a_revision_imports_alembic_and_sqlalchemy_only(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])

    assert imported <= {"alembic", "sqlalchemy"}


def tables(engine):
    return sorted(inspect(engine).get_table_names())


def test_each_revision_goes_up_and_down_and_up_again(bare_database):
    engine = bare_database.engine
    states = {None: structure(engine)}
    for revision in REVISIONS:
        migrate.upgrade(engine, revision)
        states[revision] = structure(engine)
        assert migrate.current(engine) == revision
    assert len({str(state) for state in states.values()}) == len(REVISIONS) + 1
    for below, revision in reversed(list(zip([None, *REVISIONS], REVISIONS, strict=False))):
        migrate.downgrade(engine, below or "base")
        assert structure(engine) == states[below]
        migrate.upgrade(engine, revision)
        assert structure(engine) == states[revision]
        migrate.downgrade(engine, below or "base")
    assert migrate.current(engine) is None
    assert tables(engine) == [migrate.VERSION_TABLE]


def triggers(engine):
    """The triggers and their functions, without white space, which a statement may break anew."""
    statement = {
        "postgresql": "SELECT pg_get_triggerdef(pg_trigger.oid) || prosrc || prosecdef"
        " || proconfig::text || coalesce(proacl::text, '')"
        " FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid WHERE NOT tgisinternal",
        "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'trigger'",
    }[engine.dialect.name]
    with engine.connect() as connection:
        return sorted("".join(each.split()) for each in connection.scalars(text(statement)))


def structure(engine):
    inspector = inspect(engine)
    if "job_history" not in inspector.get_table_names():
        return None
    return {
        "tables": [name for name in tables(engine) if name != migrate.VERSION_TABLE],
        "triggers": triggers(engine),
        "columns": [
            (column["name"], str(column["type"]), column["nullable"])
            for column in inspector.get_columns("job_history")
        ],
        "primary key": inspector.get_pk_constraint("job_history"),
        "checks": inspector.get_check_constraints("job_history"),
        "indexes": sorted(  # names are unique
            (
                index["name"],
                index["column_names"],
                {key: str(value) for key, value in index["dialect_options"].items()},
            )
            for index in inspector.get_indexes("job_history")
            if index["name"] != INDEX_NAME  # not in the metadata
        ),
    }


def test_the_migrations_make_what_the_model_declares(bare_database):
    engine = bare_database.engine
    migrate.upgrade(engine)
    migrated = structure(engine)
    migrate.check(engine)
    migrate.downgrade(engine, "base")
    Base.metadata.create_all(engine)

    assert structure(engine) == migrated


def test_what_is_made_wears_the_librarys_name(bare_database):
    migrate.upgrade(bare_database.engine)
    inspector = inspect(bare_database.engine)

    assert all(name.startswith("job_history") for name in tables(bare_database.engine))
    assert inspector.get_pk_constraint("job_history")["name"] == "pk_job_history"
    (check,) = inspector.get_check_constraints("job_history")
    assert check["name"] == "ck_job_history_status"
    names = {index["name"] for index in inspector.get_indexes("job_history")}
    assert "ix_job_history_expires_at" in names
    assert all(name.startswith("ix_job_history_") for name in names)


@pytest.mark.parametrize("way", ["migrate", "create_all", "copy of the table"])
def test_the_table_leaves_room_for_heap_only_updates(bare_postgres_url, way):
    engine = create_engine(bare_postgres_url)
    if way == "migrate":
        migrate.upgrade(engine)
    elif way == "create_all":
        Base.metadata.create_all(engine)
    else:  # in the app's metadata
        HistoryRecord.__table__.to_metadata(metadata := MetaData())
        metadata.create_all(engine)
    with engine.connect() as connection:
        options = connection.scalar(
            text("SELECT reloptions FROM pg_class WHERE relname = 'job_history'")
        )
    engine.dispose()
    assert options == ["fillfactor=80"]


def test_an_unknown_status_is_refused_by_the_table(database):
    store = create_store(database.engine)
    store.record_start(Job("1", "t"), "w", "c")
    with (
        pytest.raises(IntegrityError, match="ck_job_history_status"),
        database.engine.begin() as connection,
    ):
        connection.execute(text("UPDATE job_history SET status = 'done'"))


def test_upgrade_is_repeatable_and_keeps_the_rows(database):
    store = create_store(database.engine)
    store.record_start(Job("1", "t"), "w", "c")
    migrate.upgrade(database.engine)

    assert len(store.query()) == 1


def test_several_processes_may_upgrade_at_once(bare_database):
    in_children(lambda number: migrate.upgrade(create_engine(bare_database.url)))
    migrate.check(bare_database.engine)


@pytest.mark.parametrize("kind", SQLITE_ENGINES)
@pytest.mark.parametrize("wal", [False, True])
def test_every_way_to_set_up_transactions_on_sqlite_will_do(tmp_path, kind, wal):
    url = URL.create("sqlite", database=str(tmp_path / "app.db"))
    engine = SQLITE_ENGINES[kind](url)
    with sqlite3.connect(url.database) as raw:
        raw.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
    raw.close()
    migrate.upgrade(engine, "jobhistory_0011")
    migrate.upgrade(engine)
    assert migrate.check(engine) == ()
    migrate.downgrade(engine, "base")
    assert tables(engine) == [migrate.VERSION_TABLE]
    with engine.begin() as connection:
        migrate.upgrade(connection)
        assert migrate.check(connection) == ()
    with engine.connect() as connection:
        migrate.downgrade(connection, "base")
        connection.rollback()
    migrate.check(engine)
    migrate.downgrade(engine, "base")
    engine.dispose()

    engines = [SQLITE_ENGINES[kind](url) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(migrate.upgrade, engines))
    migrate.check(engine)
    for each in [engine, *engines]:
        each.dispose()


def test_a_migration_keeps_what_another_session_wrote_through_a_shared_connection():
    """A database in memory has one connection, with one transaction."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE app (id INTEGER)"))
        connection.execute(text("INSERT INTO app VALUES (1)"))
        migrate.upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM app")) == 1
    engine.dispose()


def test_who_waits_for_the_lock_holds_no_snapshot_and_no_lock(postgres_database):
    """CREATE INDEX CONCURRENTLY in a migration waits for all snapshots."""
    url = postgres_database.url.update_query_dict({"application_name": "waiter"})
    engine = create_engine(url, isolation_level="REPEATABLE READ")
    states = text(
        "SELECT backend_xid, backend_xmin, state FROM pg_stat_activity "
        "WHERE application_name = 'waiter'"
    )
    with postgres_database.engine.connect() as holder, ThreadPoolExecutor() as pool:
        holder.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
        waiting = pool.submit(migrate.upgrade, engine)
        seen = Counter()
        with postgres_database.engine.connect().execution_options(
            isolation_level="AUTOCOMMIT"
        ) as observer:
            while seen.total() < 50:  # at some moments, it tries to take the lock
                seen.update(tuple(row) for row in observer.execute(states))
                with suppress(TimeoutError):
                    waiting.result(0.01)
        assert not waiting.done()
        holder.execute(text(f"SELECT pg_advisory_unlock({LOCK})"))
        waiting.result(10)
    engine.dispose()
    assert seen.most_common(1)[0][0] == (None, None, "idle")


def test_on_a_connection_the_commit_is_the_callers(bare_database):
    with bare_database.engine.connect() as connection:
        migrate.upgrade(connection)
        assert migrate.current(connection) == migrate.HEAD
        connection.rollback()
    assert migrate.current(bare_database.engine) is None
    assert tables(bare_database.engine) == []

    with bare_database.engine.begin() as connection:
        migrate.upgrade(connection)
    migrate.check(bare_database.engine)


def test_a_revision_that_fails_leaves_the_ones_before_it_whole(bare_database):
    """This holds even if the engine commits each statement."""
    engine = bare_database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.begin() as connection:  # in the way of one of the indexes
        connection.execute(text("CREATE TABLE ix_job_history_started_at (id INTEGER)"))
    with pytest.raises(DBAPIError, match="ix_job_history_started_at"):
        migrate.upgrade(engine)
    assert migrate.current(engine) == "jobhistory_0011"
    assert structure(engine)["indexes"] == []

    with engine.begin() as connection:
        connection.execute(text("DROP TABLE ix_job_history_started_at"))
    migrate.upgrade(engine)
    migrate.check(engine)


def test_check_names_a_missing_and_an_old_schema(bare_database):
    with pytest.raises(SchemaOutOfDate, match="jobhistory db upgrade"):
        migrate.check(bare_database.engine)
    migrate.upgrade(bare_database.engine, "jobhistory_0011")
    with pytest.raises(SchemaOutOfDate, match="at revision jobhistory_0011"):
        migrate.check(bare_database.engine)


def test_a_schema_of_a_later_version_is_left_alone(database):
    set_revision = text("UPDATE job_history_alembic_version SET version_num = :revision")
    with database.engine.begin() as connection:
        connection.execute(set_revision, {"revision": "jobhistory_0099"})
    for change in (migrate.upgrade, migrate.check, lambda e: migrate.downgrade(e, "base")):
        with pytest.raises(SchemaOutOfDate, match="pip install --upgrade jobhistory"):
            change(database.engine)
    with database.engine.begin() as connection:
        connection.execute(set_revision, {"revision": migrate.HEAD})


@pytest.mark.parametrize("revision", ["0099", "jobhistory_0011:jobhistory_0013", "nonsense"])
def test_a_revision_that_cannot_be_reached_is_named(bare_database, revision):
    with pytest.raises(InvalidInput, match=f"revision '{revision}' cannot be reached"):
        migrate.upgrade(bare_database.engine, revision)


def test_a_schema_that_sqlite_cannot_have_is_refused(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(InvalidInput, match="schema 'audit' is not attached"):
        migrate.upgrade(engine, schema="audit")
    engine.dispose()


@pytest.mark.parametrize("bind", ["postgresql://app:hunter2@host/db", None])
def test_migrating_takes_an_engine_or_a_connection(bind):
    for call in (migrate.upgrade, migrate.current, migrate.check):
        with pytest.raises(InvalidInput, match="neither an Engine nor a Connection") as caught:
            call(bind)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("driver", ["aiosqlite", "psycopg", "asyncpg"])
def test_asyncio_hands_the_functions_to_run_sync(request, event_loop_thread, tmp_path, driver):
    """Several tasks can migrate at once: waiting for each other does not block the event loop."""
    if driver == "aiosqlite":
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.db")
    else:
        bare = request.getfixturevalue("bare_postgres_url")
        engine = create_async_engine(bare.set(drivername=f"postgresql+{driver}"))

    async def upgrade():
        async with engine.begin() as connection:
            await connection.run_sync(migrate.upgrade)

    async def main():
        await asyncio.gather(*[upgrade() for _ in range(3)])
        async with engine.connect() as connection:
            assert await connection.run_sync(migrate.current) == migrate.HEAD
            assert await connection.run_sync(migrate.check) == ()
        with pytest.raises(InvalidInput, match="run_sync"):
            migrate.upgrade(engine)
        async with engine.connect() as connection:
            with pytest.raises(InvalidInput, match="run_sync"):
                migrate.upgrade(connection)
        async with engine.begin() as connection:
            await connection.run_sync(migrate.downgrade, "base")
        await engine.dispose()

    event_loop_thread.run(main())


@pytest.mark.parametrize("schema", [None, "audit"])
def test_the_offline_sql_makes_the_same_schema(bare_database, schema):
    if schema and bare_database.name == "sqlite":
        schema = "main"  # it has no others
    sql = io.StringIO()
    migrate.write_sql(bare_database.name, sql, schema=schema)
    raw = bare_database.engine.raw_connection()
    if bare_database.name == "sqlite":
        raw.executescript(sql.getvalue())
    else:
        raw.driver_connection.autocommit = True
        if schema:
            raw.driver_connection.execute(f"CREATE SCHEMA {schema}")
        raw.driver_connection.execute(sql.getvalue())
    raw.close()
    bare_database.engine.dispose()

    assert migrate.current(bare_database.engine, schema=schema) == migrate.HEAD
    migrate.check(bare_database.engine, schema=schema)


def alembic(database, *arguments):
    url = database.url.render_as_string(hide_password=False)
    return command_line.run(
        *arguments, program=alembic_main, env=os.environ | {"JOBHISTORY_URL": url}, cwd=ROOT
    )


def test_alembics_own_command_line_works_from_the_root(bare_database):
    for arguments in ["upgrade head", "check", "current", "downgrade base", "upgrade head"]:
        done = alembic(bare_database, *arguments.split())
        assert done.returncode == 0, done.stderr
    assert "jobhistory_0011 -> jobhistory_0013" in done.stderr
    migrate.check(bare_database.engine)


@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
def test_alembics_own_command_line_takes_a_schema(bare_database):
    with bare_database.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA audit"))
    for arguments in ["upgrade head", "check", "downgrade base", "upgrade head"]:
        done = alembic(bare_database, "-x", "schema=audit", *arguments.split())
        assert done.returncode == 0, done.stderr
    migrate.check(bare_database.engine, schema="audit")
    assert tables(bare_database.engine) == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_alembics_own_command_line_prints_the_revision_and_the_sql(database):
    url = database.url.render_as_string(hide_password=False)

    assert started_alembic("current", JOBHISTORY_URL=url).stdout.split() == [migrate.HEAD, "(head)"]
    sql = started_alembic("upgrade", "head", "--sql", JOBHISTORY_URL=url).stdout
    assert "CREATE TABLE job_history" in sql
    variables = {"JOBHISTORY_URL": "postgresql://", "JOBHISTORY_SCHEMA": "audit"}
    sql = started_alembic("upgrade", "head", "--sql", **variables).stdout
    assert "CREATE TABLE audit.job_history" in sql


def test_without_a_url_alembic_says_what_to_set():
    done = started_alembic("current")

    assert done.returncode != 0
    assert "set JOBHISTORY_URL" in done.stderr
    assert "Traceback" not in done.stderr


def started_alembic(*arguments, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "JOBHISTORY_URL"}
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
