"""Each execution counts exactly once, in whatever order and however often folding is killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from jobhistory import create_store
from jobhistory.rollup_schema import ENDED, ROLLUP
from jobhistory.schema import HistoryRecord
from jobhistory.statistics.spans import Span
from tests.test_fold import EXECUTION, START, ended, enqueue, rollups

TASKS = ("import", "export")
STATUSES = ("completed", "failed", "partial_success", "cancelled")
LASTS = {"completed": "last_completed_at", "failed": "last_failed_at"}

times = st.none() | st.integers(0, 10**7)
counted = st.builds(
    ended,
    task=st.sampled_from(TASKS),
    status=st.sampled_from(STATUSES),
    hours=st.integers(-30 * 24, 30 * 24).map(lambda hours: hours / 7),
    execution_time_ms=times,
    queue_time_ms=times,
    will_retry=st.none() | st.booleans(),
    is_lost=st.booleans(),
    is_stored=st.booleans(),
)
corrections = counted.map(
    lambda row: (
        row | {"weight": -1, "completed_at": None, "execution_time_ms": None, "queue_time_ms": None}
    )
)
steps = st.lists(
    st.lists(counted | corrections, min_size=1, max_size=12) | st.integers(1, 5), max_size=12
)


def names_of(row):
    """The counts to which a row adds."""
    yield row["status"]
    if row["status"] == "failed":
        yield from ["retried"] * bool(row["will_retry"]) + ["lost"] * row["is_lost"]
        yield from ["lost_retried"] * (bool(row["will_retry"]) and row["is_lost"])
    if not row["is_stored"]:
        yield "unstored"


def check(found, rows):
    """Compare the measures of a bucket with its rows."""
    new = [row for row in rows if row["weight"] > 0]
    counts = Counter()
    for row in rows:
        for name in names_of(row):
            counts[name] += row["weight"]
    assert found.counts == dict.fromkeys(found.counts, 0) | counts
    assert found.last["last_started_at"] == max((r["started_at"] for r in new), default=None)
    for status, name in LASTS.items():
        ends = (row["completed_at"] for row in new if row["status"] == status)
        assert found.last[name] == max(ends, default=None)
    lost = (r["completed_at"] for r in new if r["status"] == "failed" and r["is_lost"])
    assert found.last["last_lost_at"] == max(lost, default=None)
    for name in ("execution_time", "queue_time"):
        known = sorted(r[f"{name}_ms"] for r in rows if r[f"{name}_ms"] is not None)
        kept = getattr(found, name)
        assert (kept.sum, kept.max) == (sum(known), max(known, default=None))
        assert kept.histogram.count == len(known)
        for percent, estimate in zip((50, 95, 99), kept.percentiles((50, 95, 99)), strict=True):
            exact = known[-(-len(known) * percent // 100) - 1] if known else None
            # Half a millisecond more, because estimates are whole milliseconds.
            assert estimate == exact or abs(estimate - exact) <= 0.02 * exact + 0.5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps)
def test_rollups_and_queue_are_what_python_counts(database, database_store, steps):
    with database.engine.begin() as connection:
        connection.execute(ROLLUP.delete())
        connection.execute(ENDED.delete())
    history = database_store.internals.history
    rows = []
    for step in steps:
        if isinstance(step, int):
            history.fold_once(step)
        else:
            enqueue(database.engine, *step)
            rows += step
    with database.engine.connect() as connection:
        in_queue = connection.execute(select(func.count()).select_from(ENDED)).scalar_one()
    before = sum(count for _, count in _executions(database.engine))
    weights = Counter(row["weight"] for row in rows)
    assert in_queue <= len(rows)
    database_store.fold(batch_size=4)
    expected = defaultdict(list)
    for row in rows:
        for span in Span:
            expected[span.value, row["task_identifier"], span.start(row["started_at"])].append(row)
    found = rollups(database.engine)
    assert found.keys() == expected.keys()
    for key, bucket in expected.items():
        check(found[key], bucket)
    assert before <= weights[1]


def _executions(engine, span="hour"):
    """The numbers of executions of each task in the rollups of a span."""
    total = func.sum(sum((ROLLUP.c[name] for name in STATUSES[1:]), ROLLUP.c[STATUSES[0]]))
    folded = select(ROLLUP.c.task_identifier, total).where(ROLLUP.c.span == span)
    with engine.connect() as connection:
        return connection.execute(folded.group_by(ROLLUP.c.task_identifier)).all()


def _check_history(engine):
    """Rollups of each span and queue together count each row of the history once."""
    row = HistoryRecord
    with engine.connect() as connection:
        in_history = connection.execute(
            select(row.task_identifier, func.count()).group_by(row.task_identifier)
        ).all()
        in_queue = connection.execute(
            select(ENDED.c.task_identifier, func.sum(ENDED.c.weight)).group_by(
                ENDED.c.task_identifier
            )
        ).all()
    for span in Span:
        counted = Counter(dict(in_queue))
        counted.update({task: int(count) for task, count in _executions(engine, span.value)})
        # Workers of earlier tests may fold what they recorded after these have emptied the tables.
        assert {task: counted[task] for task in TASKS} == dict(in_history)
    for (span, task, _), measures in rollups(engine).items():
        if task not in TASKS:
            continue
        assert measures.execution_time.histogram.count == measures.executions, span


def _execution(number, task=None):
    return EXECUTION | {
        "task_identifier": task or TASKS[number % 2],
        "started_at": START + timedelta(minutes=7 * number),
        "execution_time_ms": number,
    }


def test_several_folders_and_writers_at_once(database):
    def write(number):
        for each in range(20):
            store.record_many([_execution(number + each)] * 5)

    def fold(number):
        return sum(store.fold(batch_size=7 + number) for _ in range(10))

    with create_store(database.url) as store, ThreadPoolExecutor(6) as threads:
        writing = [threads.submit(write, number) for number in range(3)]
        folding = [threads.submit(fold, number) for number in range(3)]
        for each in writing:
            each.result()
        folded = sum(each.result() for each in folding)
        _check_history(database.engine)
        assert folded + store.fold() == 300
    _check_history(database.engine)


def _write_until_killed(url, seed):
    generator = random.Random(seed)
    with create_store(url) as store:
        while True:
            first = generator.randrange(2_000)
            store.record_many([_execution(first + each) for each in range(20)])


def _fold_until_killed(url):
    with create_store(url) as store:
        while True:
            store.fold(batch_size=300)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_folders_lose_nothing_and_count_nothing_twice(database):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # so that a process starts in no time
    url = database.url.render_as_string(hide_password=False)
    writers = [
        context.Process(target=_write_until_killed, args=(url, seed), daemon=True)
        for seed in range(2)
    ]
    for writer in writers:
        writer.start()

    def start_folder():
        folder = context.Process(target=_fold_until_killed, args=(url,), daemon=True)
        folder.start()
        return folder

    kills = 0
    folders = [start_folder() for _ in range(3)]
    try:
        while kills < 25:
            before = sum(count for _, count in _executions(database.engine))
            victim = folders.pop(0)
            folders.append(start_folder())
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:  # until somebody folds
                if sum(count for _, count in _executions(database.engine)) > before:
                    break
            time.sleep(random.uniform(0, 0.05))
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            kills += 1
    finally:
        for process in (*folders, *writers):
            process.kill()
            process.join()
    _check_history(database.engine)
    with create_store(database.url) as store:
        store.fold()
    _check_history(database.engine)
    assert sum(count for _, count in _executions(database.engine)) > 0
