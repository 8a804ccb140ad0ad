"""Tables whose key has more columns than the id, and the refusals of Citus."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from sqlalchemy import NullPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from jobhistory import (
    InvalidInput,
    Job,
    JobHistoryError,
    LayoutNotChanged,
    Recorder,
    SchemaOutOfDate,
    StatisticsDenied,
    Status,
    create_store,
    migrate,
    new_execution_id,
)
from jobhistory.database import exclusive
from jobhistory.database.layout import PLAIN, Layout, forget_outdated, layout_of, read_layout
from jobhistory.distribution import distribute
from jobhistory.partitioning import partition, partitions_of
from jobhistory.rollup_schema import TRIGGERS
from tests import command_line

JOB = Job("job-1", "ship")
ENDED = {"job_id": "job-1", "worker_id": "w", "correlation_id": "c", "task_identifier": "ship"}

PARTED = "CREATE TABLE job_history (LIKE whole INCLUDING ALL EXCLUDING INDEXES) PARTITION BY "
LAYOUTS = {
    "range of time": [
        f"{PARTED} RANGE (started_at)",
        "ALTER TABLE job_history ADD PRIMARY KEY (id, started_at)",
        "CREATE TABLE old PARTITION OF job_history FOR VALUES FROM (MINVALUE) TO ('2015-10-31')",
        "CREATE TABLE new PARTITION OF job_history DEFAULT",
    ],
    "hash of jobs": [
        f"{PARTED} HASH (job_id)",
        "CREATE UNIQUE INDEX key ON job_history (job_id, id) INCLUDE (status)",
        *(
            f"CREATE TABLE half_{n} PARTITION OF job_history "
            f"FOR VALUES WITH (MODULUS 2, REMAINDER {n})"
            for n in (0, 1)
        ),
    ],
}
KEYS = {"range of time": ("id", "started_at"), "hash of jobs": ("job_id", "id")}


@pytest.fixture
def engine(bare_postgres_url):
    engine = create_engine(bare_postgres_url)
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


def execute(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture(params=LAYOUTS)
def parted(request, engine):
    """An engine on a history that the app has partitioned, and the columns of its key."""
    execute(engine, "ALTER TABLE job_history RENAME TO whole", *LAYOUTS[request.param])
    return engine, KEYS[request.param]


def layout(engine):
    with engine.connect() as connection:
        return read_layout(connection, None)


def test_the_key_of_the_migrations_is_the_id(engine):
    assert layout(engine) == PLAIN
    execute(engine, "CREATE UNIQUE INDEX ON job_history (id, job_id)")
    assert layout(engine) == PLAIN, "the primary key comes first"


def test_the_key_of_a_partitioned_table_has_more_columns(parted):
    engine, key = parted
    assert layout(engine) == Layout(key)


@pytest.mark.parametrize(
    "index",
    ["(id, status)", "(job_id)", "(id, job_id) WHERE attempt_number > 1", "(id, lower(job_id))"],
)
def test_no_other_index_finds_an_existing_row(engine, index):
    execute(
        engine,
        "ALTER TABLE job_history DROP CONSTRAINT pk_job_history",
        f"CREATE UNIQUE INDEX ON job_history {index}",
    )
    assert layout(engine) == PLAIN


def test_repeated_calls_find_their_row_by_a_wider_key(parted, clock):
    engine, _ = parted
    store = create_store(engine, clock=clock)
    execution_id = new_execution_id(clock())
    store.record_start(JOB, "w", "c", execution_id=execution_id)
    clock.advance(seconds=5)
    store.record_start(JOB, "w", "c", execution_id=execution_id)
    store.record_execution(ENDED, status="completed", execution_id=execution_id)
    clock.advance(seconds=5)
    store.record_execution(ENDED, status="completed", execution_id=execution_id)

    (record,) = store.query()
    assert (record.status, record.id) == (Status.COMPLETED, execution_id)
    assert record.completed_at == record.started_at + timedelta(seconds=5)


def test_the_id_of_another_job_is_refused_although_the_key_has_more_columns(parted, clock):
    engine, _ = parted
    store = create_store(engine, clock=clock)
    execution_id = new_execution_id(clock())
    store.record_start(JOB, "w", "c", execution_id=execution_id)
    for write in (
        lambda: store.record_start(Job("job-2", "ship"), "w", "c", execution_id=execution_id),
        lambda: store.record_execution(
            ENDED | {"job_id": "job-2"}, status="completed", execution_id=execution_id
        ),
    ):
        with pytest.raises(InvalidInput, match="belongs to an execution of job 'job-1'"):
            write()
    assert [each.job_id for each in store.query()] == ["job-1"]


def test_a_recorder_writes_a_batch_again_that_may_have_been_written(parted, clock):
    """The server commits a batch, and its answer is lost."""
    engine, _ = parted
    store = create_store(engine, clock=clock)
    with Recorder(store) as recorder:
        lose_the_first_answer(engine)
        with recorder.track(JOB, "w"):
            pass
        recorder.record_execution(ENDED | {"job_id": "job-2"}, status="completed")
        recorder.flush()
        assert recorder.counts.refused == 0

    assert sorted(each.job_id for each in store.query(status="completed")) == ["job-1", "job-2"]


def lose_the_first_answer(engine):
    lost = []

    @event.listens_for(engine, "commit")
    def commit(connection):
        if not lost:
            lost.append(True)
            connection.connection.driver_connection.commit()
            raise ConnectionResetError("the answer is lost")


def test_a_layout_that_changes_while_a_store_is_open_is_read_again(engine, clock):
    store = create_store(engine, clock=clock)
    execution_id = new_execution_id(clock())
    store.record_start(JOB, "w", "c", execution_id=execution_id)
    execute(
        engine,
        "ALTER TABLE job_history DROP CONSTRAINT pk_job_history, "
        "ADD CONSTRAINT pk_job_history PRIMARY KEY (id, job_id)",
    )
    store.record_execution(ENDED, status="completed", execution_id=execution_id)
    assert [each.status for each in store.query()] == [Status.COMPLETED]


def test_all_calls_that_met_the_old_layout_at_once_are_repeated(engine):
    with engine.connect() as connection:
        assert layout_of(connection, None) == PLAIN
    with pytest.raises(DBAPIError) as caught:
        execute(engine, "SELECT count(*) FROM job_history FOR UPDATE")  # 0A000, as Citus says
    assert [forget_outdated(engine.dialect, caught.value) for _ in range(2)] == [True, True]
    assert not forget_outdated(create_engine(engine.url).dialect, caught.value)


def test_the_layout_is_read_once_and_not_by_calls_without_an_id(engine, clock):
    statements = []
    event.listen(
        engine, "before_cursor_execute", lambda _, __, sql, *others: statements.append(sql)
    )
    store = create_store(engine, clock=clock)
    with store.track(JOB, "w"):
        pass
    store.record_many([ENDED | {"status": "completed"}])
    store.record_start(JOB, "w", "c")
    store.record_completion("job-1", "w", "c")
    assert not any("pg_index" in each for each in statements)

    for _ in range(3):
        store.record_start(JOB, "w", "c", execution_id=new_execution_id(clock()))
        assert store.query()
    assert sum("pg_index" in each for each in statements) == 1


def pretend_to_be_distributed(engine):
    """Let the catalog of a plain PostgreSQL tell that Citus has distributed the table."""
    execute(
        engine,
        "SET LOCAL allow_system_table_mods = on",
        "CREATE TABLE pg_catalog.pg_dist_partition "
        "AS SELECT CAST('job_history' AS regclass) AS logicalrelid, 'job_id' AS partkey, "
        "CAST('h' AS \"char\") AS partmethod",
        "CREATE FUNCTION pg_catalog.column_to_column_name(regclass, text) RETURNS text "
        "LANGUAGE sql AS 'SELECT $2'",
        *(f"DROP TRIGGER {name} ON job_history" for name in TRIGGERS["postgresql"]),
    )


def test_a_table_that_is_distributed_while_a_store_is_open_has_no_statistics(engine, clock):
    store = create_store(engine, clock=clock)
    store.record_execution(ENDED, status="completed")
    assert store.stats()[0].executions == store.count(expired=True).value == 1
    assert store.metrics()
    pretend_to_be_distributed(engine)
    store.record_execution(ENDED, status="completed")
    with pytest.raises(StatisticsDenied, match="Citus distributes job_history"):
        store.metrics()
    assert store.stats()[0].executions == store.count(expired=True).value == 2


def test_what_is_distributed_gets_no_more_partitions(engine, clock, caplog):
    partition(engine, now=clock() - timedelta(weeks=8))
    pretend_to_be_distributed(engine)
    before = partitions_of(engine).count
    with pytest.raises(LayoutNotChanged, match="Citus distributes job_history"):
        partition(engine, now=clock())
    store = create_store(engine, clock=clock)
    store.record_execution(ENDED, status="completed")
    clock.advance(days=60)
    assert store.expire() == store.expire(by_partition=True) + 1 == 1
    assert [each.getMessage() for each in caplog.records] == [
        "expire() deletes rows in batches, because Citus distributes job_history"
    ]
    assert partitions_of(engine).count == before


def test_nothing_is_distributed_while_the_layout_changes(with_citus, monkeypatch):
    class Waited(Exception):
        pass

    def wait(*_):
        raise Waited

    monkeypatch.setattr(exclusive, "pause", wait)
    with exclusive.changing_layout(with_citus), pytest.raises(Waited):
        distribute(with_citus)


def test_without_citus_nothing_is_distributed(engine):
    with pytest.raises(JobHistoryError, match="no Citus: add citus to shared_preload_libraries"):
        distribute(engine)
    assert migrate.check(engine) == ()


def test_only_postgresql_has_citus(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'history.db'}")
    with pytest.raises(InvalidInput, match="'sqlite' has no Citus; pass an engine of PostgreSQL"):
        distribute(engine)


def test_a_table_that_is_not_up_to_date_is_not_distributed(bare_postgres_url):
    engine = create_engine(bare_postgres_url)
    with pytest.raises(SchemaOutOfDate):
        distribute(engine)
    engine.dispose()


@pytest.fixture
def with_citus(engine):
    """A database that has an extension of this name, as far as its catalog tells."""
    execute(
        engine,
        "SET allow_system_table_mods = on",
        "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, "
        "extversion) SELECT 99999, 'citus', 10, oid, false, '1' FROM pg_namespace "
        "WHERE nspname = 'public'",
    )
    return engine


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            "CREATE TABLE orders (of uuid REFERENCES job_history (id))",
            r"orders\.orders_of_fkey refer to job_history\(id\), which is no longer unique",
        ),
        (
            "CREATE TRIGGER mine AFTER DELETE ON job_history FOR EACH ROW "
            "EXECUTE FUNCTION job_history_queue_updated()",
            "mine are triggers, which Citus does not execute in its shards; drop them",
        ),
        (
            "CREATE UNIQUE INDEX once ON job_history (correlation_id)",
            "once are unique without job_id; drop them or add it",
        ),
        ("CREATE TABLE child () INHERITS (job_history)", "tables inherit from job_history"),
    ],
)
def test_what_citus_would_refuse_is_named_and_nothing_is_changed(with_citus, statement, reason):
    execute(with_citus, statement)
    before = migrate.check(with_citus)
    with pytest.raises(JobHistoryError, match=reason):
        distribute(with_citus)
    assert migrate.check(with_citus) == before
    assert layout(with_citus) == PLAIN


def test_the_command_says_why_not(bare_postgres_url):
    url = bare_postgres_url.render_as_string(hide_password=False)
    migrate.upgrade(create_engine(url, poolclass=NullPool))
    done = command_line.run("db", "distribute", "--url", url, env=os.environ)
    assert done.returncode == 1
    assert done.stderr.startswith("jobhistory: this database has no Citus: ")
