"""Statistics by hour and by day are deleted when they are old; those by month stay."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from jobhistory import InvalidInput, create_store
from jobhistory.cli import main
from jobhistory.database import pruning
from jobhistory.rollup_schema import ROLLUP, STATE

EXECUTION = {"job_id": "job", "task_identifier": "import", "status": "completed"} | {
    "worker_id": "worker",
    "correlation_id": "request",
    "execution_time_ms": 5,
}
NOW = datetime(2016, 6, 15, 10, 30, tzinfo=UTC)
HOURS_FROM = datetime(2016, 5, 11, tzinfo=UTC)  # 35 days ago, from midnight
DAYS_FROM = datetime(2015, 5, 1, tzinfo=UTC)  # 400 days ago, from the first of the month


@pytest.fixture
def store(database, clock):
    clock.now = NOW
    return create_store(database.engine, clock=clock)


def record(store, *times, task="import"):
    for started_at in times:
        store.record_execution(EXECUTION | {"started_at": started_at, "task_identifier": task})


def buckets(database, span):
    with database.engine.connect() as connection:
        found = connection.execute(select(ROLLUP.c.bucket).where(ROLLUP.c.span == span))
        return sorted(found.scalars())


def marks(database):
    with database.engine.connect() as connection:
        found = connection.execute(select(STATE.c.name, STATE.c.value)).all()
    return {name: datetime.fromisoformat(json.loads(value)) for name, value in found}


def hour(moment):
    return moment.replace(minute=0, second=0, microsecond=0)


def test_old_hours_and_days_go_and_months_stay(database, store):
    second = timedelta(seconds=1)
    times = [DAYS_FROM - second, DAYS_FROM, HOURS_FROM - second, HOURS_FROM, NOW]
    record(store, *times)
    assert store.fold() == 5
    assert buckets(database, "hour") == [hour(each) for each in times], "it is only noted"
    assert marks(database) == {"hours_from": HOURS_FROM, "days_from": DAYS_FROM}
    assert store.fold() == 0
    assert buckets(database, "hour") == [HOURS_FROM, hour(NOW)]
    assert (
        buckets(database, "day") == [each.replace(hour=0, minute=0, second=0) for each in times][1:]
    )
    assert len(buckets(database, "month")) == 4
    assert sum(each.executions for each in store.stats()) == 5


def test_a_call_deletes_what_an_earlier_one_has_noted(database, store, clock):
    record(store, HOURS_FROM, HOURS_FROM + timedelta(days=1))
    store.fold()
    clock.advance(days=1)
    store.fold()
    assert len(buckets(database, "hour")) == 2, "whoever has read the marks before finds it"
    assert marks(database)["hours_from"] == HOURS_FROM + timedelta(days=1)
    store.fold()
    assert buckets(database, "hour") == [HOURS_FROM + timedelta(days=1)]


def test_many_go_in_batches(database, store, monkeypatch):
    monkeypatch.setattr(pruning, "_BATCH", 2)
    record(store, *(HOURS_FROM - timedelta(hours=each) for each in range(1, 6)))
    store.fold()
    store.fold(batch_size=1)
    assert buckets(database, "hour") == []
    assert sum(each.executions for each in store.stats()) == 5


def test_expire_prunes(database, store):
    record(store, HOURS_FROM - timedelta(days=1))
    store.expire()
    store.expire()
    assert buckets(database, "hour") == []


def test_a_mark_never_moves_back(database, store, clock):
    store.fold()
    longer = create_store(database.engine, clock=clock, hourly_statistics="90 days")
    longer.fold()
    assert marks(database)["hours_from"] == HOURS_FROM


def test_a_clock_that_is_ahead_deletes_nothing(database, store, clock):
    clock.now = datetime(2999, 1, 1, tzinfo=UTC)
    store.fold()
    assert marks(database)["hours_from"] < datetime.now(UTC)


def test_the_store_says_how_long(database, clock):
    clock.now = NOW
    store = create_store(
        database.engine,
        clock=clock,
        hourly_statistics=timedelta(days=2),
        daily_statistics="900000 days",
    )
    store.fold()
    assert marks(database) == {"hours_from": datetime(2016, 6, 13, tzinfo=UTC)}


def test_the_store_in_memory_follows(clock):
    clock.now = NOW
    store = create_store(clock=clock, hourly_statistics="1 day", daily_statistics="900000 days")
    record(store, NOW - timedelta(days=3))
    store.fold()
    marks = store.internals.history._rows.rollups.marks
    assert marks.hours_from == datetime(2016, 6, 14, tzinfo=UTC)
    assert marks.days_from is None


@pytest.mark.parametrize("name", ["hourly_statistics", "daily_statistics"])
def test_they_are_durations(name):
    with pytest.raises(InvalidInput, match=f"{name} 'soon'"):
        create_store(**{name: "soon"})


@pytest.mark.parametrize("command", ["fold", "expire"])
def test_the_commands_say_how_long(database, command, capsys):
    url = database.url.render_as_string(hide_password=False)
    with pytest.raises(SystemExit) as end:
        main([command, "--hourly", "2 days", "--daily", "900000 days", "--url", url])
    assert end.value.code in (0, None), capsys.readouterr().err
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    ago = today - marks(database)["hours_from"]
    assert ago in (timedelta(days=2), timedelta(days=3))  # the day may have just begun
    assert "days_from" not in marks(database)


def test_a_bucket_that_another_session_has_locked_stays_for_now(postgres_database, clock):
    clock.now = NOW
    store = create_store(postgres_database.engine, clock=clock)
    record(store, HOURS_FROM - timedelta(days=1))
    store.fold()
    with postgres_database.engine.begin() as connection:
        connection.execute(select(ROLLUP).with_for_update()).all()
        store.fold()
    assert len(buckets(postgres_database, "hour")) == 1
    store.fold()
    assert buckets(postgres_database, "hour") == []
