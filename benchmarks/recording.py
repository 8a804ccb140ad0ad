"""How fast executions are recorded on PostgreSQL: one by one, in the background, and in bulk.

Run it from the checkout, as `python -m benchmarks.recording`. Every way records executions from
start to outcome with the same payload, in turn, several rounds in one run; what counts is the ratio
of the medians, as the machine's own speed comes and goes. Without `--url` it starts the PostgreSQL
that the tests bring along.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from time import perf_counter

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import create_engine, make_url, text, update
from sqlalchemy.orm import Session, sessionmaker

from jobhistory import HistoryRecord, HistoryStore, Job, Recorder, create_store, migrate
from jobhistory.models import new_id
from tests.servers import wheel_server

PAYLOAD = {
    "order": 4711,
    "customer": {"name": "Ann Example", "address": "1 Example Street, Exampleton"},
    "lines": [{"sku": f"sku-{number}", "count": number} for number in range(4)],
    "note": "please leave it at the door if nobody is at home " * 3,
}
COLUMNS = (
    "id, job_id, correlation_id, task_identifier, worker_id, status, attempt_number, payload, "
    "started_at, completed_at, execution_time_ms, expires_at"
)
INSERT = f"INSERT INTO job_history ({COLUMNS}) VALUES ({', '.join(['%s'] * 12)})"  # noqa: S608
END = (
    "UPDATE job_history SET status = 'completed', completed_at = %s, execution_time_ms = %s "
    "WHERE id = %s AND status = 'started' RETURNING *"
)


def row(number: int, *, ended: bool) -> tuple[object, ...]:
    """The values that raw psycopg writes for an execution."""
    now = datetime.now(UTC)
    outcome = (
        ("completed", 1, Jsonb(PAYLOAD), now, now, 5)
        if ended
        else ("started", 1, Jsonb(PAYLOAD), now, None, None)
    )
    return (new_id(), f"job-{number}", f"request-{number}", "ship_order", "worker-1", *outcome, now)


def raw_pairs(connection: psycopg.Connection, count: int) -> None:
    """INSERT and UPDATE ... RETURNING, prepared, a transaction each."""
    for number in range(count):
        values = row(number, ended=False)
        connection.execute(INSERT, values, prepare=True)
        connection.execute(END, (datetime.now(UTC), 5, values[0]), prepare=True).fetchone()


def raw_executemany(connection: psycopg.Connection, count: int) -> None:
    """One INSERT of ended executions, executed many times in one transaction."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(INSERT, [row(number, ended=True) for number in range(count)])


def raw_copy(connection: psycopg.Connection, count: int) -> None:
    """COPY of ended executions."""
    statement = f"COPY job_history ({COLUMNS}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for number in range(count):
            copy.write_row(row(number, ended=True))


def orm(sessions: sessionmaker[Session], count: int) -> None:
    """What one writes first: `session.add`, then an ORM update of the row, a transaction each."""
    for number in range(count):
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
    """`record_start` and `record_completion`."""
    for number in range(count):
        ids = ("worker-1", f"request-{number}")
        store.record_start(Job(f"job-{number}", "ship_order", PAYLOAD), *ids)
        store.record_completion(f"job-{number}", *ids, 5)


def background(recorder: Recorder, count: int) -> None:
    """`Recorder.start`, `Recorder.completion`, and a flush at the end."""
    for number in range(count):
        ids = ("worker-1", f"request-{number}")
        recorder.start(Job(f"job-{number}", "ship_order", PAYLOAD), *ids)
        recorder.completion(f"job-{number}", *ids, 5)
    recorder.flush()


def bulk(store: HistoryStore, count: int) -> None:
    """`record_many` of ended executions."""
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
        for number in range(count)
    )


def measure(url: str, rounds: int, pairs: int, many: int) -> dict[str, list[float]]:
    """Executions a second of each way, one figure a round."""
    engine = create_engine(url)
    migrate.upgrade(engine)
    store = create_store(url)
    sessions = sessionmaker(engine, expire_on_commit=False)
    libpq_url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    speeds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        stack.enter_context(store)
        recorder = stack.enter_context(Recorder(store))
        connection = stack.enter_context(psycopg.connect(libpq_url, autocommit=True))
        ways: list[tuple[str, Callable[[int], None], int]] = [
            ("ORM by hand", lambda count: orm(sessions, count), pairs),
            ("plain verbs", lambda count: plain(store, count), pairs),
            ("raw psycopg, pairs", lambda count: raw_pairs(connection, count), pairs),
            ("Recorder", lambda count: background(recorder, count), many),
            ("record_many", lambda count: bulk(store, count), many),
            ("raw psycopg, executemany", lambda count: raw_executemany(connection, count), many),
            ("raw psycopg, COPY", lambda count: raw_copy(connection, count), many),
        ]
        for round_ in range(rounds + 1):  # the first one is to warm up
            for name, way, count in ways:
                begun = perf_counter()
                way(count)
                if round_:
                    speeds.setdefault(name, []).append(count / (perf_counter() - begun))
            with engine.begin() as cleaning:
                cleaning.execute(text("TRUNCATE job_history"))
    return speeds


def report(speeds: dict[str, list[float]]) -> str:
    """A Markdown table of the medians, their spread, and the ratios."""
    medians = {name: statistics.median(figures) for name, figures in speeds.items()}
    lines = [
        "| way | executions/s (least - most) | of ORM | of plain verbs | of raw pairs | of COPY |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in speeds.items():
        ratios = " | ".join(
            f"{medians[name] / medians[base]:.2f}"
            for base in ("ORM by hand", "plain verbs", "raw psycopg, pairs", "raw psycopg, COPY")
        )
        spread = f"{medians[name]:,.0f} ({min(figures):,.0f} - {max(figures):,.0f})"
        lines.append(f"| {name} | {spread} | {ratios} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a PostgreSQL whose table job_history may be emptied")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=500, help="executions a round, one by one")
    parser.add_argument("--many", type=int, default=5000, help="executions a round, in bulk")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url or stack.enter_context(wheel_server()).get_uri()
        speeds = measure(url, options.rounds, options.pairs, options.many)
        with psycopg.connect(
            make_url(url).set(drivername="postgresql").render_as_string(False)
        ) as c:
            version = c.info.parameter_status("server_version")
    print(
        f"PostgreSQL {version}, Python {platform.python_version()}, {options.rounds} rounds, "
        f"rows of {len(json.dumps(PAYLOAD))} bytes of payload\n"
    )
    print(report(speeds))


if __name__ == "__main__":
    main()
