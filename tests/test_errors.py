from __future__ import annotations

import pickle

import pytest

from jobhistory import (
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    InvalidInput,
    Job,
    JobHistoryError,
    SchemaOutOfDate,
    create_store,
)


def already_finished():
    store = create_store()
    store.record_start(Job("1", "t"), "w", "c")
    return ExecutionAlreadyFinished(store.record_completion("1", "w", "c", 1))


@pytest.mark.parametrize(
    ("error", "builtin", "message"),
    [
        (InvalidInput("n", -1, "is not a count"), ValueError, "n -1 is not a count"),
        (ExecutionNotFound("1", "w", "c"), LookupError, "job_id '1', worker_id 'w'"),
        (already_finished(), RuntimeError, "job '1' has already ended as 'completed'"),
        (SchemaOutOfDate(None, "0002"), RuntimeError, "jobhistory db upgrade"),
        (SchemaOutOfDate("0001", "0002"), RuntimeError, "at revision 0001 and not at 0002"),
        (SchemaOutOfDate("0009", "0002"), RuntimeError, "pip install --upgrade jobhistory"),
        (
            SchemaOutOfDate("0002", "0002", ("index x is missing",)),
            RuntimeError,
            "index x is missing",
        ),
    ],
)
def test_errors_are_ours_and_builtin_say_what_is_wrong_and_can_be_pickled(error, builtin, message):
    assert isinstance(error, JobHistoryError)
    assert isinstance(error, builtin)
    assert message in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_message_quotes_no_more_of_a_value_than_a_reader_wants():
    assert len(str(InvalidInput("n", "x" * 10_000, "is long"))) < 200
