"""The page as a view of Django, behind its middleware, so that the callback knows the user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import Any, Literal, Unpack

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, re_path

from jobhistory.store import HistoryStore
from jobhistory.web.access import AccessCallback
from jobhistory.web.http import Request
from jobhistory.web.page import HistoryPage
from jobhistory.web.shells import PageOptions, WSGIPage


def history_urls(
    store: HistoryStore,
    *,
    access: AccessCallback | Literal["open"] | None = None,
    **options: Unpack[PageOptions],
) -> list[URLPattern]:
    """Return patterns of URLs that show the history, for `path("history/", include(...))`.

    They work with WSGI and ASGI. The page asks for news every two seconds; `asgi_app` sends events.

    Args:
        store: a store for threads.
        access, options: as for `HistoryPage`. In the callback, `request.native` is the
            `HttpRequest`, so `request.native.user` is the user.

    Raises:
        InvalidInput: if an argument cannot be used, or the store is for asyncio.
    """
    page = WSGIPage(HistoryPage(store, access=access, **options))

    def show_history(request: HttpRequest, path: str) -> HttpResponseBase:
        answer = page.answer(_request_of(request, path))
        body: Any = b"" if request.method == "HEAD" else answer.body
        kind: Any = HttpResponse if isinstance(body, bytes) else StreamingHttpResponse
        if isinstance(body, Iterator) and isinstance(request, ASGIRequest):
            body = _parts(body)
        response = kind(body, status=answer.status, content_type=answer.content_type)
        if isinstance(answer.body, bytes) and answer.status != HTTPStatus.NOT_MODIFIED:
            response["Content-Length"] = str(len(answer.body))  # for HEAD, too
        for name, value in answer.headers:
            if name == "Set-Cookie":
                response.cookies.load(value)
            else:
                response[name] = value
        return response

    pattern: Any = re_path(r"(?s)^(?P<path>.*)$", show_history, name="jobhistory")
    return [pattern]


def _request_of(request: HttpRequest, path: str) -> Request:
    given: Any = request.headers  # of which Django declares no type
    headers = {name.lower(): value for name, value in given.items()}
    query = request.META.get("QUERY_STRING", "")
    return Request(request.method or "GET", f"/{path}", query, headers, request)


async def _parts(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    next_part = sync_to_async(lambda: next(parts, None), thread_sensitive=False)
    while (part := await next_part()) is not None:
        yield part
