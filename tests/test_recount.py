"""Recounting the statistics of whole hours from rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, event, func, select, update

from jobhistory import InvalidInput, Job, create_store
from jobhistory.cli import main
from jobhistory.database.marks import move_mark
from jobhistory.database.transaction import Purpose
from jobhistory.rollup_schema import ENDED, ROLLUP
from jobhistory.schema import TABLE
from tests.test_fold import EXECUTION, rollups, waiting

START = datetime(2015, 10, 31, 22, tzinfo=UTC)
END = START + timedelta(hours=4)  # another day and month


def record(store, *hours, **values):
    for each in hours:
        started_at = START + timedelta(hours=each)
        store.record_execution(EXECUTION | {"started_at": started_at} | values)


def totals(engine):
    """The numbers of executions by span, task and bucket, without those that are 0."""
    return {key: each.executions for key, each in rollups(engine).items() if each.executions}


def forget_rollups(engine):
    with engine.begin() as connection:
        connection.execute(delete(ROLLUP))
        connection.execute(delete(ENDED))


@pytest.fixture
def store(database, clock):
    return create_store(database.engine, history_retention="never", clock=clock)


def test_a_recount_restores_what_is_missing(database, store):
    record(store, 0, 1, 2, 3)
    record(store, -3, 5, task_identifier="export")
    store.fold()
    before = totals(database.engine)
    with database.engine.begin() as connection:
        connection.execute(update(ROLLUP).where(ROLLUP.c.bucket >= START).values(completed=7))
    assert totals(database.engine) != before
    assert store.recount(START, END + timedelta(hours=4)) == 5
    assert totals(database.engine) == before


def test_a_recount_removes_what_sql_has_deleted(database, store):
    record(store, 0, 1, 5)
    store.fold()
    with database.engine.begin() as connection:
        connection.execute(delete(TABLE).where(TABLE.c.started_at < END))
    assert store.recount(START, END) == 0
    day = datetime(2015, 11, 1, tzinfo=UTC)
    assert totals(database.engine) == {
        ("hour", "import", day + timedelta(hours=3)): 1,
        ("day", "import", day): 1,
        ("month", "import", day): 1,
    }


def test_what_waits_counts_once(database, store):
    record(store, 0, 1)
    store.fold()
    record(store, 1, 5)
    assert store.recount(START, END) == 3
    assert waiting(database.engine) == 1  # outside of the window
    store.fold()
    hours = [count for (span, *_), count in totals(database.engine).items() if span == "hour"]
    assert sorted(hours) == [1, 1, 2]


def test_what_still_runs_is_added_when_it_ends(database, store, clock):
    clock.now = START
    started = store.record_start(Job("1", "import"), "worker", "request")
    assert store.recount(START, END) == 0
    store.record_completion(started, execution_time_ms=5)
    store.fold()
    assert set(totals(database.engine).values()) == {1}
    assert store.recount(START, END) == 1
    assert set(totals(database.engine).values()) == {1}


def test_an_execution_that_ends_meanwhile_is_added_later(database, store, clock):
    """Only PostgreSQL lets others write meanwhile."""
    if database.name == "sqlite":
        pytest.skip("only one connection writes")
    clock.now = START
    started = store.record_start(Job("1", "import"), "worker", "request")
    record(store, 1)
    other = create_store(database.url, clock=clock)

    is_ended = False

    def end(connection, cursor, statement, *_):
        nonlocal is_ended
        if statement.startswith("INSERT INTO job_history_rollup") and not is_ended:
            is_ended = True
            with other:
                other.record_completion(started, execution_time_ms=5)

    event.listen(database.engine, "before_cursor_execute", end)
    try:
        assert store.recount(START, END) == 1
    finally:
        event.remove(database.engine, "before_cursor_execute", end)
    assert waiting(database.engine) == 1
    store.fold()
    total = select(func.sum(ROLLUP.c.completed)).where(ROLLUP.c.span == "hour")
    with database.engine.connect() as connection:
        assert connection.execute(total).scalar_one() == 2


@pytest.mark.parametrize("how", ["expire", "purge"])
def test_a_window_of_deleted_rows_is_refused(database, store, clock, how):
    record(store, 0, 1)
    record(store, 0, expires_at=START + timedelta(hours=1), task_identifier="short")
    store.fold()
    clock.advance(days=1)
    if how == "expire":
        assert store.expire() == 1
    else:
        assert store.purge(task_identifier="short") == 1
    before = totals(database.engine)
    with pytest.raises(InvalidInput, match=r"deleted.*pass 2015-10-31T23:00:00\+00:00 or later"):
        store.recount(START, END)
    assert totals(database.engine) == before
    assert store.recount(START + timedelta(hours=1), END) == 1


def test_a_month_whose_days_are_gone_is_refused(database, store):
    record(store, 0)
    store.fold()
    until = datetime(2015, 11, 1, tzinfo=UTC)
    history = store.internals.history
    history.run(Purpose.MAINTAIN_AS_ONE, lambda each: move_mark(each, "days_from", until))
    with pytest.raises(InvalidInput, match=r"deleted.*pass 2015-11-01T00:00:00\+00:00 or later"):
        store.recount(START, START + timedelta(hours=1))


def test_a_window_with_executions_that_were_not_stored_is_refused(database, store):
    record(store, 0)
    store.record_execution(EXECUTION | {"started_at": START}, record="failures")
    assert store.recount(START, END) == 1  # as it waits, it is added later
    assert waiting(database.engine) == 1
    store.fold()
    before = totals(database.engine)
    with pytest.raises(InvalidInput, match=r"counted but not stored \(1\)"):
        store.recount(START, END)
    assert totals(database.engine) == before


@pytest.mark.parametrize(
    ("from_", "to"),
    [
        (START.replace(minute=1), END),
        (START, END.replace(microsecond=1)),
        (START.replace(tzinfo=None), END),
        (END, START),
        (START, START),
    ],
)
def test_the_window_consists_of_whole_hours(plain_store, from_, to):
    with pytest.raises(InvalidInput):
        plain_store.recount(from_, to)


def test_a_store_in_memory_has_nothing_to_recount():
    assert create_store().recount(START, END) == 0


def test_the_command_recounts(database, store, capsys):
    record(store, 0, 1)
    forget_rollups(database.engine)
    url = database.url.render_as_string(hide_password=False)
    window = ["2015-10-31T22:00", "2015-11-01T02:00"]
    with pytest.raises(SystemExit) as end:
        main(["fold", "--recount", *window, "--json", "--url", url])
    assert end.value.code in (0, None)
    assert capsys.readouterr().out == '{"recounted": 2}\n'
    with pytest.raises(SystemExit) as end:
        main(["fold", "--recount", "yesterday", window[1], "--url", url])
    assert end.value.code != 0
    assert "is not a time" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["fold", "--recount", "2015-10-31T22:30", window[1], "--url", url])
    assert "--recount '2015-10-31T22:30' is not the start" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["fold", "--recount", *window, "--dry-run", "--url", url])
    assert end.value.code != 0
    assert "--dry-run" in capsys.readouterr().err
