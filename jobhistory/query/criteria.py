"""What to look for in history, page by page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from jobhistory._runtime.clock import in_utc
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.ids import id_text, name_text
from jobhistory.execution.status import Status, read_status
from jobhistory.sanitize.truncate import holdable
from jobhistory.typing import Id, Order

if TYPE_CHECKING:
    pass

T = TypeVar("T")


_MOST = 2**63 - 2  # a page asks for one record more, to know whether there is another page


@dataclass(frozen=True, init=False)
class HistoryQuery:
    """Criteria that a record must all meet; `None` is no criterion, but for `limit`: no limit.

    Args:
        from_: started at this moment or later.
        to: started at this moment or earlier.
        task_identifier: of this task, or of one of these; an empty collection matches nothing.
        status: in this status, or in one of these; an empty collection matches nothing. As only
            started executions can be `started`, and no index tells them apart, give `from_` too
            when looking for them in a large history.
        job_id, correlation_id: with this id.
        worker_id: run by this worker.
        error_type: failed with this error type, as it was recorded (`"ValueError"`).
        error_contains: failed with this text somewhere in `"type: message"` of the error. It is
            taken literally, but for A to Z, which match in either case. Failures are looked
            through one by one, so give `from_` too if it may be rare in a large history.
        min_execution_time_ms: ended, and took so many milliseconds or more. Executions are looked
            through one by one, so give `from_` too if such are rare in a large history.
        order: `"newest"` or `"oldest"` first, by `started_at`, then by `id`.
        limit: at most so many records.

    Raises:
        InvalidInput: if a criterion cannot be read, or `from_` is after `to`.
    """

    from_: datetime | None
    to: datetime | None
    task_identifier: tuple[str, ...] | None
    status: tuple[Status, ...] | None
    job_id: str | None
    correlation_id: str | None
    worker_id: str | None
    error_type: str | None
    error_contains: str | None
    min_execution_time_ms: int | None
    order: Order
    limit: int | None

    def __init__(
        self,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        task_identifier: str | Collection[str] | None = None,
        status: Status | str | Collection[Status | str] | None = None,
        job_id: Id | None = None,
        correlation_id: Id | None = None,
        worker_id: Id | None = None,
        error_type: str | None = None,
        error_contains: str | None = None,
        min_execution_time_ms: int | None = None,
        order: Order = "newest",
        limit: int | None = 100,
    ) -> None:
        values: dict[str, Any] = {
            "from_": _unless_none(from_, in_utc, "from_"),
            "to": _unless_none(to, in_utc, "to"),
            "task_identifier": _one_or_more(task_identifier, name_text, "task_identifier"),
            "status": _one_or_more(status, read_status, "status"),
            "job_id": _unless_none(job_id, id_text, "job_id"),
            "correlation_id": _unless_none(correlation_id, id_text, "correlation_id"),
            "worker_id": _unless_none(worker_id, id_text, "worker_id"),
            "error_type": _unless_none(error_type, name_text, "error_type"),
            "error_contains": _unless_none(error_contains, _literal_text, "error_contains"),
            "min_execution_time_ms": min_execution_time_ms,
            "order": order,
            "limit": limit,
        }
        if order not in get_args(Order):
            raise InvalidInput("order", order, "is no order; write 'newest' or 'oldest'")
        if min_execution_time_ms is not None:
            check_count(min_execution_time_ms, "min_execution_time_ms", least=0, example=1500)
        if limit is not None:
            check_count(limit, "limit", most=_MOST)
        if values["from_"] and values["to"] and values["from_"] > values["to"]:
            raise InvalidInput("from_", str(from_), f"is after to {str(to)!r}; swap the two")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls,
        criteria: HistoryQuery | Mapping[str, Any] | None,
        named: Mapping[str, Any],
        without: Collection[str] = (),
    ) -> HistoryQuery:
        """The query that `criteria` describe, with the `named` ones in place of those they name.

        Args:
            without: criteria that make no difference to the answer, which are refused by name. A
                `HistoryQuery` may have the defaults of these.

        Raises:
            InvalidInput: if a key is not a criterion, or a criterion cannot be read.
        """
        for key in (*(criteria if isinstance(criteria, Mapping) else ()), *named):
            if key in without:
                raise InvalidInput("criteria", key, "makes no difference here; leave it out")
        if isinstance(criteria, HistoryQuery):
            for key in without:
                if getattr(criteria, key) != getattr(cls(), key):
                    raise InvalidInput("criteria", key, "makes no difference here; leave it out")
            if not named:
                return criteria
            given = asdict(criteria)
        elif criteria is None:
            given = {}
        elif isinstance(criteria, Mapping):
            given = _by_field(criteria)
        else:
            raise InvalidInput(
                "criteria", criteria, "is not a mapping; write it like {'status': 'failed'}"
            )
        return cls(**given | _by_field(named))

    def but(self, **criteria: Any) -> HistoryQuery:
        """The same query with other values for some criteria."""
        return replace(self, **criteria)


def _by_field(criteria: Mapping[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(HistoryQuery)]
    # "from" cannot be a Python name, but it can be a key.
    given = {"from_" if key == "from" else key: value for key, value in criteria.items()}
    for key in given:
        if key not in known:
            raise InvalidInput("criteria", key, f"is not a criterion; they are {', '.join(known)}")
    return given


def _unless_none(value: Any, read: Callable[[Any, str], T], argument: str) -> T | None:
    return None if value is None else read(value, argument)


def _literal_text(value: str, argument: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(argument, value, "is no text to look for; write it like 'timed out'")
    return holdable(value)


def _one_or_more(value: Any, read: Callable[[Any, str], T], argument: str) -> tuple[T, ...] | None:
    if value is None:
        return None
    if isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping)):
        return tuple(dict.fromkeys(read(item, argument) for item in value))
    return (read(value, argument),)
