"""The questions of a page as text to copy: a command, Python and SQL."""

import shlex
import subprocess
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace as with_changes
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobhistory import HistoryQuery, Job, Status, create_async_store, create_store
from jobhistory.cli.app import program
from jobhistory.cli.commands import read, reports
from jobhistory.query.criteria import coerce, replace
from jobhistory.query.cursor import Page
from jobhistory.web import HistoryPage
from jobhistory.web.asking import ask
from jobhistory.web.routes import VIEWS
from jobhistory.web.snippets import SnippetWriter, command_for, python_for
from tests.web.pages import get
from tests.web.test_executions import HOSTILE

TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=30))
SEVERAL = st.lists(TEXTS, min_size=1, max_size=3)
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
LABELS = st.dictionaries(st.from_regex("[a-z][a-z0-9_]{0,5}", fullmatch=True), TEXTS, max_size=3)

CRITERIA = {
    "task_identifier": SEVERAL,
    "status": st.lists(st.sampled_from([each.value for each in Status]), min_size=1, max_size=3),
    "job_id": TEXTS,
    "correlation_id": TEXTS,
    "worker_id": SEVERAL,
    "worker_id_starts_with": TEXTS,
    "min_attempt": st.integers(1, 100),
    "labels": LABELS,
    "parent_id": st.uuids(),
    "trace_id": st.from_regex("[1-9a-f]{32}", fullmatch=True),
    "error_type": TEXTS,
    "error_contains": TEXTS,
    "min_execution_time_ms": st.integers(1, 10**10),
    "order": st.sampled_from(["newest", "oldest"]),
    "limit": st.integers(1, 10_000),
}


@st.composite
def queries(draw, names=tuple(CRITERIA), ends=("from_", "to")):
    criteria = draw(st.fixed_dictionaries({}, optional={name: CRITERIA[name] for name in names}))
    moments = sorted(draw(st.lists(MOMENTS, min_size=len(ends), max_size=len(ends))))
    window = dict(zip(ends, moments, strict=True))
    return HistoryQuery(**criteria, **{name: window[name] for name in ends if draw(st.booleans())})


class Questions:
    """A store that keeps what it is asked."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, method):
        def call(*arguments, **options):
            self.asked.append((method, arguments, options))
            return Page([], None) if method == "page" else []

        return call


@pytest.fixture(scope="module")
def run():
    """Run a command, and return the method, query and options that it asks a store for."""

    def run(words):
        store = Questions()

        @contextmanager
        def opened(url, schema):
            yield store

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(read, "open_store", opened)
            patch.setattr(reports, "open_store", opened)
            with redirect_stdout(StringIO()):
                program.main(words[1:], standalone_mode=False)
        method, (criteria,), options = store.asked[0]
        named = {"limit": options.pop("limit")} if "limit" in options else {}
        return method, coerce(criteria, named), options

    return run


def words_of(command):
    """Return the words of a command as bash reads them, and as Python does where it can."""
    printed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    words = printed.stdout.decode().split("\0")[:-1]
    if "$'" not in command:
        assert shlex.split(command) == words
    return words


@given(queries())
@example(HistoryQuery(task_identifier="-x", worker_id="--limit", job_id="--"))
def test_the_command_for_a_list_asks_for_the_same(run, query):
    command = command_for(ask("page", query, after=None))
    assert run(words_of(command)) == ("page", query, {"after": None})


def test_the_command_for_a_later_page_continues_there(run):
    command = command_for(ask("page", HistoryQuery(limit=5), after="v2.abc"))
    assert run(words_of(command)) == ("page", HistoryQuery(limit=5), {"after": "v2.abc"})


def test_the_command_for_everything_reads_everything(run):
    command = command_for(ask("get_by_job_id", "-7"))
    assert run(words_of(command)) == ("iterate", HistoryQuery(job_id="-7"), {})
    assert run(words_of(command_for(ask("iterate", HistoryQuery(order="oldest"))))) == (
        "iterate",
        HistoryQuery(order="oldest"),
        {},
    )


@given(queries(("task_identifier", "worker_id", "limit"), ends=("from_",)))
def test_the_command_for_what_runs_asks_for_the_same(run, query):
    assert run(words_of(command_for(ask("running", query)))) == ("running", query, {})


def since_ever(query):
    ever = datetime.min.replace(tzinfo=UTC)
    return query if query.from_ else replace(query, from_=ever)


@given(queries(("task_identifier", "worker_id", "error_type", "error_contains", "limit")))
def test_the_command_for_failures_asks_for_the_same(run, query):
    command = command_for(ask("failure_groups", query, known_for="7 days"))
    options = {"known_for": None}  # the command marks no groups as new
    assert run(words_of(command)) == ("failure_groups", since_ever(query), options)


@given(queries(("task_identifier", "worker_id", "worker_id_starts_with", "limit")))
def test_the_command_for_workers_asks_for_the_same(run, query):
    command = command_for(ask("workers", query))
    assert run(words_of(command)) == ("workers", since_ever(query), {})


@given(queries(("task_identifier", "worker_id")), st.booleans())
def test_the_command_for_statistics_asks_for_the_same(run, query, is_exact):
    command = command_for(ask("stats", query, bucket=timedelta(hours=6), exact=is_exact))
    options = {"bucket": timedelta(hours=6), "exact": is_exact}
    assert run(words_of(command)) == ("stats", since_ever(query), options)


@pytest.mark.parametrize(
    "question",
    [
        ask("count", HistoryQuery(), cap=10),
        ask("get", UUID(int=1)),
        ask("stats", HistoryQuery(job_id="1")),
        ask("running", HistoryQuery(to=datetime(2026, 1, 1, tzinfo=UTC))),
        ask("query", HistoryQuery(task_identifier=[])),
        ask("query", HistoryQuery(min_execution_time_ms=0)),
    ],
)
def test_what_no_command_asks_has_none(question):
    assert command_for(question) is None


QUESTIONS = st.one_of(
    st.builds(lambda query: ask("page", query, after="v2.x"), queries()),
    st.builds(lambda query, cap: ask("count", query, cap=cap), queries(), st.integers(0, 9)),
    st.builds(lambda query: ask("stats", query, bucket=timedelta(days=1)), queries()),
    st.builds(lambda id_: ask("get", id_), st.uuids()),
    st.builds(lambda id_: ask("get_by_job_id", id_, limit=3), TEXTS),
)


@given(QUESTIONS)
def test_the_python_asks_for_the_same(question):
    store, names = Questions(), {}
    imports, _, expression = python_for(question).rpartition("\n")
    exec(imports, names)
    eval(expression, names | {"store": store})
    assert store.asked == [(question.method, question.arguments, dict(question.options))]


def fill(store):
    """Record executions with hostile names; return the names."""
    names = [*HOSTILE, "plain", "100%", "a\\'b", "__[SCHEMA__none]"]
    for number, name in enumerate(names):
        job = Job(name, name, labels={"tenant": name}, attempts=2)
        record = store.record_start(job, name, f"request-{number}")
        if number % 2:
            store.record_failure(record, error=ValueError(f"{name} is wrong"))
    return [record.task_identifier for record in store.iterate()]


def ids_of(engine, sql):
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        if engine.dialect.name == "postgresql":
            # What a backslash means in a plain literal is a setting.
            cursor.execute("SET LOCAL standard_conforming_strings = off")
        cursor.execute(sql)
        return [UUID(str(row[0])) for row in cursor.fetchall()]


def test_the_sql_finds_the_same(database, database_store):
    writer = SnippetWriter(database_store)
    names = fill(database_store)
    questions = [{}, {"order": "oldest"}, {"status": "failed"}, {"status": "started"}]
    questions += [{"error_contains": "IS wrong"}, {"min_attempt": 2}, {"task_identifier": names}]
    questions += [{"task_identifier": "x", "from_": datetime(2015, 1, 1, tzinfo=UTC)}]
    for name in names:
        questions += [{"task_identifier": name}, {"worker_id": name}, {"labels": {"tenant": name}}]
        questions += [{"error_contains": name}, {"worker_id_starts_with": name}, {"job_id": name}]
    for criteria in questions:
        query = HistoryQuery(**criteria)
        expected = [record.id for record in database_store.page(query)]
        assert ids_of(database.engine, writer.sql(ask("page", query))) == expected, criteria
    first = database_store.page(limit=3)
    second = ask("page", HistoryQuery(limit=2), after=first.next_cursor)
    assert ids_of(database.engine, writer.sql(second))[:2] == [
        record.id for record in database_store.page(limit=2, after=first.next_cursor)
    ]
    (record, *_) = first
    for question in (ask("get", record.id), ask("get_by_job_id", record.job_id)):
        assert ids_of(database.engine, writer.sql(question)) == [record.id]


def test_the_sql_of_reports_has_the_same_rows(database, database_store):
    writer = SnippetWriter(database_store)
    fill(database_store)

    def rows(question):
        with database.engine.connect() as connection:
            cursor = connection.connection.cursor()
            cursor.execute(writer.sql(question))
            return cursor.fetchall()

    query = HistoryQuery()
    assert rows(ask("count", query, cap=3)) == [(4,)]
    stats = database_store.stats()
    found = {(row[0], row[2]) for row in rows(ask("stats", query, bucket="1h"))}
    assert found == {(each.task_identifier, each.executions) for each in stats}
    found = {(row[0], row[1]) for row in rows(ask("workers", query))}
    assert found == {(each.worker_id, each.executions) for each in database_store.workers()}
    if database.name == "postgresql":
        found = {(row[0], row[2]) for row in rows(ask("failure_groups", query))}
        groups = database_store.failure_groups()
        assert found == {(each.task_identifier, each.message) for each in groups}
    else:  # which needs a function that only connections of the library have
        assert writer.sql(ask("failure_groups", query)) is None


def test_the_sql_names_the_schema_of_the_store(database):
    writer = SnippetWriter(create_store(database.engine, schema="jobs"))
    sql = writer.sql(ask("page", HistoryQuery(task_identifier="__[SCHEMA__none]")))
    assert "FROM jobs.job_history" in sql
    assert "jobs]" not in sql
    command = writer.command(ask("page", HistoryQuery()))
    assert command == "jobhistory list --schema jobs"


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(each, marks=pytest.mark.statistics) if each == "metrics" else each
        for each in VIEWS
    ],
)
def test_every_view_shows_its_questions(plain_store, clock, view):
    page = HistoryPage(plain_store, access="open", clock=clock)
    plain_store.begin(Job("42", "send_email"), "worker-1").end()
    id_ = next(iter(plain_store.query())).id
    url = f"/{view}?task=send_email&id={id_}&mark=2026-01-01&sql=yes"
    assert get(page, url).status in (200, 303)


def test_the_panel_has_what_the_view_asked(plain_store, clock):
    page = HistoryPage(plain_store, access="open", clock=clock)
    plain_store.begin(Job("42", "<b>&"), "worker-1").end()
    body = get(page, "/?q=task:%3Cb%3E%26").body.decode()
    assert "jobhistory list --task &#39;&lt;b&gt;&amp;&#39; --limit 50" in body
    assert "store.page(HistoryQuery(task_identifier=&#39;&lt;b&gt;&amp;&#39;, limit=50))" in body
    assert "SELECT" not in body
    with_sql = get(page, "/?q=task:%3Cb%3E%26&sql=yes").body.decode()
    has_database = plain_store.internals.session_factory is not None
    assert ("Show the SQL" in body) == has_database
    assert ("FROM job_history" in with_sql) == has_database


def test_code_for_asyncio_awaits():
    writer = SnippetWriter(create_async_store())
    assert writer.python(ask("page", HistoryQuery())).endswith("await store.page(HistoryQuery())")
    assert writer.sql(ask("page", HistoryQuery())) is None
    writer = SnippetWriter(create_async_store("sqlite:///history.db"))
    assert "FROM job_history" in writer.sql(ask("get", uuid4()))


def test_a_question_that_only_the_page_knows_has_python_only():
    writer = SnippetWriter(create_store("sqlite:///history.db"))
    question = with_changes(ask("unknown", HistoryQuery(limit=5)), options={"since": 1})
    assert writer.command(question) is None
    assert writer.sql(question) is None
    assert "store.unknown(HistoryQuery(limit=5), since=1)" in writer.python(question)
