from __future__ import annotations

import pickle
from contextlib import suppress
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from jobhistory import (
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    HistoryRecord,
    InvalidInput,
    Job,
    JobHistoryError,
    SchemaOutOfDate,
    create_async_store,
    create_store,
)
from jobhistory.clock import utc_now
from jobhistory.errors import reason


def already_finished():
    store = create_store()
    store.record_start(Job("1", "t"), "w", "c")
    return ExecutionAlreadyFinished(store.record_completion("1", "w", "c", 1))


@pytest.mark.parametrize(
    ("error", "builtin", "message"),
    [
        (InvalidInput("n", -1, "is not a count"), ValueError, "n -1 is not a count"),
        (ExecutionNotFound("1", "w", "c"), LookupError, "job_id '1', worker_id 'w'"),
        (already_finished(), RuntimeError, "job '1' has already ended as 'completed'"),
        (SchemaOutOfDate(None, "0002"), RuntimeError, "jobhistory db upgrade"),
        (SchemaOutOfDate("0001", "0002"), RuntimeError, "at revision 0001 and not at 0002"),
        (SchemaOutOfDate("0009", "0002"), RuntimeError, "pip install --upgrade jobhistory"),
        (
            SchemaOutOfDate("0002", "0002", ("index x is missing",)),
            RuntimeError,
            "index x is missing",
        ),
    ],
)
def test_errors_are_ours_and_builtin_say_what_is_wrong_and_can_be_pickled(error, builtin, message):
    assert isinstance(error, JobHistoryError)
    assert isinstance(error, builtin)
    assert message in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_message_quotes_no_more_of_a_value_than_a_reader_wants():
    assert len(str(InvalidInput("n", "x" * 10_000, "is long"))) < 200


DRIVERS = ["postgresql+psycopg", "postgresql+psycopg2"]


@pytest.fixture
def refusing(postgres_database):
    """A database whose history table takes no row of one task."""
    with postgres_database.engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE job_history ADD CONSTRAINT no CHECK (task_identifier <> 'no')")
        )
    yield postgres_database
    with postgres_database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE job_history DROP CONSTRAINT no"))


def assert_shows_no_value(error):
    assert reason(error) == ('new row for relation "job_history" violates check constraint "no"')


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_reason_of_an_error_shows_no_value_of_a_row(refusing, driver):
    engine = create_engine(refusing.url.set(drivername=driver))
    with pytest.raises(IntegrityError) as caught:
        create_store(engine).record_start(Job("1", "no", "4111"), "w", "c")
    engine.dispose()

    assert_shows_no_value(caught.value)


def test_the_reason_of_a_failed_copy_shows_no_value_of_a_row(refusing):
    row = {"job_id": "1", "worker_id": "w", "correlation_id": "c", "status": "completed"}
    store = create_store(refusing.engine)
    with pytest.raises(IntegrityError) as caught:
        store.record_many([row | {"task_identifier": "no", "payload": "4111"}] * 50)

    assert_shows_no_value(caught.value)


def test_the_reason_of_an_error_of_asyncpg_shows_no_value_of_a_row(refusing, event_loop_thread):
    async def fail():
        engine = create_async_engine(refusing.url.set(drivername="postgresql+asyncpg"))
        try:
            await create_async_store(engine).record_start(Job("1", "no", "4111"), "w", "c")
        finally:
            await engine.dispose()

    with pytest.raises(IntegrityError) as caught:
        event_loop_thread.run(fail())

    assert_shows_no_value(caught.value)


def test_the_reason_of_an_error_without_a_server_is_its_text():
    assert reason(OperationalError("SELECT 1", {}, OSError("no\nroute"))) == "no route"
    assert reason(ValueError()) == "ValueError"


def test_the_reason_why_a_session_is_lost_shows_no_value_of_a_row(database):
    with Session(database.engine) as session:
        for _ in range(2):
            session.add(
                HistoryRecord(
                    id=UUID(int=7),
                    job_id="4111",
                    correlation_id="c",
                    task_identifier="t",
                    worker_id="w",
                    status="started",
                    attempt_number=1,
                    started_at=utc_now(),
                )
            )
            with suppress(IntegrityError):
                session.flush()
                session.expunge_all()
        with pytest.raises(InvalidRequestError) as caught:
            session.connection()

    assert "4111" in str(caught.value)
    assert reason(caught.value).endswith("Original exception was")
