"""Small charts in a line of text."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_STEPS = "▁▂▃▄▅▆▇█"
_ASCII_STEPS = "_.-=+*%#"


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar that fills so much of the width, from 0 to 1; the least that is not 0 can be seen."""
    if ascii_only:
        return "#" * _at_least_one(share, round(share * width))
    whole, part = divmod(_at_least_one(share, round(share * width * 8)), 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")


def spark(values: Sequence[float], *, ascii_only: bool = False) -> str:
    """A column for each value, the greatest as high as a line; only 0 is as low as can be."""
    steps = _ASCII_STEPS if ascii_only else _STEPS
    top = max(values, default=0)
    if not top:
        return steps[0] * len(values)
    return "".join(
        steps[_at_least_one(value, round(value / top * (len(steps) - 1)))] for value in values
    )


def _at_least_one(value: float, steps: int) -> int:
    return max(1, steps) if value else 0
