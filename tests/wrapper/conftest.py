"""Fixtures for commands that run under `jobhistory run`."""

from __future__ import annotations

import os

import pytest

from jobhistory import create_store
from tests import command_line


@pytest.fixture
def environment(tmp_path):
    return {
        **{k: v for k, v in os.environ.items() if k != "JOBHISTORY_URL"},
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }


@pytest.fixture
def url(database):
    return database.url.render_as_string(hide_password=False)


@pytest.fixture
def run(environment, url):
    """Runs a command under `jobhistory run` on the database."""

    def run(*arguments, variables=(), **options):
        env = environment | dict(variables)
        return command_line.run("run", "--url", url, *arguments, env=env, **options)

    return run


@pytest.fixture
def only_record(database):
    def only_record():
        (record,) = create_store(database.engine).query()
        return record

    return only_record
