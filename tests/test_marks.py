"""The mark up to which rows may have been deleted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from jobhistory import create_store
from jobhistory.database.marks import DeletedRows, move_mark, read_marks
from jobhistory.database.transaction import Purpose
from jobhistory.rollup_schema import STATE
from tests.test_fold import EXECUTION

START = datetime(2015, 11, 1, 2, 20, tzinfo=UTC)


def marks(store):
    return store.internals.history.run(Purpose.READ, read_marks)


def record(store, *hours, **values):
    for each in hours:
        started_at = START + timedelta(hours=each)
        store.record_execution(EXECUTION | {"started_at": started_at} | values)


@pytest.mark.parametrize("delete", ["expire", "purge"])
@pytest.mark.parametrize("batch_size", [1, 2000])
def test_deleting_rows_moves_the_mark_past_their_hours(database, clock, delete, batch_size):
    store = create_store(database.engine, history_retention="1h", clock=clock)
    record(store, 0, 3, 1)
    record(store, 9, expires_at=None, task_identifier="kept")
    clock.advance(days=1)
    assert marks(store).rows_from is None
    if delete == "expire":
        assert store.expire(batch_size=batch_size) == 3
    else:
        assert store.purge(task_identifier="import", batch_size=batch_size) == 3
    assert marks(store).rows_from == datetime(2015, 11, 1, 6, tzinfo=UTC)
    store.purge(task_identifier="kept")
    assert marks(store).rows_from == datetime(2015, 11, 1, 12, tzinfo=UTC)


def test_a_mark_never_moves_back(database, database_store):
    at = datetime(2026, 11, 3, tzinfo=UTC)
    history = database_store.internals.history
    for hours in (5, 3, 7, 7, 6):
        history.run(
            Purpose.MAINTAIN_AS_ONE,
            lambda each, hours=hours: move_mark(each, "rows_from", at + timedelta(hours=hours)),
        )
    assert marks(database_store).rows_from == at + timedelta(hours=7)


def test_simultaneous_moves_leave_the_latest(database, database_store):
    at = datetime(2026, 11, 3, tzinfo=UTC)
    history = database_store.internals.history

    def move(hours):
        history.run(
            Purpose.MAINTAIN_AS_ONE,
            lambda each: move_mark(each, "rows_from", at + timedelta(hours=hours)),
        )

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(move, range(12)))
    assert marks(database_store).rows_from == at + timedelta(hours=11)
    with database.engine.connect() as connection:
        assert len(connection.execute(select(STATE)).all()) == 1


def test_rows_of_the_last_hour_can_be_purged(database, database_store):
    last = datetime(9999, 12, 31, 23, 30, tzinfo=UTC)
    for _ in range(2):
        database_store.record_execution(EXECUTION | {"started_at": last, "expires_at": None})
        assert database_store.purge(task_identifier="import") == 1
    assert marks(database_store).rows_from == last.replace(minute=0)


def test_a_mark_that_was_rolled_back_is_not_remembered(database, database_store):
    history, deleted = database_store.internals.history, DeletedRows()

    def fail(transaction):
        deleted.note(transaction, START)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        history.run(Purpose.MAINTAIN_AS_ONE, fail)
    for newest in (None, START):  # a batch that deletes nothing, and one that does
        history.run(Purpose.MAINTAIN_AS_ONE, lambda each, newest=newest: deleted.note(each, newest))
        deleted.keep()
    assert marks(database_store).rows_from == datetime(2015, 11, 1, 3, tzinfo=UTC)
