"""Lists as CSV and JSON lines."""

import asyncio
import csv
import io
import json

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from jobhistory import Job, create_async_store, create_store
from jobhistory.schema import COLUMN_NAMES
from jobhistory.web import Access, HistoryPage, Request, asgi_app, wsgi_app
from tests.web.pages import get, location
from tests.web.test_executions import HOSTILE, fill


@pytest.fixture
def page(plain_store, clock):
    return HistoryPage(plain_store, access="open", clock=clock)


def whole(answer):
    return answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)


def csv_rows(answer):
    return list(csv.DictReader(io.StringIO(whole(answer).decode(), newline="")))


def json_rows(answer):
    return [json.loads(line) for line in whole(answer).splitlines()]


def test_a_file_has_all_that_match_and_the_list_only_a_page(page, clock):
    fill(page.store, clock, number=620)
    expected = [record.to_dict() for record in page.store.iterate(task_identifier="send_email")]
    answer = get(page, "/executions.jsonl?q=task:send_email")
    assert json_rows(answer) == expected
    rows = csv_rows(get(page, "/executions.csv?q=task:send_email&order=oldest"))
    assert [row["id"] for row in rows] == [row["id"] for row in reversed(expected)]
    assert list(rows[0]) == list(COLUMN_NAMES)
    assert len(csv_rows(get(page, "/executions.csv?since=1h"))) == 60


def test_a_bare_word_means_what_it_means_in_the_list(page):
    page.store.begin(Job("42", "send_email"), "worker-1").end()
    assert location(get(page, "/executions.csv?q=42")) == "executions.csv?q=job-id%3A42"


def test_only_a_get_request_reads(clock):
    store = create_store(clock=clock)
    break_after(store, 0)
    page = HistoryPage(store, access="open", clock=clock)
    answer = page.answer(Request("HEAD", "/executions.csv"))
    assert (answer.status, list(answer.body)) == (200, [b""])


def test_a_file_has_a_safe_name_and_a_type(page):
    headers = dict(get(page, "/executions.csv").headers)
    assert (
        headers["Content-Disposition"] == 'attachment; filename="executions-20151101T120000Z.csv"'
    )
    assert get(page, "/executions.csv").content_type == "text/csv; charset=utf-8"
    assert get(page, "/executions.jsonl").content_type == "application/x-ndjson"


def test_an_empty_history_has_a_header_only(page):
    assert whole(get(page, "/executions.csv")).decode().split(",")[0] == "id"
    assert whole(get(page, "/executions.jsonl")) == b""


def test_criteria_without_an_index_export_a_day_as_the_list_shows(page, clock):
    fill(page.store, clock, number=5)
    clock.advance(days=2)
    assert json_rows(get(page, "/executions.jsonl?q=min-attempt:1")) == []
    assert len(json_rows(get(page, "/executions.jsonl?q=min-attempt:1&since=all"))) == 5


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1", "\r=1"])
def test_no_cell_is_a_formula(page, start):
    record = page.store.record_start(Job(start, start, start), start, start)
    page.store.record_failure(record, error=ValueError(start))
    (row,) = csv_rows(get(page, "/executions.csv"))
    for name in ("job_id", "task_identifier", "worker_id", "correlation_id", "error_message"):
        assert row[name] == f"'{start}"


def test_hostile_values_survive(page):
    for text in HOSTILE:
        page.store.begin(Job("1", text, {text: text}), text).end()
    stored = list(page.store.iterate())
    assert json_rows(get(page, "/executions.jsonl")) == [each.to_dict() for each in stored]
    rows = csv_rows(get(page, "/executions.csv"))
    assert [json.loads(row["payload"]) for row in rows] == [each.payload for each in stored]


def test_without_payloads_a_file_has_no_such_columns(plain_store, clock):
    plain_store.begin(Job("1", "send_email", {"to": "secret"}), "worker-1").end()
    page = HistoryPage(plain_store, access=lambda _: Access.WITHOUT_PAYLOADS, clock=clock)
    for url in ("/executions.csv", "/executions.jsonl"):
        body = whole(get(page, url))
        assert b"send_email" in body
        assert b"secret" not in body
        assert b"log_tail" not in body


def test_a_file_shows_what_the_app_presents(plain_store, clock):
    plain_store.begin(Job("1", "send_email", {"to": "secret"}), "worker-1").end()

    def present(name, value, request):
        return object() if name == "to" else value

    page = HistoryPage(plain_store, access="open", present=present, clock=clock)
    for url in ("/executions.csv", "/executions.jsonl"):
        body = whole(get(page, url))
        assert b"secret" not in body
        assert b"<object object" in body


@pytest.mark.parametrize("url", ["/executions.csv?since=x", "/executions.jsonl?q=a:b"])
def test_bad_input_is_refused(page, url):
    assert get(page, url).status == 400


def test_an_unavailable_database_sends_no_file(clock, tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/missing/history.db")
    page = HistoryPage(create_store(engine), access="open", clock=clock)
    assert get(page, "/executions.csv").status == 503


def break_after(store, calls):
    """Make a store lose its database after so many reads."""
    find, made = store._history.find, []

    def finds(query, after=None):
        made.append(query)
        if len(made) > calls:
            raise OperationalError("SELECT", {}, Exception("connection lost"))
        return find(query, after)

    store._history.find = finds


@pytest.fixture
def broken(clock):
    store = create_store(clock=clock)
    fill(store, clock, number=900)
    break_after(store, 1)
    return store


def test_an_error_in_the_middle_does_not_end_a_file_normally(broken, clock):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/executions.csv"}
    started = []
    parts = iter(wsgi_app(broken, access="open")(environ, lambda *args: started.append(args)))
    assert next(parts)
    with pytest.raises(OperationalError):
        list(parts)
    assert started[0][0] == "200 OK"


def test_an_error_in_the_middle_aborts_a_connection_with_asgi(broken):
    sent = []
    scope = {"type": "http", "method": "GET", "path": "/executions.csv", "query_string": b""}
    scope |= {"headers": [], "asgi": {"spec_version": "2.4"}}

    async def send(message):
        sent.append(message)

    async def receive():
        await asyncio.sleep(60)

    with pytest.raises(OperationalError):
        asyncio.run(asgi_app(broken, access="open")(scope, receive, send))
    assert sent[-1]["type"] == "http.response.body"
    assert all(message.get("more_body", True) for message in sent)


def test_a_file_is_read_as_it_is_sent(clock):
    store = create_store(clock=clock)
    fill(store, clock, number=900)
    break_after(store, 1)
    page = HistoryPage(store, access="open", clock=clock)
    assert len(next(iter(get(page, "/executions.jsonl").body)).splitlines()) == 100


def test_a_store_for_asyncio_sends_the_same(clock):
    async def check():
        store = create_async_store(clock=clock)
        for number in range(201):
            await store.record_start(Job(number, "send_email", {"to": 1}), "worker-1", "c")
        page = HistoryPage(store, access="open", clock=clock)
        answer = await page.answer_async(Request("GET", "/executions.jsonl"))
        lines = b"".join([part async for part in answer.body]).splitlines()
        assert [json.loads(line)["job_id"] for line in lines] == [
            record.job_id async for record in store.iterate()
        ]
        answer = await page.answer_async(Request("GET", "/executions.csv", "q=task:none"))
        assert b"".join([part async for part in answer.body]).startswith(b"id,")

    asyncio.run(check())
