"""Expectations, checks and incidents in a database."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from jobhistory.database.marks import read_marks
from jobhistory.database.rollups import are_readable, marks_are_readable
from jobhistory.database.statements import expectations as statements
from jobhistory.database.transaction import Purpose, Transaction, in_transaction
from jobhistory.errors import InvalidInput
from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.facts import SEARCHED, Facts, Run, number_of_runs
from jobhistory.expectations.incidents import CLOSED_KEPT_FOR, Incident, News, changed_by
from jobhistory.expectations.verdicts import Checked, Problem
from jobhistory.query.incidents import IncidentQuery

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row = dict[str, Any]


class ExpectationOperations(ABC):
    """The operations on expectations and incidents in a database."""

    @abstractmethod
    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a transaction and return its result."""

    @in_transaction(Purpose.MAINTAIN_AS_ONE)
    def declare_expectation(self, transaction: Transaction, wanted: DeclaredExpectation) -> bool:
        """Write an expectation in place of one with its name; return whether anything changed."""
        values = _declaration(wanted)
        if transaction.execute(statements.DECLARE[transaction.dialect], values).all():
            return True
        key = {"key": wanted.expectation.name}
        row = transaction.execute(statements.DECLARED_NAMED, key).one()
        before = _readable(row)
        changed = wanted if before is None else before.changed_to(wanted)
        if changed == before:
            return False
        transaction.execute(statements.REDECLARE, key | _declaration(changed))
        return True

    @in_transaction(Purpose.READ)
    def declared_expectations(self, transaction: Transaction) -> list[DeclaredExpectation]:
        """Return the declared expectations that can be read here, ordered by name."""
        rows = transaction.execute(statements.DECLARED)
        found = [each for row in rows if (each := _readable(row)) is not None]
        # Sorted here, because databases collate text differently.
        return sorted(found, key=lambda each: each.expectation.name)

    @in_transaction(Purpose.MAINTAIN_AS_ONE)
    def forget_expectation(self, transaction: Transaction, name: str, now: datetime) -> bool:
        """Remove an expectation, close its incidents, and return whether there was one."""
        found = transaction.execute(statements.FORGET, {"key": name}).rowcount
        transaction.execute(statements.CLOSE_INCIDENTS, {"key": name, "now": now})
        return bool(found)

    @in_transaction(Purpose.READ)
    def facts(
        self, transaction: Transaction, declared: Iterable[DeclaredExpectation], now: datetime
    ) -> list[Facts]:
        """Return what a check needs to know for each expectation."""
        has_statistics = are_readable(transaction)
        knows_marks = has_statistics or marks_are_readable(transaction)
        rows_from = read_marks(transaction).rows_from if knows_marks else None
        reading = _Reading(transaction, now, has_statistics, rows_from)
        counted = reading.counted_in_queue()
        return [reading.facts(each, counted) for each in declared]

    @in_transaction(Purpose.READ)
    def newest_runs(
        self, transaction: Transaction, tasks: Iterable[str] | None, most: int
    ) -> dict[str, list[Run]]:
        """Return the newest executions of each task, newest first; without tasks, of all."""
        names: Iterable[str]
        if tasks is not None:
            names = tasks
        elif are_readable(transaction):
            names = transaction.execute(statements.TASKS).scalars().all()
        else:
            names = transaction.execute(statements.TASKS_OF_ROWS).scalars().all()
        found = {}
        for task in names:
            rows = transaction.execute(statements.NEWEST, {"task": task, "most": most})
            found[task] = [Run(*row[:-1]) for row in rows]
        return found

    @in_transaction(Purpose.MAINTAIN_AS_ONE)
    def write_checks(
        self, transaction: Transaction, checks: list[tuple[DeclaredExpectation, Checked]]
    ) -> None:
        """Open, confirm and close incidents, unless another check came first."""
        for declared, checked in checks:  # in the order of their names, as all checks lock them
            key, now = {"key": checked.expectation.name}, checked.checked_at
            marked = transaction.execute(
                statements.MARK_CHECKED, key | {"before": declared.checked_at, "now": now}
            )
            if marked.rowcount:
                rows = transaction.execute(statements.OPEN_INCIDENTS, key).all()
                _write_incidents(transaction, [_incident(row) for row in rows], checked)

        if checks:
            before = checks[0][1].checked_at - CLOSED_KEPT_FOR
            transaction.execute(statements.DELETE_CLOSED, {"before": before})

    @in_transaction(Purpose.READ)
    def incidents(self, transaction: Transaction, query: IncidentQuery) -> list[Incident]:
        """Return incidents, newest first."""
        return [_incident(row) for row in transaction.execute(statements.incidents_of(query))]

    @in_transaction(Purpose.MAINTAIN_AS_ONE)
    def claim_news(
        self, transaction: Transaction, since: datetime, now: datetime, until: datetime, most: int
    ) -> list[News]:
        """Return incidents with news to send, which no other sender gets before `until`.

        Args:
            since: incidents that no check has seen or closed since then are left out.
            most: the maximum number of incidents.
        """
        rows = transaction.execute(
            statements.WITH_NEWS, {"since": since, "now": now, "most": most}
        ).all()
        claimed = []
        for row in rows:
            values = {"key": row.id, "now": now, "until": until}
            if transaction.execute(statements.CLAIM, values).rowcount:
                claimed.append(News(_incident(row), is_known=row.notified is not None))
        return claimed

    @in_transaction(Purpose.MAINTAIN_AS_ONE)
    def settle_news(self, transaction: Transaction, sent: list[News], at: datetime) -> None:
        """Note that news was sent."""
        # In the order of the names, as checks lock incidents.
        for each in sorted(sent, key=lambda news: news.incident.expectation):
            values = {"key": each.incident.id, "news": each.kind, "at": at}
            transaction.execute(statements.SETTLE, values)

    @in_transaction(Purpose.READ)
    def number_sent(self, transaction: Transaction, since: datetime) -> int:
        """Return of how many incidents news was sent since a time."""
        number: int = transaction.execute(statements.NUMBER_SENT, {"since": since}).scalar_one()
        return number


@dataclass(frozen=True)
class _Reading:
    """Reads what a check needs, in one transaction."""

    transaction: Transaction
    now: datetime
    has_statistics: bool
    rows_from: datetime | None

    def counted_in_queue(self) -> dict[str, tuple[datetime | None, datetime | None]]:
        if not self.has_statistics:
            return {}
        rows = self.transaction.execute(statements.COUNTED_IN_QUEUE)
        return {task: (start, success) for task, start, success in rows}

    def facts(
        self,
        declared: DeclaredExpectation,
        counted: dict[str, tuple[datetime | None, datetime | None]],
    ) -> Facts:
        expectation = declared.expectation
        task = {"task": expectation.task_identifier}
        most = number_of_runs(expectation, declared.declared_at, declared.checked_at, self.now)
        if expectation.labels:
            rows = self.transaction.execute(statements.newest_with(expectation.labels), task)
            number, oldest = self.transaction.execute(statements.SEARCHED_FROM, task).one()
            searched_from = oldest if number == SEARCHED else None
            runs = _runs(rows, expectation)
        else:
            rows = self.transaction.execute(statements.NEWEST, task | {"most": most})
            runs = _runs(rows, expectation)
            searched_from = runs[-1].started_at if len(runs) == most else None
        running = [run for run in runs if not run.is_ended]
        if expectation.max_runtime is not None or expectation.max_running is not None:
            running = _runs(self.transaction.execute(statements.RUNNING, task), expectation)
        starts = [run.started_at for run in runs[:1]]
        successes = [run.completed_at for run in runs if run.status == "completed"]
        if not successes and not expectation.labels and expectation.max_success_age is not None:
            successes.append(self.transaction.execute(statements.LAST_SUCCESS, task).scalar_one())
        hours: tuple[datetime, ...] = ()
        if self.has_statistics:
            queued = counted.get(expectation.task_identifier, (None, None))
            if not expectation.labels:  # which statistics do not know
                start, success = self.transaction.execute(
                    statements.LAST_TIMES, task | {"now": self.now}
                ).one()
                starts += [each for each in (start, queued[0]) if each is not None]
                successes += [success, queued[1]]
            oldest = min(runs[-1].started_at if runs else self.now, declared.declared_at)
            found = self.transaction.execute(statements.COUNTED_HOURS, task | {"since": oldest})
            hours = (*found.scalars(), *([queued[0]] if queued[0] is not None else []))
        last_start = max(starts, default=None)
        has_all_starts = self.has_statistics and not expectation.labels
        return Facts(
            declared_at=declared.declared_at,
            checked_at=declared.checked_at,
            runs=tuple(runs),
            searched_from=searched_from,
            running=tuple(running),
            # Statistics would know a start whose row is gone.
            rows_from=None if has_all_starts and last_start is None else self.rows_from,
            last_start=last_start,
            last_success=max((each for each in successes if each is not None), default=None),
            counted=hours,
        )


def _runs(rows: Iterable[Any], expectation: Expectation) -> list[Run]:
    return [
        Run(*row[:-1])
        for row in rows
        if all((row[-1] or {}).get(name) == value for name, value in expectation.labels)
    ]


def _declaration(declared: DeclaredExpectation) -> Row:
    return {
        "name": declared.expectation.name,
        "task_identifier": declared.expectation.task_identifier,
        "definition": declared.expectation.to_dict(),
        "source": declared.source,
        "declared_at": declared.declared_at,
        "checked_at": declared.checked_at,
    }


def _readable(row: Any) -> DeclaredExpectation | None:
    """Return an expectation; `None` if it cannot be used here, such as with an unknown time zone.

    The others must still be checked.
    """
    try:
        return _declared(row)
    except InvalidInput as error:
        logger.warning("expectation %r is not checked: %s", row.name, error)
        return None


def _declared(row: Any) -> DeclaredExpectation:
    expectation = Expectation.of(row.definition)
    return DeclaredExpectation(expectation, row.source, row.declared_at, row.checked_at)


def _write_incidents(transaction: Transaction, open_: list[Incident], checked: Checked) -> None:
    known = {each.id for each in open_}
    for incident in changed_by(open_, checked):
        values = vars(incident) | {
            "slots": [slot.isoformat() for slot in incident.slots],
            "executions": [str(id_) for id_ in incident.executions],
            "problem": incident.problem.value,
        }
        if incident.id in known:
            transaction.execute(statements.CHANGE_INCIDENT, values | {"key": values.pop("id")})
        else:
            transaction.execute(statements.ADD_INCIDENT, values)


def _incident(row: Any) -> Incident:
    return Incident(
        id=row.id,
        expectation=row.expectation,
        task_identifier=row.task_identifier,
        problem=Problem(row.problem),
        summary=row.summary,
        slots=tuple(datetime.fromisoformat(slot) for slot in row.slots),
        executions=tuple(UUID(id_) for id_ in row.executions),
        opened_at=row.opened_at,
        seen_at=row.seen_at,
        closed_at=row.closed_at,
    )
