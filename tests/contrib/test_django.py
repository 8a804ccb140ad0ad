"""Django's tasks with the Immediate backend, which runs them in the process of their caller.

The tasks are those of `django.tasks` if Django has it, otherwise those of `django-tasks`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module
from uuid import UUID

import django
import pytest
from sqlalchemy import create_engine

from jobhistory import InvalidInput, NotReplayable, Recorder, create_store, migrate
from jobhistory.contrib.adapter import Carried, Replay
from jobhistory.contrib.replay import replay
from tests.contrib.django_shop import APPS, HAS_TASKS, IMMEDIATE, PACKAGE, write_package

pytestmark = pytest.mark.adapters


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The tasks, in this process, whose Django this fixture sets up."""
    folder = write_package(tmp_path_factory.mktemp("shop"))
    sys.path.insert(0, str(folder))
    from django.conf import settings

    settings.configure(
        SECRET_KEY="x",
        USE_TZ=True,
        INSTALLED_APPS=APPS,
        TASKS={"default": {"BACKEND": IMMEDIATE, "QUEUES": ["default", "slow"]}},
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        JOBHISTORY={"STORE": "jobhistory.create_store"},
    )
    django.setup()
    yield import_module("shop.tasks")
    sys.path.remove(str(folder))


@pytest.fixture
def configured(shop, settings_of_django):
    """Records in a store in memory, and sets options: `configured(SKIP=["shop.tasks.add"])`."""

    def configure(**options):
        store = options.pop("STORE", None) or create_store()
        settings_of_django({"STORE": store, **options})
        return store

    return configure


@pytest.fixture
def settings_of_django(shop):
    from django.test import override_settings

    overrides = []

    def override(value):
        override = override_settings(JOBHISTORY=value)
        override.enable()
        overrides.append(override)

    yield override
    for override in reversed(overrides):
        override.disable()


@pytest.fixture
def store(configured):
    return configured(RESULT=True)


def recorder():
    from django.apps import apps

    return apps.get_app_config("jobhistory").recorder


def recorded(store):
    """Return what a store in memory has, the newest last."""
    return store.query(order="oldest")


def test_a_task_is_recorded_with_its_arguments_queue_host_and_process(shop, store):
    result = shop.add.using(queue_name="slow").enqueue(1, b=2)

    (record,) = recorded(store)
    assert (record.job_id, record.correlation_id) == (result.id, result.id)
    assert (record.task_identifier, record.status) == ("shop.tasks.add", "completed")
    assert record.payload == {"args": [1], "kwargs": {"b": 2}}
    assert record.payload_is_exact
    assert (record.attempt_number, record.result) == (1, 3)
    assert 0 <= record.queue_time_ms < 5_000
    host, pid = socket.gethostname(), str(os.getpid())
    assert record.labels == {"queue": "slow", "host": host, "pid": pid}
    assert record.worker_id == f"{host}:{pid}"


def test_a_failure_is_recorded_with_the_exception_and_its_traceback(shop, store):
    result = shop.fail.enqueue("no order 7")

    (record,) = recorded(store)
    assert result.status == "FAILED"
    assert (record.status, record.error_type) == ("failed", "LookupError")
    assert record.error_message == "no order 7"
    assert "in fail\n" in record.error_stack
    assert record.will_retry is None


def test_a_failure_without_its_exception_is_recorded_from_the_result(shop, store):
    signals = import_module(f"{PACKAGE}.signals")
    result = shop.add.enqueue(1)
    error_class = import_module(f"{PACKAGE}.base").TaskError
    text = "Traceback (most recent call last):\n  ...\nshop.Gone: order 7: gone\n"
    signals.task_started.send(type(shop), task_result=result)
    object.__setattr__(result, "status", "FAILED")
    result.errors.append(error_class(exception_class_path="shop.Gone", traceback=text))
    try:
        raise ValueError("another error, which is being handled")
    except ValueError:
        signals.task_finished.send(type(shop), task_result=result)

    record = recorded(store)[-1]
    assert (record.error_type, record.error_message) == ("shop.Gone", "order 7: gone")
    assert record.error_stack == text.rstrip() or record.error_stack == text


def test_a_failure_that_the_result_does_not_explain_is_recorded(shop, store):
    signals = import_module(f"{PACKAGE}.signals")
    result = shop.add.enqueue(1)
    signals.task_started.send(type(shop), task_result=result)
    object.__setattr__(result, "status", "FAILED")
    signals.task_finished.send(type(shop), task_result=result)

    assert recorded(store)[-1].error_message == "the status of the task is FAILED"


def test_a_task_that_exits_has_failed_and_its_caller_goes_on(shop, store):
    shop.leave.enqueue()

    (record,) = recorded(store)
    assert (record.status, record.error_type) == ("failed", "SystemExit")


def test_a_task_that_raises_cancelled_is_recorded_as_cancelled(shop, store):
    shop.cancel.enqueue()

    (record,) = recorded(store)
    assert (record.status, record.error_message) == ("cancelled", "sold out")


def test_an_interrupt_leaves_the_execution_started_and_the_next_task_is_recorded(shop, store):
    def work():  # in a thread, as the interrupted execution remains the current one
        with pytest.raises(KeyboardInterrupt):
            shop.interrupt.enqueue()
        shop.add.enqueue(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert [each.status for each in recorded(store)] == ["started", "completed"]


def test_coroutines_and_tasks_with_a_context_are_recorded(shop, store):
    shop.wait.enqueue()
    shop.attempt.enqueue()

    waited, attempt = recorded(store)
    assert waited.result == waited.correlation_id
    assert (attempt.result, attempt.payload) == (1, {"args": [], "kwargs": {}})


def test_tasks_that_coroutines_enqueue_are_recorded(shop, store):
    async def enqueue():
        await asyncio.gather(*(shop.add.aenqueue(number) for number in range(10)))

    asyncio.run(enqueue())

    assert [each.status for each in recorded(store)] == ["completed"] * 10


def test_tasks_in_threads_do_not_mix_up_their_outcomes(shop, store):
    def work():
        for number in range(20):
            shop.add.enqueue(number)
            shop.fail.enqueue()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert store.count(status="completed", task_identifier="shop.tasks.add").value == 80
    assert store.count(status="failed", task_identifier="shop.tasks.fail").value == 80


def test_a_task_that_a_task_enqueues_is_its_child_and_shares_its_correlation_id(shop, store):
    shop.order.enqueue(7)

    parent, child = recorded(store)
    assert child.task_identifier == "shop.tasks.ship"
    assert child.parent_id == parent.id
    assert child.correlation_id == parent.correlation_id == parent.job_id


def test_a_link_gives_a_task_its_correlation_id_and_is_not_among_its_arguments(shop, store):
    shop.order_linked.enqueue(7)

    parent, child = recorded(store)
    assert (child.parent_id, child.correlation_id) == (parent.id, parent.correlation_id)
    assert child.payload == {"args": [7], "kwargs": {}}
    assert child.status == "completed"


def test_a_link_that_somebody_made_up_fails_no_task(shop, store):
    for link in ("x", {"parent_id": "x", "correlation_id": "\0" * 300}, None):
        assert shop.add.enqueue(1, _jobhistory=link).status == "SUCCESSFUL"

    assert [each.parent_id for each in recorded(store)] == [None] * 3


def test_a_task_that_is_not_recorded_does_not_get_the_link(shop, configured):
    from jobhistory.contrib.django import link

    store = configured(SKIP=["shop.tasks.add"])

    assert shop.add.enqueue(1, **link()).return_value == 2
    assert recorded(store) == []


def test_options_are_those_of_all_adapters_in_capitals(shop, configured):
    store = configured(
        ONLY=["shop.tasks.add"],
        PAYLOAD=lambda result: result.args[0],
        CORRELATION_ID=lambda result: f"order-{result.args[0]}",
        WORKER_ID="web-1",
        HISTORY_RETENTION="2 days",
    )
    shop.add.enqueue(7)
    shop.fail.enqueue()

    (record,) = recorded(store)
    assert (record.payload, record.correlation_id, record.worker_id) == (7, "order-7", "web-1")
    assert (record.expires_at - record.started_at).days == 2
    assert record.result is None


def test_times_without_a_time_zone_are_those_of_the_settings(shop, store):
    from django.test import override_settings

    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        shop.add.enqueue(1)

    assert 0 <= recorded(store)[0].queue_time_ms < 5_000


def test_secrets_nul_characters_and_errors_that_cannot_be_printed(shop, store):
    shop.add.enqueue("a\0b", b="c")
    shop.add.enqueue(1, password="hunter2")
    assert shop.unprintable.enqueue().status == "FAILED"

    nul, secret, unprintable = recorded(store)
    assert nul.status == "completed"
    assert secret.payload["kwargs"] == {"password": "[redacted]"}
    assert not secret.payload_is_exact
    assert unprintable.error_type == "shop.tasks.Unprintable"


def test_arguments_of_100_mb_are_cut(shop, store):
    shop.add.enqueue("x" * 100_000_000, b="y")

    (record,) = recorded(store)
    assert record.status == "completed"
    assert len(str(record.payload)) < 1_000_000


def test_set_up_twice_a_task_is_recorded_once(shop, store):
    from django.apps import apps
    from django.test import override_settings

    apps.get_app_config("jobhistory").ready()
    shop.add.enqueue(1)
    with override_settings(INSTALLED_APPS=[*APPS, "django.contrib.contenttypes"]):
        shop.add.enqueue(2)

    assert len(recorded(store)) == 2


def test_the_apps_own_receivers_run_and_the_recorder_can_be_closed(shop, store):
    signals = import_module(f"{PACKAGE}.signals")
    seen = []

    def receiver(sender, task_result, **_):
        seen.append(task_result.status)

    signals.task_started.connect(receiver)
    signals.task_finished.connect(receiver)
    shop.fail.enqueue()
    recorder().close()
    shop.fail.enqueue()
    signals.task_started.disconnect(receiver)
    signals.task_finished.disconnect(receiver)

    assert seen == ["RUNNING", "FAILED"] * 2
    assert len(recorded(store)) == 1


def test_history_store_is_the_store_of_the_setting(shop, store):
    from jobhistory.contrib.django import history_store

    assert history_store() is store


@pytest.mark.parametrize("how", ["refusing", "hanging"])
def test_a_database_that_does_not_answer_delays_tasks_little_and_fails_none(
    shop, settings_of_django, caplog, how
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if how == "refusing":
            server.close()
        settings_of_django({"URL": f"postgresql://x@127.0.0.1:{port}/x"})
        started = time.monotonic()
        results = [shop.add.enqueue(number) for number in range(5)]
        elapsed = time.monotonic() - started

    assert [each.return_value for each in results] == [1, 2, 3, 4, 5]
    assert elapsed < 8
    assert "history" in caplog.text or "not recorded" in caplog.text


def test_an_engine_that_was_used_before_a_fork(shop, configured, postgres_database):
    store = configured(STORE=create_store(postgres_database.engine))
    shop.add.enqueue(1)
    child = os.fork()
    if child == 0:
        try:
            shop.add.enqueue(2)
            shop.fail.enqueue()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    shop.add.enqueue(3)

    assert [each.status for each in store.query(order="oldest")] == [
        "completed",
        "completed",
        "failed",
        "completed",
    ]
    assert len({each.worker_id for each in store.query()}) == 2


def test_a_recorder_records_what_ran_before_it_is_closed(shop, configured, postgres_database):
    store = create_store(postgres_database.engine)
    with Recorder(store) as recorder:
        configured(STORE=recorder)
        for number in range(50):
            shop.add.enqueue(number)
        shop.fail.enqueue()

    counts = store.count(status="completed"), store.count(status="failed")
    assert [each.value for each in counts] == [50, 1]


def test_a_worker_of_another_backend_can_end_what_its_previous_process_left(shop, store):
    from jobhistory.contrib.django import end_leftovers

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    worker_id = f"{socket.gethostname()}:{ended.pid}"
    store.record_start({"id": "1", "task_identifier": "shop.tasks.add"}, worker_id, "c")
    end_leftovers()
    recorder().adapter.leftovers.join()

    assert recorded(store)[0].error_type == "jobhistory.WorkerLost"


# Enqueue again.


def replay_of(name, *args, queue=None, **kwargs):
    id_ = UUID("01890000-0000-7000-8000-000000000001")
    return Replay(
        task_identifier=name,
        args=list(args),
        kwargs=kwargs,
        correlation_id="request-1",
        queue=queue,
        carried=Carried(correlation_id="request-1", replay_of=id_),
    )


def application():
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def registry():
    from django.apps import apps

    return apps


def task():
    return import_module("shop.tasks").add


def tasks():
    module = import_module("shop.tasks")
    return [module.fail, module.add]


@pytest.mark.parametrize("app", [application, registry, task, tasks])
def test_a_task_is_enqueued_again_with_its_correlation_id_and_queue(shop, store, app):
    from jobhistory.contrib.django import enqueue

    id_ = enqueue(app(), replay_of("shop.tasks.add", 1, b=2, queue="slow"))

    (record,) = recorded(store)
    assert (record.job_id, record.correlation_id) == (id_, "request-1")
    assert record.payload == {"args": [1], "kwargs": {"b": 2}}
    assert record.labels["replay_of"] == "01890000-0000-7000-8000-000000000001"
    assert record.labels["queue"] == "slow"


def test_a_task_that_the_app_does_not_have_is_not_enqueued(shop, store):
    from jobhistory.contrib.django import enqueue

    for app, name in ((registry(), "os.system"), ([shop.add], "shop.tasks.fail")):
        with pytest.raises(InvalidInput, match=r"is no task of the app.*shop\.tasks\.add"):
            enqueue(app, replay_of(name, "true"))
    with pytest.raises(InvalidInput, match=r"pass django\.apps\.apps"):
        enqueue(object(), replay_of("shop.tasks.add"))
    assert recorded(store) == []


def test_a_failed_execution_is_replayed(shop, store):
    shop.fail.enqueue("no order 7")
    (failed,) = recorded(store)

    replayed = replay(store, application(), failed.id)

    (again,) = store.get_by_job_id(replayed.job_id)
    assert again.payload == failed.payload
    assert again.correlation_id == failed.correlation_id
    assert again.labels["replay_of"] == str(failed.id)
    with pytest.raises(NotReplayable):
        replay(store, application(), failed.id)


def test_a_backend_that_copies_arguments_gets_those_of_the_task_only(shop, store):
    from django.test import override_settings

    from jobhistory.contrib.django import enqueue

    with override_settings(
        TASKS={"default": {"BACKEND": f"{PACKAGE}.backends.dummy.DummyBackend"}}
    ):
        enqueue(registry(), replay_of("shop.tasks.add", 1))
        backend = shop.add.get_backend()
        assert [each.kwargs for each in backend.results] == [{}]


# The setting.


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"URL": "sqlite:///x.db", "STORE": "y"}, r"JOBHISTORY has URL and STORE"),
        ({"URL": "mysql://root:hunter2@db/x"}, r"JOBHISTORY\['URL'\] cannot be used"),
        ({"URL": "postgresql://db:port/x"}, r"JOBHISTORY\['URL'\] cannot be used"),
        ({"URL": None}, r"JOBHISTORY\['URL'\] cannot be used"),
        ({"DATABASE": "other"}, r"JOBHISTORY\['DATABASE'\]: 'other' is not in DATABASES"),
        ({"DATABASE": ["other"]}, r"JOBHISTORY\['DATABASE'\]: \['other'\] is not in"),
        ({"STORE": "shop.no_such_store"}, r"JOBHISTORY\['STORE'\]: .*no_such_store"),
        ({"STORE": 7}, r"JOBHISTORY\['STORE'\]: store 7 is neither"),
        ({"skip": ["x"]}, r"JOBHISTORY\['skip'\]: write it 'SKIP'"),
        ({"SKIP": "x"}, r"JOBHISTORY\['SKIP'\]: .*list of task names"),
        ({"HEARTBEAT": "x"}, r"JOBHISTORY\['HEARTBEAT'\]: "),
        ({"SKIPS": ["x"]}, r"JOBHISTORY: .*skips"),
        ("sqlite:///x.db", r"JOBHISTORY: write a dictionary"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(shop, settings_of_django, value, message):
    from django.core.exceptions import ImproperlyConfigured

    with pytest.raises(ImproperlyConfigured, match=message) as raised:
        settings_of_django(value)
    assert "hunter2" not in str(raised.value)


@pytest.fixture
def databases(shop):
    """Replaces `DATABASES`, without connecting."""
    from django.db import connections

    before = dict(connections.settings)

    def replace(**settings):
        connections.settings["history"] = {
            **before["default"],
            "OPTIONS": {},
            **settings,
        }

    yield replace
    del connections.settings["history"]
    del connections["history"]


def test_history_is_in_a_database_of_django(shop, settings_of_django, databases, tmp_path):
    from jobhistory.contrib.django import history_store

    path = tmp_path / "shop.db"
    engine = create_engine(f"sqlite:///{path}")
    migrate.upgrade(engine)
    engine.dispose()
    databases(ENGINE="django.db.backends.sqlite3", NAME=path)
    settings_of_django({"DATABASE": "history"})
    shop.add.enqueue(1)

    assert history_store().count(status="completed").value == 1


@pytest.mark.parametrize("name", [":memory:", "file:memorydb_default?mode=memory&cache=shared"])
def test_a_database_in_memory_has_its_history_in_memory(shop, settings_of_django, databases, name):
    from jobhistory.contrib.django import history_store

    databases(ENGINE="django.db.backends.sqlite3", NAME=name)
    settings_of_django({"DATABASE": "history"})
    shop.add.enqueue(1)

    assert history_store().count().value == 1


def test_by_default_history_is_in_the_default_database(shop, settings_of_django):
    from jobhistory.contrib.django import history_store

    settings_of_django({"RESULT": True})  # which does not say where
    shop.add.enqueue(1)

    assert history_store().query()[0].result == 2


def test_the_url_of_a_postgresql_database_of_django(shop, settings_of_django, databases):
    from jobhistory.contrib.django.configuration import database_url

    databases(
        ENGINE="django.db.backends.postgresql",
        NAME="shop",
        USER="app",
        PASSWORD="p@ss/word",
        HOST="db",
        PORT="5433",
        OPTIONS={
            "sslmode": "require",
            "connect_timeout": 5,
            "pool": True,
            "isolation_level": 2,
            "assume_role": "owner",
        },
    )
    settings_of_django({"DATABASE": "history"})

    assert database_url().render_as_string(hide_password=False) == (
        "postgresql://app:p%40ss%2Fword@db:5433/shop?connect_timeout=5&sslmode=require"
    )


def test_another_kind_of_database_is_refused(shop, settings_of_django, databases):
    from django.core.exceptions import ImproperlyConfigured

    databases(ENGINE="django.db.backends.dummy")
    with pytest.raises(ImproperlyConfigured, match=r"'history' is neither PostgreSQL nor SQLite"):
        settings_of_django({"DATABASE": "history"})


def test_upgrade_history_creates_the_table(shop, settings_of_django, tmp_path, capsys):
    from django.core.management import CommandError, call_command

    url = f"sqlite:///{tmp_path}/history.db"
    settings_of_django({"URL": url})
    call_command("upgrade_history")

    assert "up to date" in capsys.readouterr().out
    with create_store(url) as store:
        assert store.count().value == 0
    settings_of_django({})
    with pytest.raises(CommandError, match="in memory"):
        call_command("upgrade_history")
    settings_of_django({"STORE": create_store()})
    with pytest.raises(CommandError, match=r"names a store.*migrate\.upgrade"):
        call_command("upgrade_history")


@pytest.mark.parametrize("missing", ["django", "django_tasks"])
def test_without_django_the_adapter_says_what_to_install(missing):
    if missing == "django_tasks" and HAS_TASKS:
        pytest.skip("this Django has tasks")
    code = f"import sys; sys.modules[{missing!r}] = None; import jobhistory.contrib.django"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "install it with: pip install 'jobhistory[django]'" in done.stderr
