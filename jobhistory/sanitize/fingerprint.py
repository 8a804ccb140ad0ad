"""The fingerprint of an error message, by which failures are grouped."""

from __future__ import annotations

import re

FINGERPRINT_LENGTH = 500
"""The maximum number of characters of a fingerprint."""

MASKED_LENGTH = 2000
"""The number of characters of a message that are masked.

More than those of a fingerprint, because a value that is cut in half matches no pattern. Not all,
because PostgreSQL takes seconds to replace the numbers in a message of 64 KiB.
"""

PATTERNS = (
    # Quoted values, with the prefixes of Python's repr. An apostrophe inside a word is not a quote.
    (
        "(?<![0-9A-Za-z])[bBrRuU]{0,2}'[^']*'(?![0-9A-Za-z])"
        '|(?<![0-9A-Za-z])[bBrRuU]{1,2}"[^"]*"'
        '|"[^"]*"|`[^`]*`',
        "<value>",
    ),
    # Mail, memory and IP addresses. One of IPv6 has eight groups or "::", and a digit somewhere.
    ("(?<![0-9A-Za-z._+-])[0-9A-Za-z._+-]+@[0-9A-Za-z._-]+", "<address>"),
    ("(?<![0-9A-Za-z])0[xX][0-9A-Fa-f]+", "<address>"),
    (
        "(?<![0-9A-Za-z_:])(?=[A-Fa-f:]*[0-9])(?:[0-9A-Fa-f:]*::|(?:[0-9A-Fa-f]+:){7})"
        "[0-9A-Fa-f:]*(?:[.][0-9]+)*(?:%[0-9A-Za-z]+)?(?![0-9A-Za-z_:])",
        "<address>",
    ),
    ("(?<![0-9A-Za-z.])[0-9]{1,3}(?:[.][0-9]{1,3}){3}(?::[0-9]+)?(?![0-9A-Za-z])", "<address>"),
    # UUIDs, numbers with an exponent, then long words that contain both letters and digits.
    ("[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", "<id>"),
    (
        "(?<![0-9A-Za-z_])[+-]?(?:[0-9]+(?:[.,][0-9]+)?[eE][+-][0-9][0-9A-Za-z]*"
        "|[0-9]+[.][0-9]+[eE][0-9][0-9A-Za-z]*)",
        "<number>",
    ),
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
    text = message[:MASKED_LENGTH]
    for pattern, placeholder in _COMPILED:
        text = pattern.sub(placeholder, text)
    return text[:FINGERPRINT_LENGTH]
