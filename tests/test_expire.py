"""Expiry in batches, beside others who expire, lock and record."""

from __future__ import annotations

import itertools
import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, func, insert, select, text

from jobhistory import HistoryRecord, Job, Status, create_store
from jobhistory import store as store_module
from jobhistory.ids import new_execution_id

NOW = datetime(2015, 11, 1, tzinfo=UTC)


def fill(database, expired, kept=10):
    """Rows that expired 1, 2, 3, ... minutes ago, and some that have not."""
    rows = [
        {
            "id": new_execution_id(),
            "job_id": str(minutes),
            "correlation_id": "c",
            "task_identifier": "t",
            "worker_id": "w",
            "status": Status.COMPLETED,
            "attempt_number": 1,
            "started_at": NOW - timedelta(days=1, minutes=minutes),
            "expires_at": NOW - timedelta(minutes=minutes),
        }
        for minutes in [*range(1, expired + 1), *range(-kept, 0)]
    ]
    with database.engine.begin() as connection:
        connection.execute(insert(HistoryRecord.__table__), rows)


def remaining(database):
    with database.engine.connect() as connection:
        return {int(job) for job in connection.scalars(select(HistoryRecord.job_id))}


@pytest.fixture
def store(database):
    return create_store(database.engine, clock=lambda: NOW)


def test_it_deletes_oldest_first_in_batches_each_a_transaction_of_its_own(database, store):
    fill(database, expired=25)
    commits, seen, left = [], [], []
    event.listen(database.engine, "commit", lambda connection: commits.append(1))

    def progress(total):
        seen.append((total, len(commits)))
        left.append(max(remaining(database)))

    assert store.expire(batch_size=10, progress=progress) == 25
    assert seen == [(10, 1), (20, 2), (25, 3)]
    assert left == [15, 5, -1], "the oldest are gone first"
    assert remaining(database) == set(range(-10, 0))


def test_a_batch_is_exact_where_many_rows_expire_at_once(database, store):
    fill(database, expired=30)
    with database.engine.begin() as connection:
        connection.execute(
            HistoryRecord.__table__.update()
            .where(HistoryRecord.expires_at <= NOW)
            .values(expires_at=NOW)
        )
    seen = []

    assert store.expire(batch_size=7, progress=seen.append) == 30
    assert seen == [7, 14, 21, 28, 30]


def test_what_expires_while_it_runs_is_left_for_the_next_time(database):
    fill(database, expired=5)
    ticks = itertools.count()
    store = create_store(database.engine, clock=lambda: NOW + timedelta(minutes=next(ticks)))
    next(ticks)  # the store was made, and the cutoff is the next minute, and stays there

    cutoff = NOW + timedelta(minutes=2)
    assert store.expire(batch_size=1) == 7
    assert min(remaining(database)) == -10
    assert max(remaining(database)) == -3, f"expired after {cutoff}"


def test_it_stops_at_its_time_limit_after_one_batch_at_least_and_says_so(
    database, store, monkeypatch, caplog
):
    fill(database, expired=30)
    seconds = itertools.count(step=10)
    monkeypatch.setattr(store_module, "monotonic", lambda: next(seconds))

    with caplog.at_level(logging.WARNING, "jobhistory"):
        assert store.expire(batch_size=5, time_limit="15 s") == 10
    assert "time limit of 0:00:15" in caplog.text
    assert store.expire(batch_size=5, time_limit="1 s") == 5
    caplog.clear()
    assert store.expire(batch_size=100, time_limit="1 s") == 15
    assert caplog.text == ""


def test_a_dry_run_counts_and_deletes_nothing(database, store):
    fill(database, expired=25)

    assert store.expire(dry_run=True, batch_size=10) == 25
    assert len(remaining(database)) == 35


def test_batches_that_were_made_stay_so_when_a_later_one_fails(database, store):
    fill(database, expired=25)

    def fail(total):
        if total == 20:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError):
        store.expire(batch_size=10, progress=fail)
    assert len(remaining(database)) == 15


def test_several_at_once_share_the_work(database):
    fill(database, expired=2000)
    counts, failures = [], []

    def expire():
        try:
            store = create_store(database.engine, clock=lambda: NOW)
            counts.append(store.expire(batch_size=50))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=expire) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert sum(counts) == 2000
    assert remaining(database) == set(range(-10, 0))


def test_a_locked_row_is_skipped_and_goes_the_next_time(postgres_database):
    fill(postgres_database, expired=25)
    store = create_store(postgres_database.engine, clock=lambda: NOW)
    with postgres_database.engine.connect() as other:
        other.execute(text("SET lock_timeout = '1s'"))
        other.execute(text("SELECT 1 FROM job_history WHERE job_id IN ('3', '20') FOR UPDATE"))
        assert store.expire(batch_size=10) == 23
        assert remaining(postgres_database) == {3, 20, *range(-10, 0)}
    assert store.expire() == 2


def test_recorders_are_not_blocked_by_a_batch_that_is_not_yet_committed(postgres_database):
    """Held open at its widest, an expiry stands in nobody's way."""
    engine = postgres_database.engine
    fill(postgres_database, expired=25)
    recorder = create_store(
        engine.execution_options(), clock=lambda: NOW, history_retention="1 day"
    )
    recorder.record_start(Job("running", "t"), "w", "c")
    with engine.connect() as expirer:
        from jobhistory import statements

        expirer.execute(
            statements.DELETE_EXPIRED_AT_ONCE["postgresql"],
            {"cutoff": NOW, "low_water": statements.LONG_AGO, "batch_size": 100},
        )
        event.listen(
            engine, "begin", lambda connection: connection.exec_driver_sql("SET lock_timeout='1s'")
        )
        recorder.record_start(Job("new", "t"), "w", "c")
        assert recorder.record_completion("running", "w", "c", 1).status == "completed"
        assert len(recorder.query()) == 37
        expirer.commit()
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(HistoryRecord)) == 12


def test_expire_goes_on_after_a_batch_from_which_a_row_got_away(database, monkeypatch):
    """Somebody was updating it at that moment: fewer rows went than the batch had found."""
    store = create_store(database.engine, clock=lambda: NOW)
    batches = iter([(2, 3, NOW), (3, 3, NOW), (1, 1, NOW)])
    monkeypatch.setattr(store._history, "delete_expired", lambda *_: next(batches))

    assert store.expire(batch_size=3) == 6
