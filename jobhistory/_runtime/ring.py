"""A bounded buffer of the newest things."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Generic, TypeVar

from jobhistory._runtime.fork import register_for_fork
from jobhistory.errors import check_count

T = TypeVar("T")


class RingBuffer(Generic[T]):
    """Keep the last `size` items, in order of insertion.

    Every method may be called by any number of threads at once. The items are kept as they are:
    who needs copies makes them. A forked child begins with an empty buffer of its own.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Forget everything, in a forked child."""
        self._items: deque[T] = deque(maxlen=self._size)
        # list(deque) raises RuntimeError if another thread appends meanwhile without the GIL.
        # Reentrant: a signal handler may run while its own thread holds the lock.
        self._lock = RLock()

    def append(self, item: T) -> None:
        """Add an item, which pushes out the oldest one if the buffer is full."""
        with self._lock:
            self._items.append(item)

    def extend(self, items: Iterable[T]) -> None:
        """Add items in their order, with none of other threads' between them."""
        with self._lock:
            self._items.extend(items)

    def last(self, n: int | None = None) -> list[T]:
        """The last `n` items, or all of them, oldest first."""
        if n is not None:
            check_count(n, "n", least=0)
        with self._lock:
            items = list(self._items)
        return items if n is None else items[max(0, len(items) - n) :]

    def discard(self, unwanted: Callable[[T], bool]) -> int:
        """Remove the items that are `unwanted` and say how many they were."""
        with self._lock:
            kept = [item for item in self._items if not unwanted(item)]
            removed = len(self._items) - len(kept)
            self._items = deque(kept, maxlen=self._size)
            return removed

    def __len__(self) -> int:
        return len(self._items)
