"""Text that any database can hold, no longer than there is room for it."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import TypeAlias
from uuid import UUID

from jobhistory.errors import InvalidInput

Id: TypeAlias = str | UUID | int
"""What identifies a job, a worker or a correlation; stored and returned as its text."""

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


def id_text(value: Id, argument: str) -> str:
    """An id as it is stored.

    Raises:
        InvalidInput: if it is empty, longer than `NAME_LENGTH`, or no `str`, `UUID` or `int`.
    """
    if type(value) is str and 0 < len(value) <= NAME_LENGTH:  # as nearly all are
        return holdable(value)
    if isinstance(value, bool) or not isinstance(value, (str, UUID, int)):
        raise InvalidInput(argument, value, "is not an id; give a str, a uuid.UUID or an int")
    try:
        text = str(value)
    except ValueError:  # an integer so long that Python refuses to print it
        text = "0" * (NAME_LENGTH + 1)
    if not text:
        raise InvalidInput(argument, value, "is empty; write it like 'order-42'")
    if len(text) > NAME_LENGTH:
        raise InvalidInput(
            argument,
            value,
            f"is longer than {NAME_LENGTH} characters; write a short one like 'order-42'",
        )
    return holdable(text)


def name_text(value: str, argument: str) -> str:
    """A name as it is stored, cut if it is too long for its column.

    Raises:
        InvalidInput: if it is empty or not text.
    """
    if not isinstance(value, str) or not value:
        raise InvalidInput(argument, value, "is not a name; write it like 'send_email'")
    return cut_name(value)
