"""What a forked child must not share with its parent."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """What holds something that is no good in a forked child: locks, connections, threads."""

    def begin_anew(self) -> None:
        """Replace all of it; called in the child, where no other thread runs yet."""


_forkables: WeakSet[Forkable] = WeakSet()


def renew_in_children(forkable: Forkable) -> None:
    """Let something begin anew in every child that this process forks, as long as it exists."""
    _forkables.add(forkable)


def _renew() -> None:
    for forkable in list(_forkables):
        forkable.begin_anew()


if hasattr(os, "register_at_fork"):  # systems without fork lack it
    os.register_at_fork(after_in_child=_renew)
