"""The help of commands: what one does, how to call it, its options in groups, and examples."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from jobhistory._runtime.url_passwords import redact_urls
from jobhistory.errors import InvalidInput

_MOST_WIDTH = 100
_OPTION_WIDTH = 25
"""The width of the column of options. The help of a longer option begins on the next line."""

_GROUPS = ("Arguments", "Filter", "Options", "Output", "Database", "Other")
"""The groups of options, in their order. An option without a group is among "Options".

Groups of single commands come after the "Options".
"""


class Command(TyperCommand):
    """A command whose help has examples, from the epilog, at its end."""

    def make_context(self, info_name: Any, args: list[str], *others: Any, **options: Any) -> Any:
        """Read the command line."""
        words = [*args]  # Typer takes the words from the list
        try:
            return super().make_context(info_name, args, *others, **options)
        except Exception as error:
            invalid = _invalid_value(error, words)
            if invalid is None:
                _hide_passwords(error)
                raise
        raise invalid

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write("\n".join(_command_lines(self, ctx)) + "\n")

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the name of the command that show how to call it."""
        dashes = [] if ctx.allow_interspersed_args else ["[--]"]
        parameters = self.get_params(ctx)
        arguments = [each for each in parameters if each.param_type_name == "argument"]
        return ["[OPTIONS]", *dashes, *map(_argument_term, arguments)]


class Group(TyperGroup):
    """A command that has others, which its help lists in groups."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was typed."""
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:
            _hide_passwords(error)
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write("\n".join(_group_lines(self, ctx)) + "\n")


def first_sentence(command: Any) -> str:
    """Return what a command does, in a line."""
    return str(inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " "))


def option_term(parameter: Any) -> str:
    """Return an option as one writes it, such as `--limit N`."""
    names = ", ".join(sorted(parameter.opts, key=len))
    return names if parameter.is_flag else f"{names} {parameter.metavar or 'TEXT'}"


def default_text(parameter: Any) -> str:
    """Return the default of an option as text; an empty one if it has none to show."""
    default = parameter.default
    is_flag = getattr(parameter, "is_flag", False)  # an argument is none
    is_shown = not is_flag and parameter.show_default and default not in (None, "", ())
    return str(default) if is_shown else ""


_NOT_ONE_OF = re.compile(r"'(.*)' is not one of (.+?)\.?", re.DOTALL)


def _invalid_value(error: Exception, words: Sequence[str]) -> InvalidInput | None:
    """Return an error of Typer's in our words; `None` if it is not about a value.

    Typer's messages differ between its versions, and the later ones do not quote a number.
    """
    parameter, message = getattr(error, "param", None), str(getattr(error, "message", ""))
    if parameter is None:
        return None
    choice = _NOT_ONE_OF.fullmatch(message.removeprefix("Value error, "))
    if choice is not None:
        is_option = parameter.param_type_name == "option"
        name = parameter.opts[0] if is_option else parameter.metavar or parameter.name.upper()
        return InvalidInput(name, choice[1], f"is not one of {choice[2]}")
    if "an integer" not in message and "valid integer" not in message:
        return None
    typed = _typed(error, parameter, words)
    if typed is None:
        return None
    is_long = typed.isdecimal() and len(typed) > 4_000  # Python refuses to read it
    problem = "is too large" if is_long else "is not a whole number"
    example = parameter.default if isinstance(parameter.default, int) else 2
    return InvalidInput(parameter.opts[0], typed, f"{problem}; write it like {example}")


def _hide_passwords(error: Any) -> None:
    """Remove passwords from Typer's message about a URL that was typed in the wrong place."""
    if isinstance(getattr(error, "message", None), str):
        error.message = redact_urls(error.message)


def _typed(error: Any, parameter: Any, words: Sequence[str]) -> str | None:
    """Return the value that Typer read from the words: the last one, if an option is repeated."""
    values, _, _ = error.ctx.command.make_parser(error.ctx).parse_args([*words])
    typed = values.get(parameter.name)
    return typed if isinstance(typed, str) else None


def _command_lines(command: Any, context: Any) -> Iterator[str]:
    width = _width()
    yield from _paragraphs(command.help or "", width)
    yield ""
    yield from _usage(command, context)
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        if not getattr(parameter, "hidden", False):
            group, term, text = _entry(parameter)
            groups.setdefault(group, []).append((term, text))
    for group in sorted(groups, key=_rank):
        yield ""
        yield f"{group}:"
        yield from _listed(groups[group], _OPTION_WIDTH, width)
    if command.epilog:
        yield ""
        yield "Examples:"
        yield from textwrap.indent(command.epilog, "  ").splitlines()


def _rank(group: str) -> float:
    return _GROUPS.index(group) if group in _GROUPS else _GROUPS.index("Options") + 0.5


def _group_lines(command: Any, context: Any) -> Iterator[str]:
    width = _width()
    yield from _paragraphs(command.help or "", width)
    yield ""
    yield from _usage(command, context)
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in command.list_commands(context):
        each = command.get_command(context, name)
        if not each.hidden:
            group = getattr(each, "rich_help_panel", None)
            title = group if isinstance(group, str) else "Commands"
            groups.setdefault(title, []).append((name, first_sentence(each)))
    options = [_entry(each)[1:] for each in command.get_params(context)]
    longest = max(len(term) for entries in [*groups.values(), options] for term, _ in entries)
    for group, entries in groups.items():
        yield ""
        yield f"{group}:"
        yield from _listed(entries, longest + 2, width)
    yield ""
    yield "Options:"
    yield from _listed(options, longest + 2, width)


def _entry(parameter: Any) -> tuple[str, str, str]:
    """Return the group of a parameter, how one writes it, and what it is for."""
    if parameter.param_type_name == "argument":
        return "Arguments", _name_of(parameter), _with_notes(parameter)
    group = getattr(parameter, "rich_help_panel", None)
    if parameter.name == "help":
        return "Other", "-h, --help", "Show this help."
    title = group if isinstance(group, str) else "Options"
    return title, option_term(parameter), _with_notes(parameter)


def _name_of(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _argument_term(argument: Any) -> str:
    term = _name_of(argument) + (" ..." if argument.nargs == -1 else "")
    return term if argument.required else f"[{term}]"


def _with_notes(parameter: Any) -> str:
    text = str(parameter.help or "")
    if default := default_text(parameter):
        text += f" Default: {default}."
    if parameter.envvar:
        text += f" Variable: {parameter.envvar}."
    return text


def _usage(command: Any, context: Any) -> list[str]:
    words = [context.command_path, *command.collect_usage_pieces(context)]
    return textwrap.wrap(
        f"Usage: {' '.join(words)}", _width(), subsequent_indent="  ", break_on_hyphens=False
    )


def _paragraphs(text: str, width: int) -> Iterator[str]:
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        if number:
            yield ""
        yield from _wrapped(paragraph, width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _listed(entries: list[tuple[str, str]], column: int, width: int) -> Iterator[str]:
    indent = " " * (column + 2)
    for term, text in entries:
        lines = _wrapped(text, max(20, width - len(indent))) or [""]
        if len(term) >= column:
            yield f"  {term}"
        else:
            yield f"  {term.ljust(column)}{lines.pop(0)}".rstrip()
        yield from (indent + line for line in lines)


def _width() -> int:
    return min(_MOST_WIDTH, shutil.get_terminal_size().columns)
