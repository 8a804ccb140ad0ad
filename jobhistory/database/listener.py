"""A connection that listens for the notifications of a `Notifier`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text
from sqlalchemy.util import await_only

from jobhistory._runtime.wakers import WatchingWaker
from jobhistory.database.notifier import channel_of, ids_in
from jobhistory.database.own_connection import OwnConnection

_SECONDS = 5.0
_PID = text("SELECT pg_backend_pid()")


class PostgresListener:
    """Hears which executions have changed, from the stores with `notify=True`.

    Args:
        receive: returns the contents of the notifications that have arrived, without waiting.
    """

    def __init__(
        self, own: OwnConnection, waker: WatchingWaker, receive: Callable[[], list[str]]
    ) -> None:
        self._own = own
        self._waker = waker
        self._receive = receive

    @classmethod
    def open(
        cls, engine: Engine, options: dict[str, Any], waker: WatchingWaker
    ) -> PostgresListener | None:
        """Connect and listen; return `None` if that is impossible here.

        Through a pooler in transaction mode, nothing would arrive. A pooler is recognized by the
        process id that it reports, which is not that of the server's process.
        """
        start = _DRIVERS.get(engine.dialect.driver)
        if engine.dialect.name != "postgresql" or start is None:
            return None
        own = OwnConnection.open(engine, options)
        try:
            pid = own.execute(_PID, seconds=_SECONDS).scalar_one()
            if pid != _reported_pid(own.driver_connection):
                own.close()
                return None
            return cls(own, waker, start(own, channel_of(own.schema), waker))
        except BaseException:
            own.close()
            raise

    def heard(self) -> tuple[set[UUID], bool]:
        """Return the ids that arrived since the last call, and whether others have changed."""
        ids: set[UUID] = set()
        are_others = False
        for content in self._receive():
            some = ids_in(content)
            ids.update(some or ())
            are_others = are_others or some is None
        return ids, are_others

    def break_off(self) -> None:
        """Hear no more, as if the connection were lost. Any thread may call it."""
        self._own.break_off()

    def close(self) -> None:
        """Close the connection."""
        self._waker.unwatch()
        self._own.close()


def _reported_pid(driver: Any) -> int:
    if hasattr(driver, "get_server_pid"):  # asyncpg
        return int(driver.get_server_pid())
    return int(driver.info.backend_pid)


def _listen(own: OwnConnection, channel: str) -> None:
    quoted = channel.replace('"', '""').replace(":", "\\:")
    own.execute(text(f'LISTEN "{quoted}"'), seconds=_SECONDS)


def _with_psycopg(
    own: OwnConnection, channel: str, waker: WatchingWaker
) -> Callable[[], list[str]]:
    """Listen with psycopg, for threads or for asyncio."""
    arrived: list[str] = []
    driver = own.driver_connection
    driver.add_notify_handler(lambda notification: arrived.append(notification.payload))
    _listen(own, channel)
    waker.watch(driver.fileno())

    def receive() -> list[str]:
        driver.pgconn.consume_input()
        while (each := driver.pgconn.notifies()) is not None:
            arrived.append(each.extra.decode(errors="replace"))
        contents = arrived[:]
        arrived.clear()
        return contents

    return receive


def _with_psycopg2(
    own: OwnConnection, channel: str, waker: WatchingWaker
) -> Callable[[], list[str]]:
    driver = own.driver_connection
    _listen(own, channel)
    waker.watch(driver.fileno())

    def receive() -> list[str]:
        driver.poll()
        contents = [each.payload for each in driver.notifies]
        driver.notifies.clear()
        return contents

    return receive


def _with_asyncpg(
    own: OwnConnection, channel: str, waker: WatchingWaker
) -> Callable[[], list[str]]:
    arrived: list[str] = []
    driver = own.driver_connection

    def note(connection: object, pid: int, channel: str, content: str) -> None:
        arrived.append(content)
        waker.wake()

    driver.add_termination_listener(lambda connection: waker.wake())
    await_only(driver.add_listener(channel, note))

    def receive() -> list[str]:
        if driver.is_closed():
            raise ConnectionError("the server has closed the connection that listens")
        contents = arrived[:]
        arrived.clear()
        return contents

    return receive


_DRIVERS = {
    "psycopg": _with_psycopg,
    "psycopg_async": _with_psycopg,
    "psycopg2": _with_psycopg2,
    "asyncpg": _with_asyncpg,
}
"""For each driver, what listens on a connection of it."""
