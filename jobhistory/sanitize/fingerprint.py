"""The fingerprint of an error message, by which failures are grouped."""

from __future__ import annotations

import re

FINGERPRINT_LENGTH = 500
"""The number of characters of a message that count."""

PATTERNS = (
    # Quoted values. An apostrophe inside a word is not a quote.
    (
        "(?<![0-9A-Za-z])'[^']*'(?![0-9A-Za-z])|\"[^\"]*\"|`[^`]*`",
        "<value>",
    ),
    # Mail, IP and memory addresses.
    ("[0-9A-Za-z._+-]+@[0-9A-Za-z._-]+", "<address>"),
    ("(?<![0-9A-Za-z])0[xX][0-9A-Fa-f]+", "<address>"),
    ("(?<![0-9A-Za-z.])[0-9]{1,3}(?:[.][0-9]{1,3}){3}(?::[0-9]+)?(?![0-9A-Za-z])", "<address>"),
    # UUIDs, then long words that contain both letters and digits.
    ("[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", "<id>"),
    (
        "(?<![0-9A-Za-z])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[0-9A-Za-z]{8,}(?![0-9A-Za-z])",
        "<id>",
    ),
    # Numbers and the units attached to them: 3.14, 1,000, 20ms, the 42 of job-42.
    ("(?:(?<![0-9A-Za-z_])[+-])?[0-9][0-9A-Za-z]*(?:[.,][0-9][0-9A-Za-z]*)*", "<number>"),
)
"""Patterns and their replacements, applied in this order.

They use only what Python's and PostgreSQL's regular expressions have in common. In each, the
longest match is also the first that backtracking finds, so both give the same fingerprint.
"""

_COMPILED = [(re.compile(pattern), placeholder) for pattern, placeholder in PATTERNS]


def fingerprint(message: str) -> str:
    """Return the message with placeholders for numbers, ids, addresses and quoted values."""
    text = message[:FINGERPRINT_LENGTH]
    for pattern, placeholder in _COMPILED:
        text = pattern.sub(placeholder, text)
    return text
