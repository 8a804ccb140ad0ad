"""Blocking work of the library, which lets an event loop go on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

P = ParamSpec("P")
T = TypeVar("T")


def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function and return its result: in a thread, if the caller is an event loop."""
    # Without greenlet, in_greenlet() raises.
    if sys.modules.get("greenlet") is None or not in_greenlet():
        return function(*args, **kwargs)
    result: T = await_only(asyncio.to_thread(function, *args, **kwargs))
    return result
