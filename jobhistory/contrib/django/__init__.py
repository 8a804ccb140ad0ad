"""Record the tasks of Django: add `"jobhistory.contrib.django"` to `INSTALLED_APPS`.

The setting `JOBHISTORY` says where, and how::

    JOBHISTORY = {"URL": "postgresql://app@db/app", "SKIP": ["shop.tasks.ping"]}

Tasks are those of `django.tasks`, which Django has from version 6.0 on, or of the package
`django-tasks` for older versions.
"""

from __future__ import annotations

from typing import Any

from jobhistory.contrib.adapter import Carried, Replay, not_installed

try:
    import django.apps

    if django.VERSION[0] < 6:
        import django_tasks as django_tasks
except ImportError as error:
    raise not_installed("django", error) from error

from jobhistory.contrib.django.replay import enqueue_again
from jobhistory.contrib.jobs import KEYWORD

__all__ = ["end_leftovers", "enqueue", "history_store", "link"]


def history_store() -> Any:
    """Return the store, or the recorder, in which this process records its tasks.

    Raises:
        LookupError: if the app is not in `INSTALLED_APPS`.
    """
    return django.apps.apps.get_app_config("jobhistory").recorder.adapter.store


def link() -> dict[str, Any]:
    """Return a keyword argument that ties a new task to the execution that enqueues it.

    Use it like `send_mail.enqueue(address, **link())`: the new execution gets the correlation id of
    the current one, which becomes its parent. The adapter in the worker removes the argument before
    the task runs. That works with Django's Immediate backend, which does not need it, and with
    django-tasks-db, but not with backends that copy the arguments, such as django-tasks-rq.
    """
    return {KEYWORD: Carried.now().as_header()}


def end_leftovers() -> None:
    """Mark as lost what earlier processes of this host left without an outcome.

    It returns at once. A process that runs `manage.py db_worker` does it when it starts. Call it
    when a worker of another backend starts.
    """
    django.apps.apps.get_app_config("jobhistory").recorder.adapter.end_leftovers()


def enqueue(app: Any, replay: Replay) -> str:
    """Enqueue a task again, and return the id of its result.

    Args:
        app: Django's `application` for WSGI or ASGI, or its registry `django.apps.apps`: both stand
            for the tasks in the `tasks` modules of the installed apps and in all modules that are
            loaded. Or a task, or a list of tasks.
        replay: the task and its arguments.

    Raises:
        InvalidInput: if there is no such task.
    """
    return enqueue_again(app, replay)
