"""The options of the adapters, and the values that they choose for each attempt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, get_args

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_retention
from jobhistory.contrib.jobs import Attempt
from jobhistory.contrib.leftovers import process_name
from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import id_text
from jobhistory.execution.job import check_keys
from jobhistory.execution.times import expiry
from jobhistory.execution.values import read_boolean, read_recorded
from jobhistory.store import HistoryStore
from jobhistory.typing import Duration, Id, Recorded

logger = logging.getLogger("jobhistory.contrib")

Skipped: TypeAlias = Literal["ignore", "record"]
T = TypeVar("T")

_FOR_TRACK = ("history_retention", "heartbeat", "log_tail")

_DEFAULTS: dict[str, Any] = {
    "worker_id": None,
    "correlation_id": None,
    "payload": True,
    "result": False,
    "only": None,
    "skip": (),
    "skipped": "ignore",
    "history_retention": None,
    "heartbeat": None,
    "log_tail": None,
    "record": "all",
    "end_leftovers": True,
}


class Options(TypedDict, total=False):
    """The options of all adapters. The functions among them get the framework's own job object.

    Args:
        worker_id: the id of the worker, or a function that returns it. By default, it is the name
            that the framework gives the worker, or else the host and the process id.
        correlation_id: a function that returns the correlation id, or `None` for the default: that
            of the tracked execution in which the job was enqueued, otherwise the framework's id
            of the job that started it all, otherwise the id of the job.
        payload: whether to store the arguments of jobs, or a function that returns what to store.
            By default, the payload is `{"args": [...], "kwargs": {...}}`. Replay needs that.
        result: whether to store what jobs return; `False` by default.
        only: the names of the tasks to record; by default all.
        skip: the names of tasks not to record.
        skipped: what to do about jobs that never begin, because they were revoked, have expired or
            are locked: `"ignore"` them, which is the default, or `"record"` them as cancelled.
        history_retention: how long the rows are kept, as for `record_start`.
        heartbeat, log_tail: as for `track`.
        record: as for `track`: `"all"`, `"failures"`, or a share of the attempts that complete,
            such as 0.01. A mapping has one for each task that it names, such as
            `{"ping": "failures"}`; these tasks send no heartbeats.
        end_leftovers: whether a worker that starts marks executions as lost that its previous
            process left without an outcome; `True` by default. It knows them by the id of the
            worker, or by a host and a process that no longer exists. Pass `False` if several
            processes have the same `worker_id`, or containers the same host name. Otherwise, one
            that starts presumes what the others run to be lost, until it ends.
    """

    worker_id: Id | Callable[[Any], Id] | None
    correlation_id: Callable[[Any], Id | None] | None
    payload: bool | Callable[[Any], Any]
    result: bool
    only: Collection[str] | None
    skip: Collection[str]
    skipped: Skipped
    history_retention: Duration | None
    heartbeat: Duration | None
    log_tail: int | str | None
    record: Recorded | Mapping[str, Recorded]
    end_leftovers: bool


class Choices:
    """What a user chose by options. The functions among these never raise into the framework.

    Args:
        options: the user's options.
        time_limits: the framework's exceptions for time limits, which do pass through.

    Raises:
        InvalidInput: if an option is unknown or cannot be used.
    """

    def __init__(self, options: Options, time_limits: tuple[type[BaseException], ...]) -> None:
        self._chosen = _checked(options)
        self._time_limits = time_limits
        self._for_track = {name: self._chosen[name] for name in _FOR_TRACK}

    @property
    def stores_results(self) -> bool:
        """Whether the results of jobs are stored."""
        return bool(self._chosen["result"])

    @property
    def records_skipped(self) -> bool:
        """Whether jobs that never begin are recorded."""
        return bool(self._chosen["skipped"] == "record")

    @property
    def fixed_worker_id(self) -> Id | None:
        """The id of the worker, if it is the same for all jobs and the user chose it."""
        chosen: Any = self._chosen["worker_id"]
        return None if callable(chosen) else chosen

    @property
    def ends_leftovers(self) -> bool:
        """Whether a worker that starts can and may end what its previous process left."""
        return self._chosen["end_leftovers"] and not callable(self._chosen["worker_id"])

    def wants(self, task: str) -> bool:
        """Return whether the user wants executions of a task to be recorded."""
        only = self._chosen["only"]
        return (only is None or task in only) and task not in self._chosen["skip"]

    def for_track(self, task: str) -> dict[str, Any]:
        """Return the options that an execution of a task passes on to `track`."""
        record = self._chosen["record"]
        if not isinstance(record, Mapping):
            return {**self._for_track, "record": record}
        return {**self._for_track, **_of_task(record.get(task, "all"))}

    def expiry(self, started_at: datetime | None) -> dict[str, datetime | None]:
        """Return when the row of an attempt expires, unless the store decides that."""
        wanted = self._chosen["history_retention"]
        if wanted is None:  # the store has its own
            return {}
        now = utc_now()
        return {"expires_at": expiry(started_at or now, parse_retention(wanted, now=now))}

    def worker_id(self, attempt: Attempt) -> Id:
        """Return the id of the worker of an attempt."""
        chosen: Any = self._chosen["worker_id"]
        if callable(chosen):
            chosen = self._asked_id("worker_id", chosen, attempt)
        return chosen or attempt.worker_id or process_name()

    def correlation_id(self, attempt: Attempt) -> Id:
        """Return the correlation id of an attempt."""
        chosen: Callable[[Any], Id | None] | None = self._chosen["correlation_id"]
        asked = None if chosen is None else self._asked_id("correlation_id", chosen, attempt)
        carried = attempt.carried.correlation_id
        return asked or carried or attempt.correlation_id or attempt.job_id

    def payload(self, attempt: Attempt) -> Any:
        """Return the payload of an attempt."""
        wanted = self._chosen["payload"]
        if callable(wanted):
            return self._asked("payload", wanted, attempt)
        return {"args": list(attempt.args), "kwargs": dict(attempt.kwargs)} if wanted else None

    def _asked_id(
        self, option: str, function: Callable[[Any], Any], attempt: Attempt
    ) -> str | None:
        """Return an id that a function of the user returns, or `None` if it returns none."""
        value = self._asked(option, function, attempt)
        if value is None or value == "":
            return None
        try:
            return id_text(value, option)
        except InvalidInput:
            # The message quotes the value, which may be any part of the job.
            logger.error(
                "%s() returned what is no id, such as a text of up to 255 characters, for a job "
                "of %s",
                option,
                attempt.task_identifier,
            )
            return None

    def _asked(self, option: str, function: Callable[[Any], T], attempt: Attempt) -> T | None:
        """Return what a function of the user returns, or `None` if it raises."""
        try:
            return function(attempt.source)
        except Exception as error:
            if isinstance(error, self._time_limits):
                raise
            # Its message may quote the job, and so its payload.
            logger.error(
                "%s() raised %s for a job of %s",
                option,
                type(error).__name__,
                attempt.task_identifier,
            )
            return None


def _of_task(record: Recorded) -> dict[str, Any]:
    """Return the options of a task with its own choice of what to store."""
    return {"record": record} if record == "all" else {"record": record, "heartbeat": None}


def _checked(options: Options) -> dict[str, Any]:
    """Return the options with the defaults of those that are missing.

    Raises:
        InvalidInput: if one is unknown or cannot be used.
    """
    check_keys(options, dict.fromkeys(_DEFAULTS), "options")
    given = {**_DEFAULTS, **options}
    for name in ("only", "skip"):
        value = given[name]
        if value is not None and (
            isinstance(value, (str, bytes)) or not isinstance(value, Collection)
        ):
            raise InvalidInput(name, value, "is not a list of task names; write it like ['resize']")
    if given["skipped"] not in get_args(Skipped):
        raise InvalidInput("skipped", given["skipped"], "is neither 'ignore' nor 'record'")
    for name in ("result", "end_leftovers"):
        read_boolean(given[name], name)
    if not callable(given["payload"]):
        read_boolean(given["payload"], "payload")
    if given["correlation_id"] is not None and not callable(given["correlation_id"]):
        raise InvalidInput(
            "correlation_id",
            given["correlation_id"],
            "is not a function; one correlation id for all jobs would tie them together",
        )
    if isinstance(given["record"], Mapping):
        for task, record in given["record"].items():
            read_recorded(record, f"record[{task!r}]")
    _check_for_track(given)
    return given


def _check_for_track(given: dict[str, Any]) -> None:
    """Check the options that each execution passes on to `track`."""
    worker_id = given["worker_id"]
    track = HistoryStore(None, buffer_size=1).track(
        {"id": "1", "task_identifier": "t"},
        process_name() if worker_id is None or callable(worker_id) else worker_id,
        **{name: given[name] for name in _FOR_TRACK},
        record="all" if isinstance(given["record"], Mapping) else given["record"],
    )
    track(lambda: None)  # decorating a function checks what `track` itself does not
