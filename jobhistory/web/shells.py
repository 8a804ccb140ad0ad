"""Two thin shells that put the page on the web: one for ASGI, and one for WSGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack
from urllib.parse import quote, unquote
from weakref import WeakKeyDictionary

from jobhistory.aio import AsyncHistoryStore
from jobhistory.errors import InvalidInput
from jobhistory.statistics.prometheus import OperationCounter
from jobhistory.store import HistoryStore
from jobhistory.typing import Clock, Duration
from jobhistory.web.access import Access, AccessCallback, Granted, granted
from jobhistory.web.http import Answer, Request, redirect
from jobhistory.web.live import Feed, changes_of, events
from jobhistory.web.page import HistoryPage, secured
from jobhistory.web.settings import Present
from jobhistory.web.time_limit import TimeLimit

if TYPE_CHECKING:
    from starlette.responses import Response


class PageOptions(TypedDict, total=False):
    """The options of a `HistoryPage`, which describes them."""

    present: Present | None
    trace_url: str | None
    logs_url: str | None
    source_url: str | None
    title: str
    clock: Clock
    recorder: OperationCounter | None
    time_limit: Duration


def asgi_app(
    store: HistoryStore | AsyncHistoryStore,
    *,
    access: AccessCallback | Literal["open"] | None = None,
    **options: Unpack[PageOptions],
) -> ASGIPage:
    """Return an ASGI app that shows the history, to mount in FastAPI, Starlette or Litestar.

    Args:
        store: a store for threads, whose calls then run in threads, or one for asyncio.
        access, options: as for `HistoryPage`. In the callback, `request.native` is the ASGI scope.

    Raises:
        InvalidInput: if an argument cannot be used.
        ModuleNotFoundError: if Starlette is not installed.
    """
    return ASGIPage(HistoryPage(store, access=access, **options))


def wsgi_app(
    store: HistoryStore,
    *,
    access: AccessCallback | Literal["open"] | None = None,
    **options: Unpack[PageOptions],
) -> WSGIPage:
    """Return a WSGI app that shows the history, to mount in Flask, Django or Pyramid.

    Args:
        store: a store for threads.
        access, options: as for `HistoryPage`. In the callback, `request.native` is the environ.

    Raises:
        InvalidInput: if an argument cannot be used, or the store is for asyncio.
    """
    return WSGIPage(HistoryPage(store, access=access, **options))


class ASGIPage:
    """An ASGI app that shows a page."""

    def __init__(self, page: HistoryPage) -> None:
        try:
            import starlette  # noqa: F401 - so that its absence is noticed when the app starts
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the web page for ASGI requires pip install 'jobhistory[web]'", name=error.name
            ) from None
        self.page = page
        self._limit = TimeLimit(page.seconds)
        self._feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, Feed] = WeakKeyDictionary()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live_until_shutdown(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # servers refuse the connection then
        else:
            request = _from_scope(scope)
            answer = _to_folder(request) or await self._answer(request)
            try:
                await _response(answer, request)(scope, receive, send)
            finally:
                # A viewer who leaves ends the response, but not what makes its parts.
                if isinstance(answer.body, AsyncGenerator):
                    await answer.body.aclose()

    async def _answer(self, request: Request) -> Answer:
        try:
            if self.page.is_async:
                async with asyncio.timeout(self.page.seconds):
                    access = await self._access(self.page.decide(request))
                    if request.view == "events":
                        return self._events(request, access)
                    return await self.page.answer_async(request, access)
            access = await self._access(await self._limit.run_async(self.page.decide, request))
            if request.view == "events":
                return self._events(request, access)
            answer = await self._limit.run_async(self.page.answer, request, access)
        except TimeoutError:
            return self.page.too_late(request)
        if isinstance(answer.body, Iterator):
            return replace(answer, body=self._parts(answer.body))
        return answer

    async def _access(self, decided: Access | Awaitable[Granted]) -> Access:
        return granted(await decided) if isinstance(decided, Awaitable) else decided

    async def _parts(self, parts: Iterator[bytes]) -> AsyncGenerator[bytes]:
        while (part := await self._limit.run_async(next, parts, None)) is not None:
            yield part

    def _events(self, request: Request, access: Access) -> Answer:
        watched = self.page.watched(request, access)
        if isinstance(watched, Answer):
            return watched
        loop = asyncio.get_running_loop()
        feed = self._feeds.setdefault(loop, Feed(lambda: changes_of(self.page.store)))
        # Proxies that collect an answer before they pass it on would hold back all events.
        headers = (("X-Accel-Buffering", "no"),)
        return secured(Answer(events(feed, watched), 200, "text/event-stream", headers))


class WSGIPage:
    """A WSGI app that shows a page."""

    def __init__(self, page: HistoryPage) -> None:
        if page.is_async:
            raise InvalidInput("store", page.store, "is for asyncio; pass one from create_store")
        page.check_plain_access()
        self.page = page
        self._limit = TimeLimit(page.seconds)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        request = _from_environ(environ)
        answer = _to_folder(request) or self.answer(request)
        headers = [("Content-Type", answer.content_type), *answer.headers]
        status = HTTPStatus(answer.status)
        if isinstance(answer.body, bytes) and status != HTTPStatus.NOT_MODIFIED:
            headers.append(("Content-Length", str(len(answer.body))))
        start_response(f"{status.value} {status.phrase}", headers)
        if request.method == "HEAD":
            return []
        return [answer.body] if isinstance(answer.body, bytes) else answer.body  # type: ignore

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request; its body is bytes, or an iterator over parts."""
        # Access is decided in the server's thread, to which frameworks may tie users and sessions.
        access = self.page.decide_now(request)
        try:
            answer = self._limit.run(self.page.answer, request, access)
        except TimeoutError:
            return self.page.too_late(request)
        if isinstance(answer.body, Iterator):
            return replace(answer, body=self._parts(answer.body))
        return answer

    def _parts(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        while (part := self._limit.run(next, parts, None)) is not None:
            yield part


def _response(answer: Answer, request: Request) -> Response:
    """Return the response of Starlette, without the body to a HEAD request."""
    from starlette.responses import Response, StreamingResponse

    response: Response
    if isinstance(answer.body, bytes):
        response = Response(answer.body, answer.status)
    else:
        response = StreamingResponse(answer.body, answer.status)
    response.headers["content-type"] = answer.content_type
    for name, value in answer.headers:
        response.headers.append(name, value)
    if request.method != "HEAD":
        return response
    without = Response(b"", answer.status)
    without.raw_headers = response.raw_headers
    return without


def _from_scope(scope: Any) -> Request:
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    # Frameworks differ in whether the path includes where the app is mounted, or a part of it.
    for start in range(len(root) + 1):
        prefix = root[start:]
        if prefix[:1] in ("", "/") and (path == prefix or path.startswith(f"{prefix}/")):
            path = path[len(prefix) :]
            break
    raw_path = unquote(scope.get("raw_path") or b"/")
    if not raw_path.endswith("/"):
        path = path.removesuffix("/")  # Litestar adds one, and does not tell where apps are mounted
        root = root or raw_path.removesuffix(path)
    headers: dict[str, str] = {}
    for name, value in ((each.decode("latin-1") for each in pair) for pair in scope["headers"]):
        # HTTP/2 may divide the cookies into several headers.
        between = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{between}{value}" if name in headers else value
    query = scope["query_string"].decode("utf-8", "replace")
    return Request(scope["method"], path, query, headers, scope, root, is_live=True)


def _from_environ(environ: dict[str, Any]) -> Request:
    path, root, query = (
        environ.get(name, "").encode("latin-1").decode("utf-8", "replace")
        for name in ("PATH_INFO", "SCRIPT_NAME", "QUERY_STRING")
    )
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    return Request(environ["REQUEST_METHOD"], path, query, headers, environ, root.rstrip("/"))


def _to_folder(request: Request) -> Answer | None:
    """Return a redirect to the URL that ends in a slash, without which relative links fail."""
    if request.path:
        return None
    name = request.mounted_at.rpartition("/")[2]
    query = quote(request.query, safe="%&=+;/?:@!$'()*,")
    return redirect(f"{quote(name)}/{query and '?'}{query}") if name else None


async def _live_until_shutdown(receive: Any, send: Any) -> None:
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
