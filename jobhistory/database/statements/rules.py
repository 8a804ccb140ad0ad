"""The SQL that applies changed retention rules to rows, and counts the rows of each rule."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Update,
    Uuid,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from jobhistory.database.statements.read import STARTED, deemed_frequent
from jobhistory.database.statements.retention import expiry_of, is_followed, rule_number
from jobhistory.execution.retention import Retention
from jobhistory.rollup_schema import STATE
from jobhistory.schema import COLUMNS, TABLE, UTCDateTime

_NAME: ColumnElement[str] = literal("retention", String)

READ = select(STATE.c.value).where(STATE.c.name == _NAME)
"""Selects the retention that the database keeps."""

INSERT: dict[str, Any] = {
    name: dialect.insert(STATE)
    .values(name=_NAME, value=bindparam("value"))
    .on_conflict_do_nothing()
    .returning(STATE.c.name)
    for name, dialect in (("postgresql", postgresql), ("sqlite", sqlite))
}
"""By dialect: adds the retention and returns a row, unless there is one."""

REPLACE = (
    update(STATE)
    .where(STATE.c.name == _NAME, STATE.c.value == bindparam("old"))
    .values(value=bindparam("new"))
    .returning(STATE.c.name)
)
"""Replaces the retention and returns a row, unless another session has replaced it."""

_PLACE = tuple_(COLUMNS.started_at, COLUMNS.id)


def _place(name: str) -> Any:
    return tuple_(
        bindparam(f"{name}_moment", type_=UTCDateTime), bindparam(f"{name}_id", type_=Uuid)
    )


LAST_OF_BATCH = (
    select(COLUMNS.started_at, COLUMNS.id)
    .where(_place("after") < _PLACE)
    .order_by(COLUMNS.started_at, COLUMNS.id)
    .offset(bindparam("skipped"))
    .limit(literal_column("1"))
)
"""Selects the place of the last row of a batch after a place."""


@lru_cache(maxsize=8)
def apply(retention: Retention, replaces: tuple[Retention, ...], *, up_to: bool) -> Update:
    """Return the statement that gives rows after a place the expiry of a retention.

    It leaves out those that follow none of the retentions which it replaces.

    Args:
        up_to: whether the rows end at the place `last`.
    """
    expires_at = expiry_of(retention, None)
    within = [_place("after") < _PLACE] + ([_place("last") >= _PLACE] if up_to else [])
    followed = or_(*(is_followed(each, None) for each in replaces))
    differs = COLUMNS.expires_at.is_distinct_from(expires_at)
    return (
        update(TABLE)
        .where(*within, deemed_frequent(followed, differs))
        .values(expires_at=expires_at)
    )


@lru_cache(maxsize=8)
def coverage(retention: Retention, replaces: tuple[Retention, ...]) -> Select[*tuple[Any, ...]]:
    """Return the statement that counts the rows of each rule, as they are once it is applied.

    It selects the number of the rule, the task of ended executions if the rule has `keep_last`, and
    the numbers of rows, of those that change, and of those that have expired by `cutoff`.
    """
    followed = [is_followed(each, None) for each in (retention, *replaces)]
    expires_at: ColumnElement[Any] = COLUMNS.expires_at
    if replaces:
        expires_at = case((or_(*followed[1:]), expiry_of(retention, None)), else_=expires_at)
    number = case((or_(*followed), rule_number(retention)), else_=literal_column("-1"))
    rows = select(
        number.label("number"),
        expires_at.label("expires_at"),
        COLUMNS.expires_at.is_distinct_from(expires_at).label("is_changed"),
        COLUMNS.status.label("status"),
        COLUMNS.task_identifier.label("task"),
    ).subquery("rows")
    row = rows.c
    with_last: list[ColumnElement[int]] = [
        literal_column(str(index))
        for index, rule in enumerate(retention.rules)
        if rule.keep_last is not None
    ]
    is_counted = row.number.in_(with_last) & (row.status != STARTED) & row.expires_at.is_(None)
    task = case((is_counted, row.task), else_=null()).label("kept_task") if with_last else null()
    one: ColumnElement[int] = literal_column("1")
    return select(
        row.number,
        task,
        func.count(),
        func.count(case((row.is_changed, one))),
        func.count(case((row.expires_at <= bindparam("cutoff", type_=UTCDateTime), one))),
    ).group_by(row.number, *([task] if with_last else []))
