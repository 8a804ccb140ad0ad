"""Awaiting what must not be left in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_to_completion(work: Coroutine[Any, Any, T], *, cancellable: bool) -> T:
    """Await work in a task of its own, and do not return before that has ended.

    If the caller is cancelled meanwhile, `CancelledError` is raised after that.

    Args:
        cancellable: whether the work is cancelled with its caller: once, so that what it does to
            clean up is not cancelled in turn, as some libraries would.
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
        task.exception()  # looked at, or asyncio would report it
    raise cancellation
