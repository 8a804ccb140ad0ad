"""The commands that declare what is expected of tasks: `expect list`, `add` and others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from jobhistory._runtime.clock import utc_now
from jobhistory.cli import output
from jobhistory.cli.database import open_store
from jobhistory.cli.expectation_options import machine_timezone, takes_expectation
from jobhistory.cli.options import Json, Labels, NoPager, Schema, Tasks, Url, Utc
from jobhistory.cli.pager import paged
from jobhistory.cli.screens.cells import counted
from jobhistory.cli.screens.expectations import (
    limits_text,
    next_text,
    print_expectation,
    print_expectations,
    schedule_text,
)
from jobhistory.cli.screens.screen import Screen
from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import name_text
from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.toml_file import load_expectations, written_as_toml
from jobhistory.query.terms import read_coming_moment, read_label_texts
from jobhistory.store import HistoryStore

Name = Annotated[
    str,
    typer.Argument(help="The name: the task, or 'task{label=value}'.", metavar="NAME"),
]


def list_expectations(
    task: Tasks = None,
    no_pager: NoPager = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List what is expected, ordered by name."""
    with open_store(url, schema) as store:
        found = _declared(store, task)
    if json:
        for each in found:
            output.print_json(each.to_dict())
    else:
        screen = Screen()
        with paged(screen.console, use_pager=not no_pager):
            print_expectations(screen, found)


def show(
    name: Name, utc: Utc = False, json: Json = False, url: Url = None, schema: Schema = None
) -> None:
    """Show all that is known of an expectation."""
    with open_store(url, schema) as store:
        found = _named(store, name)
    if json:
        output.print_json(found.to_dict())
    else:
        print_expectation(Screen(utc=utc), found)


@takes_expectation
def add(
    task: Annotated[str, typer.Argument(help="The task.", metavar="TASK")],
    values: dict[str, Any],
    label: Labels = None,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Declare what is expected of a task.

    It replaces the expectation of the same task and labels, if there is one. 'expect edit' changes
    a part of it.

    Without --timezone, --cron is in the time zone of this machine, as cron runs.
    """
    values = {"labels": read_label_texts(label, "--label")} | values
    if values.get("cron"):
        values = {"timezone": machine_timezone()} | values
    with _named_as_typed("TASK"):
        expectation = Expectation(task, **values)
    with open_store(url, schema) as store:
        store.expect(expectation)
    _print(expectation, json=json)


@takes_expectation
def edit(
    name: Name,
    values: dict[str, Any],
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Change a part of an expectation: what is given. An empty value stands for the default.

    If its schedule changes, nothing is expected before now.
    """
    if not values:
        output.say("nothing to change; pass --every, --grace, --owner or another option")
        raise typer.Exit(2)
    _change(name, values, url=url, schema=schema, json=json)


def remove(
    names: Annotated[
        list[str],
        typer.Argument(help="The names: the task, or 'task{label=value}'.", metavar="NAME"),
    ],
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Remove expectations, and close their incidents without an alert."""
    with open_store(url, schema) as store:
        for name in names:
            _named(store, name)
        for name in names:
            store.remove_expectation(name)
    if json:
        output.print_json({"removed": names})
    else:
        for name in names:
            print(f"{output.one_line(name)} removed")


def pause(
    name: Name,
    until: Annotated[
        str,
        typer.Option(
            help="'2h' (from now), 'tomorrow 9:00', 'monday' or a date, in your time zone.",
            metavar="WHEN",
        ),
    ],
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Expect nothing until a time, such as the end of a maintenance.

    What was due before does not count afterwards. Open incidents stay open.
    """
    now = utc_now().replace(microsecond=0)
    moment = read_coming_moment(until, "--until", now, zone=None)
    _change(name, {"paused_until": moment}, url=url, schema=schema, json=json)


def resume(name: Name, json: Json = False, url: Url = None, schema: Schema = None) -> None:
    """End a pause: from now on, the expectation counts again. Without a pause, nothing changes."""
    now = utc_now()
    with open_store(url, schema) as store:
        paused = _named(store, name).expectation.paused_until
    is_paused = paused is not None and paused > now
    values = {"paused_until": now} if is_paused else {}
    _change(name, values, url=url, schema=schema, json=json)


def load(
    file: Annotated[
        str, typer.Argument(help="The TOML file, as 'expect export' prints it.", metavar="FILE")
    ],
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove what an earlier version of the file declared."),
    ] = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Declare the expectations of a TOML file.

    They replace those of the same tasks and labels. Loading the same file again changes nothing.
    """
    try:
        wanted = load_expectations(file)
    except OSError as error:
        raise InvalidInput("FILE", file, f"cannot be read: {error.strerror}") from error
    source = f"file:{Path(file).resolve()}"
    names = {each.name for each in wanted}
    with open_store(url, schema) as store:
        for expectation in wanted:
            store.expect(expectation, source=source)
        gone = [
            each.expectation.name
            for each in (store.expectations() if prune else ())
            if each.source == source and each.expectation.name not in names
        ]
        for name in gone:
            store.remove_expectation(name)
    if json:
        output.print_json({"declared": sorted(names), "removed": gone})
    else:
        removed = f", {len(gone)} removed" if prune else ""
        print(f"{counted(len(names), 'expectation')} declared{removed}")


def export(task: Tasks = None, url: Url = None, schema: Schema = None) -> None:
    """Print what is expected as a TOML file, for 'expect load'."""
    with open_store(url, schema) as store:
        found = _declared(store, task)
    print("\n".join(written_as_toml(each.expectation) for each in found), end="")


def _declared(store: HistoryStore, task: list[str] | None) -> list[DeclaredExpectation]:
    tasks = [name_text(each, "--task") for each in task or ()]
    return [
        each
        for each in store.expectations()
        if not tasks or each.expectation.task_identifier in tasks
    ]


def _change(
    name: str, values: dict[str, Any], *, url: str | None, schema: str | None, json: bool
) -> None:
    """Declare an expectation again, with some other values."""
    Expectation("checked", **values)  # an error of an option comes before those of the database
    with open_store(url, schema) as store:
        before = _named(store, name)
        kept = before.expectation.to_dict()
        if values.get("cron"):
            kept = {"timezone": machine_timezone()} | kept | {"every": None}
        if values.get("every"):
            kept |= {"cron": None}
        expectation = Expectation.of(kept | values)
        store.expect(expectation, source=before.source)
    _print(expectation, json=json)


def _named(store: HistoryStore, name: str) -> DeclaredExpectation:
    for each in store.expectations():
        if each.expectation.name == name:
            return each
    raise InvalidInput("NAME", name, "is not declared; 'jobhistory expect list' shows what is")


@contextmanager
def _named_as_typed(task: str) -> Iterator[None]:
    """Name the argument for the task as it is on the command line."""
    try:
        yield
    except InvalidInput as error:
        if error.argument != "task_identifier":
            raise
        raise InvalidInput(task, error.value, error.remedy) from None


def _print(expectation: Expectation, *, json: bool) -> None:
    """Print what is expected from now on."""
    if json:
        output.print_json(expectation.to_dict() | {"name": expectation.name})
        return
    coming = next_text(expectation, Screen())
    parts = [
        schedule_text(expectation),
        limits_text(expectation),
        coming if coming in ("", "paused") else f"next {coming}",
    ]
    print(output.one_line(f"{expectation.name}: {', '.join(filter(None, parts))}"))
