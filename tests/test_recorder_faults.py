"""Faults around a `Recorder`: accepted operations are not lost, and nothing hangs."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from contextlib import contextmanager
from sys import getsizeof

import pytest
from sqlalchemy import event

from jobhistory import (
    AsyncRecorder,
    InvalidInput,
    Job,
    NotWritten,
    Recorder,
    RecorderClosed,
    RecorderFull,
    create_store,
)
from jobhistory.execution.batch import Batch
from jobhistory.execution.outcome import ExecutionKey
from jobhistory.recorder.backlog import memory_of
from jobhistory.recorder.intake import Intake
from tests.recorders import IDS, Gate, record


def start(recorder, *job_ids, payload=None):
    for job_id in job_ids:
        recorder.record_start(Job(job_id, "t", payload), *IDS[1:])


@contextmanager
def no_new_threads(*, how_often=10**9):
    """Make `Thread.start` fail, as at a limit of threads or at the end of the interpreter."""
    left, original = [how_often], threading.Thread.start

    def fail(thread):
        if thread.name == "jobhistory-recorder" and left[0] > 0:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        original(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        yield


def test_a_thread_that_cannot_start_is_started_by_a_later_call(database_store, caplog):
    recorder = Recorder(database_store, max_delay=0)
    with no_new_threads(how_often=2):
        start(recorder, 1, 2)
        assert recorder.counts.waiting == 2
        start(recorder, 3)
        recorder.flush(30)
    recorder.close()
    assert sorted(r.job_id for r in database_store.query()) == ["1", "2", "3"]
    assert caplog.messages == [
        "the recorder's thread cannot start; each call tries again: can't start new thread"
    ]


def test_without_a_thread_a_full_recorder_raises_and_close_writes(database_store):
    recorder = Recorder(database_store, queue_size=2)
    with no_new_threads():
        start(recorder, 1, 2)
        with pytest.raises(RecorderFull):
            start(recorder, 3)
        with pytest.raises(NotWritten, match="can't start new thread"):
            recorder.flush()
        assert recorder.counts.accepted == 2
        recorder.close()
    assert sorted(r.job_id for r in database_store.query()) == ["1", "2"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_replaced_although_the_queue_is_full(database_store, monkeypatch):
    """Callers that wait for room start a new thread, and so does `flush`."""
    wait, deaths = Intake.wait_for_work, threading.Semaphore(3)

    def die(intake):
        result = wait(intake)
        if deaths.acquire(blocking=False):
            raise SystemExit
        return result

    monkeypatch.setattr(Intake, "wait_for_work", die)
    with Recorder(database_store, queue_size=1, max_delay=0) as recorder:
        start(recorder, *range(5))
        deaths.release()
        start(recorder, 5)
        recorder.flush(30)
    assert len(database_store.query()) == 6


def interrupted_close(recorder, monkeypatch):
    """Call `close`, and interrupt it like Ctrl-C when it waits."""
    wait = threading.Condition.wait_for

    def interrupt(condition, predicate, timeout=None):
        if condition is recorder._writer.intake.condition and recorder._writer.intake.is_closed:
            monkeypatch.setattr(threading.Condition, "wait_for", wait)
            raise KeyboardInterrupt
        return wait(condition, predicate, timeout)

    monkeypatch.setattr(threading.Condition, "wait_for", interrupt)
    with pytest.raises(KeyboardInterrupt):
        recorder.close()


def test_ctrl_c_during_close_leaves_everything_in_the_spool(database_store, tmp_path, monkeypatch):
    gate = Gate(database_store)
    recorder = Recorder(database_store, spool=tmp_path / "spool", max_delay=0)
    start(recorder, "in hand")
    gate.wait_for_tries(1)
    start(recorder, "queued")
    interrupted_close(recorder, monkeypatch)
    recorder.close()
    assert (recorder.counts.spooled, recorder.counts.waiting) == (2, 0)
    gate.open.set()
    with Recorder(database_store, spool=tmp_path / "spool") as second:
        second.flush(30)
    assert sorted(r.job_id for r in database_store.query()) == ["in hand", "queued"]


def test_ctrl_c_during_close_without_a_spool_warns_and_close_may_be_called_again(
    database_store, monkeypatch, caplog
):
    gate = Gate(database_store)
    recorder = Recorder(database_store, max_delay=0)
    start(recorder, "in hand")
    gate.wait_for_tries(1)
    start(recorder, "queued")
    interrupted_close(recorder, monkeypatch)
    assert "2 operations are not written yet, and are lost if the process ends now" in caplog.text
    with pytest.raises(RecorderClosed):
        start(recorder, "too late")
    gate.open.set()
    recorder.close()
    assert sorted(r.job_id for r in database_store.query()) == ["in hand", "queued"]


@pytest.mark.parametrize("bind", ["url", "engine"])
def test_what_close_reports_as_lost_is_not_written_later(database, bind):
    with create_store(database.url if bind == "url" else database.engine) as store:
        store.record_start(Job("others", "t"), *IDS[1:])
        gate = Gate(store)
        recorder = Recorder(store, max_delay=0)
        start(recorder, "1", "2")
        gate.wait_for_tries(1)
        recorder.record_completion("1", *IDS[1:], 5)
        recorder.record_completion("others", *IDS[1:], 5)
        thread = recorder._writer._thread
        with pytest.raises(NotWritten) as caught:
            recorder.close(timeout=0.01)
        assert (caught.value.waiting, caught.value.in_doubt) == (4, 0)
        gate.open.set()
        thread.join()
        assert recorder.counts.written == 0
        assert [(r.job_id, str(r.status)) for r in store.query()] == [("others", "started")]
        assert store.recent() == []


def test_what_is_being_committed_when_close_gives_up_is_in_doubt(database):
    store = create_store(database.engine)
    recorder = Recorder(store, max_delay=3600, batch_size=2)
    committing, go_on = threading.Event(), threading.Event()

    def commit_slowly(_):
        committing.set()
        go_on.wait(30)

    event.listen(database.engine, "commit", commit_slowly)
    start(recorder, "1", "2")
    assert committing.wait(30)
    start(recorder, "3")
    thread = recorder._writer._thread
    with pytest.raises(NotWritten, match="1 operations are not written; the commit of 2") as caught:
        recorder.close(timeout=0.01)
    assert (caught.value.waiting, caught.value.in_doubt) == (1, 2)
    go_on.set()
    thread.join()
    event.remove(database.engine, "commit", commit_slowly)
    assert recorder.counts.written == 2
    assert sorted(r.job_id for r in store.query()) == ["1", "2"]


def test_what_is_being_committed_when_close_gives_up_is_written_once_with_a_spool(
    database, tmp_path
):
    store = create_store(database.engine)
    recorder = Recorder(store, max_delay=0, spool=tmp_path / "spool")
    committing, go_on = threading.Event(), threading.Event()

    def commit_slowly(_):
        committing.set()
        go_on.wait(30)

    event.listen(database.engine, "commit", commit_slowly)
    record(recorder, "1")
    assert committing.wait(30)
    thread = recorder._writer._thread
    recorder.close(timeout=0.01)
    go_on.set()
    thread.join()
    event.remove(database.engine, "commit", commit_slowly)
    with Recorder(store, spool=tmp_path / "spool") as second:
        second.flush(30)
        assert second.counts.refused == 0
    assert [r.job_id for r in store.query(status="completed")] == ["1"]


@contextmanager
def silent_server():
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql+psycopg://app@127.0.0.1:{server.getsockname()[1]}/app"


def test_a_database_that_never_answers_keeps_nobody(tmp_path):
    with silent_server() as url:
        store = create_store(url)
        recorder = Recorder(store, max_delay=0, spool=tmp_path / "spool")
        record(recorder, "1")
        begun = time.monotonic()
        with pytest.raises(NotWritten):
            recorder.flush(timeout=0.1)
        recorder.close(timeout=0.1)
        assert time.monotonic() - begun < 5, "far less than a driver's own time-out"
    assert recorder.counts.waiting == 0
    memory = create_store()
    with Recorder(memory, spool=tmp_path / "spool") as second:
        second.flush(30)
    assert [r.job_id for r in memory.recent()] == ["1"]


# Limits in bytes.


def test_the_queue_is_limited_in_bytes(database_store):
    gate = Gate(database_store)
    recorder = Recorder(database_store, max_delay=0, queue_bytes=100_000, when_full="raise")
    payload = "x" * 30_000
    start(recorder, 1, 2, 3, payload=payload)
    with pytest.raises(RecorderFull, match=r"3 operations \(9\d,\d\d\d bytes\) wait") as caught:
        start(recorder, 4, payload=payload)
    assert 90_000 < caught.value.waiting_bytes <= 100_000
    start(recorder, "small")
    gate.open.set()
    recorder.flush(30)
    start(recorder, "larger than all", payload=["x" * 50_000, "x" * 10_000] * 1)
    recorder.close()
    assert len(database_store.query()) == 5


def test_an_operation_larger_than_the_queue_is_accepted_alone(database_store):
    with Recorder(database_store, max_delay=0, queue_bytes=10_000, batch_bytes=1) as recorder:
        start(recorder, 1, 2, 3, payload="x" * 30_000)
        recorder.flush(30)
    assert len(database_store.query()) == 3


@pytest.mark.parametrize("spooled", [False, True])
def test_a_batch_is_limited_in_bytes(database_store, tmp_path, spooled):
    sizes = []
    write = database_store._history.write
    database_store._history.write = lambda batch, **named: (
        sizes.append(len(batch.operations)) or write(batch, **named)
    )
    path = tmp_path / "spool"
    options = {"max_delay": 3600, "batch_bytes": 100_000}
    if spooled:
        gate = Gate(database_store)
        gate.error = ConnectionError("away")
        gate.open.set()
        with Recorder(database_store, spool=path) as first:
            start(first, *range(10), payload="x" * 30_000)
        gate.error = None
        options["spool"] = path
    with Recorder(database_store, **options) as recorder:
        if not spooled:
            start(recorder, *range(10), payload="x" * 30_000)
        recorder.flush(30)
        while recorder.counts.written < 10:
            time.sleep(0.001)
    assert sizes == [3, 3, 3, 1]


def test_started_rows_are_remembered_up_to_a_number_of_bytes(database_store):
    with Recorder(database_store, max_delay=0, queue_bytes=100_000) as recorder:
        for number in range(20):
            start(recorder, number, payload="x" * 30_000)
        recorder.flush(30)
        assert len(recorder._writer.intake._started) == 3
        assert recorder._writer.intake._started.bytes <= 100_000
        for number in range(20):
            recorder.record_completion(number, *IDS[1:], 5)
        recorder.flush(30)
        assert len(recorder._writer.intake._started) == recorder._writer.intake._started.bytes == 0
    assert len(database_store.query(status="completed")) == 20
    assert [r.job_id for r in database_store.recent()] == [str(number) for number in range(20)]


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "x" * 10_000,
        [0.5] * 1000,
        [["x" * 10]] * 1000,
        [{}] * 1000,
        {str(n): {"a": n, "b": "text" * 5} for n in range(1000)},
    ],
)
def test_the_memory_of_an_operation_is_about_right(payload):
    def real(value):
        inside = value.items() if isinstance(value, dict) else value
        is_collection = isinstance(value, (dict, list, tuple))
        return getsizeof(value) + (sum(map(real, inside)) if is_collection else 0)

    row = create_store()._rows.started(Job(1, "t", payload), "w", "c", None)
    assert real(row) / 2 < memory_of(row) < 3 * real(row)


# Transactions and order.


@pytest.mark.parametrize("bind", ["url", "engine"])
def test_a_batch_is_one_transaction_on_every_engine(database, bind):
    """The whole batch is rolled back, and no one sees half of it."""
    seen = []
    with (
        create_store(database.url if bind == "url" else database.engine) as store,
        create_store(database.engine) as other,
    ):
        started = store._rows.started(Job("early", "t"), *IDS[1:], None)
        store._history.insert(started)
        store.record_start(Job("by key", "t"), *IDS[1:])
        by_id, by_key = (
            store._rows.completed(ExecutionKey(job_id, *IDS[1:]), 1)
            for job_id in ("early", "by key")
        )
        whole = store._rows.started(Job("whole", "t"), *IDS[1:], None)
        batch = Batch.of([whole, by_id._replace(row=started), by_key], store._rows.retention)

        def fail():
            seen.extend((r.job_id, str(r.status)) for r in other.query(order="oldest"))
            raise ConnectionError("before the commit")

        untouched = [("early", "started"), ("by key", "started")]
        for may_exist in (False, True):
            seen.clear()
            with pytest.raises(ConnectionError):
                store._history.write(batch, may_exist=may_exist, before_commit=fail)
            assert sorted(seen) == sorted(untouched)
            assert sorted((r.job_id, str(r.status)) for r in store.query()) == sorted(untouched)
            assert store.recent() == []
        store._history.write(batch, may_exist=True)
        assert sorted((r.job_id, str(r.status)) for r in store.query()) == [
            *(("by key", "completed"), ("early", "completed"), ("whole", "started"))
        ]
        # The engine is as it was.
        assert store.record_start(Job("after", "t"), *IDS[1:]).job_id == "after"
        assert len(other.query()) == 4


def test_the_ring_buffer_has_the_order_of_the_calls(database, clock):
    """This includes rows that are inserted, updated by id, or found by their three ids."""
    store = create_store(database.engine, clock=clock)
    store.record_start(Job("by key", "t"), *IDS[1:])
    with Recorder(store, max_delay=3600) as recorder:
        start(recorder, "a", "b")
        recorder.flush(30)
        expected = []

        def done(job_id):
            expected.append(job_id)
            recorder.record_completion(job_id, *IDS[1:], 5)

        start(recorder, "c", "d")
        done("b")
        done("c")
        done("by key")
        recorder.record_execution(
            job_id="e", worker_id="w", correlation_id="c", task_identifier="t", status="completed"
        )
        expected.append("e")
        done("a")
        done("d")
        recorder.flush(30)
        assert [r.job_id for r in store.recent()] == expected


# asyncio.


def test_a_full_recorder_does_not_block_the_event_loop(database_store):
    gate = Gate(database_store)

    async def scenario():
        async with AsyncRecorder(
            database_store, batch_size=1, queue_size=2, max_delay=0
        ) as recorder:
            for number in range(2):
                await recorder.record_start(Job(number, "t"), *IDS[1:])
            waiting = [
                asyncio.create_task(recorder.record_start(Job(f"late-{number}", "t"), *IDS[1:]))
                for number in range(50)
            ]
            cancelled = asyncio.create_task(recorder.record_start(Job("cancelled", "t"), *IDS[1:]))
            await asyncio.sleep(0)  # the loop goes on
            with pytest.raises(NotWritten):
                await recorder.flush(timeout=0.01)
            assert recorder.counts.accepted == 2
            assert not any(task.done() for task in waiting)
            cancelled.cancel()
            gate.open.set()
            await asyncio.gather(*waiting)
            await recorder.flush(timeout=30)
            assert recorder.counts.accepted == recorder.counts.written == 52
            record = recorder.record_completion("late-7", *IDS[1:], 5)
            with pytest.raises(InvalidInput):
                recorder.record_completion("late-8", *IDS[1:], -1)
            await record
            await recorder.record_failure("late-9", *IDS[1:], 5, "why")
            await recorder.record_partial_success("late-10", *IDS[1:], 5, {"failed_steps": ["x"]})
            await recorder.record_execution(
                job_id="e", worker_id="w", correlation_id="c", task_identifier="t", error="x"
            )
        with pytest.raises(RecorderClosed):
            await recorder.record_start(Job("too late", "t"), *IDS[1:])

    asyncio.run(scenario())
    assert len(database_store.query(limit=None)) == 53
    assert [str(r.status) for r in database_store.recent()] == [
        *("completed", "failed", "partial_success", "failed")
    ]


def test_tasks_that_wait_hear_that_the_recorder_is_closed(database_store):
    gate = Gate(database_store)

    async def scenario():
        recorder = AsyncRecorder(database_store, queue_size=1, max_delay=0)
        await recorder.record_start(Job(1, "t"), *IDS[1:])
        waiting = asyncio.create_task(recorder.record_start(Job(2, "t"), *IDS[1:]))
        await asyncio.sleep(0)
        closing = asyncio.create_task(recorder.close())
        with pytest.raises(RecorderClosed):
            await waiting
        gate.open.set()
        await closing

    asyncio.run(scenario())
    assert len(database_store.query()) == 1


def test_flush_of_a_task_that_is_cancelled_leaves_the_recorder_as_it_was(database_store):
    gate = Gate(database_store)

    async def scenario():
        async with AsyncRecorder(database_store, max_delay=3600) as recorder:
            await recorder.record_start(Job(1, "t"), *IDS[1:])
            flushing = asyncio.create_task(recorder.flush())
            await asyncio.sleep(0)
            flushing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flushing
            assert recorder._writer.intake._flushing == 0
            gate.open.set()

    asyncio.run(scenario())


def test_nothing_is_logged_when_all_goes_well(database_store, caplog):
    with caplog.at_level(logging.INFO, logger="jobhistory"), Recorder(database_store) as recorder:
        record(recorder, "1")
    assert caplog.messages == []
