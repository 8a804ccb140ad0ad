"""arq: what its adapter records, without a broker, and with workers and Redis."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import create_engine, text

from jobhistory import (
    InvalidInput,
    Job,
    Recorder,
    create_async_store,
    create_store,
    current_execution,
)
from jobhistory.contrib.adapter import Carried, Replay
from jobhistory.contrib.jobs import KEYWORD
from jobhistory.contrib.replay import replay_async
from jobhistory.recorder.async_recorder import AsyncRecorder
from tests.contrib.workers import running, wait_for, write_app
from tests.servers import silent_server

arq = pytest.importorskip("arq")
from arq import cron, func  # noqa: E402
from arq.connections import RedisSettings, create_pool  # noqa: E402
from arq.worker import Retry, RetryJob, Worker, create_worker  # noqa: E402

from jobhistory.contrib.arq import (  # noqa: E402
    enqueue,
    record_jobs,
    schedules,
)

pytestmark = [
    pytest.mark.adapters,
    # arq itself calls them.
    pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning"),
]


@pytest.fixture
def store():
    return create_store()


def make_worker(settings):
    """Make a worker in an event loop; elsewhere, it would make one itself and never close it."""

    async def make():
        return Worker(**known(settings), redis_pool=object(), handle_signals=False)

    return asyncio.run(make())


def execute(settings, name, *args, job_try=1, timeout=None, **kwargs):
    """Execute one attempt as a worker does, without Redis; return its result or its error."""

    async def run():
        worker = Worker(**{"redis_pool": object(), "handle_signals": False} | known(settings))
        function = worker.functions[name]
        if worker.on_startup:
            await worker.on_startup(worker.ctx)
        context = worker.ctx | {
            "job_id": f"job-{name}",
            "job_try": job_try,
            "enqueue_time": datetime.now(UTC),
            "score": int(time.time() * 1000),
        }
        limit = function.timeout_s or worker.job_timeout_s
        task = asyncio.ensure_future(function.coroutine(context, *args, **kwargs))
        try:
            return await asyncio.wait_for(task, limit)
        except (Exception, asyncio.CancelledError) as error:
            return error
        finally:
            if worker.on_shutdown:
                await worker.on_shutdown(worker.ctx)

    return asyncio.run(run())


def known(settings):
    from arq.worker import get_kwargs

    return get_kwargs(settings)


def settings_of(**values):
    return type("WorkerSettings", (), values)


async def add(ctx, a, b=0):
    return a + b


async def fail(ctx):
    raise LookupError("no such customer")


async def retry_after(ctx, error):
    try:
        raise error
    except Exception as problem:
        raise Retry(defer=1) from problem


def only(store):
    (record,) = store.query()
    return record


def test_a_job_is_one_row_with_its_arguments_and_where_it_ran(store):
    settings = record_jobs(store, result=True)(settings_of(functions=[add], queue_name="mail"))

    assert execute(settings, "add", 1, b=2) == 3

    record = only(store)
    assert (record.job_id, record.task_identifier) == ("job-add", "add")
    assert (record.status, record.attempt_number) == ("completed", 1)
    assert record.payload == {"args": [1], "kwargs": {"b": 2}}
    assert record.payload_is_exact
    assert record.result == 3
    assert record.labels["queue"] == "mail"
    assert record.worker_id == f"{record.labels['host']}:{os.getpid()}"
    assert record.correlation_id == "job-add"
    assert 0 <= record.queue_time_ms < 5_000


def test_a_failure_has_its_exception_and_the_stack(store):
    settings = record_jobs(store)(settings_of(functions=[fail]))

    assert isinstance(execute(settings, "fail"), LookupError)

    record = only(store)
    assert (record.error_type, record.error_message) == ("LookupError", "no such customer")
    assert "raise LookupError" in record.error_stack
    assert record.will_retry is False


@pytest.mark.parametrize(
    ("number", "values", "will_retry"),
    [
        (1, {}, True),
        (4, {}, True),
        (5, {}, False),  # arq's default limit
        (2, {"max_tries": 2}, False),
        (1, {"retry_jobs": False}, False),
    ],
)
def test_a_retry_has_the_error_because_of_which_it_was_asked_for(store, number, values, will_retry):
    settings = record_jobs(store)(settings_of(functions=[retry_after], **values))

    error = execute(settings, "retry_after", ConnectionError("reset"), job_try=number)

    assert isinstance(error, Retry)
    record = only(store)
    assert (record.attempt_number, record.will_retry) == (number, will_retry)
    assert (record.error_type, record.error_message) == ("ConnectionError", "reset")


def test_a_function_may_have_its_own_limit_of_tries(store):
    async def again(ctx):
        raise Retry

    async def cancelled(ctx):
        raise RetryJob

    functions = [func(again, name="again", max_tries=2), func(cancelled, name="cancelled")]
    settings = record_jobs(store)(settings_of(functions=functions))
    for number in (1, 2):
        execute(settings, "again", job_try=number)
    execute(settings, "cancelled")

    assert [(each.error_type, each.will_retry) for each in store.query(order="oldest")] == [
        ("arq.worker.Retry", True),
        ("arq.worker.Retry", False),
        ("arq.worker.RetryJob", True),
    ]


@pytest.mark.parametrize(
    "values", [{"job_timeout": 0.2}, {"job_timeout": timedelta(seconds=0.2)}, {"own": 0.2}]
)
def test_a_time_limit_is_a_failure(store, values):
    async def sleep(ctx):
        await asyncio.sleep(60)

    function = func(sleep, name="sleep", timeout=values.pop("own", None))
    settings = record_jobs(store)(settings_of(functions=[function], **values))

    assert isinstance(execute(settings, "sleep"), TimeoutError)

    record = only(store)
    assert (record.status, record.error_type) == ("failed", "jobhistory.TimedOut")
    assert (record.error_message, record.will_retry) == ("0.2 s", False)
    assert "asyncio.sleep(60)" in record.error_stack


def test_a_worker_without_a_time_limit_gets_the_errors_of_jobs(store):
    settings = record_jobs(store)(settings_of(functions=[fail], job_timeout=None))

    assert isinstance(execute(settings, "fail"), LookupError)
    assert (only(store).error_type, only(store).will_retry) == ("LookupError", False)


def test_a_job_that_is_cancelled_before_its_limit_is_cancelled(store):
    async def stop(ctx):
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    settings = record_jobs(store)(settings_of(functions=[func(stop, name="stop")]))

    assert isinstance(execute(settings, "stop"), asyncio.CancelledError)
    assert only(store).status == "cancelled"


def test_a_retry_without_a_delay_has_no_queue_time(store):
    settings = record_jobs(store)(settings_of(functions=[add]))

    execute(settings, "add", 1, job_try=2)

    assert only(store).queue_time_ms is None


def test_the_current_execution_is_known_in_a_job(store):
    async def work(ctx):
        current_execution().partial_success({"failed_steps": ["upload"]})
        return current_execution().id

    settings = record_jobs(store)(settings_of(functions=[func(work, name="work")]))

    assert execute(settings, "work") == only(store).id
    assert only(store).status == "partial_success"


def test_names_and_settings_of_functions_stay(store):
    functions = [add, "tests.contrib.test_arq.fail", func(add, name="sum", timeout=7, max_tries=3)]
    jobs = [cron(add, hour=2, timeout=5)]
    settings = record_jobs(store)(settings_of(functions=functions, cron_jobs=jobs))

    def described(settings):
        worker = make_worker(settings)
        return [
            (name, each.name, each.timeout_s, each.max_tries, each.coroutine.__qualname__)
            for name, each in worker.functions.items()
        ]

    plain = {"functions": functions, "cron_jobs": jobs}
    assert described(settings) == described(plain)
    assert functions[1] in [name for name, *_ in described(settings)]
    assert functions[2].coroutine is add
    assert jobs[0].coroutine is add


def test_functions_that_are_added_later_are_recorded(store):
    settings = record_jobs(store)(settings_of(functions=[add]))
    settings.functions.append(fail)

    execute(settings, "fail")

    assert only(store).task_identifier == "fail"


@pytest.mark.parametrize("kind", ["class", "dict", "worker"])
def test_setting_it_up_twice_records_once(store, kind):
    settings = settings_of(functions=[add])
    if kind == "class":
        twice = record_jobs(store)(record_jobs(store)(settings))
        assert twice is settings
    elif kind == "dict":
        given = {"functions": [add]}
        twice = record_jobs(store)(record_jobs(store)(given))
        assert given == {"functions": [add]}
    else:
        worker = make_worker({"functions": [add]})
        record_jobs(store)(record_jobs(store)(worker))
        twice = {"functions": list(worker.functions.values())}
        twice |= {"on_startup": worker.on_startup, "on_shutdown": worker.on_shutdown}

    execute(twice, "add", 1)

    assert len(store.query()) == 1


def test_settings_that_take_functions_of_others_record_once(store):
    first = record_jobs(store)(settings_of(functions=[add]))
    second = record_jobs(store)(settings_of(functions=first.functions))

    execute(second, "add", 1)

    assert len(store.query()) == 1


def test_two_settings_in_a_process_have_histories_of_their_own():
    stores = [create_store(), create_store()]
    settings = [record_jobs(each)(settings_of(functions=[add])) for each in stores]

    execute(settings[1], "add", 1)

    assert [len(each.query()) for each in stores] == [0, 1]


def test_the_hooks_of_the_app_still_work(store):
    seen = []

    async def on_startup(ctx):
        seen.append("startup")
        ctx["value"] = 3

    async def on_shutdown(ctx):
        seen.append("shutdown")

    async def work(ctx):
        return ctx["value"]

    settings = settings_of(
        functions=[func(work, name="work")], on_startup=on_startup, on_shutdown=on_shutdown
    )

    assert execute(record_jobs(store)(settings), "work") == 3
    assert seen == ["startup", "shutdown"]
    assert len(store.query()) == 1


@pytest.mark.parametrize("settings", [add, "app.WorkerSettings", None])
def test_what_is_no_settings_is_refused(store, settings):
    with pytest.raises(InvalidInput, match=r"^settings .* is no class, dictionary or Worker"):
        record_jobs(store)(settings)


def test_it_can_be_switched_off(store):
    history = record_jobs(store)
    settings = history(settings_of(functions=[add]))
    history.close()

    assert execute(settings, "add", 1) == 1
    assert store.query() == []


def test_options_choose_what_is_recorded(store):
    settings = record_jobs(
        store,
        skip=["fail"],
        worker_id="worker-1",
        correlation_id=lambda ctx: f"try-{ctx['job_try']}",
        payload=False,
    )(settings_of(functions=[add, fail]))

    execute(settings, "fail")
    execute(settings, "add", 1)

    record = only(store)
    assert (record.worker_id, record.correlation_id, record.payload) == ("worker-1", "try-1", None)


def test_a_job_that_empties_its_context_keeps_its_error(store):
    async def clear(ctx):
        ctx.clear()
        raise Retry

    settings = record_jobs(store)(settings_of(functions=[func(clear, name="clear")]))

    assert isinstance(execute(settings, "clear"), Retry)
    assert only(store).will_retry is True


def test_a_function_that_is_called_without_a_worker_works(store, caplog):
    settings = record_jobs(store)(settings_of(functions=[add]))
    (function,) = settings.functions

    assert asyncio.run(function.coroutine({}, 1)) == 1
    assert store.query() == []


@pytest.mark.parametrize("kind", ["async", "async-recorder", "recorder", "function"])
def test_every_kind_of_store_will_do(tmp_path, migrated_sqlite, kind):
    url = f"sqlite:///{tmp_path}/history.db"
    (tmp_path / "history.db").write_bytes(migrated_sqlite.read_bytes())
    given = {
        "async": lambda: create_async_store(url),
        "async-recorder": lambda: AsyncRecorder(create_async_store(url)),
        "recorder": lambda: Recorder(create_store(url)),
        "function": lambda: create_store(url),
    }[kind]
    settings = record_jobs(given, log_tail="1 KiB")(settings_of(functions=[add, fail]))

    execute(settings, "add", 1)
    execute(settings, "fail")

    with create_store(url) as store:
        assert [each.status.value for each in store.query(order="oldest")] == [
            "completed",
            "failed",
        ]


def test_a_database_that_never_answers_delays_no_job_for_long(caplog):
    with silent_server() as port:
        store = create_store(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none")
        settings = record_jobs(store, end_leftovers=False)(settings_of(functions=[add]))
        began = time.monotonic()
        assert [execute(settings, "add", number) for number in range(3)] == [0, 1, 2]
        assert time.monotonic() - began < 10
        store.close()

    assert "jobhistory" in caplog.text


def test_a_database_that_refuses_delays_no_job(caplog):
    store = create_store("postgresql+psycopg://nobody@127.0.0.1:1/none")
    settings = record_jobs(store)(settings_of(functions=[add]))

    assert execute(settings, "add", 1) == 1
    store.close()
    assert "jobhistory" in caplog.text


def test_values_that_cannot_be_stored_break_nothing(store):
    class Unprintable(Exception):
        def __str__(self):
            raise ValueError("no text")

        def __reduce__(self):
            raise TypeError("cannot be pickled")

    async def work(ctx, value, password=None):
        if value == "raise":
            raise Unprintable

    settings = record_jobs(store)(settings_of(functions=[func(work, name="work")]))
    execute(settings, "work", "raise")
    execute(settings, "work", "x\0y", password="hunter2")
    execute(settings, "work", "x" * 10_000_000)
    execute(settings, "work", object())
    execute(settings, "work", "x", **{KEYWORD: "nonsense"})

    raised, odd, large, opaque, stamped = store.query(order="oldest")
    assert raised.error_type.endswith("Unprintable")
    assert {each.status.value for each in (odd, large, opaque, stamped)} == {"completed"}
    assert "hunter2" not in str(odd.payload)
    assert not odd.payload_is_exact
    assert not opaque.payload_is_exact
    assert len(str(large.payload)) < 1_000_000
    assert stamped.payload == {"args": ["x"], "kwargs": {}}


def test_schedules_are_the_cron_jobs(store):
    jobs = [
        cron(add, name="nightly", hour=2, minute=17),
        cron(add, name="twice", hour={3, 15}, minute=0, weekday="sun"),
        cron(add, name="mondays", weekday=0, hour=1, minute=0),
        cron(add, name="monthly", month={1, 7}, day=1, hour=0, minute=0),
        cron(add, name="each_minute"),
        cron(add, name="each_second", second=None),
        cron(add, name="friday_13", weekday=4, day=13, hour=0, minute=0),
    ]
    settings = settings_of(functions=[add], cron_jobs=jobs, timezone=ZoneInfo("Europe/Berlin"))

    listed = schedules(record_jobs(store)(settings))

    assert {each.name: each.cron for each in listed} == {
        "nightly": "17 2 * * *",
        "twice": "0 3,15 * * 0",
        "mondays": "0 1 * * 1",
        "monthly": "0 0 1 1,7 *",
        "each_minute": "* * * * *",
        "each_second": None,
        "friday_13": None,
    }
    assert {each.timezone for each in listed} == {"Europe/Berlin"}
    assert listed[0].task_identifier == "nightly"
    assert listed[0].description == "hour=2 minute=17 second=0"
    assert schedules({"functions": [add], "timezone": UTC, "cron_jobs": jobs})[0].timezone == "UTC"
    assert schedules({"functions": [add]}) == []


def replay_for(name="add", **values):
    given = {
        "task_identifier": name,
        "args": [1],
        "kwargs": {"b": 2},
        "correlation_id": "request-7",
        "queue": None,
        "carried": Carried(correlation_id="request-7", replay_of=uuid4()),
    }
    return Replay(**given | values)


def test_a_replay_of_an_unknown_function_is_refused(store):
    settings = record_jobs(store)(settings_of(functions=[add], cron_jobs=[cron(fail, hour=2)]))

    with pytest.raises(InvalidInput, match=r"'os.system' is no function .* add, cron:fail"):
        asyncio.run(enqueue(settings, replay_for("os.system")))


def test_a_replay_by_settings_that_are_not_recorded_is_refused():
    with pytest.raises(InvalidInput, match="record_jobs"):
        asyncio.run(enqueue(settings_of(functions=[add]), replay_for()))


@pytest.mark.parametrize("app", ["class", "dict", "worker", "pool"])
def test_a_replay_has_the_correlation_id_of_what_it_repeats(store, redis_url, app):
    execute(record_jobs(store)(settings_of(functions=[add])), "add", 1, b=2)
    first = only(store)
    values = {"functions": [add], "redis_settings": RedisSettings.from_dsn(redis_url)}

    async def run():
        settings = settings_of(**values) if app != "dict" else values
        settings = record_jobs(store)(settings)
        worker = create_worker(settings, burst=True, handle_signals=False, poll_delay=0.01)
        pool = await create_pool(values["redis_settings"])
        given = {"worker": worker, "pool": pool}.get(app, settings)
        new = await replay_async(store, given, first.id)
        await worker.async_run()
        await worker.close()
        await pool.aclose()
        return new.job_id

    new = asyncio.run(run())

    (record,) = store.get_by_job_id(new)
    assert record.status == "completed"
    assert record.payload == first.payload
    assert record.correlation_id == first.correlation_id
    assert record.labels["replay_of"] == str(first.id)
    assert record.parent_id is None


def test_without_arq_the_import_says_what_to_install():
    code = "import sys; sys.modules['arq.connections'] = None; import jobhistory.contrib.arq"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "pip install 'jobhistory[arq]'" in done.stderr


APP = """
import asyncio
import os
import signal
import sys

from arq import Retry, cron, func
from arq.connections import RedisSettings

from jobhistory import create_async_store, create_store
from jobhistory.contrib.arq import enqueue_job, record_jobs
from jobhistory.recorder.async_recorder import AsyncRecorder


def make_store():
    return {
        "direct": lambda: create_store(DATABASE),
        "async": lambda: create_async_store(DATABASE),
        "recorder": lambda: AsyncRecorder(create_async_store(DATABASE)),
    }[KIND]()


async def ok(ctx, number):
    await asyncio.sleep(0)


async def fail(ctx, number):
    raise LookupError(number)


async def flaky(ctx, number):
    if ctx["job_try"] == 1:
        try:
            raise ConnectionError(number)
        except ConnectionError:
            raise Retry(defer=0.01)


async def never(ctx):
    raise Retry


async def parent(ctx):
    await enqueue_job(ctx["redis"], "ok", 0)


async def slow(ctx, folder, seconds=0.0):
    open(f"{folder}/slow", "w").close()
    await asyncio.sleep(seconds)


async def kill(ctx, folder):
    if not os.path.exists(f"{folder}/killed"):
        open(f"{folder}/killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


async def exits(ctx):
    sys.exit(3)


async def on_cron(ctx):
    pass


@record_jobs(make_store)
class WorkerSettings:
    functions = [
        *(ok, fail, flaky, parent, slow, kill, exits),
        func(never, max_tries=2),
        func(slow, name="times_out", timeout=0.3),
    ]
    cron_jobs = [cron(on_cron, hour=0, minute=0, run_at_startup=True)]
    redis_settings = RedisSettings.from_dsn(REDIS)
    max_jobs = 20
    poll_delay = 0.1
    allow_abort_jobs = True
    job_timeout = 20
"""


@pytest.fixture
def app(tmp_path, redis_url, migrated_postgres):
    """Writes an app for a worker; returns a store on its database."""
    engine = create_engine(migrated_postgres)

    def write(kind):
        url = migrated_postgres.render_as_string(hide_password=False)
        write_app(tmp_path, APP, DATABASE=url, REDIS=redis_url, KIND=kind)
        return create_store(engine)

    yield write
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM job_history"))
    engine.dispose()


def worker(folder):
    return running("arq", "jobs_app.WorkerSettings", folder=folder)


def with_pool(redis_url, function):
    async def run():
        pool = await create_pool(RedisSettings.from_dsn(redis_url))
        try:
            return await function(pool)
        finally:
            await pool.aclose()

    return asyncio.run(run())


def send(redis_url, *calls):
    async def enqueue_all(pool):
        return [(await pool.enqueue_job(name, *args)).job_id for name, *args in calls]

    return with_pool(redis_url, enqueue_all)


def test_a_worker_records_all_attempts(app, tmp_path, redis_url):
    store = app("direct")
    many = [
        *(("ok", number) for number in range(110)),
        *(("fail", number) for number in range(40)),
        *(("flaky", number) for number in range(50)),
    ]
    with worker(tmp_path) as process:
        ids = send(redis_url, *many, ("parent",), ("times_out", str(tmp_path), 9), ("never",))
        wait_for(
            lambda: store.count().value >= 256 and not store.query(status="started"),
            "the outcomes of all attempts",
        )
        records = store.query(limit=1000)
        assert Counter(
            (each.task_identifier, each.attempt_number, each.status.value, each.will_retry)
            for each in records
        ) == {
            ("ok", 1, "completed", None): 111,
            ("fail", 1, "failed", False): 40,
            ("flaky", 1, "failed", True): 50,
            ("flaky", 2, "completed", None): 50,
            ("parent", 1, "completed", None): 1,
            ("times_out", 1, "failed", False): 1,
            ("never", 1, "failed", True): 1,
            ("never", 2, "failed", False): 1,
            ("cron:on_cron", 1, "completed", None): 1,
        }
        failures = [each for each in records if each.status == "failed"]
        assert all(each.error_stack for each in failures)
        assert {each.error_type for each in failures} == {
            *("LookupError", "ConnectionError", "jobhistory.TimedOut", "arq.worker.Retry"),
        }
        assert {*ids} <= {each.job_id for each in records}
        (parent,) = store.query(task_identifier="parent")
        (child,) = store.query(task_identifier="ok", correlation_id=parent.correlation_id)
        assert child.parent_id == parent.id

        (aborted,) = send(redis_url, ("slow", str(tmp_path), 60))
        wait_for(lambda: store.query(job_id=aborted), "the start of a slow job")
        abort(redis_url, aborted)
        wait_for(lambda: store.query(job_id=aborted, status="cancelled"), "its end")

        (slow,) = send(redis_url, ("slow", str(tmp_path), 60))
        wait_for(lambda: store.query(job_id=slow), "the start of another slow job")
        process.end()
        (record,) = store.get_by_job_id(slow)
        assert record.status == "cancelled"


def abort(redis_url, job_id):
    async def stop(pool):
        with suppress(asyncio.CancelledError):
            await arq.jobs.Job(job_id, pool).abort(timeout=10)

    with_pool(redis_url, stop)


@pytest.mark.parametrize("task", ["kill", "exits"])
def test_a_worker_that_died_leaves_a_lost_row_and_the_next_run_is_another(
    app, tmp_path, redis_url, task
):
    store = app("async")
    store.record_start(Job("twin", "twin"), "elsewhere:1", "twin")
    (job,) = send(redis_url, ("kill", str(tmp_path)) if task == "kill" else ("exits",))
    with worker(tmp_path) as process:
        code = process.process.wait(20)
    assert code != 0
    assert [each.status.value for each in store.get_by_job_id(job)] == [
        "started" if task == "kill" else "failed"
    ]

    # What Redis does when the job's time limit has passed.
    with_pool(redis_url, lambda pool: pool.delete(f"arq:in-progress:{job}"))
    with worker(tmp_path) as process:
        wait_for(lambda: len(store.get_by_job_id(job)) == 2, "the second run")
        wait_for(lambda: not store.query(job_id=job, status="started"), "its end")

    second, first = store.get_by_job_id(job)
    assert (first.attempt_number, second.attempt_number) == (1, 2)
    if task == "kill":
        assert (first.error_type, second.status) == ("jobhistory.WorkerLost", "completed")
    else:
        assert {(each.error_type, each.will_retry) for each in (first, second)} == {
            ("SystemExit", True)
        }
    assert store.get_by_job_id("twin")[0].status == "started"


def test_a_recorder_loses_nothing_if_the_worker_is_stopped(app, tmp_path, redis_url):
    store = app("recorder")
    with worker(tmp_path) as process:
        send(redis_url, *(("ok", number) for number in range(100)))
        send(redis_url, ("slow", str(tmp_path), 60))
        wait_for((tmp_path / "slow").exists, "the start of a slow job")
        wait_for(
            lambda: with_pool(redis_url, lambda pool: pool.zcard("arq:queue")) == 1,
            "the end of the other jobs",
        )
        process.end()

    records = store.query(limit=1000)
    assert Counter(each.status.value for each in records) == {"completed": 101, "cancelled": 1}


def test_the_example_prints_what_it_recorded(tmp_path, redis_url):
    program = Path(__file__).parents[2] / "examples" / "arq_app.py"
    shutil.copy(program, tmp_path)
    done = subprocess.run(
        [sys.executable, "arq_app.py"],
        cwd=tmp_path,
        env={**os.environ, "REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == (
        "order, attempt 1: completed\n"
        "bill, attempt 1: failed, will be tried again: the bank does not answer\n"
        "bill, attempt 2: completed\n"
        "the order and its bill have the same correlation id: True\n"
    )
