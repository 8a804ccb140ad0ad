"""Text from outside as terminals and messages may show it, without control characters."""

from __future__ import annotations


def shown(text: str) -> str:
    """Return the text with escaped control characters, except tabs and line breaks."""
    # Unprintable characters include the control characters of ASCII and Latin-1, which terminals
    # obey, and those of Unicode that change the direction of the text.
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def one_line(text: str) -> str:
    """Return the text as one line without tabs: each run of white space becomes one space."""
    return " ".join(shown(text).split())
