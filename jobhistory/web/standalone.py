"""The page as a standalone program: for one user, with a token, on one address."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from jobhistory.web.http import Request, redirect
from jobhistory.web.page import secured
from jobhistory.web.shells import ASGIPage


@dataclass(frozen=True)
class Guard:
    """Decides who may see a page that serves itself.

    Attributes:
        port: the port of the server.
        token: what a browser has to know; `None` if everybody may see the page.
        is_local: whether only this machine can connect.
    """

    port: int
    token: str | None = field(default_factory=lambda: secrets.token_urlsafe(24))
    is_local: bool = True

    @property
    def cookie(self) -> str:
        """The name of the cookie. It contains the port, because cookies do not differ by port."""
        return f"jobhistory_token_{self.port}"

    def allows(self, request: Request) -> bool:
        """Return whether the sender of a request may see everything."""
        if self.is_local and not _names_this_machine(request.headers.get("host", "")):
            return False  # a page of another site, whose name was made to point to this machine
        return self.token is None or self._knows(request.cookies.get(self.cookie, ""))

    def entry(self, request: Request) -> Any:
        """Return the redirect that keeps the token of a URL as a cookie; `None` if it has none."""
        given = request.parameter("token")
        if self.token is None or given is None or not self._knows(given):
            return None
        cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict"
        return secured(redirect("./", ("Set-Cookie", cookie)))

    def _knows(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())


def _names_this_machine(host: str) -> bool:
    name = host.partition(":")[0] if host.count(":") == 1 else host
    if bracketed := re.fullmatch(r"\[([^\]]*)\](:\d+)?", host):
        name = bracketed[1]
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on this host can be reached from this machine only."""
    return _names_this_machine(host)


class StandalonePage(ASGIPage):
    """A page that serves itself, behind a guard."""

    def __init__(self, page: Any, guard: Guard) -> None:
        super().__init__(page)
        self._guard = guard

    async def _answer(self, request: Request) -> Any:
        return self._guard.entry(request) or await super()._answer(request)
