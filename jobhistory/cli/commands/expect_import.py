"""The command that imports schedules as expectations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated

import typer

from jobhistory._runtime.durations import parse_duration
from jobhistory.cli import output
from jobhistory.cli.database import open_store
from jobhistory.cli.expectation_options import machine_timezone
from jobhistory.cli.importing import Importer
from jobhistory.cli.options import Json, Schema, Url
from jobhistory.cli.screens.imports import print_plan
from jobhistory.cli.screens.screen import Screen
from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import name_text
from jobhistory.expectations.importing.found import Found, one_for_each_task
from jobhistory.expectations.importing.plan import Action, Step, plan_import
from jobhistory.expectations.schedule import read_timezone
from jobhistory.expectations.toml_file import written_as_toml
from jobhistory.store import HistoryStore

_DEFAULT_GRACE = timedelta(minutes=5)
_DONE = {
    Action.ADD: "added",
    Action.CHANGE: "changed",
    Action.REMOVE: "removed",
    Action.KEEP: "kept",
    Action.SKIP: "skipped",
}


def import_schedules(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Crontabs, timers, or folders of them; - is standard input. Default: your own "
            "crontab; the timers of this machine and yours.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    crontab: Annotated[bool, typer.Option("--crontab", help="From crontabs.")] = False,
    system: Annotated[
        bool,
        typer.Option("--system", help="Lines name a user, as in /etc/crontab and /etc/cron.d."),
    ] = False,
    systemd: Annotated[bool, typer.Option("--systemd", help="From timers of systemd.")] = False,
    app: Annotated[
        str | None,
        typer.Option(
            help="From an app, such as the Celery app; imported from this folder.",
            metavar="MODULE:NAME",
            show_default=False,
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            help="The time zone of schedules that name none. Default: that of this machine.",
            show_default=False,
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            help="How late they may start. Default: '5m' for new ones.", show_default=False
        ),
    ] = None,
    unrecorded: Annotated[
        bool, typer.Option("--unrecorded", help="Also what `jobhistory run` does not record.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(help="The name of the source. Default: the place.", show_default=False),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove earlier imports that the source no longer has."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be done.")
    ] = False,
    toml: Annotated[
        bool, typer.Option("--toml", help="Only print TOML for a file; use no database.")
    ] = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Import schedules as expectations: from crontabs, timers of systemd, or an app.

    The tasks are those that `jobhistory run` or the adapter of the app records. What cannot be
    expected is printed with the reason. A second import changes the schedules of what came from
    the same source, and nothing else of it; what you have declared yourself stays as it is.
    """
    if crontab + systemd + (app is not None) != 1:
        output.say("name one of --crontab, --systemd and --app")
        raise typer.Exit(2)
    if files and app is not None:
        raise InvalidInput("FILE", files[0], "does not go with --app; leave one out")
    if source is not None:
        name_text(source, "--source")
    period = _DEFAULT_GRACE if grace is None else parse_duration(grace, "--grace")
    zone = machine_timezone() if timezone is None else read_timezone(timezone, "--timezone")
    importer = Importer(zone, period, with_unrecorded=unrecorded)
    if app is not None:
        sources = dict(importer.app(app))
    elif crontab:
        sources = dict(importer.crontabs(files or (), is_system=system))
    else:
        sources = dict(importer.timers(files or ()))
    found = _merged(sources, source)
    if toml:
        _print_toml(found)
        return
    with open_store(url, schema) as store:
        declared = store.expectations()
        steps = [*plan_import(found, declared, with_grace=grace is not None, prune=prune)]
        if not dry_run:
            _apply(store, steps)
    if json:
        for step in steps:
            output.print_json(step.to_dict())
    else:
        print_plan(Screen(), steps)
    output.say(_summary(steps, dry_run=dry_run))


def _merged(sources: Mapping[str, Sequence[Found]], name: str | None) -> dict[str, list[Found]]:
    """Return the schedules of each source, with one expectation for each task among them all."""
    if name is not None:
        sources = {name: [each for found in sources.values() for each in found]}
    unique = iter(one_for_each_task([each for found in sources.values() for each in found]))
    return {source: [next(unique) for _ in found] for source, found in sources.items()}


def _print_toml(sources: Mapping[str, Sequence[Found]]) -> None:
    for source, found in sources.items():
        print(f"# {output.one_line(source)}")
        for each in found:
            if each.note is not None:
                print(f"# {output.one_line(f'{each.where}: {each.note}')}")
            if each.expectation is not None:
                print(written_as_toml(each.expectation))


def _apply(store: HistoryStore, steps: Sequence[Step]) -> None:
    for step in steps:
        if step.expectation is None:
            continue
        if step.action in (Action.ADD, Action.CHANGE):
            store.expect(step.expectation, source=step.source)
        elif step.action is Action.REMOVE:
            store.remove_expectation(step.expectation.name)


def _summary(steps: Sequence[Step], *, dry_run: bool) -> str:
    counts = Counter(step.action for step in steps)
    parts = [f"{counts[action]} {word}" for action, word in _DONE.items() if counts[action]]
    what = ", ".join(parts) or "found no schedules"
    is_same = not any(counts[each] for each in (Action.ADD, Action.CHANGE, Action.REMOVE))
    if is_same and parts:
        return f"nothing changed: {what}"
    return f"would be: {what}" if dry_run and parts else what
