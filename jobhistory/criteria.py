"""What to look for in history."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from jobhistory.clock import in_utc
from jobhistory.errors import InvalidInput, check_count
from jobhistory.status import Status, read_status
from jobhistory.texts import Id, id_text, name_text

T = TypeVar("T")


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
        worker_id: run by this worker.
        error_type: failed with this error type, as it was recorded (`"ValueError"`).
        limit: at most so many records, the newest.

    Raises:
        InvalidInput: if a criterion cannot be read, or `from_` is after `to`.
    """

    from_: datetime | None
    to: datetime | None
    task_identifier: tuple[str, ...] | None
    status: tuple[Status, ...] | None
    worker_id: str | None
    error_type: str | None
    limit: int | None

    def __init__(
        self,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        task_identifier: str | Collection[str] | None = None,
        status: Status | str | Collection[Status | str] | None = None,
        worker_id: Id | None = None,
        error_type: str | None = None,
        limit: int | None = 100,
    ) -> None:
        values: dict[str, Any] = {
            "from_": None if from_ is None else in_utc(from_, "from_"),
            "to": None if to is None else in_utc(to, "to"),
            "task_identifier": _one_or_more(task_identifier, name_text, "task_identifier"),
            "status": _one_or_more(status, read_status, "status"),
            "worker_id": None if worker_id is None else id_text(worker_id, "worker_id"),
            "error_type": None if error_type is None else name_text(error_type, "error_type"),
            "limit": limit,
        }
        if limit is not None:
            check_count(limit, "limit")
        if values["from_"] and values["to"] and values["from_"] > values["to"]:
            raise InvalidInput("from_", str(from_), f"is after to {str(to)!r}; swap the two")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls, criteria: HistoryQuery | Mapping[str, Any] | None, named: Mapping[str, Any]
    ) -> HistoryQuery:
        """The query that `criteria` describe, with the `named` ones in place of those they name.

        Raises:
            InvalidInput: if a key is not a criterion, or a criterion cannot be read.
        """
        if isinstance(criteria, HistoryQuery):
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


def _by_field(criteria: Mapping[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(HistoryQuery)]
    # "from" cannot be a Python name, but it can be a key.
    given = {"from_" if key == "from" else key: value for key, value in criteria.items()}
    for key in given:
        if key not in known:
            raise InvalidInput("criteria", key, f"is not a criterion; they are {', '.join(known)}")
    return given


def _one_or_more(value: Any, read: Callable[[Any, str], T], argument: str) -> tuple[T, ...] | None:
    if value is None:
        return None
    if isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping)):
        return tuple(dict.fromkeys(read(item, argument) for item in value))
    return (read(value, argument),)
