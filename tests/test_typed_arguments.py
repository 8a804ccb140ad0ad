"""The types of arguments that are listed twice: for type checkers, and in the code that checks."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

from jobhistory import (
    AsyncBaseStore,
    BaseStore,
    HistoryQuery,
    HistoryRecord,
    InvalidInput,
    Recorder,
)
from jobhistory import typing as types

VALUES = {
    "from_": None,
    "to": None,
    "task_identifier": "t",
    "status": "failed",
    "order": "oldest",
    "limit": 5,
    "worker_id": ["w"],
    "labels": {"tenant": "acme"},
    "min_attempt": 2,
}
BY_METHOD = {
    "query": types.Criteria,
    "page": types.Criteria,
    "iterate": types.IterateCriteria,
    "count": types.CountCriteria,
    "stats": types.CountCriteria,
    "failure_groups": types.GroupCriteria,
    "running": types.GroupCriteria,
    "workers": types.GroupCriteria,
}


def hints(what):
    return {name: hint for name, hint in get_type_hints(what).items() if name != "return"}


def named_by(method):
    """Return the TypedDict of the keyword arguments of a method."""
    hint = get_type_hints(method)[list(inspect.signature(method).parameters)[-1]]
    return hint.__args__[0]


def test_criteria_are_those_of_a_query():
    assert hints(types.Criteria) == hints(HistoryQuery.__init__)


@pytest.mark.parametrize("name", BY_METHOD)
def test_each_method_lists_the_criteria_that_it_takes(plain_store, name):
    listed = BY_METHOD[name]
    method = getattr(plain_store, name)
    assert named_by(getattr(BaseStore, name)) is named_by(getattr(AsyncBaseStore, name)) is listed
    for criterion in hints(types.Criteria):
        argument = {criterion: VALUES.get(criterion)}
        if criterion in hints(listed):
            method(**argument)
        else:
            with pytest.raises(InvalidInput, match="has no effect here"):
                method(**argument)
    with pytest.raises(InvalidInput, match="'statsu' is not a criterion"):
        method(statsu="failed")


def test_the_fields_of_a_record_are_its_columns():
    columns = set(HistoryRecord.__mapper__.columns.keys())
    assert hints(types.RecordFields).keys() == columns | {"error"}
    for cls in (BaseStore, AsyncBaseStore, Recorder):
        assert named_by(cls.record_execution) is types.RecordFields


def test_a_field_that_is_listed_is_accepted(plain_store):
    ended = {
        "job_id": "1",
        "worker_id": "w",
        "correlation_id": "c",
        "task_identifier": "t",
        "status": "completed",
    }
    others = dict.fromkeys(hints(types.RecordFields).keys() - ended.keys())
    assert plain_store.record_execution(**ended, **others).status == "completed"
    with pytest.raises(InvalidInput, match="'jobb_id' is not a valid key"):
        plain_store.record_execution(**ended, jobb_id="1")
