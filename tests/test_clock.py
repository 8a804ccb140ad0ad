from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobhistory import InvalidInput, create_store
from jobhistory._runtime.clock import before, in_utc

FIRST = datetime.min.replace(tzinfo=UTC)


def test_a_moment_without_an_equal_in_utc_is_refused():
    early = datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))
    with pytest.raises(InvalidInput, match="give one between the years 1 and 9999") as caught:
        in_utc(early, "from_")
    assert caught.value.argument == "from_"


def test_before_stops_at_the_first_moment_of_all():
    assert before(FIRST + timedelta(days=2), timedelta(days=1)) == FIRST + timedelta(days=1)
    assert before(FIRST + timedelta(days=2), timedelta(days=3)) == FIRST


def test_nothing_is_lost_since_before_the_year_1(clock):
    assert create_store(clock=clock).reap_lost("1000000 days") == 0
