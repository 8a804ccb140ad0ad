"""The language of the search box."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from inspect import signature
from pathlib import Path
from typing import get_type_hints
from uuid import UUID, uuid4

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import Job
from jobhistory.cli import criteria_options
from jobhistory.errors import InvalidInput
from jobhistory.web import HistoryPage, search
from tests.web.pages import get, location, page_of, ran, text_of

ROOT = Path(__file__).parents[2]
NAMES = st.sampled_from([None, *search.TERMS, *search.WINDOW_TERMS, "unknown"])


def _options():
    """The names of the options for criteria, without their dashes, in the order of the help."""
    hints = get_type_hints(criteria_options._criteria, include_extras=True)
    for name in signature(criteria_options._criteria).parameters:
        (option,) = (each for each in hints[name].__metadata__)
        assert isinstance(option, typer.models.OptionInfo)
        declared = [each for each in option.param_decls or () if each.startswith("--")]
        yield (declared[0] if declared else f"--{name}").replace("_", "-").removeprefix("--")


def test_the_terms_are_the_options_of_the_command_line():
    assert set(search.TERMS) | set(search.WINDOW_TERMS) == set(_options())


@given(st.lists(st.tuples(NAMES, st.text())))
def test_terms_that_are_written_are_read_again(terms):
    assert search.split(search.join(terms)) == terms


@given(st.text(alphabet='ab:"\\ \n=>'))
def test_every_text_has_terms_that_can_be_written_again(text):
    terms = search.split(text)
    assert search.split(search.join(terms)) == terms


@given(st.text())
def test_a_text_is_read_or_refused(text):
    with suppress(InvalidInput):
        search.criteria_of(text)


@pytest.mark.parametrize(
    ("text", "criteria"),
    [
        ("", {}),
        ('task:send_email task:"a b"', {"task_identifier": ["send_email", "a b"]}),
        ("status:running", {"status": ["started"]}),
        ("label:tenant=acme label:queue=x", {"labels": {"tenant": "acme", "queue": "x"}}),
        ("min-time:1m30s", {"min_execution_time_ms": 90_000}),
        ("timed out", {"error_contains": "timed out"}),
        ('error-contains:"timed out', {"error_contains": "timed out"}),
        ("since:2d until:1h", {}),
    ],
)
def test_terms_are_criteria(text, criteria):
    assert search.criteria_of(text) == criteria


def test_a_narrower_search_replaces_the_value_of_a_term():
    assert search.narrowed("task:a status:failed", "status", "started") == "task:a status:started"
    assert search.narrowed("label:a=1 label:b=1", "label", "a=2 3") == 'label:b=1 label:"a=2 3"'


@pytest.fixture
def page(plain_store, clock):
    job = Job("42", "billing:charge", labels={"tenant": "acme"})
    record = plain_store.record_start(job, "host-7:4242", "request-7")
    plain_store.record_failure(record, error=ValueError("no card"))
    page = HistoryPage(plain_store, access="open", clock=clock)
    page.execution_id = record.id
    return page


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("42", "./?q=job-id%3A42"),
        ("request-7", "./?q=correlation-id%3Arequest-7"),
        ("billing:charge", "./?q=task%3Abilling%3Acharge"),
        ("host-7:4242", "./?q=worker%3Ahost-7%3A4242"),
        ("ValueError", "./?q=error-type%3AValueError"),
        ("no+card", "./?q=error-contains%3A%22no+card%22"),
        ("Failed", "./?q=status%3Afailed"),
        ("running", "./?q=status%3Astarted"),
        ("tenant%3Dacme", "./?q=label%3Atenant%3Dacme"),
        ("%3E30s", "./?q=min-time%3A30s"),
        ("%3Ething", "./?q=error-contains%3A%3Ething"),
        ("4bf9" * 8, "./?q=trace-id%3A" + "4bf9" * 8),
        ("task:x+status:", "./?q=task%3Ax"),
        ("job-id:", "./"),
        ("since:2d+task:x", "./?q=task%3Ax&since=2d"),
        ("until:1h&since=3h", "./?since=3h&until=1h"),
        ("x" * 300, "./?q=error-contains%3A" + "x" * 300),
        ("x&order=oldest&after=old", "./?q=error-contains%3Ax&order=oldest"),
    ],
)
def test_a_bare_word_becomes_what_it_most_likely_means(page, typed, meant):
    answer = get(page, f"/?q={typed}")
    assert location(answer) == meant
    assert get(page, "/" + meant.removeprefix("./")).status == 200


def test_the_id_of_an_execution_leads_to_it(page):
    for text in (str(page.execution_id), page.execution_id.hex):
        assert location(get(page, f"/?q={text}")) == f"execution?id={page.execution_id}"


def test_a_uuid_may_be_the_id_of_a_job(page):
    id_ = uuid4()
    page.store.begin(Job(id_, "send_email"), "worker-1").end()
    assert location(get(page, f"/?q={id_}")) == f"./?q=job-id%3A{id_}"
    unknown = UUID(int=1)
    assert "error-contains" in location(get(page, f"/?q={unknown}"))


def test_a_name_that_is_neither_a_term_nor_known_is_refused(page):
    answer = get(page, "/?q=colour:red")
    assert answer.status == 400
    assert b"is not a term" in answer.body


@pytest.mark.parametrize(
    "text", ["%22", "%22task", "task:%22", "%5C", "task%3A", "%00", "%ff", "''"]
)
def test_unfinished_and_strange_texts_are_searched_for(page, text):
    answer = get(page, f"/?q={text}")
    assert answer.status in (200, 303, 400)


def test_the_documentation_describes_all_terms():
    text = (ROOT / "docs" / "howto" / "web-search.md").read_text()
    for name in (*search.TERMS, *search.WINDOW_TERMS):
        assert f"`{name}:" in text


def test_a_status_may_be_a_list_and_other_values_keep_their_commas():
    criteria = search.criteria_of('status:failed,running task:"a,b"')
    assert criteria == {"status": ["failed", "started"], "task_identifier": ["a,b"]}


def test_a_day_with_a_name_begins_in_the_time_zone_of_the_viewer(plain_store):
    now = datetime(2026, 11, 28, 1, tzinfo=UTC)
    for job, age in [("late", timedelta(hours=19)), ("early", timedelta(hours=21))]:
        plain_store.record_execution(ran(lambda: now, ago=age, job_id=job))
    page = page_of(plain_store, lambda: now)
    assert location(get(page, "/?q=since:today")) == "./?since=today"
    shown = text_of(get(page, "/?since=today", cookie="jobhistory_zone=America/New_York"))
    assert "late" in shown
    assert "early" not in shown
