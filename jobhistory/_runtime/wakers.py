"""Waiting that others can end early, in a thread and in a task of an event loop."""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet


class Waker(Protocol):
    """Lets one thread or task wait until another one wakes it. Wakes before a wait count."""

    def wake(self) -> None:
        """End the current wait, or the next one."""
        ...

    def wait(self, seconds: float | None) -> None:
        """Wait for this many seconds, or until it is woken."""
        ...


class WatchingWaker(Waker, Protocol):
    """A waker that also wakes when there is something to read on a file descriptor."""

    def watch(self, descriptor: int) -> None:
        """Watch a file descriptor, and no other one."""
        ...

    def unwatch(self) -> None:
        """Watch none."""
        ...

    def close(self) -> None:
        """Release what it holds. It must not wait any more."""
        ...


class ThreadWaker:
    """A waker for a thread. Any thread and any signal handler may wake it."""

    def __init__(self) -> None:
        self._alarm: SimpleQueue[None] = SimpleQueue()  # signal handlers may use it, unlike Event

    def wake(self) -> None:
        """End the current wait, or the next one."""
        if self._alarm.empty():
            self._alarm.put(None)

    def wait(self, seconds: float | None) -> None:
        """Block the thread."""
        with suppress(Empty):
            self._alarm.get(timeout=None if seconds is None else max(0.0, seconds))


class SelectingWaker:
    """A watching waker for a thread. Any thread and any signal handler may wake it."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._watched: int | None = None

    def wake(self) -> None:
        """End the current wait, or the next one."""
        with suppress(OSError):  # it is full of earlier wakes, or closed
            self._writer.send(b"w")

    def wait(self, seconds: float | None) -> None:
        """Block the thread."""
        self._selector.select(None if seconds is None else max(0.0, seconds))
        with suppress(BlockingIOError):
            self._reader.recv(4096)

    def watch(self, descriptor: int) -> None:
        """Watch a file descriptor, and no other one."""
        self.unwatch()
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._watched = descriptor

    def unwatch(self) -> None:
        """Watch none."""
        watched, self._watched = self._watched, None
        if watched is not None:
            with suppress(KeyError, ValueError, OSError):
                self._selector.unregister(watched)

    def close(self) -> None:
        """Close its sockets."""
        self._selector.close()
        self._reader.close()
        self._writer.close()


class LoopWaker:
    """A watching waker for a greenlet in a task of the running event loop.

    Any thread may wake it.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._watched: int | None = None

    def watch(self, descriptor: int) -> None:
        """Watch a file descriptor, and no other one."""
        self.unwatch()
        self._loop.add_reader(descriptor, self._event.set)
        self._watched = descriptor

    def unwatch(self) -> None:
        """Watch none."""
        watched, self._watched = self._watched, None
        if watched is not None and not self._loop.is_closed():
            self._loop.remove_reader(watched)

    def close(self) -> None:
        """Watch nothing any more."""
        self.unwatch()

    def wake(self) -> None:
        """End the current wait, or the next one."""
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._event.set)

    def wait(self, seconds: float | None) -> None:
        """Suspend the task."""
        await_only(self._wait(seconds))

    async def _wait(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop if this code runs in a greenlet of one of its tasks."""
    # Without greenlet, in_greenlet() raises.
    if sys.modules.get("greenlet") is not None and in_greenlet():
        return asyncio.get_running_loop()
    return None
