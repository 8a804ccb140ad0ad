"""Every operation on the engines and through the sessions that apps have."""

from __future__ import annotations

import asyncio
import os
import random
import stat
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC
from functools import partial
from unittest.mock import Mock

import pytest
import sqlalchemy
from sqlalchemy import Delete, Update, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from jobhistory import (
    ExecutionAlreadyFinished,
    HistoryRecord,
    InvalidInput,
    Job,
    SchemaOutOfDate,
    Status,
    create_async_store,
    create_store,
    migrate,
)
from jobhistory.database.deadlines import TimeLimits
from jobhistory.database.engines import async_engine_from_url, engine_from_url
from jobhistory.schema import values_of
from tests.conftest import app_role, as_role
from tests.facades import Synchronous
from tests.servers import kill, pgbouncer, start_again, wheel_server

MANY = 30


def exercise(store, clock):
    """Call every operation of a store once and check what it returns."""
    begin, complete = store.record_start, store.record_completion
    begin(Job("1", "t", {"a": [1.5, None]}), "w", "c")
    clock.advance(seconds=1)
    assert complete("1", "w", "c", 5).status is Status.COMPLETED
    assert complete("1", "w", "c", 5).execution_time_ms == 5, "again"
    with pytest.raises(ExecutionAlreadyFinished):
        store.record_failure("1", "w", "c", 5, "boom")
    begin(Job("2", "t"), "w", "c")
    store.record_failure("2", "w", "c", 5, ValueError("order 7 is lost"))
    begin(Job("3", "t"), "w", "c")
    store.record_partial_success("3", "w", "c", 5, {"failed_steps": ["upload"]})
    ended = {"task_identifier": "u", "worker_id": "w", "correlation_id": "c"}
    store.record_execution(ended, job_id="4", status="completed")
    many = [{**ended, "job_id": f"m-{n}", "status": "completed"} for n in range(MANY)]
    assert store.record_many(many) == MANY
    assert store.record_many([{**many[0], "job_id": "last"}]) == 1
    begin(Job("5", "t"), "w", "c")
    total = MANY + 6

    assert [r.payload for r in store.get_by_job_id("1")] == [{"a": [1.5, None]}]
    assert len(store.get_by_correlation_id("c")) == len(store.query(limit=None)) == total
    page = store.page(limit=2)
    assert len(store.page(limit=2, after=page.next_cursor).records) == 2
    assert sum(1 for _ in store.iterate(batch_size=10)) == total
    assert store.count().value == total
    assert {s.task_identifier: s.executions for s in store.stats()} == {"t": 4, "u": MANY + 2}
    assert [f.count for f in store.failure_groups()] == [1]
    assert [r.job_id for r in store.running()] == ["5"]
    clock.advance(hours=2)
    assert store.reap_lost("1h") == 1
    assert store.expire(dry_run=True) == 0
    clock.advance(days=40)
    assert store.expire(dry_run=True) == store.expire(batch_size=10) == total
    assert len(store.recent()) == total


def exercise_in_session(store, sessions):
    """Record in the transactions of an app's sessions, of which one is rolled back."""
    for job_id, ends in (("kept", "commit"), ("gone", "rollback")):
        with sessions() as session:
            inside = store.in_session(session)
            inside.record_start(Job(job_id, "in_session"), "w", "c")
            inside.record_completion(job_id, "w", "c", 1)
            inside.record_many(
                [
                    {
                        "job_id": f"{job_id}-too",
                        "task_identifier": "in_session",
                        "worker_id": "w",
                        "correlation_id": "c",
                        "status": "completed",
                    }
                ]
            )
            assert len(inside.get_by_job_id(job_id)) == 1
            getattr(session, ends)()
    found = store.query(task_identifier="in_session")
    assert sorted(r.job_id for r in found) == ["kept", "kept-too"]


@contextmanager
def engine_for(url, **options):
    engine = create_engine(url, **options)
    yield engine
    assert engine.pool.checkedout() == 0
    engine.dispose()


def of_driver(url, driver):
    return url.set(drivername=f"postgresql+{driver}")


ENGINES = {
    "psycopg2": lambda url: engine_for(of_driver(url, "psycopg2")),
    "AUTOCOMMIT": lambda url: engine_for(url, isolation_level="AUTOCOMMIT"),
    "REPEATABLE READ": lambda url: engine_for(url, isolation_level="REPEATABLE READ"),
    "SERIALIZABLE": lambda url: engine_for(url, isolation_level="SERIALIZABLE"),
    "psycopg2 SERIALIZABLE": lambda url: engine_for(
        of_driver(url, "psycopg2"), isolation_level="SERIALIZABLE"
    ),
    "pool of one": lambda url: engine_for(url, pool_size=1, max_overflow=0, pool_timeout=1),
}


@pytest.mark.parametrize("kind", ENGINES)
def test_every_operation_on_an_engine_of_the_app(postgres_database, clock, kind):
    with ENGINES[kind](postgres_database.url) as engine:
        store = create_store(engine, clock=clock)
        exercise(store, clock)
        if kind != "AUTOCOMMIT":  # where a rollback takes nothing back
            exercise_in_session(store, sessionmaker(engine))


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
def test_every_operation_on_an_engine_for_asyncio(
    postgres_database, event_loop_thread, clock, driver, level
):
    url = of_driver(postgres_database.url, driver)
    engine = create_async_engine(url, isolation_level=level)
    exercise(Synchronous(create_async_store(engine, clock=clock), event_loop_thread), clock)
    event_loop_thread.run(engine.dispose())


@pytest.mark.skipif(
    sqlalchemy.__version__ < "2.1", reason="sessions of SQLAlchemy 2.0 have no execution options"
)
def test_options_of_the_apps_sessions(bare_database, clock):
    """The statements have them, as if they were the app's own."""
    schema = "main" if bare_database.name == "sqlite" else "audit"
    migrate.upgrade(bare_database.engine, schema=schema)
    options = {"schema_translate_map": {None: schema}}
    sessions = sessionmaker(bare_database.engine, execution_options=options)
    exercise(create_store(sessions, clock=clock), clock)


@pytest.mark.slow
def test_transactions_in_two_phases(clock):
    """The server of the other tests allows none."""
    try:
        with wheel_server() as server:
            url = of_driver(make_url(server.get_uri()), "psycopg")
            autocommit = engine_for(url, isolation_level="AUTOCOMMIT")
            with autocommit as engine, engine.connect() as connection:
                connection.execute(text("ALTER SYSTEM SET max_prepared_transactions = 10"))
            kill(server)
            start_again(server)
            with engine_for(url) as engine:
                migrate.upgrade(engine)
                prepared = []
                event.listen(engine, "prepare_twophase", lambda *a: prepared.append(a))
                sessions = sessionmaker(engine, twophase=True)
                exercise(create_store(sessions, clock=clock), clock)
                assert prepared
    except LookupError as error:
        pytest.skip(str(error))


# Routing


class Routing(Session):
    """SQLAlchemy's example: flushes, UPDATE and DELETE use the leader, the rest the followers."""

    leader, followers = None, ()

    def get_bind(self, mapper=None, clause=None):
        if mapper and not issubclass(mapper.class_, HistoryRecord):
            raise AssertionError("not a class of ours")
        if self._flushing or isinstance(clause, Update | Delete):
            return self.leader
        return random.choice(self.followers)


@contextmanager
def read_only(database):
    """Another engine for a database, whose connections refuse to write."""
    with engine_for(database.url) as engine:

        @event.listens_for(engine, "connect")
        def refuse_writes(connection, _):
            cursor = connection.cursor()
            if database.name == "sqlite":
                cursor.execute("PRAGMA query_only = ON")
            else:
                cursor.execute("SET default_transaction_read_only = on")
                connection.commit()
            cursor.close()

        yield engine


@pytest.fixture
def routing(database, monkeypatch):
    """A routing session's class, and the statements on its leader and on its followers."""
    on_leader, on_followers = [], []
    with read_only(database) as first, read_only(database) as second:
        for engine, statements in (
            (database.engine, on_leader),
            (first, on_followers),
            (second, on_followers),
        ):
            event.listen(
                engine,
                "before_cursor_execute",
                lambda *a, statements=statements: statements.append(a[2]),
            )
        monkeypatch.setattr(Routing, "leader", database.engine)
        monkeypatch.setattr(Routing, "followers", (first, second))
        yield Routing, on_leader, on_followers


def test_a_routing_session_writes_to_the_leader_and_reads_from_followers(routing, clock):
    session_class, on_leader, on_followers = routing
    store = create_store(sessionmaker(class_=session_class), clock=clock)
    exercise(store, clock)

    asked = [statement for statement in on_followers if "job_history" in statement]
    assert asked
    assert all(statement.lstrip().startswith("SELECT") for statement in asked)
    assert any(statement.startswith("INSERT") for statement in on_leader)
    exercise_in_session(store, lambda: session_class())


def test_what_a_write_reads_comes_from_the_leader(routing, clock):
    session_class, on_leader, on_followers = routing
    store = create_store(sessionmaker(class_=session_class), clock=clock)
    store.record_start(Job("1", "t"), "w", "c")
    store.record_completion("1", "w", "c", 1)
    store.record_completion("1", "w", "c", 1)

    assert [s.split()[0] for s in on_leader if "job_history" in s][-3:] == [
        "UPDATE",
        "UPDATE",
        "SELECT",
    ]
    assert [s for s in on_followers if "job_history" in s] == []


def test_a_routing_session_for_asyncio(postgres_database, event_loop_thread, clock):
    leader, follower = (create_async_engine(postgres_database.url) for _ in range(2))
    statements = []
    event.listen(
        follower.sync_engine, "before_cursor_execute", lambda *a: statements.append(a[2].split()[0])
    )

    class AsyncRouting(Routing):
        pass

    AsyncRouting.leader, AsyncRouting.followers = leader.sync_engine, (follower.sync_engine,)
    sessions = async_sessionmaker(sync_session_class=AsyncRouting)
    exercise(Synchronous(create_async_store(sessions, clock=clock), event_loop_thread), clock)
    assert set(statements) == {"SELECT"}
    for engine in (leader, follower):
        event_loop_thread.run(engine.dispose())


def test_engines_by_class(database, clock, tmp_path):
    with engine_for(f"sqlite:///{tmp_path}/other.db") as other:
        binds = {HistoryRecord: database.engine}
        store = create_store(sessionmaker(other, binds=binds), clock=clock)
        exercise(store, clock)
        exercise_in_session(store, sessionmaker(other, binds=binds))


# Isolation levels


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_loser_of_a_race_hears_that_the_execution_has_ended(postgres_database, level, driver):
    url = of_driver(postgres_database.url, driver)
    with engine_for(url, isolation_level=level) as engine:
        store = create_store(engine)
        ends = [
            lambda: store.record_completion("1", "w", "c", 1),
            lambda: store.record_failure("1", "w", "c", 1, "boom"),
        ]
        for _ in range(10):
            store.record_start(Job("1", "t"), "w", "c")
            barrier, raised = threading.Barrier(len(ends)), []

            def end(record, barrier=barrier, raised=raised):
                barrier.wait()
                try:
                    record()
                except Exception as error:
                    raised.append(type(error))

            threads = [threading.Thread(target=end, args=(each,)) for each in ends]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert raised == [ExecutionAlreadyFinished]


# Errors


def connections(engine):
    """The connections that an engine gives out from now on."""
    given = []
    event.listen(engine, "checkout", lambda connection, *_: given.append(connection))
    return given


ERRORS = ["55P03", "57014", "25006", "42501", "42601"]


@pytest.mark.parametrize("state", ERRORS)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_an_error_costs_no_more_queries(postgres_database, state, driver):
    with engine_for(of_driver(postgres_database.url, driver)) as engine:
        store = create_store(engine)
        statements = []

        @event.listens_for(engine, "before_cursor_execute", retval=True)
        def fail(connection, cursor, statement, parameters, context, executemany):
            statements.append(statement)
            return f"DO $$ BEGIN RAISE 'failed' USING ERRCODE = '{state}'; END $$", ()

        given = connections(engine)
        with pytest.raises(DBAPIError, match="failed"):
            store.record_start(Job("1", "t"), "w", "c")
        assert len(statements) == len(given) == 1


def test_a_busy_database_costs_no_more_queries(tmp_path):
    url = f"sqlite:///{tmp_path}/history.db"
    with engine_for(url, connect_args={"timeout": 0}) as engine:
        migrate.upgrade(engine)
        store = create_store(engine)
        store._history.limits = TimeLimits(busy=0)
        with engine.connect() as blocking:
            blocking.exec_driver_sql("BEGIN EXCLUSIVE")
            statements = []
            event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
            with pytest.raises(OperationalError, match="locked"):
                store.record_start(Job("1", "t"), "w", "c")
        assert {statement.split()[0] for statement in statements} == {"INSERT"}


def test_a_missing_table_is_told_without_a_second_connection(bare_database):
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 30}
    with engine_for(bare_database.url, **options) as engine:
        given = connections(engine)
        with Session(engine) as session, pytest.raises(SchemaOutOfDate):
            create_store(engine).in_session(session).record_start(Job("1", "t"), "w", "c")
        assert len(given) == 1


@pytest.mark.parametrize("call", ["record_start", "query"])
def test_asyncpg_names_a_missing_schema_too(postgres_database, event_loop_thread, call):
    engine = create_async_engine(of_driver(postgres_database.url, "asyncpg"))
    store = Synchronous(create_async_store(engine, schema="nowhere"), event_loop_thread)
    with pytest.raises(SchemaOutOfDate):
        store.query() if call == "query" else store.record_start(Job("1", "t"), "w", "c")
    event_loop_thread.run(engine.dispose())


# Roles


@pytest.fixture
def role(postgres_database):
    with app_role(postgres_database.engine) as name:
        yield name


@contextmanager
def row_level_security(engine):
    """Let everyone see and change all rows, by a policy."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE job_history ENABLE ROW LEVEL SECURITY"))
        connection.execute(text("CREATE POLICY everyone ON job_history USING (true)"))
    yield
    with engine.begin() as connection:
        connection.execute(text("DROP POLICY everyone ON job_history"))
        connection.execute(text("ALTER TABLE job_history DISABLE ROW LEVEL SECURITY"))


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("rows", ["all rows", "row-level security"])
def test_a_role_that_owns_nothing(postgres_database, role, clock, driver, rows):
    with ExitStack() as stack:
        if rows == "row-level security":
            stack.enter_context(row_level_security(postgres_database.engine))
        url = as_role(of_driver(postgres_database.url, driver), role)
        engine = stack.enter_context(engine_for(url))
        exercise(create_store(engine, clock=clock), clock)
        exercise_in_session(create_store(engine, clock=clock), sessionmaker(engine))


def many(name, count=2):
    """Executions that have ended, as `record_many` takes them."""
    ids = {"task_identifier": "t", "worker_id": "w", "correlation_id": "c", "status": "completed"}
    return [{**ids, "job_id": f"{name}-{n}"} for n in range(count)]


@pytest.mark.parametrize("bind", ["engine", "URL"])
def test_row_level_security_is_asked_about_once_a_connection(postgres_database, role, bind):
    url = as_role(postgres_database.url, role)
    with row_level_security(postgres_database.engine), engine_for(url) as engine:
        store = create_store(engine if bind == "engine" else url)
        statements = []
        event.listen(
            store._owned_engine or engine,
            "before_cursor_execute",
            lambda *a: statements.append(a[2]),
        )
        for name in "abc":
            store.record_many(many(name))
        store.close()
        assert sum("row_security_active" in each for each in statements) == 1
        assert len(store.recent()) == 6


def test_row_level_security_that_is_enabled_later(postgres_database, role):
    with engine_for(as_role(postgres_database.url, role)) as engine:
        store = create_store(engine)
        store.record_many(many("before"))
        with row_level_security(postgres_database.engine):
            with pytest.raises(DBAPIError, match="row-level security"):
                store.record_many(many("first"))
            store.record_many(many("then"))
        assert [r.job_id for r in store.recent()] == ["before-0", "before-1", "then-0", "then-1"]


# PgBouncer


@pytest.fixture(scope="module")
def bouncer(migrated_postgres):
    try:
        with pgbouncer(migrated_postgres) as url:
            yield url
    except LookupError as error:
        pytest.skip(str(error))


def exercise_often(store):
    """Repeat statements until drivers would prepare them, on several connections at once."""

    def record(thread):
        for n in range(20):
            ids = (f"{thread}-{n}", "w", "c")
            store.record_start(Job(ids[0], "often"), *ids[1:])
            store.record_completion(*ids, 1)
            assert len(store.get_by_job_id(ids[0])) == 1

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(record, range(4))) == [None] * 4
    assert store.count(task_identifier="often").value == 80


def queued(database):
    with database.engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM job_history_ended"))


APP_ENGINES_BEHIND_A_POOLER = {
    "psycopg": lambda url: engine_for(url, connect_args={"prepare_threshold": None}),
    "psycopg2": lambda url: engine_for(of_driver(url, "psycopg2")),
}


@pytest.mark.parametrize("kind", ["URL", "prepare=False", *APP_ENGINES_BEHIND_A_POOLER])
def test_a_pooler_in_transaction_mode(postgres_database, bouncer, kind):
    with ExitStack() as stack:
        bind = bouncer
        if kind in APP_ENGINES_BEHIND_A_POOLER:
            bind = stack.enter_context(APP_ENGINES_BEHIND_A_POOLER[kind](bouncer))
        with create_store(bind, prepare=kind != "prepare=False") as store:
            exercise_often(store)
            ids = {"job_id": "1", "worker_id": "w", "correlation_id": "c"}
            many = {"task_identifier": "many", "status": "completed"} | ids
            store.record_many([many] * 60)  # by a setting that ends with the transaction
            store.record_execution(many)
    assert queued(postgres_database) == 80 + 61


ASYNCPG_BEHIND_A_POOLER = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: str(uuid.uuid4()),
}


@pytest.mark.parametrize("kind", ["URL", "asyncpg URL", "psycopg", "asyncpg"])
def test_a_pooler_and_a_store_for_asyncio(postgres_database, bouncer, event_loop_thread, kind):
    engine = None
    if kind == "asyncpg URL":
        store = create_async_store(of_driver(bouncer, "asyncpg"), prepare=False)
        exercise_often(Synchronous(store, event_loop_thread))
        event_loop_thread.run(store.close())
        return
    if kind == "psycopg":
        engine = create_async_engine(bouncer, connect_args={"prepare_threshold": None})
    elif kind == "asyncpg":
        url = of_driver(bouncer, "asyncpg")
        engine = create_async_engine(url, connect_args=ASYNCPG_BEHIND_A_POOLER)
    store = Synchronous(create_async_store(engine or bouncer), event_loop_thread)
    exercise_often(store)
    store.close()
    if engine is not None:
        event_loop_thread.run(engine.dispose())


def test_statements_are_prepared_where_no_pooler_is(postgres_database):
    with create_store(postgres_database.url) as store:
        for n in range(10):
            store.get_by_job_id(str(n))
        with store._owned_engine.connect() as connection:
            assert connection.connection.driver_connection.prepare_threshold is not None


def prepared_statements(store):
    """The statements that are prepared on the store's only connection."""
    with store._owned_engine.connect() as connection:
        return set(connection.scalars(text("SELECT statement FROM pg_prepared_statements")))


def record_every_outcome(store):
    start = partial(store.record_start, worker_id="w", correlation_id="c")
    store.record_completion(start(Job("1", "t", {"n": 1})), execution_time_ms=1)
    store.record_failure(start(Job("2", "t")), error="no answer")
    store.record_partial_success(start(Job("3", "t")), partial_results={"failed_steps": ["a"]})


def test_recording_calls_of_a_store_from_a_url_are_prepared_at_once(postgres_database):
    with create_store(postgres_database.url) as store:
        record_every_outcome(store)
        assert {statement.split()[0] for statement in prepared_statements(store)} == {
            "INSERT",
            "UPDATE",
        }


@pytest.mark.parametrize("kind", ["URL", "engine", "sessionmaker", "psycopg", "asyncpg"])
def test_prepared_statements_survive_a_change_of_the_table(
    postgres_database, event_loop_thread, kind
):
    with ExitStack() as stack:
        bind = url = postgres_database.url
        if kind in ("engine", "sessionmaker"):
            engine = stack.enter_context(engine_for(url))
            bind = engine if kind == "engine" else sessionmaker(engine)
        if kind in ("psycopg", "asyncpg"):
            asynchronous = create_async_store(of_driver(url, kind))
            store = Synchronous(asynchronous, event_loop_thread)
        else:
            store = create_store(bind)
        stack.callback(store.close)
        for length in (300, 255):
            for _ in range(6):  # until the driver prepares each statement
                record_every_outcome(store)
                store.query(limit=1)
            with postgres_database.engine.begin() as connection:
                change = f"ALTER TABLE job_history ALTER job_id TYPE varchar({length})"
                connection.execute(text(change))
            assert store.query(limit=1)[0].status is Status.PARTIAL_SUCCESS
            record_every_outcome(store)
        assert store.count(status="started").value == 0


def test_a_store_that_prepares_nothing(postgres_database):
    with create_store(postgres_database.url, prepare=False) as store:
        for _ in range(10):
            record_every_outcome(store)
        assert prepared_statements(store) == set()


@pytest.mark.parametrize("make", [create_store, create_async_store])
@pytest.mark.parametrize("kind", ["memory", "engine"])
def test_the_app_decides_what_its_own_engine_prepares(postgres_database, make, kind):
    bind = None
    if kind == "engine":
        is_async = make is create_async_store
        bind = (create_async_engine if is_async else create_engine)(postgres_database.url)
    with pytest.raises(InvalidInput, match="prepare False applies only to a URL"):
        make(bind, prepare=False)


class Interrupted(BaseException):
    """Such as the timeout of gevent, which ends a call in the middle."""


def test_a_connection_whose_call_was_interrupted_is_not_used_again(postgres_database):
    with create_store(postgres_database.url) as store:
        store.record_start(Job("1", "t"), "w", "c")
        with store._owned_engine.connect() as connection:
            first = connection.connection.driver_connection
        first.execute = Mock(side_effect=Interrupted)
        with pytest.raises(Interrupted):
            store.record_completion("1", "w", "c")
        assert store.record_completion("1", "w", "c").status == "completed"
        assert first.closed


def test_statements_of_psycopg_itself_raise_sqlalchemys_errors(postgres_database):
    with create_store(postgres_database.url) as store:
        row = values_of(store.record_start(Job("1", "t", "hunter2"), "w", "c"))
        with pytest.raises(IntegrityError, match="duplicate key") as caught:
            store.internals.history.insert(row)
        assert "hunter2" not in str(caught.value)
        store.record_completion("1", "w", "c")


def test_rows_from_any_time_zone_are_read_in_utc(postgres_database):
    url = postgres_database.url.update_query_dict({"options": "-c TimeZone=Asia/Kathmandu"})
    with create_store(url) as store:
        record = store.record_start(Job("1", "t"), "w", "c")
        ended = store.record_completion(record)
        assert ended.started_at == record.started_at
        assert ended.started_at.tzinfo is UTC


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_url_without_a_driver_uses_psycopg_3(scheme):
    url = f"{scheme}://app@nowhere/app"
    drivers = [make(url).dialect.driver for make in (engine_from_url, async_engine_from_url)]
    assert drivers == ["psycopg", "psycopg"]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
class TestFilesOfOwnEngines:
    """The SQLite files that engines made from a URL create."""

    @pytest.fixture(params=["sync", "async"])
    def connect(self, request, tmp_path):
        url = f"sqlite:///{tmp_path / 'history.db'}"

        def connect():
            engine = engine_from_url(url)
            with engine.connect() as connection:
                connection.exec_driver_sql("CREATE TABLE other (n)")
            engine.dispose()

        async def connect_async():
            engine = async_engine_from_url(url)
            async with engine.connect() as connection:
                await connection.exec_driver_sql("CREATE TABLE other (n)")
            await engine.dispose()

        before = os.umask(0)
        yield connect if request.param == "sync" else lambda: asyncio.run(connect_async())
        os.umask(before)

    def test_only_the_owner_can_read_them(self, connect, tmp_path):
        connect()
        assert stat.S_IMODE((tmp_path / "history.db").stat().st_mode) == 0o600

    def test_existing_files_keep_their_mode(self, connect, tmp_path):
        (tmp_path / "history.db").touch(0o640)
        connect()
        assert stat.S_IMODE((tmp_path / "history.db").stat().st_mode) == 0o640

    def test_a_link_that_leads_nowhere_is_not_followed(self, connect, tmp_path):
        (tmp_path / "history.db").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OperationalError, match=r"history\.db is a symbolic link"):
            connect()
        assert not (tmp_path / "elsewhere").exists()
