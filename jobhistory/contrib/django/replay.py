"""Enqueue tasks again. Only tasks of modules that are loaded can be, never by importing a name."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from django.apps.registry import Apps
from django.core.handlers.base import BaseHandler
from django.utils.module_loading import autodiscover_modules

from jobhistory.contrib.adapter import Replay
from jobhistory.contrib.django.tasks import packages
from jobhistory.contrib.jobs import KEYWORD
from jobhistory.errors import InvalidInput

_CARRYING = (
    "django.tasks.backends.immediate.ImmediateBackend",
    "django_tasks.backends.immediate.ImmediateBackend",
    "django_tasks_db.backend.DatabaseBackend",
)
"""The backends that pass the arguments in the result of the signal to the task, not a copy."""

_MOST_NAMES = 20


def enqueue_again(app: Any, replay: Replay) -> str:
    """Do what `enqueue` of the package documents."""
    tasks = _tasks_of(app)
    task = tasks.get(replay.task_identifier)
    if task is None:
        names = ", ".join(sorted(tasks)[:_MOST_NAMES]) or "none"
        raise InvalidInput(
            "task_identifier", replay.task_identifier, f"is no task of the app, whose are: {names}"
        )
    if replay.queue is not None:
        task = task.using(queue_name=replay.queue)
    kwargs = dict(replay.kwargs)
    if _carries(task.get_backend()):
        kwargs[KEYWORD] = replay.carried.as_header()
    return str(task.enqueue(*replay.args, **kwargs).id)


def _tasks_of(app: Any) -> dict[str, Any]:
    """Return the tasks that an app knows, by the names with which they are recorded.

    Raises:
        InvalidInput: if it cannot be used.
    """
    kinds = tuple(import_module(f"{name}.base").Task for name in packages())
    if isinstance(app, (Apps, BaseHandler)):
        return _only_tasks(_loaded(), kinds)
    several = isinstance(app, Collection) and not isinstance(app, str)
    given = app.values() if isinstance(app, Mapping) else app if several else [app]
    tasks = _only_tasks(given, kinds)
    if not tasks:
        raise InvalidInput(
            "app", app, "is neither Django's application nor tasks; pass django.apps.apps"
        )
    return tasks


def _loaded() -> Iterator[object]:
    autodiscover_modules("tasks")
    for module in list(sys.modules.values()):
        yield from list(getattr(module, "__dict__", {}).values())


def _only_tasks(values: Iterable[Any], kinds: tuple[type, ...]) -> dict[str, Any]:
    # isinstance() would evaluate lazy objects.
    return {each.module_path: each for each in values if issubclass(type(each), kinds)}


def _carries(backend: Any) -> bool:
    kinds = type(backend).mro()
    return any(f"{kind.__module__}.{kind.__qualname__}" in _CARRYING for kind in kinds)
