"""What the beginning of an id may stand for: executions, or jobs.

The index of the primary key finds executions in all of history. No index finds job ids by their
beginning, because a collation such as `en_US` does not sort texts by their beginnings. Hence only
the newest executions are searched for jobs, whose number bounds the time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select

from jobhistory.database.history import DatabaseHistory
from jobhistory.database.transaction import Purpose, Transaction
from jobhistory.schema import HistoryRecord

SEARCHED = 100_000
"""The number of executions, the newest, whose job ids are compared."""

_HEX = re.compile("[0-9a-f]{1,32}")


@dataclass(frozen=True)
class Job:
    """A job whose id has a beginning, with the task and the start of its newest execution."""

    id: str
    task_identifier: str
    last_start: datetime


@dataclass(frozen=True)
class Candidates:
    """What the beginning of an id may stand for, the newest first."""

    executions: list[HistoryRecord]
    jobs: list[Job]


def candidates(history: DatabaseHistory, beginning: str, most: int) -> Candidates:
    """Return the executions and the jobs whose ids begin with a text, at most so many of each.

    Executions are found in all of history, and jobs among the newest `SEARCHED` executions.
    """

    def read(transaction: Transaction) -> Candidates:
        return Candidates(
            _executions(transaction, beginning, most), _jobs(transaction, beginning, most)
        )

    return history.run(Purpose.READ, read)


def ids_with(beginning: str) -> tuple[UUID, UUID] | None:
    """Return the first and the last id with a beginning, with or without dashes; `None` if none."""
    digits = beginning.lower().replace("-", "")
    if not _HEX.fullmatch(digits):
        return None
    first, last = (UUID(digits.ljust(32, end)) for end in "0f")
    is_written_so = beginning.lower() in (digits, str(first)[: len(beginning)])
    return (first, last) if is_written_so else None


def _executions(transaction: Transaction, beginning: str, most: int) -> list[HistoryRecord]:
    ids = ids_with(beginning)
    if ids is None:
        return []
    has_beginning = HistoryRecord.id.between(*ids)
    newest_first = HistoryRecord.id.desc()
    return transaction.find(
        select(HistoryRecord).where(has_beginning).order_by(newest_first).limit(most)
    )


def _jobs(transaction: Transaction, beginning: str, most: int) -> list[Job]:
    newest = (
        select(HistoryRecord.job_id, HistoryRecord.task_identifier, HistoryRecord.started_at)
        .order_by(HistoryRecord.id.desc())
        .limit(SEARCHED)
        .subquery()
    )
    last_start = func.max(newest.c.started_at)
    statement = (
        select(newest.c.job_id, func.max(newest.c.task_identifier), last_start)
        # Not LIKE, which ignores case on SQLite.
        .where(func.substr(newest.c.job_id, 1, len(beginning)) == beginning)
        .group_by(newest.c.job_id)
        .order_by(last_start.desc())
        .limit(most)
    )
    return [Job(*row) for row in transaction.execute(statement)]
