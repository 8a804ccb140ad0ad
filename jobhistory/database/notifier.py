"""Notifications of PostgreSQL, which tell followers what has started and ended.

`pg_notify` in the transaction of a recording call would let no two of them commit at a time. So the
ids are collected after the commit, and one sender per store and process sends them, at most four
times a second, on a separate connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from hashlib import blake2b
from threading import RLock, Thread
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, String, bindparam, func, select, true
from sqlalchemy.util import await_only, greenlet_spawn

from jobhistory._runtime.at_exit import close_at_exit, forget
from jobhistory._runtime.fork import register_for_fork
from jobhistory._runtime.wakers import LoopWaker, ThreadWaker, Waker, running_loop
from jobhistory.database.own_connection import OwnConnection
from jobhistory.errors import reason
from jobhistory.schema import TABLE_NAME

logger = logging.getLogger(__name__)

MOST_IDS = 200
"""The maximum number of ids in a notification. PostgreSQL allows less than 8,000 bytes."""

MANY = "many"
"""The content of a notification in place of more ids."""

SECONDS_BETWEEN = 0.25
"""The least time between two notifications of a sender."""

_IDLE_SECONDS = 60.0
"""The time after which a sender that has nothing to send closes its connection and ends."""

_SECONDS_TO_SEND = 2.0
_SECONDS_TO_CLOSE = 1.0
_LONGEST_PAUSE = 30.0
_LONGEST_NAME = 63  # bytes, as for any identifier of PostgreSQL

# One round trip. The setting is for this transaction only, and lets it end without the disk.
_NOTIFY = select(
    func.set_config("synchronous_commit", "off", true()),
    func.pg_notify(bindparam("channel", type_=String), bindparam("content", type_=String)),
)

_inherited: list[Any] = []
"""Connections of the parent in a forked child, which neither uses nor closes them."""


def channel_of(schema: str | None) -> str:
    """Return the name of the channel for the history in a schema."""
    name = TABLE_NAME if schema is None else f"{TABLE_NAME}_{schema}"
    encoded = name.encode()
    if len(encoded) <= _LONGEST_NAME:
        return name
    digest = blake2b(encoded, digest_size=8).hexdigest()
    return f"{encoded[: _LONGEST_NAME - 17].decode(errors='ignore')}_{digest}"


def ids_in(content: str) -> list[UUID] | None:
    """Return the ids in a notification; `None` if it stands for many, or anybody else sent it."""
    with suppress(ValueError):
        return [UUID(each) for each in content.split(",")]
    return None


@dataclass(frozen=True)
class _Worker:
    """The thread or task that sends.

    Attributes:
        loop: the event loop of the task; `None` if it is a thread.
    """

    waker: Waker
    loop: asyncio.AbstractEventLoop | None
    is_alive: Callable[[], bool]
    join: Callable[[float], object]


class Notifier:
    """Sends the ids of executions that have started or ended. Thread-safe.

    Its errors reach no caller. `add` only puts ids into a set of limited size, and never waits for
    the database. A thread sends or, if the engine is for asyncio, a task of the event loop.

    Args:
        engine_of: returns the engine to connect with, and the execution options of statements.
        clock: returns a monotonic time in seconds.
    """

    def __init__(
        self,
        engine_of: Callable[[], tuple[Engine, dict[str, Any]]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._engine_of = engine_of
        self._clock = clock
        self._connection: OwnConnection | None = None
        self._reset()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Forget what the parent has to send, its connection, and its thread."""
        _inherited.append(self._connection)
        self._reset()

    def _reset(self) -> None:
        self._lock = RLock()  # reentrant, as signal handlers may record
        self._ids: set[UUID] = set()
        self._is_many = False
        self._worker: _Worker | None = None
        self._is_closing = False
        self._connection = None
        self._next = 0.0
        self._failures = 0

    @property
    def _has_news(self) -> bool:
        return self._is_many or bool(self._ids)

    def add(self, ids: Iterable[UUID]) -> None:
        """Send these ids soon. Only more than `MOST_IDS` at a time are not sent one by one."""
        try:
            with self._lock:
                was_idle = not self._has_news
                self._collect(ids)
                worker = self._ensure_worker()
            if was_idle and worker is not None:
                worker.waker.wake()
        except Exception as error:  # the record is in history, so its caller must not fail
            self._note_failure(error)

    def _collect(self, ids: Iterable[UUID]) -> None:
        if not self._is_many:
            self._ids.update(ids)
            if len(self._ids) > MOST_IDS:
                self._is_many = True
        if self._is_many:
            self._ids.clear()

    def close(self, timeout: float | None = None) -> None:
        """Send what waits, within a second, and close the connection. `add` opens it again."""
        with self._lock:
            worker = self._worker
            if worker is None or not worker.is_alive():
                return
            self._is_closing = True
        worker.waker.wake()
        worker.join(_SECONDS_TO_CLOSE)

    def _ensure_worker(self) -> _Worker | None:
        worker = self._worker
        if worker is not None and worker.is_alive() and worker.loop in (None, running_loop()):
            return worker
        self._is_closing = False
        is_async = self._engine_of()[0].dialect.is_async
        self._worker = self._start_task() if is_async else self._start_thread()
        return self._worker

    def _start_thread(self) -> _Worker | None:
        waker = ThreadWaker()
        thread = Thread(target=self.run, args=[waker], name="jobhistory-notifier", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # too many threads, or the interpreter is about to end
            self._note_failure(error)
            return None
        close_at_exit(self, last=True)
        return _Worker(waker, None, thread.is_alive, thread.join)

    def _start_task(self) -> _Worker | None:
        loop = running_loop()
        if loop is None:
            return None
        self._connection = None  # that of another event loop, if any
        waker = LoopWaker()
        # Not in the context of the caller, whose deadline is not that of the task.
        task = loop.create_task(greenlet_spawn(self.run, waker), context=Context())

        def join(seconds: float) -> None:
            if running_loop() is loop:
                await_only(asyncio.wait({task}, timeout=seconds))

        return _Worker(waker, loop, lambda: not task.done() and not loop.is_closed(), join)

    def run(self, waker: Waker) -> None:
        """Send until nothing has come for a while, or until `close`. Called by the worker."""
        try:
            while self._wait_for_news(waker):
                self._wait_until_due(waker)
                self._send()
                if self._failures and self._is_closing:
                    return
        except asyncio.CancelledError:  # the event loop ends
            with suppress(Exception):
                await_only(asyncio.wait_for(greenlet_spawn(self._send), _SECONDS_TO_CLOSE))
            raise
        finally:
            self._hang_up()

    def _wait_for_news(self, waker: Waker) -> bool:
        """Wait for something to send, and return whether there is; if not, the worker must end."""
        idle_at = self._clock() + _IDLE_SECONDS
        while True:
            with self._lock:
                if self._has_news:
                    return True
                if self._is_closing or self._clock() >= idle_at:
                    self._worker = None
                    forget(self)
                    return False
            waker.wait(idle_at - self._clock())

    def _wait_until_due(self, waker: Waker) -> None:
        while not self._is_closing and (left := self._next - self._clock()) > 0:
            waker.wait(left)

    def _send(self) -> None:
        with self._lock:
            content = MANY if self._is_many else ",".join(id_.hex for id_ in self._ids)
            self._ids.clear()
            self._is_many = False
        if not content:
            return
        try:
            if self._connection is None:
                self._connection = OwnConnection.open(*self._engine_of())
            values = {"channel": channel_of(self._connection.schema), "content": content}
            self._connection.execute(_NOTIFY, values, seconds=_SECONDS_TO_SEND)
        except BaseException as error:  # also the end of the event loop, in the middle of this
            # Followers may have found these executions long before the next try.
            self._is_many = True
            self._hang_up()
            if not isinstance(error, Exception):
                raise
            self._note_failure(error)
        else:
            self._failures = 0
        pause = SECONDS_BETWEEN * 2 ** min(self._failures, 10)
        self._next = self._clock() + min(pause, _LONGEST_PAUSE)

    def _note_failure(self, error: Exception) -> None:
        if not self._failures:
            logger.warning(
                "followers are not notified, and find out by polling; retrying: %s", reason(error)
            )
        self._failures += 1

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()
