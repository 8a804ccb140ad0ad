"""Tracebacks of Python as people read them: the app's own frames, and those of libraries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

# Lines of exception groups begin with bars.
_FRAME = re.compile(r'(?P<margin>[ |]*)File "(?P<file>.+?)", line (?P<line>\d{1,9})(?:, in (.+))?')
_LIBRARY = re.compile(
    r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib(?:64)?[/\\]python\d|[/\\]Lib[/\\]|^<", re.IGNORECASE
)


@dataclass
class Frame:
    """A frame of a traceback.

    Attributes:
        file, line: where it is.
        lines: its lines in the traceback: where it is, and its source.
    """

    file: str
    line: int
    lines: list[str] = field(default_factory=list)

    @property
    def is_own(self) -> bool:
        """Whether it is the app's: neither of an installed package nor of the standard library."""
        return not _LIBRARY.search(self.file)

    @property
    def place(self) -> str:
        """The first line, without its margin."""
        return self.lines[0].lstrip(" |")

    @property
    def source(self) -> str:
        """The other lines, without the margin that they have in common."""
        lines = self.lines[1:]
        margin = min((len(line) - len(line.lstrip(" |")) for line in lines), default=0)
        return "\n".join(line[margin:] for line in lines)


@dataclass(frozen=True)
class Part:
    """A part of a traceback: consecutive frames of the app or of libraries, or else text.

    Attributes:
        frames: the frames; none if it is text.
        text: the text, such as the type and the message of an error.
    """

    frames: tuple[Frame, ...] = ()
    text: str = ""

    @property
    def is_own(self) -> bool:
        """Whether the frames are the app's."""
        return bool(self.frames) and self.frames[0].is_own


def parts_of(stack: str) -> list[Part]:
    """Return the parts of a traceback. Any text has some, and none of it is left out."""
    parts: list[Part] = []
    for kind, items in groupby(_items(stack), key=_kind):
        if kind is None:
            text = "\n".join(str(item) for item in items)
            parts += [Part(text=text)] if text.strip() else []
        else:
            parts.append(Part(tuple(item for item in items if isinstance(item, Frame))))
    return parts


def nearest_own_frame(stack: str) -> Frame | None:
    """Return the app's frame that is nearest to the error; `None` if there is none."""
    own = (
        frame for part in reversed(parts_of(stack)) if part.is_own for frame in part.frames[::-1]
    )
    return next(own, None)


def _kind(item: Frame | str) -> bool | None:
    return item.is_own if isinstance(item, Frame) else None


def _items(stack: str) -> Iterator[Frame | str]:
    """Yield frames and lines of text."""
    frame, margin = None, 0
    for line in stack.splitlines():
        match = _FRAME.fullmatch(line)
        indent = len(line) - len(line.lstrip(" |"))
        if match:
            if frame:
                yield frame
            frame, margin = Frame(match["file"], int(match["line"]), [line]), indent
        elif frame and indent >= margin and line.strip(" |"):
            frame.lines.append(line)  # the source of the frame, or how often it is repeated
        else:
            if frame:
                yield frame
                frame = None
            yield line
    if frame:
        yield frame
