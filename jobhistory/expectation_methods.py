"""The methods of stores that declare expectations, check them, and read incidents."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Protocol, Unpack

from sqlalchemy.exc import DBAPIError

from jobhistory._runtime.clock import in_utc
from jobhistory.database.driver_errors import is_denied
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.ids import name_text
from jobhistory.execution.rows import RowBuilder
from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.facts import Facts, Run
from jobhistory.expectations.incidents import Incident
from jobhistory.expectations.inference import MOST_STARTS, Suggestion, infer
from jobhistory.expectations.judging import judge
from jobhistory.expectations.metrics import families_of
from jobhistory.expectations.schedule import read_timezone
from jobhistory.expectations.verdicts import Checked, Problem
from jobhistory.query.incidents import IncidentQuery
from jobhistory.statistics.prometheus import Family
from jobhistory.typing import ExpectationFields


class _History(Protocol):
    def declare_expectation(self, wanted: DeclaredExpectation) -> bool: ...

    def declared_expectations(self) -> list[DeclaredExpectation]: ...

    def forget_expectation(self, name: str, now: datetime) -> bool: ...

    def fold_first(self, now: datetime) -> None: ...

    def facts(self, declared: Iterable[DeclaredExpectation], now: datetime) -> list[Facts]: ...

    def newest_runs(self, tasks: Iterable[str] | None, most: int) -> dict[str, list[Run]]: ...

    def write_checks(self, checks: list[tuple[DeclaredExpectation, Checked]]) -> None: ...

    def incidents(self, query: IncidentQuery) -> list[Incident]: ...


class ExpectationMethods:
    """Declares what should be true of tasks, and checks whether it is.

    Args:
        expected_in: the history.
    """

    def __init__(self, rows: RowBuilder, expected_in: _History) -> None:
        self._rows = rows
        self._expected_in = expected_in

    def expect(
        self,
        expectation: Expectation | str,
        *,
        source: str | None = None,
        **fields: Unpack[ExpectationFields],
    ) -> Expectation:
        """Declare what should be true of a task, and return it.

        It replaces the expectation with the same task and labels, if there is one. Declaring the
        same again changes nothing, so an app can do it at each start. Nothing is expected before it
        is declared, or after its schedule has changed.

        Args:
            expectation: an `Expectation`, or the name of a task, with the arguments of
                `Expectation` by name: `store.expect("nightly", cron="17 2 * * *", grace="15m")`.
            source: where it was imported from, such as `"crontab:/etc/crontab"`.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        if isinstance(expectation, str):
            expectation = Expectation(expectation, **fields)
        elif not isinstance(expectation, Expectation) or fields:
            raise InvalidInput(
                "expectation",
                expectation,
                "is neither an Expectation alone nor the name of a task; write it like "
                "store.expect('nightly', every='1d')",
            )
        source = None if source is None else name_text(source, "source")
        self._expected_in.declare_expectation(
            DeclaredExpectation(expectation, source, self._rows.now())
        )
        return expectation

    def expectations(self) -> list[DeclaredExpectation]:
        """Return the declared expectations, ordered by name."""
        return self._expected_in.declared_expectations()

    def remove_expectation(self, name: str) -> bool:
        """Remove an expectation, and return whether there was one.

        Its open incidents are closed, without an alert.

        Args:
            name: its `name`: the task, followed by its labels in braces if it has any.

        Raises:
            InvalidInput: if the name is not a text.
        """
        return self._expected_in.forget_expectation(name_text(name, "name"), self._rows.now())

    def check(
        self, task_identifier: str | Collection[str] | None = None, *, dry_run: bool = False
    ) -> list[Checked]:
        """Return whether each expectation is met, with verdicts that name the evidence.

        It opens an incident for each new verdict, and closes those of verdicts that no longer hold.
        What happened since the last check counts, so a start that was missed in between is found,
        however often the check runs. Several checkers can run at the same time: the first one
        writes. Send alerts with `send_alerts`.

        For each expectation, it reads at most the newest 1,100 executions of the task, by an index:
        the newest 100, those in which a slot was due since the last check, and the newest 1,000 if
        running ones or a success must be found. So an execution that hangs is found unless 1,000
        others of its task have started since. First, it folds statistics, as `expire` does.

        Args:
            task_identifier: the tasks to check; `None` for all.
            dry_run: whether to write nothing.

        Returns:
            One item for each expectation, ordered by name, also if all is well.

        Raises:
            InvalidInput: if a name of a task cannot be used.
        """
        tasks = _names(task_identifier)
        now = self._rows.now()
        declared = [
            each
            for each in self._expected_in.declared_expectations()
            if tasks is None or each.expectation.task_identifier in tasks
        ]
        if declared and not dry_run:
            self._expected_in.fold_first(now)
        checks = self._judged(declared, now)
        if checks and not dry_run:
            self._expected_in.write_checks(checks)
        return [checked for _, checked in checks]

    def _judged(
        self, declared: list[DeclaredExpectation], now: datetime
    ) -> list[tuple[DeclaredExpectation, Checked]]:
        """Return what a check finds, without writing."""
        facts = self._expected_in.facts(declared, now) if declared else []
        return [
            (each, judge(each.expectation, known, now))
            for each, known in zip(declared, facts, strict=True)
        ]

    def _expectation_metrics(self, most: int) -> list[Family]:
        """Return the metrics of expectations; none if this role may not read any."""
        try:
            declared = self._expected_in.declared_expectations()
        except DBAPIError as error:
            if is_denied(error):
                return []
            raise
        checks = [checked for _, checked in self._judged(declared, self._rows.now())]
        known = [each.checked_at for each in declared if each.checked_at is not None]
        return families_of(checks, max(known, default=None), most)

    def suggest_expectations(
        self,
        task_identifier: str | Collection[str] | None = None,
        *,
        from_: datetime | None = None,
        timezone: str = "UTC",
    ) -> list[Suggestion]:
        """Return what history suggests to expect of each task, ordered by name; declare nothing.

        A suggestion needs seven starts, and is based on the newest 5,000 executions of a task at
        most. It consists of a schedule, if one explains the starts; of the longest time without a
        success, if they are irregular but never far apart; or of nothing. Outages, and runs that
        somebody starts by hand, are not part of it.

        Args:
            task_identifier: the tasks; `None` for all that have ended.
            from_: executions that started before are left out.
            timezone: the time zone that schedules are likely to follow. UTC is tried as well.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        timezone = read_timezone(timezone, "timezone")
        from_ = None if from_ is None else in_utc(from_, "from_")
        now = self._rows.now()
        expected = {each.expectation.task_identifier for each in self.expectations()}
        found = self._expected_in.newest_runs(_names(task_identifier), MOST_STARTS)
        suggestions = []
        for task, runs in sorted(found.items()):
            if task in expected:
                suggestions.append(Suggestion(task, None, "has an expectation"))
                continue
            known = [run for run in runs if from_ is None or run.started_at >= from_]
            suggestions.append(infer(task, known, now, timezone))
        return suggestions

    def incidents(
        self,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        task_identifier: str | Collection[str] | None = None,
        problem: str | Collection[str] | None = None,
        only_open: bool = False,
        limit: int | None = 100,
    ) -> list[Incident]:
        """Return the incidents that were open at some time in a window, newest first.

        Args:
            from_, to: the window, both ends included; `None` for no limit.
            task_identifier: the tasks; `None` for all.
            problem: the problems, such as `"missed"`; `None` for all.
            only_open: whether to leave out incidents that are closed.
            limit: the maximum number of incidents; `None` for no limit.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        if limit is not None:
            check_count(limit, "limit")
        return self._expected_in.incidents(
            IncidentQuery(
                None if from_ is None else in_utc(from_, "from_"),
                None if to is None else in_utc(to, "to"),
                _names(task_identifier),
                _problems(problem),
                only_open,
                limit,
            )
        )


def _names(value: str | Collection[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    return tuple(name_text(each, "task_identifier") for each in names)


def _problems(value: str | Collection[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    problems = (value,) if isinstance(value, str) else tuple(value)
    for problem in problems:
        if problem not in list(Problem):
            known = ", ".join(Problem)
            raise InvalidInput("problem", problem, f"is not a problem; use one of {known}")
    return problems
