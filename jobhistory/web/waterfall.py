"""Executions with the same correlation id as a waterfall: who started whom, and when each ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from markupsafe import Markup

from jobhistory.execution.status import Status
from jobhistory.schema import HistoryRecord
from jobhistory.web.charts import span_bar

_DEEPEST = 8
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Row:
    """An execution in the waterfall.

    Attributes:
        record: the execution.
        depth: how many executions above it started it, directly or not; at most 8.
        offset: the milliseconds from the first start to its start.
        milliseconds: how long it took, or has been running.
        bar: when it ran, on the axis of all.
    """

    record: HistoryRecord
    depth: int
    offset: int
    milliseconds: int
    bar: Markup


def waterfall(records: Sequence[HistoryRecord], now: datetime) -> list[Row]:
    """Return executions in order: each after the one that started it, siblings by their start."""
    if not records:
        return []
    first = min(record.started_at for record in records)
    whole = max(_end(record, now) for record in records) - first or _MILLISECOND
    rows = []
    for record, depth in _in_order(records):
        offset, length = record.started_at - first, _end(record, now) - record.started_at
        is_running = record.status is Status.STARTED
        bar = span_bar(record.status.value, offset / whole, length / whole, is_open=is_running)
        milliseconds = length // _MILLISECOND
        if record.execution_time_ms is not None:
            milliseconds = record.execution_time_ms
        rows.append(Row(record, min(depth, _DEEPEST), offset // _MILLISECOND, milliseconds, bar))
    return rows


def _end(record: HistoryRecord, now: datetime) -> datetime:
    end = now if record.status is Status.STARTED else record.completed_at
    return max(record.started_at, end or record.started_at)


def _in_order(records: Sequence[HistoryRecord]) -> Iterator[tuple[HistoryRecord, int]]:
    """Yield each execution once, with its depth, whatever parents they claim to have."""
    ordered = sorted(records, key=lambda record: (record.started_at, record.id))
    known = {record.id for record in records}
    children: dict[UUID | None, list[HistoryRecord]] = {}
    for record in ordered:
        parent = record.parent_id if record.parent_id in known else None
        children.setdefault(parent, []).append(record)
    seen: set[UUID] = set()
    # Those in a circle of parents have no root, so each execution is tried as one.
    for root in [*children.get(None, ()), *ordered]:
        waiting = [(root, 0)]
        while waiting:
            record, depth = waiting.pop()
            if record.id not in seen:
                seen.add(record.id)
                yield record, depth
                waiting += [(child, depth + 1) for child in reversed(children.get(record.id, []))]
