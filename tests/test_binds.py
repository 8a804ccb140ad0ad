"""What a store can be bound to, who owns the engine, and which schema the store uses."""

from __future__ import annotations

import shlex
from functools import partial
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, scoped_session, sessionmaker

from jobhistory import (
    AsyncHistoryStore,
    HistoryRecord,
    HistoryStore,
    InvalidInput,
    Job,
    SchemaOutOfDate,
    create_async_store,
    create_store,
    migrate,
)
from jobhistory.schema import Base

IDS = ("job-1", "worker-1", "request-1")


def record_one(store):
    store.record_start(Job("job-1", "t", {"n": 1}), *IDS[1:])
    return store.record_completion(*IDS, 1)


class AppSession(Session):
    """A session that knows its engine, as the app's may."""

    engine = None

    def get_bind(self, *_, **__):
        return self.engine


@pytest.mark.parametrize("make", [create_store, HistoryStore])
@pytest.mark.parametrize("kind", ["function", "partial", "class"])
def test_any_callable_that_returns_sessions_will_do(database, monkeypatch, make, kind):
    monkeypatch.setattr(AppSession, "engine", database.engine)
    factories = {
        "function": lambda: Session(database.engine),
        "partial": partial(Session, database.engine),
        "class": AppSession,
    }
    store = make(factories[kind])
    assert record_one(store).status == "completed"
    assert [r.job_id for r in store.query()] == ["job-1"]
    assert database.engine.pool.checkedout() == 0


@pytest.mark.parametrize("kind", [AsyncSession, dict])
def test_a_callable_that_returns_no_sessions_is_refused_when_it_is_called(kind):
    store = create_store(kind)
    for call in (store.query, partial(record_one, store)):
        with pytest.raises(InvalidInput, match=f"{kind.__name__}; return a new Session") as caught:
            call()
        assert caught.value.argument == "session_factory"


def test_a_session_in_use_is_refused_and_keeps_its_work(database):
    scoped = scoped_session(sessionmaker(database.engine))
    store = create_store(lambda: scoped())
    other = create_store(database.engine)
    record_one(other.in_session(scoped))
    with pytest.raises(InvalidInput, match=r"in use; .* in_session\(session\)"):
        store.record_start(Job("job-2", "t"), *IDS[1:])
    scoped.commit()
    assert [r.job_id for r in other.query()] == ["job-1"]
    scoped.remove()


@pytest.mark.parametrize("is_owned", [True, False])
def test_close_disposes_an_engine_only_if_the_store_owns_it(database, is_owned):
    engine = create_engine(database.url)
    owned = {"owned_engine": engine} if is_owned else {}
    with HistoryStore(sessionmaker(engine), **owned) as store:
        record_one(store)
        pool = engine.pool
    assert (engine.pool is not pool) == is_owned
    engine.dispose()


def test_a_url_makes_an_engine_that_close_disposes(database):
    url = database.url.render_as_string(hide_password=False)
    for bind in (url, database.url):
        with create_store(bind) as store:
            record_one(store)
            pool = store._owned_engine.pool
            assert pool.checkedin() == 1
        assert pool.checkedin() == 0


def test_the_engine_of_an_sqlite_url_has_the_settings_that_suit_short_writes(tmp_path):
    store = create_store(f"sqlite:///{tmp_path}/history.db")
    migrate.upgrade(store._owned_engine)
    statements = []
    with store, store._owned_engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000
        connection.connection.dbapi_connection.set_trace_callback(statements.append)
        connection.exec_driver_sql("DELETE FROM job_history")
        assert statements[0].strip().upper() == "BEGIN IMMEDIATE"


def test_the_engine_of_a_server_url_pings_and_commits_each_statement(postgres_database):
    store = create_store(postgres_database.url)
    with store, store._owned_engine.connect() as connection:
        assert connection.connection.dbapi_connection.autocommit
        assert not store._owned_engine.pool._pre_ping, "it would cost each call a round trip"


@pytest.mark.parametrize("kind", ["engine", "sessionmaker", "callable"])
def test_what_the_app_gave_is_used_and_never_touched(database, kind):
    factory = sessionmaker(database.engine)
    if kind == "callable":
        store = HistoryStore(lambda: factory())
    else:
        store = create_store(database.engine if kind == "engine" else factory)
    with store:
        record_one(store)
    assert database.engine.pool.checkedin() == 1, "close() left the app's pool alone"
    assert database.engine.pool.checkedout() == 0


@pytest.mark.parametrize(
    "options",
    [
        {"expire_on_commit": True},
        {"expire_on_commit": False},
        {"autobegin": False},
        {"autoflush": False},
    ],
    ids=str,
)
def test_records_are_loaded_whatever_the_factory_does(database, options):
    store = create_store(sessionmaker(database.engine, **options))
    started = store.record_start(Job("job-1", "t"), *IDS[1:])
    ended = store.record_completion(*IDS, 1)
    again = store.record_completion(*IDS, 1)

    for record in (started, ended, again, *store.query(), *store.get_by_job_id("job-1")):
        assert record.task_identifier == "t"


@pytest.mark.parametrize("key", [HistoryRecord, Base], ids=["model", "base"])
def test_a_session_bound_class_by_class_finds_its_engine(database, key):
    class AppBase(DeclarativeBase):
        pass

    elsewhere = create_engine("sqlite:////nowhere/at/all.db")
    store = create_store(sessionmaker(binds={key: database.engine, AppBase: elsewhere}))
    record_one(store)

    assert store.query()[0].status == "completed"
    assert store.expire() == 0


def test_an_autocommitting_engine_works(database):
    store = create_store(database.engine.execution_options(isolation_level="AUTOCOMMIT"))
    record_one(store)

    assert [r.status for r in store.query()] == ["completed"]


def test_a_factory_bound_to_a_connection_stays_within_its_transaction(postgres_database):
    """How apps test; not on SQLite, whose driver ends a transaction with its savepoint."""
    with postgres_database.engine.connect() as connection:
        outer = connection.begin()
        factory = sessionmaker(connection, join_transaction_mode="create_savepoint")
        store = create_store(factory)
        record_one(store)
        assert len(store.query()) == 1
        outer.rollback()

    assert create_store(postgres_database.engine).query() == []


def test_no_constructor_runs_sql(database):
    statements = []
    event.listen(database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    create_store(database.engine)
    HistoryStore(sessionmaker(database.engine))

    assert statements == []


def test_each_recording_verb_is_one_statement(database):
    statements = []
    event.listen(database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    store = create_store(database.engine)
    record_one(store)

    assert [statement.split()[0] for statement in statements] == ["INSERT", "UPDATE"]


VERBS = [
    lambda store: store.record_start(Job("job-1", "t"), *IDS[1:]),
    lambda store: store.record_completion(*IDS, 1),
    lambda store: store.record_failure(*IDS, 1, "x"),
    lambda store: store.record_partial_success(*IDS, 1, {}),
    lambda store: store.get_by_job_id("1"),
    lambda store: store.get_by_correlation_id("1"),
    lambda store: store.query(),
    lambda store: store.expire(),
    lambda store: store.expire(dry_run=True),
]


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_schema_is_named_with_the_command_that_mends_it(bare_database, verb):
    store = create_store(bare_database.engine)
    with pytest.raises(SchemaOutOfDate, match="jobhistory db upgrade") as caught:
        verb(store)

    assert caught.value.current is None
    assert caught.value.head == migrate.HEAD
    assert store.recent() == []


def test_an_outdated_schema_is_named_with_its_revision(bare_database):
    migrate.upgrade(bare_database.engine, "jobhistory_0011")
    with bare_database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE job_history DROP COLUMN payload"))
    with pytest.raises(SchemaOutOfDate, match="at revision jobhistory_0011, but"):
        create_store(bare_database.engine).query()


def test_other_errors_of_the_database_stay_sqlalchemys(postgres_database):
    with postgres_database.engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS jobhistory_reader"))
        connection.execute(text("CREATE ROLE jobhistory_reader"))
    reader = create_engine(
        postgres_database.url.update_query_dict({"options": "-c role=jobhistory_reader"})
    )
    try:
        with pytest.raises(ProgrammingError, match="permission denied"):
            create_store(reader).query()
    finally:
        reader.dispose()
        with postgres_database.engine.begin() as connection:
            connection.execute(text("DROP ROLE jobhistory_reader"))


@pytest.mark.parametrize("way", ["schema=", "schema_translate_map", "URL"])
def test_a_store_works_in_another_schema(bare_database, way, request):
    engine, schema = bare_database.engine, 'Audit "%log":all'
    if bare_database.name == "sqlite":
        if way == "URL":
            pytest.skip("only an app's engine attaches another file")
        schema = "audit"
        event.listen(
            engine,
            "connect",
            lambda connection, _: connection.execute(
                f"ATTACH '{bare_database.url.database}.audit' AS audit"
            ),
        )
        engine.dispose()
    migrate.upgrade(engine, schema=schema)
    migrate.check(engine, schema=schema)
    if way == "schema=":
        store = create_store(engine, schema=schema)
    elif way == "URL":
        store = create_store(bare_database.url, schema=schema)
        request.addfinalizer(store.close)
    else:
        store = create_store(engine.execution_options(schema_translate_map={None: schema}))
    record_one(store)
    ended = {"task_identifier": "t", "worker_id": "w", "correlation_id": "c"}
    assert store.record_many([{**ended, "job_id": "many", "status": "completed"}]) == 1

    assert store.query(job_id="job-1")[0].payload == {"n": 1}
    assert store.expire(dry_run=True) == store.expire() == 0
    if bare_database.name != "sqlite":  # which looks in every attached database
        with pytest.raises(SchemaOutOfDate):
            create_store(engine).query()
    migrate.downgrade(engine, "base", schema=schema)
    with pytest.raises(SchemaOutOfDate) as caught:
        store.query()
    assert caught.value.schema == schema
    assert f"--schema {shlex.quote(schema)}" in str(caught.value)


def test_a_session_of_the_app_reads_records_like_any_model(database):
    record_one(create_store(database.engine))
    with Session(database.engine) as session:
        (record,) = session.query(HistoryRecord).filter_by(status="completed")
        assert record.job_id == "job-1"


def engine_of_another_database(**options):
    """An engine for MySQL, of whose driver there is only a name."""
    driver = SimpleNamespace(paramstyle="format", __version__="1", version_info=(1, 4, 0))
    return create_engine("mysql://user:hunter2@host/db?password=hunter2", module=driver, **options)


class Unbound(Session):
    """A session that chooses its engine by itself."""

    def get_bind(self, mapper=None, clause=None):
        return engine_of_another_database()


OTHER_DATABASES = {
    "a URL": ("bind", lambda: create_store("mysql://user:hunter2@host/db")),
    "an unknown URL": ("bind", lambda: create_store("mongodb://user:hunter2@host/db")),
    "a URL for asyncio": ("bind", lambda: create_async_store("mysql+aiomysql://u:hunter2@host/db")),
    "an engine": ("bind", lambda: create_store(engine_of_another_database())),
    "a sessionmaker": ("bind", lambda: create_store(sessionmaker(engine_of_another_database()))),
    "binds": (
        "bind",
        lambda: create_store(sessionmaker(binds={Base: engine_of_another_database()})),
    ),
    "a factory": (
        "session_factory",
        lambda: HistoryStore(sessionmaker(engine_of_another_database())),
    ),
    "at first use": (
        "session_factory",
        lambda: HistoryStore(lambda: Session(engine_of_another_database())).query(),
    ),
    "by a session's choice": (
        "session_factory",
        lambda: create_store(sessionmaker(class_=Unbound)).query(),
    ),
}


@pytest.mark.parametrize("kind", OTHER_DATABASES)
def test_other_databases_are_refused(kind):
    argument, make = OTHER_DATABASES[kind]
    with pytest.raises(InvalidInput, match="supports only PostgreSQL and SQLite") as caught:
        make()
    assert caught.value.argument == argument
    assert "hunter2" not in str(caught.value)
    assert ("mongodb" if "unknown" in kind else "mysql") in str(caught.value)


def test_other_databases_of_the_app_are_its_own_affair(database):
    sessions = sessionmaker(engine_of_another_database(), binds={HistoryRecord: database.engine})
    record_one(create_store(sessions))


@pytest.mark.parametrize(
    ("scheme", "driver"), [("postgres", "psycopg"), ("postgres+psycopg", "psycopg")]
)
def test_a_url_may_say_postgres(postgres_database, scheme, driver):
    url = postgres_database.url.set(drivername=scheme).render_as_string(hide_password=False)
    with create_store(url) as store:
        record_one(store)
        assert store._owned_engine.dialect.driver == driver


MISTAKEN = {
    "create_store(AsyncEngine)": (create_store, lambda async_, sync: async_, "create_async_store"),
    "create_store(async_sessionmaker)": (
        create_store,
        lambda async_, sync: async_sessionmaker(async_),
        "create_async_store",
    ),
    "create_store(sessionmaker(AsyncEngine))": (
        create_store,
        lambda async_, sync: sessionmaker(async_),
        "create_async_store",
    ),
    "HistoryStore": (
        HistoryStore,
        lambda async_, sync: async_sessionmaker(async_),
        "AsyncHistoryStore",
    ),
    "create_async_store(Engine)": (create_async_store, lambda async_, sync: sync, "create_store"),
    "create_async_store(sessionmaker)": (
        create_async_store,
        lambda async_, sync: sessionmaker(sync),
        "create_store",
    ),
    "AsyncHistoryStore": (
        AsyncHistoryStore,
        lambda async_, sync: sessionmaker(sync),
        "HistoryStore",
    ),
}


@pytest.mark.parametrize("kind", MISTAKEN)
def test_what_is_for_asyncio_and_what_is_not_is_told_apart(tmp_path, kind):
    make, bind_of, instead = MISTAKEN[kind]
    bind = bind_of(
        create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/h.db"),
        create_engine(f"sqlite:///{tmp_path}/h.db"),
    )
    with pytest.raises(InvalidInput, match=f"pass it to {instead}$"):
        make(bind)


def test_what_a_backslash_means_to_a_connection_makes_no_injection(postgres_database):
    """SQLAlchemy asks only the first connection what it means, and doubles it or not."""
    engine = create_engine(postgres_database.url)
    engine.connect().close()

    @event.listens_for(engine, "connect")
    def turn_off(connection, _):
        connection.execute("SET standard_conforming_strings = off")
        connection.commit()

    engine.pool.dispose()
    store = create_store(engine)
    for task in ("secret_task", "back\\slash"):
        store.record_start(Job(task, task), "w", "c")
    injected = "\\' OR true -- "

    assert store.query(task_identifier=injected) == []
    assert store.query(task_identifier=[injected, "\\"]) == []
    assert store.query(worker_id=injected) == store.query(error_type=injected) == []
    (found,) = store.query(task_identifier="back\\slash")
    assert found.job_id == "back\\slash"
    assert len(store.query(task_identifier=["back\\slash", "secret_task"])) == 2
    assert store.count(task_identifier=injected).value == 0
    assert [each.task_identifier for each in store.stats(task_identifier="back\\slash")] == [
        "back\\slash"
    ]
    engine.dispose()


def test_the_log_of_an_engine_of_the_librarys_own_shows_no_payload(database, caplog):
    url = database.url.render_as_string(hide_password=False)
    caplog.set_level("INFO", logger="sqlalchemy.engine")
    with create_store(url) as store:
        store.record_start(Job("1", "t", "4111"), "w", "c")

    assert "INSERT INTO job_history" in caplog.text
    assert "4111" not in caplog.text
