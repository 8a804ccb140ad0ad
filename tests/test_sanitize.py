"""How values become storable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from ipaddress import ip_address
from types import SimpleNamespace
from typing import NamedTuple

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, defer, mapped_column

from jobhistory import Job, Limits, create_store, redact_secrets
from jobhistory.sanitize.json_text import JsonText, decoded, encode
from jobhistory.sanitize.json_values import Sanitizer
from jobhistory.sanitize.secrets import redact_text
from jobhistory.sanitize.truncate import byte_length, storable_text, truncate_text
from jobhistory.sanitize.unchanged import is_plain

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


def payload(value, sanitizer=SMALL):
    """What a reader gets for a payload."""
    return decoded(sanitizer.payload(value)[0])


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
    plain = payload(value)
    shown = encode(plain)
    assert plain is None or SMALL.payload(value)[0] == shown, "it is encoded with minimal escapes"

    assert json.loads(shown) == plain
    assert byte_length(shown) <= 1024
    shown.encode()
    assert "\\u0000" not in json.dumps(plain)
    assert payload(plain) == plain, "what was stored once is stored as it is again"


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
    assert payload(value, Sanitizer(Limits(), redact_secrets)) == value


# Pieces of names, commands, addresses and JSON, of which some combinations contain a secret.
pieces = st.sampled_from(
    [
        *("password", "api", "_key", "Key", "token", "pin", "name", "value", "input", "loc"),
        *(" ", "-", "--", " -u ", "-p", "curl", "mysql", "=", ": ", ":", "%3D", "'", '"', "',"),
        *("https://", "s3://", "token@", "ann:x@", "example.com", "/a?b=", "{", "}", "[", "]"),
        *("Bearer ", "bearer x1 ", "hunter2", "42", "12:30", "2026-11-27T22:43:03Z", "\\", "\n"),
        *("é", "\0", "\ud800", "-----BEGIN PRIVATE KEY-----", "input_value=", "NaN", "(", ")"),
        *("-----BEGIN EC PRIVATE KEY-----\nMIIE\n", "\n  ", "sshpass ", "redis-cli -a ", "`", "\t"),
    ]
)
telling = st.lists(pieces, max_size=8).map("".join)
ordinary = st.recursive(
    scalars | telling | st.sampled_from([2**63, -(2**64), 10**700, float("nan"), -0.0, 1e16]),
    lambda inner: (
        st.lists(telling | inner)
        | st.tuples(telling, telling)
        | st.tuples(inner)
        | st.dictionaries(telling | pieces, telling | inner)
        | st.dictionaries(hashable, inner)
    ),
)


@given(telling)
@example("key.pem\n-----BEGIN EC PRIVATE KEY-----\nMIIE\n-----END EC PRIVATE KEY-----")
def test_a_plain_text_is_one_in_which_no_rule_finds_a_secret(text):
    if is_plain(text):
        assert redact_text(text) == text == storable_text(text)


@given(ordinary | anything, st.sampled_from([1024, 65536]))
def test_a_value_that_is_encoded_as_it_is_is_one_that_sanitizing_would_not_change(value, limit):
    for redact in (redact_secrets, None):
        sanitizer = Sanitizer(Limits(payload=limit), redact)
        walked = sanitizer.walked(value, limit)
        assert sanitizer.payload(value)[0] == (None if walked is None else encode(walked))


@pytest.mark.parametrize(
    "value",
    [
        [None] * 511,
        {f"{n}": None for n in range(97)},
        ["x" * 1020],
        ["é" * 510],
        [[[]] * 5] * 48,
        "x" * 1022,
    ],
)
def test_values_at_the_limit_are_treated_alike(value):
    for given_ in (value, [value, *[0] * 3], [value, "x"], {"k": value}, [*value], [*value][:-1]):
        assert payload(given_) == SMALL.walked(given_, 1024)


def test_nested_values_are_treated_alike():
    value = fast = []
    for _ in range(70):
        value = [value]
    sanitizer = Sanitizer(Limits(), redact_secrets)
    for _ in range(10):
        assert payload(value, sanitizer) == sanitizer.walked(value, 65536)
        value = value[0]
    fast.append(fast)
    assert payload(fast) == ["[circular]"]


def test_a_value_that_changes_meanwhile_raises_nothing():
    class Growing(dict):
        def items(self):
            self["x"] = 1
            return super().items()

    assert payload(Growing(a=1)) == {"a": 1, "x": 1}


def test_json_text_is_decoded_into_a_new_value_each_time():
    text = JsonText.of({"lines": [1]})
    text.value["lines"].append(2)
    assert text.value == {"lines": [1]}


@given(text, st.integers(300, 400), st.booleans())
def test_truncated_text_is_never_longer_than_its_limit(value, limit, keep_tail):
    long = value * 200
    cut = truncate_text(long, limit, keep_tail=keep_tail)

    assert byte_length(cut) <= limit
    cut.encode()
    assert (str(byte_length(long)) in cut) or byte_length(long) <= limit or "\x00" in long


def test_small_values_stay_beside_a_large_one():
    stored = payload({"blob": "x" * 10_000, "rows": list(range(5000)), "user_id": 42})

    assert stored["user_id"] == 42
    assert stored["blob"].endswith("... [cut, 10000 bytes]")
    assert stored["rows"][:3] == [0, 1, 2]
    assert stored["rows"][-1] == "... [cut, 5000 items]"


def test_a_mapping_that_is_too_long_says_how_many_keys_it_had():
    stored = payload({f"key-{n}": n for n in range(5000)})

    assert stored["key-0"] == 0
    assert stored["..."] == "[cut, 5000 keys]"


def test_a_value_that_is_nested_and_long_everywhere_still_fits():
    value = "x"
    for n in range(60):
        value = {f"{n}" * 200: value, "next": [value] * n}
    shown = encode(payload(value))

    assert len(shown) <= 1024
    assert "[cut, " in shown


class Boaster(datetime):
    def isoformat(self):
        return "x" * 100_000


def test_even_what_a_value_says_of_itself_is_bounded():
    nameless = type("N" * 100_000, (), {"__repr__": lambda self: 1 / 0})()

    assert len(payload([Boaster(2026, 1, 1)])[0]) < 1024
    assert len(payload([nameless])[0]) <= 255


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

    assert 512 < len(encode(partial.payload)) <= 1024
    assert 1024 < len(encode(partial.partial_results)) <= 2048
    assert 1024 < len(encode(partial.failed_steps)) <= 2048
    assert len(partial.retry_from_step) == len(failed.error_message) == 3072
    assert len(failed.error_stack) == 4096


@dataclass
class Login:
    user: str
    password: str
    _pin: int = 1234


class Pair(NamedTuple):
    user: str
    password: str


@attrs.define
class Slotted:
    user: str
    password: str


class Model(BaseModel, extra="allow"):
    user: str
    password: str


class Plain:
    kind = "not its own"

    def __init__(self, user, password):
        self.user, self.password, self._cache = user, password, {}

    def __repr__(self):
        return f"Plain({self.user!r}, {self.password!r})"

    @property
    def computed(self):
        raise RuntimeError("nobody may ask")


class Slots(Plain):
    __slots__ = ("later", "more")

    def __init__(self, user, password):
        super().__init__(user, password)
        self.more = 1


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({b"Authorization": "Bearer x"}, {"Authorization": "[redacted]"}),
        ({"nested": [{"apiKey": [1]}]}, {"nested": [{"apiKey": "[redacted]"}]}),
        (Login("ann", "x"), {"user": "ann", "password": "[redacted]", "_pin": "[redacted]"}),
        (Pair("ann", "x"), {"user": "ann", "password": "[redacted]"}),
        (Slotted("ann", "x"), {"user": "ann", "password": "[redacted]"}),
        (
            Model(user="ann", password="x", token="y", n=1),
            {"user": "ann", "password": "[redacted]", "token": "[redacted]", "n": 1},
        ),
        (SimpleNamespace(user="ann", pin=1), {"user": "ann", "pin": "[redacted]"}),
        (Plain("ann", "x"), {"user": "ann", "password": "[redacted]"}),
        (Slots("ann", "x"), {"user": "ann", "password": "[redacted]", "more": 1}),
        ([["Authorization", "Bearer x"], ("n", 1)], [["Authorization", "[redacted]"], ["n", 1]]),
        ([(b"cookie", b"a=b")], [["cookie", "[redacted]"]]),
        ({"name": "DB_PASSWORD", "value": "x"}, {"name": "DB_PASSWORD", "value": "[redacted]"}),
        ([{"Key": "api_key", "Value": {"a": 1}}], [{"Key": "api_key", "Value": "[redacted]"}]),
        ({"name": "colour", "value": "red"}, {"name": "colour", "value": "red"}),
        ('{"password":"x", "n": [1]}', '{"password": "[redacted]", "n": [1]}'),
        ('[["Authorization", "x"]]', '[["Authorization", "[redacted]"]]'),
        ('{"n":  1}', '{"n":  1}'),
        (
            {"body": '{"inner": "{\\"pin\\": 1}"}'},
            {"body": '{"inner": "{\\"pin\\": \\"[redacted]\\"}"}'},
        ),
        (b"password=hunter2", "password=[redacted]"),
        ({"url": "redis://:x@host"}, {"url": "redis://:[redacted]@host"}),
        (["mysql", "-px", "db"], ["mysql", "-p[redacted]", "db"]),
        (["login", "--pin", 1234, 5], ["login", "--pin", "[redacted]", 5]),
        (ValueError("password=hunter2"), "ValueError('password=[redacted]')"),
        (
            partial(print, password="x"),
            "functools.partial(<built-in function print>, password='[redacted]')",
        ),
        (
            [{"type": "int_parsing", "loc": ("user", "password"), "input": "x"}],
            [{"type": "int_parsing", "loc": ["user", "password"], "input": "[redacted]"}],
        ),
        ({"loc": ["user", "age"], "input": "x"}, {"loc": ["user", "age"], "input": "x"}),
        (SecretStr("x"), "SecretStr('**********')"),
        (ip_address("127.0.0.1"), "IPv4Address('127.0.0.1')"),
    ],
)
def test_secrets_are_redacted_wherever_they_occur(value, stored):
    assert payload(value) == stored
    assert payload(stored) == stored


def test_an_object_shows_what_it_holds_and_runs_none_of_its_code():
    class Hostile(Plain):
        def __getattr__(self, name):
            raise RuntimeError("nobody may ask")

        def __repr__(self):
            raise RuntimeError("nobody may ask")

    hostile = object.__new__(Hostile)
    object.__setattr__(hostile, "user", "ann")
    object.__setattr__(hostile, "self", hostile)

    assert payload(hostile) == {"user": "ann", "self": "[circular]"}


def test_what_an_orm_has_not_loaded_is_not_loaded():
    class Base(DeclarativeBase): ...

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        password: Mapped[str]

    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(User(id=1, password="hunter2"))
        session.commit()
        user = session.scalars(select(User).options(defer(User.password))).one()
        row = session.execute(select(User.id, User.password)).one()

    assert payload(user) == {"id": 1}
    assert payload(row) == {"id": 1, "password": "[redacted]"}


@pytest.mark.parametrize("keep", ["message", "stack"])
def test_a_secret_across_a_cut_leaves_no_part(keep):
    for length in range(900, 1100):
        text = "x" * length + " password=" + "hunter2" * 10 + " y" * 5000
        stored = getattr(SMALL, keep)(text) + getattr(SMALL, keep)(text[::-1] + "postgresql://")
        stored += SMALL.stack(" y" * 5000 + " password=" + "hunter2" * 10 + " " + "x" * length)
        assert "hunter" not in stored
        assert "unter2" not in stored


def test_errors_results_and_steps_are_redacted(store):
    secret = "https://u:hunter2@api/x?token=hunter2 password=hunter2"
    store.record_start(Job("1", "t"), "w", "c")
    try:
        raise ValueError(secret)
    except ValueError as error:
        error.add_note(f"note: {secret}")
        failed = store.record_failure("1", "w", "c", 1, error)
    store.record_start(Job("2", "t"), "w", "c")
    text = store.record_failure("2", "w", "c", 1, secret)
    store.record_start(Job("3", "t"), "w", "c")
    steps = {"completed_steps": [secret], "retry_from_step": secret, "results": [secret]}
    partly = store.record_partial_success("3", "w", "c", 1, steps)

    shown = "https://[redacted]@api/x?token=[redacted] password=[redacted]"
    assert failed.error_message == text.error_message == shown
    assert failed.error_stack.endswith(f"ValueError: {shown}\nnote: {shown}\n")
    assert "raise ValueError(secret)" in failed.error_stack
    assert partly.completed_steps == partly.partial_results == [shown]
    assert partly.retry_from_step == shown


def test_redact_takes_another_callable_or_none():
    def mask(key, value):
        return f"{value[:2]}***" if key == "iban" else value

    job = Job("1", "t", {"iban": "DE02123", "password": "hunter2", "deep": [{"iban": "FR76"}]})

    def stored(redact):
        return create_store(redact=redact).record_start(job, "w", "c").payload

    assert stored(mask) == {"iban": "DE***", "password": "hunter2", "deep": [{"iban": "FR***"}]}
    assert stored(None) == job.payload


def test_another_redact_judges_what_has_a_name_and_leaves_other_text_to_the_default():
    def mask(key, value):
        return "***" if key == "iban" else value

    value = [
        ["iban", "FR76"],
        {"name": "iban", "value": "FR76"},
        SimpleNamespace(iban="FR76", pin=1),
        '{"iban": "FR76", "pin": 1}',
        "iban=FR76 password=hunter2",
    ]
    stored = create_store(redact=mask).record_start(Job("1", "t", value), "w", "c").payload

    assert stored == [
        ["iban", "***"],
        {"name": "iban", "value": "***"},
        {"iban": "***", "pin": 1},
        '{"iban": "***", "pin": 1}',
        "iban=FR76 password=[redacted]",
    ]


def test_without_redact_all_is_stored():
    store = create_store(redact=None)
    text = "password=hunter2 https://u:hunter2@h/"
    value = [text, ["Authorization", "x"], {"name": "pin", "value": 1}, ["x", "--token", "y"]]
    record = store.record_start(Job("1", "t", value), "w", "c")

    assert record.payload == value
    assert store.record_failure("1", "w", "c", 1, text).error_message == text


def test_what_a_broken_redact_cannot_judge_is_not_stored():
    def broken(key, value):
        raise RuntimeError

    assert create_store(redact=broken).record_start(
        Job("1", "t", {"a": "hunter2"}), "w", "c"
    ).payload == {"a": "[redacted]"}
