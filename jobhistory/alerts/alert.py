"""One alert, in words and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from textwrap import indent
from typing import Any, TypeAlias

from jobhistory._runtime.shown_text import one_line
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.incidents import Incident
from jobhistory.expectations.verdicts import Severity
from jobhistory.sanitize.secrets import redact_text


@dataclass(frozen=True)
class Alert:
    """News of an incident, for a receiver. It contains no payload, and secrets are redacted.

    Attributes:
        news: what is new: `opened`, `closed`, or `more` if it sums up several incidents.
        title: the news in one line, such as `"nightly: 1 start missed, due 2026-11-28 02:17 CET"`
            or `"nightly: recovered after 2 h 10 m"`.
        severity: how bad it is now.
        incident: the incident; `None` if the alert sums up several.
        expectation: the expectation; `None` if it was removed, or if the alert sums up several.
        link: the address of the page of the execution or the task; `None` if that is not known.
        error_type, error_message: the error of the newest execution of the incident, if it failed.
        frame: the frame of the app that is nearest to the error, with its source.
        log_tail: the last log lines of the execution, if they are recorded.
        more: the titles of the alerts that it sums up.
    """

    news: str
    title: str
    severity: Severity
    incident: Incident | None = None
    expectation: Expectation | None = None
    link: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    frame: str | None = None
    log_tail: str | None = None
    more: tuple[str, ...] = ()

    @property
    def owner(self) -> str | None:
        """Who takes care of the task."""
        return _redacted(self.expectation.owner if self.expectation else None)

    @property
    def runbook(self) -> str | None:
        """The address of a page that says what to do."""
        return _redacted(self.expectation.runbook if self.expectation else None)

    @property
    def text(self) -> str:
        """Everything except the title and the log lines, each fact on a line after its name."""
        return "\n".join([*self.more, *(f"{name}: {value}" for name, value in self._facts())])

    @property
    def log_lines(self) -> str:
        """The last log lines below a heading; empty if there are none."""
        return f"Last log lines:\n{indent(self.log_tail, '    ')}" if self.log_tail else ""

    def _facts(self) -> Iterator[tuple[str, str]]:
        incident = self.incident
        if incident is not None:
            severity = incident.problem.severity
            since = _moment(incident.opened_at)
            until = "" if incident.closed_at is None else f" to {_moment(incident.closed_at)}"
            span = f"from {since}{until}" if until else f"since {since}"
            yield "Problem", f"{incident.problem.words} ({severity.value}), {span}"
            yield "Task", one_line(redact_text(incident.task_identifier))
        if self.owner:
            yield "Owner", self.owner
        if self.error_type:
            yield "Error", f"{self.error_type}: {self.error_message or ''}".rstrip(": ")
        if self.frame:
            yield "At", self.frame
        if self.link:
            yield "Page", self.link
        if self.runbook:
            yield "Runbook", self.runbook

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return {
            "news": self.news,
            "title": self.title,
            "text": self.text,
            "severity": self.severity.value,
            "incident": None if self.incident is None else _redacted_incident(self.incident),
            "owner": self.owner,
            "runbook": self.runbook,
            "link": self.link,
            "error_type": self.error_type,
            "error_message": self.error_message,
            "frame": self.frame,
            "log_tail": self.log_tail,
            "more": list(self.more),
        }


Sender: TypeAlias = Callable[[Alert], object]
"""Sends an alert, and raises an exception if its receiver has not accepted it."""


def _redacted(text: str | None) -> str | None:
    return None if text is None else one_line(redact_text(text))


def _redacted_incident(incident: Incident) -> dict[str, Any]:
    values = incident.to_dict()
    names = ("expectation", "task_identifier", "summary")
    return values | {name: redact_text(values[name]) for name in names}


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
