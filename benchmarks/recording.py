"""The speed of recording: one by one, in the background, in bulk, and by alternatives."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from datetime import UTC, datetime

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import URL, text, update
from sqlalchemy.orm import Session, sessionmaker

from benchmarks import peers
from benchmarks.measuring import Table, Way, in_turn, middle, new_database, new_engine, ratios, raw
from benchmarks.peers import PAYLOAD
from jobhistory import (
    HistoryRecord,
    HistoryStore,
    Job,
    Recorder,
    create_store,
    migrate,
    new_execution_id,
)

COLUMNS = (
    "id, job_id, correlation_id, task_identifier, worker_id, status, attempt_number, payload, "
    "started_at, completed_at, execution_time_ms, expires_at"
)
INSERT = f"INSERT INTO job_history ({COLUMNS}) VALUES ({', '.join(['%s'] * 12)})"  # noqa: S608
END = (
    "UPDATE job_history SET status = 'completed', completed_at = %s, execution_time_ms = %s "
    "WHERE id = %s AND status = 'started' RETURNING *"
)

_numbers = itertools.count()


def row(number: int, *, ended: bool) -> tuple[object, ...]:
    """Return the values that raw psycopg writes for an execution."""
    now = datetime.now(UTC)
    outcome = (
        ("completed", 1, Jsonb(PAYLOAD), now, now, 5)
        if ended
        else ("started", 1, Jsonb(PAYLOAD), now, None, None)
    )
    return (
        new_execution_id(),
        f"job-{number}",
        f"request-{number}",
        "ship_order",
        "worker-1",
        *outcome,
        now,
    )


def raw_pairs(connection: psycopg.Connection, count: int) -> None:
    """Run a prepared INSERT and UPDATE ... RETURNING, each in its own transaction."""
    for number in itertools.islice(_numbers, count):
        values = row(number, ended=False)
        connection.execute(INSERT, values, prepare=True)
        connection.execute(END, (datetime.now(UTC), 5, values[0]), prepare=True).fetchone()


def raw_executemany(connection: psycopg.Connection, count: int) -> None:
    """Insert ended executions with one executemany() in one transaction."""
    with connection.transaction(), connection.cursor() as cursor:
        rows = [row(number, ended=True) for number in itertools.islice(_numbers, count)]
        cursor.executemany(INSERT, rows)


def raw_copy(connection: psycopg.Connection, count: int) -> None:
    """Insert ended executions with one COPY."""
    statement = f"COPY job_history ({COLUMNS}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for number in itertools.islice(_numbers, count):
            copy.write_row(row(number, ended=True))


def orm(sessions: sessionmaker[Session], count: int) -> None:
    """Record as apps do by hand: `session.add`, then an ORM update, each in a transaction."""
    for number in itertools.islice(_numbers, count):
        with sessions() as session, session.begin():
            values = dict(zip(COLUMNS.split(", "), row(number, ended=False), strict=True))
            record = HistoryRecord(**values | {"payload": PAYLOAD})
            session.add(record)
        with sessions() as session, session.begin():
            session.scalars(
                update(HistoryRecord)
                .where(HistoryRecord.id == record.id, HistoryRecord.status == "started")
                .values(status="completed", completed_at=datetime.now(UTC), execution_time_ms=5)
                .returning(HistoryRecord)
            ).one()


def plain(store: HistoryStore, count: int) -> None:
    """Call `record_start` and `record_completion`."""
    for number in itertools.islice(_numbers, count):
        ids = ("worker-1", f"request-{number}")
        store.record_start(Job(f"job-{number}", "ship_order", PAYLOAD), *ids)
        store.record_completion(f"job-{number}", *ids, 5)


def background(recorder: Recorder, count: int) -> None:
    """Call `record_start` and `record_completion` of a recorder, and flush at the end."""
    for number in itertools.islice(_numbers, count):
        ids = ("worker-1", f"request-{number}")
        recorder.record_start(Job(f"job-{number}", "ship_order", PAYLOAD), *ids)
        recorder.record_completion(f"job-{number}", *ids, 5)
    recorder.flush()


def bulk(store: HistoryStore, count: int) -> None:
    """Call `record_many` with ended executions."""
    store.record_many(
        {
            "job_id": f"job-{number}",
            "correlation_id": f"request-{number}",
            "task_identifier": "ship_order",
            "worker_id": "worker-1",
            "status": "completed",
            "execution_time_ms": 5,
            "payload": PAYLOAD,
        }
        for number in itertools.islice(_numbers, count)
    )


def measure(server: URL, rounds: int, pairs: int, many: int) -> dict[str, list[float]]:
    """Return the executions per second of each way by round."""
    with ExitStack() as stack:
        url = stack.enter_context(new_database(server, "recording"))
        engine = stack.enter_context(new_engine(url))
        migrate.upgrade(engine)
        store = stack.enter_context(create_store(url))
        recorder = stack.enter_context(Recorder(store))
        connection = stack.enter_context(raw(url))
        sessions = sessionmaker(
            engine.execution_options(isolation_level="READ COMMITTED"), expire_on_commit=False
        )
        celery, django = peers.celery_backend(url), peers.django_celery_results(url)
        procrastinate = peers.procrastinate_events(url)
        stack.callback(procrastinate.close)
        ways: list[Way] = [
            ("raw psycopg, autocommit", lambda count: raw_pairs(connection, count), pairs),
            ("record_start + record_completion", lambda count: plain(store, count), pairs),
            ("ORM by hand", lambda count: orm(sessions, count), pairs),
            ("Celery's SQLAlchemy backend", celery, pairs),
            ("django-celery-results", django, pairs),
            ("Procrastinate's job events", procrastinate, pairs),
            ("Recorder", lambda count: background(recorder, count), many),
            ("record_many", lambda count: bulk(store, count), many),
            ("raw psycopg, executemany", lambda count: raw_executemany(connection, count), many),
            ("raw psycopg, COPY", lambda count: raw_copy(connection, count), many),
        ]

        def clean() -> None:
            with engine.connect() as cleaning:
                cleaning.execute(text("TRUNCATE job_history, job_history_ended, celery_taskmeta"))
                cleaning.execute(text("TRUNCATE django_celery_results_taskresult"))
                cleaning.execute(text("TRUNCATE procrastinate_jobs CASCADE"))
            procrastinate.prepare(pairs)

        procrastinate.prepare(pairs)
        return in_turn(ways, rounds, clean)


def report(speeds: dict[str, list[float]]) -> Table:
    """Return the table of medians, their spread, and their ratios to three of the ways."""
    bases = ("raw psycopg, autocommit", "ORM by hand", "Celery's SQLAlchemy backend")
    return Table(
        "Recording",
        "Executions recorded from start to outcome, with 385 bytes of payload each, on one thread. "
        "Ratios are medians over the rounds, with the minimum and maximum.",
        ["way", "executions/s", "of raw psycopg", "of ORM by hand", "of Celery's backend"],
        [
            [name, middle(figures), *(middle(ratios(figures, speeds[b]), ",.2f") for b in bases)]
            for name, figures in speeds.items()
        ],
    )
