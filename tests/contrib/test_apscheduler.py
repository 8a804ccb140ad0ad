"""The adapter for APScheduler 3, in this process."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
import time
import weakref
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest

from jobhistory import InvalidInput, Recorder, create_async_store, create_store, current_execution
from jobhistory.aio import AsyncHistoryStore
from jobhistory.contrib.adapter import Carried, Replay

from ..servers import silent_server
from .workers import wait_for

pytest.importorskip("apscheduler")

from apscheduler.events import EVENT_ALL
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from jobhistory.contrib.apscheduler import enqueue, record_jobs, schedules
from jobhistory.contrib.replay import replay as replay_execution

pytestmark = [
    pytest.mark.adapters,
    # A scheduler that is shut down while it removes a job that has run does not find it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

HERE = __name__
CALLS: list[tuple] = []


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


@pytest.fixture
def store():
    with create_store() as store:
        yield store


@pytest.fixture
def scheduler():
    scheduler = new_scheduler()
    yield scheduler
    if scheduler.running:
        scheduler.shutdown()


def new_scheduler(**options):
    return BackgroundScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None}, **options)


def note(*args, **kwargs):
    CALLS.append((args, kwargs))
    return len(CALLS)


note_zero = partial(note, 0)


def fail(number=0):
    raise ValueError(f"number {number}")


def ended(store, count):
    records = store.query(order="oldest")
    return len(records) == count and all(r.status != "started" for r in records) and records


def run(scheduler, store, count):
    """Start the scheduler and return the records when there are so many."""
    if not scheduler.running:
        scheduler.start()
    return wait_for(lambda: ended(store, count), f"{count} records", timeout=20)


# One row per run


def test_each_run_of_a_job_is_a_row(scheduler, store):
    record_jobs(scheduler, store, result=True)
    begun = datetime.now(UTC)
    scheduler.add_job(
        note, "interval", ["ann"], {"order": 7}, seconds=0.1, id="tick", next_run_time=begun
    )
    scheduler.start()
    wait_for(lambda: len(CALLS) >= 3, "three runs")
    scheduler.shutdown()

    records = store.query(order="oldest")
    assert len(records) == len(CALLS)
    for number, record in enumerate(records, start=1):
        due = record.started_at - timedelta(milliseconds=record.queue_time_ms)
        assert record.job_id.startswith("tick@2")
        assert record.job_id.endswith("+00:00")
        scheduled = datetime.fromisoformat(record.job_id.removeprefix("tick@"))
        assert abs(due - scheduled) < timedelta(milliseconds=2)
        assert record.correlation_id == record.job_id
        assert record.task_identifier == f"{HERE}:note"
        assert (record.status, record.result) == ("completed", number)
        assert (record.attempt_number, record.will_retry) == (1, None)
        assert record.payload == {"args": ["ann"], "kwargs": {"order": 7}}
        assert record.worker_id == f"{socket.gethostname()}:{os.getpid()}"
        assert record.labels["queue"] == "default"
    assert len({r.job_id for r in records}) == len(records)


def test_a_failure_has_its_error_and_is_final(scheduler, store):
    record_jobs(scheduler, store)
    scheduler.add_job(fail, args=[7])

    (record,) = run(scheduler, store, 1)
    assert (record.status, record.error_type) == ("failed", "ValueError")
    assert record.error_message == "number 7"
    assert "in fail\n" in record.error_stack
    assert not record.will_retry


def test_it_may_be_called_after_the_start_and_for_executors_added_later(scheduler, store):
    scheduler.start()
    record_jobs(scheduler, store)
    scheduler.add_executor(ThreadPoolExecutor(1), "later")
    scheduler.add_executor("debug", "here")
    for executor in ("default", "later", "here"):
        scheduler.add_job(note, executor=executor)

    records = run(scheduler, store, 3)
    assert {r.labels["queue"] for r in records} == {"default", "later", "here"}


def test_runs_that_are_caught_up_are_rows_of_their_own(scheduler, store):
    record_jobs(scheduler, store)
    now = datetime.now(UTC)
    for coalesce in (True, False):
        scheduler.add_job(
            note,
            "interval",
            [coalesce],
            hours=1,
            start_date=now - timedelta(hours=2.5),
            next_run_time=now - timedelta(hours=2.5),
            coalesce=coalesce,
        )

    records = run(scheduler, store, 4)
    assert sorted(r.payload["args"] for r in records) == [[False], [False], [False], [True]]
    assert len({r.job_id for r in records}) == 4
    hours = sorted(r.queue_time_ms // 3_600_000 for r in records if r.payload["args"] == [False])
    assert hours == [0, 1, 2]


@pytest.mark.parametrize("skipped", ["ignore", "record"])
def test_what_never_begins_is_recorded_only_if_the_user_wants_that(scheduler, store, skipped):
    record_jobs(scheduler, store, skipped=skipped)
    release = threading.Event()
    now = datetime.now(UTC)
    scheduler.add_job(
        note,
        "interval",
        hours=1,
        id="late",
        start_date=now - timedelta(hours=1.5),
        next_run_time=now - timedelta(hours=1.5),
        coalesce=False,
        misfire_grace_time=3600,
    )
    scheduler.add_job(release.wait, "interval", [10], seconds=0.1, id="busy", next_run_time=now)
    scheduler.start()
    time.sleep(0.35)
    release.set()
    scheduler.remove_job("busy")
    wait_for(lambda: CALLS and not store.query(status="started"), "the jobs")

    cancelled = {
        (r.job_id.partition("@")[0], r.error_message) for r in store.query(status="cancelled")
    }
    expected = {
        ("late", "the run time was missed"),
        ("busy", "too many instances of the job were running"),
    }
    assert cancelled == (expected if skipped == "record" else set())
    assert len(store.query(task_identifier=f"{HERE}:note", status="completed")) == 1


def test_a_job_that_exits_is_a_failure_and_the_scheduler_goes_on(scheduler, store):
    record_jobs(scheduler, store)
    scheduler.add_job(sys.exit, args=[3])

    assert run(scheduler, store, 1)[0].error_type == "SystemExit"
    scheduler.add_job(note)
    assert run(scheduler, store, 2)[1].status == "completed"


def test_functions_without_a_name_have_that_of_their_job(scheduler, store):
    record_jobs(scheduler, store)
    scheduler.add_job(partial(note, 1), name="a partial")
    scheduler.add_job(lambda: None, name="a lambda")
    scheduler.add_job(Noting().method)

    names = {r.task_identifier for r in run(scheduler, store, 3)}
    assert names == {"a partial", "a lambda", f"{HERE}:Noting.method"}


class Noting:
    def method(self):
        note()


def test_a_job_is_the_current_execution_and_the_parent_of_what_it_starts(scheduler, store):
    record_jobs(scheduler, store)

    def start_another():
        carried = Carried.now()  # what an adapter would send along with a job of its framework
        assert carried.parent_id == current_execution().id
        with store.track({"id": "1", "task_identifier": "inner"}, "here"):
            pass

    scheduler.add_job(start_another, name="outer")
    outer, inner = run(scheduler, store, 2)
    assert outer.status == "completed"
    assert (inner.parent_id, inner.correlation_id) == (outer.id, outer.correlation_id)


# Set-up


def test_set_up_twice_it_records_once(scheduler, store):
    with create_store() as first:
        record_jobs(scheduler, first)
        record_jobs(scheduler, store)
        scheduler.start()
        record_jobs(scheduler, store)
        scheduler.add_job(note)
        run(scheduler, store, 1)
        scheduler.shutdown()

        assert first.query() == []
        assert len(store.query()) == len(CALLS) == 1


def test_two_schedulers_in_one_process_are_kept_apart(scheduler, store):
    other = new_scheduler()
    with create_store() as others:
        record_jobs(scheduler, store)
        record_jobs(other, others)
        scheduler.add_job(note, args=[1])
        other.add_job(note, args=[2])

        assert run(scheduler, store, 1)[0].payload["args"] == [1]
        assert run(other, others, 1)[0].payload["args"] == [2]
        other.shutdown()


def test_listeners_of_the_app_hear_what_they_did(scheduler, store):
    def heard():
        scheduler = new_scheduler()
        events = []
        scheduler.add_listener(events.append, EVENT_ALL)
        if records:
            record_jobs(scheduler, store)
        scheduler.add_job(note, id="good")
        scheduler.add_job(fail, id="bad")
        scheduler.start()
        wait_for(lambda: sum(hasattr(e, "retval") for e in events) == 2, "two ends")
        scheduler.shutdown()
        return sorted(
            (e.code, getattr(e, "job_id", ""), type(getattr(e, "exception", None)).__name__)
            for e in events
        )

    records = False
    without = heard()
    records = True
    assert heard() == without


def test_after_close_nothing_is_recorded_and_what_runs_is_ended(scheduler, store):
    history = record_jobs(scheduler, store)
    release = threading.Event()
    scheduler.add_job(release.wait, args=[10], id="before")
    scheduler.start()
    wait_for(store.query, "a start")
    history.close()
    history.close()
    scheduler.add_job(note, id="after")
    wait_for(lambda: CALLS, "the job")
    release.set()

    assert [r.job_id.partition("@")[0] for r in run(scheduler, store, 1)] == ["before"]


def test_a_scheduler_that_is_no_longer_used_is_collected(store):
    scheduler = new_scheduler()
    record_jobs(scheduler, store)
    scheduler.add_job(note)
    run(scheduler, store, 1)
    while scheduler.get_jobs():
        time.sleep(0.01)
    scheduler.shutdown()
    gone = weakref.ref(scheduler)
    del scheduler
    gc.collect()

    assert gone() is None


def test_tasks_can_be_left_out(scheduler, store):
    record_jobs(scheduler, store, skip=[f"{HERE}:note"])
    scheduler.add_job(note)
    scheduler.add_job(fail)

    assert run(scheduler, store, 1)[0].task_identifier == f"{HERE}:fail"
    wait_for(lambda: CALLS, "the other job")


def test_the_functions_among_the_options_get_the_job(scheduler, store):
    record_jobs(
        scheduler,
        store,
        correlation_id=lambda job: f"of {job.id}",
        worker_id=lambda job: f"worker of {job.executor}",
        payload=lambda job: job.name,
    )
    scheduler.add_job(note, id="tick", name="Tick")

    (record,) = run(scheduler, store, 1)
    assert record.correlation_id == "of tick"
    assert record.worker_id == "worker of default"
    assert record.payload == "Tick"


def test_what_cannot_be_used_is_refused_at_once(scheduler, store, tmp_path):
    with pytest.raises(InvalidInput, match="skiped"):
        record_jobs(scheduler, store, skiped="record")
    with pytest.raises(InvalidInput, match="for asyncio"):
        record_jobs(scheduler, create_async_store())
    asyncio_scheduler = AsyncIOScheduler(executors={"default": ThreadPoolExecutor(1)})
    with pytest.raises(InvalidInput, match="ThreadPoolExecutor is not"):
        record_jobs(asyncio_scheduler, create_async_store())


def test_a_process_pool_needs_a_store_that_it_can_make(scheduler, store, caplog):
    scheduler.add_executor(ProcessPoolExecutor(1), "processes")
    with pytest.raises(InvalidInput, match="pass a function of a module"):
        record_jobs(scheduler, store)
    with pytest.raises(InvalidInput, match="pass a function of a module"):
        record_jobs(scheduler, create_store, payload=lambda job: None)
    record_jobs(scheduler, create_store)  # a function of a module

    late = new_scheduler()
    record_jobs(late, store)
    late.add_executor(ProcessPoolExecutor(1), "processes")
    late.add_job(note)
    run(late, store, 1)
    late.shutdown()
    assert "jobs of the executor processes are not recorded" in caplog.text


# Event loops


async def sleep(seconds):
    await asyncio.sleep(seconds)
    return current_execution().id


def block(seconds):
    time.sleep(seconds)
    return current_execution().id


async def async_fail():
    raise ValueError("in a coroutine")


async def run_in_loop(make_store, jobs):
    """Run jobs in an `AsyncIOScheduler` until they have ended; return the records by task."""
    store = make_store()
    scheduler = AsyncIOScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None})
    record_jobs(scheduler, store, result=True)
    for job in jobs:
        scheduler.add_job(*job)
    scheduler.start()

    async def query():
        records = store.query()
        return await records if isinstance(store, AsyncHistoryStore) else records

    for _ in range(200):
        records = await query()
        if len(records) == len(jobs) and all(r.status != "started" for r in records):
            break
        await asyncio.sleep(0.05)
    scheduler.shutdown()
    await asyncio.sleep(0.05)
    return {r.task_identifier.partition(":")[2]: r for r in await query()}


@pytest.mark.parametrize("make_store", [create_store, create_async_store])
def test_coroutines_and_functions_of_an_event_loop_are_recorded(make_store):
    jobs = [(sleep, None, [0.05]), (block, None, [0.05]), (async_fail,), (fail,)]
    records = asyncio.run(run_in_loop(make_store, jobs))

    for name in ("sleep", "block"):
        assert records[name].status == "completed"
        assert records[name].result == str(records[name].id)
        assert records[name].execution_time_ms >= 50
    assert records["async_fail"].error_message == "in a coroutine"
    assert "in async_fail\n" in records["async_fail"].error_stack
    assert records["fail"].error_message == "number 0"


def test_jobs_that_a_shutdown_cancels_are_cancelled(store):
    async def main():
        scheduler = AsyncIOScheduler(timezone="UTC")
        record_jobs(scheduler, store)
        scheduler.add_job(sleep, args=[30])
        scheduler.start()
        while not store.query():
            await asyncio.sleep(0.01)
        scheduler.shutdown()
        while store.query(status="started"):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 20))

    assert store.query()[0].status == "cancelled"


def test_in_an_event_loop_a_missed_run_is_recorded_without_blocking_it(store):
    async def main():
        scheduler = AsyncIOScheduler(timezone="UTC")
        record_jobs(scheduler, store, skipped="record")
        late = datetime.now(UTC) - timedelta(hours=1)
        scheduler.add_job(sleep, "date", [0], run_date=late, misfire_grace_time=1)
        scheduler.start()
        while not store.query():
            await asyncio.sleep(0.01)
        scheduler.shutdown()

    asyncio.run(asyncio.wait_for(main(), 20))

    assert store.query()[0].error_message == "the run time was missed"


def test_a_database_that_never_answers_does_not_block_the_event_loop():
    async def main(url):
        lags = []

        async def tick():
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                lags.append(time.monotonic() - before - 0.01)

        ticking = asyncio.create_task(tick())
        scheduler = AsyncIOScheduler(timezone="UTC")
        with create_store(url) as store:
            record_jobs(scheduler, store)
            scheduler.start()
            done = asyncio.Event()
            scheduler.add_job(finish, args=[done])
            await asyncio.wait_for(done.wait(), 5)
            scheduler.shutdown()
            ticking.cancel()
            await asyncio.sleep(0.5)
        return max(lags)

    async def finish(done):
        done.set()

    with silent_server() as port:
        lag = asyncio.run(main(f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"))
    assert lag < 0.5  # far below the 2 s for which a call to the database may take


# What must not break a job


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__

    def __reduce__(self):
        raise RuntimeError


def fail_badly(data, password=None):
    raise Unprintable


def test_errors_and_arguments_that_are_hard_to_store_break_nothing(scheduler, store, caplog):
    record_jobs(scheduler, store)
    scheduler.add_job(fail_badly, args=["x" * 10_000_000], kwargs={"password": "hunter2"})
    scheduler.add_job(fail_badly, args=["a\0b\ud800"], kwargs={"password": "hunter2"})
    scheduler.add_job(fail_badly, args=[object()], kwargs={"password": "hunter2"})

    records = run(scheduler, store, 3)
    for record in records:
        assert record.error_type.endswith("Unprintable")
        assert record.payload_is_exact is False
    assert "hunter2" not in repr([r.to_dict() for r in records])
    ours = [r for r in caplog.records if r.name.startswith("jobhistory")]
    assert ours == []


@pytest.mark.parametrize("answers", ["refuses", "never answers"])
def test_while_the_database_is_away_the_jobs_run(scheduler, answers, caplog):
    with silent_server() as port:
        port = port if answers == "never answers" else 1
        with create_store(f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres") as store:
            record_jobs(scheduler, store)
            for number in range(20):
                scheduler.add_job(note, args=[number])
            begun = time.monotonic()
            scheduler.start()
            wait_for(lambda: len(CALLS) == 20, "the jobs")
            assert time.monotonic() - begun < 5
            scheduler.shutdown()

    assert "not recorded" in caplog.text
    assert "raised an exception" not in caplog.text


@pytest.mark.parametrize("is_running", [False, True])
def test_a_starting_scheduler_ends_what_processes_that_are_gone_have_left(
    scheduler, store, is_running
):
    gone = f"{socket.gethostname()}:{2**22 + 1}"
    store.record_start({"id": "1", "task_identifier": "t"}, gone, "c")
    store.record_start({"id": "2", "task_identifier": "t"}, f"{socket.gethostname()}:1", "c")
    if is_running:
        scheduler.start()
    record_jobs(scheduler, store)
    if not is_running:
        scheduler.start()

    lost = wait_for(lambda: store.query(status="failed"), "the lost one")
    assert lost[0].error_type == "jobhistory.WorkerLost"
    assert [r.job_id for r in store.query(status="started")] == ["2"]


def test_a_recorder_is_flushed_when_the_scheduler_shuts_down(scheduler):
    written = create_store()
    record_jobs(scheduler, lambda: Recorder(written, max_delay=60))
    started = threading.Event()

    def slow():
        started.set()
        time.sleep(0.3)

    scheduler.add_job(slow)
    scheduler.start()
    started.wait(10)
    scheduler.shutdown()  # waits for the job

    assert [r.status for r in written.query()] == ["completed"]


def test_a_scheduler_that_starts_again_has_one_store_until_it_shuts_down(scheduler):
    made = []

    def make():
        made.append(create_store())
        return made[-1]

    scheduler.add_executor("debug")  # a pool cannot start again
    record_jobs(scheduler, make)
    for cycle in (1, 2):
        scheduler.start()
        for _ in range(2):
            scheduler.add_job(note)
        wait_for(lambda until=2 * cycle: len(CALLS) == until, "the jobs")
        wait_for(lambda: not scheduler.get_jobs(), "their removal")
        scheduler.shutdown()

    assert [len(each.query()) for each in made] == [2, 2]


@pytest.mark.parametrize("ends", ["shutdown", "close"])
def test_a_recorder_is_flushed_after_the_runs_that_nobody_waits_for(scheduler, ends):
    written = create_store()
    history = record_jobs(scheduler, lambda: Recorder(written, max_delay=60))
    started, release = threading.Event(), threading.Event()

    def slow():
        started.set()
        release.wait(10)

    scheduler.add_job(slow)
    scheduler.start()
    started.wait(10)
    if ends == "shutdown":
        scheduler.shutdown(wait=False)
    else:
        history.close()
    release.set()

    wait_for(lambda: written.query(status="completed"), "the outcome")


def test_without_apscheduler_the_import_says_what_to_install(monkeypatch):
    for name in [each for each in sys.modules if each.startswith("jobhistory.contrib.apscheduler")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apscheduler.schedulers.base", None)

    with pytest.raises(ImportError, match=r"pip install 'jobhistory\[apscheduler\]'"):
        import jobhistory.contrib.apscheduler  # noqa: F401


# Schedules


@pytest.mark.parametrize(
    ("fields", "cron"),
    [
        ({"hour": 2, "minute": 17}, "17 2 * * *"),
        ({"minute": "*/15"}, "*/15 * * * *"),
        ({"minute": "5/20"}, "5-59/20 * * * *"),
        ({"minute": "0,30", "hour": "8-18/2"}, "0,30 8-18/2 * * *"),
        ({"day": 1}, "0 0 1 * *"),
        ({"month": "jan,jun-aug", "day": 15}, "0 0 15 1,6-8 *"),
        ({"day_of_week": 0, "hour": 3}, "0 3 * * 1"),  # Monday
        ({"day_of_week": 6}, "0 0 * * 0"),  # Sunday
        ({"day_of_week": "mon-fri", "hour": 9}, "0 9 * * 1-5"),
        ({"day_of_week": "sat,sun"}, "0 0 * * 0,6"),
        ({"day_of_week": "fri-sun"}, "0 0 * * 0,5,6"),
        ({"day_of_week": "*/2"}, "0 0 * * 0,1,3,5"),
        ({"day_of_week": "mon-sun"}, "0 0 * * *"),
        ({"second": "0", "minute": "*"}, "* * * * *"),
        ({"second": "*/10"}, None),
        ({"second": 30, "minute": 5}, None),
        ({"year": 2027}, None),
        ({"week": "*/2", "day_of_week": 0}, None),
        ({"day": "last"}, None),
        ({"day": "2nd fri"}, None),
        ({"day": "1-7", "day_of_week": "mon"}, None),  # cron means one or the other
        ({"hour": 1, "end_date": "2999-01-01"}, None),
        ({"hour": 1, "start_date": "2999-01-01"}, None),
        ({"hour": 1, "start_date": "2001-01-01"}, "0 1 * * *"),
    ],
)
def test_a_trigger_is_written_as_cron_if_cron_can_express_it(scheduler, fields, cron):
    scheduler.add_job(note, "cron", id="nightly", **fields)

    (schedule,) = schedules(scheduler)
    assert schedule.name == "nightly"
    assert schedule.task_identifier == f"{HERE}:note"
    assert schedule.description.startswith("cron[")
    assert schedule.cron == cron


@pytest.mark.parametrize("field", ["day_of_week", "day", "month", "hour", "minute"])
def test_what_is_written_as_cron_fires_on_the_same_days(field):
    # Not by another reader of cron: by the numbers of days that cron and Python have.
    expressions = {
        "day_of_week": ["0", "1-3", "sun", "thu-sat", "1-5/2", "0,6"],
        "day": ["*/7", "3/9", "1-9/4"],
        "month": ["*/5", "feb-apr", "2/4"],
        "hour": ["*/7", "20/2"],
        "minute": ["*/25", "1-50/24"],
    }[field]
    for expression in expressions:
        trigger = CronTrigger(**{field: expression}, timezone="UTC")
        scheduler = new_scheduler()
        scheduler.add_job(note, trigger)
        written = schedules(scheduler)[0].cron.split()
        now, fired = datetime(2027, 1, 1, tzinfo=UTC), set()
        for _ in range(60):
            fired.add(value_in(now := trigger.get_next_fire_time(None, now), field))
            now += timedelta(seconds=1)
        position = ["minute", "hour", "day", "month", "day_of_week"].index(field)
        low, high = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)][position]
        assert fired <= expanded(written[position], low, high), expression
        if field != "day":  # not every month has a 31st
            assert fired == expanded(written[position], low, high), expression


def value_in(moment, field):
    return moment.isoweekday() % 7 if field == "day_of_week" else getattr(moment, field)


def expanded(written, low, high):
    values = set()
    for part in written.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        values.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return values


def test_the_periodic_jobs_are_listed_with_their_time_zones(scheduler, store):
    berlin = ZoneInfo("Europe/Berlin")
    scheduler.add_job(note, "interval", minutes=5, id="often", timezone=berlin)
    scheduler.add_job(note, CronTrigger(hour=3, timezone=berlin), id="nightly")
    scheduler.add_job(note, OrTrigger([IntervalTrigger(hours=1)]), id="either")
    scheduler.add_job(note, DateTrigger("2999-01-01"), id="once")
    scheduler.add_job(note, "interval", minutes=5, id="paused", next_run_time=None)

    def listed():
        return {
            s.name: (s.task_identifier, s.cron, s.every, s.timezone) for s in schedules(scheduler)
        }

    expected = {
        "often": (f"{HERE}:note", None, timedelta(minutes=5), "Europe/Berlin"),
        "nightly": (f"{HERE}:note", "0 3 * * *", None, "Europe/Berlin"),
        "either": (f"{HERE}:note", None, None, None),
    }
    assert listed() == expected
    scheduler.start()
    assert listed() == expected


def test_a_trigger_that_is_neither_cron_nor_an_interval_has_a_description(scheduler):
    triggers = pytest.importorskip("apscheduler.triggers.calendarinterval")  # since 3.11
    trigger = triggers.CalendarIntervalTrigger(months=1, timezone="UTC")
    scheduler.add_job(note, trigger, id="monthly")

    (schedule,) = schedules(scheduler)
    assert (schedule.cron, schedule.every, schedule.timezone) == (None, None, "UTC")
    assert schedule.description == str(trigger)


# Replay


def replay(task, *args, queue=None, **kwargs):
    return Replay(
        task_identifier=task,
        args=list(args),
        kwargs=kwargs,
        correlation_id="request-7",
        queue=queue,
        carried=Carried(
            correlation_id="request-7", replay_of="0190163d-8694-739b-aea5-966c26f8ad91"
        ),
    )


def test_a_replay_runs_the_function_of_a_job_again(scheduler, store):
    record_jobs(scheduler, store)
    scheduler.add_executor(ThreadPoolExecutor(1), "other")
    for executor in ("default", "other"):
        scheduler.add_job(note, "interval", hours=1, executor=executor, name="Note")
    scheduler.add_job(partial(note, 0), "interval", hours=1, name="a partial")
    scheduler.add_job(Noting().method, "interval", hours=1)
    scheduler.add_job(f"{HERE}:note_zero", "interval", hours=1)  # not the name it has itself
    scheduler.start()
    ids = [
        enqueue(scheduler, replay(f"{HERE}:note", 1, b=2)),
        enqueue(scheduler, replay(f"{HERE}:note", 1, b=2, queue="other")),
        enqueue(scheduler, replay("a partial", 1)),
        enqueue(scheduler, replay(f"{HERE}:Noting.method")),
        enqueue(scheduler, replay(f"{HERE}:note_zero", 2)),
    ]

    records = {r.job_id: r for r in run(scheduler, store, 5)}
    assert set(records) == set(ids)
    queues = [records[id_].labels["queue"] for id_ in ids]
    assert queues == ["default", "other", "default", "default", "default"]
    called = [((), {}), ((0, 1), {}), ((0, 2), {}), ((1,), {"b": 2}), ((1,), {"b": 2})]
    assert sorted(CALLS, key=str) == called
    for record in records.values():
        assert record.correlation_id == "request-7"
        assert record.labels["replay_of"] == "0190163d-8694-739b-aea5-966c26f8ad91"
    assert records[ids[2]].task_identifier == "a partial"  # without what its name carries
    assert records[ids[4]].task_identifier == f"{HERE}:note_zero"
    wait_for(lambda: len(scheduler.get_jobs()) == 5, "the removal of the replays")


def test_a_replay_runs_no_matter_how_busy_the_scheduler_is():
    scheduler = BackgroundScheduler(timezone="UTC")  # drops what is late by a second
    scheduler.add_job(note, "interval", hours=1)
    scheduler.start(paused=True)
    enqueue(scheduler, replay(f"{HERE}:note"))

    (once,) = [job for job in scheduler.get_jobs() if isinstance(job.trigger, DateTrigger)]
    assert once.misfire_grace_time is None
    scheduler.shutdown()


def test_a_replay_survives_a_job_store_in_a_database(scheduler, store, tmp_path):
    scheduler.add_jobstore(SQLAlchemyJobStore(f"sqlite:///{tmp_path}/jobs.db"))
    record_jobs(scheduler, store)
    scheduler.add_job(f"{HERE}:note", "interval", hours=1, id="hourly")
    scheduler.start()
    id_ = enqueue(scheduler, replay(f"{HERE}:note", 1))

    (record,) = run(scheduler, store, 1)
    assert record.job_id == id_
    assert record.labels["replay_of"] == "0190163d-8694-739b-aea5-966c26f8ad91"
    scheduler.shutdown()
    scheduler._jobstores["default"].engine.dispose()


def test_an_execution_is_replayed_through_the_scheduler(scheduler, store):
    record_jobs(scheduler, store)
    scheduler.add_job(
        note, "interval", ["ann"], {"order": 7}, hours=1, next_run_time=datetime.now(UTC)
    )
    (first,) = run(scheduler, store, 1)
    replayed = replay_execution(store, scheduler, first.id)

    second = run(scheduler, store, 2)[1]
    assert second.job_id == replayed.job_id
    assert second.payload == first.payload
    assert second.correlation_id == first.correlation_id


def test_a_replay_that_cannot_run_is_refused(scheduler):
    scheduler.add_job(note, "interval", hours=1)
    with pytest.raises(InvalidInput, match="has not been started"):
        enqueue(scheduler, replay(f"{HERE}:note"))
    scheduler.start()
    with pytest.raises(InvalidInput, match=f"'os:system' is the function of no job.*{HERE}:note"):
        enqueue(scheduler, replay("os:system", "ls"))
