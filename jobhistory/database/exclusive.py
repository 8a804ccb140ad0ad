"""Transactions that exclude other migrations, and other changes of the layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

from sqlalchemy import Connection, Engine, Function, func, select

from jobhistory.database.revision import connected

LOCK = 0x6A6F6268697374
"""The key of a PostgreSQL advisory lock: "jobhist" in ASCII."""

_LAYOUT_LOCK = LOCK + 2
_POLL_SECONDS = 0.05


@contextmanager
def transaction(bind: Engine | Connection) -> Iterator[Connection]:
    """Run a transaction that excludes other migrations; commit it unless it is the caller's."""
    with connected(bind) as connection:
        is_ours = connection is not bind
        if connection.dialect.name == "sqlite":
            _begin_immediate(connection)
        else:
            if is_ours:
                # The engine's own level may commit each statement, or hide what others commit.
                connection.execution_options(isolation_level="READ COMMITTED")
            wait_for_lock(connection, func.pg_try_advisory_xact_lock(LOCK), is_ours)
        yield connection
        if is_ours:
            connection.commit()


@contextmanager
def changing_layout(bind: Engine | Connection) -> Iterator[None]:
    """Exclude other changes of the layout, which take several transactions.

    With an engine, it takes a second connection. That keeps a transaction open which has no
    snapshot, and works through PgBouncer, unlike the lock of a session.
    """
    with connected(bind) as connection:
        is_ours = connection is not bind
        if connection.dialect.name != "sqlite":
            if is_ours:
                connection.execution_options(isolation_level="READ COMMITTED")
            wait_for_lock(connection, func.pg_try_advisory_xact_lock(_LAYOUT_LOCK), is_ours)
            if is_ours:
                # The query keeps its snapshot until the next command. This one has none.
                connection.exec_driver_sql("SAVEPOINT layout")
        yield


def _begin_immediate(connection: Connection) -> None:
    """Take SQLite's write lock before the first read.

    A transaction that has read cannot write any more after another one has written.
    """
    is_callers = connection.in_transaction()
    if not is_callers:
        connection.begin()  # a listener of the app may emit BEGIN now
    driver_connection: Any = connection.connection.driver_connection
    if driver_connection.in_transaction:
        if is_callers:
            return
        connection.exec_driver_sql("COMMIT")  # the empty transaction of the listener or the driver
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def wait_for_lock(connection: Connection, take: Function[bool], may_roll_back: bool) -> None:
    """Take a lock of PostgreSQL by a function that returns whether it has taken it.

    It polls, because a waiting statement would hold a snapshot, and CREATE INDEX CONCURRENTLY, run
    by the holder of the lock, waits for snapshots.
    """
    while not connection.scalar(select(take)):
        if may_roll_back:
            connection.rollback()
        pause(connection, _POLL_SECONDS)


def pause(connection: Connection, seconds: float) -> None:
    """Wait, and let an event loop run meanwhile."""
    if connection.dialect.is_async:  # the holder of a lock may be a task of this event loop
        import asyncio  # `jobhistory run` starts its command without it

        adapted: Any = connection.connection.dbapi_connection
        adapted.run_async(lambda _: asyncio.sleep(seconds))
    else:
        sleep(seconds)
