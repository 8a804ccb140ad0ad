"""Which execution a log record belongs to, for `logging` and for structlog."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from jobhistory.lifecycle import AsyncExecution, Execution
from jobhistory.schema import values_of
from jobhistory.tracking import TrackedExecution, current_execution, row_of

Fields = dict[str, Any]

_NAMES = {
    "job_id": "job_id",
    "task": "task_identifier",
    "execution_id": "id",
    "correlation_id": "correlation_id",
    "attempt": "attempt_number",
}
"""The column of each field."""


class _Bound(NamedTuple):
    """The fields of an execution that a context is bound to, and what was tracked around it."""

    fields: Fields
    inside: TrackedExecution | None


_bound: ContextVar[_Bound | None] = ContextVar("jobhistory_log_context", default=None)


class LogContext(logging.Filter):
    """Adds the current execution to log records, and lets all of them pass.

    Each record gets the attributes `job_id`, `task`, `execution_id`, `correlation_id` and
    `attempt`, unless it has them already. They are those of the innermost tracked execution that
    still runs, or of the one that `log_context` was called with. Each thread and each task has its
    own, as for `current_execution`.

    Add it to handlers: a filter of a logger sees no records of the loggers below it. With a
    `QueueHandler`, add it to that, because the listener runs in another thread. ::

        handler.addFilter(LogContext())

    Args:
        missing: the value of the attributes outside of executions.
    """

    def __init__(self, missing: Any = "-") -> None:
        super().__init__()
        self._missing = dict.fromkeys(_NAMES, missing)

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes to a record, and return `True`."""
        for name, value in (_fields() or self._missing).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def add_log_context(
    logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add the current execution to an event of structlog; a processor for its configuration.

    The keys are the attributes of `LogContext`. Keys of the event stay as they are, and outside of
    executions nothing is added. ::

        structlog.configure(processors=[add_log_context, ...])
    """
    for name, value in (_fields() or {}).items():
        event_dict.setdefault(name, value)
    return event_dict


@contextmanager
def log_context(execution: Execution | AsyncExecution) -> Iterator[None]:
    """Let log records of a block belong to an execution that `begin` returned.

    `begin` itself changes no context, because another thread may end what it begins. ::

        execution = store.begin(job, "worker-1")
        with log_context(execution):
            ...
    """
    fields = _fields_of(values_of(execution.record))
    before = _bound.get()
    _bound.set(_Bound(fields, current_execution()))
    try:
        yield
    finally:
        # No token resets it, because a fixture may have entered the block in another context.
        _bound.set(before)


def _fields() -> Fields | None:
    tracked, bound = current_execution(), _bound.get()
    if bound is not None and (tracked is None or tracked is bound.inside):
        return bound.fields
    return None if tracked is None else _fields_of(row_of(tracked))


def _fields_of(row: dict[str, Any]) -> Fields:
    fields = {name: row[column] for name, column in _NAMES.items()}
    return fields | {"execution_id": str(fields["execution_id"])}
