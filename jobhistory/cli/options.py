"""The options of a command, as somebody would type them again."""

from __future__ import annotations

import shlex

import typer
from sqlalchemy import make_url

from jobhistory.sanitize.secret_names import looks_secret

_URL_FROM_ENVIRONMENT = '"$JOBHISTORY_URL"'


def repeated(context: typer.Context, **values: str) -> str:
    """Return the options from the command line, quoted for a shell.

    Args:
        values: values to show in place of those that were given, by parameter.
    """
    words = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in values or (source is not None and source.name == "COMMANDLINE"):
            given = values.get(name, context.params[name])
            for value in given if isinstance(given, (list, tuple)) else [given]:
                words.append(parameter.opts[0])
                if value is not True:
                    words.append(quoted_url(value) if name == "url" else _quoted(str(value)))
    return " ".join(words)


def quoted_url(url: str) -> str:
    """Return a URL, quoted for a shell; one with a password becomes `"$JOBHISTORY_URL"`."""
    parts = make_url(url)
    has_password = bool(parts.password) or any(map(looks_secret, parts.query))
    return _URL_FROM_ENVIRONMENT if has_password else _quoted(url)


def _quoted(text: str) -> str:
    if text.isprintable():
        return shlex.quote(text)
    # A terminal would obey what is not printable; bash and zsh know this notation.
    shown = (
        char if char.isprintable() and char not in "\\'" else f"\\U{ord(char):08x}" for char in text
    )
    return f"$'{''.join(shown)}'"
