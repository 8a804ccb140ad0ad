"""Labels: short texts by name, such as the tenant, the queue or the release."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobhistory.errors import InvalidInput
from jobhistory.sanitize.truncate import NAME_LENGTH, storable_text

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MOST_LABELS = 16

REPLAYED_AT = "replayed_at"
"""The label that a replay adds to the execution it repeats."""

REPLAY_OF = "replay_of"
"""The label of the execution that repeats another one."""

_NOT_COUNTED = {REPLAYED_AT, REPLAY_OF}  # or a replay would break the limit


def read_labels(value: Any, argument: str) -> dict[str, str]:
    """Return labels as a new mapping of storable texts.

    Raises:
        InvalidInput: if it is not a mapping of at most 16 labels, if a name is not made of up to 63
            lower-case letters, digits and underscores, or if a value is not a text of up to 255
            characters.
    """
    if not isinstance(value, Mapping):
        raise InvalidInput(argument, value, "is not a mapping; write it like {'tenant': 'acme'}")
    if _has_too_many(value):
        raise InvalidInput(
            argument, f"with {len(value)} labels", f"has more than {_MOST_LABELS}; pass fewer"
        )
    return {_name(name, argument): _text(name, text, argument) for name, text in value.items()}


def merged_labels(
    defaults: Mapping[str, str], labels: Mapping[str, str], argument: str
) -> dict[str, str]:
    """Return labels together with the defaults for those that are missing.

    Raises:
        InvalidInput: if there are more than 16 in all.
    """
    merged = {**defaults, **labels}
    if _has_too_many(merged):
        raise InvalidInput(
            argument,
            f"with {len(labels)} labels",
            f"has more than {_MOST_LABELS} together with the labels of the store; pass fewer",
        )
    return merged


def _has_too_many(labels: Mapping[Any, Any]) -> bool:
    return len(labels.keys() - _NOT_COUNTED) > _MOST_LABELS


def _name(name: Any, argument: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            argument,
            name,
            "is not the name of a label: up to 63 lower-case letters, digits and underscores, the "
            "first a letter; write it like 'tenant'",
        )
    return str(name)


def _text(name: str, text: Any, argument: str) -> str:
    if not isinstance(text, str) or len(text) > NAME_LENGTH:
        raise InvalidInput(
            f"{argument}[{name!r}]",
            text,
            f"is not a text of at most {NAME_LENGTH} characters; write it like 'acme'",
        )
    return storable_text(str.__str__(text))
