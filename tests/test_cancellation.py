"""Cancelled executions: a status of their own, which is no failure."""

from __future__ import annotations

import asyncio
import concurrent.futures
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from jobhistory import (
    Cancelled,
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    InvalidInput,
    Job,
    Recorder,
    Status,
    create_store,
    current_execution,
    new_execution_id,
)

IDS = ("job-1", "worker-1", "request-1")
JOB = Job("job-1", "resize", {"path": "a.png"})
ENDED = dict(zip(("job_id", "worker_id", "correlation_id"), IDS, strict=True)) | {
    "task_identifier": "resize"
}

CANCELLATIONS = [
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    Cancelled,
    type("Revoked", (Cancelled,), {}),
]


def only(records):
    (record,) = records
    return record


def test_a_cancelled_execution_is_updated_and_buffered(store, clock):
    started = store.record_start(JOB, *IDS[1:])
    clock.advance(seconds=2)
    record = store.record_cancellation(*IDS, 1500, reason="revoked by an operator")

    for found in (record, only(store.query(status="cancelled")), only(store.recent())):
        assert found.id == started.id
        assert found.status is Status.CANCELLED
        assert found.error_message == "revoked by an operator"
        assert found.error_type is found.error_stack is None
        assert found.execution_time_ms == 1500
        assert found.completed_at == clock.now


def test_the_reason_and_the_duration_may_be_omitted(store, clock):
    record = store.record_start(JOB, *IDS[1:])
    clock.advance(milliseconds=250)
    record = store.record_cancellation(record)

    assert (record.error_message, record.execution_time_ms) == (None, 250)


def test_a_cancellation_is_repeatable_and_final(store):
    id_ = store.record_start(JOB, *IDS[1:]).id
    first = store.record_cancellation(*IDS, 1, reason="first")
    again = store.record_cancellation(execution_id=id_, execution_time_ms=2, reason="second")

    assert (again.error_message, again.execution_time_ms) == ("first", 1)
    assert len(store.recent()) == 1
    with pytest.raises(ExecutionAlreadyFinished, match="already ended as 'cancelled'") as caught:
        store.record_failure(*IDS, 1, ValueError())
    assert caught.value.record.id == first.id
    with pytest.raises(ExecutionNotFound):
        store.record_cancellation("another", *IDS[1:], 1)


def test_a_cancellation_is_no_failure(store, clock):
    store.record_start(JOB, *IDS[1:])
    store.record_cancellation(*IDS, 5, reason="no time")
    store.record_execution(ENDED, job_id="job-2", error="no time")

    assert [record.job_id for record in store.query(status="failed")] == ["job-2"]
    assert [record.job_id for record in store.query(error_contains="no time")] == ["job-2"]
    assert only(store.failure_groups()).count == 1
    stats = only(store.stats())
    assert (stats.executions, stats.cancelled, stats.failed) == (2, 1, 1)
    assert stats.failure_rate == 1
    assert store.count(status="cancelled").value == 1


def test_the_reason_is_redacted_and_limited(store):
    store.record_start(JOB, *IDS[1:])
    store.record_cancellation(*IDS, 1, reason="password=hunter2 " + "x" * 100_000)

    reason = only(store.query()).error_message
    assert "hunter2" not in reason
    assert len(reason) <= 64 * 1024
    assert "[cut" in reason


@pytest.mark.parametrize("reason", [5, ValueError("x"), ["a"]])
def test_a_reason_is_a_text(plain_store, reason):
    plain_store.record_start(JOB, *IDS[1:])
    with pytest.raises(InvalidInput, match="is not a text; write it like 'revoked'"):
        plain_store.record_cancellation(*IDS, 1, reason=reason)


@pytest.mark.parametrize("kind", CANCELLATIONS)
def test_these_exceptions_are_cancellations_wherever_an_error_ends_an_execution(store, kind):
    error = kind("the worker shuts down")
    store.begin(Job("begun", "t"), "w").end(error)
    store.record_execution(ENDED, job_id="whole", error=error)
    store.record_start(Job("failed", "t"), "w", "c")
    store.record_failure("failed", "w", "c", 1, error)

    found = {record.job_id: record for record in store.query()}
    for job_id in ("begun", "whole"):
        assert found[job_id].status is Status.CANCELLED
        assert found[job_id].error_message == "the worker shuts down"
        assert found[job_id].error_type is found[job_id].error_stack is None
    assert found["failed"].status is Status.FAILED, "the caller says so"
    with pytest.raises(InvalidInput, match="status 'completed' cannot be combined with an error"):
        store.record_execution(ENDED, error=error, status="completed")
    assert store.record_execution(ENDED, error=error, status="failed").status is Status.FAILED
    assert store.record_execution(ENDED, error=error, status="cancelled").status == "cancelled"


@pytest.mark.parametrize("kind", CANCELLATIONS)
def test_a_tracked_block_that_is_cancelled_ends_as_cancelled(plain_store, kind):
    @plain_store.track(JOB, "w")
    def resize():
        current_execution().partial_success({"failed_steps": ["upload"]})
        raise kind("stop")

    with pytest.raises(kind):
        resize()

    record = only(plain_store.query())
    assert (record.status, record.error_message) == ("cancelled", "stop")
    assert record.failed_steps is None


def test_other_exceptions_that_end_a_tracked_block_are_failures(plain_store):
    for error in (KeyboardInterrupt, SystemExit, GeneratorExit, TimeoutError):
        with pytest.raises(error), plain_store.track(JOB, "w"):
            raise error
    assert {record.status for record in plain_store.query()} == {"failed"}


@pytest.mark.parametrize("where", ["in memory", "in the database"])
def test_a_cancellation_survives_the_rollback_that_it_causes(database, clock, where):
    """As a failure does, because a cancelled task rolls its transaction back."""
    store = create_store(None if where == "in memory" else database.engine, clock=clock)

    def work(inside):
        inside.record_start(Job("recorded", "t"), "w", "c")
        inside.record_cancellation("recorded", "w", "c", 1, reason="stop")
        inside.record_execution(ENDED, job_id="whole", status="cancelled")
        inside.record_execution(ENDED, job_id="completed", status="completed")
        with inside.track(Job("tracked", "t"), "w"):
            raise Cancelled("stop")

    with pytest.raises(Cancelled), Session(database.engine) as session, session.begin():
        work(store.in_session(session))

    found = {record.job_id: record.status for record in store.query()}
    assert found == dict.fromkeys(["recorded", "whole", "tracked"], "cancelled")
    assert {record.job_id for record in store.recent()} == set(found)


def test_a_cancellation_is_recorded_after_a_transaction_that_failed(database, clock):
    store = create_store(database.engine, clock=clock)
    with Session(database.engine) as session:
        inside = store.in_session(session)
        record = inside.record_start(JOB, *IDS[1:])
        session.add(type(record)(id=record.id))
        with pytest.raises(IntegrityError):
            session.flush()
        inside.record_cancellation(*IDS, 5, reason="stop")
        session.rollback()

    record = only(store.query())
    assert (record.status, record.error_message) == ("cancelled", "stop")


def test_a_real_cancellation_replaces_the_presumed_loss_of_the_worker(store, clock):
    store.record_start(JOB, *IDS[1:])
    clock.advance(hours=2)
    store.reap_lost("1 hour")
    store.record_cancellation(*IDS, 5, reason="stop")

    record = only(store.query())
    assert (record.status, record.error_type, record.error_message) == ("cancelled", None, "stop")


def test_a_recorder_records_cancellations(database_store, tmp_path):
    with Recorder(database_store, spool=tmp_path / "spool") as recorder:
        recorder.record_start(JOB, *IDS[1:])
        recorder.record_cancellation(*IDS, 5, reason="stop")
        recorder.record_start(Job("job-2", "t"), "w", "c")
        recorder.flush()
        recorder.record_cancellation("job-2", "w", "c", 5)

    second, first = database_store.query()
    assert (first.status, first.error_message) == ("cancelled", "stop")
    assert (second.status, second.error_message) == ("cancelled", None)


def test_cancelled_executions_expire(make_store, clock):
    store = make_store(history_retention="1 hour")
    id_ = new_execution_id(clock.now - timedelta(hours=2))
    store.record_execution(
        ENDED, status="cancelled", execution_id=id_, started_at=clock.now - timedelta(hours=2)
    )
    assert store.expire() == 1


@pytest.mark.parametrize("order", ["limit inside", "limit outside"])
def test_a_time_limit_inside_of_a_tracked_block_is_a_failure(order):
    """A limit around the block cancels it, which looks like any other cancellation."""
    store = create_store()

    async def main():
        limit, block = asyncio.timeout(0), store.track(JOB, "w")
        outer, inner = (block, limit) if order == "limit inside" else (limit, block)
        async with outer, inner:
            await asyncio.sleep(3600)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    expected = ("failed", "TimeoutError") if order == "limit inside" else ("cancelled", None)
    record = only(store.query())
    assert (record.status, record.error_type) == expected
