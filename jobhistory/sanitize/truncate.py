"""Text that any database can hold, no longer than there is room for it."""

from __future__ import annotations

import re
import string
from collections.abc import Callable

NAME_LENGTH = 255
"""How many characters an id, a task identifier or an error type may have."""

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_MARGIN = 1024
_SPACE = re.compile(r"\s+")
_UNHOLDABLE = re.compile("[\x00\ud800-\udfff]")


def holdable(text: str) -> str:
    """The text with U+FFFD for what PostgreSQL cannot hold: NUL and lone surrogates."""
    if text.isascii() and "\0" not in text:  # as nearly all are, and quickly told
        return text
    # The length stays the same, so an id that is not too long does not become so.
    return _UNHOLDABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def ascii_lower(text: str) -> str:
    """The text with A to Z in lower case, and nothing else: the least that every database can."""
    return text.translate(_ASCII_LOWER)


def byte_length(text: str) -> int:
    """How long the text is in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def cut_text(
    text: str,
    limit: int,
    *,
    keep_tail: bool = False,
    clean: Callable[[str], str] = holdable,
) -> str:
    """Holdable text of at most `limit` bytes; its end, or with `keep_tail` its middle, is cut.

    The cut says how large the text was. Only the mark itself may be longer than a tiny limit.

    Args:
        clean: makes the text holdable, and may replace parts of it.
    """
    if len(text) <= limit:  # a longer one may be huge, and is cut before it is looked through
        cleaned = clean(text)
        if byte_length(cleaned) <= limit:
            return cleaned
    size = byte_length(text)
    mark = f"\n... [cut, {size} bytes in all] ...\n" if keep_tail else f"... [cut, {size} bytes]"
    room = max(0, limit - len(mark))
    tail = room // 2 if keep_tail else 0
    head = room - tail
    # Cleaned with a margin, as what is to be replaced may reach across the cut.
    first = clean(text[: head + _MARGIN]).encode()[:head].decode(errors="ignore")
    if not tail:
        return first + mark
    last = clean(_without_first_word(text, tail)).encode()[-tail:].decode(errors="ignore")
    return first + mark + last


def _without_first_word(text: str, length: int) -> str:
    """The last `length` characters and some before them, which begin with a whole word if any."""
    end = text[-length - _MARGIN :]
    space = _SPACE.search(end, 0, max(0, len(end) - length))
    return end if space is None or len(end) == len(text) else end[space.end() :]


def cut_name(text: str) -> str:
    """Holdable text that fits a column of `NAME_LENGTH` characters."""
    return holdable(text) if len(text) <= NAME_LENGTH else cut_text(text, NAME_LENGTH)
