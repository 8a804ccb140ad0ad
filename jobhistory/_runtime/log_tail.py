"""Keep the last log lines that are emitted in a context."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from copy import copy
from typing import Any

from jobhistory._runtime.fork import ForkSafeLock

_tails: ContextVar[tuple[LogTail, ...]] = ContextVar("jobhistory_log_tails", default=())
_lock = ForkSafeLock()

_format = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
_format.converter = time.gmtime

_LONGEST_LINE = 64 * 1024
_LONGEST_WORD = 1024
_LAST_WORD = re.compile(r"[^\s\"',;]*+\Z")


class LogTail:
    """The last lines that loggers emit in the contexts that it has entered. Thread-safe.

    Tasks inherit the context of the code that creates them; threads do not. What no logger emits,
    because of its level, is not kept. Handlers and their levels do not matter.

    Args:
        limit: the number of characters to keep, except that the last line is kept whole, up to
            65,536 characters.
    """

    def __init__(self, limit: int) -> None:
        _listen()
        self.limit = limit
        self._lines: deque[str] = deque()
        self._size = 0
        self._is_closed = False

    def enter(self) -> None:
        """Keep lines that are emitted in the current context from now on."""
        _tails.set((*_tails.get(), self))

    def leave(self) -> None:
        """Stop keeping lines of the current context."""
        _tails.set(tuple(tail for tail in _tails.get() if tail is not self))

    def close(self) -> list[str]:
        """Stop keeping lines of any context, and return those that were kept."""
        self.leave()
        with _lock:
            self._is_closed = True
            return list(self._lines)

    def append(self, line: str) -> None:
        """Keep a line, and drop the oldest ones that are too much."""
        with _lock:
            if self._is_closed:
                return
            self._lines.append(line)
            self._size += len(line) + 1
            while self._size > self.limit and len(self._lines) > 1:
                self._size -= len(self._lines.popleft()) + 1


class _KeepingFactory:
    """A factory of log records that also keeps the line of each record.

    A handler on the root logger would do the same, but `logging.basicConfig` does nothing once
    there is one, and warnings would no longer be printed in apps without a configuration.
    """

    def __init__(self, make_record: Callable[..., logging.LogRecord]) -> None:
        self._make_record = make_record

    def __call__(self, *args: Any, **named: Any) -> logging.LogRecord:
        tails = _tails.get()
        if not tails:
            return self._make_record(*args, **named)
        # What logs meanwhile is not kept: a message whose values log when they become text, a
        # signal handler that interrupts this, and another such factory that this one calls.
        token = _tails.set(())
        try:
            record = self._make_record(*args, **named)
            if record.name is not None:  # `logging.makeLogRecord` fills it in later
                line = _line(record)
                for tail in tails:
                    tail.append(line)
            return record
        finally:
            _tails.reset(token)


def _listen() -> None:
    """Listen to all loggers of the process, without changing their handlers and levels."""
    with _lock:
        factory = logging.getLogRecordFactory()
        if not isinstance(factory, _KeepingFactory):  # the app may have replaced ours
            logging.setLogRecordFactory(_KeepingFactory(factory))


def _line(record: logging.LogRecord) -> str:
    try:
        line = _format.format(copy(record))
    except Exception:
        return f"{record.levelname} {record.name}: <message that cannot be formatted>"
    if len(line) <= _LONGEST_LINE:
        return line
    # Part of a secret would not be recognized as one, so the last word goes as well.
    end = _LONGEST_LINE - _LONGEST_WORD
    return line[:end] + _LAST_WORD.sub("", line[end:_LONGEST_LINE])
