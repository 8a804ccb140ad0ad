"""The screen of `jobhistory replay`: one line per execution, and why it was refused."""

from __future__ import annotations

from collections.abc import Sequence

from jobhistory.cli.output import one_line, print_tabbed
from jobhistory.cli.screens.cells import id_column, name_column
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Table
from jobhistory.contrib.replayer import Replayed
from jobhistory.errors import NotReplayable

_HEADINGS = ("EXECUTION", "TASK", "JOB", "NEW JOB", "REFUSED")


def print_replays(screen: Screen, results: Sequence[Replayed | NotReplayable]) -> None:
    """Print one line per execution that was replayed or refused, aligned for a terminal."""
    columns = [
        id_column("EXECUTION", 50),
        name_column("TASK", 70),
        id_column("JOB", 60),
        id_column("NEW JOB", 80),
        Column("REFUSED", moves_below=True),
    ]
    styles = ("", "", "", "green", "red")
    rows = [
        [
            Cell(screen.characters(text), style)
            for text, style in zip(replay_cells(result), styles, strict=True)
        ]
        for result in results
    ]
    Table(columns, rows).print(screen)


def print_replay_headings() -> None:
    """Print the headings of `replay_cells` for a pipe."""
    print_tabbed([_HEADINGS])


def replay_cells(result: Replayed | NotReplayable) -> tuple[str, ...]:
    """Return the cells of one line: the execution, the new job, and why it was refused."""
    record = result.record
    new, reason = "-", ""
    if isinstance(result, NotReplayable):
        reason = one_line(result.reason)
    elif result.job_id is not None:
        new = one_line(result.job_id)
    return (str(record.id), one_line(record.task_identifier), one_line(record.job_id), new, reason)
