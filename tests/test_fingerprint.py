"""Similar messages have the same fingerprint, whether Python or a database computes it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import String, literal, select

from jobhistory.database.functions import fingerprint as sql_fingerprint
from jobhistory.sanitize.fingerprint import PATTERNS, fingerprint

EXAMPLES = {
    "no order 42": "no order <number>",
    "took 3.14s, -5 or +7 of 1,000": "took <number>, <number> or <number> of <number>",
    "job-42 in 2015-11-24T10:20:30.5Z": (
        "job-<number> in <number>-<number>-<number>:<number>:<number>"
    ),
    "user 123e4567-e89b-12d3-a456-426614174000 is gone": "user <id> is gone",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8": "commit <id>",
    "cus_9s8d7f6g5h and 01ARZ3NDEKTSV4RRFFQ69G5FAV": "cus_<id> and <id>",
    "<Order object at 0x7f53df127a50>": "<Order object at <address>>",
    "no answer from 10.0.0.7:5432, 10.0.0.8": "no answer from <address>, <address>",
    "bounced: ann.example+x@example.org": "bounced: <address>",
    "KeyError: 'order_42'": "KeyError: <value>",
    "can't open \"a b.txt\", didn't find it": "can't open <value>, didn't find it",
    "`x` is not 'y' is not \"z\"": "<value> is not <value> is not <value>",
    "deadline exceeded": "deadline exceeded",
    "it's 'un\nclosed": "it's 'un\nclosed",
    "": "",
    # Masked first, and only then cut to 500 characters.
    "- " * 249 + "no 42": "- " * 249 + "no",
    "- " * 246 + "no 123456789": "- " * 246 + "no <numb",
    f"no '{'x' * 600}' in 'y'": "no <value> in <value>",
    "x " * 996 + "'value' 'value'": "x " * 250,
    f"{'1' * 1998}'value'": "<number>'v",
    "can't decode b'\\xff', rb'x' or u\"y\"": "can't decode <value>, <value> or <value>",
    "crab'x' b\"it's\"": "crab'x' <value>",
    "1e-05 < 2.5E+10, 3e5; 1-2": "<number> < <number>, <number>; <number>-<number>",
    "-1.2345678901234567e-05s or 1.2345678901e10": "<number> or <number>",
    "1234567e-1234-1234-1234-123456789abc": "<id>",
    "no route to 2001:db8::1 from [::1]:5432": "no route to <address> from [<address>]:<number>",
    "fe80::1%eth0, ::ffff:10.0.0.1 or 1:2:3:4:5:6:7:8": "<address>, <address> or <address>",
    "2001:0db8:85a3:0000:0000:8a2e:0370:7334/64": "<address>/<number>",
    "std::string at 10:20:30, dead::beef, a::b::c1x": (
        "std::string at <number>:<number>:<number>, dead::beef, a::b::c<number>"
    ),
}
messages = st.one_of(
    st.sampled_from(list(EXAMPLES)),
    st.text().filter(lambda text: "\0" not in text),
    # Of what the patterns are about, in any order.
    st.text(alphabet="0123abefuxzABEFXZ'\"`@.,::+-_ \n\\%é", max_size=60),
    st.text(alphabet="01af:.%", max_size=60),  # addresses
    st.text(alphabet="01eE+-.,", max_size=30),  # numbers
    st.text(alphabet="bBru'\"` ", max_size=30),  # quotes
    st.text(alphabet="0a:. '", min_size=1990, max_size=2010),  # longer than what is masked
    st.lists(st.sampled_from([*EXAMPLES, "'", '"', "-", "0x", "@", "1.2.3.4"])).map("".join),
)


@pytest.mark.parametrize("message", EXAMPLES)
def test_particulars_are_masked_and_the_rest_is_left(message):
    assert fingerprint(message) == EXAMPLES[message]


@pytest.mark.parametrize("piece", ["1,", "1.", "12.5,", "1e", "1e-", ":", "a:", "b'", "a-", "@"])
def test_the_longest_lists_take_no_longer_in_proportion(piece):
    """A search in quadratic time would exceed the time limit of the tests."""
    text = piece * (400_000 // len(piece))
    for pattern, placeholder in PATTERNS:
        assert re.sub(pattern, placeholder, text)


@given(st.lists(messages, min_size=1, max_size=20))
def test_postgresql_masks_as_python_does(postgres_database, texts):
    with postgres_database.engine.connect() as connection:
        columns = [
            sql_fingerprint(literal(text, String)).label(f"m{n}") for n, text in enumerate(texts)
        ]
        assert list(connection.execute(select(*columns)).one()) == [
            fingerprint(text) for text in texts
        ]
