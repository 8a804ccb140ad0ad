"""A cursor is text that comes back from anywhere: from a link, a mail, somebody's hand."""

from __future__ import annotations

import base64
import json
import zlib
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import HistoryQuery, InvalidInput, Status
from jobhistory.query.criteria import replace
from jobhistory.query.cursor import Cursor

moments = st.datetimes(
    timezones=st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    min_value=datetime(2, 1, 1),
    max_value=datetime(9998, 1, 1),
)
ids = st.text(min_size=1, max_size=255)
queries = st.builds(
    HistoryQuery,
    from_=st.none() | st.just(datetime.min.replace(tzinfo=UTC)),
    to=st.none() | moments,
    task_identifier=st.none() | ids | st.lists(ids, max_size=30),
    status=st.none() | st.sampled_from(Status) | st.sets(st.sampled_from(Status)),
    job_id=st.none() | ids,
    correlation_id=st.none() | st.uuids(),
    worker_id=st.none() | ids | st.integers(0),
    error_type=st.none() | ids,
    error_contains=st.none() | st.text(min_size=1),
    min_execution_time_ms=st.none() | st.integers(0, 2**63 - 1),
    order=st.sampled_from(["newest", "oldest"]),
    limit=st.none() | st.integers(1, 100),
)
cursors = st.builds(Cursor, queries, st.datetimes(timezones=st.just(UTC)), st.uuids())
CURSOR = Cursor(HistoryQuery(status="failed"), datetime(2015, 11, 1, tzinfo=UTC), UUID(int=7))


def packed(content):
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    return "v1." + base64.urlsafe_b64encode(zlib.compress(content)).decode().rstrip("=")


@given(cursors)
def test_what_is_written_is_read_again(cursor):
    read = Cursor.read(cursor.text(), "after")
    assert read == Cursor(replace(cursor.query, limit=None), cursor.started_at, cursor.id)
    assert Cursor.read_for(replace(cursor.query, limit=3), cursor.text(), "after") == read


@given(cursor=cursors, data=st.data())
def test_a_cursor_that_was_changed_is_refused(cursor, data):
    text = cursor.text()
    place = data.draw(st.integers(0, len(text) - 1))
    change = data.draw(st.sampled_from(["", "A", "b", "7", "_", "é", "=", " ", text]))
    changed = text[:place] + change + text[place + 1 :]
    try:
        assert Cursor.read(changed, "after") == Cursor.read(text, "after")
    except InvalidInput as error:
        assert "cursor" in str(error)


@given(st.text() | st.binary() | st.none() | st.binary().map(packed))
def test_nothing_else_is_a_cursor(text):
    with pytest.raises(InvalidInput, match=r"is no cursor|is a cursor of version"):
        Cursor.read(text, "after")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        7,
        "text",
        ["2015-11-01T00:00:00+00:00", "00" * 16],
        ["2015-11-01T00:00:00", "00" * 16, {"order": "newest"}],
        ["2015-11-01T00:00:00+00:00", 7, {}],
        ["2015-11-01T00:00:00+00:00", "00" * 16, {"limit": 5}],
        ["2015-11-01T00:00:00+00:00", "00" * 16, {"state": "x"}],
        ["2015-11-01T00:00:00+00:00", "00" * 16, {"from_": 5}],
        ["2015-11-01T00:00:00+00:00", "00" * 16, {"status": {"a": {}}}],
        ["2015-11-01T00:00:00+00:00", "00" * 16, [["order", "newest"]]],
        b"[" * 200_000,
        b" " * 5_000_000 + b"[]",
        b'["2015-11-01T00:00:00+00:00", "' + b"0" * 32 + b'", {"job_id": ' + b"9" * 5000 + b"}]",
    ],
)
def test_what_was_packed_like_a_cursor_but_is_none_is_refused(content):
    with pytest.raises(InvalidInput, match="is no cursor"):
        Cursor.read(packed(content), "after")


def test_the_error_quotes_no_more_of_a_long_text_than_helps():
    with pytest.raises(InvalidInput) as caught:
        Cursor.read(CURSOR.text() + "A" * 10_000, "after")
    assert len(str(caught.value)) < 300
