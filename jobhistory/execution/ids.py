"""Execution ids, which are UUIDv7s made from the start of the execution, and the callers' ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobhistory._runtime.clock import in_utc, utc_now
from jobhistory._runtime.randomness import GENERATOR
from jobhistory.errors import InvalidInput
from jobhistory.sanitize.truncate import NAME_LENGTH, storable_text, truncate_name

if TYPE_CHECKING:  # it imports asyncio, and `jobhistory run` starts its command without it
    from jobhistory.typing import Id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOLERANCE = timedelta(days=1)

_VERSION_AND_VARIANT = 7 << 76 | 0b10 << 62
_COUNTER_BITS = 30
_RANDOM_BITS = 32

_counter = count(GENERATOR.getrandbits(_COUNTER_BITS - 1))
"""A counter that orders the ids that one process makes for the same microsecond."""


def new_execution_id(started_at: datetime | None = None) -> UUID:
    """Return a new UUIDv7 for an execution that starts at a given time.

    Ids sort by this time, to the microsecond. Ids that one process makes for the same microsecond
    sort in the order of the calls. The function is thread-safe, and a forked child makes other ids
    than its parent. The layout follows RFC 9562, section 5.7: the time in microseconds (section
    6.2, method 3), a counter of 30 bits, and 32 random bits.

    Args:
        started_at: an aware `datetime`; `None` means now. Times before 1970 count as 1970.

    Raises:
        InvalidInput: if `started_at` is not an aware `datetime`.
    """
    return id_at(utc_now() if started_at is None else in_utc(started_at, "started_at"))


def id_at(moment: datetime) -> UUID:
    """Return a new id for a time in UTC, as `new_execution_id` does."""
    since = moment - _EPOCH
    seconds = since.days * 86400 + since.seconds
    if seconds < 0:
        milliseconds = rest = 0
    else:
        milliseconds, rest = divmod(since.microseconds, 1000)
        milliseconds += seconds * 1000
    counted = next(_counter) % (1 << _COUNTER_BITS)
    return UUID(
        int=milliseconds << 80
        | (rest * 4096 // 1000) << 64
        | _VERSION_AND_VARIANT
        | counted << _RANDOM_BITS
        | GENERATOR.getrandbits(_RANDOM_BITS)
    )


def read_execution_id(value: Any, argument: str, *, started_at: datetime) -> UUID:
    """Return the execution id that a caller chose.

    Raises:
        InvalidInput: if it is not a UUIDv7, or if its time differs from `started_at` by more than a
            day. Tables may be partitioned by ranges of ids, which stand for ranges of time.
    """
    if not isinstance(value, UUID) or value.version != 7:
        raise InvalidInput(
            argument, value, "is not a UUID of version 7; create one with new_execution_id()"
        )
    since_epoch = max(timedelta(0), started_at - _EPOCH)
    if abs(timedelta(milliseconds=value.int >> 80) - since_epoch) > _TOLERANCE:
        raise InvalidInput(
            argument,
            value,
            "has a time more than one day away from the start at "
            f"{started_at.isoformat(timespec='seconds')}; "
            "create it with new_execution_id(started_at)",
        )
    return value


def id_text(value: Id, argument: str) -> str:
    """Return a caller's id as the text to store.

    Raises:
        InvalidInput: if it is not a `str`, `UUID` or `int`, or if its text is empty or longer than
            `NAME_LENGTH`.
    """
    if type(value) is str and 0 < len(value) <= NAME_LENGTH:
        # Most ids are ASCII. Omitting a call for each of three ids saves a few percent.
        return value if value.isascii() and "\0" not in value else storable_text(value)
    if isinstance(value, bool) or not isinstance(value, (str, UUID, int)):
        raise InvalidInput(argument, value, "is not an id; pass a str, a uuid.UUID or an int")
    try:
        text = str(value)
    except ValueError:  # Python refuses to convert integers of more than 4,300 digits
        text = "0" * (NAME_LENGTH + 1)
    if not text:
        raise InvalidInput(argument, value, "is empty; write it like 'order-42'")
    if len(text) > NAME_LENGTH:
        raise InvalidInput(
            argument,
            value,
            f"is longer than {NAME_LENGTH} characters; use a short one like 'order-42'",
        )
    return storable_text(text)


def name_text(value: str, argument: str) -> str:
    """Return a name as the text to store, truncated to the length of its column.

    Raises:
        InvalidInput: if it is empty or not text.
    """
    return _name(value, argument, "send_email")


def error_type_text(value: str, argument: str) -> str:
    """Return the type of an error as the text to store, as `name_text` does."""
    return _name(value, argument, "ValueError")


def _name(value: str, argument: str, example: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(argument, value, f"is not a name; write it like {example!r}")
    return truncate_name(value)


def check_uuid(value: object, argument: str) -> UUID:
    """Return the value, which must be a UUID.

    Raises:
        InvalidInput: if it is not a UUID.
    """
    if not isinstance(value, UUID):
        raise InvalidInput(
            argument, value, "is not a uuid.UUID; create one with new_execution_id()"
        )
    return value
