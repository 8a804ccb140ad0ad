"""Taskiq: what its adapter records, without a broker, and with workers and RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pika
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
from jobhistory.contrib.adapter import HEADER, Carried, Replay
from jobhistory.contrib.replay import replay, replay_async
from jobhistory.recorder.async_recorder import AsyncRecorder
from tests.contrib.workers import running, wait_for, write_app
from tests.servers import silent_server

taskiq = pytest.importorskip("taskiq")
from taskiq import (  # noqa: E402
    AsyncBroker,
    Context,
    InMemoryBroker,
    SimpleRetryMiddleware,
    SmartRetryMiddleware,
    TaskiqDepends,
    TaskiqMiddleware,
    TaskiqScheduler,
)
from taskiq.exceptions import NoResultError  # noqa: E402

from jobhistory.contrib.taskiq import JobHistory, enqueue, schedules  # noqa: E402

pytestmark = pytest.mark.adapters


@pytest.fixture
def store():
    return create_store()


@pytest.fixture
def make_broker():
    """Makes brokers in memory. `serve` runs a coroutine with one, until all tasks have ended."""
    made = []

    def make(*middlewares, **options):
        broker = InMemoryBroker(**options).with_middlewares(*middlewares)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.executor.shutdown()


def serve(broker, *calls):
    """Enqueue what the functions enqueue, wait until all tasks have ended, and return the jobs."""

    async def run():
        await broker.startup()
        jobs = [await call() for call in calls]
        while broker._running_tasks:
            await asyncio.wait(broker._running_tasks)
        await broker.shutdown()
        return jobs

    return asyncio.run(run())


def attempts(store, **criteria):
    records = store.query(order="oldest", **criteria)
    return [(each.attempt_number, each.status.value, each.will_retry) for each in records]


def test_a_task_is_one_row_with_its_arguments_and_where_it_ran(store, make_broker):
    broker = make_broker(JobHistory(store, result=True))
    broker.queue_name = "mail"

    @broker.task(task_name="add")
    async def add(a: int, b: int) -> int:
        return a + b

    (job,) = serve(broker, lambda: add.kiq(1, b=2))

    (record,) = store.query()
    assert (record.job_id, record.task_identifier, record.status) == (
        job.task_id,
        "add",
        "completed",
    )
    assert record.payload == {"args": [1], "kwargs": {"b": 2}}
    assert record.payload_is_exact
    assert record.result == 3
    assert record.labels["queue"] == "mail"
    assert record.labels["pid"] == str(os.getpid())
    assert record.worker_id == f"{record.labels['host']}:{os.getpid()}"
    assert record.correlation_id == job.task_id
    assert record.queue_time_ms >= 0
    assert record.parent_id is None


def test_a_failure_has_its_exception_and_the_stack(store, make_broker):
    broker = make_broker(JobHistory(store))

    @broker.task
    async def fail():
        raise LookupError("no such customer")

    @broker.task
    def fail_in_a_thread():
        raise KeyError("x")

    serve(broker, fail.kiq, fail_in_a_thread.kiq)

    first, second = store.query(order="oldest")
    assert (first.error_type, first.error_message) == ("LookupError", "no such customer")
    assert "raise LookupError" in first.error_stack
    assert (second.error_type, second.will_retry) == ("KeyError", False)
    assert "fail_in_a_thread" in second.error_stack


@pytest.mark.parametrize("position", ["first", "last"])
@pytest.mark.parametrize("keeps_results", [False, True])
def test_each_retry_is_a_row_with_the_real_error(store, make_broker, position, keeps_results):
    retries = SimpleRetryMiddleware(default_retry_count=3, no_result_on_retry=not keeps_results)
    both = [retries, JobHistory(store)]
    broker = make_broker(*(reversed(both) if position == "first" else both))

    @broker.task(retry_on_error=True)
    async def fail():
        raise LookupError("again")

    @broker.task
    async def fail_once():
        raise LookupError("once")

    retried, final = serve(broker, fail.kiq, fail_once.kiq)

    assert attempts(store, job_id=retried.task_id) == [
        (1, "failed", True),
        (2, "failed", True),
        (3, "failed", False),
    ]
    assert attempts(store, job_id=final.task_id) == [(1, "failed", False)]
    assert {each.error_message for each in store.query()} == {"again", "once"}


@pytest.mark.parametrize("await_inplace", [False, True])
def test_a_retry_keeps_the_parent_and_the_correlation_id(store, make_broker, await_inplace):
    both = [SimpleRetryMiddleware(default_retry_count=2), JobHistory(store)]
    broker = make_broker(*both, await_inplace=await_inplace)

    @broker.task(task_name="fail", retry_on_error=True)
    async def fail():
        raise LookupError("x")

    @broker.task(task_name="send")
    async def send():
        await fail.kiq()

    root, sender = serve(broker, fail.kiq, send.kiq)

    alone = store.get_by_job_id(root.task_id)
    assert [(each.parent_id, each.correlation_id) for each in alone] == [(None, root.task_id)] * 2
    (parent,) = store.get_by_job_id(sender.task_id)
    children = store.query(task_identifier="fail", correlation_id=sender.task_id)
    assert [each.parent_id for each in children] == [parent.id] * 2
    assert all(each.queue_time_ms < 5_000 for each in store.query())


def test_a_delay_is_no_time_in_the_queue(store, make_broker):
    class Late(TaskiqMiddleware):
        def pre_send(self, message):
            header = json.loads(message.labels[HEADER])
            sent = datetime.fromisoformat(header["enqueued_at"]) - timedelta(seconds=90)
            message.labels[HEADER] = json.dumps(header | {"enqueued_at": sent.isoformat()})
            return message

    broker = make_broker(JobHistory(store), Late())

    @broker.task
    async def work(): ...

    serve(broker, lambda: work.kicker().with_labels(delay=60).kiq())

    (record,) = store.query()
    assert 30_000 <= record.queue_time_ms < 35_000


@pytest.mark.parametrize("keeps_results", [False, True])
def test_a_retry_that_a_schedule_source_will_send_is_expected(store, make_broker, keeps_results):
    from taskiq import ScheduleSource

    class Source(ScheduleSource):
        def __init__(self):
            self.added = []

        async def get_schedules(self):
            return self.added

        async def add_schedule(self, schedule):
            self.added.append(schedule)

    source = Source()
    retries = SmartRetryMiddleware(
        default_retry_count=2, schedule_source=source, no_result_on_retry=not keeps_results
    )
    broker = make_broker(retries, JobHistory(store))
    scheduler = TaskiqScheduler(broker, [source])

    @broker.task(retry_on_error=True)
    async def fail():
        raise LookupError("x")

    (job,) = serve(broker, fail.kiq)
    assert attempts(store) == [(1, "failed", True)]
    assert source.added[0].task_id == job.task_id

    serve(broker, lambda: scheduler.on_ready(source, source.added[0]))
    assert attempts(store, job_id=job.task_id) == [(1, "failed", True), (2, "failed", False)]
    assert {each.correlation_id for each in store.query()} == {job.task_id}
    assert {each.parent_id for each in store.query()} == {None}


def test_special_ends_are_recorded_as_what_they_are(store, make_broker):
    broker = make_broker(JobHistory(store))

    @broker.task(task_name="times_out", timeout=0.05)
    async def times_out():
        await asyncio.sleep(5)

    @broker.task(task_name="own_timeout", timeout=30)
    async def own_timeout():
        raise TimeoutError

    @broker.task(task_name="exits")
    async def exits():
        sys.exit(3)

    @broker.task(task_name="exits_in_a_thread")
    def exits_in_a_thread():
        sys.exit(4)

    @broker.task(task_name="is_cancelled")
    async def is_cancelled():
        raise asyncio.CancelledError

    @broker.task(task_name="rejects")
    async def rejects(context: Context = TaskiqDepends()):  # noqa: B008
        context.reject()

    @broker.task(task_name="has_no_result")
    async def has_no_result():
        raise NoResultError

    @broker.task(task_name="requeues")
    async def requeues(context: Context = TaskiqDepends()):  # noqa: B008
        if "X-Taskiq-requeue" not in context.message.labels:
            await context.requeue()

    tasks = (
        *(times_out, own_timeout, exits, exits_in_a_thread),
        *(is_cancelled, rejects, has_no_result, requeues),
    )
    serve(broker, *(task.kiq for task in tasks))

    ends = {
        (each.task_identifier, each.attempt_number): (each.status.value, each.error_type)
        for each in store.query(limit=100)
    }
    assert ends == {
        ("times_out", 1): ("failed", "jobhistory.TimedOut"),
        ("own_timeout", 1): ("failed", "TimeoutError"),
        ("exits", 1): ("failed", "SystemExit"),
        ("exits_in_a_thread", 1): ("failed", "SystemExit"),
        ("is_cancelled", 1): ("cancelled", None),
        ("rejects", 1): ("failed", "taskiq.exceptions.TaskRejectedError"),
        ("has_no_result", 1): ("completed", None),
        ("requeues", 1): ("failed", "taskiq.Requeued"),
        ("requeues", 2): ("completed", None),
    }
    (late,) = store.query(task_identifier="times_out")
    assert late.error_message == "0.05 s"
    assert "TimeoutError" in late.error_stack
    (requeued,) = store.query(error_type="taskiq.Requeued")
    assert requeued.will_retry
    (again,) = store.query(task_identifier="requeues", status="completed")
    assert again.queue_time_ms is None  # the message does not say when the task sent it again


def test_the_current_execution_is_known_in_coroutines_and_in_threads(store, make_broker):
    broker = make_broker(JobHistory(store))
    seen = []

    @broker.task
    async def coroutine():
        seen.append(current_execution().id)
        current_execution().partial_success({"failed_steps": ["upload"]})

    @broker.task
    def function():
        seen.append(current_execution().id)

    serve(broker, coroutine.kiq, function.kiq)

    assert {*seen} == {each.id for each in store.query()}
    assert {each.status.value for each in store.query()} == {"partial_success", "completed"}


def test_a_task_that_is_called_directly_is_not_recorded(store, make_broker):
    broker = make_broker(JobHistory(store))

    @broker.task
    def function(number):
        return number

    assert function(3) == 3
    assert store.query() == []


def test_a_task_that_sends_a_task_is_its_parent(store, make_broker):
    broker = make_broker(JobHistory(store))

    @broker.task(task_name="child")
    async def child(): ...

    @broker.task(task_name="parent")
    async def parent():
        await child.kiq()

    @broker.task(task_name="in_a_thread")
    def in_a_thread():
        asyncio.run_coroutine_threadsafe(child.kiq(), loops[0]).result()

    loops = []

    async def note_loop():
        loops.append(asyncio.get_running_loop())
        return await in_a_thread.kiq()

    job, other = serve(broker, parent.kiq, note_loop)

    for sender in (job, other):
        (above,) = store.get_by_job_id(sender.task_id)
        (below,) = store.query(task_identifier="child", correlation_id=sender.task_id)
        assert below.parent_id == above.id


@pytest.mark.parametrize("same", [True, False])
def test_setting_it_up_twice_records_once(store, make_broker, same):
    history = JobHistory(store)
    retries = SimpleRetryMiddleware(default_retry_count=2)
    broker = make_broker(history, retries, history if same else JobHistory(store))

    @broker.task(retry_on_error=True)
    async def fail():
        raise LookupError("x")

    serve(broker, fail.kiq)

    assert attempts(store) == [(1, "failed", True), (2, "failed", False)]


def test_two_brokers_in_a_process_have_histories_of_their_own(make_broker):
    stores = [create_store(), create_store()]
    brokers = [make_broker(JobHistory(each), await_inplace=True) for each in stores]

    @brokers[1].task(task_name="inner")
    async def inner(): ...

    @brokers[0].task(task_name="outer")
    async def outer():
        await inner.kiq()

    serve(brokers[0], outer.kiq)

    assert [[each.task_identifier for each in store.query()] for store in stores] == [
        ["outer"],
        ["inner"],
    ]
    (child,) = stores[1].query()
    assert child.parent_id == stores[0].query()[0].id


@pytest.mark.parametrize("position", ["first", "last"])
def test_the_middlewares_and_events_of_the_app_still_work(store, make_broker, position):
    class Own(TaskiqMiddleware):
        def __init__(self):
            super().__init__()
            self.seen = []

        def pre_send(self, message):
            self.seen.append("pre_send")
            return message.model_copy()

        def pre_execute(self, message):
            self.seen.append("pre_execute")
            return message.model_copy(deep=True)

        def on_error(self, message, result, exception):
            self.seen.append("on_error")

        def post_execute(self, message, result):
            self.seen.append("post_execute")

    own = Own()
    both = [own, JobHistory(store)]
    broker = make_broker(*(reversed(both) if position == "first" else both))
    broker.on_event("WORKER_STARTUP")(lambda state: own.seen.append("event"))

    @broker.task
    async def fail():
        raise LookupError("x")

    serve(broker, fail.kiq)

    assert [each for each in own.seen if each != "event"] == [
        "pre_send",
        "pre_execute",
        "on_error",
        "post_execute",
    ]
    assert attempts(store) == [(1, "failed", False)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_middleware_that_raises_leaves_no_row_without_an_outcome(store, make_broker):
    class Broken(TaskiqMiddleware):
        def pre_execute(self, message):
            raise PermissionError("not you")

    broker = make_broker(JobHistory(store), Broken())

    @broker.task
    async def work(): ...

    async def run():
        await work.kiq()
        await asyncio.wait(broker._running_tasks)
        while store.query()[0].status == "started":
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 10))

    (record,) = store.query()
    assert (record.status, record.error_message) == ("failed", "not you")


def test_a_task_that_runs_when_it_is_removed_keeps_its_outcome(store, make_broker):
    history = JobHistory(store)
    broker = make_broker(history)

    @broker.task(task_name="remove")
    async def remove():
        history.close()
        await later.kiq()

    later = broker.task(task_name="later")(print_nothing)
    serve(broker, remove.kiq)

    assert [(each.task_identifier, each.status) for each in store.query()] == [
        ("remove", "completed")
    ]
    assert broker.middlewares == []


def test_it_can_be_removed(store, make_broker):
    history = JobHistory(store)
    broker = make_broker(history)

    @broker.task
    async def work(): ...

    history.close()
    history.close()
    serve(broker, work.kiq)

    assert store.query() == []


def test_options_choose_what_is_recorded(store, make_broker):
    history = JobHistory(
        store,
        skip=["ping"],
        worker_id="worker-1",
        correlation_id=lambda message: message.labels.get("tenant"),
        payload=lambda message: {"size": len(message.args)},
    )
    broker = make_broker(history)

    @broker.task(task_name="ping")
    async def ping(): ...

    @broker.task(task_name="work")
    async def work(text): ...

    serve(broker, ping.kiq, lambda: work.kicker().with_labels(tenant="acme").kiq("secret"))

    (record,) = store.query()
    assert (record.task_identifier, record.worker_id) == ("work", "worker-1")
    assert (record.correlation_id, record.payload) == ("acme", {"size": 1})


@pytest.mark.parametrize("kind", ["async", "async-recorder", "recorder", "function"])
def test_every_kind_of_store_will_do(tmp_path, migrated_sqlite, make_broker, kind):
    url = f"sqlite:///{tmp_path}/history.db"
    (tmp_path / "history.db").write_bytes(migrated_sqlite.read_bytes())
    made = []

    def make():
        made.append(create_store(url))
        return made[-1]

    async def run():
        given = {
            "async": lambda: create_async_store(url),
            "async-recorder": lambda: AsyncRecorder(create_async_store(url)),
            "recorder": lambda: Recorder(create_store(url)),
            "function": lambda: make,
        }[kind]()
        broker = make_broker(
            SimpleRetryMiddleware(default_retry_count=2), JobHistory(given, log_tail="1 KiB")
        )

        @broker.task(retry_on_error=True)
        async def fail():
            logging.getLogger("shop").warning("about to fail")
            raise LookupError("x")

        @broker.task
        def work(): ...

        await broker.startup()
        await fail.kiq()
        await work.kiq()
        while broker._running_tasks:
            await asyncio.wait(broker._running_tasks)
        await broker.shutdown()
        if kind == "recorder":
            given.close()
            given.store.close()
        elif kind != "function":
            await given.close()
            if kind == "async-recorder":
                await given.store.close()

    asyncio.run(run())

    with create_store(url) as store:
        assert sorted(attempts(store)) == [
            (1, "completed", None),
            (1, "failed", True),
            (2, "failed", False),
        ]
        tails = [each.log_tail for each in store.query(status="failed")]
        assert all(tail.count("about to fail") == 1 for tail in tails)


def test_a_database_that_never_answers_delays_no_task_for_long(make_broker, caplog):
    with silent_server() as port:
        store = create_store(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none")
        broker = make_broker(JobHistory(store))
        ended = []

        @broker.task
        async def work(number):
            ended.append(number)

        async def lag():
            longest, before = 0.0, time.monotonic()
            while len(ended) < 3:
                await asyncio.sleep(0.01)
                longest, before = max(longest, time.monotonic() - before), time.monotonic()
            return longest

        async def run():
            return (await asyncio.gather(lag(), *(work.kiq(number) for number in range(3))))[0]

        began = time.monotonic()
        longest = asyncio.run(run())
        store.close()

    assert sorted(ended) == [0, 1, 2]
    assert time.monotonic() - began < 10
    assert longest < 1  # the event loop goes on meanwhile
    assert "not recorded" in caplog.text or "jobhistory" in caplog.text


def test_a_database_that_refuses_delays_no_task(make_broker, caplog):
    store = create_store("postgresql+psycopg://nobody@127.0.0.1:1/none")
    broker = make_broker(JobHistory(store))
    ended = []

    @broker.task
    async def work():
        ended.append(1)

    serve(broker, work.kiq, work.kiq)
    store.close()

    assert len(ended) == 2
    assert "not recorded" in caplog.text or "jobhistory" in caplog.text


def test_values_that_cannot_be_stored_break_nothing(store, make_broker, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)  # as in production

    class Unprintable(Exception):
        def __str__(self):
            raise ValueError("no text")

        def __reduce__(self):
            raise TypeError("cannot be pickled")

    broker = make_broker(JobHistory(store))

    @broker.task
    async def work(text, password=None):
        if text == "raise":
            raise Unprintable

    serve(
        broker,
        lambda: work.kiq("raise"),
        lambda: work.kiq("x\0y", password="hunter2"),
        lambda: work.kiq("x" * 10_000_000),
    )

    raised, odd, large = store.query(order="oldest")
    assert raised.error_type.endswith("Unprintable")
    assert odd.status == large.status == "completed"
    assert "hunter2" not in str(odd.payload)
    assert not odd.payload_is_exact
    assert len(str(large.payload)) < 1_000_000


def test_labels_that_others_wrote_break_nothing(store, make_broker):
    broker = make_broker(JobHistory(store))

    @broker.task
    async def work(): ...

    class Wrong(TaskiqMiddleware):
        def pre_send(self, message):
            message.labels |= {HEADER: "{", "_retries": "many", "delay": "soon", "timeout": "9"}
            return message

    broker.with_middlewares(Wrong())
    serve(broker, work.kiq)

    (record,) = store.query()
    assert (record.status, record.attempt_number) == ("completed", 1)


def test_nothing_is_kept_of_tasks_that_have_ended(store, make_broker):
    history = JobHistory(store)
    broker = make_broker(SimpleRetryMiddleware(default_retry_count=2), history)

    @broker.task(retry_on_error=True)
    async def fail():
        raise LookupError("x")

    serve(broker, *[fail.kiq] * 50)

    assert len(store.query(status="failed", limit=200)) == 100
    assert len(history._running) == 0
    assert len(history._last) == 0


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_killed_process_of_a_pool_is_recorded_as_lost(store, make_broker):
    broker = make_broker(JobHistory(store))
    if not hasattr(broker.receiver, "is_process_pool"):
        pytest.skip("process pools of Taskiq 0.12 run no functions")
    executor = ProcessPoolExecutor(1)
    broker.receiver.executor = executor
    broker.receiver.is_process_pool = True
    broker.register_task(kill_this_process, task_name="kill")

    serve(broker, broker.find_task("kill").kiq)
    executor.shutdown()

    (record,) = store.query()
    assert (record.status, record.error_type) == ("failed", "jobhistory.WorkerLost")


def kill_this_process():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_replay_has_the_correlation_id_of_what_it_repeats(store, make_broker):
    broker = make_broker(JobHistory(store))

    @broker.task(task_name="add")
    async def add(a, b): ...

    (job,) = serve(broker, lambda: add.kiq(1, b=2))
    (record,) = store.query()
    (new,) = serve(broker, lambda: enqueue(broker, replay_of(record)))

    (repeated,) = store.get_by_job_id(new)
    assert new != job.task_id
    assert repeated.payload == record.payload
    assert repeated.correlation_id == record.correlation_id
    assert repeated.labels["replay_of"] == str(record.id)
    assert repeated.parent_id is None
    assert repeated.queue_time_ms < 5_000


def test_a_replay_changes_no_later_task(store, make_broker):
    broker = make_broker(JobHistory(store))
    work = broker.task(task_name="work", priority=3)(print_nothing)
    serve(broker, work.kiq)
    (record,) = store.query()

    async def replay_and_send():
        await enqueue(broker, replay_of(record, queue="mail"))
        await work.kiq()

    serve(broker, replay_and_send)

    last = store.query(order="oldest")[-1]
    assert last.correlation_id == last.job_id != record.correlation_id
    assert not {"queue", "replay_of"} & {*last.labels}
    assert work.labels == {"priority": 3}


def replay_of(record, **values):
    given = {
        "task_identifier": record.task_identifier,
        "args": record.payload["args"],
        "kwargs": record.payload["kwargs"],
        "correlation_id": record.correlation_id,
        "queue": record.labels.get("queue"),
        "carried": Carried(correlation_id=record.correlation_id, replay_of=record.id),
    }
    return Replay(**given | values)


def test_a_broker_that_was_not_started_is_started_for_a_replay(store, make_broker):
    seen = []

    class Broker(AsyncBroker):
        async def startup(self):
            await super().startup()
            seen.append("startup")

        async def kick(self, message):
            seen.append(message.task_name)

        def listen(self):
            raise NotImplementedError

        async def shutdown(self):
            await super().shutdown()
            seen.append("shutdown")

    worker, broker = make_broker(JobHistory(store)), Broker().with_middlewares(JobHistory(store))
    for each in (worker, broker):
        each.register_task(print_nothing, task_name="work")
    serve(worker, worker.find_task("work").kiq)
    (record,) = store.query()

    async def replay_while_it_runs():
        await broker.startup()
        return await replay_async(store, broker, record.id, force=True)

    assert replay(store, broker, record.id).job_id != record.job_id
    assert seen == ["startup", "work", "shutdown"]
    asyncio.run(replay_while_it_runs())
    assert seen[3:] == ["startup", "work"]


def test_a_replay_of_an_unknown_task_is_refused(make_broker):
    broker = make_broker()
    broker.task(task_name="known")(print_nothing)
    unknown = Replay(
        task_identifier="os:system",
        args=[],
        kwargs={},
        correlation_id="c",
        queue=None,
        carried=Carried(replay_of=uuid4()),
    )

    with pytest.raises(InvalidInput, match=r"'os:system' is no task of the broker, .*known"):
        asyncio.run(enqueue(broker, unknown))


async def print_nothing(): ...


def test_schedules_are_those_in_the_labels_of_tasks(make_broker):
    broker = make_broker()
    nightly = [
        {"cron": "17 2 * * *", "cron_offset": "Europe/Berlin", "schedule_id": "nightly"},
        {"cron": "0 * * * *"},
        {"cron": "0 5 * * *", "cron_offset": timedelta(hours=2), "schedule_id": "shifted"},
        {"interval": 30, "schedule_id": "often"},
        {"time": None},
    ]
    broker.task(task_name="report", schedule=nightly)(print_nothing)

    listed = schedules(TaskiqScheduler(broker, []))

    assert [(each.name, each.cron, each.every, each.timezone) for each in listed] == [
        ("nightly", "17 2 * * *", None, "Europe/Berlin"),
        ("report", "0 * * * *", None, "UTC"),
        ("shifted", None, None, None),
        ("often", None, timedelta(seconds=30), None),
    ]
    assert {each.task_identifier for each in listed} == {"report"}
    assert listed[2].description == "cron 0 5 * * *, offset 2:00:00"
    assert schedules(broker) == listed


def test_without_taskiq_the_import_says_what_to_install():
    code = "import sys; sys.modules['taskiq'] = None; import jobhistory.contrib.taskiq"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "pip install 'jobhistory[taskiq]'" in done.stderr


APP = """
import asyncio
import os
import shutil
import signal
import sys
import time

from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

from jobhistory import create_async_store, create_store
from jobhistory.contrib.taskiq import JobHistory
from jobhistory.recorder.async_recorder import AsyncRecorder


def make_store():
    return {
        "direct": lambda: create_store(DATABASE),
        "async": lambda: create_async_store(DATABASE),
        "recorder": lambda: AsyncRecorder(create_async_store(DATABASE)),
    }[KIND]()


broker = AioPikaBroker(
    RABBITMQ,
    exchange=Exchange(name=QUEUE),
    task_queues=[Queue(name=QUEUE, type=QueueType.CLASSIC)],
    dead_letter_queue=Queue(name=f"{QUEUE}.dead", type=QueueType.CLASSIC),
).with_middlewares(SimpleRetryMiddleware(default_retry_count=3), JobHistory(make_store))
broker.queue_name = QUEUE


@broker.task(task_name="ok")
async def ok(number: int):
    await asyncio.sleep(0)


@broker.task(task_name="thread")
def thread(number: int):
    return number


@broker.task(task_name="fail")
async def fail(number: int):
    raise LookupError(number)


@broker.task(task_name="flaky", retry_on_error=True)
async def flaky(number: int, context: Context = TaskiqDepends()):
    if "_retries" not in context.message.labels:
        raise ConnectionError(number)


@broker.task(task_name="parent")
async def parent():
    await ok.kiq(0)


@broker.task(task_name="times_out", timeout=0.2)
async def times_out():
    await asyncio.sleep(60)


@broker.task(task_name="exits")
def exits():
    sys.exit(3)


@broker.task(task_name="kill")
def kill(folder: str):
    if not os.path.exists(f"{folder}/killed"):
        open(f"{folder}/killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


@broker.task(task_name="slow")
def slow(folder: str):
    open(f"{folder}/slow", "w").close()
    time.sleep(2)


@broker.task(task_name="endless")
async def endless(folder: str):
    open(f"{folder}/endless", "w").close()
    await asyncio.sleep(600)
"""


@pytest.fixture
def app(tmp_path, rabbitmq_url, unique, migrated_postgres, monkeypatch):
    """Writes an app for a worker, and returns its broker and a store on its database."""
    engine = create_engine(migrated_postgres)

    def write(kind):
        url = migrated_postgres.render_as_string(hide_password=False)
        write_app(*(tmp_path, APP), DATABASE=url, RABBITMQ=rabbitmq_url, QUEUE=unique, KIND=kind)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "jobs_app", raising=False)
        import jobs_app

        return jobs_app.broker, create_store(engine)

    yield write
    parameters = pika.URLParameters(rabbitmq_url.removesuffix("//") + "/%2F")
    with closing(pika.BlockingConnection(parameters)) as connection:
        channel = connection.channel()
        channel.queue_delete(unique)
        channel.queue_delete(f"{unique}.dead")
        channel.exchange_delete(unique)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM job_history"))
    engine.dispose()


def worker(folder, *options):
    return running(
        *("taskiq", "worker", "jobs_app:broker", "--workers", "1", "--max-async-tasks", "20"),
        *options,
        folder=folder,
    )


def send(broker, *calls):
    async def run():
        await broker.startup()
        jobs = [await broker.find_task(name).kiq(*args) for name, *args in calls]
        await broker.shutdown()
        return [job.task_id for job in jobs]

    return asyncio.run(run())


def test_a_worker_records_all_attempts(app, tmp_path):
    broker, store = app("direct")
    many = [
        *(("ok", number) for number in range(80)),
        *(("thread", number) for number in range(40)),
        *(("fail", number) for number in range(40)),
        *(("flaky", number) for number in range(40)),
    ]
    with worker(tmp_path) as process:
        ids = send(broker, *many, ("parent",), ("times_out",), ("exits",))
        wait_for(
            lambda: store.count().value >= 244 and not store.query(status="started"),
            "the outcomes of all attempts",
        )

        records = store.query(limit=1000)
        assert Counter(
            (each.task_identifier, each.attempt_number, each.status.value, each.will_retry)
            for each in records
        ) == {
            ("ok", 1, "completed", None): 81,
            ("thread", 1, "completed", None): 40,
            ("fail", 1, "failed", False): 40,
            ("flaky", 1, "failed", True): 40,
            ("flaky", 2, "completed", None): 40,
            ("parent", 1, "completed", None): 1,
            ("times_out", 1, "failed", False): 1,
            ("exits", 1, "failed", False): 1,
        }
        failures = [each for each in records if each.status == "failed"]
        assert all(each.error_stack for each in failures)
        assert {each.error_type for each in failures} == {
            *("LookupError", "ConnectionError", "jobhistory.TimedOut", "SystemExit"),
        }
        assert {each.labels["queue"] for each in records} == {broker.queue_name}
        assert {*ids} <= {each.job_id for each in records}
        (parent,) = store.query(task_identifier="parent")
        (child,) = store.query(task_identifier="ok", correlation_id=parent.correlation_id)
        assert child.parent_id == parent.id

        (slow,) = send(broker, ("slow", str(tmp_path)))
        wait_for((tmp_path / "slow").exists, "the start of a slow task")
        assert process.end() == 0
        (record,) = store.get_by_job_id(slow)
        assert record.status == "completed"


def test_a_worker_that_was_killed_records_the_second_run_as_another_row(app, tmp_path):
    broker, store = app("async")
    with worker(tmp_path, "--wait-tasks-timeout", "0.1") as process:
        store.record_start(Job("twin", "twin"), "elsewhere:1", "twin")
        (job,) = send(broker, ("kill", str(tmp_path)))
        wait_for(lambda: store.query(job_id=job, status="completed"), "the end of the second run")

        second, first = store.get_by_job_id(job)
        assert (first.status, first.error_type) == ("failed", "jobhistory.WorkerLost")
        assert (second.status, second.attempt_number) == ("completed", 1)
        assert store.get_by_job_id("twin")[0].status == "started"

        (endless,) = send(broker, ("endless", str(tmp_path)))
        wait_for((tmp_path / "endless").exists, "the start of an endless task")
        assert process.end() == 0
        (record,) = store.get_by_job_id(endless)
        assert record.status == "cancelled"


def test_a_recorder_loses_nothing_if_the_worker_is_stopped(app, tmp_path):
    broker, store = app("recorder")
    with worker(tmp_path) as process:
        send(broker, *(("ok", number) for number in range(100)), ("slow", str(tmp_path)))
        wait_for((tmp_path / "slow").exists, "the start of a slow task")
        assert process.end() == 0

    assert Counter(each.status.value for each in store.query(limit=1000)) == {"completed": 101}


def test_the_example_prints_what_it_recorded(tmp_path):
    program = Path(__file__).parents[2] / "examples" / "taskiq_app.py"
    shutil.copy(program, tmp_path)
    done = subprocess.run(
        [sys.executable, "taskiq_app.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == (
        "resize, attempt 1: completed\n"
        "order, attempt 1: completed\n"
        "bill, attempt 1: failed, will be tried again: there is no customer 17\n"
        "bill, attempt 2: failed: there is no customer 17\n"
        "the order and its bill have the same correlation id: True\n"
    )
