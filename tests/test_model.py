"""`HistoryRecord` in the queries and the models of an app."""

from __future__ import annotations

import pytest
from sqlalchemy import ForeignKey, Text, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from jobhistory import HistoryRecord, InvalidInput, Job
from jobhistory.schema import TABLE


@pytest.fixture
def jobs(database_store):
    payloads = {
        "1": {"tenant": "acme", "order": {"lines": [3, 4]}, "total": 12},
        "2": {"tenant": "other", "total": 7},
        "3": None,
    }
    for job_id, payload in payloads.items():
        database_store.record_start(Job(job_id, "t", payload), "w", "c")


def found(database, condition):
    with Session(database.engine) as session:
        return sorted(session.scalars(select(HistoryRecord.job_id).where(condition)))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (HistoryRecord.payload["tenant"].as_string() == "acme", ["1"]),
        (HistoryRecord.payload["total"].as_integer() > 5, ["1", "2"]),
        (HistoryRecord.payload[("order", "lines", 1)].as_integer() == 4, ["1"]),
        (HistoryRecord.payload.is_(None), ["3"]),
    ],
)
def test_a_query_looks_into_payloads(database, jobs, condition, expected):
    assert found(database, condition) == expected


def test_values_inside_a_payload_are_loaded_as_json(database, jobs):
    with Session(database.engine) as session:
        lines = select(HistoryRecord.payload["order"]["lines"]).where(HistoryRecord.job_id == "1")
        assert session.scalar(lines) == [3, 4]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (HistoryRecord.payload.contains({"tenant": "acme"}), ["1"]),
        (HistoryRecord.payload.contains({"order": {"lines": [4]}}), ["1"]),
        (HistoryRecord.payload.has_key("total"), ["1", "2"]),
        (HistoryRecord.payload["order"].contains({"lines": [3]}), ["1"]),
    ],
)
def test_the_operators_of_jsonb_work_on_postgresql(
    database, database_store, jobs, condition, expected
):
    if database.name == "postgresql":
        assert found(database, condition) == expected
    else:
        with pytest.raises(DatabaseError):
            found(database, condition)


def test_a_subclass_is_refused_and_leaves_the_table_alone():
    columns = list(TABLE.columns)
    with pytest.raises(InvalidInput, match="labels") as caught:

        class Mine(HistoryRecord):  # type: ignore[misc]
            tenant: Mapped[str] = mapped_column(Text)

    assert (caught.value.argument, caught.value.value) == ("class", "Mine")
    assert "ForeignKey(HistoryRecord.id" in str(caught.value)
    assert list(TABLE.columns) == columns


def test_an_app_relates_its_own_table(database, database_store):
    class Base(DeclarativeBase):
        pass

    class Invoice(Base):
        __tablename__ = "invoice"

        id: Mapped[int] = mapped_column(primary_key=True)
        execution_id: Mapped[object] = mapped_column(
            ForeignKey(HistoryRecord.id, ondelete="CASCADE")
        )

    record = database_store.record_start(Job("1", "t"), "w", "c")
    try:
        Base.metadata.create_all(database.engine)
        with Session(database.engine) as session:
            session.add(Invoice(id=1, execution_id=record.id))
            session.flush()
            both = select(Invoice.id, HistoryRecord.job_id).join(HistoryRecord)
            assert session.execute(both).all() == [(1, "1")]
    finally:
        Base.metadata.drop_all(database.engine)
