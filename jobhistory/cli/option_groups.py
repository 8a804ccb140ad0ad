"""Groups of options that several commands have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeAlias, get_type_hints

Command: TypeAlias = Callable[..., None]


def takes_options(name: str, read: Callable[..., Any]) -> Callable[[Command], Command]:
    """Return a decorator for commands: their parameter of this name becomes a group of options.

    Args:
        read: has a parameter for each option, and returns what the command gets instead.
    """
    options = signature(read).parameters

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        hints |= get_type_hints(read, include_extras=True)

        @wraps(command)
        def with_options(**given: Any) -> None:
            value = read(**{each: given.pop(each) for each in options})
            command(**{name: value}, **given)

        parameters: list[Parameter] = []
        for own in signature(command).parameters.values():
            parameters += options.values() if own.name == name else [own]
        # Typer reads the signature. Keyword-only, because required ones may come after others.
        with_options.__signature__ = Signature(  # type: ignore[attr-defined]
            [
                each.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[each.name])
                for each in parameters
            ]
        )
        with_options.__annotations__ = {each.name: hints[each.name] for each in parameters}
        return with_options

    return decorate
