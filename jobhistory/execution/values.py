"""Validation of the single values of a row. Each function raises `InvalidInput`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from jobhistory.errors import InvalidInput, check_count

_LARGEST_MILLISECONDS = 2**63 - 1
_LARGEST_ATTEMPT = 2**31 - 1
_MILLISECOND = timedelta(milliseconds=1)


def read_parent_id(value: Any, argument: str) -> UUID:
    """Return the execution id of a parent."""
    if not isinstance(value, UUID):
        raise InvalidInput(
            argument, value, "is not a uuid.UUID; pass the id of the record of the parent"
        )
    return value


def read_boolean(value: Any, argument: str) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise InvalidInput(argument, value, "is neither True nor False")
    return value


def read_share(value: Any, argument: str) -> float:
    """Return a share from 0 to 1."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise InvalidInput(argument, value, "is not a number from 0 to 1; write it like 0.4")
    return float(value)


def read_recorded(value: Any, argument: str) -> float | None:
    """Return the share of completed executions to store; `None` to store all from their start."""
    if value == "all":
        return None
    if value == "failures":
        return 0.0
    try:
        return read_share(value, argument)
    except InvalidInput:
        raise InvalidInput(
            argument,
            value,
            "is neither 'all', nor 'failures', nor a share from 0 to 1; write it like 0.01",
        ) from None


def read_attempt_number(value: Any, argument: str) -> int:
    """Return the number of an attempt."""
    check_count(value, argument, least=0, most=_LARGEST_ATTEMPT, example=1)
    return int(value)


def read_milliseconds(value: Any, argument: str) -> int:
    """Return a duration as whole milliseconds."""
    if type(value) is int and 0 <= value <= _LARGEST_MILLISECONDS:
        return value
    milliseconds = value / _MILLISECOND if isinstance(value, timedelta) else value
    # Two clocks that differ slightly can yield a duration just below 0.
    if (
        isinstance(milliseconds, (int, float))
        and not isinstance(milliseconds, bool)
        and -1 < milliseconds <= _LARGEST_MILLISECONDS
    ):
        return max(0, round(milliseconds))
    raise InvalidInput(
        argument, value, "is not a duration in milliseconds of 0 or more; write it like 1500"
    )
