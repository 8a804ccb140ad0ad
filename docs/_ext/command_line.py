"""The directive `command-line`: what each command and option is for, as `--help` says it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jobhistory.cli.app import program
from jobhistory.cli.help import default_text, option_term

# The sentences of `--url` and `--schema` are on the page once, not below every command.
EVERYWHERE = ("url", "schema", "json", "help")


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with the words that call it."""
    for name, command in group.commands.items():
        words = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from commands(command, words)
        else:
            yield words, command


def option_lines(parameter: Any) -> list[str]:
    """Return an entry of a definition list, in Markdown."""
    help_text = parameter.help or ""
    if default := default_text(parameter):
        help_text += f" Default: `{default}`."
    if parameter.envvar:
        help_text += f" Environment variable: `{parameter.envvar}`."
    return [f"`{option_term(parameter)}`", f": {help_text}", ""]


def describe(words: str, command: Any) -> list[str]:
    """Return the section of a command, in Markdown."""
    context = command.make_context(words, [], resilient_parsing=True)
    lines = [
        f"## {words.removeprefix('jobhistory ')}",
        "",
        "```text",
        " ".join([words, *command.collect_usage_pieces(context)]),
        "```",
    ]
    lines += ["", *inspect.cleandoc(command.help or "").splitlines(), ""]
    lines += ["```sh", *(command.epilog or "").splitlines(), "```", ""]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            lines += [
                f"`{parameter.metavar or parameter.name.upper()}`",
                f": {parameter.help or ''}",
                "",
            ]
        elif parameter.name not in EVERYWHERE:
            lines += option_lines(parameter)
    return lines


class CommandLine(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        lines: list[str] = []
        for words, command in commands(program, "jobhistory"):
            lines += describe(words, command)
        container = nodes.Element()
        self.state.nested_parse(
            StringList(lines, source="command_line.py"),
            self.content_offset,
            container,
            match_titles=True,
        )
        return container.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
