"""A terminal of the command's own, connected to that of its caller."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import termios
import tty
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread
from typing import NoReturn

from jobhistory.cli.wrapper.signals import stop_this_job
from jobhistory.cli.wrapper.streams import write_if_possible

_READ_BYTES = 4096
_OUTPUT_FLAGS = 1  # in the list of `termios.tcgetattr`


def open_for_output(target: int) -> tuple[int, int]:
    """Return both sides of a new terminal that changes no byte on its way to another terminal.

    The command can ask the second one for its size, and whether it is a terminal.
    """
    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[_OUTPUT_FLAGS] &= ~termios.OPOST  # the target turns \n into \r\n
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    copy_size(target, ours)
    return ours, theirs


def copy_size(source: int, target: int) -> None:
    """Give a terminal the size of another one."""
    with suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)


class Terminal:
    """A terminal for a command that the user may control by keys, and that may draw on the screen.

    The command is in a session of its own, whose terminal this is. Keys pass through to it, Ctrl-C
    and Ctrl-Z among them. If they stop the command, this process restores the caller's terminal and
    stops, too.

    A process of its own starts the command and waits for it: the kernel stops no process at Ctrl-Z
    whose parent is in another session. It stops when the command stops, and ends as it ends.

    Attributes:
        ours: the side from which this process reads the output.
        theirs: the side that the command has.
        has_keys: whether keys pass through; not while this process is in the background.
    """

    def __init__(self) -> None:
        self._user = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        self._settings = termios.tcgetattr(self._user)
        self.ours, self.theirs = os.openpty()
        termios.tcsetattr(self.theirs, termios.TCSANOW, self._settings)
        copy_size(self._user, self.ours)
        self._master = os.dup(self.ours)  # for keys, until the end
        self.has_keys = False
        self._wake, self._waker = os.pipe()
        self._keys = Thread(target=self._pass_keys_on, daemon=True)

    def spawn(
        self,
        command: list[str],
        environment: Mapping[str, str],
        files: Mapping[int, int],
        mask: set[int],
    ) -> tuple[int, int]:
        """Start a command; return the ids of the process that waits for it, and of its own.

        Args:
            files: for each number that the command shall have, a descriptor of this process.
            mask: the signals that are blocked in the command.

        Raises:
            OSError: if it cannot be started.
        """
        reports, report = os.pipe()
        monitor = os.fork()
        if monitor == 0:
            _monitor(self.theirs, command, environment, files, mask, report)
        os.close(report)
        with open(reports, encoding="ascii") as lines:
            pid, *error = (int(line) for line in lines)
        if error:
            os.waitpid(monitor, 0)
            raise OSError(error[0], os.strerror(error[0]), command[0])
        self.resume()
        self._keys.start()
        return monitor, pid

    def resume(self) -> None:
        """Take keys from the caller's terminal, if this process is in its foreground."""
        self.resize()
        if self._is_in_foreground() and not self.has_keys:
            self._settings = termios.tcgetattr(self._user)
            tty.setraw(self._user, termios.TCSADRAIN)
            self.has_keys = True
            os.write(self._waker, b".")

    def resize(self) -> None:
        """Give the terminal the size of the caller's."""
        copy_size(self._user, self._master)

    def stop(self) -> None:
        """Stop this process as its command has stopped, until the caller's shell continues it."""
        self._restore()
        stop_this_job()
        self.resume()

    def close(self) -> None:
        """Give the caller its terminal back."""
        self._restore()
        os.close(self._waker)
        if self._keys.ident is not None:
            self._keys.join()
        for descriptor in (self._wake, self._master, self._user):
            os.close(descriptor)

    def _restore(self) -> None:
        if self.has_keys and self._is_in_foreground():
            termios.tcsetattr(self._user, termios.TCSADRAIN, self._settings)
        self.has_keys = False

    def _is_in_foreground(self) -> bool:
        with suppress(OSError):  # the terminal was closed
            return os.tcgetpgrp(self._user) == os.getpgrp()
        return False

    def _pass_keys_on(self) -> None:
        while True:
            waiting = select.poll()
            waiting.register(self._wake, select.POLLIN)
            if self.has_keys:
                waiting.register(self._user, select.POLLIN)
            ready = {descriptor for descriptor, _ in waiting.poll()}
            if self._wake in ready and not os.read(self._wake, 1):
                return
            if self._user in ready and self.has_keys:
                keys = b""
                with suppress(OSError):
                    keys = os.read(self._user, _READ_BYTES)
                self.has_keys = bool(keys)  # otherwise, the terminal was closed
                write_if_possible(self._master, keys)


def _monitor(
    terminal: int,
    command: list[str],
    environment: Mapping[str, str],
    files: Mapping[int, int],
    mask: set[int],
    report: int,
) -> NoReturn:
    """Start the command in a session of its own, wait for it, stop with it, and end as it ends."""
    status = 126 << 8
    try:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        pid = os.fork()
        if pid == 0:
            _become(terminal, command, environment, files, mask, report)
        os.close(report)
        os.dup2(terminal, 0)
        os.closerange(1, os.sysconf("SC_OPEN_MAX"))
        status = _wait_and_stop_with(pid)
        # The kernel hangs up the processes in the foreground when this one ends. Those that the
        # command has left in the background stay, as they would without this terminal.
        os.tcsetpgrp(0, os.getpgrp())
        if os.WIFSIGNALED(status):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            number = os.WTERMSIG(status)
            if number != signal.SIGKILL:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
            os.kill(os.getpid(), number)
    finally:
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _become(
    terminal: int,
    command: list[str],
    environment: Mapping[str, str],
    files: Mapping[int, int],
    mask: set[int],
    report: int,
) -> NoReturn:
    """Turn this process into the command, in the foreground of its terminal."""
    try:
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())  # SIGTTOU is blocked
        os.write(report, b"%d\n" % os.getpid())
        for number, descriptor in files.items():
            os.dup2(descriptor, number)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvpe(command[0], command, environment)  # noqa: S606
    except OSError as error:
        os.write(report, b"%d\n" % (error.errno or 0))
    finally:
        os._exit(126)


def _wait_and_stop_with(pid: int) -> int:
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return status
        os.kill(os.getpid(), signal.SIGSTOP)
