"""What messages of the same kind have in common: the text, without the particulars."""

from __future__ import annotations

import re

FINGERPRINT_LENGTH = 500
"""How many characters of a message tell kinds of messages apart."""

PATTERNS = (
    # Quotes, but for the apostrophes in words.
    (
        "(?<![0-9A-Za-z])'[^']*'(?![0-9A-Za-z])|\"[^\"]*\"|`[^`]*`",
        "<value>",
    ),
    # Mail, IP and memory addresses.
    ("[0-9A-Za-z._+-]+@[0-9A-Za-z._-]+", "<address>"),
    ("(?<![0-9A-Za-z])0[xX][0-9A-Fa-f]+", "<address>"),
    ("(?<![0-9A-Za-z.])[0-9]{1,3}(?:[.][0-9]{1,3}){3}(?::[0-9]+)?(?![0-9A-Za-z])", "<address>"),
    # UUIDs, then long words of both letters and digits.
    ("[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", "<id>"),
    (
        "(?<![0-9A-Za-z])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[0-9A-Za-z]{8,}(?![0-9A-Za-z])",
        "<id>",
    ),
    # Numbers, with what is written in one word with them: 3.14, 1,000, 20ms; the 42 of job-42.
    ("(?:(?<![0-9A-Za-z_])[+-])?[0-9][0-9A-Za-z]*(?:[.,][0-9][0-9A-Za-z]*)*", "<number>"),
)
"""Patterns and what they are replaced by, in this order.

They are written in what Python's and PostgreSQL's regular expressions have in common, and so that
the longest match is also the first one that backtracking finds: the two answer alike.
"""

_COMPILED = [(re.compile(pattern), mask) for pattern, mask in PATTERNS]


def fingerprint(message: str) -> str:
    """The message with masks for numbers, ids, addresses and quoted values."""
    text = message[:FINGERPRINT_LENGTH]
    for pattern, mask in _COMPILED:
        text = pattern.sub(mask, text)
    return text
