"""Metrics for Prometheus: what they say, and that neither time nor hostile names break them."""

from __future__ import annotations

import itertools
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from jobhistory import (
    AsyncRecorder,
    InvalidInput,
    Job,
    Recorder,
    StatisticsDenied,
    WorkerLost,
    create_async_store,
    create_store,
)
from jobhistory.statistics.prometheus import LIMITS_MS
from tests.conftest import EVERY_STORE, app_role, as_role, stores_of_kind

pytestmark = pytest.mark.statistics

DAY = timedelta(days=1)


def samples(text):
    """Return the value of each series, as Prometheus' own parser reads it."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found, f"two series {key}"
            found[key] = sample.value
    return found


def value(text, name, **labels):
    return samples(text).get((f"jobhistory_{name}", *sorted(labels.items())))


def record(store, *, task="t", status="completed", **fields):
    fields = {"job_id": "j", "worker_id": "w", "correlation_id": "c"} | fields
    return store.record_execution(task_identifier=task, status=status, **fields)


def by_status(store, task="t"):
    text = store.metrics()
    names = ("completed", "failed", "retried", "partial_success", "cancelled")
    return [value(text, "executions_total", task=task, status=name) for name in names]


@pytest.fixture(params=[each for each in EVERY_STORE if isinstance(each, str)])
def any_store(request, clock):
    with stores_of_kind(request.param, request, clock) as make:
        yield make()


def test_metrics_of_every_kind_of_store(any_store, request, clock):
    any_store.record_start(Job("1", "import", run_at=clock.now - 2 * DAY), "w", "c")
    any_store.record_completion("1", "w", "c", 1500)
    any_store.record_start(Job("2", "import"), "w", "c")

    if "as_app" in request.node.callspec.id:
        with pytest.raises(StatisticsDenied, match="grant SELECT on job_history_ended"):
            any_store.metrics()
        return
    text = any_store.metrics()
    assert value(text, "executions_total", task="import", status="completed") == 1
    assert value(text, "executions_total", task="import", status="failed") == 0
    assert value(text, "running", task="import") == 1
    since = value(text, "running_since_timestamp_seconds", task="import")
    assert since == clock.now.timestamp()
    assert value(text, "lost", task="import") == 0
    assert value(text, "execution_duration_seconds_bucket", task="import", le="1") == 0
    assert value(text, "execution_duration_seconds_bucket", task="import", le="2.5") == 1
    assert value(text, "execution_duration_seconds_bucket", task="import", le="+Inf") == 1
    assert value(text, "execution_duration_seconds_sum", task="import") == 1.5
    assert value(text, "execution_duration_seconds_count", task="import") == 1
    assert value(text, "queue_time_seconds_sum", task="import") == 2 * 24 * 60 * 60
    assert value(text, "queue_time_seconds_bucket", task="import", le="86400") == 0
    assert value(text, "last_start_timestamp_seconds", task="import") == clock.now.timestamp()
    assert value(text, "last_success_timestamp_seconds", task="import") == clock.now.timestamp()
    assert value(text, "last_failure_timestamp_seconds", task="import") is None


def test_an_empty_history_has_metrics_without_series(plain_store):
    text = plain_store.metrics()

    assert samples(text) == {}
    assert "# TYPE jobhistory_executions_total counter\n" in text


def test_metrics_of_an_asyncio_store(event_loop_thread):
    store = create_async_store()

    async def ask():
        async with store.track(Job("1", "import"), "w"):
            return await store.metrics()

    assert value(event_loop_thread.run(ask()), "running", task="import") == 1


def test_what_has_run_longest(plain_store, clock):
    began = clock.now.timestamp()
    for job_id in ("1", "2"):
        plain_store.record_start(Job(job_id, "t"), "w", "c")
        clock.advance(hours=1)
    text = plain_store.metrics()
    assert value(text, "running_since_timestamp_seconds", task="t") == began
    assert value(text, "last_start_timestamp_seconds", task="t") == began + 3600

    plain_store.record_completion("1", "w", "c", 1)
    since = value(plain_store.metrics(), "running_since_timestamp_seconds", task="t")
    assert since == began + 3600

    plain_store.record_completion("2", "w", "c", 1)
    assert value(plain_store.metrics(), "running_since_timestamp_seconds", task="t") is None


def test_a_retried_attempt_has_a_status_of_its_own(plain_store):
    record(plain_store, status="failed", error="x", will_retry=True)
    record(plain_store, status="failed", error="x", will_retry=False)
    record(plain_store, status="failed", error="x")
    record(plain_store, status="partial_success")
    record(plain_store, status="cancelled")
    record(plain_store)

    assert by_status(plain_store) == [1, 2, 1, 1, 1]


@pytest.mark.parametrize("will_retry", [None, True])
@pytest.mark.parametrize("is_folded", [False, True])
def test_a_presumed_loss_is_not_counted_before_its_real_outcome(
    plain_store, clock, will_retry, is_folded
):
    record_ = plain_store.record_start(Job("1", "t"), "w", "c")
    plain_store.record_failure(record_, error=WorkerLost("gone"), will_retry=will_retry)
    if is_folded:
        plain_store.fold()

    assert by_status(plain_store) == [0, 0, 0, 0, 0]
    assert value(plain_store.metrics(), "lost", task="t") == 1

    plain_store.record_failure("1", "w", "c", 1000, "real", will_retry=will_retry)
    assert by_status(plain_store) == [0, 0 if will_retry else 1, 1 if will_retry else 0, 0, 0]
    assert value(plain_store.metrics(), "lost", task="t") == 0


def test_they_outlive_the_rows(plain_store, clock):
    record(plain_store, execution_time_ms=5, started_at=clock.now, expires_at=clock.now)
    clock.advance(days=3)
    plain_store.expire()

    assert plain_store.query() == []
    assert by_status(plain_store) == [1, 0, 0, 0, 0]
    assert value(plain_store.metrics(), "execution_duration_seconds_count", task="t") == 1


def test_executions_that_are_only_counted_count(plain_store):
    with plain_store.track(Job("1", "t"), "w", record="failures"):
        pass

    assert plain_store.query() == []
    assert by_status(plain_store) == [1, 0, 0, 0, 0]


def test_the_limits_of_buckets_are_exact_to_two_percent(plain_store):
    times = [limit + step for limit in LIMITS_MS for step in (-limit // 40, 0, limit // 40)]
    for time in times:
        record(plain_store, execution_time_ms=time)

    for is_folded in (False, True):
        if is_folded:
            plain_store.fold()
        text = plain_store.metrics()
        for limit in LIMITS_MS:
            name = "execution_duration_seconds_bucket"
            found = value(text, name, task="t", le=f"{limit / 1000:g}")
            assert sum(t <= limit / 1.02 for t in times) <= found
            assert found <= sum(t <= limit * 1.03 for t in times)


# -- nothing goes back ---------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("start", "start", "complete", "fail", "retry", "cancel", "partial"),
                *("lose", "lose_retried", "late", "late", "reap", "counted", "ended"),
                *("fold", "expire", "purge", "purge_started", "wait"),
            ]
        ),
        st.integers(0, 5),
        st.none() | st.integers(0, 10_000) | st.integers(0, 10**9),
    ),
    max_size=25,
)
numbers = itertools.count()
GROWING = ("_total", "_bucket", "_sum", "_count")


def growing(text, number):
    return {
        key: value
        for key, value in samples(text).items()
        if key[0].endswith(GROWING) and ("task", f"task-{number}") in key
    }


class Steps:
    """Does random things to a history."""

    def __init__(self, store, clock, task):
        self.store, self.clock, self.task = store, clock, task
        self.begun, self.lost = [], []

    def do(self, name, which, time):
        getattr(self, name)(which, time)

    def start(self, which, time):
        run_at = None if time is None else self.clock.now - timedelta(milliseconds=time)
        job = Job(str(next(numbers)), self.task, run_at=run_at)
        self.begun.append(self.store.record_start(job, "w", "c", history_retention="2 days"))

    def _end(self, which, method, *args, **named):
        if self.begun:
            started = self.begun.pop(which % len(self.begun))
            return self._try(started, method, *args, **named)
        return None

    def _try(self, started, method, *args, **named):
        try:
            return getattr(self.store, method)(started, *args, **named)
        except (LookupError, RuntimeError):  # its row has expired, or was purged
            return None

    def complete(self, which, time):
        self._end(which, "record_completion", execution_time_ms=time)

    def fail(self, which, time):
        self._end(which, "record_failure", error="x", execution_time_ms=time)

    def retry(self, which, time):
        self._end(which, "record_failure", error="x", execution_time_ms=time, will_retry=True)

    def cancel(self, which, time):
        self._end(which, "record_cancellation", execution_time_ms=time)

    def partial(self, which, time):
        results = {"failed_steps": ["upload"]}
        self._end(which, "record_partial_success", partial_results=results, execution_time_ms=time)

    def lose(self, which, time, will_retry=None):
        error = WorkerLost("gone")
        ended = self._end(
            which, "record_failure", error=error, execution_time_ms=time, will_retry=will_retry
        )
        self.lost += [] if ended is None else [ended]

    def lose_retried(self, which, time):
        self.lose(which, time, will_retry=True)

    def reap(self, which, time):
        self.store.reap_lost("1 hour", task_identifier=self.task)
        self.lost += self.begun
        self.begun = []

    def late(self, which, time):
        if self.lost:
            lost = self.lost.pop(which % len(self.lost))
            method, named = (
                ("record_completion", {}),
                ("record_failure", {"error": "x", "will_retry": True}),
                ("record_failure", {"error": "x"}),
            )[which % 3]
            self._try(lost, method, execution_time_ms=time, **named)

    def counted(self, which, time):
        job = Job("j", self.task)
        self.store.begin(job, "w", record="failures").end(execution_time_ms=time)

    def ended(self, which, time):
        started_at = self.clock.now - which * 20 * DAY
        record(self.store, task=self.task, started_at=started_at, execution_time_ms=time)

    def fold(self, which, time):
        self.store.fold()

    def expire(self, which, time):
        self.store.expire()

    def purge(self, which, time):
        self.store.purge(task_identifier=self.task, status=["completed", "failed"][which % 2])

    def purge_started(self, which, time):
        self.store.purge(task_identifier=self.task, status="started")

    def wait(self, which, time):
        self.clock.advance(days=[1 / 12, 1, 1, 3, 40, 500][which])


@given(steps=steps)
def test_no_counter_and_no_bucket_ever_decreases(plain_store, clock, steps):
    number = next(numbers)
    history = Steps(plain_store, clock, f"task-{number}")
    before = {}
    for step in steps:
        history.do(*step)
        after = growing(plain_store.metrics(max_tasks=100_000), number)
        # Series of zeros vanish with the only execution, if that still ran.
        assert {key for key, value in before.items() if after.get(key, 0) < value} == set()
        before = after


# -- labels ----------------------------------------------------------------------------------------

HOSTILE = [
    'quote " and } brace',
    "back\\slash",
    "new\nline 1",
    "\\n",
    'x"} 1\njobhistory_running{task="y',
    "return\rtab\tline\u2028separator",
    "größe 漢字 🙈",
    "# HELP",
    " spaces ",
]


def test_hostile_task_names_stay_inside_their_labels(plain_store):
    for task in HOSTILE:
        record(plain_store, task=task)

    text = plain_store.metrics()
    found = samples(text)
    tasks = {dict(key[1:])["task"] for key in found}
    assert tasks == set(HOSTILE)
    assert len(text.split("\n")) - 1 == len(found) + 2 * text.count("# TYPE")
    text.encode()


@given(name=st.text(min_size=1, max_size=30))
def test_any_task_name_is_one_series_that_utf_8_can_encode(name):
    store = create_store()
    record(store, task=name)

    text = store.metrics()
    text.encode()
    assert text.count("\njobhistory_running{") == 1
    (key,) = (key for key in samples(text) if key[0] == "jobhistory_running")
    stored = store.query()[0].task_identifier
    assert dict(key[1:])["task"] == stored.encode("utf-8", "xmlcharrefreplace").decode()


def tasks_of(text):
    return {dict(key[1:])["task"] for key in samples(text)}


def test_a_task_keeps_its_series_when_others_appear(plain_store, clock):
    for task in ("b", "c"):
        record(plain_store, task=task)
    assert tasks_of(plain_store.metrics(max_tasks=2)) == {"b", "c"}

    clock.advance(days=31)
    plain_store.record_start(Job("1", "a"), "w", "c")
    for task in ("a", "d", "d"):
        record(plain_store, task=task)
    for _ in range(2):
        text = plain_store.metrics(max_tasks=2)
        assert tasks_of(text) == {"b", "c", "_other"}
        assert value(text, "executions_total", task="_other", status="completed") == 3
        assert value(text, "running", task="_other") == 1
        plain_store.fold()
    assert tasks_of(plain_store.metrics(max_tasks=3)) == {"a", "b", "c", "_other"}
    assert tasks_of(plain_store.metrics(max_tasks=0)) == {"_other"}


def test_a_task_named_like_the_others_is_one_of_them(plain_store):
    record(plain_store, task="_other")
    record(plain_store, task="a")
    record(plain_store, task="b")

    text = plain_store.metrics(max_tasks=1)
    assert value(text, "executions_total", task="_other", status="completed") == 2


@pytest.mark.parametrize("max_tasks", [-1, True, "200", None])
def test_the_number_of_tasks_is_checked(max_tasks):
    with pytest.raises(InvalidInput, match=r"max_tasks .* is not a whole number from 0 up"):
        create_store().metrics(max_tasks=max_tasks)


# -- expectations ----------------------------------------------------------------------------------


def test_the_deadline_of_an_expectation_and_its_problems(plain_store, clock):
    plain_store.expect("t", cron="0 2 * * *", grace="15m", timezone="Europe/Berlin")
    plain_store.expect("t", labels={"tenant": 'a"b'}, every="1h")
    text = plain_store.metrics()
    due = clock.now.replace(hour=1, minute=15, second=0, microsecond=0)  # CET
    due += timedelta(days=due <= clock.now)
    labels = {"task": "t", "expectation": "t"}
    labelled = {"task": "t", "expectation": 't{tenant=a"b}'}
    assert value(text, "deadline_timestamp_seconds", **labels) == due.timestamp()
    hour = (clock.now + timedelta(hours=1, minutes=5)).timestamp()
    assert value(text, "deadline_timestamp_seconds", **labelled) == hour
    assert value(text, "late", **labels) == value(text, "late", **labelled) == 0
    clock.advance(hours=2)
    text = plain_store.metrics()
    assert value(text, "late", **labelled) == 1
    assert value(text, "problem", problem="never_ran", **labelled) == 1
    assert value(text, "problem", problem="never_ran", **labels) is None
    assert value(text, "last_check_timestamp_seconds") is None
    assert plain_store.incidents() == [], "a scrape writes nothing"
    plain_store.check()
    now = clock.now.timestamp()
    clock.advance(hours=1)
    assert value(plain_store.metrics(), "last_check_timestamp_seconds") == now


def test_expectations_beyond_the_limit_are_one(plain_store, clock):
    for number in range(3):
        plain_store.expect(f"t{number}", every=f"{3 - number}h")
    clock.advance(hours=4)
    text = plain_store.metrics(max_tasks=1)
    others = {"task": "_other", "expectation": "_other"}
    assert value(text, "problem", problem="never_ran", task="t0", expectation="t0") == 1
    assert value(text, "problem", problem="never_ran", **others) == 2
    assert value(text, "late", **others) == 2
    first = (clock.now - timedelta(hours=3) + timedelta(minutes=5)).timestamp()
    assert value(text, "deadline_timestamp_seconds", **others) == first


def test_nothing_changes_if_nothing_is_expected(plain_store):
    record(plain_store)
    assert "deadline" not in plain_store.metrics()
    assert "check" not in plain_store.metrics()


def test_a_role_that_may_not_read_expectations_has_the_other_metrics(postgres_database, clock):
    owner = postgres_database.engine
    create_store(owner).expect("t", every="1h")
    with app_role(owner) as role:
        with owner.begin() as connection:
            connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
            connection.exec_driver_sql(f"REVOKE ALL ON job_history_expectation FROM {role}")
        with create_store(as_role(postgres_database.url, role), clock=clock) as store:
            record(store)
            text = store.metrics()
    assert value(text, "executions_total", task="t", status="completed") == 1
    assert "deadline" not in text


# -- other sources ---------------------------------------------------------------------------------


def test_the_operations_of_a_recorder(plain_store):
    with Recorder(plain_store) as recorder:
        recorder.record_start(Job("1", "t"), "w", "c")
        recorder.record_completion("1", "w", "c", 5)
        recorder.flush()
        text = plain_store.metrics(recorder=recorder)

    assert value(text, "recorder_accepted_total") == 2
    assert value(text, "recorder_written_total") == 2
    assert value(text, "recorder_refused_total") == 0
    assert value(text, "recorder_waiting") == value(text, "recorder_spooled") == 0
    assert value(plain_store.metrics(), "recorder_accepted_total") is None


def test_the_operations_of_a_recorder_for_asyncio(event_loop_thread):
    async def ask():
        store = create_async_store()
        async with AsyncRecorder(store) as recorder:
            await recorder.record_start(Job("1", "t"), "w", "c")
            return await store.metrics(recorder=recorder)

    assert value(event_loop_thread.run(ask()), "recorder_accepted_total") == 1


def test_row_level_security_denies_metrics(postgres_database, clock):
    owner = postgres_database.engine
    with app_role(owner) as role:
        with owner.begin() as connection:
            connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        url = as_role(postgres_database.url, role)
        with create_store(url, clock=clock) as store:
            record(store)
            assert by_status(store) == [1, 0, 0, 0, 0]
            with owner.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE job_history ENABLE ROW LEVEL SECURITY")
            try:
                with pytest.raises(StatisticsDenied, match="row-level security"):
                    store.metrics()
            finally:
                with owner.begin() as connection:
                    connection.exec_driver_sql("ALTER TABLE job_history DISABLE ROW LEVEL SECURITY")


# -- alert rules and a dashboard -------------------------------------------------------------------

EXAMPLES = Path(__file__).parent.parent / "examples" / "prometheus"


@pytest.fixture
def every_series():
    """All series that there can be, by name."""
    store = create_store()
    store.expect("t", every="1h")
    store.record_start(Job("1", "t"), "w", "c")
    record(store, execution_time_ms=1, queue_time_ms=1)
    record(store, status="failed", error="x")
    store.check()
    with Recorder(store) as recorder:
        return {key[0]: dict(key[1:]) for key in samples(store.metrics(recorder=recorder))}


def check_expressions(expressions, series):
    assert expressions
    for expression in expressions:
        used = re.findall(r"(jobhistory_\w+)(?:\{([^}]*)\})?", expression)
        assert used, expression
        for name, matchers in used:
            assert name in series, expression
            labels = re.findall(r"(\w+)=~?\"", matchers)
            assert {*labels} <= series[name].keys(), expression
        for pair in ("()", "[]", "{}"):
            assert expression.count(pair[0]) == expression.count(pair[1]), expression


def test_the_alert_rules_are_of_metrics_that_exist(every_series):
    (group,) = yaml.safe_load((EXAMPLES / "alerts.yml").read_text())["groups"]

    check_expressions([rule["expr"] for rule in group["rules"]], every_series)
    for rule in group["rules"]:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys() <= {*rule, "for"}
        assert {"summary", "description"} == rule["annotations"].keys()


def test_the_dashboard_is_of_metrics_that_exist(every_series):
    board = json.loads((EXAMPLES / "dashboard.json").read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]

    check_expressions([target["expr"] for target in targets], every_series)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_metric_is_in_the_documentation(every_series):
    page = (EXAMPLES.parent.parent / "docs/howto/metrics.md").read_text()

    for name in every_series:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        assert f"`{family}" in page, family
