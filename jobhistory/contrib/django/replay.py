"""Enqueue tasks again. Only tasks of modules that are loaded can be, never by importing a name."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from django.apps.registry import Apps
from django.core.handlers.base import BaseHandler
from django.utils.module_loading import autodiscover_modules

from jobhistory.contrib.adapter import Replay
from jobhistory.contrib.django.tasks import KEYWORD, packages
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
    """Return the tasks that an app knows, by the names with which they are recorded."""
    kinds = tuple(import_module(f"{name}.base").Task for name in packages())
    if isinstance(app, kinds):
        return {app.module_path: app}
    if not isinstance(app, (Apps, BaseHandler)):
        raise InvalidInput(
            "app", app, "is neither Django's application nor a task; pass django.apps.apps"
        )
    autodiscover_modules("tasks")
    return {
        value.module_path: value
        for module in list(sys.modules.values())
        for value in list(getattr(module, "__dict__", {}).values())
        if issubclass(type(value), kinds)  # isinstance() would evaluate lazy objects
    }


def _carries(backend: Any) -> bool:
    kinds = type(backend).mro()
    return any(f"{kind.__module__}.{kind.__qualname__}" in _CARRYING for kind in kinds)
