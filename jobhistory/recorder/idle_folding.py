"""Folding by the thread of a `Recorder` while it has nothing to write."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from jobhistory.errors import reason

logger = logging.getLogger("jobhistory.recorder")

INTERVAL = 300.0
"""The time between two foldings, in seconds."""

_QUIET = 1.0
_BATCH = 10_000


class IdleFolding:
    """Folds a few minutes after something was written. For one thread.

    Args:
        fold: folds one batch, and returns whether more may wait; `None` to fold nothing.
    """

    def __init__(self, fold: Callable[[int], bool] | None) -> None:
        self._fold = fold
        self._due: float | None = None
        self._has_failed = False

    def note_written(self) -> None:
        """Note that something waits to be folded."""
        if self._due is None and self._fold is not None:
            self._due = monotonic() + INTERVAL

    @property
    def is_wanted(self) -> bool:
        """Whether something was written since the last folding."""
        return self._due is not None

    @property
    def seconds(self) -> float:
        """How long nothing must come before it is time to fold."""
        return _QUIET if self._due is None else max(_QUIET, self._due - monotonic())

    def fold(self) -> None:
        """Fold one batch. Log the first error, because the recorder itself works."""
        assert self._fold is not None
        self._due = None
        try:
            if self._fold(_BATCH):
                self._due = monotonic()
        except Exception as error:  # whatever it is, the recorder must go on
            if not self._has_failed:
                logger.warning("statistics wait to be folded: %s", reason(error))
            self._has_failed = True
