"""Missed runs, incidents and expectations on the page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from jobhistory import Job, create_store
from tests.conftest import app_role, as_role
from tests.web.histories import HOSTILE
from tests.web.pages import get, links, page_of, text_of

MIDNIGHT = datetime(2026, 11, 10, tzinfo=UTC)


@pytest.fixture
def nightly(plain_store, clock):
    """A store in which `nightly` ran on two of four days, and `import` failed."""
    clock.now = MIDNIGHT
    plain_store.expect(
        "nightly", cron="0 2 * * *", owner="data team", runbook="https://example.org/nightly"
    )
    plain_store.expect("import", every="30 days")
    for day in (0, 3):
        clock.now = MIDNIGHT + timedelta(days=day, hours=2)
        plain_store.begin(Job(f"job-{day}", "nightly"), "w").end()
        if day == 0:
            plain_store.check()
        clock.now = MIDNIGHT + timedelta(days=day + 2, hours=12)
        plain_store.check()
    clock.now = MIDNIGHT + timedelta(days=5, hours=12)
    plain_store.begin(Job("1", "import"), "w").end(error=ValueError("no"))
    plain_store.check()
    return plain_store


def rows(answer):
    """Return the times at which the rows of the list started or were due, in order."""
    body = answer.body.decode().partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        ("missed" if 'class="ghost"' in row else "ran", row.partition('datetime="')[2][:10])
        for row in body.split("<tr")[1:]
        for row in [f"<tr{row}"]
    ]


def test_missed_runs_are_rows_among_those_that_ran(nightly, clock):
    page = page_of(nightly, clock)
    answer = get(page, "/?q=task%3Anightly&since=all")
    assert rows(answer) == [
        ("missed", "2026-11-15"),
        ("missed", "2026-11-14"),
        ("ran", "2026-11-13"),
        ("missed", "2026-11-12"),
        ("missed", "2026-11-11"),
        ("ran", "2026-11-10"),
    ]
    oldest = get(page, "/?q=task%3Anightly&since=all&order=oldest")
    assert rows(oldest) == rows(answer)[::-1]
    assert "ghost" not in get(page, "/?q=task%3Anightly+status%3Acompleted&since=all").body.decode()
    assert "ghost" not in get(page, "/?q=task%3Aimport&since=all").body.decode()


def test_each_missed_run_is_on_one_page(plain_store, clock):
    clock.now = MIDNIGHT
    plain_store.expect("often", every="1h", grace="1m")
    plain_store.record_many(
        {
            "job_id": str(number),
            "task_identifier": "often",
            "worker_id": "w",
            "correlation_id": "c",
            "status": "completed",
            "started_at": MIDNIGHT + timedelta(hours=2 * number),
            "execution_time_ms": 5,
        }
        for number in range(60)
    )
    clock.now = MIDNIGHT + timedelta(hours=118, minutes=30)
    plain_store.check()
    page = page_of(plain_store, clock)
    first = get(page, "/?q=task%3Aoften&since=all")
    second = get(page, "/" + links(first)["Next page"].removeprefix("./"))
    kinds = [kind for answer in (first, second) for kind, _ in rows(answer)]
    assert kinds == ["ran", "missed"] * 59 + ["ran"]


def test_expectations_show_their_problems_first(nightly, clock):
    text = text_of(get(page_of(nightly, clock), "/expectations?since=30d"))
    assert "2 of 2 have problems" in text
    assert text.index("the last run failed") < text.index("2 starts missed")
    assert "starts at '0 2 * * *' UTC, up to 5 minutes late" in text
    assert "data team" in text
    assert "still open" in text
    assert links(get(page_of(nightly, clock), "/expectations"))["Runbook"] == (
        "https://example.org/nightly"
    )


def test_without_expectations_the_page_says_how_to_declare_one(plain_store, clock):
    page = page_of(plain_store, clock)
    assert "Nothing is expected of any task" in text_of(get(page, "/expectations"))
    assert "No task ran in this window" in text_of(get(page, "/grid"))


def test_the_grid_shows_what_ran_failed_and_was_missed(nightly, clock):
    page = page_of(nightly, clock)
    body = get(page, "/grid?since=7d").body.decode()
    titles = [each.partition('"')[0] for each in body.split('<a title="')[1:]]
    found = {each.partition(": ")[2] for each in titles}
    assert found == {"1 missed", "1 ran", "1 ran, 1 failed"}
    assert sum("1 missed" in each for each in titles) == 4
    assert "No task with this" in text_of(get(page, "/grid?since=7d&name=other"))


def test_names_do_not_break_out(plain_store, clock):
    clock.now = MIDNIGHT
    for name in HOSTILE:
        plain_store.expect(name, every="1h", runbook="javascript:alert(1)")
    clock.now += timedelta(hours=3)
    plain_store.check()
    page = page_of(plain_store, clock)
    for url in ("/expectations", "/grid", "/"):
        body = get(page, url).body.decode()
        assert "<script>alert" not in body
        assert "<img src=x" not in body
        assert 'href="javascript' not in body


def test_a_role_that_may_read_executions_only_sees_them(shared_postgresql, clock):
    with shared_postgresql.lent(), app_role(shared_postgresql.owner) as role:
        with shared_postgresql.owner.begin() as connection:
            for table in ("expectation", "incident"):
                connection.execute(text(f"REVOKE ALL ON job_history_{table} FROM {role}"))
        engine = create_engine(as_role(shared_postgresql.owner.url, role))
        store = create_store(engine, clock=clock)
        store.begin(Job("1", "nightly"), "w").end()
        assert "nightly" in text_of(get(page_of(store, clock), "/"))
        assert "nightly" in text_of(get(page_of(store, clock), "/grid"))
        engine.dispose()
