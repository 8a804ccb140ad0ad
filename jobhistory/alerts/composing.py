"""Alerts are made of news: what happened, where to look, and who should."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import quote, urlsplit

from jobhistory._runtime.durations import took
from jobhistory._runtime.shown_text import one_line, shown
from jobhistory.alerts.alert import Alert
from jobhistory.errors import InvalidInput
from jobhistory.execution.tracebacks import nearest_own_frame
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.incidents import News
from jobhistory.expectations.verdicts import Problem, Severity
from jobhistory.sanitize.secrets import redact_text
from jobhistory.schema import HistoryRecord

_TITLE_LENGTH = 300
_MESSAGE_LENGTH = 500
_FRAME_LENGTH = 1000
_LOG_LINES = 10
_LOG_LINE_LENGTH = 300
_MORE_TITLES = 50
_MILLISECOND = timedelta(milliseconds=1)


def read_page_url(url: str | None) -> str | None:
    """Return the address of the web page without a slash at its end.

    Raises:
        InvalidInput: if it is not an address, or contains a password.
    """
    if url is None:
        return None
    example = "write it like 'https://app.example.org/history'"
    parts = urlsplit(url) if isinstance(url, str) and url.isprintable() else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("page_url", url, f"is not the address of a page; {example}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        shortened = f"{parts.scheme}://{parts.hostname}"
        raise InvalidInput("page_url", shortened, f"has a user, a query or a fragment; {example}")
    return url.rstrip("/")


def alert_of(
    news: News,
    expectation: Expectation | None,
    record: HistoryRecord | None,
    page_url: str | None,
) -> Alert:
    """Return the alert for news of an incident.

    Args:
        record: the newest execution of the incident; `None` if there is none, or if it is not
            wanted, because somebody has heard of it.
    """
    incident = news.incident
    failed = record if record is not None and record.error_type is not None else None
    return Alert(
        news=news.kind,
        title=title_of(news),
        severity=incident.problem.severity if incident.is_open else Severity.OK,
        incident=incident,
        expectation=expectation,
        link=_link(news, page_url),
        error_type=None if failed is None else _line(failed.error_type or "", _MESSAGE_LENGTH),
        error_message=None if failed is None else _line(failed.error_message, _MESSAGE_LENGTH),
        frame=None if failed is None else _frame(failed.error_stack),
        log_tail=None if record is None else _last_lines(record.log_tail),
    )


def summary_of(rest: Sequence[News], page_url: str | None) -> Alert:
    """Return one alert for news of several incidents."""
    titles = [title_of(each) for each in rest]
    tasks = ", ".join(dict.fromkeys(each.incident.task_identifier for each in rest))
    dots = [f"... and {len(titles) - _MORE_TITLES} more"] if len(titles) > _MORE_TITLES else []
    open_ = [each.incident.problem.severity for each in rest if each.incident.is_open]
    return Alert(
        news="more",
        title=_line(f"and {len(rest)} more: {tasks}", _TITLE_LENGTH),
        severity=max(open_, key=lambda each: each.exit_status, default=Severity.OK),
        link=None if page_url is None else f"{page_url}/expectations",
        more=(*titles[:_MORE_TITLES], *dots),
    )


def title_of(news: News) -> str:
    """Return the news in one line."""
    incident = news.incident
    name, what = incident.expectation, incident.summary
    if incident.closed_at is not None:
        length = incident.closed_at - incident.opened_at
        end = f"recovered after {took(length // _MILLISECOND)}" if length else "already over"
        what = end if news.is_known else f"{what}; {end}"
    return _line(f"{name}: {what}", _TITLE_LENGTH)


def _link(news: News, page_url: str | None) -> str | None:
    incident = news.incident
    if page_url is None:
        return None
    if incident.executions:
        return f"{page_url}/execution?id={incident.executions[0]}"
    if incident.problem is Problem.NEVER_RAN:  # the task has no page yet
        return f"{page_url}/expectations"
    return f"{page_url}/task?task={quote(incident.task_identifier, safe='', errors='replace')}"


def _frame(stack: str | None) -> str | None:
    frame = nearest_own_frame(redact_text(stack)) if stack else None
    if frame is None:
        return None
    source = "".join(f"\n    {line}" for line in frame.source.splitlines())
    return shown(_cut(f"{frame.place}{source}", _FRAME_LENGTH))


def _last_lines(tail: str | None) -> str | None:
    if not tail:
        return None
    lines = redact_text(tail).splitlines()[-_LOG_LINES:]
    return "\n".join(shown(_cut(line, _LOG_LINE_LENGTH)) for line in lines)


def _line(text: str | None, length: int) -> str:
    return _cut(one_line(redact_text(text or "")), length)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."
