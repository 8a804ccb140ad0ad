"""Folding: executions that have ended move from the queue to the rollups, each exactly once."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from threading import Event, Semaphore

import pytest
from sqlalchemy import column, func, insert, select
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from jobhistory import Recorder, create_store
from jobhistory.aio import create_async_store
from jobhistory.cli import main
from jobhistory.database import folding
from jobhistory.database.statements.fold import add_stored
from jobhistory.recorder import idle_folding
from jobhistory.rollup_schema import ENDED, ROLLUP
from jobhistory.statistics.measures import Measures
from jobhistory.statistics.spans import Span

START = datetime(2026, 10, 31, 22, 30, tzinfo=UTC)
ENDED_EXECUTION = {
    "task_identifier": "import",
    "status": "completed",
    "weight": 1,
    "started_at": START,
    "completed_at": START + timedelta(seconds=2),
    "queue_time_ms": 100,
    "execution_time_ms": 2_000,
}


def ended(task="import", status="completed", *, hours=0.0, weight=1, time=2_000, **values):
    """A row of the queue."""
    started_at = START + timedelta(hours=hours)
    return (
        ENDED_EXECUTION
        | {
            "task_identifier": task,
            "status": status,
            "weight": weight,
            "started_at": started_at,
            "completed_at": started_at + timedelta(milliseconds=time),
            "execution_time_ms": time,
        }
        | values
    )


def enqueue(engine, *rows):
    with engine.begin() as connection:
        for row in rows:
            connection.execute(insert(ENDED), [row])


def waiting(engine):
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(ENDED)).scalar_one()


def rollups(engine):
    """The measures in the rollups, by span, task and bucket."""
    with engine.connect() as connection:
        found = connection.execute(select(ROLLUP)).mappings().all()
    kept = defaultdict(Measures)
    for row in found:
        key = (row["span"], row["task_identifier"], row["bucket"])
        assert key not in kept
        add_stored(kept[key], row)
    return kept


def test_an_execution_counts_in_its_hour_its_day_and_its_month(database, database_store):
    enqueue(database.engine, ended(), ended("export", "failed", hours=2, time=5_000))
    assert database_store.fold() == 2
    assert waiting(database.engine) == 0
    found = rollups(database.engine)
    assert set(found) == {
        ("hour", "import", datetime(2026, 10, 31, 22, tzinfo=UTC)),
        ("day", "import", datetime(2026, 10, 31, tzinfo=UTC)),
        ("month", "import", datetime(2026, 10, 1, tzinfo=UTC)),
        ("hour", "export", datetime(2026, 11, 1, 0, tzinfo=UTC)),
        ("day", "export", datetime(2026, 11, 1, tzinfo=UTC)),
        ("month", "export", datetime(2026, 11, 1, tzinfo=UTC)),
    }
    day = found["day", "export", datetime(2026, 11, 1, tzinfo=UTC)]
    assert day.counts["failed"] == day.executions == 1
    assert day.last["last_failed_at"] == START + timedelta(hours=2, seconds=5)
    assert day.execution_time.sum == day.execution_time.max == 5_000
    assert day.execution_time.histogram.percentiles([50])[0] == pytest.approx(5_000, rel=0.02)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_add_to_what_is_there(database, database_store, batch_size):
    rows = [ended(hours=each / 3, time=1_000 + each) for each in range(7)]
    enqueue(database.engine, *rows[:4])
    seen = []
    assert database_store.fold(batch_size=batch_size, progress=seen.append) == 4
    assert seen[-1] == 4
    enqueue(database.engine, *rows[4:])
    assert database_store.fold(batch_size=batch_size) == 3
    assert database_store.fold() == 0
    found = rollups(database.engine)
    for span in Span:
        counts = Counter(span.start(row["started_at"]) for row in rows)
        kept = {key[2]: each for key, each in found.items() if key[0] == span.value}
        assert {bucket: each.executions for bucket, each in kept.items()} == counts
        assert sum(each.execution_time.sum for each in kept.values()) == 7_021
        assert sum(each.execution_time.histogram.count for each in kept.values()) == 7


@pytest.mark.parametrize("correction_first", [False, True])
def test_a_correction_may_be_folded_before_what_it_corrects(
    database, database_store, correction_first
):
    lost = ended(status="failed", is_lost=True, execution_time_ms=None, queue_time_ms=None)
    taken_back = lost | {"weight": -1, "completed_at": None}
    parts = [[lost], [taken_back, ended()]]
    for part in reversed(parts) if correction_first else parts:
        enqueue(database.engine, *part)
        assert database_store.fold() == len([row for row in part if row["weight"] > 0])
    hour = rollups(database.engine)["hour", "import", datetime(2026, 10, 31, 22, tzinfo=UTC)]
    assert hour.counts == dict.fromkeys(hour.counts, 0) | {"completed": 1}
    assert hour.execution_time.histogram.count == 1


EXECUTION = {"job_id": "job", "task_identifier": "import", "status": "completed"} | {
    "worker_id": "worker",
    "correlation_id": "request",
    "execution_time_ms": 5,
}


@pytest.mark.statistics
def test_a_store_folds_what_it_records(plain_store):
    plain_store.record_execution(EXECUTION)
    factory = plain_store.internals.session_factory
    if factory is None:
        assert plain_store.fold() == 0  # statistics are up to date
    else:
        assert plain_store.fold() == 1
        with factory() as session:
            found = session.execute(select(ROLLUP.c.span, ROLLUP.c.completed)).all()
        assert sorted(found) == [("day", 1), ("hour", 1), ("month", 1)]


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_every_driver_folds(postgres_database, driver, event_loop_thread):
    enqueue(postgres_database.engine, ended(), ended("export", queue_time_ms=None))
    url = postgres_database.url.set(drivername=f"postgresql+{driver}")

    async def fold():
        async with create_async_store(url) as store:
            return await store.fold()

    if driver == "asyncpg":
        assert event_loop_thread.run(fold()) == 2
    else:
        with create_store(url) as store:
            assert store.fold() == 2
    assert len(rollups(postgres_database.engine)) == 6


def test_expire_folds_first(database, database_store):
    enqueue(database.engine, ended())
    assert database_store.expire(dry_run=True) == 0
    assert waiting(database.engine) == 1
    assert database_store.expire() == 0  # it returns the number of deleted rows
    assert waiting(database.engine) == 0
    assert len(rollups(database.engine)) == 3


def test_a_dry_run_counts_what_waits(database, database_store):
    enqueue(database.engine, ended(), ended("export"))
    assert database_store.fold(dry_run=True) == waiting(database.engine) == 2
    assert rollups(database.engine) == {}


def test_a_role_that_may_not_fold_expires_and_records(shared_postgresql_as_app, clock, caplog):
    with shared_postgresql_as_app.lent():
        store = create_store(shared_postgresql_as_app.engine, clock=clock)
        store.record_execution(EXECUTION)
        with pytest.raises(ProgrammingError, match="permission denied"):
            store.fold()
        clock.advance(days=31)
        assert store.expire() == 1
        assert caplog.text == ""
        history = store.internals.history
        history.overdue.random = lambda: 0
        store.record_execution(EXECUTION)
        assert caplog.text == ""
        assert not history.overdue.is_to_be_tried(rows=1)  # never again


@pytest.mark.parametrize("command", [["fold"], ["fold", "--json"], ["fold", "--dry-run"]])
def test_the_command_folds(database, command, capsys):
    enqueue(database.engine, ended(), ended("export"))
    with pytest.raises(SystemExit) as end:
        main([*command, "--url", database.url.render_as_string(hide_password=False)])
    assert end.value.code in (0, None)
    printed = {"--json": '{"folded": 2}\n', "--dry-run": "2 executions would be folded\n"}
    assert capsys.readouterr().out == printed.get(command[-1], "")
    assert waiting(database.engine) == (2 if "--dry-run" in command else 0)


class TestThoseWhoRecord:
    """Above a number of waiting rows, they fold a batch after the commit."""

    @pytest.fixture(autouse=True)
    def _a_short_queue(self, monkeypatch):
        monkeypatch.setattr(folding, "OVERDUE", 2)

    @staticmethod
    def always(store):
        store.internals.history.overdue.random = lambda: 0.0
        return store

    def test_they_fold_if_too_much_waits(self, database, database_store):
        store = self.always(database_store)
        for count in (1, 2):
            store.record_execution(EXECUTION)
            assert waiting(database.engine) == count
        store.record_execution(EXECUTION)
        assert waiting(database.engine) == 0
        store.record_many([EXECUTION] * 3)
        assert waiting(database.engine) == 0

    def test_they_look_in_proportion_to_what_they_record(self, database, database_store):
        overdue = database_store.internals.history.overdue
        overdue.random = lambda: 0.0049
        assert not overdue.is_to_be_tried(rows=9)
        assert overdue.is_to_be_tried(rows=10)
        database_store.record_many([EXECUTION] * 9)
        assert waiting(database.engine) == 9
        database_store.record_many([EXECUTION] * 10)
        assert waiting(database.engine) == 0

    def test_executions_that_are_only_counted_count(self, database, database_store):
        store = self.always(database_store)
        for _ in range(3):
            store.record_execution(EXECUTION, record="failures")
        assert waiting(database.engine) == 0

    def test_not_in_the_transaction_of_the_app(self, database, database_store):
        store = self.always(database_store)
        enqueue(database.engine, *[ended()] * 3)
        with Session(database.engine) as session, session.begin():
            store.in_session(session).record_execution(EXECUTION)
        assert waiting(database.engine) == 4
        with database.engine.connect() as connection, connection.begin() as transaction:
            in_test = self.always(create_store(sessionmaker(connection)))
            in_test.record_execution(EXECUTION)
            count = select(func.count()).select_from(ENDED)
            assert connection.execute(count).scalar_one() == 5
            transaction.rollback()

    def test_an_error_is_logged_once(self, database, database_store, monkeypatch, caplog):
        store = self.always(database_store)
        enqueue(database.engine, *[ended()] * 3)
        broken = select(column("missing")).select_from(ENDED)
        monkeypatch.setattr(folding.statements, "WAITING_UP_TO", broken)
        for _ in range(2):
            assert store.record_execution(EXECUTION).status == "completed"
        assert [each.levelname for each in caplog.records] == ["WARNING"]
        assert waiting(database.engine) == 5


def test_an_idle_recorder_folds(database, database_store, monkeypatch):
    monkeypatch.setattr(idle_folding, "INTERVAL", 0)
    monkeypatch.setattr(idle_folding, "_QUIET", 0)
    history = database_store.internals.history
    folded = Event()
    fold_once = history.fold_once

    def fold(batch_size):
        more = fold_once(batch_size)
        folded.set()
        return more

    monkeypatch.setattr(history, "fold_once", fold)
    with Recorder(database_store) as recorder:
        recorder.record_execution(EXECUTION)
        assert folded.wait(30)
        assert waiting(database.engine) == 0


def test_a_recorder_goes_on_if_it_cannot_fold(database, database_store, monkeypatch, caplog):
    monkeypatch.setattr(idle_folding, "INTERVAL", 0)
    monkeypatch.setattr(idle_folding, "_QUIET", 0)
    tried = Semaphore(0)

    def fold(batch_size):
        tried.release()
        raise RuntimeError("no")

    monkeypatch.setattr(database_store.internals.history, "fold_once", fold)
    with Recorder(database_store) as recorder:
        for _ in range(2):
            recorder.record_execution(EXECUTION)
            assert tried.acquire(timeout=30)
    assert recorder.counts.written == 2
    assert [each.levelname for each in caplog.records] == ["WARNING"]
