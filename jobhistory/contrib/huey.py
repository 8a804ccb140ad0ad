"""Record the tasks of Huey: `record_tasks(huey, store)`."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Unpack
from weakref import WeakKeyDictionary, ref

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.fork import ForkSafeLock
from jobhistory.contrib.adapter import (
    Adapter,
    Attempt,
    Carried,
    Options,
    Recording,
    Replay,
    Schedule,
    StoreSource,
    not_installed,
)
from jobhistory.contrib.jobs import KEYWORD
from jobhistory.errors import InvalidInput
from jobhistory.failure import WorkerLost
from jobhistory.tracking import current_execution
from jobhistory.typing import ErrorLike

try:
    import huey.exceptions
    from huey import signals
    from huey.exceptions import CancelExecution, HueyException, RetryTask, TaskLockedException
except ImportError as error:
    raise not_installed("huey", error) from error

__all__ = ["TaskHistory", "enqueue", "record_tasks", "schedules"]

_NAME = "jobhistory"
_ATTEMPTS = "attempts"
_NEVER_BEGUN = (signals.SIGNAL_REVOKED, signals.SIGNAL_EXPIRED)
_FIELDS = ("month", "day", "day_of_week", "hour", "minute")
_EVERY = (range(1, 13), range(1, 32), range(7), range(24), range(60))


def record_tasks(
    app: huey.Huey, store: StoreSource, *, carry: bool = True, **options: Unpack[Options]
) -> TaskHistory:
    """Record each attempt at a task of a `Huey`, in the process that calls this.

    Call it in the module that makes the `Huey`, so that it runs where tasks are enqueued and where
    they are executed. A second call for the same `Huey` replaces the first.

    Args:
        app: the `Huey`.
        store: a store, a recorder, or a function that makes one.
        carry: whether tasks carry who has enqueued them, in a keyword argument. A consumer with
            this adapter removes it; in one without the adapter, the task would fail. So update
            consumers first, or pass `False` until they are updated.
        options: the options of all adapters. Functions among them get the task.

    Returns:
        what stops the recording when its `close` is called.
    """
    history = TaskHistory(app, store, carry, options)
    previous = _installed.get(app)
    if previous is not None:
        previous.close()
    history.install()
    _installed[app] = history
    return history


@dataclass
class _Running:
    """A task that is being executed."""

    task: Any
    number: int
    carried: Carried
    recording: Recording


class TaskHistory:
    """Records the tasks of one `Huey`. `record_tasks` makes it."""

    def __init__(self, app: huey.Huey, store: StoreSource, carry: bool, options: Options) -> None:
        limits, cancellations = _exceptions("TaskTimeout"), _exceptions("RateLimitExceeded")
        self._adapter = Adapter(
            store,
            options,
            time_limits=limits,
            cancellations=(CancelExecution, TaskLockedException, *cancellations),
        )
        self._reference = ref(app)  # _installed holds this object as long as there is the app
        self._carries = carry
        self._running: dict[int, _Running] = {}
        self._lock = ForkSafeLock()
        self._started_in: int | None = None

    def install(self) -> None:
        """Connect to the signals and hooks of Huey."""
        for signal, receiver in self._receivers.items():
            self._app.signal(signal)(receiver)
        self._app.post_execute(_NAME)(self._on_end)
        self._app.on_startup(_NAME)(self._on_startup)
        self._app.on_shutdown(_NAME)(self._on_shutdown)

    def close(self) -> None:
        """Stop recording, and write what a recorder has accepted."""
        for signal, receiver in self._receivers.items():
            self._app.disconnect_signal(receiver, signal)
        self._app.unregister_post_execute(_NAME)
        self._app.unregister_on_startup(_NAME)
        self._app.unregister_on_shutdown(_NAME)
        _installed.pop(self._app, None)
        self._adapter.close()

    @property
    def _app(self) -> huey.Huey:
        app = self._reference()
        assert app is not None
        return app

    @property
    def _receivers(self) -> dict[str, Any]:
        return {
            signals.SIGNAL_ENQUEUED: self._on_enqueued,
            signals.SIGNAL_EXECUTING: self._on_executing,
            signals.SIGNAL_CANCELED: self._on_canceled,
            signals.SIGNAL_INTERRUPTED: self._on_interrupted,
            **dict.fromkeys(_NEVER_BEGUN, self._on_skipped),
        }

    def _on_enqueued(self, signal: str, task: Any) -> None:
        if self._carries and KEYWORD not in task.kwargs:
            _stamp(task, Carried.now())

    def _on_executing(self, signal: str, task: Any) -> None:
        header = _take_header(task)
        carried, number = Carried.read(header), self._number(task, header)
        recording = self._adapter.begin(self._attempt(task, number, carried))
        if recording is not None:
            self._running[id(task)] = _Running(task, number, carried, recording)

    def _on_end(self, task: Any, value: Any, error: BaseException | None) -> None:
        """Record what a task returned or raised. Huey calls it before it enqueues a retry."""
        if isinstance(error, RetryTask):
            error = error.__cause__ or error.__context__ or error
        self._end(task, error, value)

    def _on_canceled(self, signal: str, task: Any) -> None:
        """Record a cancellation here, because `_on_end` is not called if a hook has canceled."""
        self._end(task, sys.exc_info()[1] or CancelExecution(), None)

    def _on_interrupted(self, signal: str, task: Any) -> None:
        """Record that the consumer stops. For threads, its main thread calls this."""
        self._end(task, WorkerLost("the consumer stopped while the task ran"), None)

    def _on_skipped(self, signal: str, task: Any) -> None:
        header = _take_header(task)
        attempt = self._attempt(task, self._number(task, header), Carried.read(header))
        self._adapter.skip(attempt, signal)

    def _on_startup(self) -> None:
        """End what ended processes have left, in the first worker of each process."""
        # Others wait, because what they begin must be later than what is ended.
        with self._lock:
            if self._started_in != os.getpid():
                self._started_in = os.getpid()
                self._adapter.end_leftovers()

    def _on_shutdown(self) -> None:
        """End what this worker was executing when SystemExit, or the like, ended it."""
        execution = current_execution()
        for running in list(self._running.values()):
            if running.recording.execution is execution:
                self._end(running.task, WorkerLost("the task ended its worker"), None)
        if multiprocessing.parent_process() is not None:  # it runs no atexit functions
            self._adapter.close()

    def _end(self, task: Any, error: ErrorLike | None, value: Any) -> None:
        running = self._running.pop(id(task), None)
        if running is None:
            return
        will_retry = None if error is None else bool(task.retries)
        if will_retry and self._carries:
            again = replace(running.carried, enqueued_at=utc_now())
            _stamp(task, again, attempts=running.number)
        self._stamp_followers(task)
        running.recording.leave()
        running.recording.end(error, result=value, will_retry=will_retry)

    def _stamp_followers(self, task: Any) -> None:
        """Let the tasks that Huey enqueues after this one carry that it is their parent."""
        chord = getattr(task, "chord_config", None)
        for follower in (task.on_complete, task.on_error, chord and chord.callback):
            if self._carries and follower is not None:
                _stamp(follower, Carried.now())

    def _number(self, task: Any, header: dict[str, Any]) -> int:
        """Return the number of an attempt, of which Huey knows only how many are left."""
        if self._carries or _ATTEMPTS in header:
            return _attempts(header) + 1
        used: int = type(task).default_retries - task.retries
        return max(used, 0) + 1

    def _attempt(self, task: Any, number: int, carried: Carried) -> Attempt:
        return Attempt(
            source=task,
            job_id=task.id,
            task_identifier=f"{type(task).__module__}.{type(task).__name__}",
            args=task.args,
            kwargs=task.kwargs,
            number=number,
            queue=self._app.name,
            run_at=_due(task, carried, is_utc=self._app.utc),
            carried=carried,
        )


_installed: WeakKeyDictionary[huey.Huey, TaskHistory] = WeakKeyDictionary()


def schedules(app: huey.Huey) -> list[Schedule]:
    """Return the periodic tasks of a `Huey`.

    Those with `crontab` have a description, and a cron unless they restrict both the day and the
    day of the week, of which cron needs one and Huey both. For other functions, the description is
    the name of the function.
    """
    return [_schedule(task, "UTC" if app.utc else None) for task in app._registry.periodic_tasks]


def enqueue(app: huey.Huey, replay: Replay) -> str:
    """Enqueue a task again, by the registry of the `Huey`; return the id of the new one.

    The consumer must have called `record_tasks`, as the task carries a header.

    Raises:
        InvalidInput: if there is no such task.
    """
    name = replay.task_identifier
    try:
        kind = app._registry.string_to_task(name)
    except HueyException:
        known = ", ".join(sorted(app._registry._registry)) or "none"
        raise InvalidInput("task_identifier", name, f"is no task of this Huey: {known}") from None
    task = kind(args=tuple(replay.args), kwargs=dict(replay.kwargs))
    _stamp(task, replay.carried)
    app.enqueue(task)
    return str(task.id)


def _schedule(task: Any, timezone: str | None) -> Schedule:
    name = f"{type(task).__module__}.{type(task).__name__}"
    function = _nonlocals(task.validate_datetime).get("validate_datetime")
    texts = _crontab(function)
    if texts is None:
        described = getattr(function, "__qualname__", None) or "unknown"
        return Schedule(name=name, task_identifier=name, description=described)
    month, day, weekday, hour, minute = texts
    restricted = [f"{name}={text!r}" for name, text in zip(_FIELDS, texts, strict=True)]
    both = day != "*" and weekday != "*"
    return Schedule(
        name=name,
        task_identifier=name,
        description=f"crontab({', '.join(reversed(restricted))})",
        cron=None if both else f"{minute} {hour} {day} {month} {weekday}",
        timezone=timezone,
    )


def _crontab(function: Any) -> list[str] | None:
    """Return the fields of what `huey.crontab` has made; `None` for another function."""
    settings = _nonlocals(function).get("cron_settings")
    if not isinstance(settings, list) or len(settings) != len(_FIELDS):
        return None
    return [
        "*" if set(values) >= set(every) else ",".join(str(value) for value in values)
        for values, every in zip(settings, _EVERY, strict=True)
    ]


def _nonlocals(function: Any) -> dict[str, Any]:
    """Return the variables of the functions around a function, without calling anything."""
    with suppress(Exception):
        return dict(inspect.getclosurevars(function).nonlocals)
    return {}


def _exceptions(name: str) -> tuple[type[BaseException], ...]:
    """Return an exception that older versions of Huey lack."""
    kind = getattr(huey.exceptions, name, None)
    return () if kind is None else (kind,)


def _stamp(task: Any, carried: Carried, **more: Any) -> None:
    task.kwargs = {**task.kwargs, KEYWORD: {**carried.as_header(), **more}}


def _take_header(task: Any) -> dict[str, Any]:
    """Remove the header from the arguments of a task, and return it."""
    kwargs = dict(task.kwargs)
    header = kwargs.pop(KEYWORD, None)
    task.kwargs = kwargs
    return header if isinstance(header, dict) else {}


def _attempts(header: dict[str, Any]) -> int:
    count = header.get(_ATTEMPTS)
    return count if isinstance(count, int) and 0 <= count < 2**31 - 1 else 0


def _due(task: Any, carried: Carried, *, is_utc: bool) -> datetime | None:
    """Return when a task was due: when it was enqueued, or later if it has an ETA."""
    eta = task.eta
    if not isinstance(eta, datetime):
        return carried.enqueued_at
    eta = eta.replace(tzinfo=UTC) if is_utc and eta.tzinfo is None else eta.astimezone(UTC)
    return eta if carried.enqueued_at is None else max(eta, carried.enqueued_at)
