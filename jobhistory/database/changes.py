"""Reads of a database for those who follow it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, Protocol, TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy import Engine, Select, select

from jobhistory._runtime.wakers import WatchingWaker
from jobhistory.database.binds import READING
from jobhistory.database.deadlines import Deadline, current_deadline
from jobhistory.database.listener import PostgresListener
from jobhistory.database.statements.pages import records_of
from jobhistory.database.statements.read import criteria_of
from jobhistory.database.transaction import Purpose, Transaction
from jobhistory.execution.outcome import WORKER_LOST
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery, replace
from jobhistory.query.cursor import Cursor
from jobhistory.query.marks import Mark
from jobhistory.schema import HistoryRecord

T = TypeVar("T")
_Marks: TypeAlias = Select[*tuple[Any, ...]]

_MOST_RUNNING = 10_000
_MOST_SEARCHED = 10_000
_SECONDS = 30.0


class _History(Protocol):
    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T: ...

    def own_engine(self, route: dict[str, Any]) -> tuple[Engine, dict[str, Any]]: ...


class DatabaseChanges:
    """The changes of a history in a database. On an engine of the library, reads have a limit."""

    page_size = 1000

    def __init__(self, history: _History) -> None:
        self._history = history

    @property
    def is_interruptible(self) -> bool:
        """Whether a task that reads may be cancelled halfway."""
        return self._history.own_engine(READING)[0].dialect.name != "sqlite"

    def started_since(
        self, query: HistoryQuery, moment: datetime, after: Cursor | None
    ) -> list[Mark]:
        """Return a page of the executions that started then or later, the oldest first."""
        query = _within(query, moment)
        if _is_empty(query):
            return []
        query = replace(query, order="oldest", limit=self.page_size)

        def in_order(rows: Any) -> _Marks:
            return _marks_in(rows).order_by(rows.c.started_at, rows.c.id)

        return self._marks_of(query, in_order, after)

    def ended_since(self, query: HistoryQuery, moment: datetime) -> list[Mark]:
        """Return those among the newest executions that started before and ended after it."""
        if query.to is None or query.to > moment:
            query = replace(query, to=moment)
        if _is_empty(query):
            return []
        query = replace(query, order="newest", limit=_MOST_SEARCHED)
        return self._marks_of(
            query, lambda rows: _marks_in(rows).where(rows.c.completed_at >= moment)
        )

    def running(self, query: HistoryQuery, since: datetime) -> list[Mark]:
        """Return executions that have not ended, of those that started then or later."""
        query = replace(
            _within(query, since), status=(Status.STARTED,), order="oldest", limit=_MOST_RUNNING
        )
        if _is_empty(query):
            return []
        return self._marks_of(query, _marks_in)

    def marks_of(self, query: HistoryQuery, ids: Collection[UUID]) -> list[Mark]:
        """Return the executions with these ids that meet the criteria."""
        rows = select(HistoryRecord).where(HistoryRecord.id.in_(ids), *criteria_of(query))
        return self._run(lambda transaction: _marks(transaction, _marks_in(rows.subquery())))

    def records(self, query: HistoryQuery, ids: Collection[UUID]) -> list[HistoryRecord]:
        """Return the records with these ids that meet all criteria."""
        found = select(HistoryRecord).where(HistoryRecord.id.in_(ids), *criteria_of(query))
        return self._run(lambda transaction: transaction.find(found))

    def newest(self, query: HistoryQuery, number: int) -> list[HistoryRecord]:
        """Return the newest records that meet all criteria, the newest first."""
        query = replace(query, order="newest", limit=number)
        return self._run(lambda each: each.find(*records_of(query, layout=each.layout)))

    def listen(self, waker: WatchingWaker) -> PostgresListener | None:
        """Start to listen; return `None` if the database or a pooler does not allow it."""
        return PostgresListener.open(*self._history.own_engine(READING), waker)

    def _marks_of(
        self, query: HistoryQuery, choose: Callable[[Any], _Marks], after: Cursor | None = None
    ) -> list[Mark]:
        """Return what `choose` selects from the records that meet the criteria, a subquery."""

        def read(transaction: Transaction) -> list[Mark]:
            found, parameters = records_of(query, after, transaction.layout)
            return _marks(transaction, choose(found.subquery()), parameters)

        return self._run(read)

    def _run(self, read: Callable[[Transaction], T]) -> T:
        token = current_deadline.set(Deadline(_SECONDS))
        try:
            return self._history.run(Purpose.READ, read)
        finally:
            current_deadline.reset(token)


def _marks(
    transaction: Transaction, statement: _Marks, parameters: dict[str, Any] | None = None
) -> list[Mark]:
    rows = transaction.execute(statement, parameters)
    return [Mark(row[0], row[1], row[2], row[3], row[4] == WORKER_LOST) for row in rows]


def _marks_in(rows: Any) -> _Marks:
    """Return the statement for the marks of the records in a subquery."""
    names = ("id", "started_at", "status", "completed_at", "error_type")
    return select(*[rows.c[name] for name in names])


def _within(query: HistoryQuery, moment: datetime) -> HistoryQuery:
    if query.from_ is not None and query.from_ > moment:
        return query
    return replace(query, from_=moment)


def _is_empty(query: HistoryQuery) -> bool:
    return query.from_ is not None and query.to is not None and query.from_ > query.to
