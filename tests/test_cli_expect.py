"""`jobhistory expect`: what is declared on the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from jobhistory import Expectation, create_store
from tests.test_cli import run, url  # noqa: F401 - fixtures
from tests.test_cli_options import plain_url  # noqa: F401 - a fixture

# ruff: noqa: F811


@pytest.fixture
def expect(run, plain_url):
    """Runs a command of the group on an SQLite file; returns what it prints."""

    def expect(*arguments):
        status, out, err = run("expect", *arguments, "--url", plain_url)
        assert (status, err) == (0, ""), err
        return out

    return expect


@pytest.fixture
def declared(plain_url):
    """Returns the expectations, by name."""

    def declared():
        with create_store(plain_url) as store:
            return {each.expectation.name: each.expectation for each in store.expectations()}

    return declared


def test_an_expectation_without_options_says_what_it_expects(run, url):
    added = run("expect", "add", "nightly", "--url", url)
    assert added == (0, "nightly: does not fail\n", "")
    assert "limits       does not fail\n" in run("expect", "show", "nightly", "--url", url)[1]


def test_what_is_added_is_listed_and_removed(run, url):
    added = ["expect", "add", "nightly", "--every", "1d", "--label", "tenant=acme", "--url", url]
    assert run(*added) == (0, "nightly{tenant=acme}: every 1 day\n", "")
    _, out, _ = run("expect", "list", "--json", "--url", url)
    (found,) = map(json.loads, out.splitlines())
    assert found["name"] == "nightly{tenant=acme}"
    assert found["every"] == "1 day"
    removed = run("expect", "remove", "nightly{tenant=acme}", "--url", url)
    assert removed == (0, "nightly{tenant=acme} removed\n", "")
    assert run("expect", "list", "--json", "--url", url) == (0, "", "")


def test_each_argument_has_an_option(expect, declared):
    expect(
        *("add", "nightly", "--cron", "17 2 * * *", "--timezone", "Europe/Berlin"),
        *("--grace", "15m", "--max-runtime", "1h", "--min-runtime", "10s"),
        *("--max-success-age", "26h", "--failures-in-a-row", "2", "--max-failure-rate", "0.1"),
        *("--max-running", "1", "--paused-until", "2030-01-01T00:00Z"),
        *("--owner", "ann", "--runbook", "https://wiki.example.org/nightly"),
        *("--label", "tenant=acme,queue=q"),
    )
    assert list(declared().values()) == [
        Expectation(
            "nightly",
            cron="17 2 * * *",
            timezone="Europe/Berlin",
            grace="15m",
            max_runtime="1h",
            min_runtime="10s",
            max_success_age="26h",
            failures_in_a_row=2,
            max_failure_rate=0.1,
            max_running=1,
            paused_until=datetime(2030, 1, 1, tzinfo=UTC),
            owner="ann",
            runbook="https://wiki.example.org/nightly",
            labels={"tenant": "acme", "queue": "q"},
        )
    ]


def test_cron_is_in_the_time_zone_of_the_machine_which_the_output_states(
    expect, declared, monkeypatch
):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    out = expect("add", "nightly", "--cron", "@daily")
    assert out.startswith("nightly: 0 0 * * * Asia/Tokyo, next in ")
    assert declared()["nightly"].timezone == "Asia/Tokyo"
    expect("edit", "nightly", "--grace", "1h")
    monkeypatch.setenv("TZ", "UTC")
    expect("edit", "nightly", "--cron", "17 2 * * *")
    assert declared()["nightly"] == Expectation(
        "nightly", cron="17 2 * * *", timezone="Asia/Tokyo", grace="1h"
    )


def test_edit_changes_only_what_is_given(expect, declared):
    expect("add", "mail", "--every", "1h", "--owner", "ann", "--grace", "1m", "--max-running", "2")
    expect("edit", "mail", "--owner", "", "--grace", "", "--failures-in-a-row", "none")
    assert declared()["mail"] == Expectation(
        "mail", every="1h", max_running=2, failures_in_a_row=None
    )
    expect("edit", "mail", "--cron", "0 * * * *", "--timezone", "UTC", "--failures-in-a-row", "")
    assert declared()["mail"] == Expectation("mail", cron="0 * * * *", max_running=2)
    expect("edit", "mail", "--every", "2h")
    assert declared()["mail"] == Expectation("mail", every="2h", max_running=2)


def test_add_replaces_what_was_declared(expect, declared):
    expect("add", "mail", "--every", "1h", "--owner", "ann")
    expect("add", "mail", "--every", "2h")
    assert declared() == {"mail": Expectation("mail", every="2h")}


def test_list_and_show_say_it_in_words(expect):
    expect(
        *("add", "a\x1b[31m", "--cron", "0 0 * * *", "--timezone", "UTC", "--owner", "ann"),
        *("--max-runtime", "1h", "--max-failure-rate", "0.1", "--max-running", "1"),
    )
    heading, line = expect("list").splitlines()
    assert heading.split("\t") == ["NAME", "SCHEDULE", "GRACE", "LIMITS", "OWNER", "SOURCE"]
    limits = "takes at most 1 hour, at most 10% fail, at most 1 at a time"
    name = "a\\x1b[31m"
    assert line.split("\t") == [name, "0 0 * * * UTC", "5 minutes", limits, "ann", ""]
    shown = expect("show", "a\x1b[31m").splitlines()
    assert shown[:2] == [f"name         {name}", "schedule     0 0 * * * UTC"]
    assert f"limits       {limits}" in shown
    assert json.loads(expect("show", "a\x1b[31m", "--json"))["owner"] == "ann"


def test_pausing_until_a_time_to_come(expect, declared):
    now = datetime.now(UTC)
    assert expect("add", "mail", "--every", "1h", "--paused-until", "2h") == (
        "mail: every 1 hour, paused\n"
    )
    until = declared()["mail"].paused_until
    assert timedelta(hours=2, seconds=-1) <= until - now <= timedelta(hours=2, minutes=1)


def test_a_pause_ends_by_itself_or_by_resume(expect, declared):
    expect("add", "mail", "--every", "1h")
    assert expect("pause", "mail", "--until", "2h") == "mail: every 1 hour, paused\n"
    assert declared()["mail"].paused_until > datetime.now(UTC) + timedelta(hours=1)
    assert expect("resume", "mail") == "mail: every 1 hour\n"
    resumed = declared()["mail"].paused_until
    assert resumed <= datetime.now(UTC), "what was due in the pause does not count"
    expect("resume", "mail")
    assert declared()["mail"].paused_until == resumed


def test_what_is_exported_is_loaded_again(expect, declared, run, tmp_path):
    expect("add", "mail", "--every", "1h", "--failures-in-a-row", "none", "--label", "a=b")
    expect("add", "nightly", "--cron", "0 0 * * *", "--timezone", "Asia/Tokyo", "--owner", "a 'b'")
    before = declared()
    file = tmp_path / "expectations.toml"
    file.write_text(expect("export"))
    other = f"sqlite:///{tmp_path}/other.db"
    run("db", "upgrade", "--url", other)
    status, out, _ = run("expect", "load", str(file), "--url", other)
    assert (status, out) == (0, "2 expectations declared\n")
    with create_store(other) as store:
        found = store.expectations()
    assert {each.expectation.name: each.expectation for each in found} == before
    assert {each.source for each in found} == {f"file:{file}"}
    assert expect("export", "--task", "mail").count("[[expectation]]") == 1


def test_load_removes_only_what_came_from_the_file(expect, declared, tmp_path):
    file = tmp_path / "expectations.toml"
    both = '[[expectation]]\ntask_identifier = "{}"\nevery = "1h"\n'
    expect("add", "by_hand", "--every", "1h")
    file.write_text(both.format("one") + both.format("two"))
    expect("load", str(file))
    file.write_text(both.format("two"))
    assert expect("load", str(file)) == "1 expectation declared\n"
    assert [*declared()] == ["by_hand", "one", "two"]
    loaded = json.loads(expect("load", str(file), "--prune", "--json"))
    assert loaded == {"declared": ["two"], "removed": ["one"]}
    assert [*declared()] == ["by_hand", "two"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pause", "mail", "--until", "yesterday"], "--until 'yesterday' is neither a duration"),
        (["pause", "a", "--until", "2h"], "NAME 'a' is not declared"),
        (["resume", "a"], "NAME 'a' is not declared"),
        (["load", "/nowhere.toml"], "FILE '/nowhere.toml' cannot be read: No such file"),
        (["add", "", "--every", "1d"], "TASK '' is not a name"),
        (["add", "a", "--every", "often"], "--every 'often' is not a duration"),
        (["add", "a", "--cron", "1 2"], "--cron '1 2' does not have five fields"),
        (["add", "a", "--cron", "0 0 1 1 *", "--every", "1d"], "--every exclude each other"),
        (["add", "a", "--timezone", "Berlin"], "--timezone 'Berlin' is not a time zone"),
        (["add", "a", "--grace", "5"], "--grace '5' is not a duration"),
        (["add", "a", "--max-runtime", "0s"], "--max-runtime '0s' is not positive"),
        (["add", "a", "--min-runtime", "x"], "--min-runtime 'x' is not"),
        (["add", "a", "--max-success-age", "x"], "--max-success-age 'x' is not"),
        (["add", "a", "--failures-in-a-row", "0"], "--failures-in-a-row 0 is not a whole number"),
        (["add", "a", "--max-failure-rate", "2"], "--max-failure-rate 2.0 is not"),
        (["add", "a", "--max-running", "x"], "--max-running 'x' is not a whole number"),
        (["add", "a", "--paused-until", "yesterday"], "--paused-until 'yesterday' is neither"),
        (["add", "a", "--paused-until", "2020-01-01"], "--paused-until '2020-01-01' has passed"),
        (["add", "a", "--owner", " "], "--owner ' ' is not readable text"),
        (["add", "a", "--label", "x"], "--label 'x' has no value"),
        (["edit", "a"], "nothing to change; pass --every"),
        (["edit", "a", "--every", "1d"], "NAME 'a' is not declared; 'jobhistory expect list'"),
        (["show", "a"], "NAME 'a' is not declared"),
        (["remove", "mail", "a"], "NAME 'a' is not declared"),
    ],
)
def test_errors_name_what_was_typed(run, plain_url, declared, arguments, message):
    with create_store(plain_url) as store:
        store.expect("mail", every="1h")
    status, out, err = run("expect", *arguments, "--url", plain_url)
    assert (status, out) == (2, "")
    assert message in err
    assert [*declared()] == ["mail"]
