"""The README's code runs, and prints what it shows; its pictures, figures and links are right."""

from __future__ import annotations

import html
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jobhistory.cli import main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 170


def test_every_code_block_is_of_a_kind_that_is_tested():
    assert set(re.findall(r"^```(\w+)$", TEXT, re.MULTILINE)) == {"python", "sh", "text"}
    assert [len(blocks(language)) for language in ("python", "sh", "text")] == [1, 2, 2]


def test_the_tour_prints_what_the_readme_says_and_can_be_run_again(tmp_path):
    (tour,) = blocks("python")
    printed = blocks("text")[0]

    def run():
        command = [sys.executable, "-c", tour]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    assert len(tour.splitlines()) <= 30
    assert run() == printed
    again = run()
    assert "resize_image: 2 of 6 completed" in again
    assert "`resize_image: 2 of 6 completed`" in TEXT
    assert "4 x ValueError: cannot resize <value>, as in owl.gif" in again


def test_the_first_two_shell_blocks_are_the_two_commands():
    """`.ci/run` runs them letter by letter."""
    first, second = blocks("sh")

    assert "jobhistory run" in first
    assert "pytest" in second
    for block in (first, second):
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install")


def test_the_commands_that_it_lists_work_and_none_is_missing(tmp_path, monkeypatch):
    from jobhistory.cli.app import program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBHISTORY_URL", "sqlite:///history.db")
    (tmp_path / "backup.sh").write_text("#!/bin/sh\n")
    (tmp_path / "backup.sh").chmod(0o700)
    (tmp_path / "FOLDER").mkdir()  # an archive without files yet
    (tmp_path / "FILE").write_text("17 2 * * * jobhistory run --task backup -- ./backup.sh\n")
    (tmp_path / "shop.py").write_text("def app(job):\n    return '1'\n")
    monkeypatch.setattr(sys, "path", list(sys.path))  # `replay` adds the current folder
    # Nor find the module of this name of another test, nor leave one to it.
    monkeypatch.setitem(sys.modules, "shop", None)
    del sys.modules["shop"]
    commands = [line.partition("  ")[0] for line in blocks("text")[1].splitlines()]
    # The table has to be there first; then `show JOB_ID` shows what `run` has recorded.
    for command in sorted(commands, key=lambda command: "db upgrade" not in command):
        arguments = shlex.split(command)[1:]
        if arguments[0] == "run":  # it takes over the signals of its process
            subprocess.run(
                [sys.executable, "-m", "jobhistory.cli", "run", "--job-id=JOB_ID", *arguments[1:]],
                check=True,
            )
            continue
        if arguments[0] in ("tail", "web"):  # they go on until Ctrl-C
            arguments = [arguments[0], "--help"]
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code in (0, None), command
    assert set(program.commands) == {command.split()[1] for command in commands}


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md", "examples/README.md"])
def test_its_links_and_pictures_exist(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)

    assert links
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link


def test_the_picture_of_the_terminal_shows_what_the_commands_print(monkeypatch):
    """If not, run `python docs/images/terminal.py`."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "images")
    import terminal

    def words(svg):
        return html.unescape("".join(re.findall(r"<text[^>]*>(.*?)</text>", svg)))

    assert words(terminal.PICTURE.read_text()) == words(terminal.svg(terminal.output_of()))


@pytest.mark.parametrize("picture", ["terminal.svg", "benchmark.svg"])
def test_the_pictures_load_nothing(picture):
    svg = (ROOT / "docs" / "images" / picture).read_text()

    assert not re.search(r"@import|@font-face|url\((?!#)|href=\"(?!#)|<script|<image", svg)


def test_its_figures_are_those_of_the_benchmarks():
    figures = re.findall(
        r"\d[\d,]*\.?\d+", TEXT[TEXT.index("- **1,318") : TEXT.index("[benchmarks/README.md]")]
    )
    tables = (ROOT / "benchmarks" / "README.md").read_text()

    assert len(figures) >= 10
    for figure in set(figures) - {"100"}:
        assert re.search(rf"(?<![\d,.]){figure}(?![\d,])", tables), figure
