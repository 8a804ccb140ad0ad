"""Statistics and counts from rollups, which also know executions whose rows are gone."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from functools import partial

from sqlalchemy import ColumnElement, and_, cast, func, select
from sqlalchemy.dialects.postgresql import REGCLASS

from jobhistory.database.layout import HAS_CITUS, read_again
from jobhistory.database.marks import read_marks
from jobhistory.database.revision import quoted_table
from jobhistory.database.statements.rollups import (
    ENDED_EVER,
    RUNNING,
    add_row,
    any_unstored,
    executions_of,
    statistics_of,
)
from jobhistory.database.transaction import Transaction
from jobhistory.errors import StatisticsDenied
from jobhistory.query.reports import TaskStats
from jobhistory.query.rollups import Key, Question, count_of, is_of_known, stats_of
from jobhistory.rollup_schema import ROLLUP_TABLES, STATE
from jobhistory.schema import TABLE_NAME
from jobhistory.statistics.cover import Cover
from jobhistory.statistics.ever import TaskMeasures
from jobhistory.statistics.measures import Measures


def stats(transaction: Transaction, question: Question) -> list[TaskStats] | None:
    """Return the statistics of each task and bucket; `None` if only rows can answer."""
    if not is_of_known(question.query) or not _can_answer(transaction, question):
        return None
    seconds = None if question.bucket is None else question.bucket // timedelta(seconds=1)

    def read(cover: Cover) -> dict[Key, Measures]:
        statement = statistics_of(question.query, cover, seconds)
        found: defaultdict[Key, Measures] = defaultdict(Measures)
        for task, bucket, *row in transaction.execute(statement):
            add_row(found[question.key_of(task, bucket)], row)
        return found

    return stats_of(
        question, read_marks(transaction), read, partial(_holds_unstored, transaction, question)
    )


def count(transaction: Transaction, question: Question) -> int | None:
    """Return the number of executions, deleted ones included; `None` if only rows can answer."""
    if not _can_answer(transaction, question):
        return None

    def read(cover: Cover) -> int:
        counted: int = transaction.execute(executions_of(question.query, cover)).scalar_one()
        return counted

    return count_of(
        question, read_marks(transaction), read, partial(_holds_unstored, transaction, question)
    )


def measures(transaction: Transaction) -> dict[str, TaskMeasures]:
    """Return the measures of all executions, deleted ones included, by task.

    Raises:
        StatisticsDenied: if the role may not read statistics of everything.
    """
    if not are_readable(transaction):
        raise StatisticsDenied(is_distributed=transaction.layout.is_distributed)
    found: defaultdict[str, TaskMeasures] = defaultdict(TaskMeasures)
    for task, bucket, *row in transaction.execute(ENDED_EVER):
        found[task].see_start(bucket)
        add_row(found[task].ended, row)
    for task, number, first, last in transaction.execute(RUNNING):
        found[task].add_running(number, first, last)
    return found


def _can_answer(transaction: Transaction, question: Question) -> bool:
    return question.may_be_covered and are_readable(transaction)


def _holds_unstored(transaction: Transaction, question: Question, cover: Cover) -> bool:
    return bool(transaction.execute(any_unstored(question.query, cover)).scalar_one())


def are_readable(transaction: Transaction) -> bool:
    """Return whether the role may read statistics of everything.

    They know nothing of row-level security. The server is asked each time, because the role of a
    connection can change with each transaction. No statistics are kept where Citus distributes the
    table, because it does not execute triggers there.
    """
    if transaction.dialect != "postgresql":
        return True
    if transaction.layout.is_distributed:
        return False
    history = quoted_table(transaction.connection, transaction.schema)
    readable = [_may_select(history, table.name) for table in ROLLUP_TABLES]
    is_limited = func.row_security_active(cast(history, REGCLASS))
    asked = select(and_(*readable, ~is_limited), HAS_CITUS)
    is_readable, has_citus = transaction.execute(asked).one()
    if is_readable and has_citus:
        # Citus may have distributed the table since the layout was read. No error would say so.
        return not read_again(transaction.connection, transaction.schema).is_distributed
    return bool(is_readable)


def marks_are_readable(transaction: Transaction) -> bool:
    """Return whether the role may read which rows are deleted, also without statistics."""
    if transaction.dialect != "postgresql":
        return True
    history = quoted_table(transaction.connection, transaction.schema)
    return bool(transaction.execute(select(_may_select(history, STATE.name))).scalar_one())


def _may_select(history: str, name: str) -> ColumnElement[bool]:
    return func.has_table_privilege(cast(_sibling(history, name), REGCLASS), "SELECT")


def _sibling(history: str, name: str) -> str:
    return history.removesuffix(TABLE_NAME) + name
