"""The SQL that deletes what rules with `keep_last` do not keep, for one task at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Uuid,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.sql.dml import ReturningDelete

from jobhistory.database.statements.expire import STARTED_AT_TEXT, delete_batch, found_in
from jobhistory.database.statements.read import STARTED, criteria_of, deemed_frequent
from jobhistory.database.statements.retention import rule_number
from jobhistory.database.statements.shards import delete_listed
from jobhistory.execution.retention import Retention
from jobhistory.query.criteria import HistoryQuery
from jobhistory.schema import COLUMNS, TABLE, UTCDateTime

_PLACE = tuple_(COLUMNS.started_at, COLUMNS.id)
# The order of the index of tasks.
_OLDEST_FIRST = (COLUMNS.started_at.asc().nulls_first(), COLUMNS.id.asc())
_NEWEST_FIRST = (COLUMNS.started_at.desc().nulls_last(), COLUMNS.id.desc())


@dataclass(frozen=True)
class Kept:
    """The executions of one task about which a rule with `keep_last` decides.

    Attributes:
        retention: the retention that has the rule.
        number: the number of the rule.
        task: one of its tasks.
    """

    retention: Retention
    number: int
    task: str


def kept_by(retention: Retention) -> list[Kept]:
    """Return the executions about which rules with `keep_last` decide, task by task."""
    return [
        Kept(retention, number, task)
        for number, rule in enumerate(retention.rules)
        if rule.keep_last is not None
        for task in rule.task_identifier or ()
    ]


@lru_cache(maxsize=64)
def oldest_kept(kept: Kept) -> Select[*tuple[Any, ...]]:
    """Return the statement that selects the place of the oldest execution that the rule keeps."""
    last = (kept.retention.rules[kept.number].keep_last or 0) - 1
    return (
        select(COLUMNS.started_at, COLUMNS.id)
        .where(*_criteria(kept))
        .order_by(*_NEWEST_FIRST)
        .offset(last)
        .limit(1)
    )


@lru_cache(maxsize=64)
def count_surplus(kept: Kept) -> Select[*tuple[Any, ...]]:
    """Return the statement that counts what comes before the place `end`."""
    return select(func.count()).select_from(TABLE).where(*_criteria(kept), _end() > _PLACE)


@lru_cache(maxsize=64)
def delete_surplus(kept: Kept) -> Select[*tuple[Any, ...]]:
    """Return the statement that deletes one batch on PostgreSQL, as `delete_expired` does.

    The batch begins after the place `low`, and ends before the place `end`.
    """
    batch = surplus_batch(kept).cte("surplus_batch")
    return delete_batch(batch, delete(TABLE), COLUMNS.id, exact=True)


@lru_cache(maxsize=64)
def find_surplus(kept: Kept) -> Select[*tuple[Any, ...]]:
    """Return the statement that finds one batch on other databases."""
    return found_in(surplus_batch(kept).cte("surplus_batch"), exact=True)


@lru_cache(maxsize=64)
def find_in_shards(kept: Kept) -> Select[*tuple[Any, ...]]:
    """Return the statement that finds one batch where Citus distributes the table.

    It selects the address, the start and the job of each row, and locks none.
    """
    return _surplus(kept).add_columns(COLUMNS.job_id)


@lru_cache(maxsize=64)
def delete_in_shards(kept: Kept) -> ReturningDelete[datetime]:
    """Return the statement that deletes those of these rows about which the rule still decides."""
    return delete_listed(*_criteria(kept))


@lru_cache(maxsize=64)
def delete_found_surplus(kept: Kept) -> ReturningDelete[str]:
    """Return the statement that deletes the rows that `find_surplus` finds."""
    # A subquery, for the same reason as in expiry.
    batch = surplus_batch(kept).subquery()
    return delete(TABLE).where(COLUMNS.id.in_(select(batch.c.address))).returning(STARTED_AT_TEXT)


@lru_cache(maxsize=64)
def first_surplus(kept: Kept) -> Select[*tuple[Any, ...]]:
    """Return the statement that selects the place of the first row of a batch."""
    batch = surplus_batch(kept).subquery()
    return select(batch.c.moment, batch.c.id)


def surplus_batch(kept: Kept) -> Select[*tuple[Any, ...]]:
    """Return the statement that selects and locks a batch of rows, see `expired_batch`."""
    return _surplus(kept).with_for_update(skip_locked=True)


def _surplus(kept: Kept) -> Select[*tuple[Any, ...]]:
    low = tuple_(bindparam("low_moment", type_=UTCDateTime), bindparam("low_id", type_=Uuid))
    return (
        select(COLUMNS.id.label("address"), COLUMNS.started_at.label("moment"), COLUMNS.id)
        .where(*_criteria(kept), low < _PLACE, _end() > _PLACE)
        .order_by(*_OLDEST_FIRST)
        .limit(bindparam("batch_size"))
    )


def _end() -> Any:
    return tuple_(bindparam("end_moment", type_=UTCDateTime), bindparam("end_id", type_=Uuid))


def _criteria(kept: Kept) -> list[ColumnElement[bool]]:
    """Return the conditions for ended executions that the rule covers, read by the index of tasks.

    Those with an expiry have a retention of their own.
    """
    return [
        *criteria_of(HistoryQuery(task_identifier=kept.task)),
        deemed_frequent(
            COLUMNS.status != STARTED,
            COLUMNS.expires_at.is_(None),
            rule_number(kept.retention) == literal_column(str(kept.number)),
        ),
    ]
