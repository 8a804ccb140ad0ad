"""The screen that a command prints on: its width, its characters, its time zone and its time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from shutil import get_terminal_size

from rich.console import Console, ConsoleDimensions
from rich.text import Text

from jobhistory._runtime.clock import utc_now
from jobhistory.cli.output import one_line, shown


def new_console() -> Console:
    """Return a console on standard output, as wide as the terminal."""
    console = Console(highlight=False)
    if console.is_dumb_terminal:  # of which rich assumes 80 columns
        console.size = ConsoleDimensions(*get_terminal_size())
    return console


@dataclass(frozen=True)
class Screen:
    """Where a command prints.

    Attributes:
        console: the console of standard output.
        utc: whether times on a terminal are in UTC rather than in the local time zone.
        now: the time from which ages count.
    """

    utc: bool = False
    now: datetime = field(default_factory=utc_now)
    console: Console = field(default_factory=new_console)

    @property
    def is_terminal(self) -> bool:
        """Whether people read it, rather than a program."""
        return self.console.is_terminal

    @property
    def width(self) -> int:
        """The number of cells in a line."""
        return max(1, self.console.width)

    @cached_property
    def ascii_only(self) -> bool:
        """Whether it is a terminal that shows nothing but ASCII."""
        return self.is_terminal and (self.console.options.ascii_only or _locale_is_ascii())

    @property
    def ellipsis(self) -> str:
        """What stands for the rest of a text."""
        return "..." if self.ascii_only else "…"

    def text(self, text: str) -> str:
        """Return a text as one line of characters that the screen shows and does not obey."""
        return self.characters(one_line(text))

    def lines(self, text: str) -> str:
        """Return a text with its line breaks, in characters that the screen shows."""
        return self.characters(shown(text))

    def characters(self, text: str) -> str:
        """Return a text with escapes for the characters that the screen does not have."""
        return text.encode("ascii", "backslashreplace").decode() if self.ascii_only else text

    def local(self, moment: datetime) -> datetime:
        """Return a time in the time zone of the screen."""
        try:
            return moment.astimezone(UTC if self.utc else None)
        except (OverflowError, OSError, ValueError):  # a year that the zone cannot have
            return moment.astimezone(UTC)

    def zone(self, moments: Iterable[datetime | None]) -> str:
        """Return the name of the time zone at these times; two names if clocks were changed."""
        names = {self.local(each).tzname() or "" for each in moments if each is not None}
        return "/".join(sorted(names)) or self.local(self.now).tzname() or ""

    def wrap(self, text: str, width: int) -> Iterable[Text]:
        """Return the lines of a text that is broken between words, where that is possible."""
        return Text(text).wrap(self.console, max(2, width), overflow="fold")

    def print(self, line: Text | str = "") -> None:
        """Print a line that fits."""
        self.console.print(Text(line) if isinstance(line, str) else line, soft_wrap=True)

    def print_folded(self, text: Text, label: Text | None = None) -> None:
        """Print a text after a label, and its further lines below the first.

        A terminal gets a line that is too long for it in parts.
        """
        label = Text() if label is None else label
        indent = label.cell_len
        lines = list(text.split(include_separator=False, allow_blank=True)) or [text]
        if self.is_terminal:
            width = max(2, self.width - indent)
            lines = [
                part for line in lines for part in line.wrap(self.console, width, overflow="fold")
            ]
        for number, line in enumerate(lines):
            before = label if number == 0 else Text(" " * indent)
            self.print(Text.assemble(before, line) if line.plain else Text())

    def print_note(self, text: str) -> None:
        """Print a remark, on as many lines as it takes."""
        for line in self.wrap(self.characters(text), self.width):
            self.print(Text(line.plain.rstrip(), "dim"))


def _locale_is_ascii() -> bool:
    """Return whether the user asked for the C locale, which Python replaces by one in UTF-8."""
    variables = (os.environ.get(name) for name in ("LC_ALL", "LANG"))
    return next(filter(None, variables), "") in ("C", "POSIX")
