"""Executions that are begun by one call and ended by another."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import Context
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from jobhistory import (
    ExecutionAlreadyFinished,
    InvalidInput,
    Job,
    PartialResults,
    Status,
    create_async_store,
    create_store,
    current_execution,
    lifecycle,
    new_execution_id,
)
from tests.conftest import async_engine

JOB = Job("job-1", "resize", {"path": "a.png"})


@pytest.fixture
def stopwatch(monkeypatch):
    """A monotonic clock that moves only when a test moves it."""

    class Stopwatch:
        now = 100.0

        def __call__(self):
            return self.now

    stopwatch = Stopwatch()
    monkeypatch.setattr(lifecycle, "monotonic", stopwatch)
    return stopwatch


def only(records):
    (record,) = records
    return record


def test_an_execution_is_begun_by_one_call_and_ended_by_another(store, stopwatch):
    execution = store.begin(JOB, "worker-1", "request-1", history_retention="1 day")
    started = only(store.query())
    stopwatch.now += 1.5
    execution.end()

    assert started.status is Status.STARTED
    assert started.payload == {"path": "a.png"}
    assert (started.expires_at - started.started_at).days == 1
    record = only(store.query())
    assert record.id == started.id == execution.id == only(store.recent()).id
    assert (record.status, record.execution_time_ms) == ("completed", 1500)
    assert execution.correlation_id == record.correlation_id == "request-1"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({"error": ValueError("no file")}, ("failed", "ValueError", "no file", None, 0)),
        ({"error": "no file"}, ("failed", "Error", "no file", None, 0)),
        (
            {"partial_results": {"failed_steps": ["upload"]}},
            ("partial_success", None, None, ["upload"], 0),
        ),
        (
            {"partial_results": PartialResults(failed_steps=["a"]), "execution_time_ms": 7},
            ("partial_success", None, None, ["a"], 7),
        ),
        ({"execution_time_ms": timedelta(seconds=2)}, ("completed", None, None, None, 2000)),
    ],
)
def test_the_end_tells_the_outcome(store, stopwatch, outcome, expected):
    execution = store.begin(JOB, "worker-1")
    execution.end(**outcome)

    record = only(store.query())
    assert (
        record.status,
        record.error_type,
        record.error_message,
        record.failed_steps,
        record.execution_time_ms,
    ) == expected


def test_the_record_is_the_one_in_history(store):
    execution = store.begin(JOB, "worker-1")
    assert dump(execution.record) == dump(only(store.query()))
    execution.end("no file")
    assert dump(execution.record) == dump(only(store.query()))


def dump(record):
    return {name: getattr(record, name) for name in record.__mapper__.columns.keys()}  # noqa: SIM118


def test_executions_of_the_same_ids_end_each_their_own(store, stopwatch):
    older = store.begin(JOB, "w", "c")
    younger = store.begin(JOB, "w", "c")
    older.end(execution_time_ms=1)
    younger.end("failed")

    statuses = {record.id: record.status for record in store.query()}
    assert statuses == {older.id: "completed", younger.id: "failed"}


def test_a_second_end_with_the_same_outcome_changes_nothing(store, clock):
    execution = store.begin(JOB, "w")
    execution.end("first")
    ended = only(store.query())
    clock.advance(seconds=1)
    execution.end("second")

    assert dump(only(store.query())) == dump(ended)
    assert len(store.recent()) == 1


def test_a_second_end_with_another_outcome_is_refused(store):
    execution = store.begin(JOB, "w")
    execution.end()

    with pytest.raises(ExecutionAlreadyFinished) as refused:
        execution.end("too late")
    assert refused.value.record.status == "completed"
    assert only(store.query()).status == "completed"


def test_of_racing_ends_exactly_one_wins(plain_store):
    execution = plain_store.begin(JOB, "w")
    barrier = threading.Barrier(4, timeout=20)
    refused = []

    def end(number):
        barrier.wait()
        try:
            execution.end("failed" if number % 2 else None)
        except ExecutionAlreadyFinished:
            refused.append(number)

    threads = [threading.Thread(target=end, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    record = only(plain_store.recent())
    assert record.status == only(plain_store.query()).status
    assert {number % 2 for number in refused} == {1 if record.status == "completed" else 0}
    assert len(refused) == 2


def test_the_outcome_of_another_caller_stays(plain_store, caplog):
    execution = plain_store.begin(JOB, "w", "c")
    plain_store.record_completion(execution_id=execution.id)
    execution.end("too late")

    assert only(plain_store.query()).status == "completed"
    assert "not recorded: the outcome of resize" in only(caplog.messages)

    strict = plain_store.begin(JOB, "w", "c", on_history_error="raise")
    plain_store.record_completion(execution_id=strict.id)
    with pytest.raises(ExecutionAlreadyFinished):
        strict.end("too late")


def test_another_thread_and_context_may_end_it(plain_store):
    execution = Context().run(plain_store.begin, JOB, "w")
    thread = threading.Thread(target=execution.end)
    thread.start()
    thread.join()
    assert only(plain_store.query()).status == "completed"


def test_begin_leaves_the_current_execution_alone(store):
    execution = store.begin(JOB, "w")
    assert current_execution() is None
    execution.end()


def test_what_begins_inside_a_tracked_execution_belongs_to_it(plain_store):
    with plain_store.track(JOB, "w", "request-1"):
        inner = plain_store.begin(Job(2, "t"), "w")
    assert inner.correlation_id == "request-1"
    outer = plain_store.begin(JOB, "w")
    assert outer.correlation_id not in ("", "request-1")
    assert outer.correlation_id != plain_store.begin(JOB, "w").correlation_id


def test_begin_with_an_id_continues_what_is_there(store):
    id_ = new_execution_id(only([store.begin(JOB, "w").record.started_at]))
    first = store.begin(JOB, "w", "c", execution_id=id_)
    again = store.begin(JOB, "w", "other", execution_id=id_)
    assert again.id == first.id == id_
    assert again.correlation_id == "c"
    first.end()
    again.end()

    assert [record.status for record in store.get_by_correlation_id("c")] == ["completed"]
    with pytest.raises(InvalidInput, match="belongs to an execution of job 'job-1'"):
        store.begin(Job("other", "t"), "w", execution_id=id_)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: store.begin("nightly", "w"), "job.id None is not an id"),
        (lambda store: store.begin(JOB, None), "worker_id None is not an id"),
        (lambda store: store.begin(JOB, "w", on_history_error="ignore"), "'log' nor 'raise'"),
        (lambda store: store.begin(JOB, "w", execution_id=5), "execution_id 5 is not a UUID"),
        (lambda store: store.begin(JOB, "w").end(42), "is not an error"),
        (lambda store: store.begin(JOB, "w").end("x", partial_results={}), "combined with an err"),
        (lambda store: store.begin(JOB, "w").end(partial_results={"step": 1}), "not a valid key"),
        (lambda store: store.begin(JOB, "w").end(execution_time_ms=-5), "not a duration"),
    ],
)
def test_errors_of_the_caller_are_raised(plain_store, call, message):
    with pytest.raises(InvalidInput, match=message):
        call(plain_store)
    assert [record.status for record in plain_store.query() if record.status != "started"] == []


@pytest.fixture
def outage(database):
    """History is unavailable until this is called."""
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE job_history RENAME TO elsewhere"))
    is_back = False

    def end():
        nonlocal is_back
        if not is_back:
            with database.engine.begin() as connection:
                connection.execute(text("ALTER TABLE elsewhere RENAME TO job_history"))
        is_back = True

    yield end
    end()


@pytest.fixture
def database_history(database, clock):
    return create_store(database.engine, clock=clock)


def test_an_execution_begun_in_an_outage_is_written_whole_at_its_end(
    database_history, outage, clock, caplog
):
    execution = database_history.begin(JOB, "w", "c")
    began = clock()
    outage()
    clock.advance(seconds=1)
    execution.end()

    record = only(database_history.query())
    assert (record.status, record.payload, record.started_at) == (
        "completed",
        {"path": "a.png"},
        began,
    )
    assert only(database_history.recent()).id == execution.id
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


def test_an_end_in_an_outage_can_be_repeated(database_history, outage, caplog):
    execution = database_history.begin(JOB, "w", "c")
    execution.end("no file")
    outage()
    assert database_history.query() == database_history.recent() == []
    execution.end("no file, again")

    assert only(database_history.query()).error_message == "no file"
    assert len(database_history.recent()) == 1
    assert len(caplog.records) == 2


def test_errors_of_history_are_raised_on_demand(database_history, outage):
    with pytest.raises(Exception, match="no history table"):
        database_history.begin(JOB, "w", on_history_error="raise")
    outage()
    execution = database_history.begin(JOB, "w", on_history_error="raise")
    database_history._history.breaker.open("it hangs")
    with pytest.raises(ConnectionError):
        execution.end("no file")
    database_history._history.breaker.close()
    execution.end("no file")
    assert only(database_history.query()).status == "failed"


def test_an_expired_start_is_written_whole(plain_store, clock):
    execution = plain_store.begin(JOB, "w", history_retention="1 second")
    clock.advance(seconds=10)
    plain_store.expire()
    assert plain_store.query() == []
    execution.end()
    assert only(plain_store.query()).status == "completed"


def test_an_execution_shows_what_it_executes(plain_store):
    execution = plain_store.begin(JOB, "w")
    assert repr(execution) == f"<Execution {execution.record!r}>"
    assert "job_id='job-1' status=started" in repr(execution)
    execution.end()
    assert "status=completed" in repr(execution)


def test_an_interrupted_begin_is_recorded_as_a_failure(plain_store, monkeypatch):
    insert = plain_store._history.insert

    def interrupted(*args, **named):
        insert(*args, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(plain_store._history, "insert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plain_store.begin(JOB, "w")
    assert only(plain_store.query()).error_type == "KeyboardInterrupt"


@pytest.mark.parametrize("how", ["begin", "track"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_end_is_recorded(database_store, monkeypatch, interrupt, how):
    history = type(database_store.internals.history)
    end = history.end

    def interrupted(*_):
        monkeypatch.setattr(history, "end", end)
        raise interrupt

    monkeypatch.setattr(history, "end", interrupted)
    ends = {
        "begin": lambda: database_store.begin(JOB, "w").end("no space"),
        "track": database_store.track(JOB, "w")(lambda: None),
    }
    with pytest.raises(interrupt):
        ends[how]()
    record = only(database_store.query())
    assert record.status == ("failed" if how == "begin" else "completed")
    assert record.error_message == ("no space" if how == "begin" else None)


def test_a_cancelled_begin_or_end_is_finished_first(database, clock):
    async def main():
        closing = []
        with async_engine(database, closing.append) as engine:
            store = create_async_store(engine, clock=clock)
            task = asyncio.create_task(store.begin(JOB, "w", "cancelled"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

            execution = await store.begin(JOB, "w", "ended")
            task = asyncio.create_task(execution.end())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            found = {record.correlation_id: record for record in await store.query()}
        await closing[0]
        return found

    found = asyncio.run(main())
    assert found["ended"].status == "completed"
    assert found["cancelled"].status == "cancelled"


def test_a_failure_survives_the_rollback_of_the_callers_transaction(database, clock):
    store = create_store(database.engine, clock=clock)
    with Session(database.engine) as session:
        execution = store.in_session(session).begin(JOB, "w")
        execution.end("no file")
        session.rollback()
    assert only(store.query()).error_message == "no file"


def test_nothing_of_a_rolled_back_transaction_remains_but_its_end(database, clock):
    """After a rollback of the start, the end writes the whole execution."""
    store = create_store(database.engine, clock=clock)
    with Session(database.engine) as session:
        execution = store.in_session(session).begin(JOB, "w")
        session.rollback()
        assert store.query() == []
        execution.end()
        session.commit()
    assert only(store.query()).status == "completed"


def test_an_unreachable_database_does_not_stop_the_job(caplog):
    engine = create_engine("postgresql+psycopg://postgres@127.0.0.1:1/none")
    store = create_store(engine)
    execution = store.begin(JOB, "w")
    execution.end()
    assert len(caplog.records) == 2
    with pytest.raises((OperationalError, DBAPIError)):
        store.begin(JOB, "w", on_history_error="raise")
