"""Recounting: statistics of whole hours from the rows of the history."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from jobhistory.database.marks import read_marks
from jobhistory.database.statements import recount as statements
from jobhistory.database.statements.fold import LOCK, LOCK_ALONE, Key, add_stored, key_of, row_of
from jobhistory.database.statements.measures import measures_of
from jobhistory.database.transaction import Transaction
from jobhistory.errors import InvalidInput
from jobhistory.statistics.measures import Measures
from jobhistory.statistics.spans import Span

_RESOLUTION = timedelta(microseconds=1)
_LONGER = ((Span.HOUR, Span.DAY), (Span.DAY, Span.MONTH))


def recount(transaction: Transaction, from_: datetime, to: datetime) -> int:
    """Replace the statistics of whole hours by what the rows say; return the number of executions.

    Nobody folds meanwhile. What ends while it counts stays in the queue and is added later: one
    statement counts the rows and removes their part of the queue, so it sees both at one moment.

    Raises:
        InvalidInput: if rows do not say everything.
    """
    counted: dict[Key, Measures] = {
        (Span.HOUR.value, task, hour): measures_of(values)
        for task, hour, *values in _counted(transaction, {"from_": from_, "to": to})
    }
    _refuse_gaps(transaction, from_, to)
    _replace(transaction, Span.HOUR, from_, to, counted)
    for shorter, longer in _LONGER:
        begin, end = longer.start(from_), longer.next(longer.start(to - _RESOLUTION))
        _replace(transaction, longer, begin, end, _sums(transaction, shorter, longer, begin, end))
    return sum(each.executions for each in counted.values())


def _counted(transaction: Transaction, window: dict[str, datetime]) -> list[Any]:
    if transaction.dialect == "postgresql":
        transaction.execute(LOCK_ALONE)
        return list(transaction.execute(statements.DRAIN_AND_COUNT, window))
    transaction.execute(LOCK)
    rows = list(transaction.execute(statements.COUNT, window))
    transaction.execute(statements.DRAIN, window)
    return rows


def _refuse_gaps(transaction: Transaction, from_: datetime, to: datetime) -> None:
    """Refuse a window of which rows are missing.

    The marks are read after the rows, because a deletion that these show has moved them.
    """
    marks = read_marks(transaction)
    # Days as well: a month is counted again from all of its days.
    begin = max(filter(None, marks), default=from_)
    if begin > from_:
        raise InvalidInput(
            "from_",
            from_.isoformat(),
            "is in a time of which rows or hours have been deleted, so the statistics know more "
            f"than the rows; pass {begin.isoformat()} or later",
        )
    window = {"span": Span.HOUR.value, "from_": from_, "to": to}
    unstored = transaction.execute(statements.UNSTORED, window).scalar_one()
    if unstored:
        raise InvalidInput(
            "from_",
            from_.isoformat(),
            f"begins a window with executions that were counted but not stored ({unstored}), which "
            "the statistics would lose; pass a window without such executions",
        )


def _sums(
    transaction: Transaction, shorter: Span, longer: Span, begin: datetime, end: datetime
) -> dict[Key, Measures]:
    window = {"span": shorter.value, "from_": begin, "to": end}
    found: defaultdict[Key, Measures] = defaultdict(Measures)
    for row in transaction.execute(statements.ROLLUPS, window).mappings():
        _, task, bucket = key_of(row)
        add_stored(found[longer.value, task, longer.start(bucket)], row)
    return found


def _replace(
    transaction: Transaction,
    span: Span,
    begin: datetime,
    end: datetime,
    measures: dict[Key, Measures],
) -> None:
    window = {"span": span.value, "from_": begin, "to": end}
    transaction.execute(statements.REMOVE, window)
    if measures:
        rows = [row_of(key, each) for key, each in measures.items()]
        transaction.execute(statements.ADD, rows)
