"""The last log lines of an execution, which are stored with its outcome."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
import subprocess
import sys
import threading

import pytest

from jobhistory import InvalidInput, Job, create_async_store, create_store
from jobhistory._runtime import log_tail as log_tail_module
from tests.test_heartbeats import async_url

JOB = Job("job-1", "import")

logger = logging.getLogger("app.import")
logger.setLevel(logging.INFO)


def tail(store, job_id="job-1"):
    (record,) = store.get_by_job_id(job_id)
    return record.log_tail


@pytest.fixture
def store(database, clock):
    return create_store(database.engine, clock=clock)


def test_the_lines_of_an_execution_are_stored(store):
    logger.info("before")
    with store.track(JOB, "w", log_tail="16 KiB"):
        logger.info("part %d", 1)
        logger.debug("below the level")
    logger.info("after")
    line = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO app\.import: part 1"
    assert re.fullmatch(line, tail(store))


def test_a_failure_has_its_lines_with_tracebacks(store):
    @store.track(JOB, "w", log_tail=16_384)
    def job():
        try:
            raise ValueError("no 7")
        except ValueError:
            logger.exception("cannot import")
        raise KeyError("7")

    with pytest.raises(KeyError):
        job()
    assert "ERROR app.import: cannot import\nTraceback" in tail(store)
    assert tail(store).endswith("ValueError: no 7")


def test_without_lines_or_the_option_there_is_no_tail(store):
    with store.track(JOB, "w", log_tail="1 KiB"):
        pass
    with store.track(Job("job-2", "import"), "w"):
        logger.info("part")
    assert tail(store) is tail(store, "job-2") is None


def test_only_the_last_lines_fit(store):
    with store.track(JOB, "w", log_tail="1 KiB"):
        for number in range(1000):
            logger.info("größe %d", number)
    text = tail(store)
    assert len(text.encode()) <= 1024
    assert text.endswith("größe 999")
    assert all(re.match(r"\d{4}-", line) for line in text.split("\n")), "whole lines"
    assert len(text.split("\n")) > 15


def test_one_long_line_is_cut(store):
    with store.track(JOB, "w", log_tail="1 KiB"):
        logger.info("x" * 100_000 + " the end")
    assert len(tail(store).encode()) <= 1024
    assert "cut" in tail(store)


def test_secrets_are_redacted(store):
    with store.track(JOB, "w", log_tail="1 KiB"):
        logger.info("connect to %s", "postgresql://app:hunter2@db/app")
        logger.info("password=hunter2 and %s", "x" * 900)
    assert "hunter2" not in tail(store)
    assert "[redacted]" in tail(store)


def test_executions_keep_their_lines_apart(store):
    def job(number, barrier):
        with store.track(Job(number, "t"), "w", log_tail="1 KiB"):
            barrier.wait(timeout=10)
            logger.info("of %d", number)
            barrier.wait(timeout=10)

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=job, args=(n, barrier)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in (1, 2):
        assert tail(store, number).endswith(f"INFO app.import: of {number}")
        assert "\n" not in tail(store, number)


def test_an_outer_execution_has_the_lines_of_inner_ones(store):
    with store.track(Job("outer", "t"), "w", log_tail="1 KiB"):
        logger.info("one")
        with store.track(Job("inner", "t"), "w", log_tail="1 KiB"):
            logger.info("two")
        logger.info("three")
    assert [line[-3:] for line in tail(store, "inner").split("\n")] == ["two"]
    assert re.findall(r": (\w+)", tail(store, "outer")) == ["one", "two", "three"]


def test_a_thread_in_a_copy_of_the_context_counts_until_the_end(store):
    with store.track(JOB, "w", log_tail="1 KiB"):
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(logger.info, "beside"))
        thread.start()
        thread.join()
    context.run(logger.info, "too late")
    assert tail(store).endswith("beside")


def test_tasks_keep_their_lines_apart(database):
    async def job(store, number):
        async with store.track(Job(number, "t"), "w", log_tail="1 KiB"):
            await asyncio.sleep(0)
            logger.info("of %d", number)
            await asyncio.sleep(0)

    async def main():
        async with create_async_store(async_url(database)) as store:
            await asyncio.gather(*(job(store, number) for number in (1, 2)))
            return [(await store.get_by_job_id(n))[0].log_tail for n in (1, 2)]

    for number, text in enumerate(asyncio.run(main()), 1):
        assert text.endswith(f"of {number}")
        assert "\n" not in text


def test_a_function_that_returns_a_coroutine_keeps_its_lines(store):
    async def work():
        logger.info("inside")

    @store.track(JOB, "w", log_tail="1 KiB")
    def job():
        return work()

    async def main():
        awaitable = job()
        logger.info("between")
        await awaitable
        logger.info("after")

    asyncio.run(main())
    assert tail(store).endswith(": inside")
    assert "\n" not in tail(store)


def test_a_message_that_cannot_be_formatted_breaks_nothing(store, monkeypatch):
    class Broken:
        def __str__(self):
            raise ZeroDivisionError

    monkeypatch.setattr(logging, "raiseExceptions", False)
    with store.track(JOB, "w", log_tail="1 KiB"):
        logger.info("value %s", Broken())
        logger.info("wrong number of arguments", 1)
    assert tail(store).count("<message that cannot be formatted>") == 2


@pytest.mark.parametrize("message", ["%s %s", '{"x":"%s","url":"%s"}'])
def test_a_secret_is_not_cut_in_two(plain_store, message):
    with plain_store.track(JOB, "w", log_tail="1 MiB"):
        for number in range(12):  # the cut is within the password
            before = "x" * (65_536 - len("2015-11-01T12:00:00Z INFO app.import: ") - 35 + number)
            logger.info(message, before, "postgresql://app:hunter2@db/app" + "y" * 100)
    text = tail(plain_store)
    is_secret = "hunt" not in text  # not in the assertion, which would show the text
    assert is_secret
    assert len(text) > 12 * 65_000


def test_what_logs_while_a_line_is_kept_breaks_nothing(store, monkeypatch):
    """As a signal handler or `__del__` may, at any time."""
    append = log_tail_module.LogTail.append
    during = []

    def interrupted(tail, line):
        with log_tail_module._lock:
            if not during:
                during.append(line)
                logger.info("within")
            append(tail, line)

    monkeypatch.setattr(log_tail_module.LogTail, "append", interrupted)

    def job():
        with store.track(JOB, "w", log_tail="1 KiB"):
            logger.info("around")

    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert tail(store).endswith("around")


def test_records_that_are_made_from_others_are_no_lines(store):
    with store.track(JOB, "w", log_tail="1 KiB"):
        logging.makeLogRecord({"name": "app", "msg": "from another process"})
        logger.info("part")
    assert "\n" not in tail(store)
    assert tail(store).endswith("part")


@pytest.fixture
def record_factory():
    """The app's own, which it may set at any time; reset after the test."""
    before = logging.getLogRecordFactory()
    yield logging.setLogRecordFactory
    logging.setLogRecordFactory(before)


def test_an_app_may_replace_the_record_factory(store, record_factory):
    for job_id in ("job-1", "job-2"):
        record_factory(logging.LogRecord)
        with store.track(Job(job_id, "import"), "w", log_tail="1 KiB"):
            logger.info("part")
        assert tail(store, job_id).endswith("part")


def test_an_app_may_wrap_the_record_factory(store, record_factory):
    for job_id in ("job-1", "job-2", "job-3"):
        factory = logging.getLogRecordFactory()
        record_factory(lambda *args, factory=factory, **named: factory(*args, **named))
        with store.track(Job(job_id, "import"), "w", log_tail="1 KiB"):
            logger.info("part")
        assert tail(store, job_id).count("part") == 1


@pytest.mark.parametrize(
    "size", ["16", "16 KB", "1.5 KiB", 100, "100 B", "1 GiB", True, -1, "many"]
)
def test_the_size_is_checked(plain_store, size):
    with pytest.raises(InvalidInput, match=r"log_tail .* write it like '16 KiB'"):
        plain_store.track(JOB, "w", log_tail=size)


def test_the_configuration_of_logging_stays_the_apps():
    """Handlers, levels and `basicConfig` work as if nothing listened."""
    program = """
import logging
from jobhistory import Job, create_store
store = create_store()
with store.track(Job("1", "t"), "w", log_tail="1 KiB"):
    logging.getLogger("app").warning("not configured")
    logging.basicConfig(format="app says %(message)s", level=logging.INFO)
    logging.getLogger("app").info("configured")
print(store.recent()[0].log_tail.count("configured"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "not configured\napp says configured\n"
    assert done.stdout == "2\n"
