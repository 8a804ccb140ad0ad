"""Text for people to paste into a shell."""

from __future__ import annotations

import shlex


def quoted_for_shell(text: str) -> str:
    """Return a text as one word of a command line, in which a terminal finds nothing to obey."""
    if text.isprintable():
        return shlex.quote(text)
    # A terminal would obey control characters. bash and zsh understand this notation.
    shown = (
        char if char.isprintable() and char not in "\\'" else f"\\U{ord(char):08x}" for char in text
    )
    return f"$'{''.join(shown)}'"
