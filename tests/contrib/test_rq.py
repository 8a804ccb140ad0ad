"""Jobs of RQ, with a `SimpleWorker` on a Redis that is written in Python."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import pytest

from jobhistory import InvalidInput, Recorder, create_store, current_execution
from tests.contrib.workers import wait_for

rq = pytest.importorskip("rq")
fakeredis = pytest.importorskip("fakeredis")

from redis import Redis  # noqa: E402
from rq.job import Job  # noqa: E402
from rq.registry import StartedJobRegistry  # noqa: E402

from jobhistory.contrib import rq as adapter  # noqa: E402
from jobhistory.contrib.adapter import Carried, Replay  # noqa: E402
from jobhistory.contrib.replay import replay  # noqa: E402
from jobhistory.contrib.rq import (  # noqa: E402
    CarriesHistory,
    Queue,
    RecordsJobs,
    SimpleWorker,
    enqueue,
    schedules,
)

pytestmark = [
    pytest.mark.adapters,
    # RQ's own, in what it uses and in how it forks.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:rq"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:redis"),
    pytest.mark.filterwarnings("ignore:Call to:DeprecationWarning"),
]

VERSION = tuple(int(part) for part in rq.version.VERSION.split(".")[:2])
ROOT = Path(__file__).parents[2]


class Refused(Exception):
    """An error that cannot be pickled or printed."""

    def __init__(self, lock, name):
        super().__init__(lock)

    def __str__(self):
        raise RuntimeError("no text")

    def __reduce__(self):
        raise TypeError("no pickle")


class Mailer:
    def send(self, to):
        return to


def double(number, **_):
    return 2 * number


def fail():
    raise ValueError("no such order")


def wait(seconds):
    time.sleep(seconds)


def refuse():
    raise Refused(object(), "x")


def give_back():
    return rq.Retry(max=2)


async def answer():
    return 42


def nested():
    return current_execution().id


def enqueue_double(number):
    Queue("default", connection=CONNECTIONS[-1]).enqueue(double, number)
    if len(CONNECTIONS) and number == 1:
        raise TimeoutError("try again")


def touch(job, connection, *_):
    CALLED.append(job.id)


def fail_in_callback(job, connection, *_):
    raise LookupError("the callback")


CONNECTIONS: list[Redis] = []
CALLED: list[str] = []


@pytest.fixture
def store():
    return create_store()


@pytest.fixture
def connection():
    connection = fakeredis.FakeStrictRedis(server=fakeredis.FakeServer())
    CONNECTIONS.append(connection)
    yield connection
    CONNECTIONS.clear()
    CALLED.clear()


class ShopQueue(Queue):
    replayable = ("shop.tasks.*", double, fail)


@pytest.fixture
def queue(connection):
    return ShopQueue("default", connection=connection)


@pytest.fixture
def work(store, connection):
    """Run the jobs in the queues with a worker in this process; return what history has."""

    def work(*queues, history=store, options=None, **arguments):
        class AppWorker(RecordsJobs, rq.SimpleWorker):
            history_options = options or {}

        AppWorker.history = history
        names = list(queues) or ["default"]
        worker = AppWorker(names, connection=connection, name="worker-1", **arguments)
        worker.work(burst=True, logging_level="CRITICAL")
        return rows(store)

    return work


def rows(store, **criteria):
    records = store.query(limit=10_000, **criteria)
    return sorted(records, key=lambda record: (record.started_at, record.id))


def one(records):
    (record,) = records
    return record


def outcomes(records):
    return [(record.attempt_number, record.status, record.will_retry) for record in records]


def replay_of(task, *args, queue=None, **kwargs):
    return Replay(
        task_identifier=task,
        args=list(args),
        kwargs=kwargs,
        correlation_id="request-1",
        queue=queue,
        carried=Carried(correlation_id="request-1", replay_of=UUID(int=7 << 76 | 2 << 62)),
    )


def test_a_job_is_recorded_with_what_rq_knows(queue, work):
    job = queue.enqueue(double, 2, tag="a", job_id="job-1")

    record = one(work())
    assert (record.job_id, record.correlation_id, record.worker_id) == (job.id, job.id, "worker-1")
    assert (record.task_identifier, record.status) == (f"{__name__}.double", "completed")
    assert record.payload == {"args": [2], "kwargs": {"tag": "a"}}
    assert record.payload_is_exact
    assert record.attempt_number == 1
    assert 0 <= record.queue_time_ms < 60_000
    assert record.labels == {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "queue": "default",
    }


def test_a_failure_has_the_original_exception_and_its_traceback(queue, work):
    queue.enqueue(fail)

    record = one(work())
    assert (record.error_type, record.error_message) == ("ValueError", "no such order")
    assert "in fail\n" in record.error_stack
    assert record.will_retry is False


def test_each_attempt_is_a_row_with_its_number(queue, work):
    queue.enqueue(fail, retry=rq.Retry(max=2))

    assert outcomes(work()) == [(1, "failed", True), (2, "failed", True), (3, "failed", False)]


@pytest.mark.skipif(VERSION < (2, 1), reason="RQ 2.0 has no returned Retry")
def test_a_returned_retry_is_a_failed_attempt(queue, work):
    queue.enqueue(give_back)

    records = work()
    assert outcomes(records) == [(1, "failed", True), (2, "failed", True), (3, "failed", False)]
    assert records[0].error_type == "rq.job.Retry"


@pytest.mark.skipif(VERSION < (2, 2), reason="RQ 2.1 has no Repeat")
def test_each_repetition_of_a_job_counts_from_1(queue, work):
    queue.enqueue(double, 1, repeat=rq.Repeat(times=2))

    assert outcomes(work()) == 3 * [(1, "completed", None)]


def test_the_meta_of_the_user_stays(queue, work, connection):
    job = queue.enqueue(fail, meta={"tenant": "a"}, retry=rq.Retry(max=1))
    work()

    meta = Job.fetch(job.id, connection=connection).meta
    assert meta.pop("jobhistory")["attempts"] == 1
    assert meta == {"tenant": "a"}


@pytest.mark.parametrize(
    "header", [None, "x", 3, {"attempts": "many"}, {"attempts": -1, "parent_id": "no"}]
)
def test_a_header_that_somebody_wrote_wrongly_fails_no_job(queue, work, header):
    queue.enqueue(double, 1, meta={"jobhistory": header})

    assert outcomes(work()) == [(1, "completed", None)]


# RQ 2.0 leaves the event loop open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_coroutine_is_recorded(queue, work):
    queue.enqueue(answer)

    assert one(work(options={"result": True})).result == 42
    gc.collect()


def test_the_job_sees_its_own_execution(queue, work):
    queue.enqueue(nested)

    record = one(work(options={"result": True}))
    assert UUID(record.result) == record.id


def test_a_method_is_recorded_with_its_class(queue, work):
    queue.enqueue(Mailer().send, "ann")

    assert one(work()).task_identifier == f"{__name__}.Mailer().send"


def test_sys_exit_is_a_failure(queue, work):
    queue.enqueue(sys.exit, 3)

    assert one(work()).error_type == "SystemExit"


def test_a_time_limit_is_recorded_as_timed_out(queue, work):
    queue.enqueue(wait, 30, job_timeout=1)

    record = one(work())
    assert record.error_type == "jobhistory.TimedOut"
    assert "in wait\n" in record.error_stack


def test_a_job_that_cannot_be_read_is_recorded_as_failed(queue, work, connection):
    job = queue.enqueue(double, 1)
    connection.hset(job.key, "data", b"no pickle")

    record = one(work())
    assert (record.task_identifier, record.status) == ("unreadable", "failed")
    assert record.error_type == "rq.exceptions.DeserializationError"


def test_errors_and_arguments_that_are_hard_to_store_are_recorded(queue, work):
    queue.enqueue(refuse)
    queue.enqueue(double, 2, password="hunter2", text="a\0b", object=object, big="x" * 1_000_000)

    refused, doubled = work()
    assert refused.error_type.endswith("Refused")
    assert doubled.status == "completed"
    assert "hunter2" not in str(doubled.payload)
    assert not doubled.payload_is_exact


def test_exception_handlers_callbacks_and_their_order_stay(queue, work):
    handled = []

    def handler(job, *exc_info):
        handled.append(job.id)
        return False

    done = queue.enqueue(double, 1, on_success=rq.Callback(touch))
    failed = queue.enqueue(fail, on_failure=rq.Callback(touch))
    work(exception_handlers=[handler])

    assert [done.id, failed.id] == CALLED
    assert handled == [failed.id]


def test_the_error_of_a_callback_is_what_rq_records_too(queue, work):
    queue.enqueue(double, 1, on_success=rq.Callback(fail_in_callback))

    assert one(work()).error_type == "LookupError"


def test_an_exception_handler_that_raises_does_not_hide_the_error(queue, work):
    def handler(job, *exc_info):
        raise OSError("the handler")

    queue.enqueue(fail)
    records = work(exception_handlers=[handler])

    assert one(records).error_type == "ValueError"


def test_only_and_skip_select_tasks(queue, work):
    queue.enqueue(double, 1)
    queue.enqueue(fail)

    assert one(work(options={"skip": [f"{__name__}.fail"]})).status == "completed"


def test_two_worker_classes_record_in_their_own_stores(queue, work, connection):
    other = create_store()
    Queue("other", connection=connection).enqueue(double, 2)
    queue.enqueue(double, 1)

    one(work())
    work("other", history=lambda: other)
    assert one(rows(other)).payload["args"] == [2]


def test_a_job_that_a_job_enqueues_knows_its_parent_also_after_a_retry(queue, work):
    queue.enqueue(enqueue_double, 1, retry=rq.Retry(max=1))
    queue.enqueue(fail, retry=rq.Retry(max=1))

    records = work()
    parents = [each for each in records if each.task_identifier.endswith("enqueue_double")]
    children = [each for each in records if each.task_identifier.endswith(".double")]
    assert [child.parent_id for child in children] == [parent.id for parent in parents]
    assert {each.correlation_id for each in children} == {parents[0].job_id}
    assert {each.parent_id for each in records} == {None, *[parent.id for parent in parents]}


def test_jobs_enqueued_in_other_ways_carry_their_parent_too(queue, store, work):
    with store.track({"id": "1", "task_identifier": "web"}, "web", "request-1") as execution:
        queue.enqueue_many([Queue.prepare_data(double, (1,))])
        queue.enqueue_in(timedelta(0), double, 2)
        first = queue.enqueue(double, 3)
        queue.enqueue(double, 4, depends_on=first)
    for job_id in queue.scheduled_job_registry.get_job_ids():
        queue.enqueue_job(queue.fetch_job(job_id))

    records = [record for record in work() if record.task_identifier != "web"]
    assert len(records) == 4
    assert {record.parent_id for record in records} == {execution.id}
    assert {record.correlation_id for record in records} == {"request-1"}


def test_a_queue_that_runs_jobs_at_once_records_them_if_it_has_a_store(connection, store):
    class Immediate(CarriesHistory, rq.Queue):
        history = store

    queue = Immediate("now", is_async=False, connection=connection)
    assert queue.enqueue(double, 2).return_value() == 4
    queue.enqueue(fail)
    Queue("now", is_async=False, connection=connection).enqueue(double, 3)

    assert [record.status for record in rows(store)] == ["completed", "failed"]
    assert rows(store)[1].error_type == "ValueError"


def test_history_that_fails_fails_no_job(queue, work, caplog):
    def no_store():
        raise OSError("no configuration")

    class Broken(RecordsJobs, rq.SimpleWorker):
        history = create_store("sqlite:////no/such/folder/history.db")

    job = queue.enqueue(double, 2)
    with caplog.at_level(logging.ERROR, "jobhistory"):
        Broken(["default"], connection=queue.connection).work(burst=True, logging_level="CRITICAL")

    assert job.return_value() == 4
    assert "the start of" in caplog.text
    with pytest.raises(OSError, match="no configuration"):  # a mistake of set-up shows at once
        work(history=no_store)


def test_jobs_wait_at_most_once_for_a_database_that_does_not_answer(queue, connection):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        class Slow(RecordsJobs, rq.SimpleWorker):
            history = create_store(f"postgresql+psycopg://app@127.0.0.1:{port}/app")
            history_options: ClassVar = {"end_leftovers": False}

        jobs = [queue.enqueue(double, number) for number in range(4)]
        began = time.monotonic()
        Slow(["default"], connection=connection).work(burst=True, logging_level="CRITICAL")
        took = time.monotonic() - began
        Slow.history.close()

    assert [job.return_value() for job in jobs] == [0, 2, 4, 6]
    assert took < 6


def test_a_recorder_gets_everything(queue, work, store):
    queue.enqueue(double, 1)
    queue.enqueue(fail)
    with Recorder(store) as recorder:
        work(history=recorder)

    assert [record.status for record in rows(store)] == ["completed", "failed"]


def test_the_ready_worker_says_that_the_url_is_missing(queue, connection, monkeypatch):
    monkeypatch.delenv("JOBHISTORY_URL", raising=False)

    class Unconfigured(SimpleWorker):
        pass

    with pytest.raises(InvalidInput, match="JOBHISTORY_URL"):
        Unconfigured(["default"], connection=connection).work(burst=True)


class Parent:
    """A worker whose horse is imagined."""

    def __init__(self, store, queue, job):
        class AppWorker(RecordsJobs, rq.Worker):
            history = store
            history_options: ClassVar = {"skipped": "record"}

        self.worker = AppWorker(["default"], connection=queue.connection, name="parent")
        self.queue, self.job = queue, job

    def lose_horse(self, *, stopped=False, age=0, error=None):
        def execute(job, queue):
            execution = self.worker.prepare_execution(job)
            execution.created_at -= timedelta(seconds=age)
            if error is not None:
                raise error
            if stopped:
                self.worker._stopped_job_id = job.id
            arguments = {} if VERSION < (3, 0) else {"execution": execution}
            self.worker.handle_job_failure(
                job, queue=queue, exc_string="waitpid returned 9; ", **arguments
            )

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rq.Worker, "execute_job", lambda _, job, queue: execute(job, queue))
            self.worker.execute_job(self.job, self.queue)


@pytest.mark.parametrize(
    ("how", "error_type", "message"),
    [
        ({}, "jobhistory.WorkerLost", "waitpid returned 9"),
        ({"age": 65}, "jobhistory.WorkerLost", "waitpid returned 9"),
        ({"age": 75}, "jobhistory.TimedOut", "60 s after the limit of 10 s"),
    ],
)
def test_the_worker_records_why_its_horse_has_gone(store, queue, how, error_type, message):
    Parent(store, queue, queue.enqueue(double, 1, job_timeout=10)).lose_horse(**how)

    record = one(rows(store))
    assert (record.status, record.error_type) == ("failed", error_type)
    assert message in record.error_message
    assert record.execution_time_ms >= how.get("age", 0) * 1000


def test_a_job_that_was_stopped_is_cancelled(store, queue):
    Parent(store, queue, queue.enqueue(double, 1, retry=rq.Retry(max=1))).lose_horse(stopped=True)

    assert outcomes(rows(store)) == [(1, "cancelled", None)]


def test_a_cold_shutdown_is_a_lost_worker(store, queue):
    parent = Parent(store, queue, queue.enqueue(double, 1))
    with pytest.raises(SystemExit):
        parent.lose_horse(error=SystemExit())

    assert one(rows(store)).error_type == "jobhistory.WorkerLost"


def test_a_retry_after_a_lost_horse_keeps_the_meta_that_the_horse_saved(store, queue, work):
    job = queue.enqueue(double, 1, retry=rq.Retry(max=1))
    parent = Parent(store, queue, queue.fetch_job(queue.pop_job_id()))
    in_horse = queue.fetch_job(job.id)
    in_horse.meta["progress"] = 50
    in_horse.save_meta()
    parent.lose_horse()

    assert outcomes(work()) == [(1, "failed", True), (2, "completed", None)]
    assert queue.fetch_job(job.id).meta["progress"] == 50


def test_a_job_that_was_lost_before_it_began_is_recorded_as_skipped_only(store, queue):
    job = queue.enqueue(double, 1)
    Parent(store, queue, job).worker.handle_job_failure(job, queue, exc_string="stuck")

    assert outcomes(rows(store)) == [(1, "cancelled", None)]


def abandon(connection, job, worker):
    """Leave a job as a worker does that is killed with its horse, long ago."""
    execution = worker.prepare_execution(job)
    worker.prepare_job_execution(job)
    registry = StartedJobRegistry(job.origin, connection=connection)
    connection.zadd(registry.key, {execution.composite_key: time.time() - 1})


def test_another_worker_records_what_rq_finds_abandoned(queue, connection, store, work):
    job = queue.enqueue(double, 2, retry=rq.Retry(max=1))
    dead = rq.SimpleWorker(["default"], connection=connection, name="dead")
    store.record_start(
        {"id": job.id, "task_identifier": "t", "attempts": 1}, "dead", correlation_id=job.id
    )
    untouched = store.record_start({"id": "other", "task_identifier": "t"}, "dead", "other")
    abandon(connection, queue.fetch_job(queue.pop_job_id()), dead)

    def last(job, *exc_info):
        return False

    lost, other, again = work(exception_handlers=[last])
    assert (lost.status, lost.error_type, lost.will_retry) == (
        "failed",
        "jobhistory.WorkerLost",
        True,
    )
    assert (other.id, other.status) == (untouched.id, "started")
    assert (again.job_id, again.attempt_number, again.status) == (job.id, 2, "completed")


def test_a_starting_worker_ends_what_the_previous_one_of_its_name_left(queue, store, work):
    store.record_start({"id": "1", "task_identifier": "t"}, "worker-1", "1")
    store.record_start({"id": "2", "task_identifier": "t"}, "worker-2", "2")
    work()

    wait_for(lambda: not store.running(worker_id="worker-1"), "the leftovers are ended")
    assert one(store.running()).worker_id == "worker-2"


@pytest.mark.skipif(VERSION < (2, 5), reason="RQ 2.4 has intervals only")
@pytest.mark.parametrize("of", ["scheduler", "queue"])
def test_schedules_of_a_scheduler_and_of_a_redis(queue, connection, of):
    from rq.cron import CronScheduler

    scheduler = CronScheduler(connection=connection, logging_level=logging.CRITICAL)
    scheduler.register(double, "default", cron="17 2 * * *")
    scheduler.register(fail, "default", interval=90)
    if of == "queue" and VERSION < (2, 7):
        with pytest.raises(InvalidInput, match="pass a CronScheduler"):
            schedules(queue)
        return
    scheduler.register_birth()

    nightly, often = schedules(scheduler if of == "scheduler" else queue)
    assert (nightly.task_identifier, nightly.cron) == (f"{__name__}.double", "17 2 * * *")
    assert nightly.every is None
    assert (often.name, often.every) == (f"{__name__}.fail", timedelta(seconds=90))
    assert often.description == "every 90 seconds"


def test_enqueue_repeats_a_job_with_its_correlation(queue, work):
    job_id = enqueue(queue, replay_of(f"{__name__}.double", 4, tag="a"))

    record = one(work())
    assert (record.job_id, record.status) == (job_id, "completed")
    assert record.correlation_id == "request-1"
    assert record.labels["replay_of"] == str(UUID(int=7 << 76 | 2 << 62))
    assert record.payload == {"args": [4], "kwargs": {"tag": "a"}}


def test_a_failed_job_can_be_replayed(queue, store, work):
    queue.enqueue(fail, retry=rq.Retry(max=1))
    *_, failed = work()
    replay(store, queue, failed.id)

    *_, again = work()
    assert again.labels["replay_of"] == str(failed.id)
    assert (again.correlation_id, again.attempt_number) == (failed.correlation_id, 1)


def test_enqueue_uses_the_queue_of_the_execution(queue, work):
    enqueue(queue, replay_of(f"{__name__}.double", 4, queue="urgent"))

    assert one(work("urgent")).labels["queue"] == "urgent"


@pytest.mark.parametrize("replayable", [None, "shop.tasks.*", fail])
def test_enqueue_needs_a_queue_that_lists_what_may_be_replayed(connection, replayable):
    for kind in (rq.Queue, Queue):
        queue = kind("default", connection=connection)
        if replayable is not None:
            queue.replayable = replayable
        with pytest.raises(InvalidInput, match=r'replayable = \["shop\.tasks\.\*"\]'):
            enqueue(queue, replay_of("os.system", "ls"))
        assert queue.count == 0


@pytest.mark.parametrize(
    "name",
    ["os.system", "shop.tasks", "shop.tasks.os.system", "other.shop.tasks.send", "shop.Tasks.send"],
)
def test_enqueue_refuses_what_the_queue_does_not_list(queue, name):
    with pytest.raises(InvalidInput, match=r"not replayable in this queue: shop\.tasks\.\*"):
        enqueue(queue, replay_of(name, "ls"))
    assert queue.count == 0


@pytest.mark.parametrize(
    ("replayable", "name"),
    [
        (["shop.tasks.*"], "shop.tasks.send"),
        ([double], f"{__name__}.double"),
        (["*"], "os.system"),
        ({"shop.tasks.send"}, "shop.tasks.send"),
    ],
)
def test_enqueue_takes_patterns_names_functions_or_everything(connection, replayable, name):
    queue = rq.Queue("default", connection=connection)
    queue.replayable = replayable

    assert queue.fetch_job(enqueue(queue, replay_of(name))).func_name == name


def test_enqueue_refuses_what_is_no_function_and_a_queue_without_a_worker(connection, queue):
    queue.replayable = ["*"]
    with pytest.raises(InvalidInput, match="function to import"):
        enqueue(queue, replay_of(f"{__name__}.Mailer().send"))
    with pytest.raises(InvalidInput, match="at once"):
        enqueue(ShopQueue("now", is_async=False, connection=connection), replay_of("shop.tasks.x"))
    assert queue.count == 0


def test_importing_the_adapter_without_rq_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rq", None)
    monkeypatch.delitem(sys.modules, "jobhistory.contrib.rq")

    with pytest.raises(ImportError, match=r"pip install 'jobhistory\[rq\]'"):
        importlib.import_module("jobhistory.contrib.rq")
    monkeypatch.undo()
    assert sys.modules["jobhistory.contrib.rq"] is adapter
