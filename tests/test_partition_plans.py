"""Statements by id have one plan for all ids also where the history table has partitions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import create_engine, text

from jobhistory import Job, create_store
from jobhistory.database.partitions.spans import first_id
from jobhistory.rollup_schema import ROLLUP_TABLES

NOW = datetime(2026, 11, 26, tzinfo=UTC)
BOUNDS = [
    "MINVALUE",
    *(f"'{first_id(NOW - timedelta(weeks=each))}'" for each in range(4, -1, -1)),
    "MAXVALUE",
]
BEFORE_A_PLAN_FOR_ALL = 10
"""psycopg prepares a statement after five executions, and PostgreSQL plans five more anew."""


@pytest.fixture
def engine(postgres_database):
    """An engine with one connection, to a schema in which the history table has six partitions."""
    with postgres_database.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA tree"))
        for name in ("job_history", *(table.name for table in ROLLUP_TABLES)):
            parted = "PARTITION BY RANGE (id)" if name == "job_history" else ""
            copy = f"CREATE TABLE tree.{name} (LIKE public.{name} INCLUDING ALL) {parted}"
            connection.execute(text(copy))
        for number, (low, high) in enumerate(pairwise(BOUNDS)):
            leaf = f"CREATE TABLE tree.leaf_{number} PARTITION OF tree.job_history"
            connection.execute(text(f"{leaf} FOR VALUES FROM ({low}) TO ({high})"))
    engine = create_engine(
        postgres_database.url,
        pool_size=1,
        max_overflow=0,
        execution_options={"schema_translate_map": {None: "tree"}},
    )
    yield engine
    engine.dispose()
    with postgres_database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA tree CASCADE"))


@pytest.fixture
def store(engine):
    return create_store(engine, clock=lambda: NOW)


def plans_for_all(engine, beginning: str) -> int:
    """How often plans for all values were used, by statements that begin with a text."""
    count = text("SELECT sum(generic_plans) FROM pg_prepared_statements WHERE statement LIKE :like")
    with engine.connect() as connection:
        return connection.scalar(count, {"like": f"{beginning}%"})


def test_an_execution_is_read_by_one_plan_for_all_ids(engine, store):
    record = store.record_start(Job(1, "ship"), "worker-1", "request-1")

    for _ in range(BEFORE_A_PLAN_FOR_ALL + 2):
        assert store.get(record.id).job_id == "1"

    assert plans_for_all(engine, "SELECT tree.job_history") >= 2


def test_outcomes_by_record_have_one_plan_for_all_ids(engine, store):
    for number in range(BEFORE_A_PLAN_FOR_ALL + 2):
        record = store.record_start(Job(number, "ship"), "worker-1", "request-1")
        assert store.record_completion(record).status == "completed"

    assert plans_for_all(engine, "UPDATE tree.job_history") >= 2
