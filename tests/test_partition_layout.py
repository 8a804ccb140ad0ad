"""Ranges of time as ranges of ids, and the partitions that the catalogs of PostgreSQL describe."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from jobhistory import new_execution_id
from jobhistory.database.partitions.catalog import read_layout
from jobhistory.database.partitions.spans import first_id, moment_of, next_start, start_of

zones = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
moments = st.datetimes(
    timezones=zones, min_value=datetime(1970, 1, 2), max_value=datetime(9998, 1, 1)
)
lengths = st.sampled_from(["day", "week", "month"])
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


@given(moments, lengths)
def test_a_span_contains_its_moment_and_begins_at_midnight_in_utc(moment, every):
    start, end = start_of(moment, every), next_start(moment, every)

    assert start <= moment < end
    assert start.tzinfo is UTC
    assert start.time() == end.time() == datetime.min.time()
    assert start_of(end, every) == end
    assert start_of(end - timedelta.resolution, every) == start


@pytest.mark.parametrize(
    ("every", "start", "end"),
    [
        ("day", datetime(2026, 11, 28), datetime(2026, 11, 29)),
        ("week", datetime(2026, 11, 23), datetime(2026, 11, 30)),
        ("month", datetime(2026, 11, 1), datetime(2026, 12, 1)),
    ],
)
def test_spans_are_days_weeks_from_monday_and_months(every, start, end):
    moment = datetime(2026, 11, 28, 23, 59, tzinfo=UTC)

    assert start_of(moment, every).replace(tzinfo=None) == start
    assert next_start(moment, every).replace(tzinfo=None) == end


@given(moments)
def test_the_ids_of_a_millisecond_begin_with_its_first_id(moment):
    millisecond = moment_of(first_id(moment))

    assert millisecond <= moment < millisecond + timedelta(milliseconds=1)
    assert first_id(moment) < new_execution_id(moment)
    assert new_execution_id(moment) < first_id(moment + timedelta(milliseconds=1))
    assert moment_of(new_execution_id(moment)) == millisecond


def test_any_uuid_has_a_moment_and_any_moment_an_id():
    assert first_id(datetime.min.replace(tzinfo=UTC)) == uuid.UUID(int=0)
    assert moment_of(uuid.UUID(int=2**128 - 1)).year == 9999


@pytest.fixture
def engine(bare_postgres_url):
    engine = create_engine(bare_postgres_url)
    yield engine
    engine.dispose()


def _layout(engine, *statements, schema=None):
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
        return read_layout(connection, schema)


def test_leaves_are_in_the_order_of_their_bounds(engine):
    layout = _layout(
        engine,
        'CREATE SCHEMA "odd:% Name"',
        'CREATE TABLE "odd:% Name".job_history (id uuid PRIMARY KEY) PARTITION BY RANGE (id)',
        'CREATE TABLE z_first PARTITION OF "odd:% Name".job_history FOR VALUES FROM (MINVALUE)'
        f" TO ('{first_id(MONDAY)}')",
        'CREATE TABLE a_last PARTITION OF "odd:% Name".job_history'
        f" FOR VALUES FROM ('{first_id(MONDAY + timedelta(7))}') TO (MAXVALUE)",
        'CREATE TABLE m_week PARTITION OF "odd:% Name".job_history'
        f" FOR VALUES FROM ('{first_id(MONDAY)}') TO ('{first_id(MONDAY + timedelta(7))}')",
        schema="odd:% Name",
    )

    assert (layout.schema, layout.name) == ("odd:% Name", "job_history")
    assert [leaf.name for leaf in layout.leaves] == ["z_first", "m_week", "a_last"]
    assert {leaf.schema for leaf in layout.leaves} == {"public"}
    first, week, last = layout.leaves
    assert first.lower is None
    assert last.upper is None
    assert (week.lower, week.upper) == (first.upper, last.lower)
    assert moment_of(week.lower) == MONDAY
    assert (layout.pending, layout.is_owner, layout.has_incoming_keys) == ((), True, False)


@pytest.mark.parametrize(
    "statements",
    [
        [],
        ["CREATE TABLE job_history (id uuid PRIMARY KEY)"],
        ["CREATE TABLE job_history (id uuid) PARTITION BY HASH (id)"],
        ["CREATE TABLE job_history (id uuid, at date) PARTITION BY RANGE (at)"],
        ["CREATE TABLE job_history (id uuid, at date) PARTITION BY RANGE (id, at)"],
        [
            "CREATE TABLE job_history (id uuid) PARTITION BY RANGE (id)",
            "CREATE TABLE others PARTITION OF job_history DEFAULT",
        ],
        [
            "CREATE TABLE job_history (id uuid) PARTITION BY RANGE (id)",
            "CREATE TABLE deeper PARTITION OF job_history FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"
            " PARTITION BY HASH (id)",
        ],
    ],
)
def test_other_layouts_are_not_ours(engine, statements):
    assert _layout(engine, *statements) is None


def test_a_table_without_partitions_has_no_leaves(engine):
    layout = _layout(engine, "CREATE TABLE job_history (id uuid) PARTITION BY RANGE (id)")

    assert layout.leaves == ()
    assert layout.is_owner


def test_foreign_keys_of_other_tables_are_noticed(engine):
    layout = _layout(
        engine,
        "CREATE TABLE job_history (id uuid PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE notes (of uuid REFERENCES job_history)",
    )

    assert layout.has_incoming_keys


def test_the_owner_of_a_table_need_not_own_each_leaf(engine):
    role = f"someone_{uuid.uuid4().hex[:8]}"
    statements = [
        f"CREATE ROLE {role}",
        "CREATE TABLE job_history (id uuid PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE one PARTITION OF job_history FOR VALUES FROM (MINVALUE) TO (MAXVALUE)",
        f"ALTER TABLE job_history OWNER TO {role}",
        f"SET LOCAL ROLE {role}",
    ]
    try:
        assert _layout(engine, *statements).is_owner is False
        assert _layout(engine, f"ALTER TABLE one OWNER TO {role}", f"SET ROLE {role}").is_owner
    finally:
        with engine.begin() as connection:
            connection.execute(text("RESET ROLE"))
            connection.execute(text("DROP TABLE job_history"))
            connection.execute(text(f"DROP ROLE {role}"))


def test_an_interrupted_detach_leaves_its_partition_pending(engine):
    _layout(
        engine,
        "CREATE TABLE job_history (id uuid PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE one PARTITION OF job_history FOR VALUES FROM (MINVALUE)"
        f" TO ('{first_id(MONDAY)}')",
        "CREATE TABLE two PARTITION OF job_history"
        f" FOR VALUES FROM ('{first_id(MONDAY)}') TO (MAXVALUE)",
    )
    with engine.connect() as reader, engine.connect() as detaching:
        reader.execute(text("SELECT count(*) FROM job_history"))  # holds a lock on all partitions
        detaching = detaching.execution_options(isolation_level="AUTOCOMMIT")
        detaching.execute(text("SET lock_timeout = '50ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            detaching.execute(text("ALTER TABLE job_history DETACH PARTITION one CONCURRENTLY"))

        layout = read_layout(detaching, None)

    assert [leaf.name for leaf in layout.leaves] == ["two"]
    assert [leaf.name for leaf in layout.pending] == ["one"]


def test_sqlite_has_no_partitions():
    with create_engine("sqlite://").connect() as connection:
        assert read_layout(connection, None) is None
