"""Expiry by partitions against a model: random histories and random clocks."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, text

from jobhistory import HistoryRecord
from jobhistory.database.marks import read_marks
from jobhistory.database.transaction import Purpose
from tests.test_partition_expiry import (  # the fixtures, too
    DAY,
    HOUR,
    WEEK,
    engine,
    layout,
    leaves,
    partition,
    pauses,
    row,
    store_at,
    week,
)

__all__ = ["engine", "layout", "pauses"]

# Few values, so that rows often expire at the moment of a call, at the end of a partition, or
# within the length of a partition before or after.
STARTS = st.sampled_from([-100, 0, 1, 30, 100, 167, 168, 200, 300, 400, 700]).map(
    lambda hours: week(0) + hours * HOUR
)
KEPT = st.sampled_from([None, HOUR, 3 * DAY, 6 * DAY, WEEK, 10 * DAY, 20 * DAY])
HISTORIES = st.lists(st.tuples(STARTS, st.sampled_from([1, 2, 30]), KEPT), max_size=6)
STEPS = st.sampled_from([0, 1, 24, 72, 168]).map(lambda hours: hours * HOUR)
CALLS = st.lists(
    st.tuples(STEPS, st.sampled_from([True, True, True, False]), HISTORIES), min_size=4, max_size=9
)


def rows_of(history):
    """So many rows for each item, a second apart, which are kept for as long."""
    return [
        row(start + n * timedelta(seconds=1), None if kept is None else start + kept)
        for start, count, kept in history
        for n in range(count)
    ]


def ids(engine):
    with engine.connect() as connection:
        return {*connection.scalars(select(HistoryRecord.id))}


def accept_every_id(engine, moment):
    """Insert an execution of each time, and take it back."""
    probes = [row(moment + n * WEEK / 2, None) for n in range(-14, 15)]
    with engine.connect() as connection:
        connection.execute(insert(HistoryRecord.__table__), probes)
        connection.rollback()


@given(calls=CALLS)
@settings(max_examples=8)
def test_rows_are_deleted_when_they_are_due_and_at_most_one_partition_later(engine, calls):
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA weekly CASCADE"))
        connection.execute(text("CREATE SCHEMA weekly"))
        partition(connection)
    now, due = week(0), {}
    for step, by_partition, history in calls:
        added = rows_of(history)
        with engine.begin() as connection:
            if added:
                connection.execute(insert(HistoryRecord.__table__), added)
        due |= {each["id"]: (each["expires_at"], each["started_at"]) for each in added}
        now += step
        store = store_at(engine, now)

        before = ids(engine)
        promised = store.expire(by_partition=by_partition, dry_run=True)
        waiting = store.waiting_for_partition()
        deleted = store.expire(by_partition=by_partition)
        left = ids(engine)

        assert promised == deleted == len(before - left)
        gone = [due[each] for each in before - left]
        assert all(expires_at is not None and expires_at <= now for expires_at, _ in gone)
        overdue = [
            due[each][0] for each in left if due[each][0] is not None and due[each][0] <= now
        ]
        if not by_partition:
            assert not overdue
        else:
            assert len(overdue) == waiting.count
            assert all(now < expires_at + WEEK for expires_at in overdue)
        marks = store.internals.history.run(Purpose.READ, read_marks)
        assert all(started_at < marks.rows_from for _, started_at in gone)
        leaves(engine)
        accept_every_id(engine, now)
    assert store_at(engine, now + 30 * DAY).expire(by_partition=True) >= 0
