"""The index that finds running executions, on servers where it does no harm."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError

from jobhistory import Job, SchemaOutOfDate, create_store, migrate
from jobhistory.schema import Base
from tests.test_expire import NOW

INDEX = "ix_job_history_status"


@pytest.fixture
def engine(postgres_database):
    with postgres_database.engine.connect() as connection:
        if connection.dialect.server_version_info < (16,):
            pytest.skip("the server is older than PostgreSQL 16")
    return postgres_database.engine


def fill(engine, count=20_000, status="completed"):
    """Record executions that started a second apart, the last one at NOW."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # DELETE, which ends most tests, leaves the summaries of what ran before in the index.
        connection.exec_driver_sql("TRUNCATE job_history")
        connection.execute(
            text(
                "INSERT INTO job_history (id, job_id, correlation_id, task_identifier, worker_id,"
                " status, attempt_number, started_at, expires_at)"
                " SELECT gen_random_uuid(), n, 'c', 't', 'w', :status, 1, started, started + '5 h'"
                " FROM (SELECT n, CAST(:now AS timestamptz) - n * INTERVAL '1 s' AS started"
                " FROM generate_series(0, :count - 1) n) each"
            ),
            {"status": status, "count": count, "now": NOW},
        )
        connection.exec_driver_sql("VACUUM ANALYZE job_history")


def pages_read(engine):
    """The number of pages that a search for running executions reads from the table."""
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(
            "EXPLAIN (ANALYZE) SELECT * FROM job_history WHERE status = 'started'"
        )
        shown = "\n".join(plan.scalars())
    assert f"Bitmap Index Scan on {INDEX}" in shown, shown
    return sum(map(int, re.findall(r"(?:lossy|exact)=(\d+)", shown)))


def start(store, number):
    return store.record_start(Job(number, "running"), "w", "c")


@pytest.fixture
def store(engine):
    fill(engine)
    return create_store(engine, clock=lambda: NOW + timedelta(seconds=1))


def turn_over(engine, newest=20_000):
    """Let rows have been running once, as when new rows take the space of expired ones."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for status in ("started", "completed"):
            connection.execute(
                text("UPDATE job_history SET status = :status WHERE started_at > :since"),
                {"status": status, "since": NOW - timedelta(seconds=newest)},
            )
            connection.exec_driver_sql("VACUUM ANALYZE job_history")


def test_what_runs_is_found_without_reading_history(store, engine):
    start(store, 1)
    assert 0 < pages_read(engine) <= 32
    assert [record.job_id for record in store.running()] == ["1"]


@pytest.mark.parametrize("kind", ["engine", "connection"])
def test_maintenance_renews_the_index(store, engine, kind):
    turn_over(engine)
    start(store, 1)
    assert pages_read(engine) > 100

    seen = []
    if kind == "engine":
        count = migrate.maintain(engine, progress=lambda *each: seen.append(each))
    else:
        with engine.begin() as connection:
            count = migrate.maintain(connection, progress=lambda *each: seen.append(each))
    assert seen[-1] == (count, count)
    assert 0 < pages_read(engine) <= 32
    assert len(store.running()) == 1


def test_only_the_owner_may_maintain_the_index(store, postgres_database):
    role = "jobhistory_expires"
    with postgres_database.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role}")
        connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON job_history TO {role}")
        connection.exec_driver_sql(f"GRANT SELECT ON job_history_state TO {role}")
    url = postgres_database.url.update_query_dict({"options": f"-c role={role}"})
    engine = create_engine(url)
    try:
        assert create_store(engine, clock=lambda: NOW).expire() > 1_500
        with pytest.raises(ProgrammingError, match="must be owner"):
            migrate.maintain(engine)
    finally:
        engine.dispose()
        with postgres_database.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}")
            connection.exec_driver_sql(f"DROP ROLE {role}")


@pytest.fixture
def made_by_the_app(bare_database):
    """A table that no migration has made."""
    if bare_database.name == "postgresql":
        with bare_database.engine.connect() as connection:
            if connection.dialect.server_version_info < (16,):
                pytest.skip("the server is older than PostgreSQL 16")
    Base.metadata.create_all(bare_database.engine)
    return bare_database


def indexes(engine):
    with engine.connect() as connection:
        names = "SELECT indexname FROM pg_indexes WHERE tablename = 'job_history'"
        return set(connection.exec_driver_sql(names).scalars())


@pytest.mark.parametrize("kind", ["engine", "connection"])
@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
def test_maintenance_makes_the_index_for_a_table_without_it(made_by_the_app, kind):
    engine = made_by_the_app.engine
    assert INDEX not in indexes(engine)
    if kind == "engine":
        migrate.maintain(engine)
    else:
        with engine.begin() as connection:
            migrate.maintain(connection)
    assert INDEX in indexes(engine)
    assert migrate.check(engine) == ()


@pytest.mark.parametrize("kind", ["engine", "connection"])
@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
def test_several_processes_may_make_the_index(made_by_the_app, kind):
    engine = made_by_the_app.engine
    fill(engine)

    def maintain(_):
        if kind == "engine":
            return migrate.maintain(engine)
        with engine.begin() as connection:
            return migrate.maintain(connection)

    with ThreadPoolExecutor(4) as pool:
        ranges = set(pool.map(maintain, range(4)))
    assert len(ranges) == 1
    assert ranges.pop() > 0
    assert migrate.check(engine) == ()


@pytest.mark.parametrize("bare_database", ["sqlite"], indirect=True)
def test_elsewhere_there_is_nothing_to_maintain(made_by_the_app):
    assert migrate.maintain(made_by_the_app.engine) == 0


def test_a_missing_table_cannot_be_maintained(bare_database):
    with pytest.raises(SchemaOutOfDate):
        migrate.maintain(bare_database.engine)


def test_partitions_have_the_index_as_well(engine):
    with engine.begin() as connection:
        for statement in (
            "CREATE SCHEMA tree",
            "CREATE TABLE tree.job_history (LIKE job_history INCLUDING ALL) "
            "PARTITION BY RANGE (id)",
            "CREATE TABLE tree.all_of_it PARTITION OF tree.job_history DEFAULT",
        ):
            connection.exec_driver_sql(statement)
    mapped = create_engine(engine.url, execution_options={"schema_translate_map": {None: "tree"}})
    try:
        store = create_store(mapped, clock=lambda: NOW)
        start(store, 1)
        assert migrate.maintain(engine, schema="tree") == 1
        assert len(store.running()) == 1
    finally:
        mapped.dispose()
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA tree CASCADE")


@pytest.mark.parametrize("schema", ["50% :x", 'a"%%b'])
@pytest.mark.parametrize("bare_database", ["postgresql"], indirect=True)
def test_the_name_of_the_schema_may_have_any_characters(made_by_the_app, schema):
    engine = made_by_the_app.engine
    migrate.upgrade(engine, schema=schema)
    with engine.begin() as connection:
        name = schema.replace('"', '""').replace("%", "%%")
        connection.exec_driver_sql(f'DROP INDEX "{name}".{INDEX}')
    store = create_store(engine, schema=schema, clock=lambda: NOW)
    start(store, 1)
    assert migrate.maintain(engine, schema=schema) == 1
    earlier = create_store(engine, schema=schema, clock=lambda: NOW - timedelta(days=90))
    earlier.record_completion(start(earlier, 2))
    assert store.expire() == 1
    assert [record.job_id for record in store.running()] == ["1"]
