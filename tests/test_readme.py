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
    store = found["store"]
    printed = capsys.readouterr().out
    assert [r.status for r in store.get_by_job_id("44")] == ["partial_success"]
    assert [r.status for r in store.get_by_job_id("47")] == ["partial_success"]
    assert len(store.query(task_identifier="import_orders", status="failed")) == 10
    assert printed.startswith("resize_image FileNotFoundError\nTraceback")
    assert found["watcher"].recent()[0].worker_id == "worker-9"
    assert {(r.job_id, str(r.status)) for r in store.get_by_correlation_id("shop")} == {
        ("image-0", "completed"),
        ("image-1", "failed"),
        ("image-2", "completed"),
        ("ship-1", "completed"),
        ("ship-1", "failed"),
        ("ship-2", "completed"),
    }
    assert "ship_order ship-1: (sqlite3.IntegrityError) UNIQUE constraint failed" in printed
    assert len(store.query(task_identifier="render_page", limit=None)) == 1000
    assert "RecorderCounts(accepted=2000, written=2000, refused=0" in printed
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
