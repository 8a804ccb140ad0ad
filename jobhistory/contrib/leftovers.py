"""What a worker left without an outcome when its process ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from threading import Thread
from typing import Any

from jobhistory.errors import reason
from jobhistory.tracking_methods import AsyncTrackingMethods
from jobhistory.typing import Id

logger = logging.getLogger("jobhistory.contrib")

_MOST_EXECUTIONS = 10_000


def process_name() -> str:
    """Return the worker id of this process for frameworks that do not name their workers."""
    return f"{_host()}:{os.getpid()}"


@dataclass(frozen=True)
class Leftovers:
    """The executions that the previous process of a worker left without an outcome.

    Args:
        worker_id: the worker; `None` for all processes of this host that no longer exist.
        before: the executions started before this time.
    """

    worker_id: Id | None
    before: datetime

    def end(self, store: Any) -> Thread | asyncio.Task[None]:
        """Mark them as lost, in a thread, or with a store for asyncio in a task."""
        # A recorder cannot read.
        store = getattr(store, "store", store)
        if isinstance(store, AsyncTrackingMethods):
            return asyncio.get_running_loop().create_task(self._end_async(store))
        thread = Thread(target=self._end, args=(store,), name="jobhistory-leftovers", daemon=True)
        thread.start()
        return thread

    def _end(self, store: Any) -> None:
        try:
            lost = self.worker_id or _gone(store.running(**self._of_this_host))
            if lost:
                self._log(store.reap_lost(worker_id=lost, started_before=self.before))
        except Exception as error:
            self._log_failure(error)

    async def _end_async(self, store: Any) -> None:
        try:
            lost = self.worker_id or _gone(await store.running(**self._of_this_host))
            if lost:
                self._log(await store.reap_lost(worker_id=lost, started_before=self.before))
        except Exception as error:
            self._log_failure(error)

    @property
    def _of_this_host(self) -> dict[str, Any]:
        return {
            "worker_id_starts_with": f"{_host()}:",
            "to": self.before,
            "limit": _MOST_EXECUTIONS,
        }

    def _log(self, count: int) -> None:
        if count:
            logger.warning("%d executions of a previous process were lost", count)

    def _log_failure(self, error: Exception) -> None:
        logger.error("executions of a previous process may have no outcome: %s", reason(error))


def _gone(records: Iterable[Any]) -> list[str]:
    """Return the worker ids of processes that no longer exist, or whose id this process has now."""
    return [
        worker_id for worker_id in {record.worker_id for record in records} if _is_gone(worker_id)
    ]


def _is_gone(worker_id: str) -> bool:
    pid = worker_id.rpartition(":")[2]
    if worker_id != f"{_host()}:{pid}" or not pid.isdecimal():
        return False
    if int(pid) == os.getpid():
        return True
    if os.name != "posix":  # elsewhere, this call would end the process
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to another user
        return False
    return False


def _host() -> str:
    return socket.gethostname() or "unknown"
