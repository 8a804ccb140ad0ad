"""The SQL of pages, and of counts up to a cap.

A page reads about as many rows as it holds, because its statement leaves PostgreSQL's planner
nothing to choose. The conditions are two limits in the order of one index, which no other index
has. The planner knows neither these limits nor the size of the page (`unforeseen`), so it estimates
the same for all values, with and without statistics, in custom and in generic plans. By these
estimates, each plan that sorts costs more than twice as much as reading the index in order.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Select,
    Subquery,
    bindparam,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from jobhistory.database.functions import is_among, is_present, unforeseen
from jobhistory.database.layout import PLAIN, Layout
from jobhistory.database.statements.read import (
    NOT_NULL_IF,
    criteria_of,
    order_of,
    order_with_nulls_of,
    other_criteria_of,
    planned_records_of,
)
from jobhistory.execution.status import Status
from jobhistory.query.criteria import LARGEST_LIMIT, HistoryQuery, replace
from jobhistory.query.cursor import Cursor
from jobhistory.schema import HistoryRecord

Selected = Select[*tuple[Any, ...]]
Column = InstrumentedAttribute[Any]
Parameters = dict[str, Any]

# The criteria for which there is an index, those that fewest executions meet first.
_INDEXED = ("job_id", "correlation_id", "error_type", "task_identifier", "worker_id")

_MOST_PARTS = 20

_FIRST = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
_LAST = (datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))

_ONE: ColumnElement[int] = literal_column("1")


def records_of(
    query: HistoryQuery, after: Cursor | None = None, layout: Layout = PLAIN
) -> tuple[Select[HistoryRecord], Parameters]:
    """Return the statement for the records that meet the criteria, and its parameters.

    Args:
        after: the position after which the records start; `None` for the first ones.
        layout: that of the table. Citus does not take statements that choose the plan: it adds
            the limit and the order to what each shard executes.
    """
    values, parts = _parts(query, layout)
    if not parts:
        return planned_records_of(query, after), {}
    limits, parameters = _limits(query, after)
    return _records(parts, limits), parameters | values


def count_of(
    query: HistoryQuery, cap: int | None, layout: Layout = PLAIN
) -> tuple[Select[int], Parameters]:
    """Return the statement that counts up to one more than the cap, and its parameters."""
    if cap is None or cap == LARGEST_LIMIT:  # no limit can be one more
        found = select(func.count()).select_from(HistoryRecord).where(*criteria_of(query))
        return found, {}
    query = replace(query, limit=cap + 1)
    values, parts = _parts(query, layout)
    if not parts:
        matching = select(_ONE).select_from(HistoryRecord).where(*criteria_of(query))
        return select(func.count()).select_from(matching.limit(cap + 1).subquery()), {}
    limits, parameters = _limits(query, None)
    return _count(parts, limits), parameters | values


def reads_one_page(query: HistoryQuery) -> bool:
    """Return whether a page of the query reads about as many rows as it holds, in any history."""
    _, parts = _parts(query)
    return bool(parts) and not any(part.has_other_criteria for part in parts)


class _Limits(NamedTuple):
    """The operators of the limits of a page: of the first place, and of the last one."""

    first: str
    last: str


class _Part(NamedTuple):
    """The part of a query that one index contains in order, without the values of its limits.

    Attributes:
        number: a number that no other part of the query has, for the names of parameters.
        column: the first column of the index; `None` if it is `started_at`.
        only: the column that is not NULL in the rows of the index; `None` if it has all rows.
        others: the order, and the criteria that are not in the index.
    """

    number: int
    column: Column | None
    only: Column | None
    others: HistoryQuery

    def page(self, statement: Selected, limits: _Limits) -> Subquery:
        """Return the statement as a subquery, with the conditions, order and limit of a page."""
        leading = [] if self.column is None else [self.column]
        place = tuple_(*leading, HistoryRecord.started_at, HistoryRecord.id)
        conditions = [
            place.bool_op(limits.first)(self._place("first")),
            place.bool_op(limits.last)(self._place("last")),
            *([] if self.only is None else [is_present(self.only)]),
            *other_criteria_of(self.others),
        ]
        found = statement.where(*conditions).order_by(*self.order(HistoryRecord))
        return found.limit(unforeseen(bindparam("size", type_=BigInteger))).subquery()

    def places(self, limits: _Limits) -> Subquery:
        """Return the start and the id of the executions of a page."""
        columns = [HistoryRecord.started_at, HistoryRecord.id]
        if self.column is not None:
            columns.append(self.column)
        page = self.page(select(*columns), limits).c
        return self.limited(select(page.started_at, page.id), page).subquery()

    def limited(self, statement: Selected, page: Any) -> Selected:
        """Return the statement, which selects from a page, with its order and a known limit.

        The database computes no more because of them. But with the limit, PostgreSQL estimates
        what the page really costs. Otherwise it might compile its plan, which takes longer. And
        with the order, it plans the page without that limit.
        """
        return statement.order_by(*self.order(page)).limit(_known_size())

    def order(self, columns: Any) -> list[ColumnElement[Any]]:
        """Return the order of the index, or its reverse."""
        tells_apart = (self.column is None) != (self.only is None)  # as in the schema
        order = (order_with_nulls_of if tells_apart else order_of)(columns, self.others)
        if self.column is None:
            return order
        leading = getattr(columns, self.column.key)
        return [leading.asc() if self.others.order == "oldest" else leading.desc(), *order]

    @property
    def has_other_criteria(self) -> bool:
        """Whether there are criteria that the index does not answer."""
        others = replace(self.others, order=None)
        if self.only is not None and others.status and self._has_only(others.status):
            others = replace(others, status=None)
        return others != HistoryQuery(order=None, limit=None)

    def _has_only(self, status: tuple[Status, ...]) -> bool:
        return all(NOT_NULL_IF.get(each) is self.only for each in status)

    def _place(self, name: str) -> ColumnElement[Any]:
        moment = bindparam(f"{name}_moment", type_=HistoryRecord.started_at.type)
        id_ = bindparam(f"{name}_id", type_=HistoryRecord.id.type)
        if self.column is None:
            return unforeseen(moment, id_)
        return unforeseen(bindparam(f"value_{self.number}", type_=self.column.type), moment, id_)


def _parts(query: HistoryQuery, layout: Layout = PLAIN) -> tuple[Parameters, tuple[_Part, ...]]:
    """Return a query as parts of one index each, none if the planner should choose a plan.

    Before them, return the parameters for the values of their first columns.
    """
    is_planned = query.limit is None or query.order is None or query.status == (Status.STARTED,)
    if is_planned or layout.is_distributed:
        return {}, ()
    name = next((each for each in _INDEXED if getattr(query, each) is not None), None)
    others = replace(query, from_=None, to=None, limit=None)
    column, only, values = None, None, (None,)
    if name is not None:
        column, given = getattr(HistoryRecord, name), getattr(query, name)
        values = given if isinstance(given, tuple) else (given,)
        others = replace(others, **{name: None})
        only = column if name == "error_type" else None
    indexes = [(only, others)]
    if name in (None, "task_identifier"):  # which have indexes for each of these
        if query.status and NOT_NULL_IF.keys() >= set(query.status):
            indexes = [
                (NOT_NULL_IF[each], replace(others, status=(each,))) for each in query.status
            ]
        elif query.error_contains is not None:
            indexes = [(NOT_NULL_IF[Status.FAILED], others)]
    if len(values) * len(indexes) > _MOST_PARTS:
        return {}, ()
    parts = list(enumerate(product(values, indexes)))
    parameters = {} if column is None else {f"value_{n}": value for n, (value, _) in parts}
    return parameters, tuple(_Part(n, column, *index) for n, (_, index) in parts)


def _limits(query: HistoryQuery, after: Cursor | None) -> tuple[_Limits, Parameters]:
    """Return the limits of the page after a cursor, and the parameters for their values."""
    first = _FIRST if query.from_ is None else (query.from_, _FIRST[1])
    last = _LAST if query.to is None else (query.to, _LAST[1])
    limits = _Limits(">=", "<=")
    # One limit on each side. Of two, the database might start at the wider one.
    if after is not None:
        place = (after.started_at, after.id)
        if query.order == "oldest" and place >= first:
            first, limits = place, _Limits(">", "<=")
        elif query.order != "oldest" and place <= last:
            last, limits = place, _Limits(">=", "<")
    parameters: Parameters = {"size": query.limit, "known_size": query.limit}
    parameters["first_moment"], parameters["first_id"] = first
    parameters["last_moment"], parameters["last_id"] = last
    return limits, parameters


@lru_cache(maxsize=200)
def _records(parts: tuple[_Part, ...], limits: _Limits) -> Select[HistoryRecord]:
    # Built once, because that takes longer than all else that a page costs the processor.
    if len(parts) == 1:
        record = aliased(HistoryRecord, parts[0].page(select(HistoryRecord), limits))
        return parts[0].limited(select(record), record)
    # Only times and ids until the page is known: whole records are wide. SQLite allows an order in
    # a part of a union only within a subquery.
    each = [part.places(limits).c for part in parts]
    found = union_all(*(select(of.started_at, of.id) for of in each)).subquery().c
    query = parts[0].others
    ids = select(found.id).order_by(*order_of(found, query)).limit(_known_size())
    chosen = is_among(HistoryRecord.id, ids.scalar_subquery())
    return select(HistoryRecord).where(chosen).order_by(*order_of(HistoryRecord, query))


@lru_cache(maxsize=200)
def _count(parts: tuple[_Part, ...], limits: _Limits) -> Select[int]:
    found = union_all(*(select(_ONE).select_from(part.places(limits)) for part in parts))
    return select(func.count()).select_from(found.limit(_known_size()).subquery())


def _known_size() -> BindParameter[int]:
    """Return the size of a page, written into the SQL so that each plan knows it."""
    return bindparam("known_size", type_=BigInteger, literal_execute=True)
