"""The list of executions."""

import asyncio
from datetime import timedelta
from itertools import product
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import Job, create_async_store, create_store
from jobhistory.database.statements.pages import reads_one_page
from jobhistory.query.criteria import HistoryQuery
from jobhistory.web import Access, HistoryPage, Request
from tests.web.pages import get, links, location, text_of

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a'b\"c\\d\n\tx",
    "\u202eevil\u0000\x1b[31m",
    "x" * 255,
    " ",
    "%s%%{}{{ 7*7 }}",
]


def fill(store, clock, number=120, **values):
    started = [clock.now - timedelta(minutes=each) for each in range(number, 0, -1)]
    row = {"task_identifier": "send_email", "worker_id": "worker-1", "status": "completed"}
    store.record_many(
        row
        | {
            "job_id": str(index),
            "correlation_id": f"request-{index}",
            "started_at": moment,
            "execution_time_ms": index,
        }
        | values
        for index, moment in enumerate(started)
    )


@pytest.fixture
def page(plain_store, clock):
    return HistoryPage(plain_store, access="open", clock=clock)


def job_ids(answer):
    return [int(text) for text, url in links(answer).items() if url == f"./?q=job-id%3A{text}"]


def walk(page, url):
    """Return the answers for a page and all that follow."""
    answers = [get(page, url)]
    while "Next page" in (found := links(answers[-1])):
        answers.append(get(page, "/" + found["Next page"].removeprefix("./")))
    return answers


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_all_pages_together_are_the_whole_list(page, clock, order):
    fill(page.store, clock)
    answers = walk(page, f"/?order={order}")
    expected = range(120) if order == "oldest" else range(119, -1, -1)
    assert [id_ for answer in answers for id_ in job_ids(answer)] == list(expected)
    assert len(answers) == 3
    assert "120 executions" in text_of(answers[0])
    assert "120 executions" not in text_of(answers[1])


def test_later_pages_keep_the_window_and_lead_back_to_the_first(page, clock):
    fill(page.store, clock)
    first = get(page, "/?since=90m")
    next_url = "/" + links(first)["Next page"].removeprefix("./")
    clock.advance(minutes=10)
    second = get(page, next_url)
    assert job_ids(second) == list(range(69, 29, -1))
    assert "First page" not in links(first)
    assert "after=" not in links(second)["First page"]


def test_a_count_stops_at_its_cap(database_store, clock):
    fill(database_store, clock, number=10_050)
    page = HistoryPage(database_store, access="open", clock=clock)
    assert "10000+ executions" in text_of(get(page))


def test_one_execution_is_counted_as_one(page, clock):
    fill(page.store, clock, number=1)
    assert "1 execution, newest first" in text_of(get(page))


def test_criteria_without_an_index_show_a_day_unless_all_is_asked_for(page, clock):
    fill(page.store, clock, number=60)
    clock.advance(hours=25)
    answer = get(page, "/?q=min-time:1s&q=min-attempt:1")
    assert "No index finds these executions" in text_of(answer)
    assert "No execution meets these criteria" in text_of(answer)
    answers = walk(page, "/" + links(answer)["Search all of history"].removeprefix("./"))
    assert sum(len(job_ids(each)) for each in answers) == 60
    assert "No index finds" not in text_of(answers[0])


@pytest.mark.parametrize("q", ["", "task:send_email", "job-id:7", "job-id:7+min-attempt:1"])
def test_criteria_with_an_index_show_all_of_history(page, clock, q):
    fill(page.store, clock, number=60)
    clock.advance(days=300)
    answer = get(page, f"/?q={q}")
    assert "No index finds" not in text_of(answer)
    assert 7 in job_ids(answer) or len(job_ids(answer)) == 50


def test_the_default_window_ends_where_the_url_says(page, clock):
    fill(page.store, clock, number=60)
    clock.advance(days=3)
    answer = get(page, "/?q=min-attempt:1&until=3d")
    assert len(job_ids(answer)) == 50
    assert "only shows the last 24 hours before the end of the window" in text_of(answer)
    assert "only shows" not in text_of(get(page, "/?q=min-attempt:1&since=7d"))


def test_what_an_index_finds_is_as_documented():
    one = {
        "job_id": "1",
        "correlation_id": "1",
        "error_type": "ValueError",
        "task_identifier": "a",
        "worker_id": "1",
    }
    failed = {"status": "failed"}
    found = [{}, failed, failed | {"task_identifier": "a"}, failed | {"error_type": "ValueError"}]
    found += [{name: value} for name, value in one.items()]
    found += [{"status": ["failed", "partial_success"]}, {"task_identifier": ["a", "b"]}]
    scanned = [{"status": each} for each in ("started", "completed", ["failed", "completed"])]
    scanned += [{"task_identifier": list(map(str, range(21)))}, {"min_attempt": 2}]
    scanned += [{"error_contains": "x"}, {"min_execution_time_ms": 1}, {"labels": {"a": "b"}}]
    scanned += [
        {first: one[first], second: one[second]}
        for first, second in product(one, repeat=2)
        if first != second
    ]
    for criteria in found:
        assert reads_one_page(HistoryQuery(**criteria)), criteria
    for criteria in scanned:
        assert not reads_one_page(HistoryQuery(**criteria)), criteria


def test_rows_show_retries_labels_and_times(page, clock):
    store = page.store
    job = Job("42", "send_email", labels={"tenant": "acme"}, attempts=2)
    record = store.record_start(job, "worker-1", "request-1")
    store.record_failure(record, error=ValueError("no card"), will_retry=True)
    text = text_of(get(page))
    for shown in ("failed", "tenant=acme", "attempt 2", "will be retried", "ValueError", "no card"):
        assert shown in text
    assert links(get(page))["worker-1"] == "./?q=worker%3Aworker-1"
    assert links(get(page, "/?q=task:send_email"))["ValueError"] == (
        "./?q=task%3Asend_email+error-type%3AValueError"
    )


def test_hostile_values_are_only_text(page, clock):
    for number, text in enumerate(HOSTILE):
        job = Job(f"{number}{text}"[:255], text, {"x": text}, labels={"tenant": text})
        record = page.store.record_start(job, text, text)
        page.store.record_failure(record, error=ValueError(text))
    answer = get(page)
    assert answer.status == 200
    assert b"<script>alert" not in answer.body
    assert b"<img" not in answer.body
    for url in links(answer).values():
        if url.startswith("./?"):
            follow = get(page, "/" + url.removeprefix("./"))
            assert follow.status == 200


def test_labels_that_cannot_be_presented_are_hidden(page, clock):
    page.store.begin(Job("42", "send_email", labels={"tenant": "acme"}), "worker-1").end()

    def present(name, value, request):
        raise ValueError

    other = HistoryPage(page.store, access="open", present=present, clock=clock)
    text = text_of(get(other))
    assert "acme" not in text
    assert "[hidden]" in text


PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "q": st.one_of(st.text(), st.sampled_from(HOSTILE)),
        "since": st.sampled_from(["all", "1h", "x", "0001-01-01", "9999-12-31", "1e9 weeks", "\0"]),
        "until": st.sampled_from(["1h", "0001-01-01", "9999-12-31T23:59:59.999999", "now"]),
        "order": st.sampled_from(["oldest", "newest", ""]),
        "after": st.text(max_size=60),
        "mark": st.sampled_from(["0001-01-01T00:00+23:59", "9999-12-31T23:59-23:59", "2h", "-"]),
    },
)


@pytest.mark.parametrize("view", ["", "news", "suggest", "executions.csv", "executions.jsonl"])
@given(PARAMETERS)
def test_no_input_fails(view, parameters):
    page = HistoryPage(create_store(), access="open")
    page.store.begin(Job("42", "send_email"), "worker-1").end()
    answer = get(page, f"/{view}?{urlencode(parameters)}")
    assert answer.status in (200, 303, 400)


def test_an_empty_history_has_an_empty_list(page):
    assert "No execution meets these criteria" in text_of(get(page))


@pytest.mark.parametrize("query", ["order=sideways", "since=x", "until=x", "after=x"])
def test_bad_input_is_refused(page, query):
    assert get(page, f"/?{query}").status == 400


def test_without_payloads_the_list_is_the_same(page, clock):
    fill(page.store, clock, number=3, payload={"secret": 1})
    other = HistoryPage(page.store, access=lambda _: Access.WITHOUT_PAYLOADS, clock=clock)
    assert text_of(get(other)) == text_of(get(page))


def test_a_store_for_asyncio_shows_the_same(clock):
    async def check():
        store = create_async_store(clock=clock)
        await store.record_execution(
            job_id="42",
            task_identifier="send_email",
            worker_id="worker-1",
            correlation_id="request-1",
            status="completed",
            started_at=clock.now,
            execution_time_ms=5,
        )
        page = HistoryPage(store, access="open", clock=clock)
        answer = await page.answer_async(Request("GET", "/", "since=1h"))
        assert "send_email" in text_of(answer)
        assert location(await page.answer_async(Request("GET", "/", "q=42"))) == "./?q=job-id%3A42"

    asyncio.run(check())
