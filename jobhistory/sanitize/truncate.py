"""Make text storable in any database, within a limit."""

from __future__ import annotations

import re
import string
from collections.abc import Callable

NAME_LENGTH = 255
"""The maximum number of characters of an id, a task identifier or an error type."""

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_MARGIN = 1024
_SPACE = re.compile(r"\s+")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable_text(text: str) -> str:
    """Return the text with U+FFFD in place of NUL and lone surrogates, which PostgreSQL refuses.

    The length in characters does not change.
    """
    if text.isascii() and "\0" not in text:  # nearly every text, and a fast check
        return text
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def ascii_lower(text: str) -> str:
    """Return the text with A to Z in lower case, which every database does in the same way."""
    return text.translate(_ASCII_LOWER)


def byte_length(text: str) -> int:
    """Return the length of the text in UTF-8, in bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def truncate_text(
    text: str,
    limit: int,
    *,
    keep_tail: bool = False,
    clean: Callable[[str], str] = storable_text,
) -> str:
    """Return storable text of at most `limit` bytes; cut the end, or with `keep_tail` the middle.

    A mark at the cut gives the size of the whole text. If the limit is tiny, the result is the mark
    alone, which may be longer than the limit.

    Args:
        clean: makes the text storable. It may also replace parts of it.
    """
    if len(text) <= limit:  # a longer text may be huge, and is cut before it is cleaned
        cleaned = clean(text)
        if byte_length(cleaned) <= limit:
            return cleaned
    size = byte_length(text)
    mark = f"\n... [cut, {size} bytes in all] ...\n" if keep_tail else f"... [cut, {size} bytes]"
    room = max(0, limit - len(mark))
    tail = room // 2 if keep_tail else 0
    head = room - tail
    # A margin is cleaned as well, because a secret may extend across the cut.
    first = clean(text[: head + _MARGIN]).encode()[:head].decode(errors="ignore")
    if not tail:
        return first + mark
    last = clean(_without_first_word(text, tail)).encode()[-tail:].decode(errors="ignore")
    return first + mark + last


def _without_first_word(text: str, length: int) -> str:
    """Return the last `length` characters and some before them, from the start of a word if any."""
    end = text[-length - _MARGIN :]
    space = _SPACE.search(end, 0, max(0, len(end) - length))
    return end if space is None or len(end) == len(text) else end[space.end() :]


def truncate_name(text: str) -> str:
    """Return storable text of at most `NAME_LENGTH` characters."""
    return storable_text(text) if len(text) <= NAME_LENGTH else truncate_text(text, NAME_LENGTH)
