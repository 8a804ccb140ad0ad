"""The tables and triggers of statistics next to what others do to the history and its schema."""

from __future__ import annotations

import io
import re

import pytest
from sqlalchemy import MetaData, create_engine, inspect, select, text

from jobhistory import HistoryRecord, SchemaOutOfDate, create_store, migrate
from jobhistory.archive_schema import ARCHIVE_TABLES
from jobhistory.expectation_schema import EXPECTATION_TABLES
from jobhistory.rollup_schema import ROLLUP, ROLLUP_TABLES, STATE, TRIGGERS
from jobhistory.schema import Base
from tests.test_docs import ROOT
from tests.test_feed import FIELDS, JOB, LOST, entry, taken_back
from tests.test_sampling import Queue, only


def run(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def record_some(engine, clock):
    """A completion, a failure of a lost worker, and an execution that still runs."""
    store = create_store(engine, clock=clock)
    store.record_execution(FIELDS, status="completed", execution_time_ms=5)
    store.record_start(JOB, "w", "c")
    clock.advance(hours=2)
    assert store.reap_lost("1h") == 1
    store.record_start(JOB, "w", "c")
    return store


def in_order(rows):
    return sorted(rows, key=lambda row: row["status"])


def ended(store):
    records = store.query(status=["completed", "failed"])
    return in_order(map(entry, records))


def test_a_history_of_an_older_create_all_is_adopted_and_queued(bare_database, clock):
    engine = bare_database.engine
    Base.metadata.create_all(engine)
    store = record_some(engine, clock)
    expected = ended(store)
    assert [row["is_lost"] for row in expected] == [False, True]
    Base.metadata.drop_all(engine, tables=ROLLUP_TABLES)
    migrate.upgrade(engine, "jobhistory_0013")
    assert migrate.current(engine) == "jobhistory_0013"

    migrate.upgrade(engine)
    assert migrate.check(engine) == ()
    assert in_order(Queue(engine).rows()) == expected
    lost = only(store.query(error_type=LOST))
    store.record_completion(execution_id=lost.id)
    assert len(Queue(engine).rows()) == 4
    assert taken_back(lost) in Queue(engine).rows()


@pytest.mark.parametrize(
    ("missing", "revision"),
    [
        (ARCHIVE_TABLES, "jobhistory_0016"),
        ((*EXPECTATION_TABLES, *ARCHIVE_TABLES), "jobhistory_0015"),
    ],
)
def test_a_history_without_the_newest_tables_is_adopted(bare_database, missing, revision):
    engine = bare_database.engine
    Base.metadata.create_all(engine)
    Base.metadata.drop_all(engine, tables=missing)
    migrate.upgrade(engine, revision)
    assert migrate.current(engine) == revision
    migrate.upgrade(engine)
    assert migrate.check(engine) == ()


def test_the_migration_queues_each_ended_row_of_a_history_once(bare_database, clock):
    engine = bare_database.engine
    migrate.upgrade(engine)
    store = record_some(engine, clock)
    expected = ended(store)
    migrate.downgrade(engine, "jobhistory_0013")
    assert len(store.query(limit=None)) == 3
    for _ in range(2):
        migrate.upgrade(engine)
        assert in_order(Queue(engine).rows()) == expected


def test_statistics_survive_a_history_that_is_dropped_by_hand(bare_database, clock):
    engine = bare_database.engine
    migrate.upgrade(engine)
    store = record_some(engine, clock)
    expected = Queue(engine).rows()
    kept = {"span": "month", "task_identifier": "old", "bucket": clock()}
    with engine.begin() as connection:
        connection.execute(ROLLUP.insert().values(kept))
        connection.execute(STATE.insert().values(name="mark", value="1"))
    run(engine, "DROP TABLE job_history")

    migrate.upgrade(engine)
    assert migrate.check(engine) == ()
    assert Queue(engine).rows() == expected
    with engine.connect() as connection:
        assert connection.scalar(select(ROLLUP.c.task_identifier)) == "old"
        assert connection.scalar(select(STATE.c.name)) == "mark"
    store.record_execution(FIELDS, error="no")
    assert len(Queue(engine).rows()) == len(expected) + 1


def left_over(engine):
    statement = {
        "postgresql": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
        "sqlite": "SELECT name FROM sqlite_master",
    }[engine.dialect.name]
    with engine.connect() as connection:
        found = list(connection.exec_driver_sql(statement).scalars())
    return found + inspect(engine).get_table_names()


def test_drop_all_leaves_nothing(bare_database):
    engine = bare_database.engine
    for _ in range(2):
        Base.metadata.create_all(engine)
        assert migrate.check(engine) == ()
        Base.metadata.drop_all(engine)
        assert left_over(engine) == []


def test_in_the_metadata_of_the_app_the_tables_have_their_triggers(bare_database):
    metadata = MetaData()
    for table in (HistoryRecord.__table__, *ROLLUP_TABLES, *EXPECTATION_TABLES, *ARCHIVE_TABLES):
        table.to_metadata(metadata)
    metadata.create_all(bare_database.engine)
    migrate.check(bare_database.engine)
    create_store(bare_database.engine).record_execution(FIELDS, status="completed")
    assert len(Queue(bare_database.engine).rows()) == 1
    metadata.drop_all(bare_database.engine)
    assert left_over(bare_database.engine) == []


def test_a_missing_trigger_is_a_difference(bare_database):
    engine = bare_database.engine
    migrate.upgrade(engine)
    on = " ON job_history" if engine.dialect.name == "postgresql" else ""
    names = sorted(TRIGGERS[engine.dialect.name])
    run(engine, *(f"DROP TRIGGER {name}{on}" for name in names))
    with pytest.raises(SchemaOutOfDate) as caught:
        migrate.check(engine)
    assert sorted(caught.value.differences) == [f"trigger {name} is missing" for name in names]


def test_a_renamed_schema_is_a_difference_that_one_statement_repairs(bare_postgres_url):
    engine = create_engine(bare_postgres_url)
    migrate.upgrade(engine, schema="old")
    run(engine, "ALTER SCHEMA old RENAME TO new")
    with pytest.raises(SchemaOutOfDate, match="trigger job_history_updated writes to another sch"):
        migrate.check(engine, schema="new")
    page = (ROOT / "docs" / "schema.md").read_text()
    (repair,) = re.findall(r"DO \$\$.*?END \$\$;", page, re.DOTALL)
    with engine.begin() as connection:
        connection.exec_driver_sql(repair.replace("%", "%%"))
    assert migrate.check(engine, schema="new") == ()
    store = create_store(engine, schema="new")
    store.record_execution(FIELDS, status="completed")
    store.record_start(JOB, "w", "c")
    store.record_completion("job-1", "w", "c")
    assert len(Queue(engine.execution_options(schema_translate_map={None: "new"})).rows()) == 2
    engine.dispose()


def test_a_publication_of_all_tables_lets_the_queue_be_folded(bare_postgres_url):
    """It would refuse deletions from a table that has neither a key nor a replica identity."""
    engine = create_engine(bare_postgres_url)
    migrate.upgrade(engine)
    run(engine, "CREATE PUBLICATION everything FOR ALL TABLES")
    create_store(engine).record_execution(FIELDS, status="completed")
    run(engine, "UPDATE job_history_ended SET weight = 1", "DELETE FROM job_history_ended")
    engine.dispose()


def test_many_enter_the_queue_once_where_each_statement_commits(postgres_database):
    """The setting for bulk ends with the transaction, as it must behind PgBouncer."""
    engine = postgres_database.engine.execution_options(isolation_level="AUTOCOMMIT")
    create_store(engine).record_many([FIELDS | {"status": "completed"}] * 60)
    assert len(Queue(engine).rows()) == 60


def test_the_statement_of_db_sql_repairs_triggers(bare_postgres_url):
    engine = create_engine(bare_postgres_url)
    migrate.upgrade(engine)
    migrate.write_sql("postgresql", output := io.StringIO())
    repair = re.findall(r"DO \$do\$.*?END \$do\$;", output.getvalue(), re.DOTALL)[0]
    run(
        engine,
        "DROP TRIGGER job_history_inserted ON job_history",
        "ALTER TABLE job_history DISABLE TRIGGER job_history_updated",
    )
    with pytest.raises(SchemaOutOfDate, match="trigger job_history_updated is disabled"):
        migrate.check(engine)

    with engine.begin() as connection:
        connection.exec_driver_sql(repair.replace("%", "%%"))
    assert migrate.check(engine) == ()
    engine.dispose()
