"""The table of locks in the documentation is what PostgreSQL says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from jobhistory import (
    HistoryStore,
    Job,
    Recorder,
    RetentionRule,
    create_store,
    migrate,
    new_execution_id,
    partitioning,
)
from jobhistory.cli import main
from jobhistory.cli.app import program
from jobhistory.schema import Base
from tests.conftest import FakeClock

PAGE = (Path(__file__).parent.parent / "docs" / "locks.md").read_text()
COLUMNS = {
    "AccessShareLock": "reads",
    "RowShareLock": "locks rows of",
    "RowExclusiveLock": "writes",
}
TABLES = {"job_history", "_ended", "_rollup", "_state", "_expectation", "_incident", "_archive"}
ADVISORY = {"": set(), "folding, shared": {"ShareLock"}}
HELD = """
SELECT relname, mode
FROM pg_locks
    LEFT JOIN pg_inherits ON inhrelid = relation
    LEFT JOIN pg_class ON pg_class.oid = coalesce(inhparent, relation)
WHERE pid = pg_backend_pid() AND (
    locktype = 'advisory' OR (relkind IN ('r', 'p') AND starts_with(relname, 'job_history'))
)
"""


@contextmanager
def locks_at_commits() -> Iterator[set[tuple[str | None, str]]]:
    """Collect the locks that transactions hold at their commit: the table, if any, and the mode."""
    found: set[tuple[str | None, str]] = set()

    def note(connection: Any) -> None:
        with connection.connection.cursor() as cursor:
            cursor.execute(HELD)
            found.update(cursor.fetchall())

    event.listen(Engine, "commit", note)
    try:
        yield found
    finally:
        event.remove(Engine, "commit", note)


def documented(heading: str) -> list[dict[str, str]]:
    """The rows of the table under a heading of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    names, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(names, row, strict=True)) for row in rows]


def short(table: str) -> str:
    """The name of a table as the page has it."""
    return table.removeprefix("job_history") or table


@dataclass
class At:
    """Where an operation runs."""

    engine: Engine
    clock: Any
    store: HistoryStore
    run: Callable[..., object]
    archive: str


START = Job("1", "t")
IDS = ("1", "w", "c")
ENDED = {"task_identifier": "t", "worker_id": "w", "correlation_id": "c", "status": "completed"}


def started(store):
    return store.record_start(START, *IDS[1:])


def filled(store):
    """Some executions of each kind, and a queue."""
    for status in ("completed", "failed"):
        error = {"error": "boom"} if status == "failed" else {}
        store.record_execution({**ENDED, "job_id": "2", "status": status, **error})
    return started(store)


# Each prepares something, and then does what the table of the docs says.


def record_start(at):
    yield
    started(at.store)
    at.store.begin(START, "w")


def record_start_again(at):
    id_ = new_execution_id(at.clock.now)
    yield
    for _ in range(2):
        at.store.record_start(START, *IDS[1:], execution_id=id_)


def outcome(at):
    started(at.store)
    yield
    at.store.record_completion(*IDS, 5)


def outcome_by_id(at):
    one, other = started(at.store), started(at.store)
    yield
    at.store.record_completion(one)
    at.store.record_failure(execution_id=other.id, error="boom")


def record_execution(at):
    yield
    at.store.record_execution({**ENDED, "job_id": "2"})
    at.store.record_many([{**ENDED, "job_id": str(n)} for n in range(30)])


def record_with_id(at):
    whole = {**ENDED, "id": new_execution_id(at.clock.now), "job_id": "2"}
    yield
    for _ in range(2):
        at.store.record_execution(whole)


def heartbeat(at):
    execution = at.store.begin(START, "w")
    yield
    execution.heartbeat()


def count_only(at):
    yield
    with at.store.track(START, "w", record="failures"):
        pass


def recorder(at):
    yield
    with Recorder(at.store) as recorder:
        recorder.record_start(START, *IDS[1:])
        recorder.record_completion(*IDS, 1)
        with recorder.track(START, "w", record="failures"):
            pass


def claim(at):
    filled(at.store)
    yield
    at.run("run", "--no-overlap", "--task", "once", "--", "true")


def rows(at):
    filled(at.store)
    yield
    at.run("list")
    at.run("show", "2")
    at.run("running")
    at.run("workers")
    at.run("failures")
    at.store.page(limit=1)
    at.store.count()
    at.store.get(new_execution_id())


def statistics(at):
    filled(at.store)
    yield
    at.run("stats")
    at.store.count(expired=True)


def metrics(at):
    filled(at.store)
    at.store.expect("t", every="1h")
    yield
    at.run("metrics")


def fold(at):
    filled(at.store)
    yield
    at.run("fold")


def expire(at):
    filled(at.store)
    at.clock.advance(days=60)
    yield
    at.run("expire")


def archive(at):
    filled(at.store)
    at.clock.advance(days=60)
    yield
    at.run("expire", "--archive", at.archive)


def archived(at):
    filled(at.store)
    at.clock.advance(days=60)
    at.store.expire(archive=at.archive)


def verify(at):
    archived(at)
    yield
    at.run("archive", "verify", at.archive)


def delete_archived(at):
    archived(at)
    yield
    at.run("archive", "delete", at.archive, "--task", "t", "--yes")


def dry_run(at):
    filled(at.store)
    yield
    at.run("expire", "--dry-run")
    at.run("retention")


def changed_rules(at):
    filled(at.store)
    store = create_store(
        at.engine, retention_rules=[RetentionRule(keep="10 days", status="failed")]
    )
    yield
    store.expire()


def reap(at):
    filled(at.store)
    at.clock.advance(hours=2)
    yield
    at.run("reap", "--older-than", "1h")


def purge(at):
    filled(at.store)
    yield
    at.run("purge", "--task", "t", "--yes")


def recount(at):
    filled(at.store)
    hour = at.clock.now.replace(minute=0, second=0, microsecond=0)
    yield
    at.store.recount(hour, hour + timedelta(hours=1))


def replay(at):
    filled(at.store)
    (record,) = at.store.query(status="failed")
    yield
    at.store.get(record.id)
    # What replay does before it enqueues the job, for which it needs a queue.
    at.store._history.exchange_label(record.id, record.job_id, "replayed_at", None, "now")


def expect(at):
    yield
    at.run("expect", "add", "t", "--every", "1h")
    at.run("expect", "edit", "t", "--every", "2h")
    at.run("expect", "pause", "t", "--until", "2h")


def forget(at):
    at.store.expect("t", every="1h")
    yield
    at.run("expect", "remove", "t")


def check(at):
    filled(at.store)
    at.store.expect("t", every="1h")
    at.clock.advance(hours=5)
    yield
    at.store.check()
    with suppress(SystemExit):  # whose status is that of a plugin of Nagios
        main(["check"])


def incidents(at):
    yield
    at.run("incidents")


def expectations(at):
    yield
    at.run("expect", "list")


def tail(at):
    filled(at.store)
    yield
    with at.store.follow(last=10) as changes:
        next(changes)


def send_alerts(at):
    at.store.expect("t", every="1h")
    at.clock.advance(hours=5)
    at.store.check()
    yield
    assert at.store.send_alerts(print).sent == 1


def suggest(at):
    filled(at.store)
    at.store.fold()
    yield
    at.store.suggest_expectations()


OPERATIONS = [
    *(record_start, record_start_again, outcome, outcome_by_id, record_execution, record_with_id),
    *(heartbeat, count_only, recorder, claim),
    *(rows, tail, statistics, metrics),
    *(fold, expire, changed_rules, archive, verify, delete_archived),
    *(dry_run, reap, purge, recount, replay),
    *(expectations, expect, forget, check, incidents),
    *(send_alerts, suggest),
]
"""In the order of the rows of the table."""

ROWS = documented("Tables on PostgreSQL")


def test_each_row_of_the_table_has_an_operation():
    assert len(ROWS) == len(OPERATIONS)
    assert [row["what"] for row in documented("Rows, and who waits")] == [
        row["what"] for row in ROWS
    ]


@pytest.fixture(scope="module")
def partitioned_url(new_postgres_database):
    with new_postgres_database() as url:
        engine = create_engine(url)
        migrate.upgrade(engine)
        partitioning.partition(engine, now=FakeClock()())
        engine.dispose()
        yield url


@pytest.fixture(params=["plain", "partitioned"])
def layout(request):
    return request.param


@pytest.fixture
def at(layout, request, clock, monkeypatch, tmp_path):
    if layout == "plain":
        url = request.getfixturevalue("postgres_database").url
    else:
        url = request.getfixturevalue("partitioned_url")
    engine = create_engine(url)
    named = url.render_as_string(hide_password=False)
    # The engines of the library commit each statement by itself, as do prepared statements.
    transactional = create_engine(url)
    monkeypatch.setattr("jobhistory.cli.database.engine_from_url", lambda *_: transactional)

    def run(*words: str) -> None:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        assert ended.value.code in (0, None)

    monkeypatch.setenv("JOBHISTORY_URL", named)
    store = create_store(engine, clock=clock)
    yield At(engine, clock, store, run, str(tmp_path / "archive"))
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=[f.__name__ for f in OPERATIONS])
def test_the_table_names_the_locks_that_postgresql_shows(number, at, layout):
    steps = OPERATIONS[number](at)
    next(steps)
    with locks_at_commits() as found:
        next(steps, None)
    expected = {
        (table, mode)
        for mode, column in COLUMNS.items()
        for table in re.findall(r"`(\w+)`", ROWS[number][column])
    }
    shown = {(short(table), mode) for table, mode in found if table}
    if layout == "partitioned":
        expected.add(("job_history", "AccessShareLock"))
        shown.add(("job_history", "AccessShareLock"))
    advisory = {mode for table, mode in found if not table}
    if layout == "partitioned" and OPERATIONS[number] in (expire, changed_rules, archive):
        # They create partitions, alone, and drop empty ones.
        shown = {(table, mode) for table, mode in shown if mode in COLUMNS and table in TABLES}
        advisory.discard("ExclusiveLock")
    assert shown == expected
    assert advisory == ADVISORY.get(ROWS[number]["advisory lock"], {"ExclusiveLock"})


def commands(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def test_the_page_names_every_command_and_every_method():
    in_code = set(re.findall(r"`([^`]+)`", PAGE))
    named = {part.removeprefix("jobhistory ") for part in in_code}
    assert set(commands(program)) <= named
    methods = {name for name in dir(HistoryStore) if not name.startswith("_")}
    assert methods <= {part.partition("(")[0] for part in in_code}
