"""Engines that the library creates from a URL, and therefore owns and configures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import URL, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from jobhistory._runtime.private_files import create_private_file
from jobhistory.database.deadlines import (
    Deadline,
    SocketGuard,
    TimeLimits,
    current_deadline,
    guard_of,
)
from jobhistory.database.pools import AsyncPatientPool, PatientPool
from jobhistory.database.urls import (
    EXAMPLE,
    IN_MEMORY,
    SUPPORTED,
    database_name,
    not_supported,
    shown_url,
)
from jobhistory.errors import InvalidInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_SQLITE: dict[str, Any] = {
    "connect_args": {"isolation_level": "IMMEDIATE", "timeout": 5},
    "hide_parameters": True,  # SQLAlchemy would log payloads
}

_EXTRAS = {
    "psycopg": ("PostgreSQL needs psycopg", "postgresql"),
    "psycopg_binary": ("PostgreSQL needs psycopg", "postgresql"),
    "aiosqlite": ("SQLite for asyncio needs aiosqlite", "async"),
}

_CONNECT_TIMEOUTS = {
    "psycopg": "connect_timeout",
    "psycopg2": "connect_timeout",
    "asyncpg": "timeout",
}
"""The name of each driver's option for the connect timeout in seconds."""

_UNPREPARED: dict[str, dict[str, Any]] = {
    "psycopg": {"prepare_threshold": None},
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: str(uuid4()),
    },
}
"""The options with which a driver prepares no statements that outlive a transaction."""

_GUARD = "jobhistory.guard"
_LAST_USED = "jobhistory.last_used"
_IDLE_SECONDS = 1


def engine_from_url(
    url: str | URL,
    limits: TimeLimits = TimeLimits(),  # noqa: B008 - it is frozen
    *,
    prepare: bool = True,
) -> Engine:
    """Return an engine with settings for short, independent writes, without connecting.

    On SQLite: WAL mode, `synchronous=NORMAL`, a busy timeout of 5 seconds, and `BEGIN IMMEDIATE`
    before writes. A missing file is created with mode 0600. On PostgreSQL, connections are tested
    before use: by a round trip if they have been idle for a second, otherwise by a look at the
    socket. With psycopg, each statement is a transaction, which saves two round trips.

    Connecting has a time limit, which `connect_timeout` in the URL (`timeout` with asyncpg)
    overrides. So has the wait for a free connection from the pool. Statements have the limit of the
    current deadline, if there is one.

    Args:
        url: the URL.
        limits: the time limits.
        prepare: whether the driver may prepare statements. Through a pooler, psycopg does not.

    Raises:
        InvalidInput: if the URL is invalid, or names a database in memory, which would vanish with
            its connection.
        ModuleNotFoundError: if the database's driver is not installed.
    """
    parsed = _read(url)
    dialect = parsed.get_dialect()
    if dialect.is_async:
        raise InvalidInput("bind", shown_url(url), f"names an asyncio driver; {EXAMPLE}")
    with _remedies():
        if parsed.get_backend_name() == "sqlite":
            return _set_up(create_engine(_file(parsed), **_SQLITE))
        limits = _limits_of(parsed, dialect, limits)
        engine = create_engine(parsed, **_settings(dialect, limits, prepare=prepare))
        _prepare_without_pooler(engine)
        _Limited(engine, limits).listen()
        return engine


def async_engine_from_url(
    url: str | URL,
    limits: TimeLimits = TimeLimits(),  # noqa: B008 - it is frozen
    *,
    prepare: bool = True,
) -> AsyncEngine:
    """Return an engine for asyncio with the same settings, without connecting.

    A URL without a driver uses aiosqlite for SQLite and psycopg for PostgreSQL.

    Raises:
        InvalidInput: as for `engine_from_url`, and if the URL names a driver without asyncio.
        ModuleNotFoundError: if the database's driver is not installed.
    """
    from sqlalchemy.ext.asyncio import create_async_engine  # needs greenlet, which is optional

    parsed = _read(url)
    if parsed.drivername == "sqlite":
        parsed = parsed.set(drivername="sqlite+aiosqlite")
    dialect = parsed.get_dialect(_is_async=True)
    if not dialect.is_async:
        raise InvalidInput("bind", shown_url(url), f"names no asyncio driver; {EXAMPLE}")
    with _remedies():
        if parsed.get_backend_name() == "sqlite":
            engine = create_async_engine(_file(parsed), **_SQLITE)
            _set_up(engine.sync_engine)
            return engine
        limits = _limits_of(parsed, dialect, limits)
        engine = create_async_engine(parsed, **_settings(dialect, limits, prepare=prepare))
        _prepare_without_pooler(engine.sync_engine)
        _Limited(engine.sync_engine, limits).listen()
        return engine


def check_dialect(engine: Engine, argument: str) -> None:
    """Check that the library supports the database of an engine.

    Raises:
        InvalidInput: if it does not. The error names the argument and the dialect.
    """
    _check_dialect(engine.dialect.name, engine.url, argument)


def check_prepare(prepare: bool) -> None:
    """Check the option `prepare` of a store that was not made from a URL.

    Raises:
        InvalidInput: if it is `False`, because the settings of an app's engine are the app's.
    """
    if not prepare:
        raise InvalidInput(
            "prepare",
            prepare,
            "applies only to a URL; configure your own engine, for psycopg by "
            "connect_args={'prepare_threshold': None}",
        )


def _check_dialect(name: str, url: URL, argument: str) -> None:
    if name not in SUPPORTED:
        raise InvalidInput(argument, shown_url(url), not_supported(name))


def _read(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput("bind", shown_url(url), f"is not a database URL; {EXAMPLE}") from None
    if isinstance(url, str) and parsed.password is not None and url.count("@") > 1:
        # SQLAlchemy ends the password at the first @ and takes the rest for the host or database.
        raise InvalidInput(
            "bind", shown_url(url), "has an @ that is not encoded; write %40, as in 'p%40ssword'"
        )
    name, _, driver = parsed.drivername.partition("+")
    name = database_name(name)
    if name == "postgresql":
        # Without a driver, SQLAlchemy 2.0 would use psycopg2.
        parsed = parsed.set(drivername=f"{name}+{driver or 'psycopg'}")
    _check_dialect(name, parsed, "bind")
    try:
        parsed.get_dialect()
    except NoSuchModuleError:
        raise InvalidInput(
            "bind", shown_url(url), f"names a driver that SQLAlchemy does not know; {EXAMPLE}"
        ) from None
    return parsed


def _settings(dialect: type[Dialect], limits: TimeLimits, *, prepare: bool) -> dict[str, Any]:
    pool = AsyncPatientPool if dialect.is_async else PatientPool
    settings: dict[str, Any] = {"poolclass": pool, "hide_parameters": True}
    connect_args = {} if prepare else dict(_UNPREPARED.get(dialect.driver, {}))
    option = _CONNECT_TIMEOUTS.get(dialect.driver)
    if option is not None and limits.connect != inf:
        # libpq accepts only whole seconds.
        seconds = limits.connect if dialect.driver == "asyncpg" else ceil(limits.connect)
        connect_args[option] = seconds
    # Transactions of several statements are still sent as one, see `Transaction`.
    if dialect.driver == "psycopg":
        settings |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    return settings | {"connect_args": connect_args}


def _prepare_without_pooler(engine: Engine) -> None:
    """Disable psycopg's prepared statements on connections through a pooler such as PgBouncer.

    In transaction mode, a pooler runs each transaction on any of its server connections, but a
    prepared statement exists on only one of them. A pooler is recognized by the backend process id
    that it reports to the client, which differs from that of the server process.
    """

    def compare(connection: Any, record: ConnectionPoolEntry) -> None:
        driver: Any = record.driver_connection
        cursor = connection.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        if cursor.fetchone() != (driver.info.backend_pid,):
            driver.prepare_threshold = None
        cursor.close()

    if engine.dialect.driver == "psycopg":
        event.listen(engine, "connect", compare)


def _limits_of(url: URL, dialect: type[Dialect], limits: TimeLimits) -> TimeLimits:
    """Return the limits, with the connect timeout of the URL if it has one."""
    option = _CONNECT_TIMEOUTS.get(dialect.driver, "")
    given = url.query.get(option)
    if given is None:
        return limits
    try:
        seconds = float(str(given))
    except ValueError:
        raise InvalidInput(option, given, "is not a number of seconds; write it like 2") from None
    return replace(limits, connect=seconds if seconds > 0 else inf)


@dataclass(frozen=True)
class _Limited:
    """The time limits of an engine's connections, enforced by event listeners."""

    engine: Engine
    limits: TimeLimits

    def listen(self) -> None:
        """Register the listeners."""
        event.listen(self.engine, "do_connect", self._connect)
        # Between these two run SQLAlchemy's own listeners, which query the server's settings.
        event.listen(self.engine, "connect", self._begin_setup, insert=True)
        event.listen(self.engine, "connect", self._end_setup)
        event.listen(self.engine, "checkout", self._begin_use)
        event.listen(self.engine, "checkin", self._end_use)
        event.listen(self.engine, "close", self._close)

    def _connect(
        self, dialect: Dialect, record: ConnectionPoolEntry, args: Any, options: Any
    ) -> Any:
        deadline = current_deadline.get()
        if deadline is not None and deadline.has_passed:
            # The call has waited for a connection, which turned out to be broken: the database
            # hangs, so do not wait for another one.
            deadline.expire()
            raise dialect.loaded_dbapi.OperationalError(deadline.failure)
        begun = monotonic()
        try:
            return dialect.connect(*args, **options)
        except Exception as error:
            if monotonic() - begun < 0.9 * self.limits.connect:  # the driver's clock may differ
                raise
            message = f"could not connect within the time limit of {self.limits.connect:g} s"
            if deadline is not None:
                deadline.failure = message
            raise dialect.loaded_dbapi.OperationalError(message) from error

    def _begin_setup(self, connection: Any, record: ConnectionPoolEntry) -> None:
        guard = guard_of(record.driver_connection)
        if guard is not None:
            record.info[_GUARD] = guard
            guard.turn_on(Deadline(self.limits.connect))

    def _end_setup(self, connection: Any, record: ConnectionPoolEntry) -> None:
        if (guard := record.info.get(_GUARD)) is not None:
            guard.turn_off()

    def _begin_use(self, connection: Any, record: ConnectionPoolEntry, proxy: object) -> None:
        # Not SQLAlchemy's `pool_pre_ping`, whose round trip per checkout slows down short calls.
        guard: SocketGuard | None = record.info.get(_GUARD)
        last_used = record.info.get(_LAST_USED)
        if last_used is not None:  # None if the connection is new
            is_silent = guard is not None and guard.is_silent()
            if not is_silent or monotonic() - last_used >= _IDLE_SECONDS:
                self._test(connection, guard)
        deadline = current_deadline.get()
        if guard is not None and deadline is not None:
            deadline.restart()
            guard.turn_on(deadline)

    def _test(self, connection: Any, guard: SocketGuard | None) -> None:
        """Test a connection by a round trip. If it fails, the pool opens a new one."""
        if guard is not None:
            guard.turn_on(Deadline(self.limits.ping))
        try:
            self.engine.dialect.do_ping(connection)
        except (self.engine.dialect.loaded_dbapi.Error, OSError) as error:  # asyncpg raises OSError
            raise InvalidatePoolError from error
        finally:
            if guard is not None:
                guard.turn_off()

    def _end_use(self, connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_LAST_USED] = monotonic()
        if (guard := record.info.get(_GUARD)) is not None:
            guard.turn_off()

    def _close(self, connection: Any, record: ConnectionPoolEntry) -> None:
        if (guard := record.info.pop(_GUARD, None)) is None:
            return
        if self.engine.dialect.is_async:  # asyncpg waits until the server closes the connection
            guard.turn_on(Deadline(self.limits.connect))
        else:
            guard.close()


@contextmanager
def _remedies() -> Iterator[None]:
    """Add the `pip install` command to the error for a missing driver."""
    try:
        yield
    except ModuleNotFoundError as error:
        what, extra = _EXTRAS.get(error.name or "", (None, None))
        if what is None:
            raise
        raise ModuleNotFoundError(
            f"{what}; install it with: pip install 'jobhistory[{extra}]'", name=error.name
        ) from error


def _file(url: URL) -> URL:
    if url.database in (None, "", ":memory:"):
        raise InvalidInput("bind", str(url), f"{IN_MEMORY}, or pass None for a store in memory")
    return url


def _set_up(engine: Engine) -> Engine:
    event.listen(engine, "do_connect", _create_file)
    event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _create_file(
    dialect: Dialect, record: ConnectionPoolEntry, args: Any, options: dict[str, Any]
) -> None:
    """Create a missing file with access for its owner only.

    SQLite gives the file's mode to the files that it creates next to it.
    """
    if options.get("uri"):  # it may name a database in memory, or forbid creating a file
        return
    path = Path(args[0])
    with suppress(OSError):  # SQLite's own error says why it cannot open the file
        if create_private_file(path) or path.exists() or not path.is_symlink():
            return
        # SQLite would create the link's target.
        raise dialect.loaded_dbapi.OperationalError(
            f"{path} is a symbolic link whose target does not exist"
        )


def _set_up_sqlite(connection: Any, _: object) -> None:
    for setting in ("journal_mode = WAL", "synchronous = NORMAL"):
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA {setting}")
        cursor.close()
