"""The views of statistics: all tasks, one task, and groups of failures."""

import asyncio
import html
import re
from datetime import timedelta
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest

from jobhistory import Failure, Job, create_async_store, create_store
from jobhistory.web import Access, HistoryPage, Request

VIEWS = ("tasks", "task?task=send_email", "failures")
HOSTILE = "<script>alert('x')</script> \"&\\ \u202e\nname"


def page_of(store, clock, **options):
    return HistoryPage(store, access=options.pop("access", "open"), clock=clock, **options)


def get(page, url, status=200, **headers):
    path, _, query = url.partition("?")
    answer = page.answer(Request("GET", f"/{path}", query, headers))
    assert answer.status == status
    return answer.body.decode()


def words(body):
    """What a viewer reads, without the frame of the page and without markup."""
    main = body[body.index("<main") : body.index("</main>")]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", main)))


def links(body):
    return [html.unescape(link) for link in re.findall(r'href="([^"]*)"', body)]


def ran(clock, *, ago=None, task="send_email", ms=1000, queue_ms=10, error=None, **more):
    outcome = {"status": "completed"}
    if error is not None:
        outcome = {"status": "failed", "error": Failure(*error)}
    return {
        "job_id": "42",
        "task_identifier": task,
        "worker_id": "worker-1",
        "correlation_id": "request-1",
        "started_at": clock() - (ago or timedelta(hours=1)),
        "execution_time_ms": ms,
        "queue_time_ms": queue_ms,
        **outcome,
        **more,
    }


@pytest.fixture
def filled(plain_store, clock):
    """Two tasks: one often runs, and sometimes fails; one always fails."""
    timeout = ("TimeoutError", "no answer after 30 s")
    plain_store.record_many(
        [ran(clock, ago=timedelta(hours=hours), ms=100 * hours) for hours in range(1, 21)]
        + [ran(clock, ago=timedelta(minutes=90), error=timeout, will_retry=True)]
        + [ran(clock, ago=timedelta(minutes=91), error=("TimeoutError", "no answer after 31 s"))]
        + [ran(clock, task="charge_card", error=("ValueError", "no such card"))]
        + [ran(clock, ago=timedelta(days=3), task="yearly_report")]
    )
    plain_store.record_start(Job("43", "send_email"), "worker-7", "request-2")
    return plain_store


@pytest.mark.parametrize("is_folded", [False, True])
def test_tasks_show_the_statistics_of_a_day(filled, clock, is_folded):
    if is_folded:
        filled.fold()
    text = words(get(page_of(filled, clock), "tasks"))
    assert "Tasks 2 Runs 24 Failure rate 9.1% Retried 1 Cancelled 0 Running 1" in text
    assert re.search(r"send_email 23 4.8% 1 (1.0 |993 m)s", text)
    assert re.search(r"charge_card 1 100% 0 (1.0 |993 m)s", text)
    assert "yearly_report" not in text


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("runs", ["send_email", "charge_card"]),
        ("failure-rate", ["charge_card", "send_email"]),
        ("p95", ["send_email", "charge_card"]),
        ("name", ["charge_card", "send_email"]),
    ],
)
def test_tasks_are_sorted_by_links(filled, clock, order, names):
    body = get(page_of(filled, clock), f"tasks?sort={order}")
    assert re.findall(r'href="task\?task=(\w+)&', body) == names
    assert f"tasks?sort={order}" in links(body)


def test_tasks_are_found_by_a_part_of_their_name(filled, clock):
    page = page_of(filled, clock)
    text = words(get(page, "tasks?name=CARD"))
    assert "Tasks 1 Runs 1" in text
    assert "send_email" not in text
    assert "No task with this in its name" in words(get(page, "tasks?name=nothing"))


def test_of_many_tasks_the_first_are_shown(clock):
    store = create_store(clock=clock)
    store.record_many([ran(clock, task=f"task-{number:03}") for number in range(101)])
    text = words(get(page_of(store, clock), "tasks"))
    assert "Tasks 101 Runs 101" in text
    assert "These are 100 of 101 tasks" in text
    assert "task-099" in text
    assert "task-100" not in text


def test_a_task_shows_its_runs_times_failures_and_what_runs(filled, clock):
    text = words(get(page_of(filled, clock), "task?task=send_email"))
    assert "Runs 23 Failure rate 4.8% Retried 1 Running 1 p50 1.0 s p95 1.9 s" in text
    assert "Last success 59 min ago" in text
    assert "Last 23 runs" in text
    assert "Running now" in text
    assert "worker-7" in text
    assert "just now 0 ms in 1 s 43 worker-7" in text
    assert "TimeoutError : no answer after <number> s" in text
    assert "ValueError" not in text


def test_buckets_without_runs_are_in_the_series_at_their_place(clock):
    store = create_store(clock=clock)
    store.record_many([ran(clock, ago=timedelta(hours=hours)) for hours in (1, 5)])
    body = get(page_of(store, clock), "task?task=send_email&since=6h")
    assert words(body).count("2015-11-01 08:00 UTC") == 6  # in two tooltips and a table each
    assert "2015-11-01 08:00 UTC: no runs" in body
    assert "2015-11-01 08:00 UTC: no times" in body
    assert body.count('<circle class="p50"') == 4  # a point is no line


def test_a_chart_says_that_it_does_not_show_the_whole_window(filled, clock):
    page = page_of(filled, clock)
    assert "Only the last 52 weeks" in words(get(page, "task?task=send_email&since=9000d"))
    assert "Only the last 52 weeks" not in words(get(page, "task?task=send_email"))


def test_a_bar_leads_to_the_executions_of_its_bucket(filled, clock):
    page = page_of(filled, clock)
    body = get(page, "task?task=send_email")
    bars = [link for link in links(body) if link.startswith("./?q=") and "since" in link]
    query = next(link for link in bars if "T10%3A00%3A00Z" in link).removeprefix("./?")
    assert parse_qs(query)["q"] == ["task:send_email"]
    assert parse_qs(query)["until"] == ["2015-11-01T10:59:59.999999Z"]
    found = words(get(page, f"?{query}"))
    assert found.count("failed") == 2
    assert found.count("completed") == 1


def test_a_bar_of_failures_leads_to_these(filled, clock):
    bars = links(get(page_of(filled, clock), "tasks"))
    assert any("q=status%3Afailed&since=2015-11-01T10%3A00%3A00Z" in link for link in bars)


def test_times_are_in_the_zone_of_the_viewer(filled, clock):
    page = page_of(filled, clock)
    body = get(page, "task?task=send_email", cookie="jobhistory_zone=Asia/Kolkata")
    assert "2015-11-01 15:30 IST: 2 failed, 1 completed" in body
    assert ">Nov 1</text>" in body


def test_a_run_outside_the_usual_range_is_marked(clock):
    store = create_store(clock=clock)
    store.record_many(
        [
            ran(clock, ago=timedelta(minutes=each), ms=1000 + each * 37 % 100)
            for each in range(2, 102)
        ]
        + [ran(clock, ago=timedelta(minutes=1), ms=3_600_000)]
    )
    body = get(page_of(store, clock), "task?task=send_email")
    assert "completed, 1 h 0 m, longer than usual" in words(body)
    assert "completed, 1.1 s, as usual" in words(body)
    assert "completed, 1.0 s, shorter than usual" in words(body)
    assert "Runs usually take 1.0 s to 1.1 s" in words(body)
    assert 'class="unusual"' in body
    assert 'class="cut"' in body


def test_few_runs_have_no_usual_range(clock):
    store = create_store(clock=clock)
    store.record_many([ran(clock, ms=10**each) for each in range(6)])
    body = get(page_of(store, clock), "task?task=send_email")
    assert "usual" not in words(body)


def test_an_unknown_task_is_not_found(filled, clock):
    body = get(page_of(filled, clock), f"task?{urlencode({'task': HOSTILE})}", 404)
    assert "There is no task named" in body
    assert "<script>alert" not in body


def test_a_known_task_that_did_not_run_in_the_window_says_so(filled, clock):
    text = words(get(page_of(filled, clock), "task?task=yearly_report"))
    assert "This task did not run in this window" in text
    assert "Last run" in text


@pytest.mark.statistics
def test_a_task_of_which_only_statistics_are_left_is_known(plain_store, clock):
    plain_store.record_many([ran(clock)])
    plain_store.fold()
    clock.advance(days=31)
    assert plain_store.expire() == 1
    text = words(get(page_of(plain_store, clock), "task?task=send_email"))
    assert "This task did not run in this window" in text


def test_a_task_must_be_named(filled, clock):
    assert "Name a task" in get(page_of(filled, clock), "task", 400)


def test_failures_are_in_groups(filled, clock):
    text = words(get(page_of(filled, clock), "failures"))
    assert "3 failures in 2 groups" in text
    assert "67% new TimeoutError : no answer after <number> s send_email 90 min ago" in text
    assert "33% new ValueError : no such card charge_card" in text


def test_a_group_leads_to_its_executions_and_to_an_example(filled, clock):
    page = page_of(filled, clock)
    found = [urlsplit(link) for link in links(get(page, "failures"))]
    lists = [parse_qs(each.query)["q"][0] for each in found if each.path == "./" and each.query]
    assert lists[0] == (
        'task:send_email status:failed error-type:TimeoutError error-contains:"no answer after"'
    )
    assert words(get(page, f"?q={quote(lists[0])}")).count("TimeoutError") == 2
    examples = [parse_qs(each.query)["id"][0] for each in found if each.path == "execution"]
    (latest, _) = filled.query(status="failed", task_identifier="send_email")
    assert examples[0] in {str(each.id) for each in filled.query(status="failed")}
    assert str(latest.id) in examples


def test_failures_that_are_new_have_a_badge(plain_store, clock):
    reset, full = ("ConnectionError", "reset"), ("OSError", "disk 7 is full")
    plain_store.record_many(
        [ran(clock, error=full), ran(clock, error=reset)]
        + [ran(clock, ago=timedelta(days=3), error=("OSError", "disk 6 is full"))]
    )
    page = page_of(plain_store, clock)
    text = words(get(page, "failures"))
    assert "new ConnectionError : reset" in text
    assert "new OSError" not in text
    assert "new 1" in text
    assert words(get(page, "task?task=send_email")).count("new ConnectionError") == 1
    only_new = words(get(page, "failures?show=new"))
    assert "1 failure in 1 group" in only_new
    assert "OSError" not in only_new
    assert "No failure is new" in words(get(page, "failures?show=new&q=error-type:OSError"))


def test_failures_are_filtered_by_task(filled, clock):
    page = page_of(filled, clock)
    link = next(link for link in links(get(page, "failures?since=2h")) if "charge_card" in link)
    assert parse_qs(urlsplit(link).query) == {"since": ["2h"], "q": ["task:charge_card"]}
    text = words(get(page, link))
    assert "no such card" in text
    assert "send_email" not in text


def test_a_message_that_the_app_presents_is_no_search_term(filled, clock):
    page = page_of(filled, clock, present=lambda name, value, request: "[private]")
    body = get(page, "failures")
    assert "no answer" not in body
    assert "error-contains" not in body
    assert "[private]" in body


@pytest.mark.parametrize("view", VIEWS)
def test_windows_stay_when_the_view_changes(filled, clock, view):
    body = get(page_of(filled, clock), f"{view}{'&' if '?' in view else '?'}since=7d&until=1m")
    others = [link for link in links(body) if link.startswith(("./?", "task?task=charge"))]
    assert any("since=7d&until=1m" in link for link in others)
    for other in ("./", "tasks", "failures"):
        assert f"{other}?since=7d&until=1m" in links(body)


@pytest.mark.parametrize("view", VIEWS)
def test_views_without_payload_access_show_no_payloads(filled, clock, view):
    page = page_of(filled, clock, access=lambda request: Access.WITHOUT_PAYLOADS)
    assert "send_email" in get(page, view)


@pytest.mark.parametrize(
    ("view", "sentence"),
    [("tasks", "No task ran in this window"), ("failures", "Nothing failed in this window")],
)
def test_an_empty_history_says_so(plain_store, clock, view, sentence):
    assert sentence in words(get(page_of(plain_store, clock), view))


@pytest.mark.parametrize("view", VIEWS)
def test_views_of_a_store_for_asyncio(filled, clock, view):
    async def answered():
        store = create_async_store(clock=clock)
        await store.record_many([ran(clock), ran(clock, error=("ValueError", "no"))])
        path, _, query = view.partition("?")
        return await page_of(store, clock).answer_async(Request("GET", f"/{path}", query))

    answer = asyncio.run(answered())
    assert answer.status == 200
    assert b"send_email" in answer.body


@pytest.mark.parametrize("view", [*VIEWS, "grid"])
@pytest.mark.parametrize(
    "window",
    [
        *("since=15m", "since=1h", "since=7d", "since=90d", "since=all", "since=9000d"),
        *("since=all&until=0001-01-01", "until=9999-12-31T23:59:59", "since=0001-01-01"),
        *("since=9999-12-31T23:59:59", "since=9999-01-01&until=9999-12-31", "since=2015-11-01"),
        "since=2015-11-01T12:00&until=2015-11-01T12:00",
    ],
)
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Anchorage"])
def test_any_window_is_shown(filled, clock, view, window, zone):
    headers = {"cookie": f"jobhistory_zone={zone}"}
    url = f"{view}{'&' if '?' in view else '?'}{window}"
    assert "<main" in get(page_of(filled, clock), url, **headers)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("tasks?sort=colour", "is not an order"),
        ("failures?sort=colour", "is not an order"),
        ("failures?q=status:failed", "has no effect here"),
        ("failures?q=nonsense:1", "is not a term"),
        ("task?task=x&since=2h&until=3h", "the end of the window"),
    ],
)
def test_bad_input_gets_one_sentence(filled, clock, url, sentence):
    assert sentence in get(page_of(filled, clock), url, 400)


def test_hostile_names_and_messages_are_only_text(plain_store, clock):
    plain_store.record_many(
        [
            ran(clock, task=HOSTILE, ms=2**62, error=(HOSTILE, HOSTILE)),
            ran(clock, task="x" * 255, error=("ValueError", "")),
            ran(clock, task="a:b", error=("E", "\\" * 600)),
        ]
    )
    page = page_of(plain_store, clock)
    (stored,) = plain_store.query(min_execution_time_ms=2**62)
    urls = ["tasks", "failures", f"task?{urlencode({'task': stored.task_identifier})}"]
    for url in urls:
        body = get(page, url)
        assert "<script>alert" not in body
        for link in links(body[body.index("<main") :]):
            if link.startswith("./?"):
                get(page, link.removeprefix("./"))
