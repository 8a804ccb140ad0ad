"""The triggers that feed the queue of ended executions, where an app's own SQL meets them."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, event, text

from jobhistory import Job, create_store, migrate
from jobhistory.schema import Base

ENDED = {
    "job_id": "1",
    "worker_id": "w",
    "correlation_id": "c",
    "task_identifier": "t",
    "status": "completed",
}


def run(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def queued(engine, schema=None):
    queue = ".".join(filter(None, (schema, "job_history_ended")))
    with engine.connect() as connection:
        return connection.scalar(text(f"SELECT count(*) FROM {queue}"))


@pytest.fixture
def attached(tmp_path):
    """An engine whose connections attach the file of the history, with recursive triggers."""
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")

    @event.listens_for(engine, "connect")
    def attach(connection, _):
        connection.execute("ATTACH ? AS audit", [f"{tmp_path}/audit.db"])
        connection.execute("PRAGMA recursive_triggers = on")

    yield engine
    engine.dispose()


def names(engine, schema):
    with engine.connect() as connection:
        return connection.scalars(text(f"SELECT name FROM {schema}.sqlite_master")).all()


@pytest.mark.parametrize("how", ["migrate", "create_all"])
def test_an_attached_history_has_its_queue_in_the_same_file(attached, how):
    translated = attached.execution_options(schema_translate_map={None: "audit"})
    if how == "migrate":
        migrate.upgrade(attached, schema="audit")
        assert migrate.check(attached, schema="audit") == ()
    else:
        Base.metadata.create_all(translated)
    store = create_store(attached, schema="audit")
    store.record_many([ENDED] * 60)
    store.record_start(Job("2", "t"), "w", "c")
    store.record_completion("2", "w", "c", 1)
    assert queued(attached, "audit") == 61
    if how == "migrate":
        migrate.downgrade(attached, "base", schema="audit")
    else:
        Base.metadata.drop_all(translated)
    assert [each for each in names(attached, "audit") if migrate.VERSION_TABLE not in each] == []
    assert names(attached, "main") == []


def test_an_upsert_of_the_apps_own_counts_what_it_changes(database):
    store = create_store(database.engine)
    store.record_execution(ENDED)
    for status, count in [("completed", 1), ("cancelled", 3)]:
        run(
            database.engine,
            "INSERT INTO job_history SELECT * FROM job_history WHERE true"
            f" ON CONFLICT (id) DO UPDATE SET status = '{status}'",
        )
        assert queued(database.engine) == count


def test_a_replica_does_not_queue_what_is_replicated(postgres_database):
    """A subscription and `pg_restore --disable-triggers` write the queue themselves."""
    engine = postgres_database.engine
    create_store(engine).record_execution(ENDED)
    run(
        engine,
        "SET LOCAL session_replication_role = replica",
        "UPDATE job_history SET status = 'cancelled'",
    )
    assert queued(engine) == 1
