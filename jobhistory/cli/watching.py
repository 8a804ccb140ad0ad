"""Draw a screen again and again, as `watch` does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, Generic, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_duration, took
from jobhistory.cli.output import one_line
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.shorten import cut_end
from jobhistory.errors import InvalidInput, JobHistoryError, reason

T = TypeVar("T")

_OUTAGES = (JobHistoryError, SQLAlchemyError, OSError)
_PATIENCE = 2.0
"""After so many seconds, the screen says that there is no answer."""

_LONGEST_WAIT = 0.5
"""Seconds. A signal that arrives just before a wait does not interrupt it, but is handled after."""

_INTERRUPTED = 130
_TERMINATED = 143
_SHORTEST, _LONGEST = timedelta(seconds=0.1), timedelta(days=1)
_HOME, _ERASE_LINE, _ERASE_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def read_interval(interval: str) -> timedelta:
    """Return the time between two drawings."""
    length = parse_duration(interval, "--interval")
    if not _SHORTEST <= length <= _LONGEST:
        raise InvalidInput("--interval", interval, "is not from 0.1s to 1 day; write it like '2s'")
    return length


def check_watch(watch: bool, *, json: bool) -> None:
    """Check that there is a terminal to draw on, if `--watch` is given."""
    if watch and json:
        raise InvalidInput("--watch", watch, "does not go with --json; leave one of them out")
    if watch and (not sys.stdout.isatty() or Console().is_dumb_terminal):
        raise InvalidInput("--watch", watch, "needs a terminal; leave it out in a pipe")


class _Resized:
    """The terminal has another size."""


@dataclass
class _Answer(Generic[T]):
    """What `load` returned or raised."""

    value: T | Exception


class Watched(Generic[T]):
    """A screen that is drawn again and again on the whole terminal.

    Args:
        load: returns what is to be drawn, from the database. All calls but the first one are in
            other threads, one after the other, so that neither the screen nor Ctrl-C waits for a
            database that hangs.
        draw: prints it on a screen.
        interval: the time between an answer of `load` and its next call.
        utc: whether times are in UTC.
    """

    def __init__(
        self,
        load: Callable[[], T],
        draw: Callable[[Screen, T], None],
        interval: timedelta,
        *,
        utc: bool,
    ) -> None:
        self._load = load
        self._draw = draw
        self._interval = interval
        self._utc = utc
        # What a signal handler may put into while this thread waits for it. With an Event, the
        # handler would wait for the lock that its own thread holds.
        self._news: SimpleQueue[_Resized | _Answer[T]] = SimpleQueue()
        self._trouble = ""

    def run(self) -> NoReturn:
        """Draw until Ctrl-C, which ends the program with status 130.

        An error of the first call of `load` is raised. A later one is shown above what was loaded
        last, until a call succeeds.
        """
        try:
            data, loaded_at = self._load(), utc_now()
            with _whole_terminal(lambda: self._news.put(_Resized())):
                while True:
                    self._pause(data, loaded_at)
                    Thread(target=self._ask, daemon=True).start()
                    answer = self._answer(data, loaded_at)
                    if isinstance(answer, Exception):
                        self._trouble = f"no answer: {one_line(reason(answer))}"
                    else:
                        data, loaded_at, self._trouble = answer, utc_now(), ""
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None

    def _pause(self, data: T, loaded_at: datetime) -> None:
        """Draw, and wait for the next call of `load`; draw again if the terminal was resized."""
        end = monotonic() + self._interval.total_seconds()
        self._redraw(data, loaded_at)
        while (rest := end - monotonic()) > 0:
            with suppress(Empty):
                self._news.get(timeout=min(rest, _LONGEST_WAIT))
                self._redraw(data, loaded_at)

    def _ask(self) -> None:
        try:
            self._news.put(_Answer(self._load()))
        except Exception as error:
            self._news.put(_Answer(error))

    def _answer(self, data: T, loaded_at: datetime) -> T | Exception:
        """Wait for the answer, and say so if it takes long.

        Raises:
            Exception: if it is an error that does not come from the database.
        """
        while not isinstance(news := self._wait(), _Answer):
            self._redraw(data, loaded_at)
        if isinstance(news.value, Exception) and not isinstance(news.value, _OUTAGES):
            raise news.value
        return news.value

    def _wait(self) -> _Resized | _Answer[T] | None:
        """Return the next news, or None after a while without."""
        try:
            return self._news.get(timeout=_PATIENCE)
        except Empty:
            self._trouble = self._trouble or "no answer yet"
            return None

    def _redraw(self, data: T, loaded_at: datetime) -> None:
        """Write all lines at once, over those that were there, so that nothing flickers."""
        # Ages count from the time at which the data was true.
        screen = Screen(utc=self._utc, now=loaded_at)
        with screen.console.capture() as capture:
            screen.print(self._status(screen))
            self._draw(screen, data)
        lines = capture.get().splitlines()
        height = screen.console.height
        if len(lines) > height:
            hidden = len(lines) - height + 1
            lines[height - 1 :] = [cut_end(f"and {hidden} more lines", screen.width, "")]
        drawn = "\n".join(f"{line}{_ERASE_LINE}" for line in lines)
        sys.stdout.write(f"{_HOME}{drawn}{_ERASE_BELOW}")
        sys.stdout.flush()

    def _status(self, screen: Screen) -> Text:
        """Return the first line: when this was true, or why it is not up to date."""
        moment = f"{screen.local(screen.now):%H:%M:%S} {screen.zone([screen.now])}"
        text, style = f"{moment}, every {_text(self._interval)}; Ctrl-C ends", "dim"
        if self._trouble:
            text, style = f"of {moment}; {self._trouble}", "bold red"
        return Text(cut_end(screen.characters(text), screen.width, screen.ellipsis), style)


def _text(interval: timedelta) -> str:
    return took(interval // timedelta(milliseconds=1))


@contextmanager
def _whole_terminal(when_resized: Callable[[], None]) -> Iterator[None]:
    """Take over the terminal, and give it back as it was."""
    console = Console()
    handlers: dict[int, Callable[..., Any]] = {signal.SIGTERM: _terminate}
    if hasattr(signal, "SIGWINCH"):  # not on Windows
        handlers[signal.SIGWINCH] = lambda *_: when_resized()
    before = {number: signal.signal(number, each) for number, each in handlers.items()}
    console.set_alt_screen(True)
    console.show_cursor(False)
    try:
        yield
    finally:
        console.show_cursor(True)
        console.set_alt_screen(False)
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(*_: object) -> NoReturn:
    sys.exit(_TERMINATED)
