"""The report as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks import questions
from benchmarks.measuring import percentile


def draw(
    path: Path,
    speeds: dict[str, list[float]],
    storage: dict[str, list[list[float]]],
    times: dict[str, list[float]],
    sizes: Sequence[int],
    expiry: dict[str, list[float]],
) -> None:
    """Write a PNG of the four parts."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, ((recording, asking), (storing, expiring)) = plt.subplots(
        2, 2, figsize=(13, 9), layout="constrained"
    )
    names = sorted(speeds, key=lambda name: statistics.median(speeds[name]))
    ours = ("plain verbs", "Recorder", "record_many")
    bars = recording.barh(
        names,
        [statistics.median(speeds[name]) for name in names],
        color=["tab:blue" if name in ours else "lightgray" for name in names],
    )
    recording.bar_label(bars, fmt="{:,.0f}", padding=3)
    recording.set(xscale="log", title="Executions recorded a second, one thread")
    recording.margins(x=0.15)

    for name in questions.PAGES:
        asking.plot(sizes, times[name], color="tab:blue", alpha=0.5, marker=".")
    for name in questions.WINDOWS:
        asking.plot(sizes, times[name], color="tab:orange", alpha=0.5, marker=".")
    asking.plot([], [], color="tab:blue", label="a bounded page, count or lookup")
    asking.plot([], [], color="tab:orange", label="reads a window, or all")
    asking.set(xscale="log", yscale="log", xlabel="rows", ylabel="ms", title="Questions")
    asking.legend()

    designs = list(storage)
    bars = storing.bar(
        designs, [statistics.median(storage[name][0]) for name in designs], color="tab:blue"
    )
    storing.bar_label(
        bars, [f"{statistics.median(storage[name][1]):.0%} heap-only" for name in designs]
    )
    storing.set(title="WAL bytes an execution, at 5 % failures")

    ways = list(expiry)
    bars = expiring.bar(ways, [percentile(expiry[way], 99) for way in ways], color="tab:blue")
    expiring.bar_label(bars, fmt="{:,.1f} ms")
    expiring.set(title="A recorder's p99 while history expires, ms")
    figure.savefig(path, dpi=80)
