"""Pauses of the library, which let an event loop go on."""

from __future__ import annotations

import asyncio
import sys
import time

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet


def sleep(seconds: float) -> None:
    """Wait. A store for asyncio lets its event loop go on meanwhile."""
    # Without greenlet, in_greenlet() raises.
    if sys.modules.get("greenlet") is not None and in_greenlet():
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)
