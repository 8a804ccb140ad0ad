"""What watches the executions that begin and end in this process, such as telemetry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

logger = logging.getLogger(__name__)


class Watch(Protocol):
    """What watches one execution. Nothing that it raises reaches the job."""

    def enter(self) -> None:
        """Take note that the execution becomes the current one of this context."""
        ...

    def leave(self) -> None:
        """Take note that it no longer is. Called at least once in that context."""
        ...

    def end(self, outcome: Mapping[str, Any] | None) -> None:
        """Take note of the outcome, by column; `None` if the execution could not begin.

        Another thread may call it. If it is called again, the first call counts.
        """
        ...


MakeWatch = Callable[[dict[str, Any]], Watch]
"""Returns the watch for the started row of an execution, which is not written yet."""

_make_watch: MakeWatch | None = None


def watch_with(make_watch: MakeWatch | None) -> None:
    """Watch executions that begin from now on; `None` to watch none."""
    global _make_watch
    _make_watch = make_watch


def watch(row: dict[str, Any]) -> Watch:
    """Return what watches the execution of a started row."""
    if _make_watch is None:
        return UNWATCHED
    try:
        return _Contained(_make_watch(row))
    except Exception as error:
        _report(error)
        return UNWATCHED


class _Unwatched:
    def enter(self) -> None:
        pass

    def leave(self) -> None:
        pass

    def end(self, outcome: Mapping[str, Any] | None) -> None:
        pass


UNWATCHED: Watch = _Unwatched()
"""The watch that does nothing."""


class _Contained:
    """A watch whose errors are logged."""

    def __init__(self, inner: Watch) -> None:
        self._inner = inner

    def enter(self) -> None:
        try:
            self._inner.enter()
        except Exception as error:
            _report(error)

    def leave(self) -> None:
        try:
            self._inner.leave()
        except Exception as error:
            _report(error)

    def end(self, outcome: Mapping[str, Any] | None) -> None:
        try:
            self._inner.end(outcome)
        except Exception as error:
            _report(error)


def _report(error: Exception) -> None:
    # Only the type, because the message may quote what the job carries.
    logger.error("an execution is not watched any more: %s", type(error).__name__)
