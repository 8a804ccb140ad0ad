"""Passwords in URLs, which no message shows and no row keeps."""

from __future__ import annotations

import re

REDACTED = "[redacted]"

_SCHEME_LENGTH = 40
_SCHEME = re.compile(r"[\w+.\-]+\Z")
_URL_END = re.compile(r"[\s\"'<>`]")
_AUTHORITY_END = re.compile(r"[/?#]")
_PORT = re.compile(r"[^:]*:\d*")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|\*+")


def redact_urls(text: str) -> str:
    """Return the text with `"[redacted]"` in place of the passwords in its URLs."""
    before, *rest = text.split("://")
    shown = [before]
    for url in rest:
        scheme = _SCHEME.search(before[-_SCHEME_LENGTH:])
        is_web = scheme is not None and scheme[0].lower().endswith(("http", "https"))
        shown.append(_without_password(url, is_web=is_web))
        before = url
    return "://".join(shown)


def _without_password(url: str, *, is_web: bool) -> str:
    """Return the part of a URL after `://`, without its password."""
    whole = _URL_END.split(url, maxsplit=1)[0]
    authority = _AUTHORITY_END.split(whole, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    if at:
        has_password = ":" in user
    else:  # "user:pass/word@host" looks like a host and a port up to the slash
        has_password = ":" in authority and not (is_web and _PORT.fullmatch(authority))
    if has_password:  # it may contain @, so it ends at the last one
        user_end, host_at = whole.index(":"), whole.rfind("@")
        if host_at < 0 or _PLACEHOLDER.fullmatch(url, user_end + 1, host_at):
            return url
    elif at and is_web:  # a token: https://TOKEN@github.com
        user_end, host_at = 0, len(user)
    else:
        return url
    # The user of a web address may be a token, whether a password follows or not.
    return (REDACTED if is_web else f"{url[:user_end]}:{REDACTED}") + url[host_at:]
