"""The README's Python runs, and its claims about itself are true."""

from __future__ import annotations

import re
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

README = Path(__file__).parent.parent / "README.md"


def test_the_python_blocks_run_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    document = Sybil([PythonCodeBlockParser()]).parse(README)
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    found = document.namespace

    assert len(examples) == README.read_text().count("```python")
    assert [r.status for r in found["store"].query()] == ["partial_success", "failed", "completed"]
    assert capsys.readouterr().out.startswith("resize_image FileNotFoundError\nTraceback")
    assert found["watcher"].recent()[0].worker_id == "worker-9"
    found["engine"].dispose()


def test_the_first_two_shell_blocks_are_the_two_commands():
    """`.ci/run` runs them letter by letter."""
    first, second = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)

    assert "jobhistory run" in first
    assert "pytest" in second
    for block in (first, second):
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install")


def test_it_names_every_command_and_option_of_the_command_line():
    from typer.main import get_command

    from jobhistory.cli.app import app

    readme = README.read_text()
    for name, command in get_command(app).commands.items():
        assert f"jobhistory {name}" in readme
        for option in getattr(command, "params", []):
            if option.param_type_name == "option" and option.name not in ("url", "schema", "help"):
                assert option.opts[0] in readme, (name, option.opts)
