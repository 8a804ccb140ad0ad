"""Tell a service that waits for a ping that a check was made."""

from __future__ import annotations

import re
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from jobhistory.cli.output import say
from jobhistory.errors import InvalidInput

LIMIT = 10.0
"""The time in seconds that a ping may take."""

_PRINTABLE = re.compile(r"[!-~]+")


def read_heartbeat(url: str | None) -> str | None:
    """Return the URL of `--heartbeat`.

    Raises:
        InvalidInput: if it is not one of HTTP. It does not contain the URL, which is a secret.
    """
    if url is not None and not _is_usable(url):
        scheme, separator, _ = url.partition("://")
        shown = f"{scheme}://..." if separator and scheme.isalnum() else "..."
        raise InvalidInput(
            "--heartbeat",
            shown,
            "is not the URL of a ping; write it like 'https://hc.example/uuid'",
        )
    return url


def send_heartbeat(url: str) -> None:
    """Request a URL, and print a line on standard error if that fails or takes too long."""
    failed: list[str] = []
    # In a thread, because no time limit of a socket covers the search for its address.
    thread = Thread(target=lambda: failed.extend(_request(url)), daemon=True)
    thread.start()
    thread.join(LIMIT)
    reason = f"no answer within {LIMIT:g} s" if thread.is_alive() else "".join(failed)
    if reason:
        say(f"the heartbeat failed: {reason}")


def _request(url: str) -> list[str]:
    """Request a URL, and return why that failed, without the URL."""
    try:
        request = Request(url, headers={"User-Agent": "jobhistory"})  # noqa: S310 - HTTP only
        with urlopen(request, timeout=LIMIT):  # noqa: S310
            return []
    except HTTPError as error:
        error.close()
        return [f"status {error.code}"]
    except URLError as error:
        return [str(getattr(error.reason, "strerror", None) or type(error.reason).__name__)]
    except Exception as error:  # whatever it is, its text may contain the URL
        return [type(error).__name__]


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    is_http = parts.scheme in ("http", "https") and bool(parts.hostname) and has_port
    return is_http and _PRINTABLE.fullmatch(url) is not None
