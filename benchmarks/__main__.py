"""Run all benchmarks and write their tables and a chart: `python -m benchmarks`.

This takes about ten minutes on two cores. It starts a temporary PostgreSQL server unless `--url`
names one. See README.md in this folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

from sqlalchemy import URL

from benchmarks import (
    adapters,
    archiving,
    checks,
    dashboards,
    expiry,
    hotpath,
    inference,
    notify,
    partition_upkeep,
    partitions,
    plot,
    reads,
    recording,
    rollups,
    storage,
    web,
)
from benchmarks.measuring import Table, machine, server


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
        "--rollups", action="store_true", help="only print the tables of statistics and rollups"
    )
    parser.add_argument(
        "--hot-path", action="store_true", help="only print the table of the hot path"
    )
    parser.add_argument(
        "--notify", action="store_true", help="only print the table of notifications"
    )
    parser.add_argument("--web", action="store_true", help="only print the tables of the web page")
    parser.add_argument(
        "--inference", action="store_true", help="only print the table of suggested expectations"
    )
    parser.add_argument("--check", action="store_true", help="only print the table of checks")
    parser.add_argument(
        "--partitions", action="store_true", help="only print the tables of partitions"
    )
    parser.add_argument(
        "--archive", action="store_true", help="only print the tables of the archive"
    )
    options = parser.parse_args()
    quick = options.quick
    if options.inference:
        print(inference.report(inference.measure(1 if quick else 3)).markdown(), flush=True)
        return
    rows = 20_000 if quick else options.rows
    sizes = sorted({size for size in (10_000, 1_000_000) if size < rows} | {rows})
    rounds, pairs, many = (1, 20, 200) if quick else (21, 120, 2500)
    begun = perf_counter()
    with server(options.url) as url:
        conditions = machine(url)
        print(conditions, flush=True)
        if options.rollups:
            _of_rollups(url, rows, quick=quick)
            return
        if options.notify:
            told = notify.measure(url, *((1, 160) if quick else (15, 800)))
            print(notify.report(told).markdown(), flush=True)
            return
        if options.check:
            checked = checks.measure(url, rows, 2 if quick else 11)
            print(checks.report(checked, rows).markdown(), flush=True)
            return
        if options.web:
            _of_web_page(url, rows, quick=quick)
            return
        if options.partitions:
            _of_partitions(url, rows, quick=quick)
            return
        if options.archive:
            _of_archive(url, rows)
            return
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
        tables += _of_rollups(url, rows, quick=quick)
        if quick:
            _of_partitions(url, rows, quick=True)
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


def _of_rollups(url: URL, rows: int, *, quick: bool) -> list[Table]:
    reads_of = (2, 1) if quick else (21, 3)
    from_rollups, from_rows, folded = rollups.measure_reads(url, rows, *reads_of)
    fed = rollups.measure_writes(url, *((1, 5, 200) if quick else (121, 20, 2500)))
    tables = [
        rollups.report_reads(from_rollups, from_rows, rows),
        rollups.report_writes(fed, folded),
    ]
    print(*(table.markdown() for table in tables), sep="\n", flush=True)
    return tables


def _of_partitions(url: URL, rows: int, *, quick: bool) -> list[Table]:
    pairs, many = (5, 200) if quick else (20, 2500)
    rounds, quiet = (1, 0.1) if quick else (3, 4)
    turns = (1, 1) if quick else (31, 41)
    with partitions.histories(url, rows) as urls:
        plain, parted = urls[partitions.PLAIN], urls[partitions.PARTITIONS]
        in_table = archiving.bytes_of_table(plain) / rows
        converted = partition_upkeep.measure_conversion(plain, rounds, quiet)
        pages, outcomes = partitions.measure(urls, *turns, pairs, many)
        count = partition_upkeep.create_ahead(parted)
        more_pages, more_outcomes = partitions.measure(urls, *turns, pairs, many)
        expired = partition_upkeep.measure_expiry(urls, rounds, quiet)
        speeds, size = archiving.measure(urls, partitions.STARTS[3:], in_table)
    tables = [
        partitions.report_pages(pages, more_pages, count, rows),
        partitions.report_outcomes(outcomes, more_outcomes, count, pairs, many),
        partition_upkeep.report_expiry(expired, rows),
        partition_upkeep.report_conversion(converted, rows),
        *_of_archives(url, rows, speeds, size),
    ]
    print(*(table.markdown() for table in tables), sep="\n", flush=True)
    print(f"medians that miss the target: {partitions.beyond(pages | outcomes)}", flush=True)
    return tables


def _of_archive(url: URL, rows: int) -> list[Table]:
    with partitions.histories(url, rows) as urls:
        in_table = archiving.bytes_of_table(urls[partitions.PLAIN]) / rows
        speeds, size = archiving.measure(urls, partitions.STARTS, in_table)
    tables = _of_archives(url, rows, speeds, size)
    print(*(table.markdown() for table in tables), sep="\n", flush=True)
    return tables


def _of_archives(
    url: URL, rows: int, speeds: dict[str, archiving.Speed], size: archiving.Size
) -> list[Table]:
    varied = archiving.measure_varied(url, min(rows, 300_000))
    sizes = {archiving.REPEATED: size, archiving.VARIED: varied}
    return [archiving.report(speeds, rows), archiving.report_sizes(sizes)]


def _of_web_page(url: URL, rows: int, *, quick: bool) -> list[Table]:
    loads, latencies, updates = web.measure(url, rows, *((2, 2) if quick else (21, 10)))
    tables = [web.report_views(loads, rows), web.report_viewers(latencies, updates)]
    print(*(table.markdown() for table in tables), sep="\n", flush=True)
    print(f"views that miss a target: {web.missed(loads)}", flush=True)
    compared = dashboards.measure(url, rows, 1 if quick else 5)
    tables.append(dashboards.report(compared))
    print(tables[-1].markdown(), flush=True)
    return tables


if __name__ == "__main__":
    main()
