"""The `AsyncRecorder`, on the engine of an app that uses asyncio."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import threading
import warnings
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from jobhistory import (
    AsyncHistoryStore,
    AsyncRecorder,
    InvalidInput,
    Job,
    NotWritten,
    Recorder,
    RecorderCounts,
    create_async_store,
    create_store,
    current_execution,
    new_execution_id,
)
from jobhistory.execution.batch import Batch
from jobhistory.recorder import event_loop
from jobhistory.recorder.writer import NothingCanBeWritten
from tests.conftest import async_engine
from tests.recorders import IDS

KINDS = ["asyncio", "threads", "memory"]


@asynccontextmanager
async def recording(database, clock, kind="asyncio", **options):
    """Yield an open recorder and its store."""
    if kind == "memory":
        store = create_async_store(clock=clock)
        async with AsyncRecorder(store, **options) as recorder:
            yield recorder, store
    elif kind == "threads":
        store = create_store(database.engine, clock=clock)
        async with AsyncRecorder(store, **options) as recorder:
            yield recorder, store
    else:
        closing = []
        with async_engine(database, closing.append) as engine:
            store = create_async_store(engine, clock=clock)
            async with AsyncRecorder(store, **options) as recorder:
                yield recorder, store
        await closing[0]


async def found_in(store):
    """Return the records of a store by job, however it is called."""
    records = store.query(limit=None)
    if isinstance(store, AsyncHistoryStore):
        records = await records
    return {record.job_id: record for record in records}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_outcome_arrives(database, clock, kind):
    async def main():
        async with recording(database, clock, kind) as (recorder, store):
            id_ = new_execution_id(clock())
            await recorder.record_start(Job("1", "t"), *IDS[1:])
            await recorder.record_completion("1", *IDS[1:], 5)
            await recorder.record_start(Job("2", "t"), *IDS[1:], execution_id=id_)
            await recorder.record_failure(execution_id=id_, error=ValueError("why"))
            await recorder.record_start(Job("3", "t"), *IDS[1:])
            await recorder.record_partial_success("3", *IDS[1:], 5, {"failed_steps": ["upload"]})
            execution = await recorder.begin(Job("4", "t"), "w")
            await execution.end("no file")
            async with recorder.track(Job("5", "t"), "w", "request-1"):
                assert current_execution().correlation_id == "request-1"
            await recorder.record_execution(
                job_id="6", worker_id="w", correlation_id="c", task_identifier="t", error="x"
            )
            await recorder.flush()
            return await found_in(store), recorder.counts

    found, counts = asyncio.run(main())
    assert {job_id: str(record.status) for job_id, record in found.items()} == {
        "1": "completed",
        "2": "failed",
        "3": "partial_success",
        "4": "failed",
        "5": "completed",
        "6": "failed",
    }
    assert counts == RecorderCounts(11, 11, 0, 0, 0, 0)


def test_batches_are_written_on_the_event_loop_of_the_engine(database, clock, monkeypatch):
    threads = []

    async def main():
        async with recording(database, clock) as (recorder, store):
            history = store.internals.history
            write = history.write

            def noted(*args, **named):
                threads.append(threading.current_thread())
                return write(*args, **named)

            monkeypatch.setattr(history, "write", noted)
            for number in range(10):
                await recorder.record_start(Job(number, "t"), *IDS[1:])
                await recorder.record_completion(number, *IDS[1:], 5)
            await recorder.flush()
            return store.recent(), await store.count(status="completed")

    recent, count = asyncio.run(main())
    assert count.value == len(recent) == 10
    assert set(threads) == {threading.main_thread()}


def test_a_decorated_coroutine_is_recorded_in_the_background(database, clock):
    async def main():
        async with recording(database, clock) as (recorder, store):

            @recorder.track(lambda number: Job(number, "t"), "w")
            async def work(number):
                if number == 2:
                    raise ValueError("two")
                return number

            results = await asyncio.gather(*map(work, range(4)), return_exceptions=True)
            await recorder.flush()
            return results, await found_in(store)

    results, found = asyncio.run(main())
    assert [results[0], results[1], results[3]] == [0, 1, 3]
    assert {job_id: str(record.status) for job_id, record in found.items()} == {
        "0": "completed",
        "1": "completed",
        "2": "failed",
        "3": "completed",
    }


def test_what_is_accepted_outlasts_the_cancellation_of_its_task(database, clock):
    async def main():
        async with recording(database, clock, max_delay=3600) as (recorder, store):

            async def work():
                async with recorder.track(Job("1", "t"), "w"):
                    await asyncio.sleep(3600)

            task = asyncio.create_task(work())
            while recorder.counts.accepted == 0:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await recorder.flush()
            return await found_in(store)

    found = asyncio.run(main())
    assert found["1"].status == "cancelled"


def test_what_the_end_of_the_loop_leaves_is_in_the_spool(database, clock, tmp_path):
    spool = tmp_path / "spool"
    url = database.url.set(
        drivername={"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}[database.name]
    )

    async def leave():
        engine = create_async_engine(url)
        recorder = AsyncRecorder(
            create_async_store(engine, clock=clock), max_delay=3600, spool=spool
        )
        await recorder.record_execution(
            job_id="left", worker_id="w", correlation_id="c", task_identifier="t", error="x"
        )
        return recorder

    left = asyncio.run(leave())
    left._writer.close(10)  # as at the end of the process
    assert left.counts.spooled == 1

    async def main():
        async with recording(database, clock, spool=spool) as (recorder, store):
            await recorder.flush()
            return await found_in(store), recorder.counts

    found, counts = asyncio.run(main())
    assert list(found) == ["left"]
    assert (counts.written, counts.spooled) == (1, 0)


def test_without_a_spool_the_end_of_the_loop_loses_it_and_says_so(database, clock):
    async def leave():
        recorder = AsyncRecorder(create_async_store(clock=clock), max_delay=3600)
        await recorder.record_start(Job("1", "t"), *IDS[1:])
        return recorder

    left = asyncio.run(leave())
    with pytest.raises(NotWritten, match="event loop of the AsyncRecorder does not run"):
        left._writer.close(3600)  # without waiting that long


def test_a_forgotten_recorder_does_not_hold_up_the_end_of_the_process():
    code = """
import asyncio
from jobhistory import AsyncRecorder, Job, create_async_store

async def main():
    recorder = AsyncRecorder(create_async_store(), max_delay=3600)
    await recorder.record_start(Job("1", "t"), "w", "c")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "1 operations are not written" in done.stderr


def test_the_next_loop_goes_on_where_the_last_one_ended(clock):
    """As in test suites, and in notebooks."""
    store = create_async_store(clock=clock)

    async def make():
        recorder = AsyncRecorder(store, max_delay=0)
        await recorder.record_start(Job("1", "t"), *IDS[1:])
        return recorder

    recorder = asyncio.run(make())

    async def go_on():
        async with recorder:
            await recorder.record_completion("1", *IDS[1:], 5)
            await recorder.flush(30)

    asyncio.run(go_on())
    assert [record.status for record in asyncio.run(store.query())] == ["completed"]


def test_a_recorder_may_be_made_before_its_loop_runs(clock):
    store = create_async_store(clock=clock)
    recorder = AsyncRecorder(store)

    async def main():
        async with recorder:
            await recorder.record_execution(
                job_id="1", worker_id="w", correlation_id="c", task_identifier="t", error="x"
            )

    asyncio.run(main())
    assert len(asyncio.run(store.query())) == 1


def test_it_needs_a_store():
    with pytest.raises(InvalidInput, match=r"store .* is not an AsyncHistoryStore"):
        AsyncRecorder(Recorder(create_store()))


def test_both_recorders_have_the_same_methods_and_options():
    def methods(cls):
        return {name: value for name, value in vars_of(cls).items() if inspect.isfunction(value)}

    def vars_of(cls):
        return {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}

    assert methods(Recorder).keys() == methods(AsyncRecorder).keys()
    for name, method in methods(Recorder).items():
        ours, theirs = inspect.signature(method), inspect.signature(getattr(AsyncRecorder, name))
        assert ours.parameters == theirs.parameters, name
    ours, theirs = (dict(inspect.signature(each).parameters) for each in (Recorder, AsyncRecorder))
    assert ours.pop("store") != theirs.pop("store")
    assert ours == theirs


def test_a_loop_that_ends_before_the_batch_begins_leaves_no_warning(monkeypatch):
    class Ending:
        """A loop that stops before it calls what was handed to it."""

        def __init__(self):
            self.answers = iter([True, False])

        def is_running(self):
            return next(self.answers)

        def call_soon_threadsafe(self, *_):
            pass

    monkeypatch.setattr(event_loop, "_SECONDS", 0)
    history = event_loop.OnEventLoop(create_store().internals.history)
    history.loop = Ending()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(NothingCanBeWritten):
            history.write(Batch([]), may_exist=False, before_commit=lambda: None)
        gc.collect()
    assert [each for each in caught if "never awaited" in str(each.message)] == []
