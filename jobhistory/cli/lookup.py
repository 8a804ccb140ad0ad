"""Find the executions that an id stands for, or the beginning of an id."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import NoReturn, cast
from uuid import UUID

import typer

from jobhistory.cli import output
from jobhistory.cli.output import iso_text, one_line
from jobhistory.database.beginnings import SEARCHED, Candidates, candidates
from jobhistory.database.history import DatabaseHistory
from jobhistory.errors import quoted
from jobhistory.execution.ids import id_text
from jobhistory.schema import HistoryRecord
from jobhistory.store import HistoryStore

_MOST = 10
"""The number of candidates of each kind that are listed."""


def executions_named(store: HistoryStore, text: str) -> list[HistoryRecord]:
    """Return the executions of a job, or the one with an execution id; both may be abbreviated.

    A job with exactly this id comes before all others. The program ends with status 1 if there is
    none, or if the beginning of an id stands for several; they are listed on standard error.

    Raises:
        InvalidInput: if the text can be no id.
    """
    if records := store.get_by_job_id(id_text(text, "ID")):
        return records
    with suppress(ValueError):
        record = store.get(UUID(text))
        if record is not None:
            return [record]
    history = cast("DatabaseHistory", store.internals.history)
    found = candidates(history, text, _MOST + 1)
    jobs = {each.id for each in found.jobs}
    others = [each for each in found.executions if each.job_id not in jobs]
    if len(jobs) + len(others) > 1:
        _fail_ambiguous(text, found)
    if jobs:
        return store.get_by_job_id(jobs.pop())
    if not found.executions:
        output.fail(
            f"no execution has the id {quoted(text)}, and no job; as the beginning of an id, it "
            f"fits no execution, and no job among the newest {SEARCHED:,} executions"
        )
    return found.executions


def _fail_ambiguous(text: str, found: Candidates) -> NoReturn:
    output.say(f"{quoted(text)} is the beginning of several ids; give more of one:")
    lines = [
        (str(each.id), "execution", each.task_identifier, each.started_at)
        for each in found.executions
    ] + [(each.id, "job", each.task_identifier, each.last_start) for each in found.jobs]
    for id_, kind, task, start in lines[:_MOST]:
        line = "  ".join([one_line(id_), kind, one_line(task), iso_text(start)])
        print(f"  {line}", file=sys.stderr)
    if len(lines) > _MOST:
        print("  and more", file=sys.stderr)
    raise typer.Exit(1)
