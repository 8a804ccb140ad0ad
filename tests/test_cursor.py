"""A cursor is text that comes back from anywhere: from a link, a mail, somebody's hand."""

from __future__ import annotations

import base64
import random
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone
from zlib import crc32

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobhistory import HistoryQuery, InvalidInput, Status
from jobhistory.query.cursor import Cursor

time_zones = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
moments = st.datetimes(
    timezones=time_zones, min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)
)
names = st.text(min_size=1, max_size=255)
ids = names | st.uuids() | st.integers(0)
some_criteria = st.fixed_dictionaries(
    {},
    optional={
        "from_": st.just(datetime.min.replace(tzinfo=UTC)),
        "to": moments,
        "task_identifier": names | st.lists(names, max_size=30),
        "status": st.sampled_from(Status) | st.lists(st.sampled_from(Status), max_size=4),
        "job_id": ids,
        "correlation_id": ids,
        "worker_id": ids | st.lists(ids, max_size=3),
        "worker_id_starts_with": names,
        "min_attempt": st.integers(0, 2**31 - 1),
        "labels": st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), st.text(max_size=9), max_size=5
        ),
        "parent_id": st.uuids(),
        "trace_id": st.from_regex(r"[0-9a-f]{31}[1-9a-f]", fullmatch=True),
        "error_type": names,
        "error_contains": names,
        "min_execution_time_ms": st.integers(0, 2**63 - 1),
        "order": st.sampled_from(["newest", "oldest"]),
    },
)
limits = st.none() | st.integers(1, 100)
cursors = st.builds(Cursor, st.datetimes(timezones=st.just(UTC)), st.uuids())

FAILURES = HistoryQuery(status="failed")
CURSOR = Cursor(datetime(2015, 11, 1, tzinfo=UTC), uuid.UUID(int=7))


def is_of(cursor, query, other):
    """Whether a cursor that belongs to one query is accepted for another."""
    try:
        return Cursor.from_text(cursor.to_text(query), other, "after") == cursor
    except InvalidInput as error:
        assert "belongs to other criteria" in str(error)
        return False


def text_of(content):
    """Content with the checksum that makes it a cursor."""
    packed = content + crc32(content).to_bytes(4, "big")
    return "v2." + base64.urlsafe_b64encode(packed).decode()


@given(cursors, some_criteria, limits, limits)
def test_a_cursor_is_short_and_comes_back_for_its_criteria(cursor, criteria, limit, other_limit):
    text = cursor.to_text(HistoryQuery(**criteria, limit=limit))
    assert re.fullmatch(r"v2\.[A-Za-z0-9_-]{48}", text)
    same = HistoryQuery(**criteria, limit=other_limit)
    assert Cursor.from_text(text, same, "after") == cursor


def test_a_cursor_is_short_however_many_tasks_there_are():
    query = HistoryQuery(task_identifier=[f"task-{n}" * 20 for n in range(4_500)])
    text = CURSOR.to_text(query)
    assert len(text) == 51
    assert Cursor.from_text(text, query, "after") == CURSOR


@given(cursors, some_criteria, some_criteria)
def test_a_cursor_belongs_to_its_criteria(cursor, criteria, others):
    query, other = HistoryQuery(**criteria), HistoryQuery(**others)
    assume(query != other)
    for name in ("task_identifier", "status"):
        values = getattr(query, name), getattr(other, name)
        assume(None in values or set(values[0]) != set(values[1]) or values[0] == values[1])
    assert not is_of(cursor, query, other)


@pytest.mark.parametrize(
    ("criteria", "others"),
    [
        ({}, {"order": "oldest"}),
        ({}, {"task_identifier": []}),
        ({"task_identifier": ["a", "b"]}, {"task_identifier": ["a"]}),
        ({"task_identifier": ["a", "b"]}, {"task_identifier": ["a, b"]}),
        ({"job_id": "a"}, {"correlation_id": "a"}),
        ({"job_id": "a", "worker_id": "b"}, {"job_id": "b", "worker_id": "a"}),
        ({"from_": CURSOR.started_at}, {"from_": CURSOR.started_at + timedelta(microseconds=1)}),
        ({"from_": CURSOR.started_at}, {"to": CURSOR.started_at}),
        ({"min_execution_time_ms": 0}, {}),
    ],
)
def test_a_small_difference_is_one(criteria, others):
    assert not is_of(CURSOR, HistoryQuery(**criteria), HistoryQuery(**others))
    assert not is_of(CURSOR, HistoryQuery(**others), HistoryQuery(**criteria))


@pytest.mark.parametrize(
    ("criteria", "others"),
    [({"min_attempt": 0}, {}), ({"labels": {}}, {}), ({"worker_id": ["w"]}, {"worker_id": "w"})],
)
def test_criteria_that_everything_meets_are_none(criteria, others):
    assert HistoryQuery(**criteria) == HistoryQuery(**others)
    assert is_of(CURSOR, HistoryQuery(**criteria), HistoryQuery(**others))


def with_duplicates(values, rng):
    shuffled = [*values, *rng.choices(values, k=2)] if values else []
    rng.shuffle(shuffled)
    return rng.choice([list, tuple])(shuffled)


def rewritten(name, value, rng, time_zone):
    """The same criterion, written in another way."""
    if isinstance(value, datetime):
        return value.astimezone(time_zone) if value.year > 1 else value
    if name in ("job_id", "correlation_id"):
        return str(value)
    if name == "worker_id":
        values = [str(each) for each in (value if isinstance(value, list) else [value])]
        return with_duplicates(values, rng)
    if name == "labels":
        return dict(rng.sample(list(value.items()), len(value)))
    if name == "status":
        values = [value] if isinstance(value, str) else value
        value = [rng.choice([str, Status])(each) for each in values]
        if len(set(value)) == 1 and rng.random() < 0.5:
            return value[0]
        return rng.choice([list, set, frozenset, tuple])(with_duplicates(value, rng))
    if name == "task_identifier":
        return with_duplicates([value] if isinstance(value, str) else value, rng)
    return value


@given(some_criteria, st.randoms(use_true_random=False), time_zones)
def test_equivalent_criteria_have_the_same_cursor(criteria, rng, time_zone):
    other = {name: rewritten(name, v, rng, time_zone) for name, v in criteria.items()}
    other |= {} if "order" in other else {"order": "newest"}
    assert is_of(CURSOR, HistoryQuery(**criteria), HistoryQuery(**other, limit=7))


def test_another_process_has_the_same_cursor_for_sets():
    """Strings hash otherwise there, so the members of a set come in another order."""
    script = (
        "from datetime import UTC, datetime; from uuid import UUID\n"
        "from jobhistory import HistoryQuery\n"
        "from jobhistory.query.cursor import Cursor\n"
        "tasks = {f'task-{n}' for n in range(50)}\n"
        "query = HistoryQuery(task_identifier=tasks, status={'failed', 'partial_success'})\n"
        "print(query.task_identifier[0])\n"
        "print(Cursor(datetime(2015, 11, 1, tzinfo=UTC), UUID(int=7)).to_text(query))\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    (first, one), (other_first, other) = outputs
    assert first != other_first, "the order of the set differs"
    assert one == other


@given(cursor=cursors, data=st.data())
def test_a_cursor_that_was_mistyped_is_refused(cursor, data):
    """It must not lead to another page, whatever character is wrong."""
    text = cursor.to_text(FAILURES)
    place = data.draw(st.integers(0, len(text) - 1))
    wrong = data.draw(st.sampled_from(["", "A", "b", "7", "_", "-", "é", "=", " ", "\n", text]))
    changed = text[:place] + wrong + text[place + 1 :]
    assume(changed != text)
    with pytest.raises(InvalidInput, match="cursor"):
        Cursor.from_text(changed, FAILURES, "after")


def test_each_wrong_character_and_each_swap_is_detected():
    text = CURSOR.to_text(FAILURES)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    wrong = {text[:n] + char + text[n + 1 :] for n in range(3, len(text)) for char in alphabet}
    wrong |= {text[:n] + text[n + 1] + text[n] + text[n + 2 :] for n in range(3, len(text) - 1)}
    wrong.discard(text)
    assert len(wrong) > 3000
    for each in wrong:
        with pytest.raises(InvalidInput, match="is not a cursor"):
            Cursor.from_text(each, FAILURES, "after")


@given(st.text() | st.binary() | st.none() | st.binary().map(text_of))
def test_nothing_else_is_a_cursor(text):
    with pytest.raises(InvalidInput, match=r"is not a cursor|is a cursor of version"):
        Cursor.from_text(text, FAILURES, "after")


@pytest.mark.parametrize("microseconds", [2**63 - 1, -(2**63), 253_402_300_800_000_000])
def test_a_forged_cursor_beyond_all_dates_is_refused(microseconds):
    forged = text_of(microseconds.to_bytes(8, "big", signed=True) + bytes(24))
    with pytest.raises(InvalidInput, match="is not a cursor"):
        Cursor.from_text(forged, FAILURES, "after")


@pytest.mark.parametrize("version", ["1", "3", "10", "02"])
def test_a_cursor_of_another_version_is_refused_by_version(version):
    """Version 1 contained the criteria and was of any length."""
    packed = base64.urlsafe_b64encode(random.Random(1).randbytes(200)).decode().rstrip("=")
    with pytest.raises(
        InvalidInput,
        match=f"is a cursor of version {version}, .* only reads version 2; start again from the",
    ):
        Cursor.from_text(f"v{version}.{packed}", FAILURES, "after")


def test_the_error_quotes_no_more_of_a_long_text_than_helps():
    with pytest.raises(InvalidInput) as caught:
        Cursor.from_text(CURSOR.to_text(FAILURES) + "A" * 10_000, FAILURES, "after")
    assert len(str(caught.value)) < 300


def test_a_cursor_heeds_the_case_of_letters_as_little_as_the_search_does():
    assert is_of(CURSOR, HistoryQuery(error_contains="Boom"), HistoryQuery(error_contains="bOOM"))
    assert not is_of(CURSOR, HistoryQuery(error_contains="Ä"), HistoryQuery(error_contains="ä"))
