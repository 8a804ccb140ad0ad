"""Close recorders at the end of the process."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import Protocol

from jobhistory.errors import NotWritten

logger = logging.getLogger("jobhistory.recorder")

AT_EXIT_SECONDS = 10.0
"""How long the end of a process waits for a recorder that was not closed."""


class Closable(Protocol):
    """What has to be closed before the process ends."""

    def close(self, timeout: float | None) -> None:
        """Close it."""


_to_close: set[Closable] = set()
_finalizing_process: int | None = None


def close_at_exit(closable: Closable) -> None:
    """Close something at the end of this process, unless it is forgotten before."""
    global _finalizing_process
    _to_close.add(closable)
    # The children of multiprocessing end without calling what atexit knows.
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _finalizing_process != os.getpid():
        util.Finalize(None, _close_all, exitpriority=10)
        _finalizing_process = os.getpid()


def forget(closable: Closable) -> None:
    """Forget what has been closed."""
    _to_close.discard(closable)


@atexit.register
def _close_all() -> None:
    for closable in list(_to_close):
        try:
            closable.close(AT_EXIT_SECONDS)
        except NotWritten as error:
            logger.error("at the end of the process %s; they are lost", error)
        except KeyboardInterrupt:  # it has logged what it loses; the others have their turn
            continue
