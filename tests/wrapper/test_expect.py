"""`jobhistory run --expect`: a run declares when its task should start."""

from __future__ import annotations

import pytest

from jobhistory import Expectation, create_store
from jobhistory.cli.wrapper.parsing import read_options
from jobhistory.errors import InvalidInput

sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def declared(database):
    """Returns the expectations that are declared."""
    return lambda: create_store(database.engine).expectations()


def test_a_run_declares_when_its_task_should_start(run, declared, only_record):
    options = ("--task", "backup", "--expect", "17 2 * * *", "--grace", "15m")
    done = run(*options, "--", "true", variables={"TZ": "Asia/Tokyo"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (found,) = declared()
    assert found.expectation == Expectation(
        "backup", cron="17 2 * * *", timezone="Asia/Tokyo", grace="15m"
    )
    assert found.source == "jobhistory run"
    assert only_record().status == "completed"


@sqlite
def test_each_run_keeps_what_is_known_and_writes_only_what_is_new(run, declared, database):
    store = create_store(database.engine)
    store.expect("backup", every="1h", max_runtime="2h", owner="ann", grace="1m")
    run("--task", "backup", "--expect", "2h", "--", "true")
    (found,) = declared()
    assert found.expectation == Expectation(
        "backup", every="2h", max_runtime="2h", owner="ann", grace="1m"
    )
    assert found.source is None
    run("--task", "backup", "--expect", "120 minutes", "--", "true")
    assert declared() == [found]


@sqlite
def test_runs_that_are_only_counted_declare_as_well(run, declared):
    run("--task", "backup", "--record", "failures", "--expect", "@daily", "--", "true")
    assert declared()[0].expectation.cron == "0 0 * * *"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--expect", "61 2 * * *"], "--expect '61 2 * * *' is not a cron expression"),
        (["--expect", "@often"], "--expect '@often' does not have five fields"),
        (["--expect", "often"], "--expect 'often' is neither a cron expression nor a duration"),
        (["--expect", "0.5s"], "--expect '0.5s' is neither a cron expression nor a duration"),
        (["--expect", "1h", "--grace", "soon"], "--grace 'soon' is not a duration"),
        (["--grace", "15m"], "--grace '15m' has no effect without --expect"),
    ],
)
def test_a_wrong_schedule_is_refused_before_the_command_runs(arguments, message):
    with pytest.raises(InvalidInput) as caught:
        read_options([*arguments, "--", "true"], {})
    assert message in str(caught.value)
