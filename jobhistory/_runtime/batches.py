"""Long work in short batches, with a time limit and progress."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from time import monotonic

from jobhistory._runtime.durations import parse_duration
from jobhistory.errors import check_count
from jobhistory.typing import Duration

logger = logging.getLogger(__name__)


class Batches:
    """Makes batches until there is no more to do, or the time is up.

    Args:
        name: the name of the caller's method, for the log.
        size: the maximum number of rows in a batch.
        time_limit: stop after the first batch that ends later than this.
        progress: called after each batch with the total so far.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    def __init__(
        self,
        name: str,
        size: int,
        time_limit: Duration | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        check_count(size, "batch_size", example=1000)
        self.size = size
        self._name = name
        self._limit = timedelta.max
        if time_limit is not None:
            self._limit = parse_duration(time_limit, "time_limit")
        self._progress = progress

    def run(self, do_batch: Callable[[], tuple[int, bool]]) -> int:
        """Make batches and return the total of what they did.

        Args:
            do_batch: makes one batch; returns what it did, and whether it was the last one.
        """
        begun = monotonic()
        total = 0
        while True:
            done, is_last = do_batch()
            total += done
            if self._progress is not None:
                self._progress(total)
            if is_last:
                return total
            if monotonic() - begun >= self._limit.total_seconds():
                logger.warning(
                    "%s() reached its time limit of %s; rows may be left", self._name, self._limit
                )
                return total
