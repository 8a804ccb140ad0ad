"""The store of an adapter: given, or made when a process first needs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from jobhistory._runtime.fork import ForkSafeLock
from jobhistory.errors import InvalidInput, reason
from jobhistory.recorder import Recorder
from jobhistory.store import HistoryStore
from jobhistory.tracking_methods import AsyncTrackingMethods

if TYPE_CHECKING:
    from jobhistory.aio import AsyncHistoryStore
    from jobhistory.recorder.async_recorder import AsyncRecorder

logger = logging.getLogger("jobhistory.contrib")

SECONDS_TO_CLOSE = 10.0

StoreSource: TypeAlias = "HistoryStore | Recorder | Callable[[], HistoryStore | Recorder]"
"""A store or a recorder, or a function without arguments that makes one when it is first needed."""

if TYPE_CHECKING:
    AsyncStoreSource: TypeAlias = (
        StoreSource
        | AsyncHistoryStore
        | AsyncRecorder
        | Callable[[], AsyncHistoryStore]
        | Callable[[], AsyncRecorder]
    )
else:
    AsyncStoreSource = Any
"""The same for frameworks with an event loop, where stores for asyncio can be used as well."""


class StoreOfProcess:
    """A store or a recorder, which a function may make. Thread-safe.

    Args:
        source: a store, a recorder, or a function that makes one.
        is_async: whether a store for asyncio will do.

    Raises:
        InvalidInput: if it is none of these.
    """

    def __init__(self, source: AsyncStoreSource, *, is_async: bool) -> None:
        self._kinds = (HistoryStore, Recorder) + ((AsyncTrackingMethods,) if is_async else ())
        self._lock = ForkSafeLock()
        self._make: Callable[[], Any] | None = None
        self._store: Any = None
        if callable(source):
            self._make = source
        else:
            self._store = self._checked(source)

    def get(self) -> Any:
        """Return the store or recorder. A function makes it when it is first needed."""
        with self._lock:
            if self._store is None:
                assert self._make is not None
                self._store = self._checked(self._make())
            return self._store

    def close(self) -> None:
        """Write what a recorder has accepted, and close a store that a function made."""
        store = self._released()
        if is_async(store):
            return  # its event loop has ended, and nothing else can close it
        try:
            if isinstance(store, Recorder):
                store.flush(SECONDS_TO_CLOSE)
            if self._make is not None and store is not None:
                store.close()
                if isinstance(store, Recorder):
                    store.store.close()
        except Exception as error:
            logger.error("the store cannot be closed: %s", reason(error))

    async def close_async(self) -> None:
        """Do what `close` does, without blocking the event loop."""
        if not is_async(self._store):
            await asyncio.to_thread(self.close)
            return
        store = self._released()
        own = self._make is not None
        try:
            if hasattr(store, "flush"):  # an AsyncRecorder
                await store.flush(SECONDS_TO_CLOSE)
            if own:
                await store.close()
            if own and hasattr(store, "flush"):
                await store.store.close()
        except Exception as error:
            logger.error("the store cannot be closed: %s", reason(error))

    def _released(self) -> Any:
        """Return the store, and forget it if it must be closed."""
        with self._lock:
            store = self._store
            if self._make is not None:
                self._store = None
            return store

    def _checked(self, store: Any) -> Any:
        if isinstance(store, self._kinds):
            return store
        if is_async(store):
            raise InvalidInput(
                "store", store, "is for asyncio, and this framework is not; pass create_store(url)"
            )
        raise InvalidInput(
            "store", store, "is neither a store nor a recorder; pass create_store(url)"
        )


def is_async(store: Any) -> bool:
    """Return whether a store or a recorder is for asyncio."""
    return isinstance(store, AsyncTrackingMethods)
