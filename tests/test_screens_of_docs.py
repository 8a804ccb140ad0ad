"""The screens in the documentation: every command, at four widths."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from docs.screens import FOLDER, SCREENS, WIDTHS
from tests.test_cli_help import COMMANDS

ROOT = Path(__file__).parents[1]
IS_TYPED = re.compile(r"\$ |more:|  jobhistory |    done < <")
"""Lines that people paste, or programs read, and that are therefore whole."""


def test_every_command_has_a_screen_that_shows_it():
    assert set(SCREENS) == set(COMMANDS)
    for name, command in SCREENS.items():
        words = shlex.split(command)
        assert words[: len(name.split())] == name.split()
        assert (FOLDER / f"{name.replace(' ', '-')}.txt").exists()
    assert len(list(FOLDER.iterdir())) == len(SCREENS)


@pytest.mark.slow
def test_screens_are_the_same_each_time_and_fit(tmp_path):
    environment = os.environ | {"PYTHONHASHSEED": "random"}
    for name in ("first", "second"):
        command = [sys.executable, "-m", "docs.screens", str(tmp_path / name)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    for path in (tmp_path / "first").iterdir():
        text = path.read_text(encoding="utf-8")
        assert text == (tmp_path / "second" / path.name).read_text(encoding="utf-8")
        assert "Traceback" not in text or path.name == "show.txt"
        widths = []
        for line in text.splitlines():
            if match := re.fullmatch(r"(\d+) columns", line):
                widths.append(int(match[1]))
            assert cell_len(line) <= widths[-1] or IS_TYPED.match(line), (path.name, line)
        assert tuple(widths) == WIDTHS
