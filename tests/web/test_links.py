"""Links to other tools: which templates are accepted, and what becomes of them."""

from datetime import timedelta

import pytest

from jobhistory import Job, create_store
from jobhistory.errors import InvalidInput
from jobhistory.web import HistoryPage, Links

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def record(clock):
    row = {
        "job_id": "a/b c&d=é?#\"'<",
        "task_identifier": "send_email",
        "worker_id": "host:1",
        "correlation_id": "request",
        "status": "completed",
        "labels": {"tenant": "../acme"},
        "trace_id": TRACE_ID,
        "started_at": clock() - timedelta(hours=1),
    }
    return create_store(clock=clock).record_execution(row)


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://t.example/{trace_id}", f"https://t.example/{TRACE_ID}"),
        ("https://t.example/{{x}}?j={job_id}", None),
        ("https://t.example/{job_id}", "https://t.example/a%2Fb%20c%26d%3D%C3%A9%3F%23%22%27%3C"),
        ("http://t.example?q={labels.tenant}", "http://t.example?q=..%2Facme"),
        ("https://t.example/{started_at}", "https://t.example/2015-11-01T11%3A00%3A00%2B00%3A00"),
        ("https://t.example/{labels.region}", ""),
        ("https://t.example/{span_id}", ""),
    ],
)
def test_values_are_quoted_and_a_link_without_a_value_is_left_out(record, template, url):
    if url is None:
        url = template.replace("{{x}}", "{x}").replace("{job_id}", "a%2Fb%20c%26d%3D%C3%A9%3F%23")
        url += "%22%27%3C"
    assert Links(trace_url=template).trace(record) == (url or None)
    assert Links(logs_url=template).logs(record) == (url or None)


def test_the_source_of_a_line_keeps_the_slashes_of_its_file():
    links = Links(source_url="https://git.example/blob/main{file}#L{line}")
    assert links.source("/app/a b.py", 7) == "https://git.example/blob/main/app/a%20b.py#L7"
    assert links.source("\\app\\x.py", 7) == "https://git.example/blob/main/app/x.py#L7"
    assert Links().source("/app/x.py", 7) is None


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (b"https://t.example/", "is not a text"),
        ("", "does not start with 'https://'"),
        ("javascript:alert('{job_id}')", "does not start with 'https://'"),
        ("//t.example/{job_id}", "does not start with 'https://'"),
        ("https://{labels.site}/x", "does not start with 'https://'"),
        ("https://t.example.{labels.site}/x", "does not start with 'https://'"),
        ("https://t.example/{job_id", "is not a template"),
        ("https://t.example/{}", "has the field {}"),
        ("https://t.example/{0}", "has the field {0}"),
        ("https://t.example/{payload}", "has the field {payload}"),
        ("https://t.example/{job_id.__class__}", "the fields are id, job_id,"),
        ("https://t.example/{labels[tenant]}", "has the field {labels[tenant]}"),
        ("https://t.example/{labels.__class__}", "has the field"),
        ("https://t.example/{job_id!r}", "has the field {job_id}"),
        ("https://t.example/{job_id:>1000000000}", "has the field {job_id}"),
        ("https://t.example/{file}", "has the field {file}"),
    ],
)
def test_what_is_no_template_is_refused_when_the_page_is_made(clock, template, what):
    with pytest.raises(InvalidInput, match="trace_url") as caught:
        HistoryPage(create_store(clock=clock), trace_url=template)
    assert what in str(caught.value)


def test_a_link_to_source_has_fields_of_its_own():
    with pytest.raises(InvalidInput, match="the fields are file, line"):
        Links(source_url="https://t.example/{job_id}")


def test_a_label_that_is_presented_as_something_else_is_no_value(clock):
    record = create_store(clock=clock).record_start(Job("1", "t", labels={"a": "b"}), "w", "c")
    links = Links(logs_url="https://t.example/{labels.a}")
    assert links.logs(record) == "https://t.example/b"
    for labels in ("[hidden]", {"a": ["b"]}, None):
        record.labels = labels
        assert links.logs(record) is None
