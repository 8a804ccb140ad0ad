"""Alerts: what is new about incidents reaches receivers, once, on every kind of store."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from jobhistory import InvalidInput, Job, create_async_store, create_store
from tests.conftest import stores_of_kind

KINDS = [
    *("memory", "sqlite", "postgresql", "url-postgresql", "postgresql_by_psycopg2"),
    *("async-memory", "async-sqlite", "async-postgresql", "postgresql_as_app"),
]
MIDNIGHT = datetime(2026, 11, 10, tzinfo=UTC)
PAGE = "https://app.example.org/history"


@pytest.fixture(params=KINDS)
def alerting(request, clock):
    clock.now = MIDNIGHT
    with stores_of_kind(request.param, request, clock) as make:
        yield make()


@pytest.fixture
def in_memory(clock):
    clock.now = MIDNIGHT
    return create_store(clock=clock)


class Receiver:
    """Keeps what it gets, or refuses it."""

    def __init__(self):
        self.alerts = []
        self.refuses = False

    def __call__(self, alert):
        if self.refuses:
            raise ConnectionError("the receiver is dead")
        self.alerts.append(alert)

    @property
    def titles(self):
        return [alert.title for alert in self.alerts]


@pytest.fixture
def receiver():
    return Receiver()


def run(store, task="nightly", error=None):
    execution = store.begin(Job("1", task), "w")
    execution.end(error=error) if error else execution.end()


def never_run(store, clock, *tasks):
    """Let checks find that tasks never ran."""
    for task in tasks:
        store.expect(task, every="1h")
    clock.advance(hours=2)
    store.check()


def test_an_incident_gives_one_alert_and_its_end_another(alerting, clock, receiver):
    alerting.expect("nightly", cron="17 2 * * *", timezone="Europe/Berlin", owner="billing")
    clock.now = MIDNIGHT + timedelta(hours=1, minutes=17)
    run(alerting)
    assert alerting.send_alerts(receiver).sent == 0
    clock.advance(days=1, minutes=6)
    for _ in range(3):
        alerting.check()
        alerting.send_alerts(receiver)
    assert receiver.titles == ["nightly: 1 start missed, due 2026-11-11 02:17 CET"]
    clock.advance(hours=23, minutes=54)
    run(alerting)
    for _ in range(3):
        alerting.check()
        counts = alerting.send_alerts(receiver, page_url=PAGE)
    assert receiver.titles[1:] == ["nightly: recovered after 23 h 54 m"]
    assert [(alert.news, alert.severity) for alert in receiver.alerts] == [
        ("opened", "critical"),
        ("closed", "ok"),
    ]
    assert receiver.alerts[0].owner == "billing"
    assert counts.sent == counts.failed == 0


def test_a_failure_comes_with_its_error_frame_log_lines_and_page(alerting, clock, receiver):
    stack = (
        "Traceback (most recent call last):\n"
        '  File "/app/jobs.py", line 10, in run\n'
        "    report(order)\n"
        '  File "/app/report.py", line 7, in report\n'
        "    connect(password='hunter2')\n"
        '  File "/usr/lib/python3.13/json/decoder.py", line 1, in decode\n'
        "    raise ValueError\n"
        "ValueError: cannot read\n"
    )
    alerting.expect("nightly", runbook="https://wiki.example.org/nightly")
    clock.advance(minutes=5)
    record = alerting.record_execution(
        {
            "job_id": "1",
            "task_identifier": "nightly",
            "worker_id": "w",
            "correlation_id": "c",
            "status": "failed",
            "payload": {"card": "4111"},
            "started_at": clock.now,
            "completed_at": clock.now,
            "error_type": "ValueError",
            "error_message": "cannot read\nthe report",
            "error_stack": stack,
            "log_tail": "\n".join(f"line {number}" for number in range(20)),
        }
    )
    alerting.check()
    alerting.send_alerts(receiver, page_url=f"{PAGE}/")
    (alert,) = receiver.alerts
    assert alert.title == "nightly: the last run failed"
    assert (alert.error_type, alert.error_message) == ("ValueError", "cannot read the report")
    assert alert.frame.splitlines()[0] == 'File "/app/report.py", line 7, in report'
    assert alert.log_tail.splitlines() == [f"line {number}" for number in range(10, 20)]
    assert alert.link == f"{PAGE}/execution?id={record.id}"
    assert alert.text.splitlines() == [
        "Problem: failing (critical), since 2026-11-10 00:05 UTC",
        "Task: nightly",
        "Error: ValueError: cannot read the report",
        'At: File "/app/report.py", line 7, in report',
        "    connect(password='[redacted]')",
        f"Page: {PAGE}/execution?id={record.id}",
        "Runbook: https://wiki.example.org/nightly",
    ]
    assert "4111" not in str(alert.to_dict())


def test_what_began_and_ended_before_anybody_was_told_gives_one_alert(alerting, clock, receiver):
    never_run(alerting, clock, "nightly")
    clock.advance(minutes=30)
    run(alerting)
    alerting.check()
    assert alerting.send_alerts(receiver).sent == 1
    (title,) = receiver.titles
    assert title.startswith("nightly: no start in history, due ")
    assert title.endswith("; recovered after 30 m 0 s")
    clock.advance(minutes=5)
    assert alerting.send_alerts(receiver).sent == 0


def test_what_ended_a_day_ago_is_no_news(alerting, clock, receiver):
    never_run(alerting, clock, "ended", "ongoing")
    run(alerting, "ended")
    alerting.check("ended")
    clock.advance(days=1, hours=1)
    alerting.check("ongoing")
    alerting.send_alerts(receiver)
    assert [alert.incident.task_identifier for alert in receiver.alerts] == ["ongoing"]


def test_a_recovery_is_news_however_long_nobody_checked(alerting, clock, receiver):
    never_run(alerting, clock, "nightly")
    alerting.send_alerts(receiver)
    clock.advance(days=3)
    run(alerting)
    alerting.check()
    alerting.send_alerts(receiver)
    assert [alert.news for alert in receiver.alerts if alert.incident.problem == "never_ran"] == [
        "opened",
        "closed",
    ]


def test_an_expectation_that_is_removed_while_its_alert_is_sent_gives_no_other(alerting, clock):
    never_run(alerting, clock, "nightly")
    titles = []

    def remove(alert):
        titles.append(alert.title)
        alerting.remove_expectation("nightly")

    assert alerting.send_alerts(remove).sent == 1
    for _ in range(2):
        clock.advance(minutes=10)
        alerting.send_alerts(lambda alert: titles.append(alert.title))
    assert len(titles) == 1


def test_what_no_receiver_accepts_is_sent_after_a_minute(alerting, clock, receiver, caplog):
    never_run(alerting, clock, "nightly")
    receiver.refuses = True
    counts = alerting.send_alerts(receiver)
    assert (counts.sent, counts.failed) == (0, 1)
    assert counts.errors == ("Receiver raised ConnectionError: the receiver is dead",)
    assert "Receiver raised ConnectionError" in caplog.text
    receiver.refuses = False
    clock.advance(minutes=2)
    alerting.check()
    counts = alerting.send_alerts(receiver)
    assert (counts.sent, counts.failed, counts.errors) == (1, 0, ())
    assert len(receiver.alerts) == 1


def test_above_the_limit_one_alert_sums_up_the_rest(alerting, clock, receiver):
    names = [f"task-{number}" for number in range(7)]
    never_run(alerting, clock, *names)
    counts = alerting.send_alerts(receiver, limit=3, page_url=PAGE)
    assert (counts.sent, counts.summarized) == (3, 5)
    last = receiver.alerts[-1]
    assert last.title == "and 5 more: task-2, task-3, task-4, task-5, task-6"
    assert [title.split(":")[0] for title in last.more] == names[2:]
    assert (last.news, last.severity, last.link) == ("more", "critical", f"{PAGE}/expectations")
    never_run(alerting, clock, "next")
    clock.now -= timedelta(hours=2)
    clock.advance(minutes=5)
    assert alerting.send_alerts(receiver, limit=3).sent == 0
    clock.advance(minutes=6)
    assert alerting.send_alerts(receiver, limit=3).sent == 1
    assert receiver.titles[-1].startswith("next: ")


def test_what_is_wrong_comes_before_what_recovered(in_memory, clock, receiver):
    never_run(in_memory, clock, "old")
    run(in_memory, "old")
    never_run(in_memory, clock, "new")
    in_memory.send_alerts(receiver)
    news = [alert.news for alert in receiver.alerts]
    assert news == sorted(news, key=["opened", "closed"].index)


def test_of_many_senders_at_the_same_time_one_sends_each_alert(database, clock):
    clock.now = MIDNIGHT
    stores = [create_store(database.engine, clock=clock) for _ in range(2)]
    never_run(stores[0], clock, *(f"task-{number}" for number in range(10)))
    receivers = [Receiver() for _ in range(4)]
    threads = [
        threading.Thread(target=stores[number % 2].send_alerts, args=(each,))
        for number, each in enumerate(receivers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    titles = [title for each in receivers for title in each.titles]
    assert len(titles) == len({*titles}) == 10


def test_what_a_killed_sender_had_claimed_is_sent_by_another_one(database, clock, receiver):
    clock.now = MIDNIGHT
    store = create_store(database.engine, clock=clock)
    never_run(store, clock, "nightly")

    class Killed(BaseException):
        pass

    class Dying:
        def __getattr__(self, name):
            if name == "settle_news":
                raise Killed
            return getattr(store.internals.history, name)

    dying = create_store(database.engine, clock=clock)
    dying._alerted_of = Dying()
    with pytest.raises(Killed):
        dying.send_alerts(lambda alert: None)
    assert store.send_alerts(receiver).sent == 0
    clock.advance(minutes=2)
    assert store.send_alerts(receiver).sent == 1


def test_a_receiver_that_hangs_delays_neither_the_others_nor_the_call_beyond_its_limit(
    in_memory, clock, receiver
):
    never_run(in_memory, clock, "a", "b")
    released = threading.Event()
    order = []

    def hangs(alert):
        order.append(alert)
        released.wait(60)

    counts = in_memory.send_alerts(hangs, receiver, time_limit=timedelta(milliseconds=200))
    assert len(receiver.alerts) == counts.sent == 2
    assert len(counts.errors) == 1
    assert counts.errors[0].endswith("hangs did not accept everything within 200 ms")
    clock.advance(minutes=2)
    never_run(in_memory, clock, "c")
    assert in_memory.send_alerts(hangs, receiver, time_limit="30s").errors == (
        f"{hangs.__qualname__} still hangs since an earlier alert",
    )
    assert [alert.incident.task_identifier for alert in receiver.alerts] == ["a", "b", "c"]
    released.set()
    for thread in threading.enumerate():
        if thread.name.startswith("jobhistory alerts"):
            thread.join()
    assert len(order) == 1  # nothing more was sent afterwards


def test_a_receiver_that_ends_its_thread_is_named(in_memory, clock):
    never_run(in_memory, clock, "a")

    def leaves(alert):
        raise SystemExit(3)

    counts = in_memory.send_alerts(leaves)
    assert counts.failed == 1
    assert "raised SystemExit: 3" in counts.errors[0]


def test_no_error_of_a_receiver_shows_a_secret(in_memory, clock, caplog):
    never_run(in_memory, clock, "a")

    def refuses(alert):
        raise ValueError("404 for url: https://u:pw@hooks.example.org/T0/B1?token=x password=p")

    (error,) = in_memory.send_alerts(refuses).errors
    assert error.endswith("https://[redacted]@hooks.example.org/[redacted] password=[redacted]")
    assert "B1" not in caplog.text


def test_names_cannot_forge_lines_and_secrets_are_redacted(in_memory, clock, receiver):
    never_run(in_memory, clock, "a\nError: b\x1b[0m", "x?token=secret1", "ünï ☃")
    in_memory.send_alerts(receiver, page_url=PAGE)
    assert "secret1" not in str([alert.to_dict()["incident"] for alert in receiver.alerts])
    texts = [f"{alert.title}\n{alert.text}" for alert in receiver.alerts]
    assert all(len(alert.title.splitlines()) == 1 for alert in receiver.alerts)
    assert "\x1b" not in "".join(texts)
    assert "secret1" not in "".join(texts)
    assert "ünï ☃" in "".join(texts)
    assert "Task: a Error: b\\x1b[0m" in "".join(texts)


def test_the_link_of_a_task_quotes_its_name(in_memory, clock, receiver):
    in_memory.expect("a&b /x", cron="0 * * * *")
    run(in_memory, "a&b /x")
    clock.advance(hours=2, minutes=10)
    in_memory.check()
    in_memory.send_alerts(receiver, page_url=PAGE)
    assert receiver.alerts[0].link == f"{PAGE}/task?task=a%26b%20%2Fx"


async def _coroutine(alert):
    pass


@pytest.mark.parametrize(
    ("senders", "named", "message"),
    [
        ([], {}, "senders"),
        (["stdout"], {}, "senders 'stdout' is not a plain function"),
        ([_coroutine], {}, "is not a plain function"),
        ([print], {"page_url": "/history"}, "page_url '/history' is not the address"),
        ([print], {"page_url": "https://u:secret@h/"}, "page_url 'https://h' has a user"),
        ([print], {"limit": 0}, "limit 0"),
        ([print], {"time_limit": 10}, "time_limit 10 has no unit"),
    ],
)
def test_wrong_arguments_are_named(in_memory, senders, named, message):
    with pytest.raises(InvalidInput, match=message) as raised:
        in_memory.send_alerts(*senders, **named)
    assert "secret" not in str(raised.value)


def test_an_event_loop_goes_on_while_alerts_are_sent(clock, event_loop_thread):
    clock.now = MIDNIGHT
    store = create_async_store(clock=clock)
    ticked = threading.Event()

    async def main():
        await store.expect("nightly", every="1h")
        clock.advance(hours=2)
        await store.check()
        sending = asyncio.create_task(store.send_alerts(lambda alert: ticked.wait(30)))
        while not sending.done():
            await asyncio.sleep(0)
            ticked.set()
        return (await sending).sent

    assert event_loop_thread.run(main()) == 1
