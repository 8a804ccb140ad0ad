"""Signs of life and progress of executions that run."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref

import pytest
from sqlalchemy.orm import Session

from jobhistory import InvalidInput, Job, Recorder, create_async_store, create_store
from jobhistory import heartbeats as heartbeats_module
from jobhistory import lifecycle as lifecycle_module
from jobhistory._runtime.pulse import Pulse

JOB = Job("job-1", "import")


@pytest.fixture
def pace(monkeypatch):
    """Seconds that pass for the limit of one write per second; they go by by hand."""
    seconds = [100.0]
    monkeypatch.setattr(lifecycle_module, "monotonic", lambda: seconds[0])

    def wait(count):
        seconds[0] += count

    return wait


def stored(store):
    (record,) = store.get_by_job_id("job-1")
    return record.heartbeat_at, record.progress


def test_a_heartbeat_is_recorded(store, clock):
    execution = store.begin(JOB, "w")
    assert stored(store) == (None, None)
    clock.advance(seconds=3)
    execution.heartbeat()
    assert stored(store) == (clock.now, None)
    assert execution.record.heartbeat_at == clock.now
    execution.end()
    (record,) = store.get_by_job_id("job-1")
    assert (record.status, record.heartbeat_at) == ("completed", clock.now)


def test_progress_is_a_heartbeat_and_at_most_one_write_a_second(store, clock, pace):
    execution = store.begin(JOB, "w")
    execution.progress(0.1)
    first = clock.now
    clock.advance(seconds=1)
    pace(0.9)
    execution.progress(0.2)
    assert stored(store) == (first, 0.1)
    assert execution.record.progress == 0.2
    pace(0.1)
    execution.heartbeat()
    assert stored(store) == (clock.now, 0.2)


@pytest.mark.parametrize("outcome", [None, "no space"])
def test_the_outcome_records_progress_that_was_held_back(store, clock, pace, outcome):
    execution = store.begin(JOB, "w")
    execution.progress(0.1)
    execution.progress(1)
    execution.end(outcome)
    assert stored(store) == (clock.now, 1.0)
    execution.progress(0.5)
    execution.heartbeat()
    assert stored(store) == (clock.now, 1.0), "an execution that has ended stays as it is"


def test_signs_of_life_never_revive_an_execution(store, clock):
    execution = store.begin(JOB, "w")
    clock.advance(hours=3)
    store.reap_lost("2h")
    execution.heartbeat()
    (record,) = store.get_by_job_id("job-1")
    assert (record.status, record.heartbeat_at) == ("failed", None)


@pytest.mark.parametrize("outcome", [None, "no space"])
def test_progress_before_a_recorder_has_written_the_start_comes_with_the_outcome(
    database_store, outcome
):
    with Recorder(database_store, max_delay=60) as recorder:
        execution = recorder.begin(JOB, "w")
        execution.progress(0.5)
        execution.end(outcome)
    assert stored(database_store)[1] == 0.5


def test_progress_whose_heartbeat_failed_comes_with_the_outcome(database, pace):
    store = create_store(database.engine)
    execution = store.begin(JOB, "w")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job_history RENAME TO away")
    execution.progress(0.5)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO job_history")
    execution.end()
    assert stored(store)[1] == 0.5


def test_an_outcome_during_a_heartbeat_has_its_progress(database_store, monkeypatch):
    execution = database_store.begin(JOB, "w")
    monkeypatch.setattr(
        type(database_store.internals.history),
        "heartbeat",
        lambda history, *values: execution.end(),  # it is faster
    )
    execution.progress(0.5)
    assert stored(database_store)[1] == 0.5


def test_a_start_in_doubt_gets_the_progress_of_its_outcome(database_store, monkeypatch):
    """The database has committed the start, but the answer was lost."""
    history = type(database_store.internals.history)
    insert = history.insert

    def insert_without_answer(*args, **named):
        insert(*args, **named)
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(history, "insert", insert_without_answer)
        execution = database_store.begin(JOB, "w")
    execution.progress(0.5)
    execution.end()
    assert stored(database_store)[1] == 0.5


def test_a_signal_handler_may_report_while_its_thread_reports(plain_store):
    execution = plain_store.begin(JOB, "w")

    def interrupted():
        with lifecycle_module._lock:
            execution.progress(0.5)
            execution.end()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert stored(plain_store)[1] == 0.5


@pytest.mark.parametrize("share", [-0.1, 1.1, "half", None, True, float("nan")])
def test_progress_is_a_number_from_0_to_1(plain_store, share):
    execution = plain_store.begin(JOB, "w")
    with pytest.raises(InvalidInput, match="share"):
        execution.progress(share)


def test_an_outage_during_heartbeats_never_breaks_the_job(database, caplog, pace):
    store = create_store(database.engine)
    execution = store.begin(JOB, "w")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job_history RENAME TO away")
    try:
        caplog.set_level(logging.ERROR, logger="jobhistory")
        execution.progress(0.3)
        assert "not recorded: the heartbeat of import" in caplog.text
    finally:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO job_history")
    pace(1)
    execution.heartbeat()
    assert stored(store)[1] == 0.3


def test_a_start_that_was_not_recorded_is_recorded_with_its_signs_of_life(database, clock):
    store = create_store(database.engine, clock=clock)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job_history RENAME TO away")
    try:
        execution = store.begin(JOB, "w")
        execution.progress(0.3)
    finally:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO job_history")
    execution.end()
    assert stored(store)[1] == 0.3


# -- sent by track -------------------------------------------------------------------------------


@pytest.fixture
def pulse(monkeypatch):
    """The thread of heartbeats, which beats when a test tells it to."""

    class ByHand:
        def __init__(self):
            self.calls = []

        def add(self, call, seconds):
            self.calls.append((call, seconds))
            return lambda: self.calls.remove((call, seconds))

        def beat(self):
            for call, _ in list(self.calls):
                call()

    by_hand = ByHand()
    monkeypatch.setattr(heartbeats_module, "PULSE", by_hand)
    return by_hand


def test_track_sends_heartbeats_until_the_end(database, clock, pace, pulse):
    store = create_store(database.engine, clock=clock)
    begun = clock.now
    with store.track(JOB, "w", heartbeat="10s"):
        assert stored(store)[0] == begun, "a worker that dies at once has sent one"
        assert [seconds for _, seconds in pulse.calls] == [10]
        clock.advance(seconds=10)
        pace(10)
        pulse.beat()
        assert stored(store)[0] == clock.now
    assert pulse.calls == []


def test_track_sends_heartbeats_for_functions_and_coroutines(database, clock, pulse):
    store = create_store(database.engine, clock=clock)

    @store.track(JOB, "w", heartbeat="10s")
    def function():
        return len(pulse.calls)

    @store.track(JOB, "w", heartbeat="10s")
    async def coroutine():
        return len(pulse.calls)

    @store.track(JOB, "w", heartbeat="10s")
    def returns_a_coroutine():
        return coroutine()

    assert (function(), asyncio.run(coroutine())) == (1, 1)
    assert asyncio.run(returns_a_coroutine()) == 2
    assert pulse.calls == []
    assert {record.status for record in store.query()} == {"completed"}


def test_a_task_sends_the_heartbeats_of_an_asyncio_store(database, clock, pace, monkeypatch):
    slept = []

    async def at_once(seconds):
        slept.append(seconds)
        pace(seconds)
        await asyncio.Event().wait() if len(slept) > 2 else None

    monkeypatch.setattr(heartbeats_module, "sleep", at_once)

    async def main():
        async with create_async_store(async_url(database), clock=clock) as store:
            async with store.track(JOB, "w", heartbeat="10s"):
                clock.advance(seconds=10)
                while len(slept) <= 2:
                    await asyncio.sleep(0)
                (during,) = await store.get_by_job_id("job-1")
            (after,) = await store.get_by_job_id("job-1")
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return during, after, others

    during, after, others = asyncio.run(main())
    assert slept == [10, 10, 10]
    assert (during.status, during.heartbeat_at) == ("started", clock.now)
    assert (after.status, after.heartbeat_at) == ("completed", clock.now)
    assert others == set()


def async_url(database):
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}[database.name]
    return database.url.set(drivername=driver)


@pytest.mark.parametrize("heartbeat", ["0.5s", "soon", 10])
def test_the_interval_of_heartbeats_is_checked(plain_store, heartbeat):
    with pytest.raises(InvalidInput, match="heartbeat"):
        plain_store.track(JOB, "w", heartbeat=heartbeat)


def test_a_session_sends_no_heartbeats(database):
    store = create_store(database.engine)
    with Session(database.engine) as session, pytest.raises(InvalidInput, match="session"):
        store.in_session(session).track(JOB, "w", heartbeat="10s")


def test_a_recorder_writes_heartbeats_at_once(database_store, pace):
    with Recorder(database_store) as recorder:
        execution = recorder.begin(JOB, "w")
        recorder.flush()
        execution.progress(0.4)
        assert stored(database_store)[1] == 0.4
        execution.end()


# -- the thread ----------------------------------------------------------------------------------


def test_the_thread_calls_functions_again_and_again_until_they_are_removed():
    before = set(threading.enumerate())
    pulse = Pulse()
    twice = threading.Semaphore(0)
    others = threading.Semaphore(0)
    stop = pulse.add(twice.release, 0.001)
    stop_others = pulse.add(others.release, 0.002)
    for semaphore in (twice, twice, others, others):
        assert semaphore.acquire(timeout=10)
    stop()
    for _ in range(3):
        assert others.acquire(timeout=10)
    stop_others()
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon


def test_a_function_that_raises_does_not_end_the_thread(caplog):
    pulse = Pulse()
    called = threading.Semaphore(0)

    def broken():
        called.release()
        raise ZeroDivisionError

    stop = pulse.add(broken, 0.001)
    assert called.acquire(timeout=10)
    assert called.acquire(timeout=10)
    stop()
    assert "a heartbeat raised an error" in caplog.text


def test_a_removed_function_is_not_kept_until_it_would_have_been_due():
    class Job:
        def beat(self):
            pass

    pulse = Pulse()
    job = Job()
    gone = weakref.ref(job)
    pulse.add(job.beat, 3600)()
    del job
    gc.collect()
    assert gone() is None


def test_what_remains_of_removed_functions_is_bounded():
    pulse = Pulse()
    for _ in range(10_000):
        pulse.add(gc.collect, 3600)()
    assert len(pulse._due) < 2_000


def test_track_runs_the_job_if_no_thread_can_start(database, monkeypatch, caplog):
    pulse = Pulse()
    monkeypatch.setattr(heartbeats_module, "PULSE", pulse)
    store = create_store(database.engine)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _cannot_start)
        with store.track(JOB, "w", heartbeat="10s"):
            pass
    (record,) = store.get_by_job_id("job-1")
    assert record.status == "completed"
    assert "cannot start" in caplog.text
    called = threading.Semaphore(0)
    stop = pulse.add(called.release, 0.001)
    assert called.acquire(timeout=10), "the next one tries again"
    stop()


def _cannot_start(thread):
    raise RuntimeError("can't start new thread")
