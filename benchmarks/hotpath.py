"""What recording costs beyond the same statements in raw psycopg, and the targets for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import URL, text
from sqlalchemy.orm import sessionmaker

from benchmarks.measuring import Table, Way, in_turn, middle, new_database, new_engine, ratios, raw
from benchmarks.peers import PAYLOAD
from benchmarks.recording import background, bulk, plain, raw_copy
from jobhistory import HistoryStore, Job, Recorder, create_store, migrate, new_execution_id
from jobhistory.database.statements.write import FINISH, INSERT

RAW = "raw psycopg, autocommit"
BEGIN = "raw psycopg, BEGIN and COMMIT"
URL_STORE = "record_start + record_completion, store from a URL"
AUTOCOMMIT = "the same, an app's engine in AUTOCOMMIT mode"
ENGINE = "the same, an app's engine"
SESSIONS = "the same, an app's sessionmaker"
TRACK = "track around an empty function"
COPY = "raw psycopg, COPY"
MANY = "record_many"
RECORDER = "Recorder, start and outcome"

FIGURES = [
    (URL_STORE, RAW, "at least 0.80"),
    (AUTOCOMMIT, RAW, "at least 0.70"),
    (ENGINE, RAW, ""),
    (ENGINE, BEGIN, ""),
    (SESSIONS, RAW, ""),
    (SESSIONS, BEGIN, "at least 0.60"),
    (TRACK, URL_STORE, "at least 0.95"),
    (MANY, COPY, "at least 0.50"),
    (RECORDER, COPY, "at least 0.33"),
]
"""Each figure: a way, the way that it is compared with, and the target for the ratio."""

_numbers = itertools.count()


class SameStatements:
    """The statements of `record_start` and `record_completion`, in raw psycopg."""

    def __init__(self, connection: psycopg.Connection, url: URL) -> None:
        self._connection = connection
        dialect = url.get_dialect()()
        started = INSERT.compile(dialect=dialect, column_keys=list(self._row(0)))
        ended = FINISH.compile(dialect=dialect, column_keys=list(self._outcome(0)))
        self._insert, self._finish = str(started), str(ended)
        self._limit = {name: value for name, value in ended.params.items() if value is not None}

    def pairs(self, count: int, *, begin: bool = False) -> None:
        """Run the two statements, prepared; each of them between BEGIN and COMMIT, or alone."""
        execute = self._in_transaction if begin else self._execute
        for number in itertools.islice(_numbers, count):
            execute(self._insert, self._row(number))
            execute(self._finish, self._limit | self._outcome(number))

    def _execute(self, statement: str, values: dict[str, Any]) -> None:
        cursor = self._connection.execute(statement, values, prepare=True)
        if cursor.description:
            cursor.fetchone()

    def _in_transaction(self, statement: str, values: dict[str, Any]) -> None:
        with self._connection.transaction():
            self._execute(statement, values)

    def _row(self, number: int) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {
            "id": new_execution_id(),
            "job_id": f"raw-{number}",
            "correlation_id": f"request-{number}",
            "task_identifier": "ship_order",
            "worker_id": "worker-1",
            "status": "started",
            "attempt_number": 1,
            "payload": Jsonb(PAYLOAD),
            "started_at": now,
            "expires_at": now + timedelta(days=30),
        }

    def _outcome(self, number: int) -> dict[str, Any]:
        return {
            "key_job_id": f"raw-{number}",
            "key_worker_id": "worker-1",
            "key_correlation_id": f"request-{number}",
            "status": "completed",
            "ended_at": datetime.now(UTC),
            "took_ms": 5,
        }


def tracked(store: HistoryStore, count: int) -> None:
    """Run an empty function within `track`."""
    for number in itertools.islice(_numbers, count):
        job = Job(f"track-{number}", "ship_order", PAYLOAD)
        with store.track(job, "worker-1", f"request-{number}"):
            pass


def measure(server: URL, rounds: int, pairs: int, many: int) -> dict[str, list[float]]:
    """Return the executions per second of each way by round."""
    with ExitStack() as stack:
        url = stack.enter_context(new_database(server, "hotpath"))
        autocommit = stack.enter_context(new_engine(url))
        migrate.upgrade(autocommit)
        engine = autocommit.execution_options(isolation_level="READ COMMITTED")
        store = stack.enter_context(create_store(url))
        recorder = stack.enter_context(Recorder(store))
        connection = stack.enter_context(raw(url))
        statements = SameStatements(connection, url)
        bulk(store, 200)

        def by(binding: Any) -> Callable[[int], None]:
            other = create_store(binding)
            return lambda count: plain(other, count)

        singly: list[Way] = [
            (RAW, statements.pairs, pairs),
            (BEGIN, lambda count: statements.pairs(count, begin=True), pairs),
            (URL_STORE, lambda count: plain(store, count), pairs),
            (AUTOCOMMIT, by(autocommit), pairs),
            (ENGINE, by(engine), pairs),
            (SESSIONS, by(sessionmaker(engine)), pairs),
            (TRACK, lambda count: tracked(store, count), pairs),
        ]
        in_bulk: list[Way] = [
            (COPY, lambda count: raw_copy(connection, count), many),
            (MANY, lambda count: bulk(store, count), many),
            (RECORDER, lambda count: background(recorder, count), many),
        ]

        def clean() -> None:
            with autocommit.connect() as cleaning:
                cleaning.execute(text("TRUNCATE job_history, job_history_ended"))

        # Short turns: the speed of the machine changes within seconds.
        speeds = in_turn(singly, rounds, lambda: None)
        clean()
        return speeds | in_turn(in_bulk, max(1, rounds // 4), clean)


def report(speeds: dict[str, list[float]]) -> Table:
    """Return the table of the ratios and their targets."""
    return Table(
        "The hot path",
        "Speed relative to raw psycopg that executes the same statements; medians of the ratios "
        "within a round, with the minimum and maximum.",
        ["way", "compared with", "ratio", "target"],
        [
            [way, base, middle(ratios(speeds[way], speeds[base]), ".2f"), target]
            for way, base, target in FIGURES
        ],
    )
