"""Every question is answered through an index, and outcomes leave the indexes alone."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import prod
from uuid import UUID

import pytest
from sqlalchemy import Engine, NullPool, create_engine, event, insert, text

from jobhistory import (
    HistoryQuery,
    HistoryRecord,
    Job,
    Recorder,
    RetentionRule,
    Status,
    create_store,
    migrate,
)
from jobhistory.execution.ids import new_execution_id
from jobhistory.query.cursor import Cursor
from jobhistory.query.overlap import Overlap
from tests.row_counts import postgresql_reading, sqlite_steps

NOW = datetime(2015, 11, 1, tzinfo=UTC)
ROWS = 20_000
OLD = range(18_000, 19_000)
AT_ONCE = range(5_000, 7_000)
"""Executions that started at the same moment."""

RARE = {7: "rare_task", 11: "rare_task", 1003: "rare_task"}


def row(number):
    """One in fifty fails, one in a thousand succeeds in part, and a few are of a rare kind."""
    status, values = Status.COMPLETED, {}
    if number % 50 == 7:
        status, values = Status.FAILED, {"error_type": "ValueError"}
    if number % 1000 == 11:
        status, values = Status.PARTIAL_SUCCESS, {"failed_steps": []}
    if number == 57:
        values["error_type"] = "app.RareError"
    task = f"task-{number % 10}" if number not in OLD else "old-" + "ab"[number % 2]
    return (
        {
            "id": new_execution_id(),
            "job_id": f"job-{number}",
            "correlation_id": "batch" if number in OLD else f"request-{number // 3}",
            "task_identifier": RARE.get(number, task),
            "worker_id": "rare-worker" if number % 9999 == 3 else f"worker-{number % 4}",
            "status": status,
            "attempt_number": 1,
            "payload": {"n": number},
            "started_at": NOW - timedelta(seconds=5_000 if number in AT_ONCE else number),
            "expires_at": NOW + timedelta(days=30) - timedelta(seconds=number),
        }
        | {"error_type": None, "failed_steps": None}
        | values
    )


@pytest.fixture
def store(database):
    with database.engine.begin() as connection:
        connection.execute(insert(HistoryRecord.__table__), [row(n) for n in range(ROWS)])
        connection.execute(text("ANALYZE"))
    store = create_store(
        database.engine, clock=lambda: NOW + timedelta(days=30, seconds=-ROWS + 50)
    )
    store.record_start(Job("job-5", "task-5"), "worker-1", "request-1")
    return store


def plans_of(engine: Engine, ask) -> list[str]:
    """The plan of every statement that `ask` runs."""
    plans = []

    def explain(connection, cursor, statement, parameters, context, executemany):
        if statement.split()[0] not in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"):
            return
        prefix = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        rows = connection.exec_driver_sql(f"{prefix} {statement}", parameters)
        plans.append("\n".join(str(row[-1]) for row in rows))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        ask()
    finally:
        event.remove(engine, "before_cursor_execute", explain)
    return plans


def cursor_of(**criteria):
    """A cursor that stands behind half of history."""
    cursor = Cursor(NOW - timedelta(seconds=ROWS // 2), UUID(int=0))
    return cursor.to_text(HistoryQuery(**criteria))


def end_lost(store, task):
    store.internals.history.end_lost(Overlap(task, lambda record: None, timedelta(minutes=1)), NOW)


HOUR = {"from_": NOW - timedelta(hours=1), "to": NOW}
QUESTIONS = {
    "a page": (lambda s: s.page(after=cursor_of()), "started_at"),
    "a page, oldest first": (
        lambda s: s.page(order="oldest", after=cursor_of(order="oldest")),
        "started_at",
    ),
    "a page of a task": (
        lambda s: s.page(task_identifier="task-3", after=cursor_of(task_identifier="task-3")),
        "task_identifier_started_at",
    ),
    "a page of failures": (
        lambda s: s.page(status="failed", after=cursor_of(status="failed")),
        "failed_started_at",
    ),
    "a batch of all": (lambda s: next(s.iterate(batch_size=100)), "started_at"),
    "a job's": (lambda s: s.query(job_id="job-5"), "job_id_started_at"),
    "a correlation's": (
        lambda s: s.query(correlation_id="batch", limit=50),
        "correlation_id_started_at",
    ),
    "tasks of long ago": (
        lambda s: s.query(task_identifier=["old-a", "old-b"], limit=50),
        "task_identifier_started_at",
    ),
    "what went wrong with tasks of long ago": (
        lambda s: s.query(task_identifier=["old-a", "old-b"], status=["failed", "partial_success"]),
        "(failed|partial)_task_identifier_started_at",
    ),
    "what has a text in its error": (
        lambda s: s.query(error_contains="error"),
        "failed_started_at",
    ),
    "by job id": (lambda s: s.get_by_job_id("job-5"), "job_id_started_at"),
    "by correlation id": (
        lambda s: s.get_by_correlation_id("request-1"),
        "correlation_id_started_at",
    ),
    "newest": (lambda s: s.query(), "started_at"),
    "an hour": (lambda s: s.query(**HOUR), "started_at"),
    "a task": (lambda s: s.query(task_identifier="rare_task"), "task_identifier_started_at"),
    "a task in an hour": (
        lambda s: s.query(task_identifier="rare_task", **HOUR),
        "task_identifier_started_at",
    ),
    "some tasks": (
        lambda s: s.query(task_identifier=["rare_task", "unknown"]),
        "task_identifier_started_at",
    ),
    "a worker": (lambda s: s.query(worker_id="rare-worker"), "worker_id_started_at"),
    "failures": (
        lambda s: s.query(status="failed"),
        "failed_started_at",
    ),
    "failures of a task": (
        lambda s: s.query(status="failed", task_identifier="rare_task"),
        "failed_task_identifier_started_at",
    ),
    "an error type": (
        lambda s: s.query(error_type="app.RareError"),
        "error_type_started_at",
    ),
    "partial successes": (
        lambda s: s.query(status="partial_success"),
        "partial_started_at",
    ),
    "partial successes of a task": (
        lambda s: s.query(status="partial_success", task_identifier="rare_task"),
        "partial_task_identifier_started_at",
    ),
    "completed": (lambda s: s.query(status="completed"), "started_at"),
    "an outcome": (
        lambda s: s.record_completion("job-5", "worker-1", "request-1", 1),
        "job_id_started_at",
    ),
    "how many failures, capped": (
        lambda s: s.count(status="failed", cap=100),
        "failed_started_at",
    ),
    "how many of a task": (
        lambda s: s.count(task_identifier="rare_task"),
        "task_identifier_started_at",
    ),
    "what became of an hour": (lambda s: s.stats(**HOUR), "(task_identifier_)?started_at"),
    "what became of an hour, by minute": (
        lambda s: s.stats(bucket="1m", **HOUR),
        "(task_identifier_)?started_at",
    ),
    "what failed in an hour": (
        lambda s: s.failure_groups(**HOUR),
        "(failed_)?started_at",
    ),
    "what failed for the first time": (
        lambda s: s.failure_groups(**HOUR, known_for="7 days"),
        "failed_task_identifier_started_at",
    ),
    "what workers did in an hour": (lambda s: s.workers(**HOUR), "(worker_id_)?started_at"),
    "what runs of an hour": (lambda s: s.running(**HOUR), "(running|started_at)"),
    "what has expired": (lambda s: s.expire(batch_size=10, time_limit="0.001s"), "expires_at"),
    "what is lost": (lambda s: s.reap_lost("30 days"), "(running|started_at)"),
    "what is lost of a worker": (
        lambda s: s.reap_lost("30 days", worker_id="rare-worker"),
        "(running|(worker_id_)?started_at)",
    ),
    "what is lost of a task": (
        lambda s: s.reap_lost("30 days", task_identifier="rare_task"),
        "(running|(task_identifier_)?started_at)",
    ),
    "what keeps a task from starting": (
        lambda s: end_lost(s, "rare_task"),
        "(running|status|(task_identifier_)?started_at)",
    ),
    "how many have expired": (lambda s: s.expire(dry_run=True), "expires_at"),
    "whether a task is as expected": (
        lambda s: check_all(s, "task-3"),
        "task_identifier_started_at",
    ),
    "whether a rare task is": (lambda s: check_all(s, "rare_task"), "task_identifier_started_at"),
}


def check_all(store, task):
    """Check everything that an expectation can say of a task, whose executions have no labels."""
    limits = {"max_success_age": "1d", "max_runtime": "1h", "max_running": 1}
    store.expect(task, cron="0 * * * *", min_runtime="1s", max_failure_rate=0.1, **limits)
    store.expect(task, labels={"tenant": "acme"}, every="1h", **limits)
    for dry_run in (True, False):
        store.check(task, dry_run=dry_run)


def test_every_question_uses_its_index(database, store):
    """One fill serves all questions: they are asked in turn and wrong plans are told together."""
    wrong = {}
    for question, (ask, index) in QUESTIONS.items():
        plan = "\n".join(plans_of(database.engine, lambda ask=ask: ask(store)))
        used = re.search(rf"ix_job_history_{index}\b", plan)
        scans = re.search(r"Seq Scan on job_history\b|SCAN job_history\b(?! USING)", plan)
        if not used or scans:
            wrong[question] = plan
    assert wrong == {}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_on_sqlite_what_keeps_a_task_from_starting_is_found_among_what_runs(database, store):
    """Not among all that the task ever did."""
    (plan,) = plans_of(database.engine, lambda: end_lost(store, "task-3"))
    assert "ix_job_history_running" in plan


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_search_for_earlier_failures_of_a_group_ends_at_the_first_one(database, store):
    plans = plans_of(database.engine, lambda: store.failure_groups(**HOUR, known_for="7 days"))
    backward = "Index Scan Backward using ix_job_history_failed_task_identifier_started_at"
    assert any(backward in plan for plan in plans)


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_the_last_executions_of_a_task_are_found_by_the_index_of_tasks(database, is_analyzed):
    rules = [RetentionRule(task_identifier="task-3", keep_last=10)]
    store = create_store(database.engine, retention_rules=rules, history_retention="never")
    payload = {"text": "x" * 1000}  # a table of few pages is rightly read as a whole
    store.expire()  # applies the rules, for which it reads all of history
    with database.engine.begin() as connection:
        if database.name == "postgresql":
            # Autovacuum may have seen the table empty. Then all rows look like few to read.
            connection.execute(text("TRUNCATE job_history"))
        rows = [row(n) | {"expires_at": None, "payload": payload} for n in range(2000)]
        connection.execute(insert(HistoryRecord.__table__), rows)
        if is_analyzed:
            connection.execute(text("ANALYZE"))

    plans = plans_of(database.engine, lambda: store.expire(batch_size=20))
    assert len([plan for plan in plans if "task_identifier_started_at" in plan]) >= 10
    scans = r"Seq Scan on job_history\b|SCAN job_history\b(?! USING)"
    assert [plan for plan in plans if re.search(scans, plan)] == []


def test_an_outcome_needs_no_statistics_to_find_its_execution(database):
    """As in a new table: all rows are one worker's, and nothing has been analysed yet."""
    with database.engine.begin() as connection:
        rows = [row(n) | {"worker_id": "w", "correlation_id": "c"} for n in range(2000)]
        connection.execute(insert(HistoryRecord.__table__), rows)
    store = create_store(database.engine)
    store.record_start(Job("job-5", "task-5"), "w", "c")

    (plan,) = plans_of(database.engine, lambda: store.record_completion("job-5", "w", "c", 1))
    again = plans_of(database.engine, lambda: store.record_completion("job-5", "w", "c", 1))
    for each in (plan, *again):
        assert "ix_job_history_job_id_started_at" in each
        assert "worker_id_started_at" not in each
        assert "ix_job_history_correlation" not in each


def fill(url, rows) -> None:
    """Create a table with rows and without statistics."""
    engine = create_engine(url)
    migrate.upgrade(engine)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # whose background workers would be counted, too
            connection.execute(text("ALTER TABLE job_history SET (autovacuum_enabled = false)"))
            brin = "ALTER INDEX IF EXISTS ix_job_history_status"
            connection.execute(text(f"{brin} SET (autosummarize = off)"))
        connection.execute(insert(HistoryRecord.__table__), list(rows))
    engine.dispose()


@contextmanager
def opened(url):
    """An engine with one connection, and a connection that watches what the engine reads."""
    engine = create_engine(url, pool_size=1, max_overflow=0)
    watching = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with watching.connect() as watcher:
        yield engine, watcher
    engine.dispose()


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_an_outcome_reads_the_newest_executions_of_its_job(new_postgres_database, is_analyzed):
    """A cron job may have the same id each time, and thus thousands of executions."""
    with new_postgres_database() as url:
        fill(url, (row(n) | {"job_id": "nightly", "correlation_id": "c"} for n in range(2000)))
        with opened(url) as (engine, watcher):
            if is_analyzed:
                watcher.execute(text("ANALYZE job_history"))
            store = create_store(engine)
            read = []
            for number in range(14):
                ids = ("nightly", f"worker-{number % 4}", "c")
                store.record_start(Job("nightly", "task-5"), *ids[1:])
                reading = postgresql_reading(
                    engine, watcher, lambda ids=ids: store.record_completion(*ids, 1)
                )
                read.append(reading.rows)
    assert max(read) <= 5, read


SIZE = 10
WINDOW = {
    "from_": NOW - timedelta(seconds=ROWS * 3 // 4),
    "to": NOW - timedelta(seconds=ROWS // 4),
}
BOUNDED = {
    "all": {},
    "a task": {"task_identifier": "task-3"},
    "a rare task": {"task_identifier": "rare_task"},
    "a task of long ago": {"task_identifier": "old-a"},
    "a task that does not exist": {"task_identifier": "unknown"},
    "three tasks": {"task_identifier": ["task-3", "old-a", "rare_task"]},
    "a worker": {"worker_id": "worker-1"},
    "a rare worker": {"worker_id": "rare-worker"},
    "two workers": {"worker_id": ["worker-1", "rare-worker"]},
    "a job": {"job_id": "job-5"},
    "a correlation id": {"correlation_id": "batch"},
    "an error type": {"error_type": "ValueError"},
    "a rare error type": {"error_type": "app.RareError"},
    "failures": {"status": "failed"},
    "failures of a task": {"status": "failed", "task_identifier": "task-7"},
    "failures of a rare task": {"status": "failed", "task_identifier": "rare_task"},
    "failures of three tasks": {
        "status": "failed",
        "task_identifier": ["task-7", "old-a", "rare_task"],
    },
    "failures of ten tasks": {
        "status": "failed",
        "task_identifier": [f"task-{number}" for number in range(10)],
    },
    "partial successes": {"status": "partial_success"},
    "partial successes of a task": {"status": "partial_success", "task_identifier": "task-1"},
    "what went wrong": {"status": ["failed", "partial_success"]},
    "what went wrong with two tasks": {
        "status": ["failed", "partial_success"],
        "task_identifier": ["task-7", "task-1"],
    },
    "a text that most errors have": {"error_contains": "error"},
}
"""Criteria of which the documentation promises that a page reads about as many rows as it has."""


def parts_of(criteria) -> int:
    """How many indexes are read."""
    lists = [value for value in criteria.values() if isinstance(value, list)]
    return prod(len(each) for each in lists)


def calls_of(store, criteria):
    """The kinds of pages, and a count."""
    late = cursor_of(**criteria, **WINDOW)
    oldest = cursor_of(**criteria, order="oldest")
    return {
        "page": lambda: store.page(criteria, limit=SIZE),
        "page in a window": lambda: store.page(criteria, **WINDOW, limit=SIZE, after=late),
        "oldest first": lambda: store.page(criteria, limit=SIZE, order="oldest", after=oldest),
        "count": lambda: store.count(criteria, **WINDOW, cap=SIZE),
    }


def analyze(engine, statistics) -> None:
    """Give a filled table statistics: none, its own, or those of some of its rows."""
    without = {"none": None, "its own": "false"}.get(statistics, statistics)
    if without is None:
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE TABLE kept AS SELECT * FROM job_history WHERE {without}"))
        connection.execute(text(f"DELETE FROM job_history WHERE {without}"))
        connection.execute(text("VACUUM"))
        connection.execute(text("ANALYZE job_history"))
        connection.execute(text("INSERT INTO job_history SELECT * FROM kept"))
        connection.execute(text("DROP TABLE kept"))


@pytest.fixture(scope="module")
def filled_postgres(new_postgres_database):
    with new_postgres_database() as url:
        fill(url, map(row, range(ROWS)))
        yield url


@pytest.fixture(scope="module")
def filled_sqlite(tmp_path_factory):
    path = tmp_path_factory.mktemp("filled") / "history.db"
    fill(f"sqlite:///{path}", map(row, range(ROWS)))
    return path


@pytest.mark.parametrize("statistics", ["none", "its own", "status <> 'failed'"])
def test_on_postgresql_no_page_reads_more_rows_than_a_few_times_its_size(
    new_postgres_database, filled_postgres, statistics
):
    """Not at the first call, and not when PostgreSQL has a generic plan of a prepared statement."""
    wrong = {}
    with (
        new_postgres_database(template=filled_postgres.database) as url,
        opened(url) as (engine, watcher),
    ):
        analyze(engine, statistics)
        store = create_store(engine)
        for name, criteria in BOUNDED.items():
            for kind, call in calls_of(store, criteria).items():
                read = [postgresql_reading(engine, watcher, call) for _ in range(2)]
                for _ in range(11):
                    call()
                read.append(postgresql_reading(engine, watcher, call))
                parts = parts_of(criteria)
                most = SIZE + 1 + parts if kind == "count" else (SIZE + 3) * (parts + 1)
                if max(each.rows for each in read) > most:
                    wrong[name, kind] = read
                if max(each.pages for each in read) > 10 * most:
                    wrong[name, kind] = read
    assert wrong == {}


@pytest.mark.parametrize("statistics", ["none", "its own", "status <> 'completed'"])
def test_on_sqlite_no_page_reads_more_rows_than_a_few_times_its_size(
    filled_sqlite, tmp_path, statistics
):
    wrong = {}
    engine = create_engine(f"sqlite:///{shutil.copy(filled_sqlite, tmp_path)}")
    analyze(engine, statistics)
    store = create_store(engine)
    for name, criteria in BOUNDED.items():
        for kind, call in calls_of(store, criteria).items():
            steps = sqlite_steps(engine, call)
            if steps > 1500 + 750 * parts_of(criteria):
                wrong[name, kind] = steps
    engine.dispose()
    assert wrong == {}


def test_completions_are_heap_only_updates_and_failures_alone_are_not(postgres_database):
    engine = postgres_database.engine
    store = create_store(engine)
    ids = ("w", "c")

    def updates():
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SELECT pg_stat_clear_snapshot()"))
            return connection.execute(
                text(
                    "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
                    "WHERE relname = 'job_history'"
                )
            ).one()

    def end(record, count):
        for number in range(count):
            job_id = f"{record.__name__}-{number}"
            store.record_start(Job(job_id, "t", {"text": "x" * 300}), *ids)
            record(job_id, *ids, 1)

    def settled(expected):
        # The server flushes its counts when a session has been idle, or ends.
        engine.dispose()
        for _ in range(200):
            found = updates()
            if found[0] >= expected:
                return found
            time.sleep(0.05)
        raise AssertionError(f"the statistics stand at {found}, {expected} were expected")

    before = updates()
    end(store.record_completion, 400)
    completed = settled(before[0] + 400)
    # All of them, unless some other session's snapshot keeps a page from being pruned.
    assert completed[1] - before[1] >= 396, "completions are HOT"

    # One at a time: the room on a page is for few new versions before the old ones are pruned.
    with Recorder(store) as recorder:
        for number in range(50):
            recorder.record_start(Job(f"background-{number}", "t", {"text": "x" * 300}), *ids)
            recorder.flush()
            recorder.record_completion(f"background-{number}", *ids, 1)
            recorder.flush()
    background = settled(completed[0] + 50)
    assert background[1] - completed[1] >= 48, "so are those of a Recorder"
    completed = background

    def record_failure(*arguments):
        return store.record_failure(*arguments, "x")

    end(record_failure, 20)
    failed = settled(completed[0] + 20)
    assert failed[1] - completed[1] < 20, "a failure enters the indexes of failures"
