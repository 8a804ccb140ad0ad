from __future__ import annotations

import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from jobhistory import HistoryStore, create_async_store, create_store, migrate
from jobhistory.archive_schema import ARCHIVE_TABLES
from jobhistory.database import folding
from jobhistory.database.deadlines import TimeLimits
from jobhistory.expectation_schema import EXPECTATION_TABLES
from jobhistory.partitioning import partition
from jobhistory.rollup_schema import ROLLUP_TABLES
from tests import citus
from tests.facades import AsyncInSession, EventLoop, InSession, Synchronous
from tests.forking import close_before_forks
from tests.servers import Server, running_postgres

# A database is slow to a fuzzer, and shared by the examples of one test.
_any_speed = settings(deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("dev", _any_speed, max_examples=10)
settings.register_profile("ci", _any_speed, max_examples=60)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# The command line shows local times on terminals.
os.environ["TZ"] = "UTC"
time.tzset()

_source = pytest.StashKey[str]()


@dataclass(frozen=True)
class Database:
    """A database, and an engine for it as an app would make one."""

    url: URL
    engine: Engine

    @property
    def name(self) -> str:
        return self.engine.dialect.name


class FakeClock:
    """A clock that only moves when it is told to; it begins years ago, so that advancing it does
    not bring it beyond the server's own clock."""

    def __init__(self) -> None:
        self.now = datetime(2015, 11, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session", autouse=True)
def _no_look_at_the_queue_by_chance() -> Iterator[None]:
    """One recording call of 2,000 looks whether it must fold. Tests that count statements would
    then fail once in a while; those of that look choose its random number themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "random_number", lambda: 1.0)
        yield


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[Server]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_postgres())
        except LookupError as error:
            pytestconfig.stash[_source] = f"none, its tests are skipped: {error}"
            pytest.skip(f"no PostgreSQL: {error}")
        with _admin(server) as connection:
            version = connection.scalar(text("SHOW server_version"))
        pytestconfig.stash[_source] = f"{version} from {server.source}"
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="no statistics outlive rows that Citus distributes")
    for item in items:
        kinds = getattr(getattr(item, "callspec", None), "params", {}).values()
        if item.get_closest_marker("statistics") and any(
            isinstance(kind, str) and kind.endswith("on_citus") for kind in kinds
        ):
            item.add_marker(skip)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of pytest-xdist's processes
        session.config.workeroutput["postgres"] = session.config.stash.get(_source, None)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if source := getattr(node, "workeroutput", {}).get("postgres"):
        node.config.stash[_source] = source


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    terminalreporter.write_line(f"PostgreSQL: {config.stash.get(_source, 'not used')}")


@contextmanager
def _admin(server: Server) -> Iterator[Connection]:
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


@contextmanager
def _new_postgres_database(server: Server, template: str = "template0") -> Iterator[URL]:
    name = f"jobhistory_test_{uuid.uuid4().hex[:12]}"
    with _admin(server) as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'"))
        # As for the server from the wheel: nobody kills the server, so nothing can be lost.
        connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    try:
        yield server.url.set(database=name)
    finally:
        with _admin(server) as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def _do_not_wait_for_the_disk(engine: Engine) -> None:
    """Make commits on SQLite many times as fast; the server of PostgreSQL has its own setting."""

    def turn_off(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = OFF")
        cursor.close()

    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", turn_off)


@contextmanager
def _opened(url: URL) -> Iterator[Database]:
    engine = create_engine(url)
    _do_not_wait_for_the_disk(engine)
    close_before_forks(engine)
    yield Database(url, engine)
    checked_out = engine.pool.checkedout()
    engine.dispose()
    assert checked_out == 0, "a connection is still checked out"


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    engine = create_engine(URL.create("sqlite", database=str(path)))
    migrate.upgrade(engine)
    engine.dispose()
    return path


@contextmanager
def _migrated_postgres(server: Server) -> Iterator[URL]:
    with _new_postgres_database(server) as url:
        engine = create_engine(url)
        migrate.upgrade(engine)
        engine.dispose()
        yield url


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Server) -> Iterator[URL]:
    with _migrated_postgres(postgres) as url:
        yield url


def _empty(engine: Engine) -> None:
    """Delete all rows: a few by DELETE, which is much faster than TRUNCATE."""
    with engine.begin() as connection:
        deleted = connection.execute(text("DELETE FROM job_history")).rowcount
        for table in (*ROLLUP_TABLES, *EXPECTATION_TABLES, *ARCHIVE_TABLES):
            connection.execute(table.delete())
        if deleted > 1_000 and engine.dialect.name == "postgresql":
            connection.execute(text("TRUNCATE job_history"))  # leaves no dead rows to step over


@contextmanager
def _migrated(kind: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    if kind == "sqlite":
        template = request.getfixturevalue("migrated_sqlite")
        url = _copy_of(template, request.getfixturevalue("tmp_path"))
    else:
        url = request.getfixturevalue("migrated_postgres")
    with _opened(url) as database:
        yield database
        if kind == "postgresql":
            _empty(database.engine)


def _copy_of(sqlite: Path, folder: Path) -> URL:
    path = shutil.copy(sqlite, folder / "history.db")
    return URL.create("sqlite", database=str(path))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database without rows: each kind in turn."""
    with _migrated(request.param, request) as database:
        yield database


@pytest.fixture
def database_store(database: Database, clock: FakeClock) -> HistoryStore:
    """A plain store on each kind of database in turn, whose ring buffer holds a whole test."""
    return create_store(database.engine, clock=clock, buffer_size=10_000)


@pytest.fixture
def postgres_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated PostgreSQL database without rows, for what only PostgreSQL can show."""
    with _migrated("postgresql", request) as database:
        yield database


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of its own in which there is nothing yet: each kind in turn."""
    if request.param == "sqlite":
        with _opened(URL.create("sqlite", database=str(tmp_path / "bare.db"))) as database:
            yield database
    else:
        server = request.getfixturevalue("postgres")
        with _new_postgres_database(server) as url, _opened(url) as database:
            yield database


@pytest.fixture
def bare_postgres_url(postgres: Server) -> Iterator[URL]:
    """The URL of a PostgreSQL database of its own in which there is nothing yet."""
    with _new_postgres_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def new_postgres_database(postgres: Server) -> Callable[..., AbstractContextManager[URL]]:
    """Makes databases in which there is nothing yet, or copies of a `template` that is not open."""
    return partial(_new_postgres_database, postgres)


@pytest.fixture(scope="session")
def event_loop_thread() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.close()


@contextmanager
def async_engine(
    database: Database,
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    driver: str | None = None,
    **options: Any,
) -> Iterator[AsyncEngine]:
    """An engine for asyncio on a database, which gives back all of its connections."""
    driver = driver or {"sqlite": "aiosqlite", "postgresql": "psycopg"}[database.name]
    url = database.url.set(drivername=f"{database.name}+{driver}")
    engine = create_async_engine(url, **options)
    _do_not_wait_for_the_disk(engine.sync_engine)
    yield engine
    checked_out = engine.pool.checkedout()
    run(engine.dispose())
    assert checked_out == 0, "a connection is still checked out"


EVERY_STORE = [
    *("memory", "sqlite", "postgresql", "url-postgresql"),
    *("in-session-memory", "in-session-sqlite", "in-session-postgresql"),
    *("async-memory", "async-sqlite", "async-postgresql"),
    *("async-in-session-memory", "async-in-session-sqlite", "async-in-session-postgresql"),
    # What differs from those is the driver, the role, or the layout of the table.
    *("postgresql_by_psycopg2", "async-postgresql_by_asyncpg", "postgresql_as_app"),
    "postgresql_partitioned",
    *(
        pytest.param(f"{how}-in-session-{where}".removeprefix("-"), marks=pytest.mark.slow)
        for how, where in (
            ("", "postgresql_by_psycopg2"),
            ("async", "postgresql_by_asyncpg"),
            ("", "postgresql_as_app"),
            ("async", "postgresql_as_app"),
        )
    ),
]
PLAIN_STORES = ["memory", "sqlite", "postgresql"]
if citus.IS_GIVEN:
    EVERY_STORE += [
        f"{how}postgresql_on_citus" for how in ("", "in-session-", "async-", "async-in-session-")
    ]
    PLAIN_STORES.append("postgresql_on_citus")


@dataclass(frozen=True)
class SharedDatabase:
    """A migrated database, and engines for it that many tests use one after the other.

    To connect, and to start the server's side of the connection, takes longer than most tests.
    """

    owner: Engine
    engine: Engine
    async_engine: AsyncEngine

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lend it to a test, and empty it afterwards."""
        yield
        for pool in (self.engine.pool, self.async_engine.pool):
            assert pool.checkedout() == 0, "a connection is still checked out"
        _empty(self.owner)


@contextmanager
def _shared(
    url: URL, loop: EventLoop, *, owner: Engine | None = None, async_driver: str | None = None
) -> Iterator[SharedDatabase]:
    with (
        _opened(url) as database,
        async_engine(database, loop.run, driver=async_driver) as bind,
    ):
        yield SharedDatabase(owner or database.engine, database.engine, bind)


@pytest.fixture(scope="session")
def shared_sqlite(
    tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path, event_loop_thread: EventLoop
) -> Iterator[SharedDatabase]:
    url = _copy_of(migrated_sqlite, tmp_path_factory.mktemp("shared"))
    with _shared(url, event_loop_thread) as shared:
        yield shared


@pytest.fixture(scope="session")
def shared_postgresql(postgres: Server, event_loop_thread: EventLoop) -> Iterator[SharedDatabase]:
    """Not the database of other tests, some of which end all sessions of theirs."""
    with _migrated_postgres(postgres) as url, _shared(url, event_loop_thread) as shared:
        yield shared


@pytest.fixture(scope="session")
def shared_postgresql_by_psycopg2(
    shared_postgresql: SharedDatabase, event_loop_thread: EventLoop
) -> Iterator[SharedDatabase]:
    """The same database, through the driver that SQLAlchemy 2.0 chooses by default."""
    owner = shared_postgresql.owner
    url = owner.url.set(drivername="postgresql+psycopg2")
    with _shared(url, event_loop_thread, owner=owner) as shared:
        yield shared


@pytest.fixture(scope="session")
def shared_postgresql_by_asyncpg(
    shared_postgresql: SharedDatabase, event_loop_thread: EventLoop
) -> Iterator[SharedDatabase]:
    """The same database, through the other driver for asyncio."""
    owner = shared_postgresql.owner
    with _shared(owner.url, event_loop_thread, owner=owner, async_driver="asyncpg") as shared:
        yield shared


@pytest.fixture(scope="session")
def shared_postgresql_as_app(
    shared_postgresql: SharedDatabase, event_loop_thread: EventLoop
) -> Iterator[SharedDatabase]:
    """The same database, as a role that owns nothing."""
    owner = shared_postgresql.owner
    with (
        app_role(owner) as role,
        _shared(as_role(owner.url, role), event_loop_thread, owner=owner) as shared,
    ):
        yield shared


@pytest.fixture(scope="session")
def shared_postgresql_partitioned(
    postgres: Server, event_loop_thread: EventLoop
) -> Iterator[SharedDatabase]:
    """A history in partitions of a day, one of which begins hours before the tests' clock does."""
    with _migrated_postgres(postgres) as url, _shared(url, event_loop_thread) as shared:
        partition(shared.owner, every="day", now=FakeClock().now - timedelta(days=3))
        yield shared


@pytest.fixture(scope="session")
def shared_postgresql_on_citus(event_loop_thread: EventLoop) -> Iterator[SharedDatabase]:
    """A history that Citus distributes over its workers."""
    with citus.new_citus_database() as url, _shared(url, event_loop_thread) as shared:
        yield shared


@contextmanager
def app_role(owner: Engine) -> Iterator[str]:
    """A role that owns nothing and may only read and write the table's rows."""
    name = f"jobhistory_app_{uuid.uuid4().hex[:12]}"
    with owner.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name}"))
        granted = "SELECT, INSERT, UPDATE, DELETE ON job_history"
        connection.execute(text(f"GRANT {granted} TO {name}"))
        connection.execute(text(f"GRANT INSERT ON job_history_ended TO {name}"))
        for other in ("state", "expectation", "incident", "archive"):
            connection.execute(text(f"GRANT {granted}_{other} TO {name}"))
    yield name
    with owner.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


def as_role(url: URL, role: str) -> URL:
    """A URL for psycopg or psycopg2 whose connections act as a role."""
    return url.update_query_dict({"options": f"-c role={role}"})


@contextmanager
def stores_of_kind(
    kind: str, request: pytest.FixtureRequest, clock: FakeClock
) -> Iterator[Callable[..., Any]]:
    """Yield a function that makes stores of a kind, which go by the clock."""
    how, _, where = kind.rpartition("-")
    loop = request.getfixturevalue("event_loop_thread")
    with ExitStack() as stack:
        engine = bind = None
        opened: deque[Any] = deque()
        if where != "memory":
            shared = request.getfixturevalue(f"shared_{where}")
            stack.enter_context(shared.lent())
            engine, bind = shared.engine, shared.async_engine

        def make(**options: Any) -> Any:
            if "url" in how:
                url = engine.url.render_as_string(hide_password=False)
                # A property test makes a store for each example, and a server has 100 connections.
                if len(opened) == 5:
                    opened.popleft().close()
                made = stack.enter_context(create_store(url, clock=clock, **options))
                opened.append(made)
                # A loaded machine may take longer than a job should wait.
                made._history.limits = TimeLimits(call=60)
                return made
            if "async" not in how:
                plain = create_store(engine, clock=clock, **options)
                return InSession(plain, sessionmaker(engine)) if how else plain
            awaited: Any = create_async_store(bind, clock=clock, **options)
            if "in-session" in how:
                awaited = AsyncInSession(awaited, async_sessionmaker(bind))
            return Synchronous(awaited, loop)

        yield make


@pytest.fixture(params=EVERY_STORE)
def make_store(
    request: pytest.FixtureRequest, clock: FakeClock
) -> Iterator[Callable[..., HistoryStore]]:
    """Makes stores of every kind in turn, which go by a fake clock.

    They are in memory and on each kind of database; for threads and for asyncio; with transactions
    of their own, and in the session of a caller; with each driver, as a role that owns nothing, and
    on a table with partitions.
    """
    with stores_of_kind(request.param, request, clock) as make:
        yield make


@pytest.fixture
def store(make_store: Callable[..., HistoryStore]) -> HistoryStore:
    return make_store()


@pytest.fixture(params=PLAIN_STORES)
def plain_store(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[HistoryStore]:
    """A plain store in memory and on each kind of database in turn.

    For what each kind of store does by the same code, such as to refuse or to sanitize a value.
    """
    with stores_of_kind(request.param, request, clock) as make:
        yield make()
