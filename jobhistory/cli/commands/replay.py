"""The command that enqueues jobs again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any
from uuid import UUID

import typer

from jobhistory.cli import output
from jobhistory.cli.criteria_options import takes_criteria
from jobhistory.cli.database import open_store
from jobhistory.cli.imported_app import imported_app
from jobhistory.cli.options import OPTIONS, Json, Schema, Url
from jobhistory.cli.screens.replays import print_replay_headings, print_replays, replay_cells
from jobhistory.cli.screens.screen import Screen
from jobhistory.contrib.enqueuing import Enqueuer, adapter_of
from jobhistory.contrib.replay import replaying
from jobhistory.contrib.replayer import Replayed, Replayer
from jobhistory.errors import ExecutionNotFound, InvalidInput, NotReplayable
from jobhistory.query.criteria import coerce
from jobhistory.query.terms import read_uuid
from jobhistory.store import HistoryStore


@takes_criteria
def replay(
    app: Annotated[
        str,
        typer.Option(
            help="What enqueues the jobs, such as the Celery app; imported from this folder.",
            metavar="MODULE:NAME",
        ),
    ],
    execution_id: Annotated[
        list[str] | None,
        typer.Argument(
            help="The ids of executions; `jobhistory show` prints them.",
            metavar="EXECUTION_ID",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Failed for good; short for --status failed.")
    ] = False,
    *,
    criteria: dict[str, Any],
    limit: Annotated[
        int, typer.Option(help="Maximum number of jobs to enqueue.", metavar="N")
    ] = 100,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be enqueued.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also those that were replayed before.")
    ] = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Enqueue jobs again, with the arguments that history has of them.

    Name executions, or choose them with --failed or --status and other options. Then each job is
    taken once, oldest first, unless it has a later execution or its queue will try it again. With
    --force, an execution that is named is replayed even then.

    The exit status is 1 if an execution was refused. The others are replayed all the same.
    """
    if failed:
        criteria["status"] = [*(criteria["status"] or ()), "failed"]
    named = (UUID(str(read_uuid(text, "EXECUTION_ID"))) for text in execution_id or ())
    ids = list(dict.fromkeys(named))
    _check_choice(ids, criteria)
    coerce(criteria, {"limit": limit})  # an error comes before the headings
    imported = imported_app(app)
    _check_app(app, imported)
    options: dict[str, Any] = {"force": force, "dry_run": dry_run}
    results: Iterable[Replayed | NotReplayable]
    with open_store(url, schema) as store:
        if ids:
            results = _replay_each(store, imported, ids, **options)
        else:
            results = replaying(store, imported, criteria, limit, **options)
        shown = _print(results, json=json)
    replayed = sum(isinstance(each, Replayed) for each in shown)
    if not ids and replayed == limit:
        output.say(f"stopped at --limit {limit}; there may be more")
    if replayed < len(ids or shown):
        raise typer.Exit(1)


def _check_choice(ids: list[UUID], criteria: dict[str, Any]) -> None:
    """Check that there are either ids, or a status among the criteria."""
    given = [name for name, value in criteria.items() if value is not None]
    if ids and given:
        raise InvalidInput(
            OPTIONS[given[0]], criteria[given[0]], "cannot be combined with ids; leave one out"
        )
    if not ids and criteria["status"] is None:
        output.say("nothing is chosen; pass --failed, --status, or the ids of executions")
        raise typer.Exit(2)


def _check_app(place: str, app: Any) -> None:
    """Check that jobs of an app run elsewhere: this process ends when it has enqueued them."""
    if adapter_of(app) == "apscheduler":
        raise InvalidInput(
            "--app",
            place,
            "is a scheduler, which runs its jobs in its own process; call replay() there, or pass "
            "a function that takes a Replay and asks that process to enqueue it",
        )


def _replay_each(
    store: HistoryStore, app: Any, ids: list[UUID], *, force: bool, dry_run: bool
) -> Iterator[Replayed | NotReplayable]:
    """Replay the executions with these ids; one that is refused does not stop the others."""
    with Enqueuer(app) as enqueue:
        replayer = Replayer(store.internals, enqueue, force=force, dry_run=dry_run)
        for id_ in ids:
            try:
                yield replayer.replay_or_refuse(id_)
            except ExecutionNotFound:
                output.say(f"there is no execution {id_}, or it has expired")


def _print(
    results: Iterable[Replayed | NotReplayable], *, json: bool
) -> list[Replayed | NotReplayable]:
    """Print the results and return them. In a pipe, each is printed before the next is made."""
    shown: list[Replayed | NotReplayable] = []
    screen = Screen()
    as_table = not json and screen.is_terminal
    if not as_table and not json:
        print_replay_headings()
    try:
        for result in results:
            shown.append(result)
            if json:
                output.print_json(_as_json(result))
            elif not as_table:
                output.print_tabbed([replay_cells(result)])
    finally:  # an error must not hide what was enqueued before
        if as_table:
            print_replays(screen, shown)
    return shown


def _as_json(result: Replayed | NotReplayable) -> dict[str, Any]:
    record = result.record
    return {
        "execution_id": str(record.id),
        "task_identifier": record.task_identifier,
        "job_id": record.job_id,
        "new_job_id": result.job_id if isinstance(result, Replayed) else None,
        "refused": result.reason if isinstance(result, NotReplayable) else None,
    }
