"""Lines for a terminal: without control characters, and for one message each."""

from __future__ import annotations

import sys

from jobhistory._runtime.shown_text import one_line as one_line
from jobhistory._runtime.shown_text import shown as shown


def say(message: str) -> None:
    """Print a line on standard error."""
    if sys.stderr is not None:  # without it, print would take standard output
        print(f"jobhistory: {one_line(message)}", file=sys.stderr, flush=True)


def shortened(text: str, length: int = 40) -> str:
    """Return the text, cut to a number of characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
