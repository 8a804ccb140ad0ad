"""Deletion on request, by criteria, whether or not rows have expired."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, ForeignKey, MetaData, Table, create_engine, event, insert
from sqlalchemy.exc import IntegrityError

from jobhistory import ExecutionNotFound, InvalidInput, Job, create_store
from jobhistory.schema import TABLE
from tests.test_expire import NOW

TASKS = ("import", "export")
TENANTS = ("acme", "other")
STATUSES = ("completed", "failed", "cancelled")


def record(store, number, *, task="import", tenant="acme", status="completed"):
    return store.record_execution(
        job_id=number,
        worker_id="w",
        correlation_id="c",
        task_identifier=task,
        labels={"tenant": tenant},
        status=status,
        error_type="E" if status == "failed" else None,
        started_at=NOW + timedelta(seconds=number),
        execution_time_ms=5,
    )


def jobs(store, **criteria):
    return [int(each.job_id) for each in store.query(order="oldest", limit=None, **criteria)]


def test_it_deletes_what_meets_all_criteria_and_nothing_else(plain_store):
    for number, tenant in enumerate(["acme", "other", "acme", "acme", "other"]):
        record(plain_store, number, tenant=tenant)
    record(plain_store, 5, task="export")
    assert plain_store.purge(labels={"tenant": "acme"}, task_identifier="import") == 3
    assert jobs(plain_store) == [1, 4, 5]
    assert plain_store.purge({"task_identifier": "absent"}) == 0
    assert jobs(plain_store) == [1, 4, 5]


def test_a_dry_run_counts_and_deletes_nothing(plain_store):
    for number in range(3):
        record(plain_store, number)
    assert plain_store.purge(to=NOW + timedelta(seconds=1), dry_run=True) == 2
    assert jobs(plain_store) == [0, 1, 2]


def test_the_ring_buffer_forgets_what_was_deleted(plain_store):
    for number in range(4):
        record(plain_store, number, tenant=TENANTS[number % 2])
    assert plain_store.purge(labels={"tenant": "acme"}, batch_size=1) == 2
    assert [each.job_id for each in plain_store.recent()] == ["1", "3"]


def test_running_executions_are_deleted_unless_the_status_leaves_them_out(plain_store):
    started = plain_store.record_start(Job(1, "import"), "w", "c")
    assert plain_store.purge(job_id=1, status=STATUSES) == 0
    assert plain_store.purge(job_id=1) == 1
    with pytest.raises(ExecutionNotFound):
        plain_store.record_completion(started)


def test_a_tracked_execution_is_recorded_again_at_its_end(plain_store):
    with plain_store.track(Job(1, "import"), "w"):
        assert plain_store.purge(job_id=1) == 1
    assert [each.status for each in plain_store.query()] == ["completed"]
    assert plain_store.purge(job_id=1) == 1


@pytest.mark.parametrize("criteria", [{}, {"status": None}])
def test_without_a_criterion_it_is_refused(plain_store, criteria):
    record(plain_store, 1)
    with pytest.raises(InvalidInput, match="would delete all of history; pass one, such as"):
        plain_store.purge(criteria)
    with pytest.raises(InvalidInput, match="'limit' has no effect here"):
        plain_store.purge(job_id=1, limit=1)
    with pytest.raises(InvalidInput, match="batch_size 0 is not"):
        plain_store.purge(job_id=1, batch_size=0)
    assert jobs(plain_store) == [1]


executions = st.lists(
    st.tuples(st.sampled_from(TASKS), st.sampled_from(TENANTS), st.sampled_from(STATUSES)),
    max_size=12,
)
criteria = st.fixed_dictionaries(
    {"from_": st.integers(0, 12).map(lambda n: NOW + timedelta(seconds=n))},
    optional={
        "task_identifier": st.sampled_from(TASKS),
        "labels": st.sampled_from(TENANTS).map(lambda tenant: {"tenant": tenant}),
        "status": st.sampled_from([*STATUSES, ("failed", "completed")]),
        "job_id": st.integers(0, 12),
        "error_type": st.just("E"),
    },
)


@given(executions=executions, criteria=criteria, batch_size=st.integers(1, 4))
def test_it_deletes_what_a_query_finds(plain_store, executions, criteria, batch_size):
    plain_store.purge(correlation_id="c")
    for number, (task, tenant, status) in enumerate(executions):
        record(plain_store, number, task=task, tenant=tenant, status=status)
    everything, doomed = jobs(plain_store), jobs(plain_store, **criteria)
    assert plain_store.purge(criteria, batch_size=batch_size) == len(doomed)
    assert jobs(plain_store) == [each for each in everything if each not in doomed]


def test_each_batch_is_a_transaction_of_its_own(database):
    store = create_store(database.engine)
    for number in range(5):
        record(store, number)
    commits, seen = [], []
    event.listen(database.engine, "commit", lambda connection: commits.append(1))
    totals = store.purge(
        task_identifier="import",
        batch_size=2,
        progress=lambda total: seen.append((total, len(commits))),
    )
    first = seen[0][1]
    assert (totals, seen) == (5, [(2, first), (4, first + 1), (5, first + 2)])


def test_an_execution_that_stops_meeting_the_criteria_meanwhile_stays(database):
    store, other = create_store(database.engine), create_store(database.engine)
    record(store, 1, status="failed")
    is_changed = False

    @event.listens_for(database.engine, "before_cursor_execute")
    def change(connection, cursor, statement, parameters, context, executemany):
        nonlocal is_changed
        if statement.startswith("DELETE") and not is_changed:
            is_changed = True
            cursor.execute("UPDATE job_history SET status = 'completed', error_type = NULL")

    assert store.purge(status="failed") == 0
    assert is_changed
    assert [each.status for each in other.query()] == ["completed"]


@pytest.fixture
def keeps_others(postgres_database):
    """A trigger that keeps the rows of one tenant."""
    with postgres_database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RETURN CASE WHEN OLD.labels ->> 'tenant' = 'other' THEN NULL ELSE OLD END; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER keep BEFORE DELETE ON job_history FOR EACH ROW EXECUTE FUNCTION keep()"
        )
    yield
    with postgres_database.engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION keep CASCADE")


def test_rows_that_a_trigger_keeps_stay_and_are_not_found_again(
    postgres_database, keeps_others, caplog
):
    store = create_store(postgres_database.engine)
    for number in range(5):
        record(store, number, tenant=TENANTS[number == 1])
    with caplog.at_level(logging.WARNING, logger="jobhistory"):
        assert store.purge(task_identifier="import", batch_size=1) == 4
    assert jobs(store) == [1]
    assert "purge() did not delete 1 of the executions" in caplog.text


@pytest.fixture
def invoices(database):
    """An engine on which a table of the app refers to executions, and forbids their deletion."""
    engine = create_engine(database.url)
    if database.name == "sqlite":  # which checks foreign keys only if it is told to
        event.listen(engine, "connect", lambda each, _: each.execute("PRAGMA foreign_keys = ON"))
    invoice = Table("invoice", MetaData(), Column("execution", ForeignKey(TABLE.c.id)))
    invoice.create(engine)
    yield engine, invoice
    invoice.drop(engine)
    engine.dispose()


def test_a_foreign_key_without_on_delete_rolls_its_batch_back(invoices):
    engine, invoice = invoices
    store = create_store(engine)
    records = [record(store, number) for number in range(3)]
    with engine.begin() as connection:
        connection.execute(insert(invoice).values(execution=records[1].id))
    with pytest.raises(IntegrityError):
        store.purge(task_identifier="import", batch_size=1)
    assert jobs(store) == [1, 2]
