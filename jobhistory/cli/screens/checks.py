"""The screen of `jobhistory check`: what is wrong with which task, the worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from jobhistory._runtime.ages import relative, relative_in_words
from jobhistory._runtime.plain_json import plain_json
from jobhistory.cli.screens.cells import counted, name_column
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Row, Table
from jobhistory.expectations.incidents import Incident
from jobhistory.expectations.verdicts import Checked, Severity, Verdict

STYLES = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.CRITICAL: "bold red"}
_LEAST = 10


class Finding(NamedTuple):
    """A verdict on an expectation, or that all is well; and since when."""

    checked: Checked
    verdict: Verdict | None
    since: datetime | None

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return Severity.OK if self.verdict is None else self.verdict.severity

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        expectation, verdict = self.checked.expectation, self.verdict
        found = Verdict.to_dict(verdict) if verdict is not None else _NOTHING
        shared = self.checked.to_dict()
        del shared["verdicts"]
        return {
            **shared,
            **found,
            "since": plain_json(self.since),
            "owner": expectation.owner,
            "runbook": expectation.runbook,
        }


_NOTHING: Mapping[str, Any] = {
    "problem": None,
    "severity": Severity.OK.value,
    "summary": None,
    "slots": [],
    "executions": [],
    "is_over": False,
}


def findings(
    checks: Sequence[Checked], open_: Sequence[Incident], *, with_fine: bool
) -> list[Finding]:
    """Return the verdicts of all expectations, the worst first, each with its beginning.

    Args:
        open_: the open incidents.
        with_fine: whether those of which nothing is wrong have a finding, too.
    """
    since = {(each.expectation, each.problem): each.opened_at for each in open_}
    found = [
        Finding(checked, verdict, since.get((checked.expectation.name, verdict.problem)))
        for checked in checks
        for verdict in checked.verdicts
    ]
    if with_fine:
        found += [Finding(checked, None, None) for checked in checks if not checked.verdicts]
    return sorted(found, key=lambda each: -each.severity.exit_status)


def print_checks(screen: Screen, checks: Sequence[Checked], found: Sequence[Finding]) -> None:
    """Print a line for each finding, and how many tasks have problems."""
    if found:
        _table(screen, found).print(screen)
    bad = sum(each.severity is not Severity.OK for each in checks)
    paused = sum(each.is_paused for each in checks)
    tasks = counted(len(checks), "task")
    note = f"{bad:,} of {tasks} with problems" if bad else f"{tasks} as expected"
    screen.print_note(f"{note}, {paused:,} of them paused" if paused else note)


def _table(screen: Screen, found: Sequence[Finding]) -> Table:
    columns = [
        name_column("TASK", 90),
        Column("STATE", 80),
        Column("SINCE", 60),
        Column("NEXT", 50),
        Column("OWNER", 40, least=_LEAST, most=30),
        Column("RUNBOOK", 20, least=_LEAST, most=60),
        Column("DETAILS", moves_below=True),
    ]
    return Table(columns, [_row(screen, each) for each in found]).without_empty()


def _row(screen: Screen, finding: Finding) -> Row:
    checked, verdict, since = finding
    expectation = checked.expectation
    return (
        Cell(screen.text(expectation.name)),
        Cell(_state(finding), STYLES[finding.severity]),
        Cell("" if since is None else relative_in_words(since, screen.now), "dim"),
        next_cell(checked, screen),
        Cell(screen.text(expectation.owner or "")),
        Cell(screen.text(expectation.runbook or ""), "dim"),
        Cell("" if verdict is None else screen.text(verdict.summary)),
    )


def _state(finding: Finding) -> str:
    if finding.verdict is None:
        return "paused" if finding.checked.is_paused else "ok"
    words = finding.verdict.problem.words
    return f"{words}, over" if finding.verdict.is_over else words


def next_cell(checked: Checked, screen: Screen) -> Cell:
    """Return when the task should start next, in words."""
    slot = checked.next_slot
    if slot is None:
        return Cell("")
    if slot <= screen.now:
        return Cell("due")
    return Cell(relative_in_words(slot, screen.now), "", (relative(slot, screen.now),))
