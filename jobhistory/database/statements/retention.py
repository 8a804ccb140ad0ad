"""The SQL of retention rules: when rows expire, and which rule decides about them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Update,
    and_,
    case,
    cast,
    literal_column,
    null,
    or_,
)

from jobhistory.database.functions import seconds_after
from jobhistory.execution.retention import Retention, RetentionRule
from jobhistory.execution.status import Status
from jobhistory.schema import COLUMNS, UTCDateTime


def expiry_of(retention: Retention, status: Status | None) -> ColumnElement[datetime | None]:
    """Return when a row expires if it has a status; `None` stands for the status of each row."""
    if status is None:
        default = _expiry(retention.default)
        return _case(
            ((_criteria(rule), _expiry(rule.duration)) for rule in retention.rules), default
        )
    *rules, last = retention.for_status(status)
    return _case(
        ((_criteria(rule), _expiry(rule.duration)) for rule in rules), _expiry(last.duration)
    )


def rule_number(retention: Retention) -> ColumnElement[int]:
    """Return the number of the rule that decides about a row, from 0 up; that of the default."""
    numbered = enumerate(retention.rules)
    return _case(
        ((_criteria(rule), _integer(number)) for number, rule in numbered),
        _integer(len(retention.rules)),
    )


def is_followed(retention: Retention, status: Status | None) -> ColumnElement[bool]:
    """Return whether a row has the expiry that a retention gives it, now or at its start.

    Args:
        status: that of all rows; `None` if it differs.
    """
    possible = [expiry_of(retention, Status.COMPLETED)]
    if status is None or _differs(retention, status, Status.COMPLETED):
        possible.append(expiry_of(retention, status))
    return or_(*(COLUMNS.expires_at.is_not_distinct_from(each) for each in possible))


def expiry_after(
    retention: Retention,
    status: Status,
    *,
    is_lost: ColumnElement[bool] | None = None,
) -> ColumnElement[datetime | None]:
    """Return when a started row expires once it has an outcome with a status.

    Args:
        is_lost: the condition that the row already has the outcome of a lost worker.
    """
    follows = is_followed(retention, Status.STARTED)
    if is_lost is not None:
        follows = or_(follows, and_(is_lost, is_followed(retention, Status.FAILED)))
    return case((follows, expiry_of(retention, status)), else_=COLUMNS.expires_at)


def with_expiry(
    statement: Update,
    retention: Retention,
    status: Status,
    *,
    is_lost: ColumnElement[bool] | None = None,
) -> Update:
    """Return a statement that ends executions, so that it also changes when they expire.

    If the retention is that of the row before, the statement itself is returned.
    """
    before = Status.COMPLETED if is_lost is None else Status.FAILED
    if not _differs(retention, status, before) and not _differs(
        retention, Status.COMPLETED, before
    ):
        return statement
    return statement.values(expires_at=expiry_after(retention, status, is_lost=is_lost))


def changes_expiry(retention: Retention) -> bool:
    """Return whether any outcome can change when a row expires."""
    return any(_differs(retention, status, Status.COMPLETED) for status in Status)


def _differs(retention: Retention, status: Status, other: Status) -> bool:
    status, other = (
        Status.COMPLETED if each is Status.STARTED else each for each in (status, other)
    )
    return retention.for_status(status) != retention.for_status(other)


def _expiry(duration: timedelta | None) -> ColumnElement[Any]:
    if duration is None:
        return cast(null(), UTCDateTime)  # PostgreSQL would otherwise take it for text
    seconds = _integer(duration // timedelta(seconds=1))
    return seconds_after(COLUMNS.started_at, seconds)


def _integer(value: int) -> ColumnElement[int]:
    return literal_column(str(value), Integer)


def _criteria(rule: RetentionRule) -> list[ColumnElement[bool]]:
    """Return the conditions that a rule covers a row; one that runs counts as completed."""
    criteria: list[ColumnElement[bool]] = []
    if rule.status is not None:
        texts = [status.value for status in rule.status]
        if Status.COMPLETED in rule.status:
            texts.append(Status.STARTED.value)
        criteria.append(or_(*(COLUMNS.status == literal_column(f"'{text}'") for text in texts)))
    if rule.task_identifier is not None:
        # Not IN, whose parameters psycopg could not prepare.
        criteria.append(or_(*(COLUMNS.task_identifier == each for each in rule.task_identifier)))
    for name, value in rule.labels or ():
        criteria.append(COLUMNS.labels[name].as_string() == value)
    return criteria


def _case(
    cases: Iterable[tuple[list[ColumnElement[bool]], ColumnElement[Any]]],
    otherwise: ColumnElement[Any],
) -> ColumnElement[Any]:
    """Return the value of the first case whose conditions are met, or the other value."""
    whens = []
    for conditions, value in cases:
        if not conditions:
            otherwise = value
            break
        whens.append((and_(*conditions), value))
    return case(*whens, else_=otherwise) if whens else otherwise
