"""The commands and the migrations where history is partitioned."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, MetaData, Table, Uuid, create_engine, text

from jobhistory import create_store, migrate
from jobhistory.cli import main
from jobhistory.partitioning import partition, partitions_of
from tests import command_line


@pytest.fixture
def engine(bare_postgres_url):
    engine = create_engine(bare_postgres_url)
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def run(engine, capsys):
    """Runs a command in this process; returns exit status and standard output."""
    url = engine.url.render_as_string(hide_password=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--url", url])
        out, err = capsys.readouterr()
        assert (err == "") == (not caught.value.code)
        return caught.value.code or 0, out or err

    return run


def test_the_command_partitions_and_says_how(run, engine):
    status, out = run("db", "partition", "--every", "month", "--ahead", "2")

    assert (status, out) == (0, f"{partitions_of(engine)}\n")
    assert out.startswith("partitioned by month, ")
    assert run("db", "partition") == (0, ""), "it remembers the options, for cron"
    told = json.loads(run("db", "partition", "--json")[1])
    assert told["every"] == "month"
    assert told["warnings"] == []
    assert told["partitions"] == partitions_of(engine).count


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ahead", "0"], "--ahead 0 is not a whole number from 1 to 60; write it like 4"),
        (["--ahead", "61"], "--ahead 61 is not a whole number from 1 to 60; write it like 4"),
        (["--every", "year"], "--every 'year' is not a length; pass 'day', 'week' or 'month'"),
        (
            ["--undo", "--yes", "--every", "day"],
            "--every 'day' does not go with --undo; leave one of them out",
        ),
        (
            ["--undo", "--yes", "--ahead", "4"],
            "--ahead 4 does not go with --undo; leave one of them out",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(run, engine, options, says):
    partition(engine)
    assert run("db", "partition", *options) == (2, f"jobhistory: {says}\n")
    assert partitions_of(engine).count > 1


def test_undo_asks_first(run, engine, monkeypatch):
    partition(engine)
    monkeypatch.setattr("sys.stdin", None)
    assert run("db", "partition", "--undo") == (
        2,
        "jobhistory: nobody can answer here; pass --yes to undo the partitions\n",
    )
    assert partitions_of(engine).count
    assert run("db", "partition", "--undo", "--yes") == (0, "not partitioned\n")
    assert not partitions_of(engine).count


def test_check_says_how_the_table_is_partitioned(run, engine):
    assert run("db", "check") == (0, "the history table is up to date\n")
    partition(engine)
    assert run("db", "check") == (
        0,
        f"the history table is up to date\n{partitions_of(engine)}\n",
    )
    assert json.loads(run("db", "check", "--json")[1])["partitions"]["every"] == "week"


def test_check_warns_when_nobody_has_created_partitions(run, engine):
    partition(engine, now=datetime.now(UTC) - timedelta(weeks=5))
    assert "warning: the partitions end at " in run("db", "check")[1]
    partition(engine, now=datetime.now(UTC) - timedelta(weeks=5))
    ids = {"job_id": "1", "worker_id": "w", "correlation_id": "c", "task_identifier": "t"}
    create_store(engine).record_execution(ids, status="completed")
    lines = run("db", "check")[1].splitlines()
    assert lines[-1] == (
        "warning: executions have reached the last partition, which has no end; "
        "run: jobhistory db partition"
    )
    run("db", "partition")
    assert "warning" not in run("db", "check")[1]


def test_sqlite_has_no_partitions(tmp_path):
    environment = os.environ | {"JOBHISTORY_URL": f"sqlite:///{tmp_path}/h.db"}
    done = command_line.run("db", "partition", env=environment)
    assert done.returncode == 1
    assert "SQLite has no partitions" in done.stderr
    assert "Traceback" not in done.stderr


def test_maintenance_works_on_partitions(run, engine):
    partition(engine)
    ids = {"job_id": "1", "worker_id": "w", "correlation_id": "c", "task_identifier": "t"}
    create_store(engine).record_execution(ids, status="completed")
    assert run("db", "maintain", "--json")[0] == 0
    with engine.connect() as connection:
        counted = "SELECT reltuples FROM pg_class WHERE relname = 'job_history'"
        assert connection.scalar(text(counted)) == 1


def test_the_autogenerate_of_a_host_leaves_partitions_alone(engine):
    host = MetaData()
    Table("orders", host, Column("id", Uuid, primary_key=True))
    host.create_all(engine)
    partition(engine)
    with engine.connect() as connection:
        options = {"include_object": migrate.include_object}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, host) == []


def test_a_table_of_the_host_with_a_similar_name_is_the_hosts():
    for name in (
        "job_history_p",
        "job_history_plans",
        "job_history_p2026",
        "my_job_history_p_last",
    ):
        assert migrate.include_object(None, name, "table", True, None)
    for name in ("job_history_p20261130", "job_history_p_first", "job_history_p_last_2"):
        assert not migrate.include_object(None, name, "table", True, None)
