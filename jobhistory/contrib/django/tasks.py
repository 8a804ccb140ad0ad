"""Record an execution between the signals of a task's start and its end."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import django
from django.apps import apps
from django.utils import timezone

from jobhistory import Failure, current_execution
from jobhistory.contrib.adapter import (
    Adapter,
    Attempt,
    Carried,
    Options,
    Recording,
    StoreSource,
)
from jobhistory.contrib.jobs import KEYWORD
from jobhistory.typing import ErrorLike


def packages() -> list[str]:
    """Return the packages whose tasks this process may run: Django's, its predecessor, or both."""
    names = ["django.tasks"] if django.VERSION[0] >= 6 else ["django_tasks"]
    if apps.is_installed("django_tasks") and "django_tasks" not in names:
        names.append("django_tasks")
    return names


class TaskRecorder:
    """Records the tasks that this process runs, from `connect()` to `close()`.

    Any thread may run tasks.

    Args:
        store: as for `Adapter`.
        options: the user's options.

    Attributes:
        adapter: what it records with.

    Raises:
        InvalidInput: if the store or an option cannot be used.
    """

    def __init__(self, store: StoreSource, options: Options) -> None:
        self.adapter = Adapter(store, options)
        self._recordings: dict[str, Recording] = {}
        self._signals: list[tuple[Any, Any]] = []

    def connect(self) -> None:
        """Begin to record."""
        for name in packages():
            signals = import_module(f"{name}.signals")
            self._signals.append((signals.task_started, self._started))
            self._signals.append((signals.task_finished, self._finished))
        for signal, receiver in self._signals:
            signal.connect(receiver, weak=False)

    def close(self) -> None:
        """Stop recording, and close the store if it was made for this recorder."""
        for signal, receiver in self._signals:
            signal.disconnect(receiver)
        self._signals.clear()
        self.adapter.close()

    def _started(self, sender: object, task_result: Any, **_: object) -> None:
        task = task_result.task.module_path
        try:
            # The backend passes this dictionary to the task.
            carried = task_result.kwargs.pop(KEYWORD, None)
            recording = self.adapter.begin(_attempt(task_result, carried))
        except Exception as error:
            self.adapter.contain("start", task, error)
            return
        if recording is not None:
            self._recordings[task_result.id] = recording

    def _finished(self, sender: object, task_result: Any, **_: object) -> None:
        recording = self._recordings.pop(task_result.id, None)
        if recording is None:
            return
        if task_result.status == "SUCCESSFUL":
            recording.end(result=task_result.return_value)
        else:
            recording.end(_error(task_result))


def _attempt(task_result: Any, carried: object) -> Attempt:
    task = task_result.task
    due = task.run_after or task_result.enqueued_at
    if due is not None and timezone.is_naive(due):  # without USE_TZ
        due = timezone.make_aware(due)
    return Attempt(
        source=task_result,
        job_id=task_result.id,
        task_identifier=task.module_path,
        args=task_result.args,
        kwargs=task_result.kwargs,
        number=max(task_result.attempts, 1),
        queue=task.queue_name,
        run_at=due,
        carried=_enclosing() if carried is None else Carried.read(carried),
    )


def _enclosing() -> Carried:
    """Return the correlation id of the execution around a task that runs in its caller's thread."""
    execution = current_execution()
    return Carried(correlation_id=None if execution is None else str(execution.correlation_id))


def _error(task_result: Any) -> ErrorLike:
    """Return why a task failed: the exception, if the signal is sent while it is handled."""
    error = sys.exc_info()[1]
    if not task_result.errors:
        return error or Failure("Error", f"the status of the task is {task_result.status}")
    last = task_result.errors[-1]
    if error is not None and last.exception_class_path == _path(type(error)):
        return error
    path, stack = last.exception_class_path, last.traceback or ""
    message = stack.rstrip().rpartition("\n")[2].partition(": ")[2]
    return Failure(path.removeprefix("builtins."), message, stack or None)


def _path(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
