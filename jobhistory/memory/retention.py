"""The retention rules of a history in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from jobhistory.execution.retention import Retention
from jobhistory.execution.status import Status
from jobhistory.memory.rows import newest_first
from jobhistory.query.retention import OWN, RetentionCoverage, coverages

Row = dict[str, Any]


def to_delete(rows: Iterable[Row], retention: Retention, now: datetime) -> set[UUID]:
    """Return the ids of the rows that expiry deletes: the expired ones, and those beyond the last.

    The rules of a store in memory never change, so there are none to apply.
    """
    rows = list(rows)
    ids = {row["id"] for row in rows if row["expires_at"] is not None and row["expires_at"] <= now}
    groups: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        rule = retention.deciding(row, row["status"])
        is_ended = row["status"] is not Status.STARTED and row["expires_at"] is None
        if rule is not None and rule.keep_last is not None and is_ended:
            groups[retention.rules.index(rule), row["task_identifier"]].append(row)
    for (number, _), group in groups.items():
        surplus = newest_first(group)[retention.rules[number].keep_last :]
        ids.update(row["id"] for row in surplus)
    return ids


def coverage_of(
    rows: Iterable[Row], retention: Retention, now: datetime
) -> list[RetentionCoverage]:
    """Return how many rows each rule covers, and how many expiry would delete."""
    rows = list(rows)
    deleted = to_delete(rows, retention, now)
    numbers: dict[int, tuple[int, int, int]] = {}
    for row in rows:
        rule = retention.deciding(row, row["status"])
        number = len(retention.rules) if rule is None else retention.rules.index(rule)
        if not retention.is_followed_by(row):
            number = OWN
        covered, _, expired = numbers.get(number, (0, 0, 0))
        numbers[number] = (covered + 1, 0, expired + (row["id"] in deleted))
    return coverages(retention, numbers)
