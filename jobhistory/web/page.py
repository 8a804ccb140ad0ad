"""The page, independent of any web framework: it answers requests."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_duration
from jobhistory.aio import AsyncHistoryStore
from jobhistory.database.deadlines import time_limit as database_time_limit
from jobhistory.errors import (
    HistoryUnavailable,
    InvalidInput,
    SchemaOutOfDate,
    StatisticsDenied,
    reason,
)
from jobhistory.query.criteria import HistoryQuery, coerce
from jobhistory.statistics.prometheus import OperationCounter
from jobhistory.store import HistoryStore
from jobhistory.typing import Clock, Duration
from jobhistory.web import asking
from jobhistory.web.access import Access, AccessCallback, Granted, granted, read_access
from jobhistory.web.asking import Ask, Asked, Receive, Steps
from jobhistory.web.context import Context
from jobhistory.web.errors import Refused, not_found
from jobhistory.web.http import Answer, Request
from jobhistory.web.links import Links
from jobhistory.web.presenting import Presenting, read_present
from jobhistory.web.rendering import STATIC_FILES, static_file
from jobhistory.web.routes import VIEWS
from jobhistory.web.search import criteria_of
from jobhistory.web.settings import Present, Settings
from jobhistory.web.snippets import SnippetWriter
from jobhistory.web.streams import started, started_async

_SECURITY_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
_NOT_CACHED = ("Cache-Control", "no-store")
_CACHED = ("Cache-Control", "public, max-age=31536000, immutable")
_RETRY_AFTER = timedelta(seconds=5)
_LONGEST_URL = 8000
_READING = ("GET", "HEAD")

_CLOSED = (
    "Nobody has been given access to this page; the app says who may see it with access=, as in "
    "asgi_app(store, access=lambda request: ...)."
)
_NO_ACCESS = "You have no access to this page."


class HistoryPage:
    """A read-only web page of job history: the part that knows no web framework.

    `asgi_app` and `wsgi_app` make apps from one. Any number of threads may call `answer` at the
    same time.

    Args:
        store: the store to show.
        access: decides what the sender of a request may see: a function of the request that
            returns `True` for everything, `False` for nothing, or a member of `Access`. An
            asynchronous function needs `answer_async`. `"open"` shows everything to everybody. By
            default, nobody sees anything.
        present: called with a name, the value under it and the request; returns the value to show.
            It is called for payload, result, partial results, steps and labels, for each key and
            each item of a list in what it returns, and for error messages, stacks and log tails.
            An item has the name of its list. If the function raises, the value is hidden. Keys, ids
            and the type of an error are shown as they are.
        trace_url, logs_url, source_url: templates of URLs, see `Links`.
        title: the title of the page.
        clock: returns the current time as an aware `datetime`.
        recorder: a `Recorder` or `AsyncRecorder` whose operations `metrics` counts as well.
        time_limit: how long viewers wait for an answer, before they get a page that tries again.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    def __init__(
        self,
        store: HistoryStore | AsyncHistoryStore,
        *,
        access: AccessCallback | Literal["open"] | None = None,
        present: Present | None = None,
        trace_url: str | None = None,
        logs_url: str | None = None,
        source_url: str | None = None,
        title: str = "Job history",
        clock: Clock = utc_now,
        recorder: OperationCounter | None = None,
        time_limit: Duration = "10s",
    ) -> None:
        if not isinstance(store, (HistoryStore, AsyncHistoryStore)):
            raise InvalidInput("store", store, "is not a store; pass one from create_store")
        self.store = store
        self.is_async = isinstance(store, AsyncHistoryStore)
        self.seconds = parse_duration(time_limit, "time_limit").total_seconds()
        self._is_closed = access is None
        self._snippets = SnippetWriter(store)
        links = Links(trace_url, logs_url, source_url)
        self.settings = Settings(
            read_access(access), read_present(present), links, title, clock, recorder
        )

    def decide(self, request: Request) -> Access | Awaitable[Granted]:
        """Return what the sender of a request may see, or what to await to learn it."""
        decided = self.settings.access(request)
        return decided if isinstance(decided, Awaitable) else granted(decided)

    def decide_now(self, request: Request) -> Access:
        """Return what the sender of a request may see.

        Raises:
            InvalidInput: if the callback is asynchronous.
        """
        decided = self.decide(request)
        if isinstance(decided, Awaitable):
            if isinstance(decided, Coroutine):
                decided.close()  # otherwise Python warns that nobody has awaited it
            raise self._no_plain_access()
        return decided

    def check_plain_access(self) -> None:
        """Check that the callback is not an asynchronous function, as far as that shows.

        Raises:
            InvalidInput: if it is.
        """
        if iscoroutinefunction(self.settings.access):
            raise self._no_plain_access()

    def _no_plain_access(self) -> InvalidInput:
        remedy = "is asynchronous; pass a plain function"
        return InvalidInput("access", self.settings.access, remedy)

    def answer(self, request: Request, access: Access | None = None) -> Answer:
        """Return the answer to a request, from a store for threads.

        Errors of the database become a page that says so. Others are raised.

        Args:
            access: what the sender may see, if that is known; otherwise, the callback decides.
        """
        if access is None:
            access = self.decide_now(request)
        context = self._context(request, access)
        try:
            with database_time_limit(self.seconds):
                answer = asking.run(self.store, self._steps(context), self._receiver(context))
                answer = replace(answer, body=started(answer.body))
        except Exception as error:
            answer = _refusal(context, error)
        return secured(answer)

    async def answer_async(self, request: Request, access: Access | None = None) -> Answer:
        """Return the answer to a request, from a store for asyncio, as `answer` does."""
        if access is None:
            decided = self.decide(request)
            access = granted(await decided) if isinstance(decided, Awaitable) else decided
        context = self._context(request, access)
        try:
            steps, receive = self._steps(context), self._receiver(context)
            with database_time_limit(self.seconds):
                answer = await asking.run_async(self.store, steps, receive)
                answer = replace(answer, body=await started_async(answer.body))
        except Exception as error:
            answer = _refusal(context, error)
        return secured(answer)

    def too_late(self, request: Request) -> Answer:
        """Return the answer to a request whose answer was not there within the time limit."""
        why = f"the database did not answer within {self.seconds:g} s"
        return secured(_unavailable(self._context(request, Access.NOTHING), why))

    def watched(self, request: Request, access: Access) -> HistoryQuery | Answer:
        """Return the executions whose changes a viewer wants to know, or the refusal."""
        context = self._context(request, access)
        try:
            self._check(context)
            return coerce(criteria_of(context.search_text), {})
        except Exception as error:
            return secured(_refusal(context, error))

    def _context(self, request: Request, access: Access) -> Context:
        now = self.settings.clock()
        return Context(request, self.settings, access, request.view, now, self._snippets)

    def _receiver(self, context: Context) -> Receive:
        presenting = Presenting(context.access, self.settings.present, context.request)

        def receive(question: Ask, answer: Any, milliseconds: float) -> Any:
            context.asked.append(Asked(question, milliseconds))
            return presenting.of(answer)

        return receive

    def _steps(self, context: Context) -> Steps:
        request = context.request
        if request.view.startswith("static/") and request.method in _READING:
            return _static(request.view.removeprefix("static/"))
        self._check(context)
        if request.view not in VIEWS:
            raise not_found(f"There is no view named {request.view[:100]!r}.")
        return VIEWS[request.view](context)

    def _check(self, context: Context) -> None:
        """Check that the request is one that this viewer may send.

        Raises:
            Refused: if it is not.
        """
        request = context.request
        if request.method not in _READING:
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "This page only answers GET requests.")
        if len(request.query) > _LONGEST_URL:
            raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, "This URL is too long.")
        if context.access is Access.NOTHING:
            raise Refused(HTTPStatus.FORBIDDEN, _CLOSED if self._is_closed else _NO_ACCESS)


def _static(name: str) -> Steps:
    content = static_file(name)
    if content is None:
        raise not_found(f"There is no file named {name[:100]!r}.")
    return Answer(content, content_type=STATIC_FILES[name], headers=(_CACHED,))
    yield  # so that it is a generator, as views are


def _refusal(context: Context, error: Exception) -> Answer:
    """Return the page for an error that is not a fault of this program; raise others."""
    if isinstance(error, Refused):
        return context.render("refused.html", error.status, sentence=error.sentence)
    if isinstance(error, InvalidInput):
        return context.render("refused.html", HTTPStatus.BAD_REQUEST, sentence=f"{error}.")
    if isinstance(error, StatisticsDenied):
        return context.render("refused.html", HTTPStatus.FORBIDDEN, sentence=f"{error}.")
    if isinstance(error, (SQLAlchemyError, HistoryUnavailable, SchemaOutOfDate)):
        return _unavailable(context, reason(error))
    raise error


def _unavailable(context: Context, why: str) -> Answer:
    sentence = f"The history is unavailable: {why}."
    answer = context.render("unavailable.html", HTTPStatus.SERVICE_UNAVAILABLE, sentence=sentence)
    seconds = str(_RETRY_AFTER.seconds)
    # Browsers load the page again after that time, also without a script.
    again = (("Refresh", seconds), ("Retry-After", seconds))
    return Answer(answer.body, answer.status, answer.content_type, again)


def secured(answer: Answer) -> Answer:
    """Return the answer with headers that forbid inline code, foreign sites, and caches."""
    headers = (*answer.headers, *_SECURITY_HEADERS)
    if not any(name == "Cache-Control" for name, _ in headers):
        headers = (*headers, _NOT_CACHED)
    return Answer(answer.body, answer.status, answer.content_type, headers)
