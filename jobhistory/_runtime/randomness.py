"""Random numbers that are not those of the app."""

from __future__ import annotations

import os
from random import Random

# A separate generator, because an app may seed that of the `random` module. It guards no secrets.
GENERATOR = Random()  # noqa: S311
"""The random numbers of this process. Thread-safe. A forked child gets others than its parent."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=GENERATOR.seed)


def random_number() -> float:
    """Return a number from 0 up to, and without, 1."""
    return GENERATOR.random()
