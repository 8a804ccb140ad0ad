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

from jobhistory._runtime.clock import utc_now
from jobhistory.errors import reason
from jobhistory.tracking_methods import AsyncTrackingMethods
from jobhistory.typing import Id

logger = logging.getLogger("jobhistory.contrib")

_MOST_EXECUTIONS = 10_000
_IMPORTED_AT = utc_now()
"""When this process had begun, at the latest. A child that was forked has an earlier time."""


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
            records = [] if self.worker_id else store.running(**self._of_this_host)
            for lost in self._lost(records):
                self._log(store.reap_lost(**lost))
        except Exception as error:
            self._log_failure(error)

    async def _end_async(self, store: Any) -> None:
        try:
            records = [] if self.worker_id else await store.running(**self._of_this_host)
            for lost in self._lost(records):
                self._log(await store.reap_lost(**lost))
        except Exception as error:
            self._log_failure(error)

    @property
    def _of_this_host(self) -> dict[str, Any]:
        return {
            "worker_id_starts_with": f"{_host()}:",
            "to": self.before,
            "limit": _MOST_EXECUTIONS,
        }

    def _lost(self, records: Iterable[Any]) -> list[dict[str, Any]]:
        """Return the arguments for `reap_lost`, one call each."""
        if self.worker_id:
            return [{"worker_id": self.worker_id, "started_before": self.before}]
        own, worker_ids = process_name(), {record.worker_id for record in records}
        gone = [worker_id for worker_id in worker_ids if _is_gone(worker_id)]
        lost = [{"worker_id": gone, "started_before": self.before}] if gone else []
        if own in worker_ids:
            # Of an earlier process with this id. This one may run jobs of another app already.
            lost.append({"worker_id": own, "started_before": min(self.before, _IMPORTED_AT)})
        return lost

    def _log(self, count: int) -> None:
        if count:
            logger.warning("%d executions of a previous process were lost", count)

    def _log_failure(self, error: Exception) -> None:
        logger.error("executions of a previous process may have no outcome: %s", reason(error))


def _is_gone(worker_id: str) -> bool:
    pid = worker_id.rpartition(":")[2]
    if worker_id != f"{_host()}:{pid}" or not pid.isdecimal():
        return False
    if os.name != "posix":  # elsewhere, this call would end the process
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):  # no process has such a large id
        return True
    except OSError:  # it belongs to another user
        return False
    return False


def _host() -> str:
    return socket.gethostname() or "unknown"
