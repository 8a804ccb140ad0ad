from __future__ import annotations

import pickle
import traceback
from collections import OrderedDict
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from jobhistory import (
    AlertNotSent,
    ArchiveError,
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    HistoryRecord,
    InvalidInput,
    Job,
    JobHistoryError,
    SchemaOutOfDate,
    StatisticsDenied,
    create_async_store,
    create_store,
)
from jobhistory._runtime.clock import utc_now
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
        (
            SchemaOutOfDate(None, "0002", schema="audit"),
            RuntimeError,
            "in schema 'audit'; create it with 'jobhistory db upgrade --schema audit' "
            "or jobhistory.migrate.upgrade(engine, schema='audit')",
        ),
        (
            SchemaOutOfDate(None, "0002", schema="a://app:hunter2@db/shop"),
            RuntimeError,
            "--schema 'a://app:[redacted]@db/shop'' or jobhistory.migrate.upgrade(engine, "
            "schema='a://app:[redacted]@db/shop')",
        ),
        (
            SchemaOutOfDate("0001", "0002"),
            RuntimeError,
            "at revision 0001, but this version of jobhistory needs 0002",
        ),
        (SchemaOutOfDate("0009", "0002"), RuntimeError, "pip install --upgrade jobhistory"),
        (AlertNotSent("webhook at h", "answered 500"), OSError, "webhook at h answered 500"),
        (
            ArchiveError("s3://b/a", "cannot write x: EIO"),
            OSError,
            "the archive s3://b/a cannot write x: EIO",
        ),
        (StatisticsDenied(), PermissionError, "grant SELECT on job_history_ended"),
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


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://app:hunter2@db/shop",
        "x" * 500 + " postgresql://app:hunter2@db/shop " + "x" * 500,
        {"url": ["redis://:hunter2@cache/0"]},
        b"redis://:hunter2@cache/0",
        OrderedDict(url="redis://:hunter2@cache/0"),
        SimpleNamespace(long="x" * 90, url="redis://:hunter2@cache/0", end="x" * 50),
    ],
)
def test_a_message_shows_no_password_of_a_url(value):
    assert "hunter2" not in str(InvalidInput("n", value, "is wrong"))
    assert "app:[redacted]@db" in str(InvalidInput("n", "a://app:hunter2@db/shop", "is wrong"))


def test_what_is_missing_has_no_value_to_quote():
    assert str(InvalidInput("n", None, "is missing; pass it")) == "n is missing; pass it"


CARD = "-".join(["4111"] * 4)


@contextmanager
def refusing_one_task(engine):
    """Make the history table refuse rows of the task `no`."""
    refuse, accept = (
        "ALTER TABLE job_history ADD CONSTRAINT no CHECK (task_identifier <> 'no')",
        "ALTER TABLE job_history DROP CONSTRAINT no",
    )
    if engine.dialect.name == "sqlite":
        refuse, accept = (
            "CREATE TRIGGER no BEFORE INSERT ON job_history WHEN new.task_identifier = 'no' "
            "BEGIN SELECT RAISE(ABORT, 'no job_history of it'); END",
            "DROP TRIGGER no",
        )
    with engine.begin() as connection:
        connection.execute(text(refuse))
    yield
    with engine.begin() as connection:
        connection.execute(text(accept))


@pytest.fixture
def refusing(database):
    with refusing_one_task(database.engine):
        yield database


@pytest.fixture
def refusing_postgres(postgres_database):
    with refusing_one_task(postgres_database.engine):
        yield postgres_database


def assert_shows_no_value_of_a_row(error):
    """Check the reason and the text of an error and of its causes."""
    assert "job_history" in reason(error)
    assert "4111" not in reason(error)
    assert reason(error) in str(error)
    assert "4111" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("kind", ["own", "in_session"])
def test_an_error_shows_no_value_of_a_row(refusing, kind):
    store = create_store(refusing.engine)
    with Session(refusing.engine) as session:
        history = store if kind == "own" else store.in_session(session)
        with pytest.raises(IntegrityError) as caught:
            history.record_start(Job("1", "no", CARD), "w", "c")

    assert_shows_no_value_of_a_row(caught.value)


def test_an_error_of_psycopg2_shows_no_value_of_a_row(refusing_postgres):
    engine = create_engine(refusing_postgres.url.set(drivername="postgresql+psycopg2"))
    with pytest.raises(IntegrityError) as caught:
        create_store(engine).record_start(Job("1", "no", CARD), "w", "c")
    engine.dispose()

    assert_shows_no_value_of_a_row(caught.value)
    assert CARD in caught.value.orig.diag.message_detail, "who needs it finds it"


def test_an_error_of_many_rows_shows_no_value_of_a_row(refusing):
    row = {"job_id": "1", "worker_id": "w", "correlation_id": "c", "status": "completed"}
    store = create_store(refusing.engine)
    with pytest.raises(IntegrityError) as caught:
        store.record_many([row | {"task_identifier": "no", "payload": CARD}] * 50)

    assert_shows_no_value_of_a_row(caught.value)


def test_an_error_of_asyncpg_shows_no_value_of_a_row(refusing_postgres, event_loop_thread):
    async def fail():
        engine = create_async_engine(refusing_postgres.url.set(drivername="postgresql+asyncpg"))
        try:
            await create_async_store(engine).record_start(Job("1", "no", CARD), "w", "c")
        finally:
            await engine.dispose()

    with pytest.raises(IntegrityError) as caught:
        event_loop_thread.run(fail())

    assert_shows_no_value_of_a_row(caught.value)


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


@pytest.mark.parametrize(
    "call",
    [
        lambda store, value: store.record_failure("1", "w", "c", 1, value),
        lambda store, value: store.record_partial_success("1", "w", "c", 1, value),
        lambda store, value: store.record_execution(value),
        lambda store, value: store.observe(value),
    ],
)
def test_an_argument_that_may_hold_secrets_is_refused_without_its_value(call):
    with pytest.raises(InvalidInput) as caught:
        call(create_store(), [CARD])

    assert "4111" not in str(caught.value) + repr(caught.value)
    assert "<class 'list'>" in str(caught.value)
