"""Expectations that stores suggest, and their TOML."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from jobhistory import InvalidInput, create_store, load_expectations
from jobhistory.expectations.inference import Suggestion
from jobhistory.expectations.toml_file import suggestions_as_toml
from tests.conftest import stores_of_kind
from tests.test_cli import run, url  # noqa: F401 - fixtures

# ruff: noqa: F811

KINDS = ["memory", "sqlite", "postgresql", "async-sqlite", "postgresql_as_app"]
BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NIGHT = timedelta(hours=2, minutes=17, seconds=3)


@pytest.fixture(params=KINDS)
def suggesting(request, clock):
    clock.now = BEGIN + 20 * DAY
    with stores_of_kind(request.param, request, clock) as make:
        store = make()
        store.record_many(
            [
                *(ended("nightly", BEGIN + number * DAY + NIGHT) for number in range(20)),
                *(ended("rare", BEGIN + number * DAY) for number in (3, 4)),
                *(ended("known", BEGIN + number * DAY) for number in range(20)),
            ]
        )
        store.expect("known", every="1d")
        yield store


def ended(task, start):
    return {
        "job_id": f"{task} {start}",
        "task_identifier": task,
        "worker_id": "w",
        "correlation_id": "c",
        "status": "completed",
        "started_at": start,
        "execution_time_ms": 40_000,
    }


def test_a_store_suggests_expectations_of_tasks_that_have_none(suggesting):
    known, nightly, rare = suggesting.suggest_expectations()
    assert known == Suggestion("known", None, "has an expectation")
    assert nightly.expectation.cron == "17 2 * * *"
    assert nightly.expectation.max_runtime == timedelta(minutes=3)
    assert nightly.reason == "20 of 20 days at 02:17 (UTC)"
    assert rare.reason == "has 2 starts in history, at least 7 are needed"
    assert [each.expectation.name for each in suggesting.expectations()] == ["known"]


def test_suggestions_are_of_some_tasks_since_some_time_in_a_time_zone(suggesting):
    (found,) = suggesting.suggest_expectations("nightly", timezone="Europe/Berlin")
    assert (found.expectation.cron, found.expectation.timezone) == ("17 4 * * *", "Europe/Berlin")
    (found,) = suggesting.suggest_expectations(["nightly"], from_=BEGIN + 15 * DAY)
    assert found.reason == "has 5 starts in history, at least 7 are needed"
    (found,) = suggesting.suggest_expectations("unheard of")
    assert found.expectation is None


def test_an_unknown_time_zone_is_named(plain_store):
    with pytest.raises(InvalidInput, match="timezone 'Mars'"):
        plain_store.suggest_expectations(timezone="Mars")


def test_suggestions_are_a_toml_file_with_comments(suggesting, tmp_path):
    suggestions = suggesting.suggest_expectations()
    path = tmp_path / "suggested.toml"
    path.write_text(suggestions_as_toml(suggestions), encoding="utf-8")
    assert load_expectations(path) == [suggestions[1].expectation]
    assert "# 20 of 20 days at 02:17 (UTC)\n[[expectation]]\n" in path.read_text()
    assert '# "rare": has 2 starts' in path.read_text()


def test_a_name_cannot_leave_its_comment(tmp_path):
    path = tmp_path / "suggested.toml"
    path.write_text(suggestions_as_toml([Suggestion('a\n[[x]]\r"\x1b', None, "none")]))
    assert load_expectations(path) == []
    assert path.read_text() == '# "a\\U0000000a[[x]]\\U0000000d\\U00000022\\U0000001b": none\n'


def test_check_suggest_prints_toml_that_can_be_declared(run, url, database, tmp_path):
    with create_store(database.engine) as store:
        begin = datetime.now(UTC).replace(hour=2, minute=17, second=3) - 31 * DAY
        store.record_many([ended("nightly", begin + number * DAY) for number in range(30)])
        store.record_many([ended('a "b"\n', begin)])
    status, out, err = run("check", "--suggest", "--timezone", "UTC", "--url", url)
    assert (status, err) == (0, "")
    path = tmp_path / "suggested.toml"
    path.write_text(out)
    (found,) = load_expectations(path)
    assert (found.task_identifier, found.cron, found.timezone) == ("nightly", "17 2 * * *", "UTC")
    assert out.startswith('# "a \\U00000022b\\U00000022\\U0000000a": has 1 start in history')
    assert "\n# 30 of 30 days at 02:17 (UTC)\n[[expectation]]\n" in out
    asked = ("--since", f"{begin + 27 * DAY:%Y-%m-%dT00:00:00Z}", "--task", "nightly")
    status, out, err = run("check", "--suggest", "--json", *asked, "--url", url)
    assert json.loads(out) == {
        "task_identifier": "nightly",
        "expectation": None,
        "reason": "has 3 starts in history, at least 7 are needed",
    }


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--since", "2d"], "--since '2d' goes with --suggest only"),
        (["--timezone", "UTC"], "--timezone 'UTC' goes with --suggest only"),
        (["--suggest", "--timezone", "Mars"], "--timezone 'Mars' is not a time zone"),
        (["--suggest", "--since", "x"], "--since 'x'"),
    ],
)
def test_options_that_cannot_be_used_are_named(run, options, named):
    status, out, err = run("check", *options, "--url", "sqlite://")
    assert status == 3
    assert named in out + err
