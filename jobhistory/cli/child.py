"""Run a command as its caller would, and return how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from time import monotonic

_TAIL_BYTES = 32 * 1024
_READ_BYTES = 64 * 1024
# How long to wait for the rest of standard error: a background process that the command started
# may hold it open indefinitely.
_LAST_WORDS_SECONDS = 1.0

_FORWARDED = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
_WATCHED = _FORWARDED | {signal.SIGCHLD}


class CommandFailed(Exception):
    """A command exited with a status other than 0."""

    __module__ = "jobhistory"


class CommandKilled(Exception):
    """A signal ended a command."""

    __module__ = "jobhistory"


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_status: its exit status; 128 plus the number of the signal that ended it; 127 if it
            was not found; 126 if it could not be started.
        error: why it failed; `None` if it succeeded.
        milliseconds: how long it ran.
    """

    exit_status: int
    error: Exception | None
    milliseconds: float


@contextmanager
def held_signals() -> Iterator[set[int]]:
    """Block the signals that would end this process; yield the previously blocked ones.

    On exit, signals that `run_command` has not forwarded are dropped: they were for the command.
    """
    # Without a handler, some systems drop SIGCHLD even while it is blocked.
    handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        yield before
    finally:
        while pending := signal.sigpending() & _WATCHED:
            signal.sigwait(pending)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, handler)


def run_command(command: Sequence[str], mask: set[int]) -> Ended:
    """Run a command until it ends, and forward signals to it.

    The command inherits standard input and output. Its standard error passes through this process
    without delay, so that the error can quote the last part. Call this inside `held_signals`, with
    the mask that it yields.
    """
    begun = monotonic()
    try:
        child = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            bufsize=0,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        )
    except OSError as error:
        status = 127 if isinstance(error, FileNotFoundError) else 126
        return Ended(status, error.with_traceback(None), _since(begun))
    assert child.stderr is not None
    tail = bytearray()
    reader = Thread(target=_pass_on, args=(child.stderr.fileno(), tail), daemon=True)
    reader.start()
    while child.poll() is None:
        number, from_terminal = _next_signal()
        # A terminal also sends it to the command.
        if number != signal.SIGCHLD and not from_terminal:
            child.send_signal(number)
    milliseconds = _since(begun)
    reader.join(_LAST_WORDS_SECONDS)
    failure = _failure(child.returncode, bytes(tail).decode(errors="replace"))
    status = child.returncode if child.returncode >= 0 else 128 - child.returncode
    return Ended(status, failure, milliseconds)


def _next_signal() -> tuple[int, bool]:
    """Return the next signal, and whether the kernel sent it on behalf of a terminal."""
    if sys.platform == "linux":
        info = signal.sigwaitinfo(_WATCHED)
        return info.si_signo, info.si_code > 0
    return signal.sigwait(_WATCHED), False


def _pass_on(source: int, tail: bytearray) -> None:
    # If the caller closed it, it is None, and another file may have its number.
    target = None if sys.stderr is None else sys.stderr.fileno()
    while chunk := os.read(source, _READ_BYTES):
        tail += chunk
        del tail[:-_TAIL_BYTES]
        with suppress(OSError):  # nobody reads it any more; the command goes on
            while chunk and target is not None:
                chunk = chunk[os.write(target, chunk) :]


def _failure(returncode: int, stderr: str) -> Exception | None:
    if returncode == 0:
        return None
    last_line = next(iter(reversed(stderr.strip().splitlines())), "")
    colon = ": " if last_line else ""
    error: Exception
    if returncode > 0:
        error = CommandFailed(f"exit status {returncode}{colon}{last_line}")
    else:
        error = CommandKilled(f"{_signal_name(-returncode)}{colon}{last_line}")
    if stderr:
        error.add_note(f"The end of its standard error:\n{stderr}")
    return error


def _signal_name(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name} (signal {number})"
    except ValueError:  # most real-time signals have no name
        return f"killed by signal {number}"


def _since(begun: float) -> float:
    return (monotonic() - begun) * 1000
