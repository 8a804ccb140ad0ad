"""Small charts within a line of text."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_STEPS = "▁▂▃▄▅▆▇█"
_ASCII_STEPS = "_.-=+*%#"


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """Return a bar that fills a share of the width, from 0 to 1; only 0 is invisible."""
    if ascii_only:
        return "#" * _at_least_one(share, round(share * width))
    whole, part = divmod(_at_least_one(share, round(share * width * 8)), 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")


def spark(values: Sequence[float], top: float, *, ascii_only: bool = False) -> str:
    """Return one character per value. `top` would fill the line; only 0 has the lowest one."""
    steps = _ASCII_STEPS if ascii_only else _STEPS
    return "".join(
        steps[_at_least_one(value, round(value / top * (len(steps) - 1))) if top else 0]
        for value in values
    )


def _at_least_one(value: float, steps: int) -> int:
    return max(1, steps) if value else 0
