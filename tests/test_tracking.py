"""Tracking of blocks, functions and coroutines."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from jobhistory import (
    ExecutionAlreadyFinished,
    Failure,
    InvalidInput,
    Job,
    SchemaOutOfDate,
    Status,
    create_async_store,
    create_store,
    current_execution,
    lifecycle,
    new_execution_id,
)
from tests.conftest import async_engine


@pytest.fixture
def store(database, clock):
    return create_store(database.engine, clock=clock)


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


JOB = Job("job-1", "resize", {"path": "a.png"})


def only(records):
    (record,) = records
    return record


def test_while_a_job_is_made_the_enclosing_execution_is_the_current_one(store):
    """So a job that this enqueues carries an id that exists."""
    seen = []

    def make():
        seen.append(current_execution())
        return JOB

    tracked = store.track(make, "worker-1")(lambda: None)
    tracked()
    with store.track(JOB, "worker-1") as outer:
        tracked()

    assert seen == [None, outer]


def test_a_block_is_recorded_from_start_to_end(store, stopwatch):
    with store.track(JOB, "worker-1", "request-1", history_retention="1 day") as execution:
        started = only(store.query())
        stopwatch.now += 1.5

    assert started.status is Status.STARTED
    record = only(store.query())
    assert record.id == started.id == only(store.recent()).id
    assert (record.status, record.execution_time_ms) == ("completed", 1500)
    assert (record.worker_id, record.correlation_id) == ("worker-1", "request-1")
    assert (record.expires_at - record.started_at).days == 1
    assert execution.correlation_id == "request-1"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such file"),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
    ],
)
def test_whatever_is_raised_is_recorded_and_passed_on(store, error):
    with pytest.raises(type(error)) as caught, store.track(JOB, "worker-1"):
        raise error

    assert caught.value is error
    record = only(store.query(status="failed"))
    assert record.error_type.rpartition(".")[2] == type(error).__name__
    assert record.error_message == str(error)


def test_a_partial_success_is_recorded_as_it_is(store):
    steps = ["download"]
    with store.track(JOB, "worker-1") as execution:
        execution.partial_success({"completed_steps": steps, "failed_steps": ["upload"]})
        steps.append("changed later")

    record = only(store.query(status="partial_success"))
    assert (record.completed_steps, record.failed_steps) == (["download"], ["upload"])


def test_an_exception_after_a_partial_success_is_a_failure(store):
    @store.track(JOB, "worker-1")
    def work():
        current_execution().partial_success({})
        raise ValueError("then")

    with pytest.raises(ValueError, match="then"):
        work()
    assert only(store.query()).status is Status.FAILED


def test_a_function_is_an_execution_each_time_it_is_called(store):
    @store.track(JOB, "worker-1")
    def resize(path, *, size=1):
        """Make it smaller."""
        if size == 0:
            raise ValueError("to nothing?")
        return f"{path} at {size}"

    assert resize("a.png", size=2) == "a.png at 2"
    with pytest.raises(ValueError, match="to nothing"):
        resize("a.png", size=0)
    assert resize.__doc__ == "Make it smaller."
    assert sorted(r.status for r in store.query()) == ["completed", "failed"]


def test_the_job_of_a_function_is_made_from_its_arguments(store):
    @store.track(lambda order_id, **_: Job(order_id, "ship_order"), "worker-1")
    def ship(order_id, express=False):
        return current_execution().correlation_id

    correlations = {ship(1), ship(2, express=True)}

    assert sorted(r.job_id for r in store.query(status="completed")) == ["1", "2"]
    assert len(correlations) == 2


def test_a_coroutine_is_tracked_without_blocking_its_loop(store):
    threads = set()
    original = store._history.insert
    store._history.insert = lambda row: threads.add(threading.current_thread()) or original(row)

    @store.track(lambda n: Job(n, "fetch"), "worker-1")
    async def fetch(number):
        await asyncio.sleep(0)
        return number * 2

    async def main():
        return await asyncio.gather(*(fetch(n) for n in range(5)))

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]
    assert len(store.query(status="completed")) == 5
    assert threading.main_thread() not in threads


def test_correlation_comes_from_the_enclosing_execution(store):
    assert current_execution() is None
    with store.track(Job(1, "outer"), "w", "request-1") as outer:
        with store.track(Job(2, "inner"), "w"):
            with store.track(Job(3, "innermost"), "w") as innermost:
                assert current_execution() is innermost
            with store.track(Job(4, "apart"), "w", "request-2"):
                pass
        assert current_execution() is outer
        thread = threading.Thread(target=lambda: store.track(Job(5, "thread"), "w").__enter__())
        thread.start()
        thread.join()
    assert current_execution() is None

    found = {r.task_identifier: r.correlation_id for r in store.query()}
    assert found["inner"] == found["innermost"] == found["outer"] == "request-1"
    assert found["apart"] == "request-2"
    assert found["thread"] not in ("request-1", "request-2")


def test_correlation_follows_tasks(store):
    async def main():
        async with store.track(Job(1, "outer"), "w", "request-1"):
            await asyncio.gather(*(child(n) for n in range(3)))
        await child(9)

    @store.track(lambda n: Job(n, "child"), "w")
    async def child(number):
        await asyncio.sleep(0)

    asyncio.run(main())
    assert len(store.get_by_correlation_id("request-1")) == 4
    assert current_execution() is None


def test_executions_of_the_same_ids_end_each_their_own(store, stopwatch):
    """Two simultaneous calls of a function for one job each get their own outcome."""

    @store.track(JOB, "w", "c")
    async def work(begun, end):
        begun.set()
        await end.wait()

    async def main():
        first, second = ((asyncio.Event(), asyncio.Event()) for _ in range(2))
        tasks = [asyncio.create_task(work(*first))]
        await first[0].wait()
        stopwatch.now += 10
        tasks.append(asyncio.create_task(work(*second)))
        await second[0].wait()
        stopwatch.now += 5
        first[1].set()
        await tasks[0]
        second[1].set()
        await tasks[1]

    asyncio.run(main())

    younger, older = store.query()
    assert (older.execution_time_ms, younger.execution_time_ms) == (15_000, 5_000)


@pytest.fixture
def no_table(database):
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE job_history RENAME TO elsewhere"))
    back = text("ALTER TABLE elsewhere RENAME TO job_history")

    def bring_back():
        nonlocal back
        if back is not None:
            with database.engine.begin() as connection:
                connection.execute(back)
            back = None

    yield bring_back
    bring_back()


def test_a_failure_of_history_is_logged_and_the_job_runs(store, no_table, caplog):
    with store.track(JOB, "worker-1"):
        ran = True
    no_table()

    assert ran
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]
    assert caplog.messages[0].startswith("not recorded: the start of resize: ")
    assert caplog.messages[1].startswith("not recorded: the outcome of resize: ")
    assert store.query() == store.recent() == []


def test_a_start_that_could_not_be_recorded_is_recorded_with_the_outcome(store, no_table, caplog):
    with store.track(JOB, "worker-1"):
        no_table()

    record = only(store.query(status="completed"))
    assert record.payload == {"path": "a.png"}
    assert only(store.recent()).id == record.id
    assert len(caplog.messages) == 1


def test_a_failure_of_history_is_raised_if_that_is_asked_for(store, no_table):
    @store.track(JOB, "worker-1", on_history_error="raise")
    def work():
        pytest.fail("the job runs")

    with pytest.raises(SchemaOutOfDate, match="no history table"):
        work()
    assert current_execution() is None


def test_the_jobs_own_exception_passes_even_then(store, caplog):
    @store.track(JOB, "worker-1", "c", on_history_error="raise")
    def work(error):
        store.record_completion(JOB.id, "worker-1", "c", 1)
        raise error

    with pytest.raises(ZeroDivisionError):
        work(ZeroDivisionError())
    assert "already ended as 'completed'" in caplog.text


def test_a_job_that_records_its_own_outcome_hears_of_it(store):
    @store.track(JOB, "worker-1", "c", on_history_error="raise")
    def work():
        store.record_failure(JOB.id, "worker-1", "c", 1, "x")

    with pytest.raises(ExecutionAlreadyFinished, match="already ended as 'failed'"):
        work()


@pytest.mark.parametrize(
    ("job", "worker_id", "options"),
    [
        ({}, "w", {}),
        (Job("", "t"), "w", {}),
        (Job("1", None), "w", {}),
        ("nightly", "w", {}),
        ({"id": "1", "task_identifier": "t", "attempt": 2}, "w", {}),
        (lambda: JOB, "", {}),
        (JOB, "w", {"history_retention": "1 fortnight"}),
        (JOB, "w", {"correlation_id": 1.5}),
    ],
)
def test_a_wrong_argument_is_raised_when_a_function_is_decorated(store, job, worker_id, options):
    tracker = store.track(job, worker_id, **options)
    with pytest.raises(InvalidInput):
        tracker(lambda: pytest.fail("it runs"))
    with pytest.raises(InvalidInput), store.track(job, worker_id, **options):
        pytest.fail("it runs")
    assert current_execution() is None
    assert store.query() == []


def test_what_makes_a_wrong_job_raises_at_the_call(store, caplog):
    @store.track(lambda order: Job(order["id"], order["task"]), "w")
    def work(order):
        pytest.fail("it runs")

    with pytest.raises(KeyError, match="id"):
        work({})
    with pytest.raises(InvalidInput, match=r"job.id '' is empty"):
        work({"id": "", "task": "t"})
    assert current_execution() is None
    assert caplog.messages == store.query() == []


def test_partial_results_that_cannot_be_used_are_raised_where_they_are_given(store):
    with store.track(JOB, "worker-1") as execution:
        with pytest.raises(InvalidInput, match="completed_steps 5"):
            execution.partial_success({"completed_steps": 5})
        with pytest.raises(InvalidInput, match="'failed_step' is not a valid key"):
            execution.partial_success({"failed_step": "upload"})

    assert only(store.query()).status is Status.COMPLETED


def test_a_tracked_execution_takes_no_other_attributes(store):
    with store.track(JOB, "worker-1") as execution, pytest.raises(AttributeError, match="result"):
        execution.result = {"rows": 5}


class Coroutines:
    async def __call__(self, seconds):
        await asyncio.sleep(seconds)
        return current_execution()


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda seconds: Coroutines()(seconds),
        lambda: Coroutines(),
        lambda: functools.partial(Coroutines().__call__),
        lambda: lambda seconds: asyncio.ensure_future(Coroutines()(seconds)),
    ],
    ids=["lambda", "object", "partial", "future"],
)
def test_what_returns_an_awaitable_ends_when_that_has_been_awaited(store, make):
    async def main():
        work = store.track(JOB, "w")(make())
        begun = work(0.001)
        await asyncio.sleep(0)
        if not asyncio.iscoroutine(begun):
            assert asyncio.isfuture(begun)
        assert [r.status for r in store.query(status="completed")] == []
        return await begun

    assert asyncio.run(main()) is not None or make.__name__ == "future"
    assert only(store.query()).status is Status.COMPLETED
    assert current_execution() is None


def test_the_error_of_a_coroutine_that_a_function_returned_is_its_failure(store):
    async def fails():
        raise ValueError("later")

    work = store.track(JOB, "w")(lambda: fails())
    with pytest.raises(ValueError, match="later"):
        asyncio.run(awaited(work))
    assert only(store.query()).error_message == "later"


async def awaited(work):
    return await work()


def test_blocks_that_end_out_of_order_leave_no_ended_execution_current(store):
    first, second = store.track(Job(1, "t"), "w", "one"), store.track(Job(2, "t"), "w")
    first.__enter__()
    inner = second.__enter__()
    first.__exit__(None, None, None)
    assert current_execution() is inner
    second.__exit__(None, None, None)
    assert current_execution() is None

    with store.track(Job(3, "t"), "w"):
        pass
    assert [r.correlation_id == "one" for r in store.query(order="oldest")] == [True, True, False]


def test_a_task_that_outlives_its_execution_keeps_the_correlation_only(store):
    async def main():
        async with store.track(Job(1, "outer"), "w", "one"):
            task = asyncio.create_task(later())
        return await task

    async def later():
        await asyncio.sleep(0.001)
        seen = current_execution()
        async with store.track(Job(2, "later"), "w"):
            pass
        return seen

    assert asyncio.run(main()) is None
    assert len(store.get_by_correlation_id("one")) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_that_leaves_its_parents_block_does_not_end_it(database, clock):
    if database.name == "sqlite":
        pytest.skip("SQLite's library does not survive a fork")
    store = create_store(database.engine, clock=clock)
    child = None
    try:
        with store.track(JOB, "w"):
            child = os.fork()
            if child:
                os.waitpid(child, 0)
                assert only(store.query()).status is Status.STARTED
    finally:
        if child == 0:
            os._exit(0)
    assert only(store.query()).status is Status.COMPLETED
    assert len(store.recent()) == 1


def test_an_execution_whose_start_has_gone_is_recorded_whole(store, database):
    with store.track(JOB, "worker-1"), database.engine.begin() as connection:
        connection.execute(text("DELETE FROM job_history"))

    record = only(store.query())
    assert (record.status, record.payload) == ("completed", {"path": "a.png"})
    assert only(store.recent()).id == record.id


def test_no_log_line_shows_a_password(caplog):
    engine = create_engine("postgresql://app:hunter2@127.0.0.1:1/app")
    with create_store(engine).track(JOB, "worker-1"):
        pass
    assert len(caplog.messages) == 2
    assert "hunter2" not in caplog.text


def test_misuse_is_told(store):
    with pytest.raises(InvalidInput, match="on_history_error 'ignore'"):
        store.track(JOB, "w", on_history_error="ignore")

    def generator():
        yield

    async def async_generator():
        yield

    class Generator:
        def __call__(self):
            yield

    for function in (generator, async_generator, Generator()):
        with pytest.raises(InvalidInput, match="is a generator"):
            store.track(JOB, "w")(function)
    for method in (staticmethod(len), classmethod(len)):
        with pytest.raises(InvalidInput, match="decorate it below @staticmethod"):
            store.track(JOB, "w")(method)
    with pytest.raises(InvalidInput, match="is not a coroutine"):
        create_async_store().track(JOB, "w")(len)
    tracker = store.track(JOB, "w")
    with tracker, pytest.raises(RuntimeError, match="in use"):
        tracker.__enter__()
    with tracker:
        pass
    assert len(store.query(status="completed")) == 2


def run_async(database, clock, scenario):
    """Run a scenario with a store for asyncio on a database."""

    async def main():
        closing = []
        with async_engine(database, closing.append) as engine:
            result = await scenario(create_async_store(engine, clock=clock))
        await closing[0]
        return result

    return asyncio.run(main())


def test_for_asyncio_blocks_and_coroutines_are_tracked(database, clock):
    async def scenario(store):
        @store.track(lambda number: Job(number, "fetch"), "w")
        async def fetch(number):
            if number == 2:
                current_execution().partial_success({"failed_steps": ["parse"]})
            return 10 // number

        async with store.track(Job("outer", "crawl"), "w", "request-1"):
            results = await asyncio.gather(*map(fetch, (0, 1, 2)), return_exceptions=True)
        assert results[1:] == [10, 5]
        return {r.job_id: r.status for r in await store.get_by_correlation_id("request-1")}

    assert run_async(database, clock, scenario) == {
        "outer": "completed",
        "0": "failed",
        "1": "completed",
        "2": "partial_success",
    }


def test_a_cancelled_task_is_recorded_as_cancelled(database, clock):
    async def scenario(store):
        running = asyncio.Event()

        @store.track(JOB, "w")
        async def work():
            running.set()
            await asyncio.sleep(3600)

        task = asyncio.create_task(work())
        await running.wait()
        task.cancel("the server shuts down")
        with pytest.raises(asyncio.CancelledError):
            await task
        return await store.query()

    record = only(run_async(database, clock, scenario))
    assert (record.status, record.error_type) == ("cancelled", None)
    assert record.error_message == "the server shuts down"


@pytest.mark.parametrize("kind", ["async", "threads"])
def test_wherever_a_task_is_cancelled_its_execution_has_ended(database, clock, kind):
    """Some libraries cancel a task again and again, from its first step on."""

    async def scenario(store):
        if kind == "threads":
            store = create_store(database.engine, clock=clock)

        @store.track(JOB, "w")
        async def work():
            for _ in range(3):
                await asyncio.sleep(0)

        for steps in range(12):
            task = asyncio.create_task(work())
            for _ in range(steps):
                await asyncio.sleep(0)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
        records = store.query() if kind == "threads" else await store.query()
        return records, store.recent()

    records, recent = run_async(database, clock, scenario)
    assert {r.status for r in records} <= {"cancelled", "completed"}
    assert "cancelled" in {r.status for r in records}
    assert {r.id for r in records} == {r.id for r in recent}


def test_a_database_that_is_away_does_not_hold_up_the_job(caplog):
    async def main():
        engine = "postgresql://127.0.0.1:1/nowhere"
        async with create_async_store(engine) as store:
            async with store.track(JOB, "w"):
                ran = True
            with pytest.raises(OperationalError):
                async with store.track(JOB, "w", on_history_error="raise"):
                    pass
        return ran

    assert asyncio.run(main())
    assert len(caplog.messages) == 2


def test_a_block_with_an_id_continues_what_is_there(store, clock):
    id_ = new_execution_id(clock())
    store.record_start(JOB, "worker-1", "request-1", execution_id=id_)
    with store.track(JOB, "worker-1", "request-2", execution_id=id_) as execution:
        assert execution.id == id_

    record = only(store.query())
    assert (record.status, record.correlation_id) == ("completed", "request-1")


def test_an_id_is_for_a_block_and_not_for_each_call_of_a_function(store, clock):
    track = store.track(JOB, "worker-1", execution_id=new_execution_id(clock()))
    with pytest.raises(InvalidInput, match=r"execution_id .* track a block with it"):
        track(lambda: None)


def test_two_callbacks_can_enter_and_end_a_block(store):
    tracker = store.track(JOB, "worker-1")
    tracker.end()  # nothing was entered
    tracker.__enter__()
    inside = current_execution()
    tracker.end(Failure("OutOfMemory", "3 GB", "line 1"))
    tracker.end()

    assert current_execution() is None
    record = only(store.query())
    assert (record.id, record.error_type, record.error_stack) == (
        inside.id,
        "OutOfMemory",
        "line 1",
    )


def test_two_callbacks_can_enter_and_end_a_block_of_asyncio(clock):
    async def track():
        store = create_async_store(clock=clock)
        tracker = store.track(JOB, "worker-1")
        await tracker.end_async()
        await tracker.__aenter__()
        await tracker.end_async(ValueError("no"))
        await tracker.end_async()
        return await store.query()

    assert only(asyncio.run(track())).error_type == "ValueError"
