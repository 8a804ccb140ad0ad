"""Charts as SVG: pure functions from numbers to markup, without any inline style.

Classes give colors, so that a chart follows the theme. A chart fills the width of its place. What
the pointer meets lies above the drawing, one area for each place on the axis, with a text and maybe
a link. It is hidden from assistive technology, as are its links from the keyboard: these have the
table behind the chart, which contains the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from math import ceil

from markupsafe import Markup, escape

from jobhistory.web.timeline import Tick

WIDTH = 480
HEIGHT = 152
_TOP, _BOTTOM = 16, 20  # room for the name of the greatest tick, and for the axis of time
_PLOT = HEIGHT - _TOP - _BOTTOM
_FLOOR = _TOP + _PLOT
_EDGE = 20  # closer to an end, the name of a tick would be cut off
_FEWEST_RUNS = 20  # fewer would be very wide
_TALLEST = 3  # times the usual
_LEAST = 1.5  # only 0 is invisible


@dataclass(frozen=True)
class Scale:
    """A vertical axis from 0: its greatest value, and the values it names."""

    top: float
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Place:
    """A place on the horizontal axis: what the pointer reads there, and where a click leads."""

    title: str
    href: str | None = None


@dataclass(frozen=True)
class Line:
    """A line: the class that gives its color, and its value at each place; `None` is a gap."""

    kind: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Run:
    """A run as a bar: the class that gives its color, and its time in milliseconds.

    Attributes:
        is_unusual: whether its time is outside the usual range; such a bar has a dot.
    """

    kind: str
    milliseconds: int
    place: Place
    is_unusual: bool = False


def stacked_bars(
    places: Sequence[Place],
    parts: Mapping[str, Sequence[int]],
    ticks: Iterable[Tick],
    label: str,
) -> Markup:
    """Return bars over time, of which each consists of parts.

    Args:
        places: one for each bar.
        parts: for each class of a part, its number in each bar; the first part is at the bottom.
        label: what the chart shows, in a sentence for those who cannot see it.
    """
    totals = [sum(numbers) for numbers in zip(*parts.values(), strict=True)]
    scale = count_scale(max(totals, default=0))
    width = WIDTH / max(1, len(places))
    drawn = list(_grid(scale))
    bases = [0.0] * len(places)
    for kind, numbers in parts.items():
        for index, number in enumerate(numbers):
            if number:
                height = max(_LEAST, number / scale.top * _PLOT)
                bottom = _FLOOR - bases[index]
                bases[index] += height
                drawn.append(_bar(kind, index * width, bottom - height, width, height))
    drawn += _names(scale, ticks)
    return _chart(drawn, _pointed(places, WIDTH / max(1, len(places))), label)


def lines(
    places: Sequence[Place], drawn_lines: Sequence[Line], ticks: Iterable[Tick], label: str
) -> Markup:
    """Return times in milliseconds over time, as lines.

    Args:
        places: one for each value of a line.
        drawn_lines: the lines; the area between the first two is filled.
        label: as for `stacked_bars`.
    """
    known = [value for line in drawn_lines for value in line.values if value is not None]
    scale = time_scale(max(known, default=0))
    drawn = list(_grid(scale))
    if len(drawn_lines) > 1:
        drawn += _band(drawn_lines[0], drawn_lines[1], scale)
    for line in drawn_lines:
        drawn += _line(line, scale)
    drawn += _names(scale, ticks)
    return _chart(drawn, _pointed(places, WIDTH / max(1, len(places))), label)


def run_bars(
    runs: Sequence[Run], usual: tuple[int, int] | None, ends: tuple[str, str], label: str
) -> Markup:
    """Return runs as bars, as high as they took long; much longer ones have a gap near the top.

    Args:
        runs: the runs from left to right.
        usual: the range of usual times in milliseconds, which is shaded; `None` if unknown.
        ends: the names of the first and of the last run.
        label: as for `stacked_bars`.
    """
    longest = max((run.milliseconds for run in runs), default=0)
    # One run of hours would hide the differences between all others.
    scale = time_scale(min(longest, _TALLEST * usual[1]) if usual else longest)
    width = WIDTH / max(_FEWEST_RUNS, len(runs))
    drawn = list(_grid(scale))
    if usual:
        low, high = (value / scale.top * _PLOT for value in usual)
        drawn.insert(0, _area("usual", 0, _FLOOR - high, WIDTH, max(_LEAST, high - low)))
    for index, run in enumerate(runs):
        drawn += _run_bar(run, index * width, width, scale)
    drawn += _names(scale, _ends(ends, len(runs) * width / WIDTH))
    return _chart(drawn, _pointed([run.place for run in runs], width), label)


def sparkline(runs: Sequence[int], failures: Sequence[int], label: str) -> Markup:
    """Return a small chart of runs, and of the failures among them."""
    top = max(runs, default=0) or 1
    drawn = [
        _element("path", class_=kind, d="".join(_spark_bars(numbers, top)))
        for kind, numbers in (("runs", runs), ("failed", failures))
        if any(numbers)
    ]
    box = f"0 0 {4 * max(1, len(runs))} 20"
    return _element(
        "svg",
        *drawn,
        class_="spark",
        viewBox=box,
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def share_bar(share: float) -> Markup:
    """Return a bar that fills a share of its width, from 0 to 1. A number stands beside it."""
    return _element(
        "svg",
        _area("track", 0, 0, 100, 6),
        _area("failed", 0, 0, max(1.0, share * 100), 6),
        class_="share",
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def span_bar(kind: str, start: float, length: float, *, is_open: bool) -> Markup:
    """Return a bar from a place to another on an axis from 0 to 1.

    Args:
        kind: the class that gives its color.
        is_open: whether it has no end yet.
    """
    width = max(4.0, length * 1000)
    drawn = [_area(kind, min(start * 1000, 1000 - width), 2, width, 10)]
    if is_open:
        drawn.append(_element("path", class_="open", d="M990 2l10 5l-10 5z"))
    return _element(
        "svg",
        _area("track", 0, 6.5, 1000, 1),
        *drawn,
        class_="span",
        viewBox="0 0 1000 14",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def range_bar(value: float, low: float, high: float) -> Markup:
    """Return a value on an axis from 0 on which a range is shaded. Numbers stand beside it."""
    top = max(high * 1.5, min(value, high * 4) * 1.1, 1.0)
    mark = min(value, top) / top * 100
    return _element(
        "svg",
        _area("track", 0, 4, 100, 2),
        _area("usual", low / top * 100, 1, max(1.0, (high - low) / top * 100), 8),
        _area("mark", min(mark, 99), 0, 1, 10),
        class_="range",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def count_scale(most: int) -> Scale:
    """Return an axis for numbers up to one."""
    step = next(each for each in _round_numbers() if each * 3 >= most)
    return _scale(most, step, lambda value: f"{int(value):,}")


_TIME_STEPS = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(seconds * 1000 for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * 60_000 for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3_600_000 for hours in (1, 2, 6, 12, 24)),
)


def time_scale(most: float) -> Scale:
    """Return an axis for times in milliseconds up to one, with whole units."""
    step = next((each for each in _TIME_STEPS if each * 3 >= most), _TIME_STEPS[-1])
    while step * 3 < most:
        step *= 2
    return _scale(most, step, _time_text)


def _scale(most: float, step: int, text: Callable[[float], str]) -> Scale:
    number = max(1, ceil(most / step))
    ticks = tuple((index * step, text(index * step)) for index in range(1, number + 1))
    return Scale(number * step, ticks)


def _round_numbers() -> Iterator[int]:
    return (factor * 10**power for power in count() for factor in (1, 2, 5))


def _time_text(milliseconds: float) -> str:
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds >= size:
            return f"{milliseconds / size:g} {unit}"
    return f"{milliseconds:g} ms"


def _chart(drawn: Iterable[Markup], pointed: Iterable[Markup], label: str) -> Markup:
    return _element(
        "svg",
        _element("g", *drawn, role="img", aria_label=label),
        _element("g", *pointed, aria_hidden="true"),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
    )


def _pointed(places: Sequence[Place], width: float) -> Iterator[Markup]:
    for index, place in enumerate(places):
        title = _element("title", place.title)
        area = _element("rect", title, class_="place", x=index * width, width=width, height=HEIGHT)
        yield area if place.href is None else _element("a", area, href=place.href, tabindex=-1)


def _grid(scale: Scale) -> Iterator[Markup]:
    for value in (0.0, *(value for value, _ in scale.ticks)):
        y = _height_of(value, scale)
        yield _element("line", class_="grid", x2=WIDTH, y1=y, y2=y)


def _names(scale: Scale, ticks: Iterable[Tick]) -> Iterator[Markup]:
    """Yield the names on both axes, which are drawn last, so that nothing hides them."""
    for value, text in scale.ticks:
        yield _element("text", text, x=1, y=_height_of(value, scale) - 3)
    for tick in ticks:
        x = tick.place * WIDTH
        anchor = "start" if x < _EDGE else "end" if x > WIDTH - _EDGE else "middle"
        yield _element("line", class_="tick", x1=x, x2=x, y1=_FLOOR, y2=_FLOOR + 3)
        yield _element("text", tick.text, x=x, y=HEIGHT - 4, text_anchor=anchor)


def _height_of(value: float, scale: Scale) -> float:
    return _FLOOR - value / scale.top * _PLOT


def _ends(names: tuple[str, str], last: float) -> Iterator[Tick]:
    first_name, last_name = names
    yield Tick(0, first_name)
    if last_name != first_name and last > 0.4:  # closer ones would overlap
        yield Tick(last, last_name)


def _run_bar(run: Run, x: float, width: float, scale: Scale) -> Iterator[Markup]:
    is_cut = run.milliseconds > scale.top
    height = _PLOT + 5 if is_cut else max(_LEAST, run.milliseconds / scale.top * _PLOT)
    yield _bar(run.kind, x, _FLOOR - height, width, height)
    if is_cut:
        yield _area("cut", x, _TOP + 4, width, 3)
    if run.is_unusual:
        yield _element("circle", class_="unusual", cx=x + width / 2, cy=_FLOOR - height - 5, r=1.8)


def _line(line: Line, scale: Scale) -> Iterator[Markup]:
    for run in _without_gaps(line.values):
        points = [_point(index, value, len(line.values), scale) for index, value in run]
        if len(points) == 1:
            ((x, y),) = points
            yield _element("circle", class_=line.kind, cx=x, cy=y, r=2)
        else:
            yield _element("polyline", class_=line.kind, points=_joined(points))


def _band(low: Line, high: Line, scale: Scale) -> Iterator[Markup]:
    number = len(low.values)
    for run in _without_gaps(low.values):
        above = [(index, high.values[index] or value) for index, value in run]
        if len(run) > 1:
            corners = [*above, *reversed(run)]
            points = [_point(index, value, number, scale) for index, value in corners]
            yield _element("polygon", class_="band", points=_joined(points))


def _without_gaps(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    """Yield each series of known values, with the place of each."""
    for is_known, run in groupby(enumerate(values), key=lambda item: item[1] is not None):
        if is_known:
            yield [(index, value) for index, value in run if value is not None]


def _point(index: int, value: float, number: int, scale: Scale) -> tuple[float, float]:
    return (index + 0.5) * WIDTH / number, _height_of(value, scale)


def _joined(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{_text(x)},{_text(y)}" for x, y in points)


def _spark_bars(numbers: Sequence[int], top: int) -> Iterator[str]:
    for index, number in enumerate(numbers):
        if number:
            height = _text(max(_LEAST, number / top * 20))
            yield f"M{4 * index} 20v-{height}h3v{height}z"


def _bar(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    gap = min(2.0, width * 0.2)
    return _area(kind, x + gap / 2, y, width - gap, height)


def _area(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    return _element("rect", class_=kind, x=x, y=y, width=width, height=height)


def _element(name: str, /, *content: str, **attributes: str | float) -> Markup:
    """Return an element; content that is not `Markup` is escaped, as all attributes are."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
    )
    inside = "".join(escape(each) for each in content)
    return Markup(f"<{name}{written}>{inside}</{name}>")  # noqa: S704 - everything is escaped


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
