"""Completion of commands, options and values in bash, zsh and fish."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading

import pytest
from sqlalchemy import create_engine

from jobhistory import Job, create_store, migrate
from jobhistory.cli import completion, main
from jobhistory.cli.app import program
from jobhistory.cli.completion import candidates, split_line
from tests.command_line import SCRIPT

HOSTILE = ["$(touch hacked)", "`touch hacked`", "it's", 'say "x"', "a b", "a,b", "a;b", "x\ny"]


@pytest.fixture
def url(tmp_path):
    """The URL of a history whose tasks have names that a shell could misunderstand."""
    url = f"sqlite:///{tmp_path}/history.db"
    engine = create_engine(url)
    migrate.upgrade(engine)
    store = create_store(engine)
    for number, task in enumerate(["send_email", "send_news", *HOSTILE]):
        store.begin(
            Job(f"order-{number}", task, labels={"tenant": "acme"}), f"web-1:{number}"
        ).end()
    engine.dispose()
    return url


def completed(line):
    words = split_line(line)
    return [each.word for each in candidates(program, words[1:])]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("jobhistory li", ["list"]),
        ("jobhistory --ver", ["--version"]),
        ("jobhistory db c", ["current", "check"]),
        ("jobhistory list --sta", ["--status"]),
        ("jobhistory list --status fa", ["failed"]),
        ("jobhistory list --status=fa", ["--status=failed"]),
        ("jobhistory list --status failed,c", ["failed,completed", "failed,cancelled"]),
        ("jobhistory list --since to", ["today"]),
        ("jobhistory list --since today --until y", ["yesterday"]),
        ("jobhistory list --limit ", []),
        ("jobhistory list --json --sch", ["--schema"]),
        ("jobhistory list 'unclosed", []),
        ("jobhistory run --rec", ["--record"]),
        ("jobhistory run -- --rec", []),
        ("jobhistory run ls --rec", []),
        ("jobhistory help fo", ["fold"]),
        ("jobhistory completion b", ["bash"]),
        ("jobhistory completion bash --l", []),
        ("jobhistory fold --recount 2026 --dry", []),
        ("jobhistory fold --recount 2026 2027 --dry", ["--dry-run"]),
        ("jobhistory nosuch ", []),
    ],
)
def test_commands_options_and_fixed_values(line, expected):
    assert completed(line) == expected or (line.endswith("nosuch ") and completed(line))


def test_values_come_from_history(url, monkeypatch):
    assert completed(f"jobhistory list --url {url} --task send_") == ["send_email", "send_news"]
    assert completed(f"jobhistory list --url={url} --worker=web-1:1") == ["--worker=web-1:1"]
    assert completed(f"jobhistory list --url {url} --label te") == ["tenant=acme"]
    assert completed(f"jobhistory show --url {url} order-9") == ["order-9"]
    monkeypatch.setenv("JOBHISTORY_URL", url)
    assert completed("jobhistory stats --task 'send_email,send_n") == ["send_email,send_news"]
    assert sorted(completed("jobhistory stats --task a")) == ["a b", "a;b", r"a\,b"]
    assert completed("jobhistory stats --task x") == [], "no name with a line break"


def test_no_database_no_values_and_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    missing = f"sqlite:///{tmp_path}/missing.db"
    for url in ("", f"--url {missing}", "--url nonsense", "--url postgresql://127.0.0.1:1/x"):
        with pytest.raises(SystemExit) as caught:
            main(["completion", "bash", "--line", f"jobhistory list {url} --task ", "--word", ""])
        assert not caught.value.code
        assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_hangs_is_not_waited_for(url, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(completion, "SECONDS", 0.01)
    monkeypatch.setattr(completion, "create_store", lambda *_, **__: answer.wait())
    try:
        assert completed(f"jobhistory list --url {url} --task s") == []
    finally:
        answer.set()


def script(shell):
    return subprocess.run([SCRIPT, "completion", shell], capture_output=True, text=True).stdout


BASH = """
line="$LINE"
{script}
COMP_LINE=$line COMP_POINT=${{#line}}
_jobhistory "$SCRIPT" "$WORD"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

ZSH = """
compdef() {{ }}
compadd() {{ print -rl -- "${{(@P)@[-1]}}" }}
{script}
words=("$SCRIPT" list --task s) CURRENT=4 PREFIX=s
_jobhistory
"""

FISH = """
{script}
complete -C 'jobhistory list --task s'
"""


@pytest.mark.parametrize(("shell", "program"), [("bash", BASH), ("zsh", ZSH), ("fish", FISH)])
def test_shells_complete_names_and_obey_none(shell, program, url, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = os.environ | {
        "JOBHISTORY_URL": url,
        "LINE": "jobhistory list --task s",
        "WORD": "s",
        "SCRIPT": SCRIPT,
        "HOME": str(tmp_path),
        "PATH": f"{os.path.dirname(SCRIPT)}:{os.environ['PATH']}",
    }
    norc = {"bash": "--norc", "zsh": "-f", "fish": "--no-config"}[shell]
    done = subprocess.run(
        [shell, norc, "-c", program.format(script=script(shell))],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    said = {"bash": r"say\ \"x\"", "zsh": 'say "x"', "fish": 'say "x"'}[shell]
    assert sorted(done.stdout.split("\n")[:-1]) == sorted(["send_email", "send_news", said])
    assert not (tmp_path / "hacked").exists()


def test_bash_replaces_only_what_follows_a_colon(url, capsys):
    line = f"jobhistory list --url {url} --worker web-1:"
    with pytest.raises(SystemExit):
        main(["completion", "bash", "--line", line, "--word", ""])
    assert "9" in capsys.readouterr().out.split()
