"""Heartbeats that the library sends by itself while an execution is tracked."""

from __future__ import annotations

import asyncio
from asyncio import sleep
from functools import partial
from typing import Protocol

from jobhistory._runtime.cancellation import run_to_completion
from jobhistory._runtime.pulse import PULSE
from jobhistory.lifecycle import Lifecycle, Run


class Heartbeats(Protocol):
    """Heartbeats of one execution."""

    def stop(self) -> None:
        """Send no more."""

    async def stopped(self) -> None:
        """Wait for the one that is being sent."""


class ThreadHeartbeats:
    """Heartbeats from the thread that sends those of the whole process."""

    def __init__(self, lifecycle: Lifecycle, seconds: float) -> None:
        self._stop = PULSE.add(partial(lifecycle.heartbeat, may_raise=False), seconds)

    def stop(self) -> None:
        """Send no more."""
        self._stop()

    async def stopped(self) -> None:
        """Return at once: the thread does not need the event loop."""


class TaskHeartbeats:
    """Heartbeats from a task of the event loop, called by `run`."""

    def __init__(self, lifecycle: Lifecycle, seconds: float, run: Run) -> None:
        self._task = asyncio.ensure_future(self._send(lifecycle, seconds, run))

    async def _send(self, lifecycle: Lifecycle, seconds: float, run: Run) -> None:
        while True:
            await sleep(seconds)
            beat = run(partial(lifecycle.heartbeat, may_raise=False))
            await run_to_completion(beat, cancellable=False)

    def stop(self) -> None:
        """Send no more."""
        self._task.cancel()

    async def stopped(self) -> None:
        """Wait for the one that is being sent."""
        await asyncio.wait({self._task})
