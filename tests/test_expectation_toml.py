"""Expectations that are written as TOML, and read again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobhistory import InvalidInput
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.toml_file import load_expectations, written_as_toml

FULL = Expectation(
    'a "b" \\ c',
    labels={"tenant": "acme", "queue": "mail"},
    cron="17 2 * * *",
    timezone="Europe/Berlin",
    grace="15m",
    max_runtime="1h 30m",
    max_failure_rate=0.25,
    failures_in_a_row=3,
    paused_until=datetime(2026, 12, 24, tzinfo=UTC),
    owner="billing team",
)


def read_back(tmp_path, expectations):
    path = tmp_path / "expectations.toml"
    text = "\n".join(map(written_as_toml, expectations))
    path.write_text(text, encoding="utf-8")
    return load_expectations(path)


def test_what_is_written_is_read_as_the_same_expectations(tmp_path):
    unwatched = Expectation("unwatched", every="30s", failures_in_a_row=None)
    expected = [FULL, Expectation("often", every="30s"), unwatched]
    assert read_back(tmp_path, expected) == expected


@given(st.text(min_size=1, max_size=20))
@example("\x7f\x1b[2J\x9b\u2028\U0001f600")
def test_any_name_is_written_without_what_a_terminal_obeys(tmp_path_factory, name):
    try:
        expectation = Expectation(name, every="1d")
    except InvalidInput:
        return
    assert all(char.isprintable() or char == "\n" for char in written_as_toml(expectation))
    assert read_back(tmp_path_factory.mktemp("toml"), [expectation]) == [expectation]


def test_a_file_nested_too_deeply_is_refused_like_any_other_that_is_not_toml(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 5_000)
    with pytest.raises(InvalidInput, match=r"is not TOML: .*; write tables such as"):
        load_expectations(path)
