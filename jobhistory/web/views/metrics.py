"""Metrics for Prometheus."""

from __future__ import annotations

from jobhistory.web.asking import Steps, ask
from jobhistory.web.context import Context
from jobhistory.web.http import Answer

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics(page: Context) -> Steps:
    """Return what Prometheus reads; they contain no payloads, so any access suffices."""
    text = yield ask("metrics", recorder=page.settings.recorder)
    return Answer(text.encode(), content_type=_CONTENT_TYPE)
