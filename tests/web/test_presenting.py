"""`present=`: what the app hides from viewers is hidden in every view, and errors hide more."""

import asyncio
import json
import logging

import pytest
from markupsafe import Markup

from jobhistory import Failure, Job, create_async_store, create_store
from jobhistory.errors import InvalidInput
from jobhistory.web import Access, HistoryPage, Request
from jobhistory.web.presenting import Presenting
from jobhistory.web.routes import VIEWS
from tests.web.pages import get, text_of

SECRET = "ann@example.org"


def page_of(store, clock, present, **options):
    return HistoryPage(
        store, access=options.pop("access", "open"), present=present, clock=clock, **options
    )


def hide(name, value, request):
    """Hides the secret, wherever it is."""
    return value.replace(SECRET, "(hidden)") if isinstance(value, str) else value


@pytest.fixture
def store(clock):
    """Executions with every status, that have the secret wherever a value can be."""
    store = create_store(clock=clock)
    error = Failure("ValueError", f"no mail to {SECRET}", f'  File "/a.py", line 1\n    {SECRET}')
    row = {
        "job_id": "42",
        "task_identifier": "send_email",
        "worker_id": "worker-1",
        "correlation_id": "c",
        "execution_time_ms": 1000,
        "payload": {"to": SECRET, "cc": [SECRET, [SECRET, {"x": SECRET}]], "deep": {"to": SECRET}},
        "labels": {"customer": SECRET},
        "log_tail": f"mail to {SECRET}\n",
    }
    steps = {"completed_steps": [SECRET], "failed_steps": [SECRET], "retry_from_step": SECRET}
    store.record_many(
        [
            row | {"status": "completed", "result": [SECRET]},
            row | {"status": "failed", "error": error},
            row | {"status": "partial_success", "partial_results": {"a": SECRET}} | steps,
        ]
    )
    store.record_start(Job("43", "send_email", SECRET, labels={"customer": SECRET}), "w", "c")
    return store


def urls(store):
    views = [f"/{view}" for view in VIEWS if view not in ("execution", "execution.json", "task")]
    ids = [
        f"/{view}?id={record.id}"
        for record in store.query()
        for view in ("execution", "execution.json")
    ]
    return [*views, "/suggest?q=label:", "/task?task=send_email", "/news?mark=1h", *ids]


@pytest.mark.parametrize("access", [Access.EVERYTHING, Access.WITHOUT_PAYLOADS])
def test_what_is_hidden_is_hidden_in_every_view(store, clock, access):
    page = page_of(store, clock, hide, access=lambda request: access)
    for url in urls(store):
        answer = get(page, url)
        body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
        assert answer.status in (200, 303, 400), url
        assert SECRET.encode() not in body, url
        assert b"ann%40" not in body, url


def test_without_it_the_same_views_show_the_value(store, clock):
    page = page_of(store, clock, None)
    for url in ("/", "/executions.jsonl", "/executions.csv"):
        answer = get(page, url)
        body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
        assert b"example" in body, url


def test_it_is_called_for_every_key_and_item_with_the_request(store, clock):
    seen = []
    page = page_of(store, clock, lambda name, value, request: seen.append((name, request)) or value)
    (record,) = store.query(status="completed")
    get(page, f"/execution.json?id={record.id}")
    names = [name for name, _ in seen]
    assert names.count("to") == 2
    assert names.count("cc") == 5
    assert {"payload", "labels", "customer", "result", "log_tail", "x"} <= set(names)
    assert {request.view for _, request in seen} == {"execution.json"}


def fail(name, value, request):
    raise KeyError(SECRET)


def fail_inside(name, value, request):
    if isinstance(value, str):
        raise KeyError(SECRET)
    return value


def wrap(name, value, request):
    return {"wrapped": value}


class Unshowable:
    def __str__(self):
        raise RuntimeError(SECRET)

    __repr__ = __str__


@pytest.mark.parametrize(
    "present", [fail, fail_inside, wrap, lambda name, value, request: Unshowable()]
)
def test_an_error_hides_the_value_and_breaks_no_view(store, clock, present, caplog):
    page = page_of(store, clock, present)
    with caplog.at_level(logging.WARNING, "jobhistory"):
        for url in urls(store):
            answer = get(page, url)
            body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
            assert answer.status in (200, 303, 400), url
            if present is not wrap:
                assert SECRET.encode() not in body, url
    assert SECRET not in caplog.text


def test_an_error_is_logged_once_for_a_column_and_without_what_it_says(store, clock, caplog):
    page = page_of(store, clock, fail_inside)
    (record,) = store.query(status="completed")
    with caplog.at_level(logging.WARNING, "jobhistory"):
        get(page, f"/execution.json?id={record.id}")
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("present= raised KeyError inside payload, where values are hidden") == 1
    assert len(messages) == len(set(messages)) == 4


def test_a_text_that_claims_to_be_html_is_escaped(store, clock):
    page = page_of(store, clock, lambda name, value, request: Markup("<b>bold</b>"))
    (record,) = store.query(status="failed")
    for url in (f"/execution?id={record.id}", "/", "/failures"):
        assert b"<b>bold" not in get(page, url).body


@pytest.mark.parametrize("present", ["hide", 7])
def test_what_is_not_a_function_is_refused(clock, present):
    with pytest.raises(InvalidInput, match=f"present {present!r} is not a plain function"):
        HistoryPage(create_store(clock=clock), present=present)


def test_an_asynchronous_function_is_refused(clock):
    async def present(name, value, request):
        return value

    with pytest.raises(InvalidInput, match="is not a plain function"):
        HistoryPage(create_store(clock=clock), present=present)


def test_steps_that_are_hidden_as_a_whole_are_one(store, clock):
    page = page_of(store, clock, lambda name, value, request: "(hidden)")
    (record,) = store.query(status="partial_success")
    text = text_of(get(page, f"/execution?id={record.id}"))
    assert "Steps completed (hidden) failed (hidden) Compared" in text


def test_an_unknown_answer_is_not_shown():
    presenting = Presenting(Access.WITHOUT_PAYLOADS, None, Request("GET", "/"))
    for answer in ({"payload": SECRET}, [({},)], object()):
        with pytest.raises(TypeError, match="it is not known how to present"):
            presenting.of(answer)


def test_a_store_for_asyncio_hides_the_same(clock):
    async def scenario():
        store = create_async_store(clock=clock)
        record = await store.record_start(Job("1", "t", {"to": [SECRET]}), "w", "c")
        page = page_of(store, clock, hide)
        shown = await page.answer_async(Request("GET", "/execution", f"id={record.id}"))
        lines = await page.answer_async(Request("GET", "/executions.jsonl"))
        return text_of(shown), [part async for part in lines.body]

    text, parts = asyncio.run(scenario())
    assert SECRET not in text
    assert "(hidden)" in text
    assert json.loads(b"".join(parts))["payload"] == {"to": ["(hidden)"]}
