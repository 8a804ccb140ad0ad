"""The SQL that folds: takes a batch of the queue, and adds it to the rollups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Delete,
    Select,
    String,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql

from jobhistory.database.statements.measures import measured, measures_of
from jobhistory.rollup_schema import ENDED, ROLLUP
from jobhistory.statistics.measures import COUNTS, LAST_TIMES, Measures
from jobhistory.statistics.spans import Span

Key: TypeAlias = tuple[str, str, datetime]
"""A span, a task, and the start of a bucket: the primary key of rollups."""

HOUR_SECONDS = 3600
_TIMES = ("execution_time", "queue_time")
_KEY = tuple(ROLLUP.primary_key.columns)
_ROWID: ColumnElement[Any] = literal_column("rowid")
_CTID: ColumnElement[Any] = literal_column("ctid")
_JSON = JSON()
_ONE: ColumnElement[Any] = literal_column("1")
_BATCH_SIZE = bindparam("batch_size", type_=BigInteger)


class Group(NamedTuple):
    """The executions of a task and an hour in a batch.

    Attributes:
        executions: their number. Corrections do not count.
        rows: the number of their rows in the queue.
        place: where the batch ends in the queue.
    """

    task: str
    hour: datetime
    measures: Measures
    executions: int
    rows: int
    place: int


def group_of(row: Sequence[Any]) -> Group:
    """Return the group in a row of `TAKE` or `MEASURE`."""
    task, hour, *values, executions, rows, place = row
    return Group(task, hour, measures_of(values), executions, rows, place)


def _groups(executions: Any, place: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
    return measured(executions, HOUR_SECONDS).add_columns(
        func.count().filter(executions.weight > 0), func.count(), place
    )


_found = (
    select(_CTID.label("address"))
    .select_from(ENDED)
    # Without the place, each batch would read the dead rows that earlier ones have left.
    .where(text("ctid >= CAST(:low AS tid)").bindparams(bindparam("low", type_=String)))
    .limit(_BATCH_SIZE)
    .with_for_update(skip_locked=True)
    .cte("found")
)
_addresses = func.array(select(_found.c.address).scalar_subquery())
_batch = delete(ENDED).where(any_(_addresses) == _CTID).returning(*ENDED.c).cte("batch")
# asyncpg returns a ctid as a tuple, and other drivers as a text.
_LAST_PAGE: ColumnElement[int] = literal_column(
    "(SELECT max((address::text::point)[0])::bigint FROM found)"
)

TAKE = _groups(_batch.c, _LAST_PAGE)
"""PostgreSQL: deletes a batch of the queue and selects its groups.

It begins at `low`, and skips rows that another session has locked. The place in a group is the
number of the last page.
"""

# One key for all schemas, as folding and recounting are seldom.
_FOLDING_KEY: ColumnElement[int] = literal_column("7306359170264104")

LOCK_TOGETHER = select(func.pg_advisory_xact_lock_shared(_FOLDING_KEY))
"""PostgreSQL: waits for a recount, and keeps one from beginning until the commit."""

TRY_LOCK_TOGETHER = select(func.pg_try_advisory_xact_lock_shared(_FOLDING_KEY))
"""PostgreSQL: the same without waiting; selects whether there is no recount."""

LOCK_ALONE = select(func.pg_advisory_xact_lock(_FOLDING_KEY))
"""PostgreSQL: waits for those who fold, and keeps others from folding until the commit."""

LOCK: Delete = delete(ENDED).where(text("0"))
"""SQLite: begins to write, so that no other connection writes until the commit."""

_some = select(_ROWID).select_from(ENDED).order_by(_ROWID).limit(_BATCH_SIZE).subquery()
LAST = select(func.max(_some.c.rowid))
"""SQLite: the place of the last row in a batch."""

_UNTIL_LAST = text("rowid <= :last")
_queued = select(ENDED).where(_UNTIL_LAST).subquery().c
MEASURE = _groups(_queued, bindparam("last", type_=BigInteger))
"""SQLite: selects the groups of the rows up to `last`."""

REMOVE: Delete = delete(ENDED).where(_UNTIL_LAST)
"""SQLite: deletes the rows up to `last`."""

WAITING = select(func.count()).select_from(ENDED)
"""The number of rows in the queue."""

_up_to_cap = select(_ONE).select_from(ENDED).limit(bindparam("cap", type_=BigInteger))
WAITING_UP_TO = select(func.count()).select_from(_up_to_cap.subquery())
"""The number of rows in the queue, up to `cap`."""


def _recordset(columns: Iterable[ColumnElement[Any]]) -> Any:
    """Return a table on PostgreSQL, from the parameter `rows` as `json_of_rows` makes it.

    Every driver passes a text much faster than an array for each column.
    """
    names = (column(each.key or "", each.type) for each in columns)
    rows = cast(bindparam("rows", type_=Text), _JSON)
    return (
        func.json_to_recordset(rows)
        .table_valued(*names, name="given")
        .render_derived(name="given", with_types=True)
    )


def json_of_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the parameter of `INSERT_MISSING`, `LOCKED` and `UPDATE` for rows of rollups."""
    return json.dumps(list(rows), default=_as_text)


def _as_text(value: Any) -> str:
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value.isoformat())


_keys = _recordset(_KEY)
_rows = _recordset(ROLLUP.c)

INSERT_MISSING = (
    insert_on_postgresql(ROLLUP)
    .from_select([each.name for each in _KEY], select(*(_keys.c[each.name] for each in _KEY)))
    .on_conflict_do_nothing()
)
"""PostgreSQL: inserts empty rollups for the keys that have none, in the order given."""

LOCKED = (
    select(*ROLLUP.c)
    .join_from(ROLLUP, _keys, and_(*(each == _keys.c[each.name] for each in _KEY)))
    .order_by(*_KEY)  # so that sessions that lock the same rollups never wait for each other
    .with_for_update(of=ROLLUP)
)
"""PostgreSQL: locks and selects the rollups with the keys."""

UPDATE = (
    update(ROLLUP)
    .where(*(each == _rows.c[each.name] for each in _KEY))
    .values({each.name: _rows.c[each.name] for each in ROLLUP.c if not each.primary_key})
)
"""PostgreSQL: updates rollups."""

_given = func.json_each(bindparam("keys", type_=String)).table_valued("value", name="given")
FIND = select(*ROLLUP.c).join_from(
    _given,
    ROLLUP,
    and_(
        *(
            type_coerce(each, String) == func.json_extract(_given.c.value, f"$[{place}]")
            for place, each in enumerate(_KEY)
        )
    ),
)
"""SQLite: selects the rollups with the keys."""

REPLACE = insert(ROLLUP).prefix_with("OR REPLACE")
"""SQLite: inserts rollups in place of those with the same keys."""


def json_of(keys: Iterable[Key]) -> str:
    """Return the parameter `keys` of `FIND`."""
    # As SQLAlchemy stores times.
    return json.dumps(
        [
            (span, task, bucket.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds"))
            for span, task, bucket in keys
        ]
    )


# --- Rollups as rows ---


def key_of(row: Mapping[str, Any]) -> Key:
    """Return the key of a row of rollups."""
    return (row["span"], row["task_identifier"], row["bucket"])


def add_stored(measures: Measures, row: Mapping[str, Any]) -> None:
    """Add a row of rollups to the measures."""
    for name in COUNTS:
        measures.counts[name] += row[name]
    for name in LAST_TIMES:
        measures.see(name, row[name])
    for name in _TIMES:
        getattr(measures, name).add_stored(row[f"{name}_sum"], row[f"{name}_max"], row[f"{name}s"])


def names_of(key: Key) -> dict[str, Any]:
    """Return the columns of a key."""
    return dict(zip((each.name for each in _KEY), key, strict=True))


def row_of(key: Key, measures: Measures) -> dict[str, Any]:
    """Return the row of rollups for a key."""
    row = names_of(key) | measures.counts | measures.last
    for name in _TIMES:
        times = getattr(measures, name)
        row |= {
            f"{name}_sum": times.sum,
            f"{name}_max": times.max,
            f"{name}s": times.histogram.to_bytes() if times.histogram else None,
        }
    return row


def keys_of(group: Group) -> Iterable[Key]:
    """Yield the keys of the rollups to which a group belongs."""
    for span in Span:
        yield span.value, group.task, span.start(group.hour)
