"""The command that prints the help of others."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def show_help(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(help="The command, such as 'list' or 'db upgrade'.", metavar="COMMAND"),
    ] = None,
) -> None:
    """Show the help of a command, or the list of all commands."""
    shown: Any = context.find_root()
    for word in command or ():
        if not hasattr(shown.command, "resolve_command"):
            raise typer.BadParameter(f"{shown.command_path!r} has no commands", ctx=context)
        name, found, _ = shown.command.resolve_command(shown, [word])
        settings = found.context_settings
        shown = type(shown)(found, info_name=name, parent=shown, **settings)
    print(shown.command.get_help(shown))
