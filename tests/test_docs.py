"""The documentation is true: its examples run, and what it lists is what there is."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

import jobhistory
from jobhistory import HistoryRecord, cli
from jobhistory.schema import RUNNING_ON_SQLITE

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
NAMES = [str(page.relative_to(DOCS)) for page in PAGES]

BLOCK = re.compile(r"^ *```([a-z-]+)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
RUN = {"python", "console", "output"}
SHOWN = {"text", "ini", "sql", "postgresql", "sh"}
FOR_SPHINX = {"eval-rst", "include", "toctree", "command-line"}
VARYING = [
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{5}[0-9a-f-]*…[0-9a-f-]*[0-9a-f]{5}\b"), "ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"\b\d\d (?:[A-Z][a-z]{2}) \d\d:\d\d\b"), "TIME"),
    (re.compile(r"\bjust now\b|\b\d+ (s|min|seconds?|minutes?) ago\b"), "AGE"),
    (re.compile(r"(?<=AGE )(completed|failed) [\d,]+\b"), r"\1 DURATION"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s)\b"), "DURATION"),
]
STYLE = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch, capfd):
    if not RUN & {language for language, _ in BLOCK.findall(page.read_text())}:
        pytest.skip("nothing to run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    shell = Shell(monkeypatch, capfd, home=tmp_path)
    printed = Printed(capfd)
    parsers = [
        PythonCodeBlockParser(),
        CodeBlockParser(language="output", evaluator=printed.compare),
        CodeBlockParser(language="console", evaluator=shell.run_block),
    ]
    document = Sybil(parsers).parse(page)
    document.namespace["__name__"] = "main"
    monkeypatch.setitem(sys.modules, "main", module_in(tmp_path))

    for example in document.examples():
        if example.region.evaluator != printed.compare:
            capfd.readouterr()
        example.evaluate()


def module_in(folder):
    """Return a module for the code of a page; Flask looks for an app's files beside it."""
    module = ModuleType("main")
    module.__file__ = str(folder / "main.py")
    return module


@pytest.fixture
def engines():
    """Dispose the engines that a test uses; a page shows no more than a reader needs."""
    used = set()

    def note(connection):
        used.add(connection.engine)

    event.listen(Engine, "engine_connect", note)
    yield
    event.remove(Engine, "engine_connect", note)
    for engine in used:
        engine.dispose()


class Printed:
    """Compares what a Python block has printed with the `output` block below it."""

    def __init__(self, capfd):
        self.capfd = capfd

    def compare(self, example):
        check_output(self.capfd.readouterr().out, example.parsed, example)


class Shell:
    """Runs the commands behind `$ ` in a `console` block, and compares what they print.

    `jobhistory` runs in this process, unless it runs a command itself, or something reads it. Its
    output is that of a terminal of 84 columns, without colors.
    """

    def __init__(self, monkeypatch, capfd, home):
        self.capfd = capfd
        folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
        for name, value in {
            "HOME": str(home),
            "PATH": os.pathsep.join(folders),
            "FORCE_COLOR": "1",
            "NO_COLOR": "1",
            "COLUMNS": "84",
            "LC_ALL": "C.UTF-8",
            "TTY_INTERACTIVE": "0",
            "ALEMBIC_CONFIG": str(ROOT / "alembic.ini"),
        }.items():
            monkeypatch.setenv(name, value)
        for name in ("JOBHISTORY_URL", "XDG_DATA_HOME"):
            monkeypatch.delenv(name, raising=False)

    def run_block(self, example):
        text = dedent(example.parsed).replace("\\\n> ", "")
        commands = re.split(r"^\$ ", text, flags=re.MULTILINE)
        assert commands[0] == "", "a console block starts with '$ '"
        for command in commands[1:]:
            line, _, expected = command.partition("\n")
            check_output(self.run(line), expected, example)

    def run(self, line):
        """Run a command; return what it prints on both streams."""
        words = shlex.split(line)
        if words[0] != "jobhistory" or words[1] == "run" or set(words) & {"|", ">", "&&"}:
            return subprocess.run(
                ["bash", "-c", line],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                text=True,
                timeout=60,
            ).stdout
        with pytest.raises(SystemExit):
            cli.main(words[1:])
        out, err = self.capfd.readouterr()
        return out + err


def check_output(printed, expected, example):
    """Compare line by line; ids, times and what aligns them may differ; `...` is any text."""
    got, wanted = comparable(printed), comparable(expected)
    if not fnmatchcase(got, re.sub(r"([\[\]*?])", r"[\1]", wanted).replace("...", "*")):
        raise AssertionError(f"{example.path}, line {example.line} printed:\n{printed}")


def comparable(text):
    lines = [" ".join(line.split()) for line in STYLE.sub("", text).strip().splitlines()]
    text = "\n".join(lines)
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return text


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_of_a_page_runs_or_says_that_it_does_not(page):
    for language, block in BLOCK.findall(page.read_text()):
        assert language in RUN | SHOWN | FOR_SPHINX, block
        if language == "sh":
            assert re.match(r"(pip install|alembic|fastapi|flask) ", block), block
        assert all(len(line) <= 84 for line in block.splitlines()), block


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_has_a_text_that_can_be_read_in_the_repository(page):
    assert "[](" not in page.read_text()


def test_every_test_that_the_fault_table_names_exists():
    file, named = "", []
    for name, test in re.findall(
        r"`([\w/]+\.py)?(?:::([\w:]+))?`", (DOCS / "faults.md").read_text()
    ):
        file = name or file
        if test:
            named.append((file, test.rpartition("::")[2]))

    missing = [
        f"{file}::{test}"
        for file, test in named
        if f"def {test}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []
    assert len(named) > 40


def test_every_test_that_the_table_of_scenarios_names_exists():
    sections = (DOCS / "adapters/scenarios.md").read_text().split("\n## ")[1:]

    for section in sections:
        rows = re.findall(r"^\| (\d+) \| (.+) \|$", section, re.MULTILINE)
        assert [number for number, _ in rows] == [str(number) for number in range(1, 12)]
        for _, cell in rows:
            file = ""
            for name, test in re.findall(r"`([\w/]+\.py)?(?:::(\w+))?`", cell):
                file = name or file
                if file or test:
                    assert f"def {test}(" in (ROOT / "tests/contrib" / file).read_text()
            assert file or cell.startswith("does not apply: ")


def table_rows(page, heading, level=2):
    """Return the cells of the first table below a heading, without its head."""
    below = page.read_text().partition(f"\n{'#' * level} {heading}\n")[2]
    rows = re.search(r"((?:^\|.*\n)+)", below, re.MULTILINE)[1].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_schema_page_lists_the_columns_in_their_order():
    described = [(name, kind, null) for name, kind, null, _ in table_rows(SCHEMA, "Columns")]

    assert described == [
        (f"`{column.name}`", column_types(column), "yes" if column.nullable else "")
        for column in HistoryRecord.__table__.columns
    ]


SCHEMA = DOCS / "schema.md"
BENCHMARKS = ROOT / "benchmarks" / "README.md"


def column_types(column):
    """Return the type on PostgreSQL, and that on SQLite if it has another name."""
    on = [column.type.compile(dialect=module.dialect()) for module in (postgresql, sqlite)]
    names = [{"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}.get(name, name) for name in on]
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))


def test_the_schema_page_lists_the_indexes():
    described = {name: (columns, rows) for name, columns, rows, _ in table_rows(SCHEMA, "Indexes")}

    assert described == {
        f"`{index.name}`": (
            ", ".join(f"`{column.name}`" for column in index.columns),
            partial_predicate(index),
        )
        for index in HistoryRecord.__table__.indexes
        if index.name != RUNNING_ON_SQLITE
    }


def partial_predicate(index):
    predicate = index.dialect_options["postgresql"]["where"]
    return "all" if predicate is None else f"`{predicate}`"


def test_the_figures_for_reads_are_those_of_the_benchmarks():
    measured = table_rows(BENCHMARKS, "Reads", level=3)
    shown = table_rows(DOCS / "reads.md", "Figures")

    assert len(shown) > 5
    assert [row for row in shown if row not in [each[:4] for each in measured]] == []


def test_the_figures_for_storage_are_those_of_the_benchmarks():
    (_, ours, _, updates), (_, others, _, _) = table_rows(
        BENCHMARKS, "What an execution costs the server", level=3
    )
    text = " ".join(SCHEMA.read_text().split())

    assert f"wrote {ours.split()[0]} bytes" in text
    assert f"wrote {others.split()[0]}." in text
    assert f"{float(updates.rstrip('%')):.0f} % of the outcomes" in text


def test_the_limits_of_a_recorder_are_its_defaults():
    described = {
        name.strip("`"): eval(default.strip("`"))
        for name, default, _ in table_rows(DOCS / "howto/recorder.md", "Limits")
    }
    parameters = inspect.signature(jobhistory.Recorder).parameters

    assert described == {
        name: parameters[name].default for name in parameters if name not in ("store", "spool")
    }


def test_the_errors_page_lists_every_error():
    listed = re.findall(
        r"^\| \{exc\}`\.(\w+)` \| ", (DOCS / "reference/errors.md").read_text(), re.M
    )

    assert {*listed, "JobHistoryError"} == {
        name
        for name in jobhistory.__all__
        if isinstance(value := getattr(jobhistory, name), type) and issubclass(value, Exception)
    }


def test_the_reference_describes_every_public_name():
    reference = "".join(page.read_text() for page in (DOCS / "reference").rglob("*.md"))
    described = re.findall(r"^.. auto\w+:: jobhistory\.([\w.]+)(?:\(\))?$", reference, re.MULTILINE)
    asynchronous = chain.from_iterable(jobhistory._ASYNC_MODULES.values())
    names = {*jobhistory.__all__, *asynchronous} - {"migrate"}
    methods = {
        f"HistoryStore.{name}" for name in dir(jobhistory.HistoryStore) if not name.startswith("_")
    }

    assert names | methods <= set(described)


def test_the_reference_lists_the_types_of_arguments():
    source = (ROOT / "jobhistory" / "typing.py").read_text()
    names = re.findall(r"^([A-Z]\w+): TypeAlias|^class ([A-Z]\w+)", source, re.MULTILINE)
    listed = re.findall(r"^\| `(\w+)`", (DOCS / "reference/types.md").read_text(), re.MULTILINE)

    assert listed == [alias or name for alias, name in names]


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning_or_a_network(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    loaded = re.compile(
        r"""(?:<script[^>]*src|<img[^>]*src|<link[^>]*rel="stylesheet"[^>]*href)"""
        r"""="(https?:)?//"""
    )
    for page in (tmp_path / "html").rglob("*.html"):
        assert not loaded.search(page.read_text()), page
    for sheet in (tmp_path / "html").rglob("*.css"):
        assert not re.search(r"url\(.?https?:|@import", sheet.read_text()), sheet
