"""Replay with the adapter of each framework, from the failed attempt to the one that repeats it.

Those of Django, Procrastinate, APScheduler and arq, which work in other ways, are in their tests.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from jobhistory import InvalidInput, Job, NotReplayable, create_store
from jobhistory.contrib.replay import replay, replay_all, replay_all_async, replay_async
from tests.contrib.workers import wait_for

pytestmark = [
    pytest.mark.adapters,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:celery"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:kombu"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:rq"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:redis"),
    pytest.mark.filterwarnings("ignore:Call to:DeprecationWarning"),
]

is_broken = False
"""Whether the task fails."""


def ship(order, *, by):
    if is_broken:
        raise ConnectionError("no carrier")
    return [order, by]


@dataclass
class Framework:
    """A framework with one task. `work` returns when all jobs have ended."""

    app: Any
    task: Any
    name: str
    enqueue: Any
    work: Any


@contextmanager
def celery(store):
    """In eager mode; `test_celery.py` has a replay with a worker."""
    module = pytest.importorskip("celery")
    from jobhistory.contrib.celery import record_tasks

    app = module.Celery("replay", set_as_current=False)
    app.conf.task_always_eager = True
    task = app.task(ship, name="ship")
    recorded = record_tasks(app, store)
    yield Framework(
        app,
        task,
        "ship",
        lambda *args, **kwargs: task.apply_async(args, kwargs),
        lambda: None,
    )
    recorded.close()


@contextmanager
def rq(store):
    module = pytest.importorskip("rq")
    fakeredis = pytest.importorskip("fakeredis")
    from jobhistory.contrib.rq import RecordsJobs

    connection = fakeredis.FakeStrictRedis(server=fakeredis.FakeServer())
    queue = type("Queue", (module.Queue,), {"replayable": [ship]})("orders", connection=connection)
    worker = type("Worker", (RecordsJobs, module.SimpleWorker), {"history": store})

    def work():
        worker(["orders"], connection=connection).work(burst=True, logging_level="CRITICAL")

    def enqueue(*args, **kwargs):
        queue.enqueue_call(ship, args, kwargs)

    yield Framework(queue, worker, f"{__name__}.ship", enqueue, work)


@contextmanager
def dramatiq(store):
    module = pytest.importorskip("dramatiq")
    from dramatiq.brokers.stub import StubBroker

    from jobhistory.contrib.dramatiq import JobHistory

    broker = StubBroker()
    broker.add_middleware(JobHistory(store))
    actor = module.actor(ship, actor_name="ship", broker=broker, max_retries=0)
    worker = module.Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    yield Framework(
        broker,
        actor,
        "ship",
        lambda *args, **kwargs: actor.send(*args, **kwargs),
        lambda: (broker.join(actor.queue_name, timeout=20_000, fail_fast=False), worker.join()),
    )
    worker.stop()
    broker.close()


@contextmanager
def huey(store):
    module = pytest.importorskip("huey")
    from jobhistory.contrib.huey import record_tasks

    app = module.MemoryHuey("shop")
    recorded = record_tasks(app, store)
    task = app.task()(ship)

    def work():
        while (each := app.dequeue()) is not None:
            app.execute(each)

    yield Framework(app, task, f"{__name__}.ship", task, work)
    recorded.close()


@contextmanager
def taskiq(store):
    pytest.importorskip("taskiq")
    from taskiq import InMemoryBroker

    from jobhistory.contrib.taskiq import JobHistory

    broker = InMemoryBroker(await_inplace=True).with_middlewares(JobHistory(store))

    def ship_by_taskiq(order, *, by):  # Taskiq renames the function
        return ship(order, by=by)

    task = broker.register_task(ship_by_taskiq, task_name="ship")

    def enqueue(*args, **kwargs):
        asyncio.run(task.kiq(*args, **kwargs))

    yield Framework(broker, task, "ship", enqueue, lambda: None)
    broker.executor.shutdown()


@pytest.fixture
def store():
    return create_store()


@pytest.fixture(params=[celery, rq, dramatiq, huey, taskiq], ids=lambda each: each.__name__)
def framework(request, store, monkeypatch):
    monkeypatch.setattr(f"{__name__}.is_broken", True)
    with request.param(store) as framework:
        yield framework


@pytest.fixture
def failed(framework, store):
    """The record of a job that failed; the next one would succeed."""
    global is_broken
    framework.enqueue(7, by="air")
    framework.work()
    is_broken = False
    (record,) = store.query()
    assert record.status == "failed"
    assert record.task_identifier == framework.name
    return record


def check(store, failed, replayed, framework):
    framework.work()
    wait_for(lambda: store.query(status="completed"), "the new job")
    (new,) = store.query(labels={"replay_of": str(failed.id)})
    assert new.status == "completed"
    assert new.job_id == replayed.job_id != failed.job_id
    assert new.payload == failed.payload == {"args": [7], "kwargs": {"by": "air"}}
    assert new.correlation_id == failed.correlation_id
    assert new.labels.get("queue") == failed.labels.get("queue")
    assert (new.attempt_number, new.parent_id) == (1, None)
    assert "replayed_at" in store.get(failed.id).labels


def test_a_failed_job_runs_again(framework, store, failed):
    replayed = replay(store, framework.app, failed.id)

    check(store, failed, replayed, framework)
    with pytest.raises(NotReplayable, match="replayed at"):
        replay(store, framework.app, failed.id)


def test_failed_jobs_are_found_by_criteria(framework, store, failed):
    assert len(replay_all(store, framework.app, status="failed", dry_run=True).replayed) == 1
    replays = replay_all(store, framework.app, status="failed", task_identifier=framework.name)

    (replayed,) = replays.replayed
    check(store, failed, replayed, framework)


@pytest.mark.parametrize("all_of_them", [False, True])
def test_it_can_be_awaited(framework, store, failed, all_of_them):
    async def run():
        if not all_of_them:
            return await replay_async(store, framework.app, failed.id)
        return (await replay_all_async(store, framework.app, status="failed")).replayed[0]

    check(store, failed, asyncio.run(run()), framework)


def test_a_task_that_the_app_does_not_have_is_refused(framework, store):
    payload = {"args": ["/"], "kwargs": {}}
    execution = store.begin(Job("1", "no such task", payload), "w")
    execution.end("boom")

    with pytest.raises(InvalidInput, match="task_identifier 'no such task' "):
        replay(store, framework.app, execution.id)
    (refused,) = replay_all(store, framework.app, status="failed").refused
    assert "cannot be enqueued: task_identifier 'no such task'" in refused.reason
    assert store.get(execution.id).labels is None


def test_a_task_is_no_app(framework, store, failed):
    with pytest.raises(InvalidInput, match="no app that jobs can be enqueued with"):
        replay(store, framework.task, failed.id)
