"""Expectations, checks and incidents of a history in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from jobhistory.execution.status import Status
from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.facts import SEARCHED, Facts, Run, number_of_runs
from jobhistory.expectations.incidents import Incident, News, changed_by
from jobhistory.expectations.verdicts import Checked
from jobhistory.memory.rows import Rows, newest_first
from jobhistory.query.incidents import IncidentQuery
from jobhistory.statistics.ever import TaskMeasures

INCIDENTS_LIMIT = 1000
"""The maximum number of incidents. The oldest ones go first."""

Row = dict[str, Any]


class MemoryExpectations:
    """Expectations and incidents, for as long as the process lives. Thread-safe.

    They share the lock of the rows.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._declared: dict[str, DeclaredExpectation] = {}
        self._incidents: dict[UUID, Incident] = {}
        self._sent: dict[UUID, tuple[str, datetime]] = {}
        self._claimed_until: dict[UUID, datetime] = {}

    def declare_expectation(self, wanted: DeclaredExpectation) -> bool:
        """Keep an expectation in place of one with its name; return whether anything changed."""
        name = wanted.expectation.name
        with self._rows.lock:
            before = self._declared.get(name)
            self._declared[name] = wanted if before is None else before.changed_to(wanted)
            return self._declared[name] != before

    def declared_expectations(self) -> list[DeclaredExpectation]:
        """Return the declared expectations, ordered by name."""
        with self._rows.lock:
            return [self._declared[name] for name in sorted(self._declared)]

    def forget_expectation(self, name: str, now: datetime) -> bool:
        """Remove an expectation, close its incidents, and return whether there was one."""
        with self._rows.lock:
            for each in self._open(name):
                self._incidents[each.id] = replace(each, closed_at=now)
                self._sent[each.id] = ("closed", now)
            return self._declared.pop(name, None) is not None

    def fold_first(self, now: datetime) -> None:
        """Fold statistics."""
        self._rows.fold()

    def facts(self, declared: Iterable[DeclaredExpectation], now: datetime) -> list[Facts]:
        """Return what a check needs to know for each expectation."""
        with self._rows.lock:
            return [self._facts(each, now) for each in declared]

    def _facts(self, declared: DeclaredExpectation, now: datetime) -> Facts:
        expectation = declared.expectation
        task = expectation.task_identifier
        rows = newest_first(row for row in self._rows.all() if row["task_identifier"] == task)
        most = number_of_runs(expectation, declared.declared_at, declared.checked_at, now)
        most = SEARCHED if expectation.labels else most
        labelled = [row for row in rows[:SEARCHED] if _has(row, expectation.labels)]
        runs = [_run(row) for row in rows[:most] if _has(row, expectation.labels)]
        starts = [row["started_at"] for row in labelled[:1]]
        done = [row.get("completed_at") for row in labelled if row["status"] is Status.COMPLETED]
        counted = self._rows.rollups.counted_hours(task)
        if not expectation.labels:
            last = self._rows.measures().get(task, TaskMeasures()).ended.last
            starts.append(last["last_started_at"])
            done.append(last["last_completed_at"])
        last_start = max((each for each in starts if each is not None), default=None)
        never_ran = last_start is None and not expectation.labels  # statistics would know
        return Facts(
            declared_at=declared.declared_at,
            checked_at=declared.checked_at,
            runs=tuple(runs),
            searched_from=rows[most - 1]["started_at"] if len(rows) >= most else None,
            running=tuple(_run(row) for row in labelled if row["status"] is Status.STARTED),
            rows_from=None if never_ran else self._rows.rollups.marks.rows_from,
            last_start=last_start,
            last_success=max((each for each in done if each is not None), default=None),
            counted=counted,
        )

    def newest_runs(self, tasks: Iterable[str] | None, most: int) -> dict[str, list[Run]]:
        """Return the newest executions of each task, newest first; without tasks, of all."""
        with self._rows.lock:
            found: dict[str, list[Run]] = {} if tasks is None else {task: [] for task in tasks}
            for row in newest_first(self._rows.all()):
                task = row["task_identifier"]
                runs = found.setdefault(task, []) if tasks is None else found.get(task)
                if runs is not None and len(runs) < most:
                    runs.append(_run(row))
            return found

    def write_checks(self, checks: list[tuple[DeclaredExpectation, Checked]]) -> None:
        """Open, confirm and close incidents, unless another check came first."""
        with self._rows.lock:
            for declared, checked in checks:
                name = checked.expectation.name
                known = self._declared.get(name)
                if known is None or known.checked_at != declared.checked_at:
                    continue
                self._declared[name] = replace(known, checked_at=checked.checked_at)
                for incident in changed_by(self._open(name), checked):
                    self._incidents[incident.id] = incident
            for id_ in [*self._incidents][:-INCIDENTS_LIMIT]:
                del self._incidents[id_]
                self._sent.pop(id_, None)
                self._claimed_until.pop(id_, None)

    def incidents(self, query: IncidentQuery) -> list[Incident]:
        """Return incidents, newest first."""
        with self._rows.lock:
            found = [each for each in self._incidents.values() if query.is_met_by(each)]
        found.sort(key=lambda each: (each.opened_at, each.id), reverse=True)
        return found[: query.limit]

    def claim_news(self, since: datetime, now: datetime, until: datetime, most: int) -> list[News]:
        """Return incidents with news to send, which no other sender gets before `until`."""
        claimed: list[News] = []
        with self._rows.lock:
            for id_, incident in self._incidents.items():
                sent = self._sent.get(id_)
                has_news = sent is None or (sent[0] == "opened" and not incident.is_open)
                is_free = id_ not in self._claimed_until or self._claimed_until[id_] < now
                is_recent = (incident.closed_at or incident.seen_at) >= since
                if has_news and is_free and is_recent and len(claimed) < most:
                    self._claimed_until[id_] = until
                    claimed.append(News(incident, is_known=sent is not None))
        return claimed

    def settle_news(self, sent: list[News], at: datetime) -> None:
        """Note that news was sent."""
        with self._rows.lock:
            for each in sent:
                id_ = each.incident.id
                # What was closed without news meanwhile has none later.
                is_over = self._sent.get(id_, ("", at))[0] == "closed"
                self._sent[id_] = ("closed" if is_over else each.kind, at)
                self._claimed_until.pop(id_, None)

    def number_sent(self, since: datetime) -> int:
        """Return of how many incidents news was sent since a time."""
        with self._rows.lock:
            return sum(at >= since for _, at in self._sent.values())

    def _open(self, name: str) -> list[Incident]:
        return [
            each for each in self._incidents.values() if each.is_open and each.expectation == name
        ]


def _has(row: Row, labels: Iterable[tuple[str, str]]) -> bool:
    given = row.get("labels") or {}
    return all(given.get(name) == value for name, value in labels)


def _run(row: Row) -> Run:
    return Run(
        row["id"],
        row["started_at"],
        row["status"],
        row.get("completed_at"),
        row.get("execution_time_ms"),
        row.get("attempt_number"),
        row.get("will_retry"),
    )
