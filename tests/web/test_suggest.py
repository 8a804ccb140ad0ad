"""Completions of the search box."""

import asyncio
import re
from html import unescape
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import Job, create_async_store
from jobhistory.web import Access, HistoryPage, Request, search
from tests.web.pages import get
from tests.web.test_executions import HOSTILE


def options(answer):
    assert answer.status == 200
    return list(map(unescape, re.findall('(?s)data-value="(.*?)">', answer.body.decode())))


def suggested(page, text):
    return options(get(page, f"/suggest?q={quote(text)}"))


@pytest.fixture
def page(plain_store, clock):
    for name, runs in (("send_email", 3), ("send it", 2), ("resize", 1)):
        for _ in range(runs):
            job = Job("1", name, labels={"tenant": "acme"})
            record = plain_store.record_start(job, f"host-{runs}:1", "c")
            if runs == 3:
                plain_store.record_failure(record, error=ValueError("x"))
    return HistoryPage(plain_store, access="open", clock=clock)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task:", ["task:send_email", 'task:"send it"', "task:resize"]),
        ("task:SEND", ["task:send_email", 'task:"send it"']),
        ('task:"send i', ['task:"send it"']),
        ("status:failed  task:r", ["status:failed  task:resize"]),
        ("email", ["task:send_email"]),
        ("status:p", ["status:partial_success"]),
        ("worker:host-3", ["worker:host-3:1"]),
        ("error-type:", ["error-type:ValueError"]),
        ("label:t", ["label:tenant=acme"]),
        ("min-t", ["min-time:"]),
        ("fail", ["status:failed"]),
        ("since:2", ["since:24h"]),
        ("job-id:", []),
        ("colour:", []),
        ("nothing-like-it", []),
        ("task:resize", []),
    ],
)
def test_the_last_term_is_completed_from_history(page, text, expected):
    assert suggested(page, text) == expected


def test_an_empty_box_offers_all_terms(page):
    assert suggested(page, "") == [f"{name}:" for name in search.TERMS][:12]
    assert suggested(page, "task:x ")[0] == "task:x task:"


def test_the_list_asks_for_suggestions(page):
    body = get(page).body
    assert b'aria-controls="suggestions"' in body
    assert b'<ul id="suggestions"' in body


def test_hostile_names_are_only_text(page):
    for name in HOSTILE:
        page.store.begin(Job("1", name), name).end()
    assert len(suggested(page, "task:")) >= len(HOSTILE)
    body = get(page, "/suggest?q=task:").body
    assert b"<script" not in body
    assert b"<img" not in body
    for option in suggested(page, "task:"):
        ((name, value),) = search.split(option)
        assert name == "task"
        assert page.store.query(task_identifier=value)


@given(st.text(max_size=50))
def test_every_text_has_suggestions_that_begin_as_it_does(text):
    before, name, value = search.unfinished(text)
    assert text.startswith(before)
    if name is not None:
        assert search.split(before + search.term(name, value))[-1] == (name, value)


def test_an_empty_history_has_suggestions_and_without_payloads_too(plain_store, clock):
    page = HistoryPage(plain_store, access=lambda _: Access.WITHOUT_PAYLOADS, clock=clock)
    for text in ("", "task:", "worker:", "error-type:", "label:", "x"):
        suggested(page, text)


def test_a_store_for_asyncio_has_suggestions(clock):
    async def check():
        store = create_async_store(clock=clock)
        await store.record_start(Job("1", "send_email"), "worker-1", "c")
        page = HistoryPage(store, access="open", clock=clock)
        answer = await page.answer_async(Request("GET", "/suggest", "q=task:"))
        assert options(answer) == ["task:send_email"]

    asyncio.run(check())
