"""A bounded buffer of the newest items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Generic, TypeVar

from jobhistory._runtime.fork import register_for_fork
from jobhistory.errors import check_count

T = TypeVar("T")


class RingBuffer(Generic[T]):
    """Keeps the last `size` items, in insertion order.

    Thread-safe: any number of threads may call its methods at the same time. It does not copy the
    items. A forked child starts with an empty buffer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Remove all items, in a forked child."""
        self._items: deque[T] = deque(maxlen=self._size)
        # Without the GIL, list(deque) raises RuntimeError if another thread appends meanwhile.
        # Reentrant, because a signal handler may run while its own thread holds the lock.
        self._lock = RLock()

    def append(self, item: T) -> T | None:
        """Add an item. If the buffer is full, remove and return the oldest one."""
        with self._lock:
            oldest = self._items[0] if len(self._items) == self._size else None
            self._items.append(item)
        return oldest

    def extend(self, items: Iterable[T]) -> None:
        """Add items in order, without items of other threads between them."""
        with self._lock:
            self._items.extend(items)

    def last(self, n: int | None = None) -> list[T]:
        """Return the last `n` items, or all items, oldest first.

        Raises:
            InvalidInput: if `n` is not a whole number from 0 up.
        """
        if n is not None:
            check_count(n, "n", least=0)
        with self._lock:
            items = list(self._items)
        return items if n is None else items[max(0, len(items) - n) :]

    def replace(self, old: T, new: T) -> bool:
        """Put an item in the place of another, and return whether that was there."""
        with self._lock:
            for place, item in enumerate(self._items):
                if item is old:
                    self._items[place] = new
                    return True
        return False

    def discard(self, unwanted: Callable[[T], bool]) -> int:
        """Remove the items for which `unwanted` is true, and return their number."""
        with self._lock:
            kept = [item for item in self._items if not unwanted(item)]
            removed = len(self._items) - len(kept)
            self._items = deque(kept, maxlen=self._size)
            return removed

    def __len__(self) -> int:
        return len(self._items)
