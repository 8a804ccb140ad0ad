"""One cron expression that says as much as several."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations


def union(expressions: Iterable[str]) -> str | None:
    """Return a cron expression for the slots of all; `None` if there is none.

    Two expressions become one if they differ in one field, and it has no star: `0 2 * * *` and
    `0 14 * * *` become `0 2,14 * * *`.
    """
    left = [tuple(expression.split()) for expression in dict.fromkeys(expressions)]
    while len(left) > 1:
        pairs = ((one, other, _together(one, other)) for one, other in combinations(left, 2))
        one, other, both = next((each for each in pairs if each[2]), (None, None, None))
        if both is None:
            return None
        left = [both, *(each for each in left if each not in (one, other, both))]
    return " ".join(left[0]) if left else None


def _together(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...] | None:
    places = [place for place, text in enumerate(one) if text != other[place]]
    if len(places) != 1:
        return None
    (place,) = places
    texts = {*one[place].split(","), *other[place].split(",")}
    if any("*" in text for text in texts):  # a star at the beginning changes what others mean
        return None
    return (*one[:place], ",".join(sorted(texts, key=_in_order)), *one[place + 1 :])


def _in_order(text: str) -> tuple[int, str]:
    digits = text.partition("-")[0].partition("/")[0]
    return (int(digits) if digits.isdecimal() else 0, text)
