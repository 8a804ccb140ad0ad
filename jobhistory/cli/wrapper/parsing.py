"""Read the command line of `jobhistory run` in a few milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobhistory.cli.wrapper.options import OPTIONS, RunOption, RunOptions
from jobhistory.errors import InvalidInput

HELP = ("-h", "--help")
_BY_NAME = {option.name: option for option in OPTIONS}


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Return whether the options, up to the command, contain `--help`."""
    rest = iter(arguments)
    for word in rest:
        if word in HELP:
            return True
        if word == "--" or not word.startswith("-"):
            return False
        option = _BY_NAME.get(word)
        if option is not None and option.metavar is not None and option.bare is None:
            next(rest, None)  # its value
    return False


def read_options(arguments: Sequence[str], environment: Mapping[str, str]) -> RunOptions:
    """Return the options, checked, and the command.

    The command begins after `--`, or with the first word that is neither an option nor its value.
    Names of options are not abbreviated, because a later version may have more of them.

    Raises:
        InvalidInput: if an option is unknown, lacks its value or has an invalid one, or if there is
            no command. It names the option, or the environment variable, as it was typed.
    """
    texts, command = split_options(list(arguments))
    options = RunOptions(
        command=command,
        **{
            option.field: _value(option, texts.get(option.name, []), environment)
            for option in OPTIONS
        },
    )
    if options.grace is not None and options.expect is None:
        raise InvalidInput(
            "--grace",
            texts["--grace"][-1],
            "has no effect without --expect; add it, or leave it out",
        )
    if options.no_overlap and options.record != "all":
        raise InvalidInput(
            "--record",
            options.record,
            "writes nothing before the end, so it does not go with --no-overlap; leave one out",
        )
    return options


def split_options(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the texts of each option, unchecked, and the command.

    Raises:
        InvalidInput: if an option is unknown or lacks its value, or if there is no command.
    """
    texts: dict[str, list[str]] = {}
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--":
            break
        name, attached, text = word.partition("=")
        option = _option(name)
        if not attached:
            text = _next_text(option, words)
        elif option.metavar is None:
            raise InvalidInput(name, text, f"is one value too many; write {name} alone")
        texts.setdefault(name, []).append(text)
    if not words or not words[0]:
        raise InvalidInput(
            "COMMAND", "", "is missing; write it after --, as in 'jobhistory run -- ./backup.sh'"
        )
    return texts, words


def _option(name: str) -> RunOption:
    if name not in _BY_NAME:
        raise InvalidInput("option", name, f"does not exist; {_suggestion(name)}")
    return _BY_NAME[name]


def _next_text(option: RunOption, words: list[str]) -> str:
    if option.metavar is None:
        return ""
    if option.bare is not None:
        count = 0 if option.count_words is None else option.count_words(words)
        text = " ".join(words[:count])
        del words[:count]
        return text or option.bare
    if not words or words[0] == "--":
        raise InvalidInput(
            "option", option.name, f"has no value; write it like '{option.name} {option.metavar}'"
        )
    return words.pop(0)


def _value(option: RunOption, texts: list[str], environment: Mapping[str, str]) -> Any:
    """Return the value of an option that was given with these texts, or that is missing."""
    if option.may_repeat:
        return option.read(texts, option.name)
    if texts:
        return option.read(texts[-1], option.name)
    inherited = option.environment and environment.get(option.environment)
    if inherited:
        return option.read(inherited, option.environment or "")
    return option.default


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    names: Iterator[str] = iter(get_close_matches(name, [*_BY_NAME, *HELP], n=1))
    closest = next(names, None)
    if closest is None:
        return "'jobhistory run --help' lists the options"
    return f"did you mean {closest!r}?"
