"""Connection pools whose callers do not wait in vain while the database hangs."""

from __future__ import annotations

from time import monotonic
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection, QueuePool

SECONDS_TO_WAIT = 10.0
"""How long a call waits for a free connection. If the database hangs, it is much shorter."""

_SECONDS_BETWEEN_LOOKS = 0.25


class PatientPool(QueuePool):
    """A pool in which those who wait notice that others could not connect.

    SQLAlchemy's pool wakes them if a connection is returned, but not if an attempt to connect has
    failed, and has left a place. So they look from time to time.
    """

    # It logs where SQLAlchemy's own pools do, not at the level of this library.
    _sqla_logger_namespace = "sqlalchemy.pool.impl.QueuePool"

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **{**options, "timeout": _SECONDS_BETWEEN_LOOKS})

    def connect(self) -> PoolProxiedConnection:
        """Return a connection, as soon as there is one.

        Raises:
            PoolTimeout: if there was none within the time limit.
        """
        until = monotonic() + SECONDS_TO_WAIT
        while True:
            try:
                return super().connect()
            except PoolTimeout:
                if monotonic() >= until:
                    message = f"no connection was free within {SECONDS_TO_WAIT:g} s"
                    raise PoolTimeout(message) from None


class AsyncPatientPool(PatientPool, AsyncAdaptedQueuePool):
    """The same for asyncio."""

    _sqla_logger_namespace = "sqlalchemy.pool.impl.AsyncAdaptedQueuePool"
