"""Await work that must not be abandoned halfway."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_to_completion(work: Coroutine[Any, Any, T], *, cancellable: bool) -> T:
    """Await work in its own task until it has finished, and return its result.

    If the caller is cancelled meanwhile, the call raises `CancelledError` once the work has
    finished.

    Args:
        cancellable: cancel the work with its caller, but only once: if the caller is cancelled
            again, the work can still clean up.
    """
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if cancellable and cancellation is None and not task.cancelling():
                task.cancel()
            cancellation = error
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # retrieves it, or asyncio would log it
    raise cancellation
