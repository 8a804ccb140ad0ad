"""Whatever is put into a column comes back from it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import JSON, delete, insert, select
from sqlalchemy.orm import Session

from jobhistory import HistoryRecord, Job, Status, create_store
from jobhistory.execution.ids import new_execution_id
from jobhistory.sanitize.truncate import storable_text
from jobhistory.schema import COLUMN_NAMES, values_of

names = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=255)
text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
texts = st.none() | text
# In UTC, too, they must lie within the calendar.
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones())
# PostgreSQL keeps JSON numbers as decimals: 1e23 comes back as an integer that is not quite it.
numbers = st.integers(-(2**70), 2**70) | st.floats(-1e15, 1e15)
json = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner) | st.dictionaries(names, inner),
)
milliseconds = st.none() | st.integers(0, 2**63 - 1)
rows = st.fixed_dictionaries(
    {
        "id": st.builds(new_execution_id),
        "job_id": names,
        "correlation_id": names,
        "parent_id": st.none() | st.uuids(),
        "trace_id": st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
        "span_id": st.none() | st.text("0123456789abcdef", min_size=16, max_size=16),
        "task_identifier": names,
        "worker_id": names,
        "status": st.sampled_from(Status),
        "attempt_number": st.integers(0, 2**31 - 1),
        "labels": st.none() | st.dictionaries(names, text),
        "payload": json,
        "payload_is_exact": st.none() | st.booleans(),
        "started_at": moments,
        "completed_at": st.none() | moments,
        "queue_time_ms": milliseconds,
        "execution_time_ms": milliseconds,
        "heartbeat_at": st.none() | moments,
        "progress": st.none() | st.floats(0, 1),
        "expires_at": st.none() | moments,
        "will_retry": st.none() | st.booleans(),
        "error_type": st.none() | names,
        "error_message": texts,
        "error_stack": texts,
        "completed_steps": st.none() | st.lists(names),
        "failed_steps": st.none() | st.lists(names),
        "retry_from_step": texts,
        "partial_results": json,
        "result": json,
        "log_tail": texts,
    }
)


@given(row=rows)
def test_every_column_returns_what_was_put_in(database, row):
    assert set(row) == set(COLUMN_NAMES)
    with database.engine.connect() as connection:
        connection.execute(insert(HistoryRecord.__table__), row)
        stored = connection.execute(
            select(HistoryRecord.__table__).where(HistoryRecord.id == row["id"])
        ).one()
        empty = [
            name
            for name in COLUMN_NAMES
            if isinstance(HistoryRecord.__table__.c[name].type, JSON) and row[name] is None
        ]
        for name in empty:
            column = HistoryRecord.__table__.c[name]
            assert connection.scalar(
                select(column.is_(None)).where(HistoryRecord.id == row["id"])
            ), "nothing is SQL's NULL, not JSON's"
        connection.rollback()

    # A local time that a clock change skips or repeats equals nothing in another zone.
    in_utc = {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value
        for name, value in row.items()
    }
    assert dict(stored._mapping) == in_utc
    for name in ("started_at", "completed_at", "heartbeat_at", "expires_at"):
        assert stored._mapping[name] is None or stored._mapping[name].tzinfo is UTC


@pytest.mark.parametrize("number", [12, 2**63 + 1, 2**70, -(2**64), 1.5, 1e15])
def test_a_lone_number_is_a_payload_like_any_other(plain_store, number):
    plain_store.record_start(Job("1", "t", number), "w", "c")

    (record,) = plain_store.get_by_job_id("1")
    assert record.payload == number
    assert type(record.payload) is type(number)


def test_the_parts_of_a_payload_can_be_asked_for_in_sql(database):
    store = create_store(database.engine)
    for n in (1, 2):
        store.record_start(Job(n, "t", {"n": n}), "w", "c")
    with Session(database.engine) as session:
        found = session.scalars(
            select(HistoryRecord.job_id).where(HistoryRecord.payload["n"].as_integer() == 2)
        ).all()
    assert found == ["2"]


def test_the_orm_writes_and_reads_records_as_well(database):
    row = {
        "id": new_execution_id(),
        "job_id": "1",
        "correlation_id": "c",
        "task_identifier": "t",
        "worker_id": "w",
        "status": Status.STARTED,
        "attempt_number": 1,
        "started_at": datetime(2015, 11, 1, tzinfo=UTC),
    }
    with Session(database.engine) as session:
        session.add(HistoryRecord(**row))
        session.commit()
        record = session.scalars(select(HistoryRecord)).one()
        assert values_of(record) == dict.fromkeys(COLUMN_NAMES) | row


@given(
    st.sets(
        st.text(st.sampled_from("a'\"\\%:?$;-\x00é\ud800\n")) | names, min_size=1, max_size=4
    ).map(lambda found: sorted(name for name in found if name) or ["x"])
)
def test_criteria_find_the_very_texts_that_were_recorded(database, values):
    """They are written into the SQL, so every quote in them has to be right."""
    store = create_store(database.engine)
    with database.engine.begin() as connection:
        connection.execute(delete(HistoryRecord.__table__))
    for value in [*values, "another"]:
        store.record_start(Job("1", value), value, "c")
    clean = {storable_text(value) for value in values}

    assert {r.task_identifier for r in store.query(task_identifier=values)} == clean
    for value in values:
        for criteria in ({"task_identifier": value}, {"worker_id": value}):
            assert {r.worker_id for r in store.query(criteria)} == {storable_text(value)}
        assert store.query(error_type=value) == []
