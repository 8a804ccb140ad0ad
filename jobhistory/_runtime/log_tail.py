"""Keep the last log lines that are emitted in a context."""

from __future__ import annotations

import logging
import time
from collections import deque
from contextvars import ContextVar
from copy import copy
from threading import Lock
from typing import Any

_tails: ContextVar[tuple[LogTail, ...]] = ContextVar("jobhistory_log_tails", default=())
_install_lock = Lock()
_is_installed = False

_format = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
_format.converter = time.gmtime

_LONGEST_LINE = 64 * 1024


class LogTail:
    """The last lines that loggers emit in the contexts that it has entered. Thread-safe.

    Tasks inherit the context of the code that creates them; threads do not. What no logger emits,
    because of its level, is not kept. Handlers and their levels do not matter.

    Args:
        limit: the number of characters to keep, except that the last line is kept whole, up to
            65,536 characters.
    """

    def __init__(self, limit: int) -> None:
        _install()
        self.limit = limit
        self._lock = Lock()
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
        with self._lock:
            self._is_closed = True
            return list(self._lines)

    def append(self, line: str) -> None:
        """Keep a line, and drop the oldest ones that are too much."""
        with self._lock:
            if self._is_closed:
                return
            self._lines.append(line)
            self._size += len(line) + 1
            while self._size > self.limit and len(self._lines) > 1:
                self._size -= len(self._lines.popleft()) + 1


def _install() -> None:
    """Listen to all loggers of the process, without changing their handlers and levels.

    A handler on the root logger would do the same, but `logging.basicConfig` does nothing once
    there is one, and warnings would no longer be printed in apps without a configuration.
    """
    global _is_installed
    with _install_lock:
        if _is_installed:
            return
        _is_installed = True
        make_record = logging.getLogRecordFactory()

        def make_record_and_keep(*args: Any, **named: Any) -> logging.LogRecord:
            record = make_record(*args, **named)
            if tails := _tails.get():
                _keep(record, tails)
            return record

        logging.setLogRecordFactory(make_record_and_keep)


def _keep(record: logging.LogRecord, tails: tuple[LogTail, ...]) -> None:
    token = _tails.set(())  # the values of a message may log when they become text
    try:
        line = _format.format(copy(record))[:_LONGEST_LINE]
    except Exception:
        line = f"{record.levelname} {record.name}: <message that cannot be formatted>"
    finally:
        _tails.reset(token)
    for tail in tails:
        tail.append(line)
