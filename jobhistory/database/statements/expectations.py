"""The SQL of expectations, of what checks read, and of incidents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    Select,
    bindparam,
    case,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from jobhistory.database.statements.read import STARTED
from jobhistory.expectation_schema import EXPECTATION, INCIDENT
from jobhistory.expectations.facts import SEARCHED
from jobhistory.rollup_schema import ENDED, ROLLUP
from jobhistory.schema import COLUMNS, UTCDateTime
from jobhistory.statistics.spans import Span

_now = bindparam("now", type_=UTCDateTime)

DECLARED = select(EXPECTATION).order_by(EXPECTATION.c.name)
"""The expectations that were declared."""

DECLARED_NAMED = DECLARED.where(EXPECTATION.c.name == bindparam("key")).with_for_update()
"""The expectation with a name, locked."""

DECLARE: dict[str, Any] = {
    name: dialect.insert(EXPECTATION).on_conflict_do_nothing().returning(EXPECTATION.c.name)
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}
"""By dialect: adds an expectation and returns a row, unless there is one with its name."""

REDECLARE = update(EXPECTATION).where(EXPECTATION.c.name == bindparam("key"))
FORGET = delete(EXPECTATION).where(EXPECTATION.c.name == bindparam("key"))

MARK_CHECKED = (
    update(EXPECTATION)
    .where(
        EXPECTATION.c.name == bindparam("key"),
        EXPECTATION.c.checked_at.is_not_distinct_from(
            bindparam("before", type_=UTCDateTime),
        ),
    )
    .values(checked_at=_now)
)
"""Moves the time of the last check, unless another check has moved it."""

_RUN_COLUMNS = (
    COLUMNS.id,
    COLUMNS.started_at,
    COLUMNS.status,
    COLUMNS.completed_at,
    COLUMNS.execution_time_ms,
    COLUMNS.attempt_number,
    COLUMNS.will_retry,
)


def _newest(*columns: Any) -> Any:
    """Select columns of the newest executions of a task, by its index."""
    return (
        select(*columns)
        .where(COLUMNS.task_identifier == bindparam("task"))
        .order_by(COLUMNS.started_at.desc().nulls_last(), COLUMNS.id.desc())
    )


NEWEST = _newest(*_RUN_COLUMNS, COLUMNS.labels).limit(bindparam("most"))
"""The newest executions of a task, newest first."""

_searched = _newest(*_RUN_COLUMNS, COLUMNS.labels).limit(SEARCHED).subquery()

SEARCHED_FROM = select(func.count(), func.min(_searched.c.started_at))
"""The number of the executions among which labels are searched for, and the oldest start."""

TASKS = (
    select(ROLLUP.c.task_identifier)
    .where(ROLLUP.c.span == Span.MONTH.value)
    .union(select(ENDED.c.task_identifier))
)
"""The tasks that have ended, by statistics."""

TASKS_OF_ROWS = select(COLUMNS.task_identifier).where(COLUMNS.status != STARTED).distinct()
"""The tasks that have ended, by rows."""

RUNNING = select(_searched).where(_searched.c.status == "started")
"""Those of the newest executions of a task that have not ended, newest first."""

_successes = _newest(COLUMNS.status, COLUMNS.completed_at).limit(SEARCHED).subquery()

LAST_SUCCESS = select(func.max(_successes.c.completed_at)).where(_successes.c.status == "completed")
"""The last success among the newest executions of a task."""

_of_task = ROLLUP.c.task_identifier == bindparam("task")

LAST_TIMES = select(func.max(ROLLUP.c.last_started_at), func.max(ROLLUP.c.last_completed_at)).where(
    ROLLUP.c.span == Span.MONTH.value, _of_task, ROLLUP.c.last_started_at <= _now
)
"""The last start and the last success of a task, by statistics."""

COUNTED_HOURS = (
    select(ROLLUP.c.last_started_at)
    .where(
        ROLLUP.c.span == Span.HOUR.value,
        _of_task,
        ROLLUP.c.bucket >= bindparam("since", type_=UTCDateTime),
        ROLLUP.c.unstored > 0,
    )
    .order_by(ROLLUP.c.bucket.desc())
    .limit(SEARCHED)
)
"""The last start in each hour that has executions without a row."""

COUNTED_IN_QUEUE = (
    select(
        ENDED.c.task_identifier,
        func.max(ENDED.c.started_at),
        func.max(ENDED.c.completed_at).filter(ENDED.c.status == "completed"),
    )
    .where(ENDED.c.is_stored == false())
    .group_by(ENDED.c.task_identifier)
)
"""The last start and success of each task whose executions without a row are not folded yet."""

_OPEN = INCIDENT.c.closed_at.is_(None)

OPEN_INCIDENTS = select(INCIDENT).where(_OPEN, INCIDENT.c.expectation == bindparam("key"))
ADD_INCIDENT = insert(INCIDENT)
CHANGE_INCIDENT = update(INCIDENT).where(INCIDENT.c.id == bindparam("key"))

CLOSE_INCIDENTS = (
    update(INCIDENT)
    .where(_OPEN, INCIDENT.c.expectation == bindparam("key"))
    .values(closed_at=_now, notified="closed")
)
"""Closes the open incidents of an expectation without news of it."""

_HAS_NEWS = or_(
    INCIDENT.c.notified.is_(None),
    (INCIDENT.c.notified == "opened") & INCIDENT.c.closed_at.is_not(None),
)
_IS_FREE = or_(INCIDENT.c.claimed_until.is_(None), INCIDENT.c.claimed_until < _now)

WITH_NEWS = (
    select(INCIDENT)
    .where(
        _HAS_NEWS,
        _IS_FREE,
        func.coalesce(INCIDENT.c.closed_at, INCIDENT.c.seen_at)
        >= bindparam("since", type_=UTCDateTime),
    )
    .order_by(INCIDENT.c.opened_at, INCIDENT.c.id)
    .limit(bindparam("most"))
)
"""The incidents that have news to send, oldest first."""

CLAIM = (
    update(INCIDENT)
    .where(INCIDENT.c.id == bindparam("key"), _HAS_NEWS, _IS_FREE)
    .values(claimed_until=bindparam("until", type_=UTCDateTime))
)
"""Claims an incident, unless another sender has."""

SETTLE = (
    update(INCIDENT)
    .where(INCIDENT.c.id == bindparam("key"))
    .values(
        notified=case((INCIDENT.c.notified == "closed", "closed"), else_=bindparam("news")),
        notified_at=bindparam("at", type_=UTCDateTime),
        claimed_until=None,
    )
)
"""Notes that news was sent. An incident that was closed without news meanwhile has none later."""

NUMBER_SENT = (
    select(func.count())
    .select_from(INCIDENT)
    .where(INCIDENT.c.notified_at >= bindparam("since", type_=UTCDateTime))
)
"""The number of incidents of which news was sent."""

DELETE_CLOSED = delete(INCIDENT).where(
    INCIDENT.c.closed_at < bindparam("before", type_=UTCDateTime)
)


def newest_with(labels: Iterable[tuple[str, str]]) -> Select[Any]:
    """Return the statement for those of the newest executions of a task that have labels."""
    return (
        select(_searched)
        .where(*(_searched.c.labels[name].as_string() == value for name, value in labels))
        .order_by(_searched.c.started_at.desc(), _searched.c.id.desc())
    )


def incidents_of(search: Any) -> Select[Any]:
    """Return the statement for the incidents that meet criteria, newest first."""
    statement = select(INCIDENT).order_by(INCIDENT.c.opened_at.desc(), INCIDENT.c.id.desc())
    if search.from_ is not None:
        statement = statement.where(
            or_(INCIDENT.c.closed_at.is_(None), INCIDENT.c.closed_at >= search.from_)
        )
    if search.to is not None:
        statement = statement.where(INCIDENT.c.opened_at <= search.to)
    if search.task_identifier is not None:
        statement = statement.where(INCIDENT.c.task_identifier.in_(search.task_identifier))
    if search.problem is not None:
        statement = statement.where(INCIDENT.c.problem.in_(search.problem))
    if search.only_open:
        statement = statement.where(_OPEN)
    return statement.limit(search.limit)
