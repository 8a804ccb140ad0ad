"""Conflicts with other transactions: the library repeats its own, and never a caller's."""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from jobhistory import Expectation, Job, Recorder, Status, create_async_store, create_store
from jobhistory.database import busy
from jobhistory.database.deadlines import Deadline, TimeLimits, current_deadline
from jobhistory.database.driver_errors import sqlstate
from jobhistory.database.retries import FIRST_PAUSE, MOST_ATTEMPTS, Retries
from tests.conftest import stores_of_kind
from tests.facades import Synchronous
from tests.test_app_engines import engine_for, exercise, of_driver

CODES = {"serialization failure": "40001", "deadlock": "40P01"}
TABLES = ["", *(f"_{name}" for name in ("ended", "rollup", "state", "expectation", "incident"))]
KINDS = [
    *("url-postgresql", "postgresql", "postgresql_by_psycopg2"),
    *("async-postgresql", "async-postgresql_by_asyncpg"),
]
TRIGGERS = {
    "in a statement": "CREATE TRIGGER conflict BEFORE INSERT OR UPDATE OR DELETE ON {table} "
    "FOR EACH ROW EXECUTE FUNCTION public.conflict()",
    "in the commit": "CREATE CONSTRAINT TRIGGER conflict AFTER INSERT OR UPDATE OR DELETE "
    "ON {table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.conflict()",
}
# Every other transaction fails. A sequence is not rolled back: it is 0 if the next transaction
# is to fail, 1 if it is to go well, or its number while it does.
FUNCTION = """
CREATE FUNCTION public.conflict() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    this bigint := CAST(CAST(pg_current_xact_id() AS text) AS bigint);
    last bigint;
BEGIN
    SELECT last_value INTO last FROM public.conflicts;
    IF last = 1 THEN
        PERFORM setval('public.conflicts', this);
    ELSIF last <> this THEN
        PERFORM setval('public.conflicts', 1), nextval('public.number_of_conflicts');
        RAISE 'conflict' USING ERRCODE = '{code}';
    END IF;
    RETURN coalesce(NEW, OLD);
END $$
"""


@contextmanager
def conflicts(owner, where):
    """Let every other transaction that writes meet a conflict; yield their number, a function."""
    code = CODES["deadlock" if where == "in a statement" else "serialization failure"]
    with owner.begin() as connection:
        connection.execute(text("CREATE SEQUENCE conflicts MINVALUE 0 START 0"))
        connection.execute(text("CREATE SEQUENCE number_of_conflicts MINVALUE 0 START 0"))
        connection.exec_driver_sql(FUNCTION.replace("{code}", code))
        for table in TABLES:
            connection.execute(text(TRIGGERS[where].format(table=f"job_history{table}")))
    number = text("SELECT last_value + CAST(is_called AS int) FROM number_of_conflicts")
    try:
        with owner.connect() as connection:
            yield lambda: connection.execute(number).scalar_one()
    finally:
        with owner.begin() as connection:
            connection.execute(text("DROP FUNCTION conflict() CASCADE"))
            connection.execute(text("DROP SEQUENCE conflicts, number_of_conflicts"))


@pytest.fixture(params=KINDS)
def make(request, clock):
    with stores_of_kind(request.param, request, clock) as make:
        yield make


@pytest.fixture
def owner(request):
    return request.getfixturevalue("shared_postgresql").owner


@pytest.fixture(params=CODES)
def code(request):
    return CODES[request.param]


def without_pauses(store):
    """Let a store repeat at once, also on a loaded machine, and return it."""
    inner = store
    while "_history" not in vars(inner):
        inner = inner._store
    inner._history.random = lambda: 0
    inner._history.limits = TimeLimits(call=60)
    return store


@pytest.mark.parametrize("where", TRIGGERS)
def test_every_operation_is_repeated_and_done_once(make, owner, clock, where):
    store = without_pauses(make(buffer_size=10_000))
    with conflicts(owner, where) as number:
        exercise(store, clock)
        assert number() > 10


@pytest.mark.parametrize("where", TRIGGERS)
def test_maintenance_is_repeated_and_done_once(make, owner, clock, where):
    store = without_pauses(make(history_retention="never"))
    with conflicts(owner, where) as number:
        store.expect("nightly", every="1h")
        for error in (None, "boom"):
            execution = store.begin(Job("1", "nightly"), "w")
            execution.heartbeat()
            execution.end(error=error) if error else execution.end()
        clock.advance(hours=3)
        (checked,) = store.check()
        assert len(store.incidents()) == len(checked.verdicts) == 2
        store.fold()
        (stats,) = store.stats()
        assert (stats.executions, stats.failed) == (2, 1)
        clock.advance(days=1)
        start = (clock.now - timedelta(days=2)).replace(minute=0, second=0, microsecond=0)
        assert store.recount(start, start + timedelta(days=1)) in (0, 2)
        assert store.purge(task_identifier="nightly") == 2
        assert store.remove_expectation("nightly")
        assert number() > 6


@pytest.mark.parametrize("where", TRIGGERS)
def test_a_recorder_writes_a_batch_once(request, clock, owner, where):
    with stores_of_kind("postgresql", request, clock) as make:
        store = without_pauses(make())
        with conflicts(owner, where) as number, Recorder(store) as recorder:
            for job in "123":
                recorder.record_start(Job(job, "t"), "w", "c")
                recorder.record_completion(job, "w", "c", 1)
            recorder.flush()
            counts = recorder.counts
            assert number() == 1
        assert (counts.written, counts.retried, counts.refused) == (6, 0, 0)
        assert sorted(r.job_id for r in store.recent()) == ["1", "2", "3"]
        assert [s.executions for s in store.stats()] == [3]


def test_what_is_only_counted_counts_once(request, clock, owner):
    with stores_of_kind("url-postgresql", request, clock) as make:
        store = without_pauses(make())
        with conflicts(owner, "in a statement") as number:
            with store.track(Job("1", "t"), "w", record="failures"):
                assert number() == 0
            assert number() == 1
        assert [s.executions for s in store.stats()] == [1]
        assert store.count().value == 0


# Real conflicts


def started_jobs(store, *jobs):
    return [store.record_start(Job(job, "t"), "w", "c") for job in jobs]


def once_before(engine, name, meet):
    """Call a function at the first event of an engine, with its connection and its cursor."""
    event.listen(engine, name, meet, once=True)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_conflict_of_serializable_transactions(postgres_database, driver):
    with engine_for(
        of_driver(postgres_database.url, driver),
        isolation_level="SERIALIZABLE",
        # A scan of the table reads the row that the other transaction changes.
        connect_args={"options": "-c enable_indexscan=off -c enable_bitmapscan=off"},
    ) as engine:
        store = without_pauses(create_store(engine))
        started_jobs(store, "1", "2")
        seen = []

        def meet(connection):
            # This one reads what the store has written, which has read what this one writes.
            with engine.connect() as other:
                seen.append(other.scalar(text("SELECT count(completed_at) FROM job_history")))
                other.execute(text("UPDATE job_history SET attempt_number = 2 WHERE job_id = '2'"))
                other.commit()

        failed = []
        event.listen(engine, "handle_error", lambda error: failed.append(error.original_exception))
        once_before(engine, "commit", meet)
        store.record_completion("1", "w", "c", 1)
        states = [(r.job_id, r.status, r.attempt_number) for r in store.query(order="oldest")]
    assert seen == [0]
    assert [getattr(e, "sqlstate", None) or e.pgcode for e in failed] == ["40001"]
    assert states == [("1", Status.COMPLETED, 1), ("2", Status.STARTED, 2)]
    assert [r.job_id for r in store.recent()] == ["1"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_row_that_another_transaction_has_changed(postgres_database, driver):
    url = of_driver(postgres_database.url, driver)
    with engine_for(url, isolation_level="REPEATABLE READ") as engine:
        store = without_pauses(create_store(engine))
        started_jobs(store, "1")

        def meet(connection, cursor, *_):
            cursor.execute("SELECT 1 FROM job_history")  # the transaction has its snapshot
            with postgres_database.engine.begin() as other:
                other.execute(text("UPDATE job_history SET attempt_number = 2"))

        failed = []
        event.listen(engine, "handle_error", lambda error: failed.append(error.original_exception))
        once_before(engine, "before_cursor_execute", meet)
        record = store.record_completion("1", "w", "c", 1)
    assert [getattr(e, "sqlstate", None) or e.pgcode for e in failed] == ["40001"]
    assert (record.status, record.attempt_number) == (Status.COMPLETED, 2)
    assert len(store.recent()) == 1


def test_a_deadlock_of_two_connections(postgres_database):
    with engine_for(postgres_database.url) as engine:
        store = without_pauses(create_store(engine))
        started_jobs(store, "1", "2")
        own = text("SELECT pg_backend_pid()")
        is_blocked = text("SELECT cardinality(pg_blocking_pids(:pid)) > 0")
        touch = "UPDATE job_history SET attempt_number = 2 WHERE job_id = '{}'"
        other = postgres_database.engine.connect()
        other.execute(text("SET LOCAL deadlock_timeout = '1h'"))  # the store's is aborted
        other.execute(text(touch.format(2)))
        pid = other.scalar(own)
        codes = []

        def finish():
            other.execute(text(touch.format(1)))
            other.commit()

        waiting = threading.Thread(target=finish)

        def meet(connection, *_):
            # The store has changed job 1, and now wants job 2, which waits for job 1.
            waiting.start()
            with engine.connect() as watching:
                while not watching.scalar(is_blocked, {"pid": pid}):
                    pass
            connection.exec_driver_sql("SET LOCAL deadlock_timeout = '1ms'")
            try:
                connection.exec_driver_sql(touch.format(2))
            except DBAPIError as error:
                codes.append(sqlstate(error))
                raise

        once_before(engine, "after_cursor_execute", meet)
        store.record_completion("1", "w", "c", 1)
        waiting.join()
        other.close()
        states = [(r.job_id, r.status, r.attempt_number) for r in store.query(order="oldest")]
    assert codes == ["40P01"]
    assert states == [("1", Status.COMPLETED, 2), ("2", Status.STARTED, 2)]
    assert [r.job_id for r in store.recent()] == ["1"]


# How often, and for how long


def conflicting(engine, times, code="40001"):
    """Let the next statements of an engine fail as one that met another transaction does."""
    remaining = [times]

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def fail(connection, cursor, statement, parameters, context, executemany):
        if "job_history" in statement and remaining[0]:
            remaining[0] -= 1
            return f"DO $$ BEGIN RAISE 'conflict' USING ERRCODE = '{code}'; END $$", {}
        return statement, parameters

    return remaining


@pytest.mark.parametrize(
    "operation",
    [
        lambda store: store.record_completion("1", "w", "c", 1),
        lambda store: store.expect(Expectation("nightly", every="1h")),
        lambda store: store.fold(),
        lambda store: store.query(),
    ],
)
def test_a_conflict_repeats_the_transaction_a_limited_number_of_times(
    postgres_database, code, operation
):
    with engine_for(postgres_database.url) as engine:
        store = without_pauses(create_store(engine))
        remaining = conflicting(engine, 1000, code)
        with pytest.raises(DBAPIError, match="conflict") as caught:
            operation(store)
        assert caught.value.orig.sqlstate == code
        assert 1000 - remaining[0] == MOST_ATTEMPTS
        assert store.recent() == []


def test_an_error_of_the_same_class_that_leaves_the_outcome_open_is_not_repeated(postgres_database):
    with engine_for(postgres_database.url) as engine:
        store = without_pauses(create_store(engine))
        remaining = conflicting(engine, 1000, "40003")
        with pytest.raises(DBAPIError, match="conflict"):
            store.record_start(Job("1", "t"), "w", "c")
        assert remaining == [999]


def conflict_of(engine):
    conflicting(engine, 1)
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text("SELECT 1 FROM job_history"))
    return caught.value


def test_pauses_are_random_grow_and_end_with_the_time_of_the_call(postgres_database):
    with engine_for(postgres_database.url) as engine:
        error, wait = conflict_of(engine), busy.Wait(engine, 5, is_writer=True)
        retries = Retries(lambda: 0.5)
        pauses = [retries.pause_after(error, wait) for _ in range(MOST_ATTEMPTS)]
        assert pauses[:3] == pytest.approx([0.5 * FIRST_PAUSE * n for n in (1, 4, 9)])
        assert pauses[-1] is None
        token = current_deadline.set(Deadline(FIRST_PAUSE / 2))
        try:
            assert Retries(lambda: 0).pause_after(error, wait) is None
        finally:
            current_deadline.reset(token)


def test_no_attempt_begins_after_the_time_limit_of_a_call(postgres_database):
    with engine_for(postgres_database.url) as engine:
        store = without_pauses(create_store(engine))
        store._history.limits = TimeLimits(call=0)
        remaining = conflicting(engine, 1000)
        with pytest.raises(DBAPIError, match="conflict"):
            store.record_start(Job("1", "t"), "w", "c")
        assert remaining == [999]
        remaining[0] = 3
        assert store.query() == []  # a read has no limit
        assert not store._history.breaker.is_open


def test_pauses_leave_the_random_numbers_of_the_app_alone(postgres_database):
    with engine_for(postgres_database.url) as engine:
        store = create_store(engine)
        before = random.getstate()
        remaining = conflicting(engine, 2)
        store.record_start(Job("1", "t"), "w", "c")
        assert remaining == [0]
        assert random.getstate() == before


def test_a_store_for_asyncio_repeats_without_blocking_the_loop(
    postgres_database, event_loop_thread
):
    engine = create_async_engine(of_driver(postgres_database.url, "asyncpg"))
    remaining = conflicting(engine.sync_engine, 3)
    store = Synchronous(create_async_store(engine), event_loop_thread)
    store.record_start(Job("1", "t"), "w", "c")
    assert remaining == [0]
    event_loop_thread.run(engine.dispose())


# The transaction of a caller


def test_a_conflict_in_the_callers_transaction_is_the_callers(postgres_database, code):
    with engine_for(postgres_database.url) as engine:
        store = create_store(engine)
        remaining = conflicting(engine, 1000, code)
        with Session(engine) as session, pytest.raises(DBAPIError, match="conflict"):
            store.in_session(session).record_start(Job("1", "t"), "w", "c")
        assert remaining == [999]


@pytest.mark.parametrize("mode", ["create_savepoint", "rollback_only", "conditional_savepoint"])
def test_so_is_one_in_sessions_on_a_connection_of_the_caller(postgres_database, code, mode):
    with engine_for(postgres_database.url) as engine, engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE work (id int)"))
        sessions = sessionmaker(connection, join_transaction_mode=mode)
        store = create_store(sessions)
        remaining = conflicting(engine, 1000, code)
        for operation in (partial(store.record_start, Job("1", "t"), "w", "c"), store.query):
            before = remaining[0]
            with suppress(DBAPIError):
                operation()
            assert before - remaining[0] <= 1
        assert remaining[0] < 1000
