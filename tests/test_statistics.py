"""Statistics that outlive the rows: what `stats` and `count` tell of what ran."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, text
from sqlalchemy.orm import Session

from jobhistory import InvalidInput, Job, Percentiles, Status, create_store
from jobhistory.query.reports import FIRST_BUCKET
from jobhistory.rollup_schema import ROLLUP, ROLLUP_TABLES, STATE
from jobhistory.statistics.cover import Marks, cover, spans_within
from jobhistory.statistics.spans import Span
from tests.conftest import EVERY_STORE, app_role, as_role, stores_of_kind

HOUR = timedelta(hours=1)
numbers = itertools.count()

# -- an oracle -----------------------------------------------------------------------------------

outcomes = st.sampled_from(
    [
        *({"status": each} for each in ("completed", "completed", "partial_success", "cancelled")),
        {"error": "x"},
        {"error": "x", "will_retry": True},
    ]
)
times = st.none() | st.integers(0, 3) | st.integers(0, 10_000_000)
# Many in a few hours, so that some are in an incomplete hour at the end of a window.
minutes = st.integers(0, 240) | st.integers(0, 240) | st.integers(0, 4 * 24 * 60)
ended = st.fixed_dictionaries(
    {
        "task": st.integers(0, 1),
        # Minutes and microseconds before the end of the days in which all happens.
        "age": st.tuples(minutes, st.sampled_from([0, 0, 1, 59_999_999])),
        "outcome": outcomes,
        "execution_time_ms": times,
        "queue_time_ms": times,
        "is_short_lived": st.booleans(),
    }
)
steps = st.lists(
    st.lists(ended, min_size=4, max_size=12) | st.sampled_from(["fold", "expire", "start"]),
    max_size=8,
)
windows = st.tuples(
    st.none() | minutes | st.integers(-60, 5 * 24 * 60),
    st.none() | minutes | st.integers(-60, 5 * 24 * 60),
    st.sampled_from([None, None, None, "15m", "1h", "5h", "1d", "36h", "7d"]),
)


class Oracle:
    """All that ran, in plain Python."""

    def __init__(self):
        self.rows = []
        self.deleted = []

    def expire(self, now):
        gone = [row for row in self.rows if row.expires_at is not None and row.expires_at <= now]
        self.rows = [row for row in self.rows if row not in gone]
        self.deleted += gone

    @property
    def marks(self):
        started = [row.started_at for row in self.deleted]
        if not started:
            return Marks()
        last = max(started)
        return Marks(rows_from=last.replace(minute=0, second=0, microsecond=0) + HOUR)

    def rows_of(self, from_, to, bucket):
        return self._grouped(
            [
                row
                for row in self.rows
                if (from_ is None or row.started_at >= from_)
                and (to is None or row.started_at <= to)
            ],
            bucket,
        )

    def of(self, covered, bucket):
        ran = self.rows + [row for row in self.deleted if row.status is not Status.STARTED]
        whole = [row for row in ran if covered.whole.holds(row.started_at)]
        ragged = [row for edge in covered.edges for row in self.rows if edge.holds(row.started_at)]
        return self._grouped(whole + ragged, bucket)

    def _grouped(self, rows, bucket):
        found = defaultdict(list)
        for row in rows:
            begun = row.started_at - (row.started_at - FIRST_BUCKET) % bucket if bucket else None
            found[row.task_identifier, begun].append(row)
        return dict(
            sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or FIRST_BUCKET))
        )


def check(stats, rows):
    count = Counter(row.status for row in rows)
    assert stats.executions == len(rows)
    for status in Status:
        assert getattr(stats, status.value) == count[status], status
    failures = [row for row in rows if row.status == "failed"]
    assert stats.final_failures == sum(not row.will_retry for row in failures)
    assert stats.lost == 0
    assert stats.last_start == max(row.started_at for row in rows)
    completed = [row.completed_at for row in rows if row.status == "completed"]
    assert stats.last_success == max(completed, default=None)
    assert stats.last_failure == max((row.completed_at for row in failures), default=None)
    for name in ("execution_time_ms", "queue_time_ms"):
        check_percentiles(
            getattr(stats, name),
            sorted(t for t in (getattr(row, name) for row in rows) if t is not None),
            is_exact=stats.is_exact,
        )


def check_percentiles(found, times, *, is_exact):
    if not times:
        assert found == Percentiles(*[None] * 5)
        return
    assert found.max == times[-1]
    for percent in (5, 50, 95, 99):
        exact = times[-(-len(times) * percent // 100) - 1]
        estimate = getattr(found, f"p{percent}")
        # They are whole numbers, so half a millisecond may come from rounding.
        assert estimate == exact or (not is_exact and abs(estimate - exact) <= exact * 0.02 + 0.5)


@pytest.fixture(params=EVERY_STORE)
def counting(request, clock):
    """A store of every kind in turn, a plain store on the same history, and what it may read."""
    with stores_of_kind(request.param, request, clock) as make:
        where = request.param.rpartition("-")[2]
        store = owner = make()
        if where != "memory":
            owner = create_store(request.getfixturevalue(f"shared_{where}").owner, clock=clock)
        yield store, owner, where != "postgresql_as_app"


@pytest.mark.statistics
@settings(max_examples=settings().max_examples // 2)  # there are many kinds of stores
@given(steps=steps, asked=st.lists(windows, min_size=3, max_size=6))
def test_statistics_are_of_all_that_ran(counting, clock, steps, asked):
    store, owner, may_read_statistics = counting
    oracle, number = Oracle(), next(numbers)
    clock.advance(days=20)  # so that nothing of an earlier example is near
    end, tasks = clock.now, [f"task-{number}-0", f"task-{number}-1"]
    for step in steps:
        if step == "fold":
            owner.fold()
        elif step == "expire":
            clock.advance(minutes=1)
            store.expire()
            oracle.expire(clock.now)
            if oracle.deleted and owner is not store:
                set_mark(owner, "rows_from", oracle.marks.rows_from)
        elif step == "start":
            oracle.rows.append(store.record_start(Job("running", tasks[0]), "w", "c"))
        else:
            oracle.rows += [recorded(store, each, end, tasks) for each in step]

    for from_, to, length in asked:
        from_, to = (
            None if each is None else end - each * timedelta(minutes=1) for each in (from_, to)
        )
        if from_ and to and from_ > to:
            from_, to = to, from_
        bucket = None if length is None else BUCKETS[length]
        window = {"from_": from_, "to": to, "task_identifier": tasks}
        exact = store.stats(window, bucket=length, exact=True)
        rows = oracle.rows_of(from_, to, bucket)
        assert [(each.task_identifier, each.bucket) for each in exact] == list(rows)
        for stats, group in zip(exact, rows.values(), strict=True):
            assert stats.is_exact
            check(stats, group)

        covered = cover(from_, to, now=clock.now, spans=spans_within(bucket), marks=oracle.marks)
        is_from_rows = covered is None or not may_read_statistics
        ran = rows if is_from_rows else oracle.of(covered, bucket)
        found = store.stats(window, bucket=length)
        assert [(each.task_identifier, each.bucket) for each in found] == list(ran)
        for stats, group in zip(found, ran.values(), strict=True):
            check(stats, group)

        if bucket is None:
            for status in (None, "failed", ["completed", "started"]):
                every = [row for group in ran.values() for row in group]
                wanted = (
                    list(Status) if status is None else [status] if status == "failed" else status
                )
                expected = sum(row.status in wanted for row in every)
                assert store.count(window, status=status, expired=True).value == expected
                assert store.count(window, status=status).value == len(
                    store.query(window, status=status, limit=None)
                )


BUCKETS = {
    "15m": timedelta(minutes=15),
    "1h": HOUR,
    "5h": 5 * HOUR,
    "1d": 24 * HOUR,
    "36h": 36 * HOUR,
    "7d": 7 * 24 * HOUR,
}


def recorded(store, described, end, tasks):
    minutes, microseconds = described["age"]
    started_at = end - timedelta(minutes=minutes, microseconds=microseconds)
    return store.record_execution(
        job_id="job",
        task_identifier=tasks[described["task"]],
        worker_id="w",
        correlation_id="c",
        started_at=started_at,
        completed_at=started_at + timedelta(milliseconds=described["execution_time_ms"] or 0),
        execution_time_ms=described["execution_time_ms"],
        queue_time_ms=described["queue_time_ms"],
        expires_at=started_at if described["is_short_lived"] else started_at + timedelta(days=9),
        **described["outcome"],
    )


# -- what statistics keep ------------------------------------------------------------------------


def record(store, *, task="t", status="completed", **fields):
    fields.setdefault("execution_time_ms", 100)
    return store.record_execution(
        job_id="job",
        task_identifier=task,
        worker_id="w",
        correlation_id="c",
        status=status,
        **fields,
    )


def only(items):
    (item,) = items
    return item


@pytest.mark.statistics
def test_statistics_outlive_expired_rows(plain_store, clock):
    store, begun = plain_store, clock.now
    record(store, started_at=begun, execution_time_ms=1000, expires_at=begun)
    record(store, started_at=begun, status="failed", error_type="E", expires_at=begun)
    clock.advance(days=1)
    store.expire()

    assert store.query() == store.stats(exact=True) == []
    for is_folded in (False, True):
        if is_folded:
            store.fold()
        stats = only(store.stats())
        assert (stats.completed, stats.failed, stats.execution_time_ms.max) == (1, 1, 1000)
        assert abs(stats.execution_time_ms.p99 - 1000) <= 20
        assert only(store.stats(bucket="1h")).bucket == begun.replace(minute=0)
    assert store.count(status="failed").value == 0
    assert store.count(status="failed", expired=True).value == 1
    assert str(store.count(expired=True, cap=1)) == "1+"
    for nothing in ({"status": []}, {"task_identifier": []}, {"status": "started"}):
        assert store.count(nothing, expired=True).value == 0


def test_a_real_outcome_takes_the_place_of_a_presumed_one(store, clock):
    started = store.record_start(Job("job", "t"), "w", "c")
    clock.advance(hours=2)
    assert store.reap_lost("1h") == 1
    presumed = only(store.stats())
    assert (presumed.failed, presumed.lost) == (1, 1)
    store.record_completion(started.job_id, "w", "c", 70)

    real = only(store.stats())
    assert (real.executions, real.completed, real.failed, real.lost) == (1, 1, 0, 0)
    assert real.execution_time_ms == Percentiles(*[70] * 5)
    assert store.count(expired=True, status="completed").value == 1


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_a_rollback_takes_back_what_counted(database, clock, is_in_memory):
    store = create_store(None if is_in_memory else database.engine, clock=clock)
    started = store.record_start(Job("running", "t"), "w", "c")
    clock.advance(hours=2)
    store.reap_lost("1h")
    with Session(database.engine) as session:
        inside = store.in_session(session)
        record(inside)
        inside.record_completion("running", "w", "c", 70)
        found = only(inside.stats())
        assert (found.completed, found.failed) == (2, 0), "a session sees its own outcomes"
        session.rollback()
    found = only(store.stats())
    assert (found.executions, found.failed, found.lost) == (1, 1, 1)
    store.record_completion("running", "w", "c", 70)
    found = only(store.stats())
    assert (found.executions, found.completed) == (1, 1)
    assert store.get(started.id).status == "completed"


@pytest.mark.statistics
def test_whole_hours_tell_what_was_never_stored(plain_store, clock):
    """At a ragged end, only rows would count."""
    store = plain_store
    end = clock.now.replace(minute=0)
    for minutes in (10, 50, 90):
        clock.now = end - timedelta(minutes=minutes)
        store.begin(Job("job", "t"), "w", record="failures").end()
    clock.now = end
    window = {"from_": end - timedelta(minutes=80)}
    for is_folded in (False, True):
        if is_folded:
            store.fold()
        stats = only(store.stats(window))
        assert (stats.completed, stats.is_exact) == (3, False), "the window became wider"
        assert store.count(window, expired=True).value == 3
        assert store.stats(window, exact=True) == []


@pytest.mark.statistics
def test_the_hours_at_the_edges_tell_whether_some_were_never_stored(plain_store, clock):
    """Although none of these is in the window's whole hours."""
    store = plain_store
    end = clock.now.replace(minute=0)
    clock.now = end - timedelta(minutes=140)
    store.begin(Job("job", "t"), "w", record="failures").end()
    clock.now = end
    record(store, started_at=end - timedelta(minutes=90))
    window = {"from_": end - timedelta(minutes=150)}
    for is_folded in (False, True):
        if is_folded:
            store.fold()
        assert only(store.stats(window)).executions == 2
        assert store.count(window, expired=True).value == 2
        assert not only(store.stats(window)).is_exact


@pytest.mark.statistics
def test_a_short_window_widens_if_its_rows_are_gone(plain_store, clock):
    store, begun = plain_store, clock.now.replace(minute=30)
    record(store, started_at=begun, expires_at=begun)
    window = {"from_": begun - timedelta(minutes=5), "to": begun + timedelta(minutes=5)}
    assert only(store.stats(window)).is_exact
    clock.advance(days=1)
    store.expire()
    assert only(store.stats(window)).executions == 1
    assert not only(store.stats(window)).is_exact
    assert store.count(window, expired=True).value == 1


@pytest.mark.statistics
def test_only_rows_tell_of_other_criteria(plain_store):
    record(plain_store)
    plain_store.fold()
    for criteria in ({"worker_id": "w"}, {"status": "completed"}, {"job_id": "job"}):
        assert only(plain_store.stats(criteria)).is_exact
        assert only(plain_store.stats(criteria, bucket="1h")).executions == 1
    assert not only(plain_store.stats()).is_exact


@pytest.mark.parametrize(
    "criteria", [{"worker_id": "w"}, {"min_attempt": 2}, {"labels": {"a": "b"}}]
)
def test_expired_executions_are_counted_by_what_statistics_know(plain_store, criteria):
    with pytest.raises(InvalidInput, match="expired True counts by from_, to"):
        plain_store.count(criteria, expired=True)


def test_statistics_in_memory_outlive_the_ring_buffer(clock):
    store = create_store(buffer_size=10, clock=clock)
    for number in range(2_500):
        record(store, execution_time_ms=number, started_at=clock.now)
        clock.advance(seconds=10)
    store.observe({"job_id": 1, "task_identifier": "t", "status": "failed"})

    assert len(store.query()) == 10
    stats = only(store.stats())
    assert (stats.completed, stats.failed, stats.execution_time_ms.max) == (2_500, 1, 2_499)
    assert abs(stats.execution_time_ms.p50 - 1_250) <= 25
    by_hour = store.stats(bucket="1h")
    assert [each.executions for each in by_hour] == [360] * 6 + [341]
    last = store.stats(from_=clock.now - timedelta(minutes=90))
    assert only(last).executions == 360 + 341, "rows are gone, so whole hours tell"
    assert not only(last).is_exact


def test_statistics_in_memory_are_bounded(clock, monkeypatch):
    monkeypatch.setattr("jobhistory.memory.rollups.BUCKETS_LIMIT", 48)
    store = create_store(clock=clock)
    for _ in range(24 * 40):
        record(store, started_at=clock.now)
        clock.advance(hours=1)
    store.fold()
    rollups = store.internals.history._rows.rollups
    assert len(rollups._buckets[Span.HOUR]) <= 48
    assert len(rollups._buckets[Span.DAY]) == 41
    assert only(store.stats()).executions == 24 * 40
    mark = rollups.marks.hours_from
    clock.advance(hours=-30)
    store.fold()
    assert rollups.marks.hours_from == mark, "a mark never moves back"
    clock.advance(hours=30)
    long_ago = store.stats(
        from_=clock.now - timedelta(days=20, hours=1), to=clock.now - timedelta(days=10)
    )
    assert only(long_ago).executions % 24 == 0, "it begins and ends with days"


def test_old_windows_widen_to_what_is_kept(database, clock):
    store = create_store(database.engine, clock=clock)
    clock.now = at("2017-05-20T10:37")
    for started_at in ("2015-07-01T03:00", "2015-07-09T03:00", "2017-03-07T03:00"):
        record(store, started_at=at(started_at))
    store.fold()
    for span, name, mark in (
        ("hour", "hours_from", at("2017-04-15T00:00")),
        ("day", "days_from", at("2016-04-01T00:00")),
    ):
        forget(store, span, name, mark)

    def count(from_, to):
        found = store.stats(from_=at(from_), to=at(to))
        assert not any(each.is_exact for each in found)
        assert store.count(from_=at(from_), to=at(to), expired=True).value == sum(
            each.executions for each in found
        )
        return sum(each.executions for each in found)

    assert count("2017-03-07T10:30", "2017-03-09T10:30") == 1, "the whole day"
    assert count("2017-03-08T00:00", "2017-03-09T10:30") == 0
    assert count("2015-07-05T00:00", "2017-03-06T00:00") == 2, "the whole month"
    assert count("2015-07-05T00:00", "2017-03-08T00:00") == 3
    by_day = store.stats(bucket="1d")
    assert [each.bucket.month for each in by_day] == [7, 7, 3], "from rows, which are still there"
    assert [each.is_exact for each in by_day] == [True, True, False]


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def set_mark(store, name, moment):
    """Set what maintenance sets when it deletes something."""
    with store.internals.session_factory() as session, session.begin():
        session.execute(delete(STATE).where(STATE.c.name == name))
        session.execute(insert(STATE).values(name=name, value=json.dumps(moment.isoformat())))


def forget(store, span, name, mark):
    with store.internals.session_factory() as session, session.begin():
        session.execute(delete(ROLLUP).where(ROLLUP.c.span == span, ROLLUP.c.bucket < mark))
    set_mark(store, name, mark)


# -- who may read them ---------------------------------------------------------------------------


def test_a_role_that_may_not_read_statistics_reads_rows(postgres_database, clock):
    owner = create_store(postgres_database.engine, clock=clock)
    record(owner, expires_at=clock.now)
    record(owner)
    owner.expire()
    owner.fold()
    with (
        app_role(postgres_database.engine) as role,
        create_store(as_role(postgres_database.url, role), clock=clock) as store,
    ):
        for may_read in (0, 1, 2, 3):
            is_enough = may_read == 3
            assert only(store.stats()).executions == (2 if is_enough else 1)
            assert store.count(expired=True).value == (2 if is_enough else 1)
            granted = [table.name for table in ROLLUP_TABLES[: may_read + 1]]
            with postgres_database.engine.begin() as connection:
                connection.execute(text(f"REVOKE SELECT ON job_history_state FROM {role}"))
                connection.execute(text(f"GRANT SELECT ON {', '.join(granted)} TO {role}"))


def test_row_level_security_limits_statistics(postgres_database, clock):
    owner = create_store(postgres_database.engine, clock=clock)
    record(owner, task="theirs")
    record(owner, task="ours")
    owner.fold()
    url = postgres_database.url
    with app_role(postgres_database.engine) as role, create_store(as_role(url, role)) as store:
        with postgres_database.engine.begin() as connection:
            for table in ROLLUP_TABLES:
                connection.execute(text(f"GRANT SELECT ON {table.name} TO {role}"))
        assert len(store.stats()) == 2
        with postgres_database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE job_history ENABLE ROW LEVEL SECURITY"))
            policy = "CREATE POLICY ours ON job_history USING (task_identifier = 'ours')"
            connection.execute(text(policy))
        try:
            assert only(store.stats()).task_identifier == "ours"
            assert store.count(expired=True).value == 1
            assert len(owner.stats()) == 2, "the owner sees all"
        finally:
            with postgres_database.engine.begin() as connection:
                connection.execute(text("DROP POLICY ours ON job_history"))
                connection.execute(text("ALTER TABLE job_history DISABLE ROW LEVEL SECURITY"))
