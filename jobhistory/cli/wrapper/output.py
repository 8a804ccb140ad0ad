"""Where the output of a command goes, and what is kept of it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from jobhistory.cli.wrapper.signals import Signals
from jobhistory.cli.wrapper.spool import Spool
from jobhistory.cli.wrapper.streams import Sink, Stream
from jobhistory.cli.wrapper.tail import Tail

if TYPE_CHECKING:
    from jobhistory.cli.wrapper.terminal import Terminal

STDIN, STDOUT, STDERR = range(3)
_ERROR_BYTES = 32 * 1024
_POLL_SECONDS = 0.05


class StandardFiles(NamedTuple):
    """The standard files of this process, as its caller opened them.

    Attributes:
        closed: those that the caller closed.
        are_joint: whether standard output and standard error are the same file, pipe or terminal.
    """

    closed: frozenset[int]
    are_joint: bool

    @classmethod
    def inspect(cls) -> StandardFiles:
        """Return what they are, and open the null device in place of the closed ones.

        Otherwise another file, such as that of a database, would get the number of a closed one,
        and messages would be written into it. The command still finds them closed.
        """
        places = [_place(each) for each in (STDIN, STDOUT, STDERR)]
        closed = frozenset(number for number, place in enumerate(places) if place is None)
        for _ in closed:
            os.open(os.devnull, os.O_RDWR)
        return cls(closed, STDOUT not in closed and places[STDOUT] == places[STDERR])


class Output:
    """The output of one attempt.

    If standard output and standard error go to the same place, the command gets one pipe for both,
    so their order stays as it is. Where they are a terminal, it gets a terminal. Otherwise, there
    is a pipe for standard error, and standard output is passed through only if something needs it.

    Args:
        files: the files of this process.
        capture: the number of bytes to keep of the end of the output.
        spool: takes the output in place of the files.

    Attributes:
        files: for each file that the command does not inherit, the descriptor that it gets.
        terminal: the terminal that the command controls, if any.
        errors_name: what `errors` returns the end of.
    """

    def __init__(self, files: StandardFiles, *, capture: int | None, spool: Spool | None) -> None:
        self.files: dict[int, int] = {}
        self.terminal: Terminal | None = None
        self.errors_name = "output" if files.are_joint else "standard error"
        self._caller = files
        self._spool = spool
        self._errors = Tail(_ERROR_BYTES)
        self._captured = None if capture is None else Tail(capture)
        self._sources: dict[int, int] = {}
        self._streams: list[Stream] = []
        reads_stdout = files.are_joint or capture is not None or spool is not None
        if reads_stdout:
            self._open(STDOUT)
        if files.are_joint:
            self.files[STDERR] = self.files[STDOUT]
        else:
            self._open(STDERR)

    def pass_on(self) -> None:
        """Start to pass on what the command writes. The command has started."""
        for descriptor in set(self.files.values()):
            os.close(descriptor)
        for target, source in self._sources.items():
            has_target = self._spool is None and target not in self._caller.closed
            sinks = self._sinks(target)
            self._streams.append(Stream(source, target if has_target else None, sinks))

    def resize(self) -> None:
        """Give the command's terminals the size of the caller's."""
        from jobhistory.cli.wrapper.terminal import copy_size

        for target, source in self._sources.items():
            if os.isatty(target):
                copy_size(target, source)

    def finish(self, signals: Signals) -> None:
        """Pass on the rest, after the command has ended. A signal that asks to end stops this."""
        for stream in self._streams:
            stream.command_has_ended()
        for stream in self._streams:
            while not stream.is_done(_POLL_SECONDS) and not signals.are_pending():
                pass
        if self.terminal is not None:
            self.terminal.close()

    def errors(self) -> str:
        """Return the end of standard error, or of both if they go to the same place."""
        return self._errors.text()

    def captured(self) -> str | None:
        """Return the end of all output, if it is to be kept."""
        return None if self._captured is None else self._captured.text()

    def _open(self, target: int) -> None:
        """Open a way to a file of the caller: a terminal if that is one, otherwise a pipe."""
        ours, theirs = self._open_terminal(target) or os.pipe()
        self._sources[target] = ours
        self.files[target] = theirs

    def _open_terminal(self, target: int) -> tuple[int, int] | None:
        """Open a terminal; return `None` if none is needed, or none can be had."""
        if self._spool is not None or not os.isatty(target):
            return None
        from jobhistory.cli.wrapper.terminal import Terminal, open_for_output

        try:
            if target == STDERR or not _is_controlling(target):
                return open_for_output(target)
            self.terminal = Terminal()
        except OSError:
            return None
        if os.isatty(STDIN):
            self.files[STDIN] = self.terminal.theirs
        return self.terminal.ours, self.terminal.theirs

    def _sinks(self, target: int) -> list[Sink]:
        sinks: list[Sink] = []
        if target == STDERR or self._caller.are_joint:
            sinks.append(self._errors.append)
        if self._captured is not None:
            sinks.append(self._captured.append)
        if self._spool is not None and target not in self._caller.closed:
            sinks.append(partial(self._spool.append, target))
        return sinks


def _is_controlling(terminal: int) -> bool:
    """Return whether a terminal is the one from which this process can be stopped by a key."""
    try:
        os.tcgetpgrp(terminal)
    except OSError:
        return False
    return True


def _place(descriptor: int) -> tuple[int, int] | None:
    """Return what identifies the file, pipe or terminal of a descriptor; `None` if closed."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino
