"""The screen of `jobhistory incidents`: when a problem began, and how long it lasted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from jobhistory._runtime.durations import took
from jobhistory.cli.output import iso_text, one_line, print_tabbed
from jobhistory.cli.screens.cells import (
    counted,
    moment_cell,
    moment_column,
    name_column,
    number_column,
)
from jobhistory.cli.screens.checks import STYLES
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Row, Table
from jobhistory.expectations.incidents import Incident

_HEADINGS = ("OPENED (UTC)", "LASTED", "STATE", "TASK", "PROBLEM", "MISSED", "DETAILS")
_MILLISECOND = timedelta(milliseconds=1)


def print_incidents(screen: Screen, incidents: Sequence[Incident]) -> None:
    """Print a line for each incident, newest first."""
    if not screen.is_terminal:
        print_tabbed([_HEADINGS])
        print_tabbed(_texts(each, screen.now) for each in incidents)
        return
    if not incidents:
        screen.print("no incidents")
        return
    columns = [
        moment_column("OPENED", 70, (each.opened_at for each in incidents), screen),
        number_column("LASTED", 60),
        Column("STATE", 50),
        name_column("TASK", 90),
        Column("PROBLEM", 80),
        number_column("MISSED", 30),
        Column("DETAILS", moves_below=True),
    ]
    Table(columns, [_row(screen, each) for each in incidents]).without_empty().print(screen)
    number = sum(each.is_open for each in incidents)
    screen.print_note(f"{counted(len(incidents), 'incident')}, {number:,} open")


def _row(screen: Screen, incident: Incident) -> Row:
    style = STYLES[incident.problem.severity] if incident.is_open else "dim"
    return (
        moment_cell(incident.opened_at, screen),
        Cell(_lasted(incident, screen.now)),
        Cell(_state(incident), style),
        Cell(screen.text(incident.expectation)),
        Cell(incident.problem.words, style),
        Cell(str(len(incident.slots) or "")),
        Cell(screen.text(incident.summary)),
    )


def _state(incident: Incident) -> str:
    return "open" if incident.is_open else "closed"


def _lasted(incident: Incident, now: datetime) -> str:
    if incident.closed_at == incident.opened_at:  # it was over when a check found it
        return ""
    return took(((incident.closed_at or now) - incident.opened_at) // _MILLISECOND)


def _texts(incident: Incident, now: datetime) -> tuple[str, ...]:
    return (
        iso_text(incident.opened_at),
        _lasted(incident, now),
        _state(incident),
        one_line(incident.expectation),
        incident.problem.words,
        str(len(incident.slots)),
        one_line(incident.summary),
    )
