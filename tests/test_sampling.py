"""Executions that are stored only if they do not complete, or as a random share of all."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, event, insert, select, text
from sqlalchemy.orm import Session, sessionmaker

from jobhistory import (
    AsyncRecorder,
    InvalidInput,
    Job,
    Recorder,
    Status,
    create_async_store,
    create_store,
    migrate,
    new_execution_id,
)
from jobhistory.database.statements.measures import measured, measures_of
from jobhistory.execution.batch import Batch, Counted
from jobhistory.execution.retention import Retention
from jobhistory.rollup_schema import ENDED, STATE
from tests.conftest import app_role, as_role, async_engine
from tests.contrib.workers import wait_for
from tests.recorders import Gate

JOB = Job("job-1", "ping")
ENDED_JOB = {
    "job_id": "job-1",
    "worker_id": "w",
    "correlation_id": "c",
    "task_identifier": "ping",
}
COUNTED_VALUES = {
    "task_identifier": "ping",
    "status": Status.COMPLETED,
    "started_at": datetime(2015, 11, 1, 12, 0, tzinfo=UTC),
    "completed_at": datetime(2015, 11, 1, 12, 1, tzinfo=UTC),
    "queue_time_ms": None,
    "execution_time_ms": 60_000,
}
NOT_COMPLETED = {
    "failed": {"error": "no answer"},
    "partial_success": {"partial_results": {"failed_steps": ["pong"]}},
    "cancelled": {"error": asyncio.CancelledError("revoked")},
}


@pytest.fixture
def queue(request):
    """Reads the queue of ended executions, in the database of the store under test."""
    params = request.node.callspec.params
    if "make_store" in params or "plain_store" in params:
        where = (params.get("make_store") or params["plain_store"]).rpartition("-")[2]
        if where == "memory":
            return None
        engine = request.getfixturevalue(f"shared_{where}").owner
    else:
        engine = request.getfixturevalue("database").engine
    with engine.begin() as connection:
        connection.execute(delete(ENDED))
    return Queue(engine)


class Queue:
    def __init__(self, engine):
        self.engine = engine

    def rows(self, **columns):
        """Return the rows in the order in which they were written."""
        is_sqlite = self.engine.dialect.name == "sqlite"
        written = "rowid" if is_sqlite else "xmin::text::bigint, cmin::text::bigint"
        with self.engine.connect() as connection:
            found = connection.execute(select(ENDED).filter_by(**columns).order_by(text(written)))
            return [dict(row) for row in found.mappings()]

    def measures(self):
        """Return the measures of all tasks."""
        with self.engine.connect() as connection:
            (row,) = connection.execute(measured(ENDED.c, None)).all()
        return measures_of(row[2:])

    def empty(self):
        with self.engine.begin() as connection:
            connection.execute(delete(ENDED))


def only(items):
    (item,) = items
    return item


def no_history(store):
    return store.query() == [] and store.recent() == []


# What is stored.


def test_a_completion_is_only_counted(store, queue, clock):
    execution = store.begin(
        {"id": "job-1", "task_identifier": "ping", "run_at": clock() - timedelta(seconds=2)},
        "w",
        record="failures",
    )
    assert no_history(store)
    started_at = clock()
    clock.advance(seconds=1)
    execution.end(result="pong", execution_time_ms=1500)

    assert no_history(store)
    if queue:
        assert only(queue.rows()) == {
            "task_identifier": "ping",
            "status": "completed",
            "will_retry": None,
            "is_lost": False,
            "is_stored": False,
            "weight": 1,
            "started_at": started_at,
            "completed_at": clock(),
            "queue_time_ms": 2000,
            "execution_time_ms": 1500,
        }


@pytest.mark.statistics
@pytest.mark.parametrize("record", ["failures", 0, 0.0, 0.5])
@pytest.mark.parametrize("status", NOT_COMPLETED)
def test_every_other_outcome_is_stored_whole(make_store, queue, status, record):
    store = make_store(random=lambda: 0.9)
    job = Job("job-1", "ping", {"to": "x"}, labels={"tenant": "acme"})
    execution = store.begin(job, "w", "c", record=record)
    assert no_history(store)
    execution.end(**NOT_COMPLETED[status])

    stored = only(store.query())
    assert stored.status == status
    assert stored.id == execution.id == only(store.recent()).id
    assert (stored.payload, stored.labels) == ({"to": "x"}, {"tenant": "acme"})
    if queue:
        assert (only(queue.rows())["status"], only(queue.rows())["is_stored"]) == (status, True)


@pytest.mark.statistics
def test_a_share_of_the_completions_is_stored(make_store, queue):
    numbers = iter([0.2, 0.09, 0.1, 0.0])
    store = make_store(random=lambda: next(numbers))
    for job_id in "1234":
        store.begin(Job(job_id, "ping"), "w", record=0.1).end()

    assert sorted(record.job_id for record in store.query()) == ["2", "4"]
    assert [record.job_id for record in store.recent()] == ["2", "4"]
    if queue:
        assert [row["is_stored"] for row in queue.rows()] == [False, True, False, True]


def test_what_is_chosen_is_decided_at_the_start(make_store):
    numbers = [0.0]
    store = make_store(random=lambda: numbers[0])
    execution = store.begin(JOB, "w", record=0.5)
    numbers[0] = 0.9
    execution.end()
    assert only(store.query()).id == execution.id


def test_a_share_of_one_stores_all_at_their_end(store):
    execution = store.begin(JOB, "w", record=1)
    assert no_history(store)
    execution.end()
    assert only(store.query()).status == "completed"


def test_a_seed_of_the_app_does_not_choose():
    chosen = set()
    for _ in range(2):
        store = create_store()
        random.seed(1)
        for job_id in range(64):
            store.begin(Job(job_id, "ping"), "w", record=0.5).end()
        chosen.add(tuple(record.job_id for record in store.recent()))
    assert len(chosen) == 2


@given(
    share=st.one_of(st.just("all"), st.just("failures"), st.floats(0, 1)),
    executions=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([None, *NOT_COMPLETED])),
        min_size=1,
        max_size=12,
    ),
)
def test_history_has_what_is_chosen_and_statistics_have_all(database, queue, share, executions):
    queue.empty()
    numbers = iter([number for number, _ in executions])
    store = create_store(database.engine, random=lambda: next(numbers), buffer_size=100)
    wanted = []
    for number, outcome in executions:
        execution = store.begin(JOB, "w", record=share)
        execution.end(**NOT_COMPLETED.get(outcome, {}), execution_time_ms=7)
        limit = {"all": 1, "failures": 0}.get(share, share)
        if outcome is not None or number < limit:
            wanted.append(execution.id)

    assert [record.id for record in store.recent()] == wanted
    assert {record.id for record in store.query()} >= set(wanted)
    measures = queue.measures()
    assert measures.executions == measures.execution_time.histogram.count == len(executions)
    assert measures.counts["unstored"] == len(executions) - len(wanted)
    completed = sum(outcome is None for _, outcome in executions)
    assert measures.counts["completed"] == completed
    assert measures.counts["failed"] == sum(outcome == "failed" for _, outcome in executions)


# What statistics say.


@pytest.fixture
def kind(request):
    return request.node.callspec.params["make_store"]


@pytest.mark.statistics
def test_statistics_count_what_is_not_stored_and_rows_do_not(store, kind):
    for number in range(4):
        error = "no answer" if number == 3 else None
        store.begin(JOB, "w", record="failures").end(error, execution_time_ms=1000 + number)
    store.begin(JOB, "w").end(execution_time_ms=9000)

    # A role that may only insert into the queue reads no statistics.
    known = 2 if kind.endswith("as_app") else 5
    stats = only(store.stats(task_identifier="ping"))
    assert (stats.executions, stats.completed, stats.failed) == (known, known - 1, 1)
    assert stats.execution_time_ms.p50 == {2: 1003, 5: 1002}[known]
    assert stats.execution_time_ms.max == 9000
    assert store.count(expired=True, status="completed").value == known - 1

    for by_rows in (store.stats(exact=True), store.stats(worker_id="w")):
        assert (only(by_rows).executions, only(by_rows).completed) == (2, 1)
    assert store.count().value == 2


@pytest.mark.statistics
def test_statistics_count_what_is_not_stored_after_folding_as_well(plain_store, clock):
    with Recorder(plain_store) as recorder:
        for _ in range(3):
            recorder.begin(JOB, "w", record="failures").end(execution_time_ms=100)
    for hours in (0, 5):
        clock.advance(hours=hours)
        plain_store.fold()
        stats = only(plain_store.stats())
        assert (stats.executions, stats.completed, stats.failure_rate) == (3, 3, 0)
        assert stats.execution_time_ms.p95 == pytest.approx(100, rel=0.02)
    # An incomplete hour is read from rows, so the window gets wider if some have none.
    half = clock() - timedelta(hours=5, minutes=10)
    assert only(plain_store.stats(from_=half)).executions == 3


def test_a_rollback_takes_the_count_of_a_store_in_memory_back(clock):
    store = create_store(clock=clock)
    with Session() as session:
        joined = store.in_session(session)
        joined.begin(JOB, "w", record="failures").end()
        session.rollback()
        assert store.stats() == []
        joined.begin(JOB, "w", record="failures").end()
        session.commit()
    assert only(store.stats()).executions == 1


# Ways to record.


def test_track_takes_the_same_argument(plain_store):
    @plain_store.track(lambda number: Job(number, "ping"), "w", record="failures")
    def ping(number):
        assert plain_store.query() == []
        return 1 / number

    assert ping(1) == 1
    with pytest.raises(ZeroDivisionError):
        ping(0)
    assert only(plain_store.query()).error_type == "ZeroDivisionError"


def test_track_for_asyncio_takes_the_same_argument(database, queue):
    async def main():
        closing = []
        with async_engine(database, closing.append) as engine:
            store = create_async_store(engine)

            @store.track(lambda number: Job(number, "ping"), "w", record="failures")
            async def ping(number):
                return 1 / number

            assert await ping(1) == 1
            with pytest.raises(ZeroDivisionError):
                await ping(0)
            async with store.track(JOB, "w", record="failures") as execution:
                await execution.progress(0.5)
            stored = only(await store.query())
        await closing[0]
        return stored

    assert asyncio.run(main()).error_type == "ZeroDivisionError"
    assert sorted(row["is_stored"] for row in queue.rows()) == [False, False, True]


def test_one_call_for_an_ended_execution_takes_the_same_argument(store, queue):
    record = store.record_execution(
        ENDED_JOB, status="completed", execution_time_ms=7, record="failures"
    )
    assert (record.status, record.execution_time_ms, no_history(store)) == ("completed", 7, True)
    store.record_execution(ENDED_JOB, error="no answer", record="failures")
    store.record_execution(ENDED_JOB, status="completed", record="all")

    assert {record.status for record in store.query()} == {Status.FAILED, Status.COMPLETED}
    if queue:
        assert [row["execution_time_ms"] for row in queue.rows(is_stored=False)] == [7]


def test_progress_and_log_lines_are_stored_with_the_outcome(store):
    execution = store.begin(JOB, "w", record="failures")
    execution.progress(0.25)
    execution.heartbeat()
    assert no_history(store)
    execution.end("no answer")
    assert only(store.query()).progress == 0.25


def test_a_second_end_counts_nothing(store, queue):
    execution = store.begin(JOB, "w", record="failures")
    execution.end()
    execution.end()
    assert no_history(store)
    if queue:
        assert len(queue.rows()) == 1


def test_an_id_of_the_caller_is_that_of_the_stored_execution(store):
    id_ = new_execution_id(store.begin(JOB, "w", record=0).record.started_at)
    store.begin(JOB, "w", execution_id=id_, record="failures").end("no answer")
    assert only(store.query()).id == id_


# What is refused.


@pytest.mark.parametrize("record", ["some", "0.5", None, True, -0.1, 1.01, math.nan, [0.5]])
def test_anything_else_is_refused(record):
    store = create_store()
    calls = [
        lambda: store.begin(JOB, "w", record=record),
        lambda: store.track(JOB, "w", record=record),
        lambda: store.record_execution(ENDED_JOB, status="completed", record=record),
        lambda: Recorder(store).begin(JOB, "w", record=record),
        lambda: create_async_store().track(JOB, "w", record=record),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=r"neither 'all', nor 'failures', .* 0\.01") as error:
            call()
        assert error.value.argument == "record"


@pytest.mark.parametrize("record", ["failures", 0.5])
def test_heartbeats_need_a_row(record):
    for store in (create_store(), create_async_store()):
        with pytest.raises(InvalidInput, match="no row before the end") as error:
            store.track(JOB, "w", heartbeat="10s", record=record)
        assert error.value.argument == "heartbeat"
        store.track(JOB, "w", heartbeat="10s", record="all")


@pytest.mark.parametrize("name", ["execution_id", "id"])
def test_what_is_only_counted_has_no_id_to_find_it_by(name):
    store = create_store()
    with pytest.raises(InvalidInput, match="cannot be found again") as error:
        store.record_execution(
            ENDED_JOB, status="completed", record="failures", **{name: new_execution_id()}
        )
    assert error.value.argument == "record"
    assert no_history(store)


def test_the_count_is_in_the_schema_of_the_history(bare_postgres_url):
    engine = create_engine(bare_postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA audit"))
    migrate.upgrade(engine, schema="audit")
    url = bare_postgres_url.render_as_string(hide_password=False)
    with create_store(url, schema="audit") as prepared:
        for store in (create_store(engine, schema="audit"), prepared):
            store.begin(JOB, "w", record="failures").end()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit.job_history_ended")) == 2
    engine.dispose()


# Transactions.


def test_a_rollback_takes_the_count_back(database, queue):
    store = create_store(database.engine)
    with Session(database.engine) as session:
        with store.in_session(session).track(JOB, "w", record="failures"):
            pass
        store.in_session(session).record_execution(ENDED_JOB, status="completed", record="failures")
        session.rollback()
        assert queue.rows() == []
        with store.in_session(session).track(JOB, "w", record="failures"):
            pass
        session.commit()
    assert len(queue.rows(is_stored=False)) == 1
    assert no_history(store)


def test_a_failure_survives_the_rollback(database, queue):
    store = create_store(database.engine)
    sessions = sessionmaker(database.engine)
    with (
        pytest.raises(ZeroDivisionError),
        sessions.begin() as session,
        store.in_session(session).track(JOB, "w", record="failures"),
    ):
        raise ZeroDivisionError
    assert only(store.query()).error_type == "ZeroDivisionError"
    assert only(queue.rows())["is_stored"]


# In the background.


@pytest.fixture
def recorder(database_store):
    with Recorder(database_store, max_delay=3600) as recorder:
        yield recorder


def record_some(recorder):
    took = timedelta(milliseconds=7)
    recorder.record_execution(
        ENDED_JOB, status="completed", execution_time_ms=took, record="failures"
    )
    recorder.record_execution(ENDED_JOB, error="no answer", record="failures")
    recorder.begin(JOB, "w", record="failures").end()
    recorder.begin(JOB, "w", record="failures").end("no answer")
    recorder.begin(JOB, "w").end()


def assert_some(store, queue):
    statuses = sorted(record.status for record in store.query())
    assert statuses == ["completed", "failed", "failed"]
    assert sorted(row["is_stored"] for row in queue.rows()) == [False] * 2 + [True] * 3


def test_a_recorder_counts_in_its_batches(recorder, database_store, queue):
    record_some(recorder)
    recorder.flush()
    assert_some(database_store, queue)
    assert len(database_store.recent()) == 3
    assert recorder.counts.refused == 0


def test_a_recorder_for_asyncio_counts_in_its_batches(database, queue):
    async def main():
        closing = []
        with async_engine(database, closing.append) as engine:
            async with AsyncRecorder(create_async_store(engine)) as recorder:
                await recorder.record_execution(ENDED_JOB, status="completed", record="failures")
                async with recorder.track(JOB, "w", record="failures"):
                    pass
        await closing[0]

    asyncio.run(main())
    assert [row["is_stored"] for row in queue.rows()] == [False, False]


def test_a_batch_that_failed_counts_once(database_store, queue):
    gate = Gate(database_store)
    gate.error = OSError("away")
    gate.open.set()
    with Recorder(database_store, max_delay=0) as recorder:
        record_some(recorder)
        gate.wait_for_tries(2)
        gate.error = None
    assert_some(database_store, queue)


def test_counts_wait_in_the_spool(database_store, queue, tmp_path):
    gate = Gate(database_store)
    gate.error = OSError("away")
    gate.open.set()
    recorder = Recorder(database_store, spool=tmp_path / "spool", max_delay=0)
    record_some(recorder)
    recorder.close()
    assert no_history(database_store)
    assert queue.rows() == []

    gate.error = None
    Recorder(database_store, spool=tmp_path / "spool").close()
    assert_some(database_store, queue)
    only_counted = queue.rows(is_stored=False)
    assert {row["task_identifier"] for row in only_counted} == {"ping"}
    assert all(row["execution_time_ms"] is not None for row in only_counted)


def test_what_is_counted_although_the_answer_is_lost_is_counted_once(database_store, queue):
    gate = Gate(database_store)
    gate.open.set()
    write = gate._write

    def write_and_fail(*args, **named):
        write(*args, **named)
        gate._write = write
        raise OSError("no answer")

    gate._write = write_and_fail
    with Recorder(database_store, max_delay=3600) as recorder:
        record_some(recorder)
        recorder.flush(60)
        assert recorder.counts.retried == 1
        record_some(recorder)
        recorder.flush(60)
    assert sorted(row["is_stored"] for row in queue.rows()) == [False] * 4 + [True] * 6


def test_what_is_being_committed_when_close_gives_up_is_counted_once(database, queue, tmp_path):
    store = create_store(database.engine)
    recorder = Recorder(store, max_delay=0, spool=tmp_path / "spool")
    committing, go_on = threading.Event(), threading.Event()

    def commit_slowly(_):
        if not committing.is_set():
            committing.set()
            go_on.wait(30)

    event.listen(database.engine, "commit", commit_slowly)
    recorder.begin(JOB, "w", record="failures").end()
    assert committing.wait(30)
    thread = recorder._writer._thread
    recorder.close(timeout=0.01)
    second = Recorder(store, spool=tmp_path / "spool")  # waits for the first one
    go_on.set()
    thread.join()
    second.close()
    event.remove(database.engine, "commit", commit_slowly)
    assert [row["is_stored"] for row in queue.rows()] == [False]


def test_a_retry_waits_for_a_try_that_may_still_commit(postgres_database):
    engine = postgres_database.engine
    store = create_store(engine)
    batch = Batch.of([Counted(COUNTED_VALUES, new_execution_id(), 1)], Retention(None))
    again = threading.Thread(
        target=store.internals.history.write, args=(batch,), kwargs={"may_exist": True}
    )
    with Session(engine) as session:
        store.in_session(session).internals.history.write(batch, may_exist=False)
        again.start()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            wait_for(lambda: connection.scalar(waiting), "the retry waits")
        session.commit()
    again.join()
    assert len(Queue(engine).rows(is_stored=False)) == 1


@given(st.data())
def test_batches_that_are_written_again_count_once(database, queue, data):
    queue.empty()
    history = create_store(database.engine).internals.history
    recorders = [new_execution_id(), new_execution_id()]
    counted = [
        Counted(COUNTED_VALUES, recorder, number)
        for number in range(1, 5)
        for recorder in recorders
    ]
    done = 0
    while done < len(counted):
        size = data.draw(st.integers(1, len(counted)))
        again = data.draw(st.integers(0, done))
        batch = Batch.of(counted[done - again : done + size], Retention(None))
        history.write(batch, may_exist=again > 0 or data.draw(st.booleans()))
        done += size
    assert len(queue.rows(is_stored=False)) == len(counted)


def test_notes_of_old_recorders_are_deleted(database_store, queue):
    old = new_execution_id(datetime.now(UTC) - timedelta(days=91))
    recent = new_execution_id(datetime.now(UTC) - timedelta(days=89))
    with queue.engine.begin() as connection:
        connection.execute(delete(STATE))
        names = [f"recorder {old.hex}", f"recorder {recent.hex}", "hours_from", "rows_from"]
        connection.execute(insert(STATE), [{"name": name, "value": "1"} for name in names])
    with Recorder(database_store) as recorder:
        record_some(recorder)
    with queue.engine.connect() as connection:
        left = set(connection.scalars(select(STATE.c.name)))
    assert left > {f"recorder {recent.hex}", "hours_from", "rows_from"}
    assert f"recorder {old.hex}" not in left
    assert len(left) == 4


def test_a_recorder_on_a_store_in_memory_stores_what_does_not_complete():
    store = create_store()
    with Recorder(store) as recorder:
        record_some(recorder)
    assert sorted(r.status for r in store.query()) == ["completed", "failed", "failed"]


# Without the privilege.


@pytest.fixture
def unprivileged(postgres_database):
    owner = postgres_database.engine
    with app_role(owner) as role:
        with owner.begin() as connection:
            connection.execute(text(f"REVOKE ALL ON job_history_ended FROM {role}"))
        engine = create_engine(as_role(postgres_database.url, role))
        yield create_store(engine)
        engine.dispose()


def test_a_role_that_may_not_count_still_runs_jobs(unprivileged, caplog):
    with caplog.at_level(logging.ERROR), unprivileged.track(JOB, "w", record="failures"):
        pass
    assert "not recorded: the outcome of ping: " in caplog.text
    assert "job_history_ended" in caplog.text
    with pytest.raises(ZeroDivisionError), unprivileged.track(JOB, "w", record="failures"):
        raise ZeroDivisionError
    assert only(unprivileged.query()).error_type == "ZeroDivisionError"


def test_counts_that_are_denied_do_not_hold_up_a_recorder(unprivileged, caplog):
    with Recorder(unprivileged) as recorder:
        record_some(recorder)
        recorder.flush(60)
        assert recorder.counts.refused == 2
    assert len(unprivileged.query()) == 3
    assert "refused: count of an execution of 'ping'" in caplog.text
