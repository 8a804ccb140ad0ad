"""Engines that the library makes from a URL, and therefore owns and sets up."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from jobhistory.errors import InvalidInput

_EXAMPLE = "write it like 'sqlite:///history.db' or 'postgresql://user@host/app'"


def engine_from_url(url: str | URL) -> Engine:
    """Make an engine whose settings suit short, independent writes; nothing connects yet.

    SQLite: WAL mode, `synchronous=NORMAL`, a busy timeout of 5 seconds, `BEGIN IMMEDIATE` before
    writes. Elsewhere: each statement is a transaction of its own, which saves two round trips, and
    connections are tested before they are used.

    Raises:
        InvalidInput: if it is no URL, or one of a database that would be gone with its connection.
        ModuleNotFoundError: if the database's driver is not installed.
    """
    parsed = _read(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            return _sqlite_engine(parsed)
        return create_engine(parsed, pool_pre_ping=True, isolation_level="AUTOCOMMIT")
    except ModuleNotFoundError as error:
        if error.name not in ("psycopg", "psycopg_binary"):
            raise
        raise ModuleNotFoundError(
            "PostgreSQL needs psycopg; install it with: pip install 'jobhistory[postgresql]'",
            name=error.name,
        ) from error


def _read(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
        is_async = parsed.get_dialect().is_async
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise InvalidInput("bind", shown_url(url), f"is not a database URL; {_EXAMPLE}") from None
    if is_async:
        raise InvalidInput("bind", shown_url(url), f"names an asyncio driver; {_EXAMPLE}")
    return parsed


def shown_url(url: str | URL) -> str:
    """The scheme of a URL, which is all of it that an error message may show."""
    # The rest may hold a password, and so may all of it where there is no scheme, as in
    # "host=db password=...", which libpq would understand.
    scheme = re.match(r"[\w+.-]+://", str(url))
    return f"{scheme[0]}..." if scheme else "..."


def _sqlite_engine(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise InvalidInput(
            "bind",
            str(url),
            "is a database of one connection, and gone with it; "
            "name a file, as in 'sqlite:///history.db', or give None for a store in memory",
        )
    engine = create_engine(url, connect_args={"isolation_level": "IMMEDIATE", "timeout": 5})
    event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
