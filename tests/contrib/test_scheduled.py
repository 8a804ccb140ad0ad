"""The schedules of apps as expectations, compared with what their frameworks start."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest

from jobhistory import InvalidInput
from jobhistory.contrib.jobs import Schedule, cron_of_croniter
from jobhistory.contrib.scheduled import found_schedules, schedules_of
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.schedule import Cron
from tests.test_cli import run, url  # noqa: F401 - fixtures

# ruff: noqa: F811

pytestmark = [
    pytest.mark.adapters,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the frameworks
]
BERLIN = ZoneInfo("Europe/Berlin")
GRACE = timedelta(minutes=5)
YEAR = (datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC))
FORWARD = datetime(2027, 3, 28, 1, tzinfo=UTC)
BACK = datetime(2027, 10, 31, 1, tzinfo=UTC)


def expected(schedule, **named):
    named = {"timezone": "Asia/Tokyo", "grace": GRACE} | named
    (found,) = found_schedules([schedule], **named)
    return found


def test_a_schedule_is_expected_in_its_own_time_zone():
    schedule = Schedule(
        name="nightly",
        task_identifier="report",
        description="crontab(2, 17)",
        cron="17 2 * * *",
        timezone="Europe/Berlin",
        delay=timedelta(minutes=2),
    )
    found = expected(schedule)
    assert (found.where, found.schedule, found.note) == ("nightly", "crontab(2, 17)", None)
    assert found.expectation == Expectation(
        "report", cron="17 2 * * *", timezone="Europe/Berlin", grace="7m"
    )


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"cron": "0 1 * * *"}, "Asia/Tokyo is assumed"),
        ({}, "neither an interval nor five fields"),
        ({"every": timedelta(seconds=0.5)}, "part of a second"),
        ({"cron": "0 0 31 2 *", "timezone": "UTC"}, "cron expression"),
    ],
)
def test_what_is_not_exact_has_a_note(values, note):
    found = expected(Schedule(name="x", task_identifier="x", description="x", **values))
    assert note in found.note


def celery_app():
    celery = pytest.importorskip("celery")
    from celery.schedules import crontab

    app = celery.Celery("shop", broker="memory://", set_as_current=False)
    app.conf.timezone = "Europe/Berlin"
    app.conf.beat_schedule = {"nightly": {"task": "job", "schedule": crontab(17, 2)}}
    return app


def huey():
    package = pytest.importorskip("huey")
    app = package.MemoryHuey(utc=False)
    app.periodic_task(package.crontab(hour="2", minute="17"))(job)
    return app


def procrastinate():
    package = pytest.importorskip("procrastinate")
    from procrastinate.testing import InMemoryConnector

    app = package.App(connector=InMemoryConnector())

    @app.periodic(cron="17 2 * * *")
    @app.task(name="job")
    def job(timestamp):
        pass

    return app


def taskiq():
    package = pytest.importorskip("taskiq")
    broker = package.InMemoryBroker()
    labels = [{"cron": "17 2 * * *", "cron_offset": "Europe/Berlin"}]

    async def job():
        pass

    broker.register_task(job, task_name="job", schedule=labels)
    return package.TaskiqScheduler(broker, [])


def arq():
    package = pytest.importorskip("arq.cron")
    from jobhistory import create_store
    from jobhistory.contrib.arq import record_jobs

    async def job(ctx):
        pass

    cron = package.cron(job, hour=2, minute=17)
    return record_jobs(create_store())({"cron_jobs": [cron], "timezone": BERLIN})


def rq():
    package = pytest.importorskip("rq.cron")
    redis = pytest.importorskip("fakeredis").FakeStrictRedis()
    scheduler = package.CronScheduler(connection=redis)
    scheduler.register(job, "default", cron="17 2 * * *")
    return scheduler


def job():
    pass


@pytest.mark.parametrize(
    ("make", "adapter", "timezone"),
    [
        (celery_app, "celery", "Europe/Berlin"),
        (huey, "huey", "Asia/Tokyo"),  # that of the machine
        (procrastinate, "procrastinate", "UTC"),
        (taskiq, "taskiq", "Europe/Berlin"),
        (arq, "arq", "Europe/Berlin"),
        (rq, "rq", "Asia/Tokyo"),
    ],
)
def test_the_class_of_an_app_decides_whose_schedules_they_are(make, adapter, timezone):
    name, schedules = schedules_of(make())
    assert name == adapter
    found = expected(*schedules)
    assert found.expectation.task_identifier.endswith("job")
    assert (found.expectation.cron, found.expectation.timezone) == ("17 2 * * *", timezone)


def test_jitter_and_the_time_for_misfires_are_part_of_the_grace_period():
    background = pytest.importorskip("apscheduler.schedulers.background")
    scheduler = background.BackgroundScheduler(timezone="Europe/Berlin")
    scheduler.add_job(print, "cron", hour=2, jitter=60, misfire_grace_time=600)
    scheduler.add_job(print, "cron", hour=3)
    scheduler.start(paused=True)
    try:
        name, schedules = schedules_of(scheduler)
    finally:
        scheduler.shutdown()
    assert name == "apscheduler"
    found = found_schedules(schedules, timezone="UTC", grace=GRACE)
    assert {each.expectation.cron: each.expectation.grace for each in found} == {
        "0 2 * * *": timedelta(minutes=16),
        "0 3 * * *": GRACE,
    }


def test_apps_without_schedules_are_refused():
    broker = pytest.importorskip("dramatiq.brokers.stub").StubBroker()
    with pytest.raises(InvalidInput, match="is of Dramatiq, which has no schedules"):
        schedules_of(broker)
    with pytest.raises(InvalidInput, match="is no app that has schedules"):
        schedules_of(print)


def test_the_command_imports_the_schedules_of_an_app(run, url, monkeypatch, tmp_path):
    pytest.importorskip("celery")
    (tmp_path / "shop_of_imports.py").write_text(
        "from celery import Celery\n"
        "app = Celery('shop', broker='memory://', set_as_current=False)\n"
        "app.conf.beat_schedule = {'often': {'task': 'mail', 'schedule': 30.0}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    place = "shop_of_imports:app"
    _, out, err = run("expect", "import", "--app", place, "--json", "--url", url)
    step = json.loads(out)
    assert (step["action"], step["source"]) == ("add", f"celery:{place}")
    assert step["expectation"] == {"task_identifier": "mail", "every": "30 seconds"}
    assert err == "jobhistory: 1 added\n"


@pytest.mark.parametrize(
    ("text", "cron"),
    [
        ("@daily", "0 0 * * *"),
        ("0  2 1 * 1", "0 2 1 * 1"),
        ("0 2 */10 * *", "0 2 */10 * *"),
        ("0 2 */2 * 1", None),
        ("0 2 1,15 * */2", None),
        ("0 2 * * * 30", None),
    ],
)
def test_an_expression_that_cron_reads_in_another_way_is_not_imported(text, cron):
    croniter = pytest.importorskip("croniter").croniter
    assert cron_of_croniter(text) == cron
    if cron is None and len(text.split()) == 6:
        return
    begin, end = YEAR
    moments = croniter(text, begin - timedelta(seconds=1)).all_next(datetime)
    starts = set(takewhile(lambda moment: moment < end, moments))
    slots = {*Cron(cron or text, "UTC").slots([], begin, end - timedelta(minutes=1))}
    assert (slots == starts) == (cron is not None)


# What the frameworks start over a year


def celery_starts(fields, begin, end):
    celery = pytest.importorskip("celery")
    schedules = pytest.importorskip("celery.schedules")
    app = celery.Celery("shop", broker="memory://", set_as_current=False)
    app.conf.timezone = "Europe/Berlin"
    now = begin
    crontab = schedules.crontab(
        app=app, nowfun=lambda: now.astimezone(BERLIN), **{"minute": 0, **fields}
    )
    last = begin.astimezone(BERLIN)
    while now < end:
        is_due, seconds = crontab.is_due(last)
        if is_due:
            yield now.replace(second=0, microsecond=0)
            last = now.astimezone(BERLIN)
        now += timedelta(seconds=max(1, seconds))


def apscheduler_starts(fields, begin, end):
    cron = pytest.importorskip("apscheduler.triggers.cron")
    trigger = cron.CronTrigger(timezone=BERLIN, **{"minute": 0, **fields})
    start = None
    while True:
        # In UTC, as a scheduler of that time zone passes it.
        now = (start or begin) + timedelta(seconds=1)
        start = trigger.get_next_fire_time(None, now.astimezone(BERLIN)).astimezone(UTC)
        if start >= end:
            return
        yield start


def arq_starts(fields, begin, end):
    cron = pytest.importorskip("arq.cron")
    options = {"minute": 0, **fields}
    start = begin
    while start < end:
        due = cron.next_cron(start.astimezone(BERLIN), **options).replace(microsecond=0)
        # The worker compares what clocks show, so a time that they skip is over after the gap.
        is_skipped = due.replace(tzinfo=None) != due.astimezone(UTC).astimezone(BERLIN).replace(
            tzinfo=None
        )
        start = FORWARD if is_skipped else due.astimezone(UTC)
        yield start


SCHEDULES = [
    ("17 2 * * *", {"hour": 2, "minute": 17}),
    ("0 8 * * 1-5", {"hour": 8, "day_of_week": "mon-fri"}),
    ("30 23 1,15 * *", {"hour": 23, "minute": 30, "day": "1,15"}),
    ("15 0 * 1,7 *", {"hour": 0, "minute": 15, "month": "1,7"}),
]


AN_HOUR_LATER = {FORWARD, FORWARD + timedelta(minutes=17)}
"""Cron starts what clocks skip right after the gap. This is the slot, and when others start it."""

DIFFERENT = {
    "celery_starts": AN_HOUR_LATER,
    "apscheduler_starts": {*AN_HOUR_LATER, BACK + timedelta(minutes=17)},  # again, when it repeats
    "arq_starts": set(),
}


def fields_of(framework, fields):
    """Return the fields as a framework names them."""
    if framework is celery_starts:
        names = {"day": "day_of_month", "month": "month_of_year"}
        return {names.get(name, name): value for name, value in fields.items()}
    if framework is arq_starts:
        days = {"mon-fri": {0, 1, 2, 3, 4}}
        return {
            "weekday" if name == "day_of_week" else name: days.get(value)
            or (set(map(int, value.split(","))) if isinstance(value, str) else value)
            for name, value in fields.items()
        }
    return fields


def since(framework, starts, *release):
    """Return a parameter for a framework, which is skipped if it is an older one."""
    installed = tuple(int(part) for part in version(framework).split(".")[:2])
    reason = f"older versions of {framework} differ where clocks change"
    return pytest.param(starts, marks=pytest.mark.skipif(installed < release, reason=reason))


@pytest.mark.parametrize(
    "framework",
    [
        since("celery", celery_starts, 5, 7),
        since("apscheduler", apscheduler_starts, 3, 11),
        since("arq", arq_starts, 0, 28),
    ],
)
@pytest.mark.parametrize(("cron", "fields"), SCHEDULES, ids=[cron for cron, _ in SCHEDULES])
def test_over_a_year_a_framework_starts_what_is_expected(framework, cron, fields):
    begin, end = YEAR
    starts = {start for start in framework(fields_of(framework, fields), begin, end) if start < end}
    slots = {*Cron(cron, "Europe/Berlin").slots([], begin, end - timedelta(minutes=1))}
    assert len(slots) > 10
    assert slots ^ starts == (DIFFERENT[framework.__name__] if cron == "17 2 * * *" else set())


def test_celery_and_arq_start_a_repeated_minute_once():
    begin, end = BACK - timedelta(hours=3), BACK + timedelta(hours=3)
    slots = {*Cron("0,30 * * * *", "Europe/Berlin").slots([], begin, end - timedelta(minutes=1))}
    for framework in (celery_starts, arq_starts):
        value = "0,30" if framework is celery_starts else {0, 30}
        starts = {start for start in framework({"minute": value}, begin, end) if start < end}
        missing = {start for start in slots - starts if start > begin}
        assert missing == {BACK, BACK + timedelta(minutes=30)}
