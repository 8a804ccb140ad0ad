"""New executions are announced, and move nothing."""

import asyncio
import re
from html import unescape

import pytest

from jobhistory import Job, create_async_store
from jobhistory.web import Access, HistoryPage, Request
from tests.web.pages import get, links, text_of


@pytest.fixture
def page(plain_store, clock):
    return HistoryPage(plain_store, access="open", clock=clock)


def news_url(answer):
    found = re.search(r'hx-get="(news[^"]*)"', answer.body.decode())
    return found and f"/{unescape(found[1])}"


def start(page, clock, number, task="send_email"):
    for _ in range(number):
        clock.advance(seconds=1)
        page.store.begin(Job("42", task), "worker-1").end()


def test_what_started_after_the_page_is_counted(page, clock):
    start(page, clock, 3)
    url = news_url(get(page))
    assert text_of(get(page, url)) == ""
    start(page, clock, 12)
    answer = get(page, url)
    assert text_of(answer) == "12 new"
    assert links(answer) == {"12 new": "./"}


def test_only_what_meets_the_search_is_news(page, clock):
    start(page, clock, 1)
    url = news_url(get(page, "/?q=task:send_email&since=1h"))
    start(page, clock, 2)
    start(page, clock, 5, task="other")
    assert links(get(page, url)) == {"2 new": "./?q=task%3Asend_email&since=1h"}


def test_an_empty_list_has_news_as_well(page, clock):
    url = news_url(get(page))
    start(page, clock, 1)
    assert text_of(get(page, url)) == "1 new"


def test_the_count_is_capped(database_store, clock):
    page = HistoryPage(database_store, access="open", clock=clock)
    url = news_url(get(page))
    clock.advance(seconds=1)
    row = {"job_id": "1", "task_identifier": "a", "worker_id": "w", "correlation_id": "c"}
    row |= {"status": "completed", "started_at": clock.now, "execution_time_ms": 1}
    page.store.record_many([row] * 1001)
    assert text_of(get(page, url)) == "1000+ new"


@pytest.mark.parametrize("query", ["order=oldest", "until=1m"])
def test_a_list_to_which_nothing_comes_first_has_no_news(page, clock, query):
    start(page, clock, 3)
    assert news_url(get(page, f"/?{query}")) is None


def test_a_browser_that_has_the_same_gets_nothing(page, clock):
    url = news_url(get(page))
    first = get(page, url)
    tag = dict(first.headers)["ETag"]
    assert get(page, url, **{"if-none-match": tag}).status == 304
    start(page, clock, 1)
    assert get(page, url, **{"if-none-match": tag}).status == 200


@pytest.mark.parametrize(
    "query", ["", "mark=x", "mark=9999-12-31T23:59:59.999999Z", "mark=0001-01-01"]
)
def test_bad_marks_are_refused_or_harmless(page, query):
    assert get(page, f"/news?{query}").status in (200, 400)


def test_a_store_for_asyncio_has_news(clock):
    async def check():
        page = HistoryPage(create_async_store(clock=clock), access="open", clock=clock)
        url = news_url(await page.answer_async(Request("GET", "/")))
        clock.advance(seconds=1)
        await page.store.record_start(Job("1", "a"), "worker-1", "request-1")
        path, _, query = url.partition("?")
        assert text_of(await page.answer_async(Request("GET", path, query))) == "1 new"

    asyncio.run(check())


def test_without_payloads_there_are_the_same_news(page, clock):
    other = HistoryPage(page.store, access=lambda _: Access.WITHOUT_PAYLOADS, clock=clock)
    url = news_url(get(other))
    start(page, clock, 1)
    assert text_of(get(other, url)) == "1 new"
