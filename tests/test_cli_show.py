"""`jobhistory show` by any id, and by the beginning of one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from jobhistory import Failure, create_store
from jobhistory.cli import main
from jobhistory.database import beginnings
from jobhistory.database.beginnings import candidates, ids_with

IDS = {
    "order-1": ["019ac123-0000-7000-8000-000000000001", "019ac123-0000-7000-8000-000000000002"],
    "order-12": ["019ac123-0001-7000-8000-000000000003"],
    "Order-12": ["019ac124-0001-7000-8000-000000000004"],
    "019ac125": ["019ac126-0001-7000-8000-000000000005"],
}


@pytest.fixture
def store(database):
    store = create_store(database.engine, history_retention="never")
    for job, ids in IDS.items():
        for number, id_ in enumerate(ids, start=1):
            store.record_execution(
                {"status": "completed", "execution_time_ms": 1, "attempt_number": number},
                job_id=job,
                task_identifier="t",
                worker_id="w",
                correlation_id="c",
                started_at=datetime.fromtimestamp(int(id_[:13].replace("-", ""), 16) / 1000, UTC),
                execution_id=UUID(id_),
            )
    return store


@pytest.fixture
def show(store, database, capsys):
    """Runs `show --json`; returns the exit status, the ids it shows, and standard error."""

    def show(id_):
        url = database.url.render_as_string(hide_password=False)
        with pytest.raises(SystemExit) as caught:
            main(["show", id_, "--json", "--url", url])
        out, err = capsys.readouterr()
        return caught.value.code or 0, [json.loads(line)["id"] for line in out.splitlines()], err

    return show


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("order-1", ["order-1", 1, 0]),  # exactly, although others begin so
        ("order-12", ["order-12", 0]),
        ("Ord", ["Order-12", 0]),  # case matters
        ("019ac123-0000-7000-8000-000000000001", ["order-1", 0]),
        ("019AC123-0001", ["order-12", 0]),
        ("019ac1230001", ["order-12", 0]),
        ("019ac125", ["019ac125", 0]),
        ("019ac126", ["019ac125", 0]),
    ],
)
def test_show_finds_jobs_and_executions(show, text, shown):
    job, *numbers = shown
    assert show(text) == (0, [IDS[job][number] for number in numbers], "")


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("o", ["order-12  job  t  2025-11-26", "order-1  job  t  2025-11-26"]),
        ("019ac123-0000", [f"{id_}  execution  t  " for id_ in reversed(IDS["order-1"])]),
        ("019", ["019ac126-0001", "019ac124-0001", "019ac123-0001", *["019ac123-0000"] * 2,
                 "019ac125  job"]),
    ],
)  # fmt: skip
def test_an_ambiguous_beginning_lists_what_it_may_stand_for(show, text, listed):
    status, shown, err = show(text)
    first, *lines = err.splitlines()
    assert (status, shown) == (1, [])
    assert first == f"jobhistory: {text!r} is the beginning of several ids; give more of one:"
    assert len(lines) == len(listed)
    for line, start in zip(lines, listed, strict=True):
        assert line.startswith(f"  {start}")


@pytest.mark.parametrize(
    "text", ["nosuch", "019ac127", "%", "order_", "019ac1-23", "--", "0" * 255]
)
def test_what_fits_nothing_is_one_line(show, text):
    status, shown, err = show(text) if text != "--" else show("order-3")
    assert (status, shown, err.count("\n")) == (1, [], 1)
    assert "no execution has the id" in err


def test_jobs_are_searched_among_the_newest_executions(store, show, monkeypatch):
    monkeypatch.setattr(beginnings, "SEARCHED", 2)  # those of "Order-12" and "019ac125"
    found = candidates(store.internals.history, "", 10)
    assert [each.id for each in found.jobs] == ["019ac125", "Order-12"]
    assert show("order-1")[0] == 0, "the whole id is found in all of history"
    assert show("order-12")[0] == 0
    assert show("orde")[0] == 1


def test_the_beginning_of_an_id_is_a_range_of_ids():
    first, last = ids_with("019AC123-00")
    assert str(first) == "019ac123-0000-0000-0000-000000000000"
    assert str(last) == "019ac123-00ff-ffff-ffff-ffffffffffff"
    for text in ("", "x", "019ac1-23", "019ac1230-", "-", "0" * 33):
        assert ids_with(text) is None


STACK = """Traceback (most recent call last):
  File "/srv/shop/worker.py", line 41, in work
    task(**job.payload)
  File "/usr/lib/python3.13/site-packages/client/api.py", line 310, in get
    raise TimeoutError(url)
TimeoutError: no answer
"""


def test_own_frames_and_the_error_stand_out_in_a_traceback(database, capsys, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    store = create_store(database.engine)
    failed = {"status": "failed", "error": Failure("TimeoutError", "no answer", STACK)}
    ids = {"task_identifier": "t", "worker_id": "w", "correlation_id": "c"}
    store.record_execution(failed, job_id="1", **ids)
    with pytest.raises(SystemExit):
        main(["show", "1", "--url", database.url.render_as_string(hide_password=False)])
    out = capsys.readouterr().out
    assert '\x1b[1m  File "/srv/shop/worker.py", line 41, in work\x1b[0m\n' in out
    assert "\n      task(**job.payload)\n" in out
    assert '\x1b[2m  File "/usr/lib/python3.13/site-packages/client/api.py", line 310' in out
    assert "\x1b[31mTimeoutError: no answer\x1b[0m\n" in out
