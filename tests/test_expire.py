"""Expiry in batches, beside others who expire, lock and record."""

from __future__ import annotations

import itertools
import logging
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, event, func, insert, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from jobhistory import HistoryRecord, Job, Status, create_async_store, create_store
from jobhistory._runtime import batches as batches_module
from jobhistory.database import expiry
from jobhistory.database.statements import expire as maintenance
from jobhistory.execution.ids import new_execution_id
from tests.facades import Synchronous

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
    first = seen[0][1]
    assert seen == [(10, first), (20, first + 1), (25, first + 2)]
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
    monkeypatch.setattr(batches_module, "monotonic", lambda: next(seconds))

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


@pytest.mark.parametrize("isolation_level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_several_at_once_share_the_work_at_any_isolation_level(postgres_database, isolation_level):
    engine = postgres_database.engine.execution_options(isolation_level=isolation_level)
    fill(postgres_database, expired=1000)
    counts, failures = [], []

    def expire():
        try:
            counts.append(create_store(engine, clock=lambda: NOW).expire(batch_size=20))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=expire) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert sum(counts) == 1000
    assert remaining(postgres_database) == set(range(-10, 0))


def test_a_batch_is_repeated_if_somebody_changes_one_of_its_rows(postgres_database):
    """Its snapshot is older than the change, which under READ COMMITTED it would just see."""
    engine = postgres_database.engine.execution_options(isolation_level="REPEATABLE READ")
    fill(postgres_database, expired=25)
    interfere = [None]

    @event.listens_for(engine, "before_cursor_execute")
    def change(connection, cursor, statement, *_):
        if "expired_batch" in statement and interfere:
            interfere.clear()
            cursor.execute("SELECT 1")  # which takes the snapshot
            with postgres_database.engine.begin() as other:
                other.execute(text("UPDATE job_history SET worker_id = 'x' WHERE job_id = '20'"))

    store = create_store(engine, clock=lambda: NOW)
    assert store.expire(batch_size=10) == 25


def test_a_clock_that_is_ahead_expires_nothing_that_lives(database):
    """The server's clock decides, and SQLite's is this machine's."""
    now = datetime.now(UTC)
    create_store(database.engine).record_start(Job("live", "t"), "w", "c")
    due = create_store(database.engine, clock=lambda: now - timedelta(days=31))
    due.record_start(Job("due", "t"), "w", "c")

    ahead = create_store(database.engine, clock=lambda: now + timedelta(days=40))
    assert ahead.expire(dry_run=True) == 1
    assert ahead.expire() == 1
    assert [record.job_id for record in ahead.query()] == ["live"]


def test_a_clock_that_is_behind_expires_what_it_takes_for_expired(database):
    fill(database, expired=25)
    behind = create_store(database.engine, clock=lambda: NOW - timedelta(minutes=20))

    assert behind.expire(dry_run=True) == 6
    assert behind.expire() == 6


def test_a_clock_that_is_ahead_takes_no_execution_for_lost(database):
    now = datetime.now(UTC)
    create_store(database.engine).record_start(Job("live", "t"), "w", "c")
    lost = create_store(database.engine, clock=lambda: now - timedelta(days=2))
    lost.record_start(Job("lost", "t"), "w", "c")

    ahead = create_store(database.engine, clock=lambda: now + timedelta(days=40))
    assert ahead.reap_lost("1 day") == 1
    (record,) = ahead.query(status="failed")
    assert record.job_id == "lost"
    assert record.completed_at - now < timedelta(minutes=5)


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_expiry_works_with_every_driver(postgres_database, driver, event_loop_thread, caplog):
    database = postgres_database
    fill(database, expired=25)
    url = database.url.set(drivername=f"postgresql+{driver}")
    with ExitStack() as stack:
        if driver == "asyncpg":
            engine = create_async_engine(url)
            stack.callback(lambda: event_loop_thread.run(engine.dispose()))
            async_store = create_async_store(engine, clock=lambda: NOW)
            store = Synchronous(async_store, event_loop_thread)
        else:
            engine = create_engine(url)
            stack.callback(engine.dispose)
            store = create_store(engine, clock=lambda: NOW)
        with database.engine.begin() as connection:
            connection.execute(text("CREATE TABLE notes (run uuid REFERENCES job_history (id))"))
            connection.execute(
                text("INSERT INTO notes SELECT id FROM job_history WHERE job_id IN ('3', '20')")
            )
        stack.callback(_execute, database, "DROP TABLE notes")

        assert store.expire(dry_run=True) == 25
        assert store.expire(batch_size=10) == 23
        assert remaining(database) == {3, 20, *range(-10, 0)}
        assert "left 2 of" in caplog.text
        _execute(database, "UPDATE job_history SET status = 'started'")
        assert store.reap_lost("1 day", batch_size=1) == 2


def _execute(database, statement):
    with database.engine.begin() as connection:
        connection.execute(text(statement))


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
        expirer.execute(
            maintenance.delete_expired(None, exact=False),
            {"cutoff": NOW, "low_moment": maintenance.BEGINNING.moment, "batch_size": 100},
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


def test_expire_looks_once_more_at_a_row_that_got_away_from_a_batch(database, monkeypatch):
    """Somebody was updating it at that moment: fewer rows went than the batch had found."""
    fill(database, expired=8)
    store = create_store(database.engine, clock=lambda: NOW)
    delete, calls = expiry.delete_expired, []

    def one_gets_away(transaction, branch, cutoff, low, batch_size):
        calls.append(low)
        if len(calls) == 2:
            batch = delete(transaction, branch, cutoff, low, batch_size - 1)
            return batch._replace(found=batch_size)
        return delete(transaction, branch, cutoff, low, batch_size)

    monkeypatch.setattr(expiry, "delete_expired", one_gets_away)

    assert store.expire(batch_size=3) == 8
