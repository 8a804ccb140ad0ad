"""Reset objects that a forked child must not share with its parent."""

from __future__ import annotations

import os
from threading import RLock
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """An object with locks, connections or threads, which a forked child cannot use."""

    def reset_after_fork(self) -> None:
        """Replace them. Called in the child, before it starts any thread."""


_forkables: WeakSet[Forkable] = WeakSet()


def register_for_fork(forkable: Forkable) -> None:
    """Reset an object in every forked child of this process, for as long as the object exists."""
    _forkables.add(forkable)


class ForkSafeLock:
    """A lock for a few instructions, which a signal handler may take again and a child may take.

    A forked child gets it unlocked, even if a thread of its parent holds it.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Unlock it."""
        self._lock = RLock()  # reentrant, as a signal handler may interrupt the thread with it

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _reset() -> None:
    for forkable in list(_forkables):
        forkable.reset_after_fork()


if hasattr(os, "register_at_fork"):  # missing on systems without fork
    os.register_at_fork(after_in_child=_reset)
