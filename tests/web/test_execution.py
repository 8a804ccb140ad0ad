"""The view of one execution."""

import asyncio
import json
from datetime import timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import Failure, Job, WorkerLost, create_async_store, create_store
from jobhistory.execution.tracebacks import parts_of
from jobhistory.web import Access, Request
from jobhistory.web.trees import MOST_VALUES, tree
from jobhistory.web.waterfall import waterfall
from tests.web.pages import get, links, page_of, ran, text_of

HOSTILE = "<script>alert('x')</script> \"&\\ \u202e\nname"

STACK = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 12, in charge
    parse(answer)
    ~~~~~^^^^^^^^
  File "/usr/lib/python3.12/json/__init__.py", line 346, in loads
    return _default_decoder.decode(s)
  File "/venv/lib/python3.12/site-packages/gateway/api.py", line 3, in <module>
    raise ValueError("no JSON")
ValueError: no JSON
"""


def show(page, record, **headers):
    answer = get(page, f"/execution?id={record.id}", **headers)
    assert answer.status == 200
    return answer


@pytest.fixture
def failed(plain_store, clock):
    """The second of two attempts at a job, which failed for good."""
    timeout = Failure("TimeoutError", "no answer after 30 s")
    more = {"attempt_number": 1, "will_retry": True}
    plain_store.record_execution(ran(clock, ago=timedelta(hours=2), error=timeout, **more))
    return plain_store.record_execution(
        ran(
            clock,
            error=Failure("ValueError", "no JSON", STACK),
            attempt_number=2,
            queue_time_ms=35,
            labels={"tenant": "acme corp"},
            payload={"args": [7], "kwargs": {"card": {"last": "4242"}}},
            log_tail="charging 42 EUR\n",
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        )
    )


def test_it_shows_what_is_known(plain_store, failed, clock):
    page = page_of(plain_store, clock, trace_url="https://traces.example/{trace_id}")
    answer = show(page, failed)
    text = text_of(answer)
    assert "failed charge_card" in text
    assert "Took 1.0 s Started 1 h ago Ended 59 min ago" in text
    assert "Waited in the queue 35 ms Attempt 2" in text
    assert "This failure is final" in text
    assert "ValueError : no JSON" in text
    assert 'card : 1 key last : "4242"' in text
    assert "charging 42 EUR" in text
    assert f"jobhistory replay --app MODULE:NAME {failed.id}" in text
    found = links(answer)
    assert found["Trace"] == "https://traces.example/4bf92f3577b34da6a3ce929d0e0e4736"
    assert found["tenant=acme corp"] == "./?q=label%3A%22tenant%3Dacme+corp%22"
    assert found["42"] == "./?q=job-id%3A42"
    assert found["worker-1"] == "./?q=worker%3Aworker-1"


def test_attempts_stand_side_by_side_oldest_first(plain_store, failed, clock):
    text = text_of(show(page_of(plain_store, clock), failed))
    assert "2 executions of this job" in text
    first, second = text.index("no answer after 30 s"), text.rindex("ValueError: no JSON")
    assert first < second
    assert "(this one)" in text[first:]


def test_an_attempt_that_will_be_retried_says_so(plain_store, failed, clock):
    first = plain_store.get_by_job_id("42")[-1]
    text = text_of(show(page_of(plain_store, clock), first))
    assert "the job queue will try the job again" in text
    assert "It cannot be replayed: its arguments were not recorded" in text


def test_of_many_executions_of_a_job_it_is_always_shown(plain_store, clock):
    job = [ran(clock, ago=timedelta(hours=hours)) for hours in range(1, 31)]
    plain_store.record_many(job)
    oldest = plain_store.get_by_job_id("42")[-1]
    answer = show(page_of(plain_store, clock), oldest)
    assert "(this one)" in text_of(answer)
    assert links(answer)["All executions of this job"] == "./?q=job-id%3A42"


def test_frames_of_libraries_are_closed_and_those_of_the_app_link_to_their_source(clock):
    store = create_store(clock=clock)
    record = store.record_execution(ran(clock, error=Failure("ValueError", "no JSON", STACK)))
    source_url = "https://git.example/main{file}#L{line}"
    answer = show(page_of(store, clock, source_url=source_url), record)
    assert "2 frames of libraries" in text_of(answer)
    assert b"<details>" in answer.body
    found = links(answer)
    assert found['File "/srv/shop/tasks.py", line 12, in charge'] == (
        "https://git.example/main/srv/shop/tasks.py#L12"
    )


def test_a_traceback_is_split_without_losing_a_line():
    parts = parts_of(STACK)
    assert [(len(part.frames), part.is_own) for part in parts] == [
        (0, False),
        (1, True),
        (2, False),
        (0, False),
    ]
    assert parts[1].frames[0].source == "parse(answer)\n~~~~~^^^^^^^^"
    assert parts[-1].text == "ValueError: no JSON"


@pytest.mark.parametrize(
    "stack",
    ["", "no traceback at all", 'File "x", line 99999999999', '  |   File "/a.py", line 1\n  +--'],
)
def test_any_text_is_a_traceback(stack):
    joined = "".join(
        part.text + "".join(line for frame in part.frames for line in frame.lines)
        for part in parts_of(stack)
    )
    assert joined.split() == stack.split()


def test_without_payload_access_payloads_are_hidden(plain_store, failed, clock):
    page = page_of(plain_store, clock, access=lambda request: Access.WITHOUT_PAYLOADS)
    answer = show(page, failed)
    text = text_of(answer)
    assert "are hidden from you" in text
    assert "4242" not in text
    assert "charging" not in text
    assert "No payload was recorded" not in text
    assert "jobhistory replay" in text
    exported = json.loads(get(page, f"/execution.json?id={failed.id}").body)
    assert exported["error_type"] == "ValueError"
    assert not {"payload", "result", "partial_results", "log_tail"} & exported.keys()


def test_the_whole_execution_is_sent_as_json(plain_store, failed, clock):
    answer = get(page_of(plain_store, clock), f"/execution.json?id={failed.id}")
    assert answer.content_type == "application/json"
    assert json.loads(answer.body) == failed.to_dict()


@pytest.mark.parametrize("view", ["execution", "execution.json"])
@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("", 400, b"Name an execution by its id"),
        ("?id=42", 400, b"Name an execution by its id"),
        ("?id=" + quote("\0\u202e<x>"), 400, b"Name an execution by its id"),
        ("?id=01965b20-0000-7000-8000-000000000000", 404, b"There is no execution with the id"),
    ],
)
def test_an_id_that_names_nothing_gets_a_sentence(
    plain_store, clock, view, query, status, sentence
):
    answer = get(page_of(plain_store, clock), f"/{view}{query}")
    assert answer.status == status
    assert sentence in answer.body


# Comparisons


@pytest.fixture
def usual(plain_store, clock):
    """A task that ran 40 times, in 100 to 4,000 ms."""
    plain_store.record_many(
        [
            ran(clock, ago=timedelta(minutes=100 + n), ms=100 * n, job_id=n, correlation_id=n)
            for n in range(1, 41)
        ]
    )
    return plain_store


@pytest.mark.parametrize(
    ("ms", "verdict", "usually", "rank"),
    [
        (
            150,
            "Shorter than usual",
            "200 ms to 3.8 s",
            "longer than 1 of the last 40 runs before it",
        ),
        (2050, "As usual", "300 ms to 3.8 s", "longer than 20 of the last 40 runs before it"),
        (
            60_000,
            "Longer than usual",
            "300 ms to 3.9 s",
            "longer than 40 of the last 40 runs before it",
        ),
    ],
)
def test_a_time_is_compared_to_those_of_other_runs(usual, clock, ms, verdict, usually, rank):
    record = usual.record_execution(ran(clock, ms=ms))
    text = text_of(show(page_of(usual, clock), record))
    assert f"{verdict} usually {usually} {rank}" in text


def test_runs_that_came_later_do_not_count(usual, clock):
    record = usual.get_by_job_id("40")[0]
    assert "no other run to compare with" in text_of(show(page_of(usual, clock), record))


def test_of_few_runs_only_the_rank_is_told(plain_store, clock):
    plain_store.record_execution(ran(clock, ago=timedelta(hours=2), ms=10))
    record = plain_store.record_execution(ran(clock))
    text = text_of(show(page_of(plain_store, clock), record))
    assert "longer than 1 of the last run before it" in text
    assert "usually" not in text


def test_a_running_execution_has_an_expected_end(usual, clock):
    record = usual.record_start(Job("run", "charge_card"), "w", "c")
    clock.advance(seconds=1)
    text = text_of(show(page_of(usual, clock), record))
    assert "running charge_card JSON Runs for 1.0 s" in text
    assert "Expected end in 1 s" in text
    assert "Time to run 1.0 s usually" in text
    assert "Overdue" not in text
    assert "Replay" not in text
    clock.advance(seconds=30)
    text = text_of(show(page_of(usual, clock), record))
    assert "Overdue. 95% of the runs of this task in the week before took at most 3.8 s." in text
    assert "Longer than usual already" in text


def test_a_lost_worker_is_explained(plain_store, clock):
    record = plain_store.record_execution(ran(clock, error=WorkerLost("killed")))
    assert "The worker is presumed lost" in text_of(show(page_of(plain_store, clock), record))


def test_progress_and_heartbeats_are_shown(plain_store, clock):
    execution = plain_store.begin(Job("1", "t"), "w")
    execution.progress(0.42)
    text = text_of(show(page_of(plain_store, clock), plain_store.get_by_job_id("1")[0]))
    assert "Progress 42%" in text
    assert "Last heartbeat just now" in text


def test_a_partial_success_shows_its_steps(plain_store, clock):
    steps = {"completed_steps": ["parse"], "failed_steps": ["index"], "retry_from_step": "index"}
    row = ran(clock, status="partial_success", partial_results={"rows": 3}, **steps)
    text = text_of(show(page_of(plain_store, clock), plain_store.record_execution(row)))
    assert "completed parse failed index" in text
    assert "A retry should begin with the step index." in text
    assert "Partial results 1 key rows : 3" in text


# The waterfall


def test_the_waterfall_follows_parents(plain_store, clock):
    def run(task, seconds, parent=None, **more):
        more = {"task_identifier": task, "parent_id": parent and parent.id, "job_id": task, **more}
        return plain_store.record_execution(
            ran(clock, ago=timedelta(seconds=100 - seconds), ms=500, **more)
        )

    root = run("checkout", 0)
    second = run("pay", 2, root)
    run("stock", 1, root)
    run("card", 3, second)
    plain_store.record_start(Job("mail", "mail"), "w", "checkout-1", parent_id=root.id)
    answer = show(page_of(plain_store, clock), second)
    text = text_of(answer)
    rows = text[text.index("With the same correlation id") : text.index("Payload")]
    names = [word for word in rows.split() if word in ("checkout", "pay", "stock", "card", "mail")]
    assert names == ["checkout", "stock", "pay", "card", "mail"]
    assert "mail running 1 m 40 s 0 ms so far" in rows
    assert answer.body.count(b'class="depth-1"') == 3
    assert answer.body.count(b'class="depth-2"') == 1
    assert answer.body.count(b'class="open"') == 1


def test_executions_that_started_each_other_are_shown_once(clock):
    store = create_store(clock=clock)
    records = [store.record_execution(ran(clock, task_identifier=f"t{n}")) for n in range(3)]
    first, second, third = records
    first.parent_id, second.parent_id, third.parent_id = second.id, first.id, third.id
    assert sorted(row.record.id for row in waterfall(records, clock())) == sorted(
        record.id for record in records
    )


# Hostile values


def test_hostile_values_execute_nothing(plain_store, clock):
    record = plain_store.record_execution(
        ran(
            clock,
            job_id=HOSTILE,
            task_identifier=HOSTILE,
            worker_id=HOSTILE,
            correlation_id=HOSTILE,
            error=Failure(HOSTILE, HOSTILE, HOSTILE + STACK.replace("tasks.py", "<b>.py")),
            payload={HOSTILE: [HOSTILE, {"": {"__html__": HOSTILE}}]},
            labels={"x": HOSTILE},
            log_tail=HOSTILE,
        )
    )
    plain_store.record_execution(ran(clock, job_id=HOSTILE, correlation_id=HOSTILE))
    body = show(page_of(plain_store, clock), record).body
    assert b"<script>alert" not in body
    assert b"<b>" not in body
    assert b" style=" not in body


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([[]] * (MOST_VALUES + 10), "11 more, which this page does not show"),
        ({"x": "y" * 5000}, "[3,000 more characters]"),
        ({}, "{}"),
        (None, "null"),
        (-0.5, "-0.5"),
        ("\ud800", "\ud800"),
        pytest.param(10**5000, "that raised ValueError", id="a huge number"),
    ],
)
def test_a_tree_is_bounded(value, text):
    assert text in tree(value)


def test_a_deep_tree_is_cut():
    value = []
    for _ in range(60):
        value = [value]
    assert "nested too deep" in tree(value)


def test_a_store_for_asyncio_answers_the_same(clock):
    async def scenario():
        store = create_async_store(clock=clock)
        record = await store.record_start(Job("1", "send_email", {"to": "ann"}), "w", "c")
        page = page_of(store, clock)
        return await page.answer_async(Request("GET", "/execution", f"id={record.id}"))

    answer = asyncio.run(scenario())
    assert answer.status == 200
    assert 'to : "ann"' in text_of(answer)


_LINES = st.sampled_from(
    [
        *STACK.splitlines(),
        "",
        "   ",
        "  | " + STACK.splitlines()[1],
        "  +-+---------------- 1 ----------------",
        "  [Previous line repeated 970 more times]",
        "... [cut, 90000 bytes in all] ...",
    ]
)


@given(st.lists(_LINES | st.text(max_size=20), max_size=30).map("\n".join))
def test_no_word_of_a_traceback_is_lost_or_moved(stack):
    words = [
        word
        for part in parts_of(stack)
        for word in (*part.text.split(), *" ".join(_lines(part)).split())
    ]
    assert words == stack.split()


def _lines(part):
    return [line for frame in part.frames for line in frame.lines]
