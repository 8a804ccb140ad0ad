"""Close what must not be left open at the end of the process."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import Protocol

from jobhistory.errors import NotWritten

logger = logging.getLogger("jobhistory.recorder")

AT_EXIT_SECONDS = 10.0
"""The number of seconds for which a process that ends waits for an open recorder."""


class Closable(Protocol):
    """An object that must be closed before the process ends."""

    def close(self, timeout: float | None) -> None:
        """Close it."""


_to_close: set[Closable] = set()
_to_close_last: set[Closable] = set()
_finalizing_process: int | None = None


def close_at_exit(closable: Closable, *, last: bool = False) -> None:
    """Close an object at the end of this process, unless `forget` is called before.

    Args:
        last: close it after the others, which may still use it.
    """
    global _finalizing_process
    (_to_close_last if last else _to_close).add(closable)
    # Children of multiprocessing do not run atexit functions.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _finalizing_process != os.getpid():
        util.Finalize(None, _close_all, exitpriority=10)
        _finalizing_process = os.getpid()


def forget(closable: Closable) -> None:
    """Do not close an object at the end, because it is closed already."""
    _to_close.discard(closable)
    _to_close_last.discard(closable)


@atexit.register
def _close_all() -> None:
    for closable in list(_to_close):
        _close(closable)
    for closable in list(_to_close_last):
        _close(closable)


def _close(closable: Closable) -> None:
    try:
        closable.close(AT_EXIT_SECONDS)
    except NotWritten as error:
        logger.error("at the end of the process, %s; they are lost", error)
    except KeyboardInterrupt:  # close() has logged the loss; go on with the others
        return
