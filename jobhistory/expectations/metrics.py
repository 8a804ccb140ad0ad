"""Metrics of expectations for Prometheus: by when a task must start, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from jobhistory.expectations.verdicts import Checked
from jobhistory.statistics.prometheus import OTHER, Family, Sample


def families_of(
    checks: Sequence[Checked], last_check: datetime | None, max_expectations: int
) -> list[Family]:
    """Return the metrics of expectations; none if nothing is expected.

    Args:
        checks: what is known of each expectation, ordered by name.
        last_check: when a check was made that could open incidents.
        max_expectations: the number of expectations with series of their own. The others are one.
    """
    if not checks:
        return []
    return [
        Family(
            "jobhistory_deadline_timestamp_seconds",
            "gauge",
            "By when the task must start or succeed, so that nothing is missed.",
            list(_deadlines(checks, max_expectations)),
        ),
        Family(
            "jobhistory_late",
            "gauge",
            "Expectations whose deadline has passed.",
            list(_late(checks, max_expectations)),
        ),
        Family(
            "jobhistory_problem",
            "gauge",
            "Expectations with this problem.",
            list(_problems(checks, max_expectations)),
        ),
        Family(
            "jobhistory_last_check_timestamp_seconds",
            "gauge",
            "When the last check was made that opens and closes incidents.",
            [] if last_check is None else [("", {}, last_check.timestamp())],
        ),
    ]


def _key(checked: Checked, number: int, most: int) -> tuple[str, str]:
    """Return the labels `task` and `expectation`, which tell series from each other."""
    if number >= most:
        return OTHER, OTHER
    return checked.expectation.task_identifier, checked.expectation.name


def _deadlines(checks: Sequence[Checked], most: int) -> Iterator[Sample]:
    first: dict[tuple[str, str], float] = {}
    for number, checked in enumerate(checks):
        if checked.deadline is not None:
            key = _key(checked, number, most)
            at = checked.deadline.timestamp()
            first[key] = min(first.get(key, at), at)
    for (task, expectation), at in first.items():
        yield "", {"task": task, "expectation": expectation}, at


def _late(checks: Sequence[Checked], most: int) -> Iterator[Sample]:
    found: dict[tuple[str, str], int] = {}
    for number, checked in enumerate(checks):
        key = _key(checked, number, most)
        is_late = checked.deadline is not None and checked.deadline < checked.checked_at
        found[key] = found.get(key, 0) + is_late
    for (task, expectation), count in found.items():
        yield "", {"task": task, "expectation": expectation}, count


def _problems(checks: Sequence[Checked], most: int) -> Iterator[Sample]:
    found: dict[tuple[str, str, str], int] = {}
    for number, checked in enumerate(checks):
        for verdict in checked.verdicts:
            if not verdict.is_over:
                key = (*_key(checked, number, most), verdict.problem.value)
                found[key] = found.get(key, 0) + 1
    for (task, expectation, problem), count in found.items():
        yield "", {"task": task, "expectation": expectation, "problem": problem}, count
