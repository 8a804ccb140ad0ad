"""The help of every command."""

from __future__ import annotations

import re
import shlex
from inspect import cleandoc
from pathlib import Path

import pytest

from jobhistory.cli import main
from jobhistory.cli.app import program
from jobhistory.cli.examples import EXAMPLES
from jobhistory.cli.help import first_sentence

ROOT = Path(__file__).parents[1]


def _below(group, words):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _below(command, [*words, name])
        else:
            yield " ".join([*words, name]), command


COMMANDS = dict(_below(program, []))


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capsys.readouterr()
    assert (caught.value.code or 0, err) == (0, "")
    return out


def test_every_command_has_examples_and_each_can_be_called():
    assert set(EXAMPLES) == set(COMMANDS)
    for words, examples in EXAMPLES.items():
        for example in examples:
            given = shlex.split(example.split(" >")[0])
            length = 1 + len(words.split())
            assert given[:length] == ["jobhistory", *words.split()]
            COMMANDS[words].make_context(words, given[length:])  # raises if an option is unknown


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("width", [60, 80])
def test_help_fits_and_has_its_parts(capsys, monkeypatch, words, width):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = help_of(capsys, *words.split(), "--help")
    assert shown == help_of(capsys, "help", *words.split())
    text, examples = shown.split("\nExamples:\n")
    assert examples.split("\n")[0].strip() in EXAMPLES[words]
    assert not re.search(r"<\w+>|\[default|INTEGER", text)
    for line in text.splitlines():
        assert len(line) <= width or re.fullmatch(r"  -\S+( \S+)*", line)
    parameters = COMMANDS[words].params
    for parameter in parameters:
        assert parameter.help, parameter.name
        if parameter.param_type_name == "option" and not parameter.hidden:
            assert re.search(rf"^  .*{parameter.opts[0]}\b", text, re.M)
    groups = re.findall(r"^(\w+):$", text, re.M)
    known = ["Arguments", "Filter", "Options", "Output", "Database", "Other"]
    assert [each for each in known if each in groups] == [each for each in groups if each in known]
    assert groups[-1] == "Other"


@pytest.mark.parametrize("words", COMMANDS)
def test_the_first_sentence_says_what_a_command_does(words):
    sentence = first_sentence(COMMANDS[words])
    assert sentence == cleandoc(COMMANDS[words].help).split("\n\n")[0].replace("\n", " ")
    assert re.fullmatch(r"[A-Z][a-z]+ .{10,100}\.", sentence)


def test_the_list_of_commands_is_grouped_and_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = help_of(capsys, "--help")
    assert shown == help_of(capsys, "help")
    for words in COMMANDS:
        assert re.search(rf"^  {words.split()[0]} ", shown, re.M)
    for title in ("Record:", "Look at history:", "Keep history in order:", "Other:", "Options:"):
        assert f"\n{title}\n" in shown
    assert re.search("^  upgrade +Create the history table", help_of(capsys, "help", "db"), re.M)


def test_help_of_what_does_not_exist_suggests_a_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["help", "lst"])
    assert caught.value.code == 2
    assert "No such command 'lst'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["help", "list", "x"])
    assert caught.value.code == 2
    assert "'jobhistory list' has no commands" in capsys.readouterr().err


def test_the_readme_lists_every_command():
    listed = set(re.findall(r"^jobhistory (\w+)", (ROOT / "README.md").read_text(), re.M))
    assert listed == {words.split()[0] for words in COMMANDS}
