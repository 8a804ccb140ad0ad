"""The views of what runs now, and of workers."""

import asyncio
from datetime import timedelta

import pytest

from jobhistory import Failure, Job, WorkerLost, create_async_store
from jobhistory.web import Access, Request
from tests.web.pages import get, links, page_of, ran, text_of

HALF_AN_HOUR = timedelta(minutes=30)
HOSTILE = "<script>alert('x')</script> \"&\\ \u202e\nname"


def show(page, url):
    answer = get(page, url)
    assert answer.status == 200
    return answer


def body_of(answer):
    text = text_of(answer)
    return text[text.index("Set ") :]  # without the menus


@pytest.fixture
def busy(plain_store, clock):
    """A task that usually takes 10 to 40 s, and runs twice; and another one that is new."""
    plain_store.record_many(
        [ran(clock, ago=timedelta(minutes=100 + n), ms=1000 * n) for n in range(10, 41)]
    )
    plain_store.record_start(Job("1", "charge_card"), "worker-1", "c")
    clock.advance(seconds=50)
    plain_store.record_start(Job("2", "charge_card"), "worker-2", "c")
    plain_store.begin(Job("3", "new_task"), "worker-2").progress(0.4)
    clock.advance(seconds=1)
    return plain_store


def test_what_runs_is_shown_longest_first_with_its_expected_end(busy, clock):
    answer = show(page_of(busy, clock), "/running")
    text = body_of(answer)
    assert "3 running, longest first; 1 overdue" in text
    assert "charge_card 51.0 s 11.0 s to 39.0 s overdue by 12.0 s" in text
    assert "charge_card 1.0 s 11.0 s to 39.0 s in 24 s" in text
    assert "new_task 1.0 s too few runs to tell 40% heartbeat 1 s ago worker-2" in text
    assert text.index("overdue by") < text.index("in 24 s")
    assert links(answer)["worker-1"] == "running?q=worker%3Aworker-1"


def test_after_the_usual_time_the_latest_one_is_told(busy, clock):
    clock.advance(seconds=29)
    assert "at the latest in 9 s" in body_of(show(page_of(busy, clock), "/running"))


def test_a_search_narrows_what_runs(busy, clock):
    text = body_of(show(page_of(busy, clock), "/running?q=worker:worker-2"))
    assert "2 running" in text
    text = body_of(show(page_of(busy, clock), "/running?q=worker:nobody"))
    assert "Nothing that meets these criteria runs now" in text


def test_it_refreshes_in_place_without_moving_the_focus(busy, clock):
    body = show(page_of(busy, clock), "/running?q=task:charge_card").body.decode()
    assert 'hx-trigger="every 2s" hx-get="running?q=task%3Acharge_card"' in body
    assert 'hx-select="#running-now > *"' in body
    region = body[body.index('<div id="running-now"') :]
    table = region[: region.index("</table>")]
    for part in table.split("<a ")[1:]:
        assert part.startswith("id="), "htmx gives the focus to the element with the same id"


def test_usual_times_are_not_asked_for_again_and_again(busy, clock):
    page = page_of(busy, clock)
    assert b"statistics of a week" in show(page, "/running").body
    assert b"statistics of a week" not in show(page, "/running").body
    clock.advance(minutes=2)
    assert b"statistics of a week" in show(page, "/running").body


def test_nothing_runs(plain_store, clock):
    assert "Nothing runs now." in body_of(show(page_of(plain_store, clock), "/running"))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("/running?q=colour:red", b"is not a term"),
        ("/running?q=status:failed", b"status"),
        ("/workers?q=status:failed", b"status"),
        ("/workers?since=soon", b"is neither a duration nor a date"),
    ],
)
def test_bad_input_gets_a_sentence(plain_store, clock, url, sentence):
    answer = get(page_of(plain_store, clock), url)
    assert answer.status == 400
    assert sentence in answer.body


def test_workers_are_shown_with_what_they_did_and_do(busy, clock):
    failed = ran(clock, error=Failure("ValueError", "no"), worker_id="worker-3", ago=HALF_AN_HOUR)
    lost = ran(clock, error=WorkerLost("killed"), worker_id="worker-3", ago=timedelta(minutes=31))
    busy.record_many([failed, lost])
    answer = show(page_of(busy, clock), "/workers")
    text = body_of(answer)
    assert "3 workers, last seen first" in text
    assert "worker-2 1 s ago charge_card started 1 s ago new_task started 1 s ago 2 0 0" in text
    assert "worker-1 51 s ago charge_card started 51 s ago 1 0 0" in text
    assert "worker-3 29 min ago nothing 2 2 1" in text
    found = links(answer)
    assert found["worker-3"] == "./?q=worker%3Aworker-3&since=1h"
    assert found["2"] == "./?q=worker%3Aworker-3+status%3Afailed&since=1h"
    assert found["1"] == "./?q=worker%3Aworker-3+error-type%3Ajobhistory.WorkerLost&since=1h"
    for link in (found["worker-3"], found["2"], found["1"]):
        assert get(page_of(busy, clock), f"/{link.removeprefix('./')}").status == 200


def test_a_worker_that_runs_what_started_before_the_window_is_there(plain_store, clock):
    plain_store.record_start(Job("1", "import"), "worker-9", "c")
    clock.advance(hours=5)
    text = body_of(show(page_of(plain_store, clock), "/workers"))
    assert "worker-9 5 h ago import started 5 h ago 0 0 0" in text


def test_of_many_executions_of_a_worker_three_are_named(plain_store, clock):
    for number in range(5):
        plain_store.record_start(Job(number, "import"), "worker-9", "c")
    text = body_of(show(page_of(plain_store, clock), "/workers"))
    assert text.count("import started") == 3
    assert "and 2 more" in text


def test_no_worker_was_seen(plain_store, clock):
    assert "No worker was seen in this window." in body_of(
        show(page_of(plain_store, clock), "/workers")
    )


def test_a_window_in_the_past_does_not_show_what_runs_now(busy, clock):
    text = body_of(show(page_of(busy, clock), "/workers?since=3h&until=1h"))
    assert "worker-1" in text
    assert "charge_card" not in text.replace("task:charge_card", "")


@pytest.mark.parametrize("url", ["/running", "/workers"])
def test_hostile_values_execute_nothing(plain_store, clock, url):
    plain_store.record_start(Job(HOSTILE, HOSTILE, {HOSTILE: 1}), HOSTILE, HOSTILE)
    access = lambda request: Access.WITHOUT_PAYLOADS  # noqa: E731
    for page in (page_of(plain_store, clock), page_of(plain_store, clock, access=access)):
        body = show(page, url).body
        assert b"<script>alert" not in body
        assert b" style=" not in body


@pytest.mark.parametrize("view", ["/running", "/workers"])
def test_a_store_for_asyncio_answers_the_same(clock, view):
    async def scenario():
        store = create_async_store(clock=clock)
        await store.record_start(Job("1", "send_email"), "worker-7", "c")
        return await page_of(store, clock).answer_async(Request("GET", view))

    answer = asyncio.run(scenario())
    assert answer.status == 200
    assert "worker-7" in text_of(answer)
    assert "send_email" in text_of(answer)
