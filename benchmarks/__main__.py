"""Run all benchmarks and write their tables and a chart: `python -m benchmarks`.

This takes about ten minutes on two cores. It starts a temporary PostgreSQL server unless `--url`
names one. See README.md in this folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

from benchmarks import adapters, expiry, hotpath, plot, reads, recording, storage
from benchmarks.measuring import machine, server


def main() -> None:
    """Run all benchmarks, print the tables, and write them and a chart to a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--url", help="a PostgreSQL server on which databases may be created")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="the size of the largest history"
    )
    parser.add_argument(
        "--quick", action="store_true", help="only check that the benchmarks work, with few rows"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("benchmark-results"),
        help="the folder for the results (default: %(default)s)",
    )
    parser.add_argument(
        "--hot-path", action="store_true", help="only print the table of the hot path"
    )
    options = parser.parse_args()
    quick = options.quick
    rows = 20_000 if quick else options.rows
    sizes = sorted({size for size in (10_000, 1_000_000) if size < rows} | {rows})
    rounds, pairs, many = (1, 20, 200) if quick else (21, 120, 2500)
    begun = perf_counter()
    with server(options.url) as url:
        conditions = machine(url)
        print(conditions, flush=True)
        hot = hotpath.measure(url, *((1, 5, 200) if quick else (81, 20, 2500)))
        print(hotpath.report(hot).markdown(), flush=True)
        if options.hot_path:
            return
        speeds = recording.measure(url, rounds, pairs, many)
        tables = [hotpath.report(hot), recording.report(speeds)]
        print(tables[-1].markdown(), flush=True)
        beside = 10_000 if quick else 300_000
        stored, added = storage.measure(url, 1 if quick else 5, pairs * 12, beside)
        tables += [storage.report(stored, beside), storage.report_additions(added)]
        print(tables[-2].markdown(), tables[-1].markdown(), sep="\n", flush=True)
        to_expire = 20_000 if quick else min(rows, 3_000_000)
        expired, latencies = expiry.measure(url, to_expire, 1 if quick else 4)
        tables.append(expiry.report(expired, latencies, to_expire))
        print(tables[-1].markdown(), flush=True)
        times = reads.measure(url, sizes, 2 if quick else 40, 1 if quick else 5)
        tables.append(reads.report(times, sizes))
        print(tables[-1].markdown(), flush=True)
        costs = adapters.report(adapters.measure(url, *((1, 10) if quick else (11, 200))))
        tables += costs
        print(*(table.markdown() for table in costs), sep="\n", flush=True)
    growing, slow = reads.beyond(times)
    conditions += f"; {(perf_counter() - begun) / 60:.0f} minutes"
    print(f"pages that take more than 1 ms plus twice the time in the smallest history: {growing}")
    print(f"pages that take more than 5 ms: {slow}")
    options.output.mkdir(parents=True, exist_ok=True)
    parts = "\n".join(table.markdown() for table in tables)
    (options.output / "results.md").write_text(f"{conditions}\n\n{parts}")
    plot.draw(parts, options.output / "results.png")
    print(f"written to {options.output}/results.md and results.png")


if __name__ == "__main__":
    main()
