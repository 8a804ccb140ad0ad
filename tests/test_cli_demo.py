"""`jobhistory demo`: a made-up month in a new SQLite file."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine

from jobhistory import Status, create_store, migrate
from jobhistory.cli import main
from jobhistory.cli.demo import MISSED, TASKS, fill, started_by

NOW = datetime(2026, 11, 27, 15, tzinfo=UTC)


def demo(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["demo", *map(str, arguments)])
    return caught.value.code or 0


def test_demo_fills_a_new_file_with_everything_that_history_can_show(tmp_path, capsys):
    path = tmp_path / "demo.db"
    assert demo(path) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, *commands = out.splitlines()
    assert first.endswith(f"executions of 30 days are in {path}. Try:")
    assert os.name != "posix" or path.stat().st_mode & 0o777 == 0o600
    with create_store(f"sqlite:///{path}") as store:
        records = list(store.iterate())
        assert {each.status for each in records} == set(Status)
        assert {"jobhistory.WorkerLost", "TypeError"} <= {each.error_type for each in records}
        assert any(each.will_retry for each in records)
        assert any(each.parent_id for each in records)
        assert any(each.progress for each in store.running())
        assert store.fold(dry_run=True) == 0, "statistics are folded"
        assert not all(each.is_exact for each in store.stats())
        assert problems_of(store) == {"export_orders": "too_long", "rotate_logs": "missed"}
    for command in commands:
        name, *words = shlex.split(command)
        assert name == "jobhistory"
        if words[0] != "web":
            with pytest.raises(SystemExit) as caught:
                main(words)
            assert (caught.value.code or 0) == (2 if words[0] == "check" else 0)
            assert len(capsys.readouterr().out.splitlines()) > 1


def problems_of(store):
    checked = [each for each in store.check() if each.verdicts]
    return {each.expectation.name: each.verdicts[0].problem for each in checked}


@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 11, 29, 0, 5, tzinfo=UTC),  # the run of rotate_logs is due, but not missed
        datetime(2026, 11, 29, 5, 5, tzinfo=UTC),  # a long run has started, and not ended
        datetime(2026, 11, 28, 3, 31, 5, tzinfo=UTC),  # so has one that has started others
    ],
)
def test_a_demo_has_the_same_problems_at_any_time(tmp_path, now):
    engine = create_engine(f"sqlite:///{tmp_path / 'demo.db'}")
    migrate.upgrade(engine)
    fill(engine, now)
    with create_store(engine, clock=lambda: now) as store:
        assert problems_of(store) == {"export_orders": "too_long", "rotate_logs": "missed"}
        records = list(store.iterate())
        assert {each.parent_id for each in records} - {None} <= {each.id for each in records}
    engine.dispose()


def test_demo_leaves_what_exists(tmp_path, capsys):
    path = tmp_path / "mine.db"
    path.write_text("mine")
    assert demo(path) == 1
    assert path.read_text() == "mine"
    assert demo(tmp_path) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[0] == f"jobhistory: {path} exists; name a new file"


def test_a_demo_that_fails_leaves_no_file(tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("jobhistory.cli.commands.demo.fill", fail)
    assert demo(tmp_path / "demo.db") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_month_is_the_same_each_time_and_its_schedules_miss_a_few_runs():
    first, second = ([row | {"id": 0, "parent_id": 0} for row in started_by(NOW)] for _ in range(2))
    assert first == second
    assert all(NOW - timedelta(days=31) < row["started_at"] < NOW for row in first)
    runs = Counter(row["task_identifier"] for row in first)
    assert set(runs) >= {task.name for task in TASKS}
    assert (runs["vacuum_tables"], runs["backup_database"], runs["rotate_logs"]) == (4, 30, 29)
    assert {"backup_database", "rotate_logs"} < {task for task, _ in MISSED}
