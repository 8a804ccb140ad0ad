"""Criteria for executions, and how they are validated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar, get_args
from uuid import UUID

from jobhistory._runtime.clock import in_utc
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.ids import error_type_text, id_text, name_text
from jobhistory.execution.labels import read_labels
from jobhistory.execution.status import Status, read_status
from jobhistory.execution.trace import read_trace_id
from jobhistory.execution.values import read_attempt_number, read_parent_id
from jobhistory.sanitize.truncate import storable_text
from jobhistory.typing import Id, Order

T = TypeVar("T")

LARGEST_LIMIT = 2**63 - 1
"""The largest limit that the databases take."""


@dataclass(frozen=True, init=False)
class HistoryQuery:
    """Criteria for executions. A record must meet all of them; `None` means "not filtered".

    Args:
        from_: started at this time or later.
        to: started at this time or earlier.
        task_identifier: of this task, or of one of these. An empty collection matches nothing.
        status: in this status, or in one of these. An empty collection matches nothing. No index
            finds executions that are `started`, `completed` or `cancelled`, so add `from_` in a
            large history.
        job_id: of this job.
        correlation_id: with this correlation id.
        worker_id: run by this worker, or by one of these. An empty collection matches nothing.
        worker_id_starts_with: run by a worker whose id starts with this text, such as a host name.
            Case matters. No index helps with this criterion and the next four, so add `from_` in a
            large history.
        min_attempt: this attempt at the job or a later one: 2 for retries.
        labels: with these labels, and maybe others.
        parent_id: started by the execution with this id.
        trace_id: in this trace: 32 lower-case hexadecimal digits.
        error_type: failed with this error type, as it was recorded (`"ValueError"`).
        error_contains: failed with this text in `"type: message"` of the error. The text is taken
            literally, except that A to Z match in either case. The database scans the failures,
            so add `from_` in a large history if the text may be rare.
        min_execution_time_ms: ended, and ran at least this long. The database scans the
            executions, so add `from_` in a large history if such executions may be rare.
        order: `"newest"` or `"oldest"` first, by `started_at`, then by `id`; `None` for any order,
            in which pages and `iterate` return the newest first.
        limit: the maximum number of records; `None` for no limit.

    Raises:
        InvalidInput: if a criterion is invalid, or `from_` is after `to`.
    """

    from_: datetime | None
    to: datetime | None
    task_identifier: tuple[str, ...] | None
    status: tuple[Status, ...] | None
    job_id: str | None
    correlation_id: str | None
    worker_id: tuple[str, ...] | None
    worker_id_starts_with: str | None
    min_attempt: int | None
    labels: tuple[tuple[str, str], ...] | None
    parent_id: UUID | None
    trace_id: str | None
    error_type: str | None
    error_contains: str | None
    min_execution_time_ms: int | None
    order: Order | None
    limit: int | None

    def __init__(
        self,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        task_identifier: str | Collection[str] | None = None,
        status: str | Collection[str] | None = None,
        job_id: Id | None = None,
        correlation_id: Id | None = None,
        worker_id: Id | Collection[Id] | None = None,
        worker_id_starts_with: str | None = None,
        min_attempt: int | None = None,
        labels: Mapping[str, str] | None = None,
        parent_id: UUID | None = None,
        trace_id: str | None = None,
        error_type: str | None = None,
        error_contains: str | None = None,
        min_execution_time_ms: int | None = None,
        order: Order | None = "newest",
        limit: int | None = 100,
    ) -> None:
        given = {
            "from_": from_,
            "to": to,
            "task_identifier": task_identifier,
            "status": status,
            "job_id": job_id,
            "correlation_id": correlation_id,
            "worker_id": worker_id,
            "worker_id_starts_with": worker_id_starts_with,
            "min_attempt": min_attempt,
            "labels": labels,
            "parent_id": parent_id,
            "trace_id": trace_id,
            "error_type": error_type,
            "error_contains": error_contains,
            "min_execution_time_ms": min_execution_time_ms,
            "order": order,
            "limit": limit,
        }
        vars(self).update(_validated(given))  # the class is frozen
        _check_window(self)


def coerce(
    criteria: HistoryQuery | Mapping[str, Any] | None,
    named: Mapping[str, Any],
    without: Collection[str] = (),
) -> HistoryQuery:
    """Return the query for `criteria`; `named` criteria replace those of the same name.

    Args:
        without: criteria that have no effect on the result, which are refused. A `HistoryQuery`
            may have their defaults.

    Raises:
        InvalidInput: if a key is not a criterion, or a criterion is invalid or has no effect.
    """
    if isinstance(criteria, HistoryQuery):
        query, changes = criteria, _by_field(named)
    elif criteria is None:
        query, changes = _DEFAULTS, _by_field(named)
    elif isinstance(criteria, Mapping):
        query, changes = _DEFAULTS, _by_field(criteria) | _by_field(named)
    else:
        raise InvalidInput(
            "criteria", criteria, "is not a mapping; write it like {'status': 'failed'}"
        )
    for name in without:
        if name in changes or getattr(query, name) != getattr(_DEFAULTS, name):
            raise InvalidInput("criteria", name, "has no effect here; leave it out")
    if not changes:
        return query
    query = replace(query, **_validated(changes))
    _check_window(query)
    return query


def replace(query: HistoryQuery, **values: Any) -> HistoryQuery:
    """Return a copy of the query with other values, which must be valid: nothing checks them."""
    copy = object.__new__(HistoryQuery)
    vars(copy).update(vars(query) | values)
    return copy


def _by_field(criteria: Mapping[str, Any]) -> dict[str, Any]:
    # "from" cannot be a Python name, but it can be a key.
    given = {"from_" if key == "from" else key: value for key, value in criteria.items()}
    for key in given:
        if key not in _READERS:
            known = ", ".join(field.name for field in fields(HistoryQuery))
            raise InvalidInput("criteria", key, f"is not a criterion; valid criteria: {known}")
    return given


def _validated(criteria: Mapping[str, Any]) -> dict[str, Any]:
    """Return the criteria as a query stores them."""
    return {
        name: None if value is None else _READERS[name](value, name)
        for name, value in criteria.items()
    }


def _check_window(query: HistoryQuery) -> None:
    if query.from_ and query.to and query.from_ > query.to:
        remedy = f"is after {str(query.to)!r}, the end of the window; swap the two"
        raise InvalidInput("from_", str(query.from_), remedy)


def _one_or_more(value: Any, argument: str, read: Callable[[Any, str], T]) -> tuple[T, ...]:
    if isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping)):
        return tuple(dict.fromkeys(read(item, argument) for item in value))
    return (read(value, argument),)


def _names(value: Any, argument: str) -> tuple[str, ...]:
    return _one_or_more(value, argument, name_text)


def _ids(value: Any, argument: str) -> tuple[str, ...]:
    return _one_or_more(value, argument, id_text)


def _prefix(value: Any, argument: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(argument, value, "is not the start of an id; write it like 'host-7:'")
    return storable_text(value)


def _attempt(value: Any, argument: str) -> int | None:
    return read_attempt_number(value, argument) or None  # attempts are numbered from 0 up


def _labels(value: Any, argument: str) -> tuple[tuple[str, str], ...] | None:
    return tuple(sorted(read_labels(value, argument).items())) or None


def _statuses(value: Any, argument: str) -> tuple[Status, ...]:
    if isinstance(value, str) and value in _STATUSES:  # as nearly all are
        return _STATUSES[value]
    return _one_or_more(value, argument, read_status)


def _search_text(value: Any, argument: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(argument, value, "is not a text to search for; write 'timed out'")
    return storable_text(value)


def _milliseconds(value: Any, argument: str) -> int:
    check_count(value, argument, least=0, example=1500)
    return int(value)


def _order(value: Any, argument: str) -> str:
    if value not in get_args(Order):
        raise InvalidInput(argument, value, "is not an order; write 'newest' or 'oldest'")
    return str(value)


def _limit(value: Any, argument: str) -> int:
    if type(value) is not int or not 0 < value <= LARGEST_LIMIT:
        check_count(value, argument, most=LARGEST_LIMIT)
    return int(value)


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "from_": in_utc,
    "to": in_utc,
    "task_identifier": _names,
    "status": _statuses,
    "job_id": id_text,
    "correlation_id": id_text,
    "worker_id": _ids,
    "worker_id_starts_with": _prefix,
    "min_attempt": _attempt,
    "labels": _labels,
    "parent_id": read_parent_id,
    "trace_id": read_trace_id,
    "error_type": error_type_text,
    "error_contains": _search_text,
    "min_execution_time_ms": _milliseconds,
    "order": _order,
    "limit": _limit,
}
"""For each criterion, what validates a value and returns it as a query stores it."""

_STATUSES: dict[str, tuple[Status, ...]] = {status.value: (status,) for status in Status}

_DEFAULTS = HistoryQuery()
