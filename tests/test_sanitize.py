"""What is made of values before they are stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import Job, Limits, create_store, redact_secrets
from jobhistory.sanitize import Sanitizer, json_text, looks_secret
from jobhistory.texts import byte_length, cut_text

SMALL = Sanitizer(Limits(payload=1024, results=1024, message=1024, stack=1024), redact_secrets)

text = st.text(st.characters(exclude_categories=[]))  # lone surrogates and NUL, too
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | text
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.complex_numbers()
)
hashable = st.none() | st.booleans() | st.integers() | text | st.binary() | st.uuids()
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner)
        | st.sets(hashable)
    ),
)


@given(anything)
def test_anything_becomes_bounded_json_that_postgresql_can_hold(value):
    plain = SMALL.payload(value)
    shown = json_text(plain)

    assert json.loads(shown) == plain
    assert byte_length(shown) <= 1024
    shown.encode()
    assert "\\u0000" not in json.dumps(plain)
    assert SMALL.payload(plain) == plain, "what was stored once is stored as it is again"


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.text("abc")
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("xyz"), inner),
    )
)
def test_what_json_can_hold_stays_as_it_is(value):
    assert Sanitizer(Limits(), redact_secrets).payload(value) == value


@given(text, st.integers(300, 400), st.booleans())
def test_cut_text_is_never_longer_than_its_limit(value, limit, keep_tail):
    long = value * 200
    cut = cut_text(long, limit, keep_tail=keep_tail)

    assert byte_length(cut) <= limit
    cut.encode()
    assert (str(byte_length(long)) in cut) or byte_length(long) <= limit or "\x00" in long


def test_small_values_stay_beside_a_large_one():
    stored = SMALL.payload({"blob": "x" * 10_000, "rows": list(range(5000)), "user_id": 42})

    assert stored["user_id"] == 42
    assert stored["blob"].endswith("... [cut, 10000 bytes]")
    assert stored["rows"][:3] == [0, 1, 2]
    assert stored["rows"][-1] == "... [cut, 5000 items]"


def test_a_mapping_that_is_too_long_says_how_many_keys_it_had():
    stored = SMALL.payload({f"key-{n}": n for n in range(5000)})

    assert stored["key-0"] == 0
    assert stored["..."] == "[cut, 5000 keys]"


def test_a_value_that_is_nested_and_long_everywhere_still_fits():
    value = "x"
    for n in range(60):
        value = {f"{n}" * 200: value, "next": [value] * n}
    shown = json_text(SMALL.payload(value))

    assert len(shown) <= 1024
    assert "[cut, " in shown


class Boaster(datetime):
    def isoformat(self):
        return "x" * 100_000


def test_even_what_a_value_says_of_itself_is_bounded():
    nameless = type("N" * 100_000, (), {"__repr__": lambda self: 1 / 0})()

    assert len(SMALL.payload([Boaster(2026, 1, 1)])[0]) < 1024
    assert len(SMALL.payload([nameless])[0]) <= 255


def test_a_stack_keeps_its_head_and_its_tail():
    stored = SMALL.stack("first\n" + "middle\n" * 10_000 + "last")

    assert stored.startswith("first\n")
    assert stored.endswith("\nlast")
    assert "... [cut, 70010 bytes in all] ..." in stored


def test_each_limit_bounds_its_own_column():
    store = create_store(limits=Limits(payload=1024, results=2048, message=3072, stack=4096))
    long = "x" * 100_000
    store.record_start(Job("1", "t", long), "w", "c")
    store.record_partial_success(
        "1", "w", "c", 1, {"results": long, "failed_steps": [long], "retry_from_step": long}
    )
    store.record_start(Job("2", "t"), "w", "c")
    try:
        raise ValueError(long)
    except ValueError as error:
        failed = store.record_failure("2", "w", "c", 1, error)
    (partial,) = store.get_by_job_id("1")

    assert 512 < len(json_text(partial.payload)) <= 1024
    assert 1024 < len(json_text(partial.partial_results)) <= 2048
    assert 1024 < len(json_text(partial.failed_steps)) <= 2048
    assert len(partial.retry_from_step) == len(failed.error_message) == 3072
    assert len(failed.error_stack) == 4096


@pytest.mark.parametrize(
    "key",
    ["password", "db_password", "PGPASSWORD", "passwd", "Passphrase", "pwd", "token", "authToken",
     "access_token", "X-Auth-Token", "csrftoken", "authorization", "Authorization", "api_key",
     "apiKey", "APIKey", "APIKEY", "x-api-key", "client_secret", "SECRET_KEY", "private_key",
     "aws_access_key_id", "credentials", "Cookie", "set-cookie", "jwt", "bearer"],
)  # fmt: skip
def test_keys_that_name_secrets(key):
    assert looks_secret(key)
    assert SMALL.payload({"nested": [{key: "hunter2"}]}) == {"nested": [{key: "[redacted]"}]}


@pytest.mark.parametrize(
    "key",
    ["max_tokens", "author", "authored_by", "key", "monkey", "primary_key", "compass", "bypass",
     "user_id", "passenger", "keyboard", "n"],
)  # fmt: skip
def test_keys_that_name_none(key):
    assert not looks_secret(key)


def test_secrets_in_dataclasses_and_under_keys_of_bytes_are_redacted():
    @dataclass
    class Login:
        user: str
        password: str

    stored = SMALL.payload({"login": Login("ann", "hunter2"), b"Authorization": "Bearer x"})

    assert stored == {
        "login": {"user": "ann", "password": "[redacted]"},
        "Authorization": "[redacted]",
    }


def test_redact_takes_another_callable_or_none():
    def mask(key, value):
        return f"{value[:2]}***" if key == "iban" else value

    job = Job("1", "t", {"iban": "DE02123", "password": "hunter2", "deep": [{"iban": "FR76"}]})

    def stored(redact):
        return create_store(redact=redact).record_start(job, "w", "c").payload

    assert stored(mask) == {"iban": "DE***", "password": "hunter2", "deep": [{"iban": "FR***"}]}
    assert stored(None) == job.payload


def test_what_a_broken_redact_cannot_judge_is_not_stored():
    def broken(key, value):
        raise RuntimeError

    assert create_store(redact=broken).record_start(
        Job("1", "t", {"a": "hunter2"}), "w", "c"
    ).payload == {"a": "[redacted]"}
