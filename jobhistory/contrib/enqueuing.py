"""The function that enqueues jobs of an app, whatever its framework is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from inspect import (
    getmro,
    isasyncgenfunction,
    isawaitable,
    iscoroutine,
    iscoroutinefunction,
    isgeneratorfunction,
    isroutine,
)
from types import TracebackType
from typing import Any, Self, TypeAlias

from jobhistory.contrib.jobs import Replay
from jobhistory.errors import InvalidInput

EnqueueFunction: TypeAlias = Callable[[Replay], Any]
"""A function that enqueues a job and returns its id, or a coroutine function."""

_ADAPTERS = {
    ("apscheduler", "BaseScheduler"): "apscheduler",
    ("arq", "ArqRedis"): "arq",
    ("arq", "Worker"): "arq",
    ("celery", "Celery"): "celery",
    ("django", "Apps"): "django",
    ("django", "BaseHandler"): "django",
    ("django", "Task"): "django",
    ("django_tasks", "Task"): "django",
    ("dramatiq", "Broker"): "dramatiq",
    ("huey", "Huey"): "huey",
    ("jobhistory", "RecordedStartup"): "arq",  # in recorded settings of arq's workers
    ("procrastinate", "App"): "procrastinate",
    ("procrastinate", "ProxyApp"): "procrastinate",  # of its Django app
    ("rq", "Queue"): "rq",
    ("taskiq", "AsyncBroker"): "taskiq",
}
"""For each class of apps, or of what enqueues jobs, the adapter. Apps may be of a subclass."""

_APPS = (
    "a Celery or Procrastinate app, a queue of RQ, a broker of Dramatiq or Taskiq, a Huey, a "
    "scheduler of APScheduler, recorded settings of arq's workers or an ArqRedis, Django's "
    "application or a list of its tasks; for another framework, a function that takes a Replay and "
    "returns the id of the new job"
)

_ASYNC = "is for asyncio; await replay_async or replay_all_async instead"


def enqueue_function(app: Any) -> EnqueueFunction:
    """Return the function that enqueues jobs of an app. Its class decides which adapter that is.

    Raises:
        InvalidInput: if no adapter is for this class.
        ImportError: if the adapter's framework is not installed.
    """
    adapter = adapter_of(app)
    if adapter is not None:
        module = import_module(f"jobhistory.contrib.{adapter}")
        return partial(module.enqueue, app)
    if isgeneratorfunction(app) or isasyncgenfunction(app):
        raise InvalidInput("app", app, "is a generator, which enqueues nothing when it is called")
    # Not any callable: tasks of most frameworks are, and would run.
    if isroutine(app) or isinstance(app, partial):
        function: EnqueueFunction = app
        return function
    raise InvalidInput("app", app, f"is no app that jobs can be enqueued with; pass {_APPS}")


def adapter_of(app: Any, more: Mapping[tuple[str, str], str] | None = None) -> str | None:
    """Return the name of the adapter for an app, or `None` if there is none.

    Args:
        more: further classes, and the adapter for each.
    """
    adapters = {**_ADAPTERS, **(more or {})}
    found = (
        adapters.get((str(class_.__module__).partition(".")[0], class_.__name__))
        for class_ in _classes(app)
    )
    return next(filter(None, found), None)


def _classes(app: Any) -> Iterator[type]:
    """Yield the classes of an app; of a collection, also the classes of its items.

    The settings of arq are a class or a dictionary. The adapter's start-up hook identifies them.
    """
    yield from getmro(app.__class__)  # not type(app), which may be a proxy's
    if isinstance(app, type):
        yield type(vars(app).get("on_startup"))
    if isinstance(app, (list, tuple, set, dict)):  # proxies have the methods of any collection
        for item in app.values() if isinstance(app, dict) else app:
            yield from getmro(item.__class__)


class Enqueuer:
    """Enqueues jobs of an app and waits for each, as a context manager.

    Coroutines share one event loop, because the connections of a broker belong to a loop.

    Raises:
        InvalidInput: if the app is for asyncio, and this thread already runs an event loop.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._enqueue = enqueue_function(app)
        self._runner = asyncio.Runner()
        if iscoroutinefunction(self._enqueue) and _is_in_event_loop():
            raise InvalidInput("app", app, _ASYNC)

    def __call__(self, replay: Replay) -> str:
        """Enqueue a job and return its id."""
        result = self._enqueue(replay)
        if not isawaitable(result):
            return str(result)
        if _is_in_event_loop():
            if iscoroutine(result):
                result.close()  # nobody awaits it
            raise InvalidInput("app", self._app, _ASYNC)
        return str(self._runner.run(_awaited(result)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runner.close()


async def enqueue_async(enqueue: EnqueueFunction, replay: Replay) -> str:
    """Enqueue a job without blocking the event loop, and return its id."""
    if iscoroutinefunction(enqueue):
        return str(await enqueue(replay))
    result = await asyncio.to_thread(enqueue, replay)
    return str(await result if isawaitable(result) else result)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
