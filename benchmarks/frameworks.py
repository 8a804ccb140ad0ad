"""The time of an empty task in each framework: alone, and with its adapter.

Each function yields the ways of one framework. They run in a process of their own, because
frameworks have settings for the whole process.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter
from typing import Any

from jobhistory import Recorder, create_store

Turn = Callable[[int], float]
"""Runs a number of tasks and returns the seconds that they took."""

Ways = dict[str, Turn]

ALONE, DIRECT, IN_BACKGROUND = "alone", "jobhistory", "jobhistory, Recorder"
ON_SQLITE = "jobhistory on SQLite"


@dataclass(frozen=True)
class Places:
    """Where the tasks of a benchmark are recorded, and where they are queued."""

    postgresql: str
    sqlite: str
    redis: str | None
    rabbitmq: str | None


def nothing() -> None:
    """Do nothing: the empty task."""


_noted: list[float] = []


def note_time() -> None:
    """Note the time, in a task."""
    _noted.append(perf_counter())


def timed(run: Callable[[int], None], count: int) -> float:
    """Return the seconds that a number of tasks took."""
    begun = perf_counter()
    run(count)
    return perf_counter() - begun


@contextmanager
def stores(places: Places) -> Iterator[dict[str, Any]]:
    """Yield what records in each way; `None` for the framework alone."""
    with (
        create_store(places.postgresql) as direct,
        create_store(places.sqlite) as on_sqlite,
        create_store(places.postgresql) as behind,
        Recorder(behind) as recorder,
    ):
        yield {ALONE: None, DIRECT: direct, ON_SQLITE: on_sqlite, IN_BACKGROUND: recorder}


def finish(store: Any) -> None:
    """Wait until a recorder has written everything, so that its time counts as well."""
    if isinstance(store, Recorder):
        store.flush()


@contextmanager
def celery(places: Places) -> Iterator[Ways]:
    """Celery's eager mode, in which the caller runs the tasks."""
    from celery import Celery

    from benchmarks.celery_worker import OTEL, RESULTS, instrumented, with_django_results
    from jobhistory.contrib.celery import record_tasks

    def run(app: Celery, store: Any, count: int) -> float:
        recording = None if store is None else record_tasks(app, store)
        task = app.tasks["nothing"]

        def tasks(count: int) -> None:
            for _ in range(count):
                task.apply()
            finish(store)

        seconds = timed(tasks, count)
        if recording is not None:
            recording.close()
        return seconds

    def instrumented_run(app: Celery, count: int) -> float:
        with instrumented():
            return run(app, None, count)

    def new_app() -> Celery:
        app = Celery("benchmark", set_as_current=False)
        app.task(nothing, name="nothing")
        return app

    @cache  # made in the round that warms up
    def app_with_results() -> Celery:
        app = new_app()
        with_django_results(app, places.postgresql)
        app.conf.task_store_eager_result = True
        return app

    with stores(places) as made:
        ways: Ways = {name: partial(run, new_app(), store) for name, store in made.items()}
        yield ways | {
            RESULTS: lambda count: run(app_with_results(), None, count),
            OTEL: partial(instrumented_run, new_app()),
        }


@contextmanager
def rq(places: Places) -> Iterator[Ways]:
    """RQ's SimpleWorker, which runs jobs in its own process, on Redis."""
    import rq as rq_
    from redis import Redis

    from jobhistory.contrib.rq import RecordsJobs

    logging.getLogger("rq.worker").setLevel(logging.ERROR)
    connection = Redis.from_url(places.redis or "")
    name = f"jobhistory-{uuid.uuid4().hex}"
    queue = rq_.Queue(name, connection=connection)

    def run(worker_class: Any, store: Any, count: int) -> float:
        # Not the start and the end of the worker, which take long.
        for function in (note_time, *[nothing] * count, note_time):
            queue.enqueue(function, result_ttl=0)
        worker_class([queue], connection=connection).work(burst=True, logging_level="ERROR")
        end, begin = _noted.pop(), _noted.pop()
        return end - begin + timed(lambda _: finish(store), count)

    with stores(places) as made:
        ways: Ways = {ALONE: partial(run, rq_.SimpleWorker, None)}
        for way, store in made.items():
            if store is not None:
                bases = (RecordsJobs, rq_.SimpleWorker)
                ways[way] = partial(run, type("Recording", bases, {"history": store}), store)
        yield ways
    queue.delete(delete_jobs=True)


@contextmanager
def dramatiq(places: Places) -> Iterator[Ways]:
    """A worker of Dramatiq with one thread, on the broker in memory."""
    import dramatiq as dramatiq_
    from dramatiq.brokers.stub import StubBroker

    from jobhistory.contrib.dramatiq import JobHistory

    def run(store: Any, count: int) -> float:
        broker = StubBroker()
        if store is not None:
            broker.add_middleware(JobHistory(store))
        actor = dramatiq_.actor(nothing, actor_name="nothing", broker=broker)
        for _ in range(count):
            actor.send()
        worker = dramatiq_.Worker(broker, worker_threads=1, worker_timeout=10)

        def work(_: int) -> None:
            worker.start()
            broker.join(actor.queue_name)
            finish(store)

        seconds = timed(work, count)
        worker.stop()
        broker.close()
        return seconds

    with stores(places) as made:
        yield {name: partial(run, store) for name, store in made.items()}


@contextmanager
def huey(places: Places) -> Iterator[Ways]:
    """Huey's immediate mode, in which the caller runs the tasks."""
    from huey import MemoryHuey

    from jobhistory.contrib.huey import record_tasks

    logging.getLogger("huey").setLevel(logging.ERROR)

    def run(store: Any, count: int) -> float:
        app = MemoryHuey("benchmark", immediate=True, results=False)
        recording = None if store is None else record_tasks(app, store)
        task = app.task()(nothing)

        def tasks(count: int) -> None:
            for _ in range(count):
                task()
            finish(store)

        seconds = timed(tasks, count)
        if recording is not None:
            recording.close()
        return seconds

    with stores(places) as made:
        yield {name: partial(run, store) for name, store in made.items()}


@contextmanager
def procrastinate(places: Places) -> Iterator[Ways]:
    """A worker of Procrastinate, with its connector in memory; the store is for asyncio."""
    from procrastinate import App
    from procrastinate.testing import InMemoryConnector

    from jobhistory.contrib.procrastinate import record_jobs

    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    quiet: Any = {"wait": False, "install_signal_handlers": False, "listen_notify": False}

    async def nothing_async() -> None:
        """Do nothing."""

    async def turn(store: Any, count: int) -> float:
        middlewares = [] if store is None else [record_jobs(store)]
        app = App(connector=InMemoryConnector(), worker_defaults={"worker_middleware": middlewares})
        task = app.task(name="nothing")(nothing_async)
        for _ in range(count):
            await task.defer_async()
        begun = perf_counter()
        await app.run_worker_async(**quiet)
        finish(store)
        return perf_counter() - begun

    with asyncio.Runner() as runner, stores(places) as made:

        def run(store: Any, count: int) -> float:
            return runner.run(turn(store, count))

        yield {name: partial(run, store) for name, store in made.items()}


@contextmanager
def apscheduler(places: Places) -> Iterator[Ways]:
    """A background scheduler of APScheduler, whose executor has one thread."""
    from threading import Semaphore

    from apscheduler.events import EVENT_JOB_EXECUTED
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    from jobhistory.contrib.apscheduler import record_jobs

    logging.getLogger("apscheduler").setLevel(logging.ERROR)

    def run(store: Any, count: int) -> float:
        executors = {"default": ThreadPoolExecutor(1)}
        scheduler = BackgroundScheduler(executors=executors, timezone="UTC")
        if store is not None:
            record_jobs(scheduler, store)
        ended = Semaphore(0)
        scheduler.add_listener(lambda _: ended.release(), EVENT_JOB_EXECUTED)
        scheduler.start(paused=True)
        for _ in range(count):
            scheduler.add_job(nothing, misfire_grace_time=None)

        def work(count: int) -> None:
            scheduler.resume()
            for _ in range(count):
                ended.acquire()
            finish(store)

        seconds = timed(work, count)
        scheduler.shutdown()
        return seconds

    with stores(places) as made:
        yield {name: partial(run, store) for name, store in made.items()}


@contextmanager
def taskiq(places: Places) -> Iterator[Ways]:
    """Taskiq's broker in memory, which awaits tasks in place; the stores are for asyncio."""
    from taskiq import InMemoryBroker

    from jobhistory.contrib.taskiq import JobHistory

    async def nothing_async() -> None:
        """Do nothing."""

    async def kick(task: Any, store: Any, count: int) -> None:
        for _ in range(count):
            await task.kiq()
        finish(store)

    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        ways: Ways = {}
        for name, store in stack.enter_context(stores(places)).items():
            broker = InMemoryBroker(await_inplace=True)
            if store is not None:
                broker = broker.with_middlewares(JobHistory(store))
            task = broker.register_task(nothing_async, task_name="nothing")
            runner.run(broker.startup())

            def run(count: int, task: Any = task, store: Any = store) -> float:
                return timed(lambda count: runner.run(kick(task, store, count)), count)

            ways[name] = run
        yield ways


@contextmanager
def django(places: Places) -> Iterator[Ways]:
    """Django's Immediate backend, in which the caller runs the tasks."""
    import django as django_
    from django.conf import settings

    package = "django" if django_.VERSION[0] >= 6 else "django_tasks"
    settings.configure(
        INSTALLED_APPS=[*([] if package == "django" else [package]), "jobhistory.contrib.django"],
        TASKS={"default": {"BACKEND": f"{package}.{_IMMEDIATE[package]}"}},
        JOBHISTORY={"STORE": "jobhistory.create_store"},
        USE_TZ=True,
    )
    django_.setup()
    logging.getLogger(package).setLevel(logging.ERROR)
    from importlib import import_module

    from django.apps import apps
    from django.test import override_settings

    task = import_module("django.tasks" if package == "django" else package).task(nothing)
    recorder = apps.get_app_config("jobhistory")

    def tasks(store: Any, count: int) -> None:
        for _ in range(count):
            task.enqueue()
        finish(store)

    def run(store: Any, count: int) -> float:
        if store is None:
            recorder.recorder.close()
            return timed(partial(tasks, None), count)
        with override_settings(JOBHISTORY={"STORE": store}):
            return timed(partial(tasks, store), count)

    with stores(places) as made:
        yield {name: partial(run, store) for name, store in made.items()}


_IMMEDIATE = {
    "django": "tasks.backends.immediate.ImmediateBackend",
    "django_tasks": "backends.immediate.ImmediateBackend",
}

FRAMEWORKS: dict[str, Callable[[Places], Any]] = {
    "Celery, eager": celery,
    "RQ, SimpleWorker": rq,
    "Dramatiq, StubBroker": dramatiq,
    "Django tasks, Immediate": django,
    "Huey, immediate": huey,
    "Procrastinate, in memory": procrastinate,
    "APScheduler, one thread": apscheduler,
    "Taskiq, InMemoryBroker": taskiq,
}
"""By name, what yields the ways of a framework."""

NEED_REDIS = frozenset({"RQ, SimpleWorker"})
