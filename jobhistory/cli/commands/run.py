"""Run a command and record its execution: what Typer knows of it."""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import Annotated, Any

import typer

from jobhistory.cli.wrapper.options import OPTIONS, RunOption
from jobhistory.errors import InvalidInput


def run(**values: Any) -> None:
    """Run a command and record its execution.

    Output passes through unchanged, and the exit status is that of the command: 128 plus the number
    of the signal that ended it, 124 after --timeout, 127 if it was not found, 126 if it could not
    be started. If history cannot be written, the command still runs, and a line on standard error
    says what was not recorded. Invalid options are refused with exit status 2 before the command
    runs.

    Unless all runs are kept, nothing is written before the command ends: `jobhistory running` does
    not show it, and nothing is left of it if the machine stops. Statistics count all runs.
    """
    # `jobhistory.cli.main` runs the command without Typer, which takes too long to import. This
    # function only describes it, for --help and for the completion of shells.
    raise InvalidInput("COMMAND", "run", "is not the first word; write 'jobhistory run -- true'")


def _parameter(option: RunOption) -> Parameter:
    described = typer.Option(
        option.name,
        help=option.help,
        metavar=option.metavar,
        envvar=option.environment,
        show_default=option.default_text is not None,
    )
    kind: Any = bool if option.metavar is None else str | None
    default: Any = False if option.metavar is None else option.default_text
    return Parameter(
        option.field,
        Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[list[str] | None if option.may_repeat else kind, described],
    )


_COMMAND = Parameter(
    "command",
    Parameter.KEYWORD_ONLY,
    annotation=Annotated[
        list[str],
        typer.Argument(help="The command and its arguments, after --.", metavar="COMMAND"),
    ],
)
_SIGNATURE = Signature([_COMMAND, *map(_parameter, OPTIONS)])

run.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
run.__annotations__ = {name: each.annotation for name, each in _SIGNATURE.parameters.items()}
