"""Which rows of an archived file meet criteria."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import lru_cache
from itertools import chain
from typing import Any
from uuid import UUID

import pyarrow as pa

from jobhistory.archive.arrow import compute as pc
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.matching import matches

_READ_BY = {
    "from_": ("started_at",),
    "to": ("started_at",),
    "task_identifier": ("task_identifier",),
    "status": ("status",),
    "job_id": ("job_id",),
    "correlation_id": ("correlation_id",),
    "worker_id": ("worker_id",),
    "worker_id_starts_with": ("worker_id",),
    "min_attempt": ("attempt_number",),
    "labels": ("labels",),
    "parent_id": ("parent_id",),
    "trace_id": ("trace_id",),
    "error_type": ("error_type",),
    "error_contains": ("error_type", "error_message"),
    "min_execution_time_ms": ("execution_time_ms",),
}
"""The columns that each criterion reads."""

_QUICK = {
    "from_",
    "to",
    "task_identifier",
    "status",
    "job_id",
    "correlation_id",
    "worker_id",
    "trace_id",
    "error_type",
}
"""The criteria that Arrow compares, without a Python object for each row."""


class Criteria:
    """Criteria for archived rows: those of a query, and ids of executions.

    Args:
        query: the criteria, of which a row must meet all.
        ids: the ids of which it must have one; `None` for any.

    Attributes:
        columns: the columns that the criteria read.
    """

    def __init__(self, query: HistoryQuery, ids: Collection[UUID] | None) -> None:
        self.query = query
        self._ids = None if ids is None else pa.array([each.bytes for each in ids], pa.binary(16))
        self._given = [name for name in _READ_BY if getattr(query, name) is not None]
        read = ["id", *chain.from_iterable(_READ_BY[name] for name in self._given)]
        self.columns = list(dict.fromkeys(read))

    def mask(self, rows: pa.Table) -> pa.BooleanArray:
        """Return for each row whether it meets the criteria.

        Args:
            rows: rows with all `columns`.
        """
        found = self._quick_mask(rows)
        if _QUICK.issuperset(self._given):
            return found
        places = pc.indices_nonzero(found)
        candidates = rows.select(self.columns).take(places).to_pylist()
        verdicts = [matches(_values(row), self.query) for row in candidates]
        return pc.is_in(
            pa.array(range(rows.num_rows)), places.filter(pa.array(verdicts, pa.bool_()))
        )

    def _quick_mask(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return which rows meet the criteria that Arrow compares."""
        found = pa.array([True] * rows.num_rows, pa.bool_())
        if self._ids is not None:
            found = pc.and_(found, pc.is_in(rows["id"], self._ids))
        for name in _QUICK.intersection(self._given):
            found = pc.and_(
                found, pc.fill_null(_compared(rows, name, getattr(self.query, name)), False)
            )
        return found


def _compared(rows: pa.Table, name: str, value: Any) -> Any:
    column = rows[_READ_BY[name][0]]
    if name == "from_":
        return pc.greater_equal(column, pa.scalar(value, column.type))
    if name == "to":
        return pc.less_equal(column, pa.scalar(value, column.type))
    texts = [value] if isinstance(value, str) else list(value)
    return pc.is_in(column, pa.array(map(str, texts), pa.string()))


def _values(row: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a row as those of a row in memory."""
    if row.get("labels") is not None:
        row["labels"] = _decoded(row["labels"])
    if row.get("parent_id") is not None:
        row["parent_id"] = UUID(bytes=row["parent_id"])
    return row


@lru_cache(maxsize=1_000)
def _decoded(labels: str) -> Any:
    return json.loads(labels)  # the same few texts again and again, in nearly all histories
