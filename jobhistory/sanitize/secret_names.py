"""Recognize the names of secrets."""

from __future__ import annotations

import re
from functools import lru_cache

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# Matched against the words of a name in lower case, joined by "_". Covers the names in Sentry's and
# Rails' scrubbers, except those of addresses, which are not secrets, and some more.
_SECRET = re.compile(
    r"passw|pass_word|passphrase|passcode|pswd|credential|social_?security"
    r"|(?:^|_)(?:"
    r"(?:|db|my|pg|root|smtp|ssh|user)pass$|pwd|pw"
    r"|[a-z]*secrets?|secret(?:id|key|token|value)"
    r"|[a-z]*token|(?:access|api|auth|bearer|csrf|device|id|refresh|session)_?tokens"
    r"|(?:access|account|api|app|auth|consumer|deploy|encryption|license|master|private|secret"
    r"|service|session|shared|signing|ssh|storage)_?keys?"
    r"|jwts?|bearer|cookies?|csrf|xsrf|symfony|connect_sid|[a-z]*sess(?:ion)?ids?"
    r"|session_(?:cookie|data|hash|ids?)"
    r"|auth(?:_(?:code|data|header|string))?$|authorization(?:_(?:code|header))?$|session$"
    r"|[ht]?otp|pin$|pin_(?:code|number)|cv[cv]2?|ssn|dsn|signature|hmac|sig$"
    r"|(?:cc|card)_?num(?:ber)?|credit_?card"
    r"|(?:backup|mfa|recovery|security|verification)_?(?:codes?|answer)"
    r")(?:_|$)"
)
# A name that begins or ends like this describes a secret: `token_count`, `has_password`.
_HARMLESS = re.compile(
    r"^(?:has|is|max|min|needs?|no|num|requires?)_"
    r"|_(?:alg|algorithm|at|attempts|backend|budget|counts?|days|denied|disabled|enabled|endpoint"
    r"|errors?|exception|expired|expires|expiration|expiry|failed|failure|found|in|index|invalid"
    r"|kind|len|length|lifetime|limits?|methods?|minutes|mismatch|missing|mode|name|policy"
    r"|provider|rates?|required|revoked|scheme|seconds|size|status|strategy|timeout|total|ttl"
    r"|types?|usage|valid|version|warning)$"
)


@lru_cache(maxsize=4096)  # payloads of a task have the same keys
def looks_secret(name: str) -> bool:
    """Return whether a name is that of a secret, in any spelling: `api_key`, `X-Auth-Token`."""
    words = "_".join(_WORDS.findall(name)).lower()
    return _SECRET.search(words) is not None and _HARMLESS.search(words) is None
