"""The package as others get it: what it imports, what it exports, and its wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import jobhistory
from jobhistory import migrate

ROOT = Path(__file__).parent.parent


def python(code, *, executable=sys.executable, **options):
    return subprocess.run(
        [str(executable), "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        **options,
    ).stdout


def test_importing_the_library_imports_no_driver_and_no_extra():
    code = (
        "import sys\nfrom jobhistory import *\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    imported = set(python(code).split())

    assert "jobhistory" in imported
    assert not imported & {"psycopg", "psycopg_binary", "typer", "rich", "platformdirs", "alembic"}


def test_importing_the_package_imports_sqlalchemy_only_when_a_name_needs_it():
    code = (
        "import sys, jobhistory\n"
        "jobhistory.InvalidInput, jobhistory.Failure, jobhistory.Job\n"
        "print('sqlalchemy' in sys.modules)\n"
        "jobhistory.HistoryStore\n"
        "print('sqlalchemy' in sys.modules)\n"
    )
    assert python(code) == "False\nTrue\n"


def test_everything_is_exported_in_order_under_its_own_name():
    assert jobhistory.__all__ == sorted(jobhistory.__all__)
    for name in jobhistory.__all__:
        assert getattr(jobhistory, name).__doc__, name


def test_without_its_extra_the_command_says_what_to_install():
    code = (
        "import sys; sys.modules['typer'] = None\n"
        "from jobhistory.cli import main\n"
        "try: main([])\n"
        "except SystemExit as exit: print(exit.code)\n"
    )
    assert "pip install 'jobhistory[cli]'" in python(code)


def run_without_extra(*arguments, **variables):
    """Run `jobhistory run` in a process that has neither of the packages of the extra `cli`."""
    code = (
        "import sys\n"
        "for name in ('platformdirs', 'rich', 'typer'): sys.modules[name] = None\n"
        "from jobhistory.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "JOBHISTORY_URL"}
    return subprocess.run(
        [sys.executable, "-c", code, "run", *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("option", [[], ["--no-overlap"]])
def test_without_its_extra_a_command_is_recorded_in_the_database_of_a_url(tmp_path, option):
    url = f"sqlite:///{tmp_path / 'history.db'}"
    done = [
        run_without_extra("--url", url, *option, "--", "echo", "hello"),
        run_without_extra(*option, "--", "false", JOBHISTORY_URL=url),
    ]
    assert [(each.returncode, each.stdout, each.stderr) for each in done] == [
        (0, "hello\n", ""),
        (1, "", ""),
    ]
    store = jobhistory.create_store(url)
    assert sorted(record.status for record in store.query()) == ["completed", "failed"]


@pytest.mark.parametrize("option", [[], ["--no-overlap"]])
def test_without_its_extra_and_a_url_a_command_runs_and_one_line_says_what_to_do(option):
    done = run_without_extra(*option, "--", "sh", "-c", "echo hello; exit 3")
    assert (done.returncode, done.stdout) == (3, "hello\n")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("jobhistory: not recorded: sh, exit status 3 ")
    assert line.endswith(
        ": the user's history file requires pip install 'jobhistory[cli]'; or pass --url"
    )
    assert len(done.stderr.splitlines()) == 1 + len(option)


def test_without_its_driver_a_postgresql_url_says_what_to_install():
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "import jobhistory\n"
        "try: jobhistory.create_store('postgresql://app:hunter2@host/db')\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    printed = python(code)
    assert "pip install 'jobhistory[postgresql]'" in printed
    assert "hunter2" not in printed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (path,) = folder.glob("*.whl")
    return path


WEB_FILES = {
    str(path.relative_to(ROOT))
    for folder in ("static", "templates")
    for path in (ROOT / "jobhistory" / "web" / folder).rglob("*")
    if path.is_file()
}
"""What the page needs besides its code, with the licences of what others wrote."""


def test_the_page_comes_with_the_licences_of_what_it_contains():
    names = {Path(name).name for name in WEB_FILES}
    assert {"layout.html", "page.css", "page.js", "VENDOR.toml"} <= names
    assert {"htmx-LICENSE.txt", "htmx-ext-sse-LICENSE.txt"} <= names


@pytest.mark.slow
def test_the_wheel_holds_the_library_the_revisions_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())

    assert "jobhistory/py.typed" in names
    assert "jobhistory/migrations/env.py" in names
    assert "jobhistory/migrations/versions/jobhistory_0011_create_table.py" in names
    assert not WEB_FILES - names
    assert {name.partition("/")[0] for name in names} == {
        "jobhistory",
        f"jobhistory-{jobhistory.__version__}.dist-info",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith(".db")]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="compares with what git knows")
def test_the_source_distribution_has_everything_that_the_tests_read(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        shipped = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    missing = [name for name in tracked if name not in shipped]

    assert not [name for name in missing if not name.startswith((".ci/", ".pre-commit"))]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_installed_clean_migrates_and_records_in_another_directory(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    subprocess.run(
        [binaries / "pip", "install", "--quiet", f"{wheel}[cli]"],
        check=True,
        capture_output=True,
        timeout=300,
    )
    elsewhere = tmp_path / "elsewhere 100%"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
        "JOBHISTORY_URL": f"sqlite:///{elsewhere}/app.db"
    }

    def jobhistory_command(*arguments):
        return subprocess.run(
            [binaries / "jobhistory", *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert jobhistory_command("db", "upgrade").stdout == f"{migrate.HEAD}\n"
    assert jobhistory_command("db", "check").returncode == 0
    assert jobhistory_command("run", "--task", "t", "--", "sh", "-c", "exit 3").returncode == 3
    assert "\tfailed\t" in jobhistory_command("list").stdout
    code = (
        "import os, jobhistory\n"
        "with jobhistory.create_store(os.environ['JOBHISTORY_URL']) as store:\n"
        "    store.record_start(jobhistory.Job('1', 't'), 'w', 'c')\n"
        "    print(store.record_completion('1', 'w', 'c', 5).status, len(store.query()))\n"
        "print(jobhistory.__file__)\n"
    )
    printed = python(code, executable=binaries / "python", cwd=elsewhere, env=environment)
    assert printed.startswith("completed 2\n")
    assert str(tmp_path / "venv") in printed
