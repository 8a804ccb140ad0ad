"""Engines that the library makes from a URL, and therefore owns and sets up."""

from __future__ import annotations

import re
import select
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from jobhistory.errors import InvalidInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_SQLITE: dict[str, Any] = {
    "connect_args": {"isolation_level": "IMMEDIATE", "timeout": 5},
    "hide_parameters": True,  # payloads are among them; SQLAlchemy would log them
}

_EXTRAS = {
    "psycopg": ("PostgreSQL needs psycopg", "postgresql"),
    "psycopg_binary": ("PostgreSQL needs psycopg", "postgresql"),
    "aiosqlite": ("SQLite for asyncio needs aiosqlite", "async"),
}

_LAST_USED = "jobhistory.last_used"
_IDLE_SECONDS = 1

_SUPPORTED = ("sqlite", "postgresql")

_EXAMPLE = "write it like 'sqlite:///history.db' or 'postgresql://user@host/app'"


def engine_from_url(url: str | URL) -> Engine:
    """Make an engine whose settings suit short, independent writes; nothing connects yet.

    SQLite: WAL mode, `synchronous=NORMAL`, a busy timeout of 5 seconds, `BEGIN IMMEDIATE` before
    writes. Elsewhere connections are tested before they are used, by a round trip if they have been
    idle for a second; with psycopg each statement is a transaction, which saves two round trips.

    Raises:
        InvalidInput: if it is no URL, or one of a database that would be gone with its connection.
        ModuleNotFoundError: if the database's driver is not installed.
    """
    parsed = _read(url)
    if parsed.get_dialect().is_async:
        raise InvalidInput("bind", shown_url(url), f"names an asyncio driver; {_EXAMPLE}")
    with _remedies():
        if parsed.get_backend_name() == "sqlite":
            return _set_up(create_engine(_file(parsed), **_SQLITE))
        engine = create_engine(parsed, **_settings(parsed))
        _prepare_without_pooler(engine)
        return _test_idle_connections(engine)


def async_engine_from_url(url: str | URL) -> AsyncEngine:
    """Make an engine for asyncio with the same settings; nothing connects yet.

    A URL that names no driver gets aiosqlite on SQLite, and psycopg on PostgreSQL.

    Raises:
        InvalidInput: as `engine_from_url`; and if the URL names a driver that is not for asyncio.
        ModuleNotFoundError: if the database's driver is not installed.
    """
    from sqlalchemy.ext.asyncio import create_async_engine  # it needs greenlet

    parsed = _read(url)
    if parsed.drivername == "sqlite":
        parsed = parsed.set(drivername="sqlite+aiosqlite")
    if not parsed.get_dialect(_is_async=True).is_async:
        raise InvalidInput("bind", shown_url(url), f"names no asyncio driver; {_EXAMPLE}")
    with _remedies():
        if parsed.get_backend_name() == "sqlite":
            engine = create_async_engine(_file(parsed), **_SQLITE)
            _set_up(engine.sync_engine)
            return engine
        engine = create_async_engine(parsed, **_settings(parsed))
        _prepare_without_pooler(engine.sync_engine)
        _test_idle_connections(engine.sync_engine)
        return engine


def check_dialect(engine: Engine, argument: str) -> None:
    """Check that the library supports the database of an engine.

    Raises:
        InvalidInput: if it does not; it names the argument and the dialect.
    """
    _check_dialect(engine.dialect.name, engine.url, argument)


def _check_dialect(name: str, url: URL, argument: str) -> None:
    if name not in _SUPPORTED:
        raise InvalidInput(
            argument,
            shown_url(url),
            f"uses {name!r}, but jobhistory supports only PostgreSQL and SQLite; {_EXAMPLE}",
        )


def _read(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput("bind", shown_url(url), f"is not a database URL; {_EXAMPLE}") from None
    if isinstance(url, str) and parsed.password is not None and url.count("@") > 1:
        # The password ends at the first one, so the rest of it would be the host or the database.
        raise InvalidInput(
            "bind", shown_url(url), "has an @ that is not encoded; write %40, as in 'p%40ssword'"
        )
    name, plus, driver = parsed.drivername.partition("+")
    if name == "postgres":  # as hosting platforms write it, and libpq reads it
        name = "postgresql"
        parsed = parsed.set(drivername=f"{name}{plus}{driver}")
    _check_dialect(name, parsed, "bind")
    try:
        parsed.get_dialect()
    except NoSuchModuleError:
        raise InvalidInput(
            "bind", shown_url(url), f"names no driver that SQLAlchemy has; {_EXAMPLE}"
        ) from None
    return parsed


def _settings(url: URL) -> dict[str, Any]:
    # With psycopg, what is several statements is sent as one transaction all the same.
    if url.get_dialect().driver == "psycopg":
        return {
            "isolation_level": "AUTOCOMMIT",
            "skip_autocommit_rollback": True,
            "hide_parameters": True,
        }
    return {"hide_parameters": True}


def _prepare_without_pooler(engine: Engine) -> None:
    """Keep psycopg from preparing statements behind a pooler such as PgBouncer.

    In transaction mode, a pooler runs each transaction on any of its server connections, and a
    prepared statement exists on only one of them. A pooler shows by the process id that it gives
    to the client: it is not the id of the server process that answers.
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


def _test_idle_connections(engine: Engine) -> Engine:
    """Test a connection before it is used, by a round trip only if it was not in use just now.

    SQLAlchemy's `pool_pre_ping` makes one each time, which our short calls feel. One that the
    server has ended is told without: its socket has something to read.
    """

    def note(connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[_LAST_USED] = monotonic()

    def test(connection: Any, record: ConnectionPoolEntry, proxy: object) -> None:
        last_used = record.info.get(_LAST_USED)
        if last_used is None:  # it is new
            return
        if monotonic() - last_used < _IDLE_SECONDS and _is_silent(record.driver_connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # upon which the pool makes a new one

    event.listen(engine, "checkin", note)
    event.listen(engine, "checkout", test)
    return engine


def _is_silent(driver_connection: Any) -> bool:
    """Whether the server has said nothing since its last answer, not even that it hangs up."""
    try:
        socket = driver_connection.fileno()
    except Exception:  # the driver tells no socket, or has noticed itself
        return False
    if not hasattr(select, "poll"):
        return not any(select.select([socket], [], [], 0))
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return not poll.poll(0)


@contextmanager
def _remedies() -> Iterator[None]:
    """Say how to install what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        what, extra = _EXTRAS.get(error.name or "", (None, None))
        if what is None:
            raise
        raise ModuleNotFoundError(
            f"{what}; install it with: pip install 'jobhistory[{extra}]'", name=error.name
        ) from error


def shown_url(url: str | URL) -> str:
    """The scheme of a URL, which is all of it that an error message may show."""
    # The rest may hold a password, and so may all of it where there is no scheme, as in
    # "host=db password=...", which libpq would understand.
    scheme = re.match(r"[\w+.-]+://", str(url))
    return f"{scheme[0]}..." if scheme else "..."


def _file(url: URL) -> URL:
    if url.database in (None, "", ":memory:"):
        raise InvalidInput(
            "bind",
            str(url),
            "is a database of one connection, and gone with it; "
            "name a file, as in 'sqlite:///history.db', or give None for a store in memory",
        )
    return url


def _set_up(engine: Engine) -> Engine:
    event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    for setting in ("journal_mode = WAL", "synchronous = NORMAL"):
        cursor = connection.cursor()  # the one way that drivers for asyncio have, too
        cursor.execute(f"PRAGMA {setting}")
        cursor.close()
