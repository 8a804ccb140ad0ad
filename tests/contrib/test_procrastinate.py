"""Procrastinate in memory; `test_procrastinate_worker.py` has PostgreSQL and real workers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import UUID

import pytest
from croniter import croniter
from procrastinate import (
    App,
    BaseRetryStrategy,
    Blueprint,
    RetryDecision,
    RetryStrategy,
)
from procrastinate.exceptions import JobAborted
from procrastinate.testing import InMemoryConnector

from jobhistory import (
    AsyncRecorder,
    Cancelled,
    InvalidInput,
    NotReplayable,
    Recorder,
    create_async_store,
    create_store,
    current_execution,
)
from jobhistory.contrib.adapter import Carried, Recording, Replay
from jobhistory.contrib.procrastinate import enqueue, link, record_jobs, schedules
from jobhistory.contrib.replay import replay, replay_all_async

pytestmark = pytest.mark.adapters

HOST = socket.gethostname()
NICKNAMES = ["@hourly", "@Daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"]


class Unprintable(Exception):
    def __init__(self, lock):
        self.lock = lock

    def __str__(self):
        raise RuntimeError("no text")

    __reduce__ = __repr__ = __str__


class Broken(BaseRetryStrategy):
    def get_retry_decision(self, *, exception, job):
        raise RuntimeError("no decision")


class Twice(BaseRetryStrategy):
    """Retries in another queue."""

    def get_retry_decision(self, *, exception, job):
        return RetryDecision(queue="slow") if job.attempts < 1 else None


def make_app(*middlewares):
    """Return an app in memory with all kinds of tasks."""
    app = App(connector=InMemoryConnector(), worker_defaults={"worker_middleware": [*middlewares]})

    @app.task(name="add")
    def add(a=0, b=1, **kwargs):
        return a + b

    @app.task(name="add_async")
    async def add_async(a=0, b=1):
        await asyncio.sleep(0)
        return a + b

    @app.task(name="who")
    def who():
        return str(current_execution().id)

    @app.task(name="who_async")
    async def who_async():
        return str(current_execution().id)

    @app.task(name="fail")
    def fail(text="no such order"):
        raise LookupError(text)

    @app.task(name="flaky", retry=3, pass_context=True)
    def flaky(context, until=2):
        if context.job.attempts + 1 < until:
            raise ConnectionError("not yet")

    @app.task(name="only_some", retry=RetryStrategy(max_attempts=5, retry_exceptions={OSError}))
    async def only_some(kind):
        raise {"os": OSError, "value": ValueError}[kind]("no")

    @app.task(name="twice", retry=Twice())
    def twice():
        raise LookupError("no")

    @app.task(name="broken", retry=Broken())
    def broken():
        raise LookupError("no")

    @app.task(name="abort", retry=True)
    def abort():
        raise JobAborted

    @app.task(name="cancel")
    def cancel():
        raise Cancelled("sold out")

    @app.task(name="leave")
    def leave():
        sys.exit(3)

    @app.task(name="leave_async")
    async def leave_async():
        sys.exit(3)

    @app.task(name="unprintable")
    def unprintable():
        raise Unprintable(threading.Lock())

    @app.task(name="sleep")
    async def sleep(seconds):
        await asyncio.sleep(seconds)

    @app.task(name="order", retry=1, pass_context=True)
    async def order(context, number):
        await app.configure_task("add").defer_async(a=number, **link())
        if context.job.attempts == 0:
            raise ConnectionError("not yet")

    return app


async def work(app, **options):
    await app.run_worker_async(
        wait=False, install_signal_handlers=False, listen_notify=False, **options
    )


def run(app, *jobs, **options):
    """Defer jobs, each a name with arguments, and let a worker do them all; return their ids."""

    async def main():
        async with app.open_async():
            ids = [
                await app.configure_task(name).defer_async(**kwargs[0] if kwargs else {})
                for name, *kwargs in jobs
            ]
            await work(app, **options)
            return [str(id_) for id_ in ids]

    return asyncio.run(main())


@pytest.fixture
def store():
    return create_store()


@pytest.fixture
def app(store):
    return make_app(record_jobs(store, result=True))


def recorded(store, name=None):
    return store.query(order="oldest", task_identifier=name)


def statuses(app):
    return [row["status"] for row in app.connector.jobs.values()]


def test_a_job_is_recorded_with_its_arguments_queue_host_and_process(app, store):
    (id_,) = run(app, ("add", {"a": 1, "b": 2}))

    (record,) = recorded(store)
    assert (record.job_id, record.correlation_id) == (id_, id_)
    assert (record.task_identifier, record.status) == ("add", "completed")
    assert record.payload == {"args": [], "kwargs": {"a": 1, "b": 2}}
    assert record.payload_is_exact
    assert (record.attempt_number, record.result, record.queue_time_ms) == (1, 3, None)
    assert record.labels == {"queue": "default", "host": HOST, "pid": str(os.getpid())}
    assert record.worker_id == f"{HOST}:{os.getpid()}"


def test_a_failure_is_recorded_with_the_exception_and_its_traceback(app, store):
    run(app, ("fail", {"text": "no order 7"}), ("only_some", {"kind": "value"}))

    sync, coroutine = recorded(store)
    assert (sync.error_type, sync.error_message) == ("LookupError", "no order 7")
    assert "in fail\n" in sync.error_stack
    assert "in only_some\n" in coroutine.error_stack
    assert (sync.will_retry, coroutine.will_retry) == (False, False)
    assert statuses(app) == ["failed", "failed"]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (("flaky", {"until": 2}), [("failed", True), ("completed", None)]),
        (("flaky", {"until": 9}), [("failed", True)] * 3 + [("failed", False)]),
        (("only_some", {"kind": "value"}), [("failed", False)]),
        (("twice",), [("failed", True), ("failed", False)]),
        (("broken",), [("failed", None)]),
    ],
)
def test_each_attempt_is_a_row_that_tells_whether_another_follows(app, store, job, expected):
    with logging_off():
        run(app, job)

    records = recorded(store)
    assert [(each.status, each.will_retry) for each in records] == expected
    assert [each.attempt_number for each in records] == [*range(1, len(expected) + 1)]
    assert len({(each.job_id, each.correlation_id) for each in records}) == 1


def logging_off():
    """Procrastinate prints errors of retry strategies, and asyncio those of its tasks."""

    class Off:
        def __enter__(self):
            logging.disable(logging.CRITICAL)

        def __exit__(self, *_):
            logging.disable(logging.NOTSET)

    return Off()


def test_a_retry_has_its_own_queue_and_waiting_time(app, store):
    run(app, ("twice",))

    first, second = recorded(store)
    assert (first.labels["queue"], second.labels["queue"]) == ("default", "slow")
    assert first.queue_time_ms is None
    assert 0 <= second.queue_time_ms < 5_000


@pytest.mark.parametrize("name", ["abort", "cancel"])
def test_a_job_that_aborts_itself_is_cancelled(app, store, name):
    run(app, (name,))

    (record,) = recorded(store)
    assert record.status == "cancelled"
    assert record.error_message == {"abort": "Job was aborted.", "cancel": "sold out"}[name]


def test_a_coroutine_that_is_aborted_while_it_runs_is_cancelled(app, store):
    async def main():
        async with app.open_async():
            id_ = await app.configure_task("sleep").defer_async(seconds=60)
            worker = asyncio.create_task(work(app, abort_job_polling_interval=0.01))
            while not recorded(store):
                await asyncio.sleep(0.01)
            await app.job_manager.cancel_job_by_id_async(id_, abort=True)
            await worker

    asyncio.run(main())

    (record,) = recorded(store)
    assert (record.status, statuses(app)) == ("cancelled", ["aborted"])


@pytest.mark.parametrize(
    ("name", "kwargs", "status", "outcome"),
    [
        ("add_async", {}, "succeeded", "completed"),
        ("only_some", {"kind": "value"}, "failed", "failed"),
        ("only_some", {"kind": "os"}, "todo", "failed"),
    ],
)
def test_a_cancellation_while_the_outcome_is_written_changes_no_job(
    app, store, monkeypatch, name, kwargs, status, outcome
):
    real, ended = Recording.end_async, []

    async def slow(recording, *args, **kwargs):
        ended.append(name)
        try:
            await asyncio.sleep(2)
        finally:
            await real(recording, *args, **kwargs)

    async def main():
        async with app.open_async():
            await app.configure_task(name).defer_async(**kwargs)
            worker = asyncio.create_task(
                app.run_worker_async(
                    install_signal_handlers=False,
                    listen_notify=False,
                    shutdown_graceful_timeout=0.01,
                )
            )
            while not ended:
                await asyncio.sleep(0.01)
            worker.cancel()
            await asyncio.wait([worker])

    monkeypatch.setattr(Recording, "end_async", slow)
    asyncio.run(main())

    assert statuses(app) == [status]
    assert [each.status for each in recorded(store)] == [outcome]


@pytest.mark.parametrize("name", ["leave", "leave_async"])
def test_a_job_that_exits_has_failed_and_the_worker_goes_on(app, store, name):
    run(app, (name,), ("add",))

    first, second = recorded(store)
    assert (first.status, first.error_type) == ("failed", "SystemExit")
    assert second.status == "completed"


def test_an_unknown_task_leaves_no_row(app, store):
    run(app, ("no_such_task",))

    assert (recorded(store), statuses(app)) == ([], ["failed"])


@pytest.mark.parametrize("kind", ["sync", "async", "recorder", "async recorder"])
def test_every_kind_of_store_records_functions_and_coroutines(kind, database):
    store = create_store(database.engine)
    url = database.url.render_as_string(hide_password=False)
    make = {
        "sync": lambda: store,
        "async": lambda: create_async_store(url),
        "recorder": lambda: Recorder(create_store(url), max_delay=60),
        "async recorder": lambda: AsyncRecorder(create_async_store(url), max_delay=60),
    }[kind]
    history = record_jobs(make, end_leftovers=False)
    app = make_app(history)

    async def main():
        async with app.open_async():
            for name in ("who", "who_async", "fail", "only_some"):
                kwargs = {"kind": "value"} if name == "only_some" else {}
                await app.configure_task(name).defer_async(**kwargs)
            await work(app, concurrency=3)
        await history.close_async()

    asyncio.run(main())
    if kind == "sync":
        history.close()

    records = {each.task_identifier: each for each in store.query()}
    assert len(records) == 4
    assert {records[name].status for name in ("who", "who_async")} == {"completed"}
    assert {records[name].status for name in ("fail", "only_some")} == {"failed"}


def test_a_store_for_asyncio_is_closed_at_the_end_of_each_event_loop(database):
    url = database.url.render_as_string(hide_password=False)
    made = []

    def make():
        made.append(AsyncRecorder(create_async_store(url), max_delay=60))
        return made[-1]

    app = make_app(record_jobs(make, end_leftovers=False))
    for _ in range(2):
        run(app, ("add",), ("add_async",), concurrency=2)

    assert [each.counts.written for each in made] == [4, 4]
    assert create_store(database.engine).count(status="completed").value == 4


def test_a_recorder_that_the_app_closes_is_not_closed_again(database, caplog):
    url = database.url.render_as_string(hide_password=False)

    async def main():
        store = create_async_store(url)
        async with AsyncRecorder(store) as recorder:
            app = make_app(record_jobs(recorder, end_leftovers=False))
            async with app.open_async():
                await app.configure_task("add_async").defer_async()
                await work(app)
        await store.close()

    asyncio.run(main())

    assert create_store(database.engine).count(status="completed").value == 1
    assert [each for each in caplog.records if each.name.startswith("jobhistory")] == []


def test_the_current_execution_is_known_in_functions_and_coroutines(app, store):
    run(app, ("who",), ("who_async",), concurrency=2)

    assert [each.result for each in recorded(store)] == [str(each.id) for each in recorded(store)]


def test_jobs_that_run_at_once_do_not_mix_up_their_outcomes(app, store):
    jobs = [(name, {}) for _ in range(50) for name in ("add", "fail", "add_async")]
    run(app, *jobs, concurrency=20)

    assert {each.status for each in recorded(store, "fail")} == {"failed"}
    assert {each.status for each in recorded(store, "add")} == {"completed"}
    assert store.count().value == 150
    assert {each.parent_id for each in recorded(store)} == {None}


def test_a_link_makes_a_job_a_child_also_when_it_is_retried(app, store):
    (id_,) = run(app, ("order", {"number": 7}))

    first, second = recorded(store, "order")
    children = recorded(store, "add")
    assert (first.attempt_number, second.attempt_number) == (1, 2)
    assert {each.parent_id for each in (first, second)} == {None}
    assert [each.parent_id for each in children] == [first.id, second.id]
    assert {each.correlation_id for each in children} == {id_}
    assert [each.payload["kwargs"] for each in children] == [{"a": 7}] * 2
    assert all(0 <= each.queue_time_ms < 5_000 for each in children)


def test_a_retry_keeps_what_the_first_attempt_carried(app, store):
    parent = UUID("01890000-0000-7000-8000-000000000001")
    carried = Carried(parent_id=parent, correlation_id="request-1").as_header()
    run(app, ("flaky", {"until": 3, "_jobhistory": carried}))

    records = recorded(store)
    assert len(records) == 3
    assert {(each.parent_id, each.correlation_id) for each in records} == {(parent, "request-1")}


def test_a_link_that_somebody_made_up_fails_no_job(app, store):
    for made_up in ("x", {"parent_id": "x", "correlation_id": "\0" * 300}, None, 7):
        run(app, ("add_async", {"_jobhistory": made_up}))

    assert [each.status for each in recorded(store)] == ["completed"] * 4
    assert [each.parent_id for each in recorded(store)] == [None] * 4


def test_a_task_gets_no_link_if_it_is_not_recorded(store):
    history = record_jobs(store, skip=["add_async"])
    app = make_app(history)
    run(app, ("add_async", link()))
    history.close()
    run(app, ("add_async", link()))

    assert (recorded(store), statuses(app)) == ([], ["succeeded", "succeeded"])


def test_options_get_the_context_of_the_job(store):
    history = record_jobs(
        store,
        only=["add"],
        payload=lambda context: context.job.task_kwargs["a"],
        correlation_id=lambda context: f"order-{context.job.task_kwargs['a']}",
        worker_id=lambda context: context.worker_name,
        history_retention="2 days",
    )
    run(make_app(history), ("add", {"a": 7}), ("fail",), name="worker-1")

    (record,) = recorded(store)
    assert (record.payload, record.correlation_id, record.worker_id) == (7, "order-7", "worker-1")
    assert (record.expires_at - record.started_at).days == 2


def test_options_and_stores_that_cannot_be_used_are_refused():
    with pytest.raises(InvalidInput, match="skip"):
        record_jobs(create_store(), skip="add")
    with pytest.raises(InvalidInput, match="store"):
        record_jobs("sqlite:///x.db")


def test_set_up_twice_a_job_is_recorded_once(store):
    app = make_app(record_jobs(store), record_jobs(store))
    run(app, ("flaky", {"until": 2}), ("add",))

    assert store.count().value == 3


def test_two_apps_have_histories_of_their_own(app, store):
    other_store = create_store()
    other = make_app(record_jobs(other_store))

    async def main():
        async with app.open_async(), other.open_async():
            for number in range(20):
                await app.configure_task("add_async").defer_async(a=number)
                await other.configure_task("add").defer_async(a=number)
            await asyncio.gather(work(app, concurrency=5), work(other, concurrency=5))

    asyncio.run(main())

    assert [each.task_identifier for each in recorded(store)] == ["add_async"] * 20
    assert [each.task_identifier for each in recorded(other_store)] == ["add"] * 20


def test_the_apps_own_middlewares_run_and_replace_results_and_errors(store):
    seen = []

    async def own(call_next, context, worker):
        seen.append(dict(context.job.task_kwargs))
        try:
            return await call_next() * 10
        except LookupError as error:
            raise ConnectionError("replaced") from error

    app = make_app(record_jobs(store, result=True), own)
    run(app, ("add", {"a": 1, **link()}), ("fail",))

    completed, failed = recorded(store)
    assert seen == [{"a": 1}, {}]
    assert completed.result == 20
    assert failed.error_type == "ConnectionError"


def test_tasks_of_blueprints_are_recorded_with_their_names(app, store):
    tasks = Blueprint()

    @tasks.task(name="ship")
    def ship():
        pass

    app.add_tasks_from(tasks, namespace="shop")
    run(app, ("shop:ship",))

    assert recorded(store)[0].task_identifier == "shop:ship"


def test_secrets_nul_characters_and_errors_that_cannot_be_printed(app, store):
    run(app, ("add", {"text": "a\0b"}), ("add", {"password": "hunter2"}))
    with logging_off():
        run(app, ("unprintable",))

    nul, secret, unprintable = recorded(store)
    assert nul.status == "completed"
    assert secret.payload["kwargs"] == {"password": "[redacted]"}
    assert not secret.payload_is_exact
    assert unprintable.error_type.endswith("Unprintable")


def test_arguments_of_100_mb_are_cut(app, store, monkeypatch):
    # Procrastinate makes a text of them for its log each time, which takes longer than the rest.
    monkeypatch.setattr("procrastinate.jobs.Job.call_string", "add()")
    with logging_off():
        run(app, ("add", {"text": "x" * 100_000_000}))

    (record,) = recorded(store)
    assert record.status == "completed"
    assert len(str(record.payload)) < 1_000_000


@pytest.mark.parametrize("how", ["refusing", "hanging"])
@pytest.mark.parametrize("make", [create_store, create_async_store])
def test_a_database_that_does_not_answer_delays_jobs_little_and_fails_none(how, make, caplog):
    longest = 0

    async def measure():
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)

    async def main():
        history = record_jobs(make(f"postgresql://x@127.0.0.1:{port}/x"))
        app = make_app(history)
        async with app.open_async():
            for name in ("add", "add_async", "add", "add_async"):
                await app.configure_task(name).defer_async()
            lag = asyncio.create_task(measure())
            await work(app)
            lag.cancel()
        await history.close_async()
        return app

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if how == "refusing":
            server.close()
        started = time.monotonic()
        app = asyncio.run(main())
        elapsed = time.monotonic() - started

    assert statuses(app) == ["succeeded"] * 4
    assert elapsed < 8
    assert longest < 0.3
    assert "history" in caplog.text or "not recorded" in caplog.text


def test_the_first_job_of_a_worker_ends_what_processes_left_that_are_gone(store):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    job = {"id": "1", "task_identifier": "add"}
    store.record_start(job, f"{HOST}:{gone.pid}", "gone")
    store.record_start(job, f"{HOST}:{os.getppid()}", "running")
    store.record_start(job, f"other-host:{gone.pid}", "elsewhere")
    history = record_jobs(store)
    run(make_app(history), ("add",))

    def ended():
        return store.get_by_correlation_id("gone")[0].status == "failed"

    until = time.monotonic() + 5
    while not ended() and time.monotonic() < until:
        time.sleep(0.01)
    (lost,) = store.get_by_correlation_id("gone")
    assert lost.error_type == "jobhistory.WorkerLost"
    for correlation_id in ("running", "elsewhere"):
        assert store.get_by_correlation_id(correlation_id)[0].status == "started"


def test_the_periodic_tasks_of_an_app_are_its_schedules(app):
    @app.periodic(cron="17 2 * * *")
    @app.periodic(cron="*/10 * * * * */30", periodic_id="often")
    @app.task(name="report")
    def report(timestamp):
        pass

    often, nightly = schedules(app)
    assert (nightly.name, nightly.task_identifier) == ("report", "report")
    assert (nightly.cron, nightly.timezone) == ("17 2 * * *", "UTC")
    assert (often.name, often.cron) == ("often", None)
    assert often.description == "cron */10 * * * * */30"


@pytest.mark.parametrize("nickname", NICKNAMES)
def test_a_nickname_of_a_schedule_is_five_fields(app, nickname):
    app.periodic(cron=nickname)(app.tasks["add"])

    (schedule,) = schedules(app)
    assert schedule.description == f"cron {nickname}"
    assert croniter.expand(schedule.cron) == croniter.expand(nickname)


def test_procrastinate_means_schedules_in_utc(app, monkeypatch):
    """What `schedules` says about the time zone."""
    from procrastinate.periodic import PeriodicDeferrer

    @app.periodic(cron="0 12 * * *")
    @app.task(name="report")
    def report(timestamp):
        pass

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    midnight_utc = 1_780_272_000
    assert midnight_utc % 86_400 == 0
    try:
        deferrer = PeriodicDeferrer(app.periodic_registry)
        assert deferrer.get_next_tick(at=midnight_utc) == 12 * 3_600
    finally:
        monkeypatch.undo()
        time.tzset()


# Replay.


def job_to_replay(name, *args, queue="slow", **kwargs):
    return Replay(
        task_identifier=name,
        args=list(args),
        kwargs=kwargs,
        correlation_id="request-1",
        queue=queue,
        carried=Carried(
            correlation_id="request-1", replay_of=UUID("01890000-0000-7000-8000-000000000001")
        ),
    )


def test_a_job_is_deferred_again_with_its_correlation_id_and_queue(app, store):
    async def main():
        async with app.open_async():
            id_ = await enqueue(app, job_to_replay("flaky", until=2))
            await work(app)
            return id_

    id_ = asyncio.run(main())

    records = recorded(store)
    assert [each.job_id for each in records] == [id_, id_]
    for record in records:
        assert record.correlation_id == "request-1"
        assert record.payload == {"args": [], "kwargs": {"until": 2}}
        assert record.labels["replay_of"] == "01890000-0000-7000-8000-000000000001"
        assert record.labels["queue"] == "slow"


def test_an_app_whose_connector_needs_no_event_loop_defers_at_once(store):
    class Django(InMemoryConnector):  # whose connector has methods of both kinds as well
        def execute_query_all(self, query, **arguments):
            return asyncio.run(self.execute_query_all_async(query, **arguments))

    app = App(connector=Django())
    app.task(name="add")(lambda **_: None)

    assert enqueue(app, job_to_replay("add", a=1)) == "1"
    assert app.connector.jobs[1]["args"]["a"] == 1


def test_the_app_of_procrastinates_django_app_can_replay(store, monkeypatch):
    from procrastinate.contrib.django import procrastinate_app

    app = make_app(record_jobs(store))
    monkeypatch.setattr(procrastinate_app, "current_app", app)
    run(app, ("fail",))
    replay(store, procrastinate_app.app, recorded(store)[0].id)

    assert statuses(app) == ["failed", "todo"]


def test_a_task_that_the_app_does_not_have_is_not_deferred(app):
    with pytest.raises(InvalidInput, match=r"is no task of the app, whose are: abort, add"):
        enqueue(app, job_to_replay("os.system"))
    with pytest.raises(InvalidInput, match="have no names"):
        enqueue(app, job_to_replay("add", 1))
    assert app.connector.jobs == {}


def test_failed_executions_are_replayed(app, store):
    run(app, ("fail", {"text": "a"}), ("fail", {"text": "b"}))
    first, second = recorded(store)

    replayed = replay(store, app, first.id)
    with pytest.raises(NotReplayable):
        replay(store, app, first.id)
    rest = asyncio.run(replay_all_async(store, app, status="failed"))
    run(app)

    assert [each.record.id for each in rest.replayed] == [second.id]
    (again,) = store.get_by_job_id(replayed.job_id)
    assert again.labels["replay_of"] == str(first.id)
    assert again.payload["kwargs"] == {"text": "a"}
    assert again.correlation_id == first.correlation_id


def test_without_procrastinate_the_adapter_says_what_to_install():
    code = (
        "import sys; sys.modules['procrastinate'] = None; import jobhistory.contrib.procrastinate"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "install it with: pip install 'jobhistory[procrastinate]'" in done.stderr


def test_the_example_shows_what_an_order_led_to(tmp_path):
    example = Path(__file__).parents[2] / "examples" / "procrastinate_app.py"
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout == (
        "order, attempt 1: completed\n"
        "bill, attempt 1: failed, will be tried again: there is no customer 17\n"
        "bill, attempt 2: failed, will be tried again: there is no customer 17\n"
        "bill, attempt 3: failed: there is no customer 17\n"
        "clean_up is due at 17 2 * * *, UTC\n"
    )
