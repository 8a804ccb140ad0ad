"""Draw the tables of a report as a chart: `python -m benchmarks.plot REPORT PICTURE`.

`python -m benchmarks.plot benchmarks/README.md docs/images/benchmark.svg` redraws the chart of the
README. The suffix of the picture determines its format.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

OURS, OTHERS, GROWING = "#2f6fb3", "#b9bec6", "#e08a2b"
Rows = list[list[str]]


def tables(report: str) -> dict[str, Rows]:
    """Return the tables of a report by section title. The first row has the column headings."""
    found: dict[str, Rows] = {}
    for part in re.split(r"^#{2,3} ", report, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        if cells:
            found[title] = [cells[0], *cells[2:]]
    return found


def draw(report: str, picture: Path) -> None:
    """Draw the four tables of a report."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    mpl.rcParams |= {"font.size": 11, "svg.hashsalt": "jobhistory", "axes.titlesize": 12}
    figure, ((recording, reading), (storing, expiring)) = plt.subplots(
        2, 2, figsize=(12, 7.2), layout="constrained", height_ratios=[3, 1.1]
    )
    found = tables(report)
    _draw_recording(recording, found["Recording"][1:])
    _draw_reads(reading, found["Reads"])
    storage = found["What an execution costs the server"][1:]
    _draw_bars(
        storing,
        "WAL bytes per execution, 5 % failures",
        [
            (name, _figure(wal), f"{_figure(wal):,.0f}, {hot} heap-only")
            for name, wal, _, hot in storage
        ],
    )
    _draw_bars(
        expiring,
        "Recording p99 while old rows are deleted",
        [(way, float(p99), f"{p99} ms") for way, _, _, p99, *_ in found["Expiry"][1:]],
    )
    for axes in (recording, reading, storing, expiring):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110, metadata={"Date": None} if picture.suffix == ".svg" else None)
    plt.close(figure)


def _draw_recording(axes: Any, rows: Rows) -> None:
    ordered = sorted((_figure(speed), name) for name, speed, *_ in rows)
    ours = ("record_start + record_completion", "Recorder", "record_many")
    bars = axes.barh(
        [name for _, name in ordered],
        [speed for speed, _ in ordered],
        color=[OURS if name in ours else OTHERS for _, name in ordered],
    )
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set(xscale="log", title="Executions recorded per second, one thread")
    axes.margins(x=0.15)


def _draw_reads(axes: Any, rows: Rows) -> None:
    sizes = [_figure(heading) for heading in rows[0][1:-1]]
    color = OURS
    for name, *times, _ in rows[1:]:
        if name:
            axes.plot(sizes, [*map(_figure, times)], color=color, alpha=0.5, marker=".")
        else:  # an empty line separates the two kinds
            color = GROWING
    axes.plot([], [], color=OURS, label="a page, a lookup, or a capped count")
    axes.plot([], [], color=GROWING, label="scans its window, or the whole history")
    axes.set(xscale="log", yscale="log", xlabel="rows in the history", title="Reads, milliseconds")
    axes.set_ylim(top=30_000)
    axes.legend(frameon=False, loc="upper left")


def _draw_bars(axes: Any, title: str, rows: list[tuple[str, float, str]]) -> None:
    names, figures, labels = zip(*reversed(rows), strict=True)
    colors = [OURS if name in ("jobhistory", "expire()") else OTHERS for name in names]
    axes.bar_label(axes.barh(names, figures, color=colors), labels, padding=3)
    axes.set(title=title)
    axes.margins(x=0.95)


def _figure(text: str) -> float:
    """Return the first number of a cell such as `1,413 (1,104 - 1,638)`."""
    return float(text.split()[0].replace(",", ""))


def main() -> None:
    """Draw a chart of the report that is named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    draw(options.report.read_text(), options.picture)


if __name__ == "__main__":
    main()
