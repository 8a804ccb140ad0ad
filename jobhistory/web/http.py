"""Requests and answers, independent of any web framework."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

Body: TypeAlias = bytes | Iterable[bytes] | AsyncIterable[bytes]


@dataclass(frozen=True)
class Request:
    """A request to the page.

    Attributes:
        method: `"GET"` or another method of HTTP.
        path: the path below the place where the page is mounted, with a slash at the start; empty
            if the URL is that place, without one.
        query: the part of the URL after the question mark.
        headers: the headers by name, in lower case.
        native: the ASGI scope, or the WSGI environ, in which frameworks leave users and sessions;
            with Django's URLs, the `HttpRequest`.
        mounted_at: the path where the page is mounted, as far as the framework knows it.
        is_live: whether whoever answers can send events.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    native: Any = field(default_factory=dict)
    mounted_at: str = ""
    is_live: bool = False

    @property
    def view(self) -> str:
        """The path without the slash at its start."""
        return self.path.removeprefix("/")

    @cached_property
    def parameters(self) -> list[tuple[str, str]]:
        """The names and values in the query, in their order, without empty values."""
        return parse_qsl(self.query, errors="replace")[:_MOST_PARAMETERS]

    @cached_property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name. Those of other apps may have any form, and do no harm."""
        pairs = (each.partition("=") for each in self.headers.get("cookie", "").split(";"))
        return {name.strip(): value.strip().strip('"') for name, _, value in pairs}

    def parameter(self, name: str) -> str | None:
        """Return the last value of a parameter; `None` if there is none."""
        return next((value for key, value in reversed(self.parameters) if key == name), None)


_MOST_PARAMETERS = 100


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        body: the whole body, or an iterable of its parts; an asynchronous one if the store is.
        status: the status code of HTTP.
        content_type: the media type.
        headers: other headers.
    """

    body: Body
    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def redirect(location: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer that sends the browser to another view, by a relative URL."""
    return Answer(b"", 303, headers=(("Location", location), *headers))


def tagged(answer: Answer, request: Request) -> Answer:
    """Return the answer with an entity tag, or without its body if the browser has the same."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    tag = f'"{sha256(body).hexdigest()[:16]}"'
    headers = (*answer.headers, ("ETag", tag), ("Cache-Control", "private, no-cache"))
    # Proxies that compress answers make tags weak.
    if request.headers.get("if-none-match", "").removeprefix("W/") == tag:
        return Answer(b"", 304, answer.content_type, headers)
    return Answer(body, answer.status, answer.content_type, headers)
