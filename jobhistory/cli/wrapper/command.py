"""Run a command as its caller would, and return how it ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any, NamedTuple

from jobhistory._runtime.durations import took
from jobhistory.cli.lines import shortened
from jobhistory.cli.wrapper.output import Output
from jobhistory.cli.wrapper.signals import FORWARDED, Received, Signals

NOT_STARTED, NOT_FOUND = 126, 127
TIMED_OUT = 124

_LINE_LENGTH = 1000
_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.2
_INTERRUPTS = (signal.SIGINT, signal.SIGQUIT)
"""The signals of keys. If one ends the command, its user wants no other attempt."""


class CommandFailed(Exception):
    """A command exited with a status that does not count as success."""

    __module__ = "jobhistory"


class CommandKilled(Exception):
    """A signal ended a command."""

    __module__ = "jobhistory"


class Limits(NamedTuple):
    """What counts as success.

    Attributes:
        ok_status: the exit statuses.
        timeout: the time that the command may take, in seconds; `None` for any.
        kill_after: the seconds between SIGTERM and SIGKILL after that time.
    """

    ok_status: frozenset[int]
    timeout: float | None
    kill_after: float


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        exit_status: its exit status; 128 plus the number of the signal that ended it; 124 if it
            exceeded its time limit; 127 if it was not found; 126 if it could not be started.
        error: why it failed; `None` if it succeeded.
        milliseconds: how long it ran.
        can_retry: whether another attempt makes sense.
    """

    exit_status: int
    error: Exception | None
    milliseconds: float
    can_retry: bool


class Running:
    """A command that runs.

    Without a terminal, it has a process group of its own, and a time limit ends the whole group. In
    a terminal, it shares the group of this process, so that keys reach both, unless it has a
    terminal of its own.

    Args:
        output: where its output goes; it is finished when the command has ended.
        signals: the held signals, which are passed on.

    Raises:
        OSError: if the command cannot be started.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        output: Output,
        signals: Signals,
    ) -> None:
        self._output = output
        self._signals = signals
        self._terminal = output.terminal
        self._begun = monotonic()
        self._until_end = ExitStack()
        if self._terminal is not None:
            self._until_end.enter_context(signals.of_job_control())
        self._until_end.callback(output.finish, signals)
        self._leads_group = self._terminal is not None or not _has_terminal()
        try:
            if self._terminal is None:
                self._pid = self._spawn(command, environment)
                self._waited_for = self._pid
            else:
                self._waited_for, self._pid = self._terminal.spawn(
                    command, environment, output.files, signals.mask
                )
        except OSError:
            output.pass_on()
            self._until_end.close()
            raise
        output.pass_on()

    @property
    def pid(self) -> int:
        """The id of the process of the command."""
        return self._pid

    def wait(self, limits: Limits) -> Ended:
        """Wait until the command ends, and pass on signals and output."""
        with self._until_end:
            status, has_timed_out = self._wait(limits)
            milliseconds = (monotonic() - self._begun) * 1000
        code = os.waitstatus_to_exitcode(status)
        exit_status = TIMED_OUT if has_timed_out else code if code >= 0 else 128 - code
        if has_timed_out:
            error: Exception | None = self._timed_out(limits)
        elif code in limits.ok_status:
            error = None
        else:
            error = self._failure(code)
        can_retry = self._signals.ending is None and -code not in _INTERRUPTS
        return Ended(exit_status, error, milliseconds, can_retry)

    def _spawn(self, command: list[str], environment: Mapping[str, str]) -> int:
        options: dict[str, Any] = {"setpgroup": 0} if self._leads_group else {}
        return os.posix_spawnp(
            command[0],
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, descriptor, number)
                for number, descriptor in self._output.files.items()
            ],
            setsigmask=self._signals.mask,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
            **options,
        )

    def _wait(self, limits: Limits) -> tuple[int, bool]:
        """Return the status of the ended command, and whether it exceeded its time limit."""
        deadline = None if limits.timeout is None else self._begun + limits.timeout
        has_timed_out = False
        while (status := self._poll()) is None:
            received = self._next_signal(deadline)
            if received is not None:
                self._take(received)
            elif has_timed_out:
                self._signal_group(signal.SIGKILL)
                deadline = None
            else:
                has_timed_out = True
                self._signal_group(signal.SIGTERM)
                self._signal_group(signal.SIGCONT)
                deadline = monotonic() + limits.kill_after
        if has_timed_out and self._leads_group:
            self._end_group(deadline)
        return status, has_timed_out

    def _next_signal(self, deadline: float | None) -> Received | None:
        """Return the next signal; `None` at the deadline.

        In the background, look now and then for the terminal: a shell that brings a running job
        to the foreground does not tell it.
        """
        while self._terminal is not None and not self._terminal.has_keys:
            look = monotonic() + _LOOK_SECONDS
            if deadline is not None and deadline < look:
                break
            if received := self._signals.next(look):
                return received
            self._terminal.resume()
        return self._signals.next(deadline)

    def _poll(self) -> int | None:
        """Return the status of the command if it has ended."""
        if self._terminal is None:
            pid, status = os.waitpid(self._waited_for, os.WNOHANG)
            return status if pid else None
        while True:
            pid, status = os.waitpid(self._waited_for, os.WNOHANG | os.WUNTRACED)
            if not pid:
                return None
            if not os.WIFSTOPPED(status):
                return status
            self._terminal.stop()
            self._signal_group(signal.SIGCONT)
            os.kill(self._waited_for, signal.SIGCONT)

    def _take(self, received: Received) -> None:
        number = received.number
        if number in FORWARDED:
            # In a shared group, the terminal has also sent it to the command.
            if self._leads_group or not received.is_from_terminal:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(self._pid, number)
        elif number == signal.SIGWINCH:
            self._output.resize()
        elif self._terminal is not None and number == signal.SIGTSTP:
            self._signal_group(signal.SIGTSTP)
        elif self._terminal is not None and number == signal.SIGCONT:
            self._terminal.resume()

    def _signal_group(self, number: int) -> None:
        """Send a signal to the command and, in a group of its own, to all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            if self._leads_group:
                os.killpg(self._pid, number)
            else:
                os.kill(self._pid, number)

    def _end_group(self, deadline: float | None) -> None:
        """Kill what is left of the group at the deadline."""
        with suppress(ProcessLookupError, PermissionError):
            while deadline is not None and monotonic() < deadline:
                os.killpg(self._pid, 0)
                self._signals.next(min(deadline, monotonic() + _POLL_SECONDS))
            os.killpg(self._pid, signal.SIGKILL)

    def _timed_out(self, limits: Limits) -> Exception:
        from jobhistory.failure import TimedOut

        allowed = took(round((limits.timeout or 0) * 1000))
        return self._with_output(TimedOut, f"took longer than {allowed}")

    def _failure(self, code: int) -> Exception:
        if code >= 0:
            return self._with_output(CommandFailed, f"exit status {code}")
        return self._with_output(CommandKilled, _signal_name(-code))

    def _with_output(self, kind: type[Exception], message: str) -> Exception:
        """Return an error that quotes the last line of the output, and has the end of it."""
        from jobhistory.sanitize.secrets import redact_text

        # Redacted before it is cut: half a secret would not be recognized as one.
        text = redact_text(self._output.errors())
        last_line = next(iter(reversed(text.strip().splitlines())), "")
        error = kind(f"{message}: {shortened(last_line, _LINE_LENGTH)}" if last_line else message)
        if text:
            error.add_note(f"The end of its {self._output.errors_name}:\n{text}")
        return error


def not_started(error: OSError) -> Ended:
    """Return the end of a command that could not be started."""
    status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_STARTED
    return Ended(status, error.with_traceback(None), 0.0, can_retry=False)


def _has_terminal() -> bool:
    """Return whether keys of a terminal can send signals to this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _signal_name(number: int) -> str:
    try:
        return f"killed by {signal.Signals(number).name} (signal {number})"
    except ValueError:  # most real-time signals have no name
        return f"killed by signal {number}"
