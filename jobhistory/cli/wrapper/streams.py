"""The output of a command, on its way to where it would have gone without the wrapper."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable
from threading import Thread
from time import monotonic

Sink = Callable[[bytes], None]

_READ_BYTES = 64 * 1024
_LARGEST_PIPE = 1024 * 1024
"""How much the command may have left behind in a pipe at its end, at most."""

_LAST_WORDS_SECONDS = 1.0
"""How long to wait for more output: a background process that the command started may hold it open
indefinitely."""


def write_all(target: int, chunk: bytes) -> None:
    """Write bytes to a descriptor, also if it does not block.

    Raises:
        OSError: if it cannot be written.
    """
    rest = memoryview(chunk)
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BlockingIOError:
            ready = select.poll()
            ready.register(target, select.POLLOUT)
            ready.poll()


def write_if_possible(target: int, chunk: bytes) -> None:
    """Write bytes to a descriptor, unless nobody reads it any more."""
    try:
        write_all(target, chunk)
    except OSError:
        return


class Stream:
    """Passes on what a command writes, in a thread, without delay.

    If the reader of the target has closed it, the source is closed, so that the command gets the
    SIGPIPE that it would have got without the wrapper. After other errors of the target, the rest
    is read and not passed on.

    Args:
        source: the descriptor to read; it is closed at the end.
        target: the descriptor to write; `None` if there is none.
        sinks: functions that also take each chunk.
    """

    def __init__(self, source: int, target: int | None, sinks: Iterable[Sink]) -> None:
        self._source = source
        self._target = target
        self._sinks = list(sinks)
        self._deadline: float | None = None
        self._rest = _LARGEST_PIPE
        self._wake, self._waker = os.pipe()
        self._thread = Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def command_has_ended(self) -> None:
        """Stop at the end of the output, or after a second without any."""
        os.close(self._waker)

    def is_done(self, seconds: float) -> bool:
        """Return whether everything is passed on, at the latest after some seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _pass_on(self) -> None:
        try:
            while chunk := self._read():
                for sink in self._sinks:
                    sink(chunk)
                self._write(chunk)
        except BrokenPipeError:
            pass
        finally:
            os.close(self._source)
            os.close(self._wake)

    def _write(self, chunk: bytes) -> None:
        if self._target is None:
            return
        try:
            write_all(self._target, chunk)
        except BrokenPipeError:
            raise
        except OSError:
            self._target = None

    def _read(self) -> bytes:
        """Return the next output; nothing at the end."""
        while True:
            ready = self._wait()
            if self._source in ready:
                try:
                    chunk = os.read(self._source, _READ_BYTES)
                except OSError:  # EIO: nobody has the other side of a terminal open any more
                    return b""
                if self._is_late():
                    self._rest -= len(chunk)
                return chunk
            if self._wake not in ready:
                return b""
            self._deadline = monotonic() + _LAST_WORDS_SECONDS

    def _wait(self) -> set[int]:
        """Return the descriptors that are ready; none if the output counts as ended."""
        waiting = select.poll()
        waiting.register(self._source, select.POLLIN)
        if self._deadline is None:
            waiting.register(self._wake, select.POLLIN)
            return {descriptor for descriptor, _ in waiting.poll()}
        if self._is_late() and self._rest <= 0:
            return set()
        seconds = max(0.0, self._deadline - monotonic())
        return {descriptor for descriptor, _ in waiting.poll(seconds * 1000)}

    def _is_late(self) -> bool:
        return self._deadline is not None and monotonic() >= self._deadline
