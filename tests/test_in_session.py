"""Recording in the caller's transaction: job work and its history commit or vanish together."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy import StaticPool, create_engine, event, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from jobhistory import (
    ExecutionNotFound,
    HistoryRecord,
    InvalidInput,
    Job,
    SchemaOutOfDate,
    Status,
    create_async_store,
    create_store,
    new_execution_id,
)
from tests.conftest import async_engine

IDS = ("job-1", "worker-1", "request-1")


def begin_by_itself(engine):
    """Let SQLAlchemy begin SQLite's transactions, as its documentation tells for savepoints."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def leave_it_to_us(connection, _):
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.close()

        @event.listens_for(engine, "begin")
        def begin(connection):
            connection.exec_driver_sql("BEGIN")


@pytest.fixture
def engine(database):
    begin_by_itself(database.engine)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
        connection.execute(
            text(
                "CREATE TABLE lines (order_id INTEGER REFERENCES orders (id) "
                "DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    yield database.engine
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE lines"))
        connection.execute(text("DROP TABLE orders"))


@pytest.fixture(params=["database", "memory"])
def store(request, engine, clock):
    return create_store(engine if request.param == "database" else None, clock=clock)


def complete(inside, job_id="job-1"):
    inside.record_start(Job(job_id, "t"), *IDS[1:])
    return inside.record_completion(job_id, *IDS[1:], 5)


def jobs(records):
    return [record.job_id for record in records]


def test_history_commits_with_the_work_and_is_buffered_then(engine, store):
    with Session(engine) as session:
        session.execute(text("INSERT INTO orders VALUES (1)"))
        record = complete(store.in_session(session))
        assert store.recent() == []
        assert session.in_transaction()
        session.commit()
        assert jobs(store.recent()) == ["job-1"]

    assert record.status is Status.COMPLETED
    assert jobs(store.query(status="completed")) == ["job-1"]


@pytest.mark.parametrize("end", ["rollback", "close", "error"])
def test_history_vanishes_with_the_work(engine, store, end):
    store.record_start(Job("before", "t"), *IDS[1:])
    session = Session(engine)
    with suppress(ZeroDivisionError), session:
        inside = store.in_session(session)
        session.execute(text("INSERT INTO orders VALUES (1)"))
        complete(inside)
        inside.record_completion("before", *IDS[1:], 1)
        inside.record_execution(
            job_id="e", worker_id="w", correlation_id="c", task_identifier="t", status="completed"
        )
        if end == "rollback":
            session.rollback()
        elif end == "close":
            session.close()
        raise ZeroDivisionError

    assert store.recent() == []
    assert [(r.job_id, r.status) for r in store.query()] == [("before", "started")]
    assert store.record_completion("before", *IDS[1:], 1).status is Status.COMPLETED


def test_a_savepoint_that_is_rolled_back_takes_its_history_along(engine, store):
    with Session(engine) as session, session.begin():
        inside = store.in_session(session)
        complete(inside, "before")
        with session.begin_nested():
            complete(inside, "kept")
            with session.begin_nested():
                complete(inside, "kept, too")
        savepoint = session.begin_nested()
        complete(inside, "gone")
        with session.begin_nested():
            complete(inside, "gone, too")
        savepoint.rollback()
        complete(inside, "after")
        assert store.recent() == []

    expected = ["before", "kept", "kept, too", "after"]
    assert jobs(store.recent()) == expected
    assert sorted(jobs(store.query())) == sorted(expected)


def test_a_released_savepoint_is_not_committed_yet(engine, store):
    with Session(engine) as session:
        with session.begin_nested():
            complete(store.in_session(session))
        assert store.recent() == []
        session.rollback()

    assert store.recent() == store.query() == []


def test_a_transaction_that_cannot_commit_leaves_no_trace(engine, store):
    with Session(engine) as session:
        session.execute(text("INSERT INTO lines VALUES (7)"))  # of an order that does not exist
        complete(store.in_session(session))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()

    assert store.recent() == store.query() == []


def test_a_session_may_be_used_for_one_transaction_after_the_other(engine, store):
    with Session(engine) as session:
        for number in range(4):
            complete(store.in_session(session), str(number))
            if number % 2:
                session.rollback()
            else:
                session.commit()

    assert jobs(store.recent()) == ["0", "2"]


def test_two_stores_and_two_sessions_do_not_mix(engine, clock):
    one, two = create_store(engine), create_store(engine)
    with Session(engine) as session:
        complete(one.in_session(session), "one")
        complete(two.in_session(session), "two")
        session.commit()

    assert jobs(one.recent()) == ["one"]
    assert jobs(two.recent()) == ["two"]


def test_reads_see_what_is_not_committed_yet_and_records_of_the_session_stay_its_own(engine):
    store = create_store(engine)
    store.record_start(Job("job-1", "t"), *IDS[1:])
    with Session(engine) as session:
        mine = session.scalars(select(HistoryRecord)).one()
        inside = store.in_session(session)
        inside.record_completion(*IDS, 5)

        assert [r.status for r in inside.get_by_job_id("job-1")] == ["completed"]
        assert [r.status for r in inside.query(status="completed")] == ["completed"]
        assert mine in session
        session.refresh(mine)
        assert mine.status is Status.COMPLETED


def test_what_is_refused_leaves_the_transaction_usable(engine, store):
    with Session(engine) as session, session.begin():
        inside = store.in_session(session)
        with pytest.raises(ExecutionNotFound):
            inside.record_completion("unknown", *IDS[1:], 1)
        with pytest.raises(InvalidInput):
            inside.record_start({}, *IDS[1:])
        complete(inside)

    assert jobs(store.recent()) == ["job-1"]


def test_a_pending_object_of_the_app_stays_pending(engine):
    store = create_store(engine)
    with Session(engine) as session:
        mine = HistoryRecord(job_id="half-made")
        session.add(mine)
        complete(store.in_session(session))
        assert mine in session.new
        session.expunge(mine)
        session.commit()
    assert jobs(store.query()) == ["job-1"]


# -- failures survive -----------------------------------------------------------------------------


def break_it(session, how):
    """Make the transaction of a session end in a rollback."""
    if how == "job":
        raise ZeroDivisionError
    if how == "statement":
        session.execute(text("INSERT INTO no_such_table VALUES (1)"))
    if how == "flush":
        session.execute(text("INSERT INTO orders VALUES (1)"))
        session.add(Order(id=1))
        session.flush()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


HOW = ["job", "statement", "flush"]


@pytest.mark.parametrize("how", HOW)
def test_a_tracked_failure_survives_the_rollback(engine, store, how, caplog):
    def ship():
        with (
            Session(engine) as session,
            session.begin(),
            store.in_session(session).track(Job("job-1", "ship", [1]), *IDS[1:]) as execution,
        ):
            assert execution.correlation_id == "request-1"
            session.execute(text("INSERT INTO orders VALUES (7)"))
            break_it(session, how)

    with pytest.raises((ZeroDivisionError, SQLAlchemyError)) as caught:
        ship()

    (record,) = store.get_by_job_id("job-1")
    assert (record.status, record.payload) == ("failed", [1])
    assert record.correlation_id == "request-1"
    assert record.error_type.endswith(type(caught.value).__name__)
    assert [r.id for r in store.recent()] == [record.id]
    assert caplog.messages == []
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM orders")) == 0


@pytest.mark.parametrize("is_for_asyncio", [False, True], ids=["threads", "asyncio"])
def test_a_session_that_is_only_closed_waits_for_nobody(database, clock, is_for_asyncio):
    """Closing ends the transaction of the session before that of its connection."""
    engine = database.engine

    def ship():
        with Session(engine) as session:
            tracker = (
                create_store(engine, clock=clock).in_session(session).track(Job("1", "t"), "w")
            )
            with tracker:
                raise ZeroDivisionError

    async def ship_async():
        closing = []
        with async_engine(database, closing.append) as engine:
            async with AsyncSession(engine) as session:
                inside = create_async_store(engine, clock=clock).in_session(session)
                with suppress(ZeroDivisionError):
                    async with inside.track(Job("1", "t"), "w"):
                        raise ZeroDivisionError
        await closing[0]

    if is_for_asyncio:
        asyncio.run(ship_async())
    else:
        with pytest.raises(ZeroDivisionError):
            ship()
    (record,) = create_store(engine).query()
    assert (record.status, record.error_type) == ("failed", "ZeroDivisionError")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("start", ["before", "inside"])
@pytest.mark.parametrize("by", ["ids", "record", "execution_id"])
def test_a_recorded_failure_survives_the_rollback(engine, store, how, start, by):
    job = Job("job-1", "ship", [1])
    if start == "before":
        started = store.record_start(job, *IDS[1:])
    with Session(engine) as session:
        inside = store.in_session(session)
        if start == "inside":
            started = inside.record_start(job, *IDS[1:])
        try:
            break_it(session, how)
        except (ZeroDivisionError, SQLAlchemyError):
            if by != "record" and start == "before" and how != "job":
                return  # of this execution, nothing but its ids is known
            which = {"ids": IDS, "record": (started,), "execution_id": ()}[by]
            named = {"execution_id": started.id} if by == "execution_id" else {}
            returned = inside.record_failure(*which, execution_time_ms=5, error="no stock", **named)
        session.rollback()
        (record,) = store.get_by_job_id("job-1")

    assert (record.id, record.status, record.payload) == (started.id, "failed", [1])
    assert (returned.id, returned.status, returned.error_message) == (
        started.id,
        "failed",
        "no stock",
    )
    assert [r.id for r in store.recent()] == [record.id]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_failure_survives_a_conflict_with_another_transaction(postgres_database, clock, level):
    engine = postgres_database.engine
    store = create_store(engine, clock=clock)
    started = store.record_start(Job("job-1", "t"), *IDS[1:])
    with Session(engine.execution_options(isolation_level=level)) as session:
        session.execute(text("SELECT count(*) FROM job_history"))
        with engine.begin() as connection:
            connection.execute(text("UPDATE job_history SET attempt_number = 2"))
        store.in_session(session).record_failure(started, error="no stock")
        assert store.query(status="failed") == []
        session.rollback()
    (record,) = store.query()
    assert (record.id, record.status, record.attempt_number) == (started.id, "failed", 2)
    assert [r.id for r in store.recent()] == [started.id]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_failure_survives_a_lock_time_out(postgres_database, clock, end):
    engine = postgres_database.engine
    store = create_store(engine, clock=clock)
    started = store.record_start(Job("job-1", "t"), *IDS[1:])
    with Session(engine) as session, engine.connect() as other:
        session.execute(text("SET LOCAL lock_timeout = '10ms'"))
        other.execute(text("SELECT 1 FROM job_history FOR UPDATE"))
        store.in_session(session).record_failure(started, error="no stock")
        other.rollback()
        getattr(session, end)()
    assert [(r.id, str(r.status)) for r in store.query()] == [(started.id, "failed")]
    assert [r.id for r in store.recent()] == [started.id]


def test_a_repeated_start_that_is_rolled_back_leaves_the_first_one(engine, store):
    started = store.record_start(Job("job-1", "t"), *IDS[1:])
    with Session(engine) as session:
        again = store.in_session(session).record_start(
            Job("job-1", "t"), *IDS[1:], execution_id=started.id
        )
        assert again.id == started.id
        session.rollback()
    assert store.record_completion(started).status is Status.COMPLETED


def test_a_whole_failure_survives_the_rollback_and_nothing_else_does(engine, store):
    with Session(engine) as session:
        inside = store.in_session(session)
        complete(inside, "completed")
        inside.record_start(Job("started", "t"), *IDS[1:])
        inside.record_execution({**vars_of_ended(), "job_id": "ended"})
        failed = {**vars_of_ended(), "job_id": "failed", "status": "failed", "error": "x"}
        inside.record_execution(failed)
        inside.record_many([{**failed, "job_id": "imported"}])
        session.rollback()

    assert jobs(store.query()) == jobs(store.recent()) == ["failed"]


def test_a_failure_in_a_savepoint_that_is_rolled_back_waits_for_the_end(engine, store):
    if engine.dialect.name == "sqlite":
        engine = create_engine(engine.url, poolclass=StaticPool)
        begin_by_itself(engine)
    with Session(engine) as session, session.begin():
        inside = store.in_session(session)
        with (
            suppress(ZeroDivisionError),
            session.begin_nested(),
            inside.track(Job("job-1", "t"), *IDS[1:]),
        ):
            raise ZeroDivisionError
        complete(inside, "job-2")
        assert store.recent() == []

    assert sorted(jobs(store.query())) == ["job-1", "job-2"]
    assert sorted(jobs(store.recent())) == ["job-1", "job-2"]
    engine.dispose()


def test_a_failure_that_is_committed_is_recorded_once(engine, store):
    with Session(engine) as session, session.begin():
        with suppress(ZeroDivisionError), store.in_session(session).track(Job("1", "t"), "w"):
            raise ZeroDivisionError
        session.execute(text("INSERT INTO orders VALUES (1)"))

    assert [r.status for r in store.query()] == [r.status for r in store.recent()] == ["failed"]


def test_a_pool_of_one_connection_is_enough(engine):
    if engine.dialect.name == "sqlite":
        pytest.skip("it is about a server's connections")
    one = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=1)
    store = create_store(one)
    with suppress(ZeroDivisionError), Session(one) as session, session.begin():
        session.execute(text("INSERT INTO orders VALUES (1)"))
        with store.in_session(session).track(Job("1", "t"), "w"):
            raise ZeroDivisionError

    assert [r.status for r in store.query()] == ["failed"]
    one.dispose()


def test_a_failure_that_cannot_be_recorded_later_is_logged_and_the_app_goes_on(
    engine, caplog, monkeypatch
):
    store = create_store(engine)
    with Session(engine) as session:
        inside = store.in_session(session)
        inside.record_execution({**vars_of_ended(), "status": "failed", "error": "x"})

        def broken(*args, **options):
            raise OperationalError("INSERT", {}, Exception("gone"))

        monkeypatch.setattr("jobhistory.database.sessions.LaterTransactions.insert_ended", broken)
        session.rollback()
    assert caplog.messages == ["not recorded after the end of the caller's transaction: gone"]


def test_a_function_is_tracked_in_the_callers_transaction_too(engine, store):
    with Session(engine) as session:

        @store.in_session(session).track(lambda order: Job(order, "ship"), "w")
        def ship(order):
            return 10 // order

        assert ship(5) == 2
        with pytest.raises(ZeroDivisionError):
            ship(0)
        session.commit()

    assert {r.job_id: r.status for r in store.query()} == {"5": "completed", "0": "failed"}
    with Session(engine) as session, pytest.raises(InvalidInput, match="store of an AsyncSession"):

        @store.in_session(session).track(Job("1", "t"), "w")
        async def work(): ...


# -- exactly what was committed -------------------------------------------------------------------


def test_a_savepoint_of_the_connection_takes_its_history_along(engine, store):
    with Session(engine) as session, session.begin():
        inside = store.in_session(session)
        complete(inside, "kept")
        outer = session.connection().begin_nested()
        complete(inside, "gone")
        inner = session.connection().begin_nested()
        complete(inside, "gone, too")
        inner.commit()
        outer.rollback()
        complete(inside, "after")

    assert jobs(store.recent()) == ["kept", "after"]
    assert sorted(jobs(store.query())) == ["after", "kept"]


@pytest.mark.parametrize("on", ["session", "class"])
def test_a_listener_that_raises_after_the_commit_hides_nothing(engine, on):
    store = create_store(engine)
    sessions = sessionmaker(engine)
    with sessions() as session:
        complete(store.in_session(session))

        @event.listens_for(session if on == "session" else sessions, "after_commit")
        def raises(session):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            session.commit()

    assert jobs(store.query()) == jobs(store.recent()) == ["job-1"]


@pytest.mark.parametrize("end", ["close", "rollback"])
def test_a_commit_that_fails_is_none_however_the_session_ends(engine, end):
    store = create_store(engine)
    session = Session(engine)
    session.execute(text("INSERT INTO lines VALUES (7)"))  # of an order that does not exist
    complete(store.in_session(session))
    with pytest.raises(IntegrityError):
        session.commit()
    getattr(session, end)()
    session.close()

    assert store.query() == store.recent() == []


def test_an_error_of_ours_leaves_the_callers_transaction_usable(engine, clock):
    store = create_store(engine, schema="no_such_schema" if is_postgresql(engine) else None)
    good = create_store(engine, clock=clock)
    if not is_postgresql(engine):
        with engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE TRIGGER no BEFORE INSERT ON job_history WHEN NEW.job_id"
                    " = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END"
                )
            )
    with Session(engine) as session, session.begin():
        session.execute(text("INSERT INTO orders VALUES (1)"))
        with pytest.raises((SQLAlchemyError, SchemaOutOfDate)):
            store.in_session(session).record_start(Job("bad", "t"), *IDS[1:])
        complete(good.in_session(session), "good")

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM orders")) == 1
    assert jobs(good.recent()) == ["good"]


def is_postgresql(engine):
    return engine.dialect.name == "postgresql"


def test_in_autocommit_mode_the_ring_buffer_has_what_is_committed_at_once(database, clock):
    store = create_store(database.engine, clock=clock)
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(engine) as session:
        complete(store.in_session(session))
        assert jobs(store.recent()) == ["job-1"]
        session.rollback()

    assert jobs(store.query()) == jobs(store.recent()) == ["job-1"]


def test_failures_survive_in_a_session_on_a_connection_of_a_test_suite(database, clock):
    store = create_store(database.engine, clock=clock)
    if database.name == "sqlite":
        pytest.skip("needs savepoints that pysqlite has no transaction for")
    with database.engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            inside = store.in_session(session)
            inside.record_execution({**vars_of_ended(), "status": "failed", "error": "x"})
            session.rollback()
            assert jobs(inside.query()) == ["1"]
        transaction.rollback()
    assert store.query() == []


def test_a_connection_of_many_sessions_keeps_no_listeners(database, clock):
    store = create_store(database.engine, clock=clock)
    with database.engine.connect() as connection:
        for _ in range(3):
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                complete(store.in_session(session))
                session.commit()
        dispatch = connection.dispatch
        for events in (dispatch.commit, dispatch.rollback, dispatch.rollback_savepoint):
            assert list(events) == []
    assert len(store.recent()) == 3


def test_scoped_sessions_are_sessions_too(engine):
    store = create_store(engine)
    scoped = scoped_session(sessionmaker(engine))
    complete(store.in_session(scoped))
    scoped.commit()
    scoped.remove()

    assert jobs(store.recent()) == ["job-1"]


def test_what_is_no_session_is_refused(engine):
    store = create_store(engine)
    for wrong in (engine, sessionmaker(engine), None):
        with pytest.raises(InvalidInput, match=r"session .* AsyncSession to an AsyncHistoryStore"):
            store.in_session(wrong)
    with pytest.raises(InvalidInput, match=r"session .* Session to a HistoryStore"):
        create_async_store().in_session(Session(engine))
    with Session(engine) as session, pytest.raises(AttributeError):
        store.in_session(session).expire()


def test_a_missing_table_is_out_of_date_there_too(bare_database):
    store = create_store(bare_database.engine)
    with Session(bare_database.engine) as session, pytest.raises(SchemaOutOfDate) as caught:
        store.in_session(session).record_start(Job("1", "t"), "w", "c")
    assert isinstance(caught.value.__cause__, (OperationalError, ProgrammingError))


def test_a_schema_of_the_stores_is_not_the_callers(postgres_database):
    engine = create_engine(postgres_database.url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA audit"))
        connection.execute(text("CREATE TABLE audit.job_history (LIKE public.job_history)"))
    store = create_store(engine, schema="audit")
    with Session(engine) as session:
        complete(store.in_session(session))
        store.in_session(session).record_many([{**vars_of_ended(), "job_id": "bulk"}])
        assert session.scalars(select(HistoryRecord)).all() == [], "the caller's is the default one"
        session.commit()
    with engine.begin() as connection:
        count = connection.scalar(text("SELECT count(*) FROM audit.job_history"))
        connection.execute(text("DROP SCHEMA audit CASCADE"))
    engine.dispose()
    assert count == 2


def vars_of_ended():
    return {
        "job_id": "1",
        "worker_id": "w",
        "correlation_id": "c",
        "task_identifier": "t",
        "status": "completed",
    }


def test_for_asyncio_it_is_the_same(database, clock):
    async def scenario():
        with_engine = async_engine(database, lambda coroutine: closing.append(coroutine))
        closing = []
        with with_engine as engine:
            begin_by_itself(engine.sync_engine)
            store = create_async_store(engine, clock=clock)
            sessions = async_sessionmaker(engine)
            async with sessions() as session:
                await session.execute(text("SELECT 1"))
                inside = store.in_session(session)
                await inside.record_start(Job("kept", "t"), *IDS[1:])
                await inside.record_completion("kept", *IDS[1:], 5)
                savepoint = await session.begin_nested()
                await inside.record_start(Job("gone", "t"), *IDS[1:])
                await inside.record_completion("gone", *IDS[1:], 5)
                await savepoint.rollback()
                assert store.recent() == []
                await session.commit()
                assert jobs(store.recent()) == ["kept"]
                await inside.record_start(Job("gone", "t"), *IDS[1:])
                await session.rollback()
            scoped = async_scoped_session(sessions, asyncio.current_task)
            await store.in_session(scoped).record_start(Job("scoped", "t"), *IDS[1:])
            await scoped.commit()
            await scoped.remove()
            assert sorted(jobs(await store.query())) == ["kept", "scoped"]
            with suppress(ZeroDivisionError):
                async with sessions() as session, session.begin():
                    inside = store.in_session(session)
                    async with inside.track(Job("failed", "t"), *IDS[1:]):
                        await session.execute(text("SELECT 1"))
                        raise ZeroDivisionError
            assert jobs(await store.query(status="failed")) == ["failed"]
            assert jobs(store.recent(1)) == ["failed"]
        for coroutine in closing:
            await coroutine

    asyncio.run(scenario())


def test_the_ring_buffer_has_the_order_of_the_outcomes_of_a_transaction(engine, store):
    with Session(engine) as session:
        inside = store.in_session(session)
        first, second = (inside.record_start(Job(id_, "t"), *IDS[1:]) for id_ in ("1", "2"))
        inside.record_completion(second)
        inside.record_completion(first)
        session.commit()
    assert jobs(store.recent()) == ["2", "1"]


def test_the_commit_of_a_start_does_not_commit_the_outcome_of_another_session(clock):
    """In memory, others see a start before its commit; in a database they cannot."""
    store = create_store(clock=clock)
    with Session() as one, Session() as other:
        started = store.in_session(one).record_start(Job("1", "t"), *IDS[1:])
        store.in_session(other).record_completion(started)
        one.commit()
        assert store.recent() == []
        other.rollback()
    assert [r.status for r in store.query()] == ["started"]
    assert store.recent() == []


def test_many_executions_with_an_id_in_use_are_refused_as_a_whole(engine, store):
    started = store.record_start(Job("1", "t"), *IDS[1:])
    ended = {"worker_id": "w", "correlation_id": "c", "task_identifier": "t", "job_id": "1"}
    new = {**ended, "status": "completed"}
    for twice in (started.id, new_execution_id(started.started_at)):
        many = [new, {**new, "id": twice}, {**new, "id": twice}]
        with pytest.raises(IntegrityError):
            store.record_many(many)
    with Session(engine) as session:
        with pytest.raises(IntegrityError):
            store.in_session(session).record_many([new, {**new, "id": started.id}])
        session.rollback()
    assert [(r.id, r.status) for r in store.query()] == [(started.id, "started")]
    assert store.recent() == []
