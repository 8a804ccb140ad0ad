"""What the tests of the page have in common."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

from jobhistory.web import HistoryPage, Request


def get(page, url="/", **headers):
    """Return the answer to a GET request, as a viewer's browser sends it."""
    path, _, query = url.partition("?")
    return page.answer(Request("GET", path, query, headers))


def text_of(answer):
    """Return what a viewer reads: the text between the tags, with single spaces."""
    html = answer.body.decode()
    html = re.sub(r"(?s)<(head|footer)>.*?</\1>", "", html)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def location(answer):
    """Return the URL to which an answer redirects."""
    assert answer.status == 303
    return dict(answer.headers)["Location"]


def links(answer):
    """Return the URLs of the links, by their texts."""
    found = re.findall(r'(?s)<a [^>]*?href="([^"]*)"[^>]*>(.*?)</a>', answer.body.decode())
    return {
        " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split()): unescape(url)
        for url, text in found
    }


def page_of(store, clock, **options):
    """Return the page of a store, open to everybody by default."""
    return HistoryPage(store, access=options.pop("access", "open"), clock=clock, **options)


def ran(clock, *, ago=timedelta(hours=1), ms=1000, error=None, **more):
    """Return an execution that has ended, as `record_execution` takes it."""
    outcome = {"status": "completed"}
    if error is not None:
        outcome = {"status": "failed", "error": error}
    return {
        "job_id": "42",
        "task_identifier": "charge_card",
        "worker_id": "worker-1",
        "correlation_id": "checkout-1",
        "started_at": clock() - ago,
        "execution_time_ms": ms,
        **outcome,
        **more,
    }
