"""Log records carry the execution in which they are emitted: for `logging`, and for structlog."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import threading
from contextvars import copy_context

import pytest
import structlog

from jobhistory import (
    Job,
    LogContext,
    add_log_context,
    create_async_store,
    create_store,
    log_context,
)

FIELDS = ("job_id", "task", "execution_id", "correlation_id", "attempt")


class Records(logging.Handler):
    """Keeps the fields of what is logged, by message."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def emit(self, record):
        self.found[record.getMessage()] = tuple(getattr(record, name) for name in FIELDS)


@pytest.fixture
def logger():
    logger = logging.getLogger("app.of.this.test")
    logger.setLevel(logging.INFO)
    handler = Records()
    handler.addFilter(LogContext())
    logger.addHandler(handler)
    logger.found = handler.found
    yield logger
    logger.removeHandler(handler)


@pytest.fixture
def memory():
    return create_store()


NOTHING = ("-",) * 5


def fields_of(record):
    return (
        record.job_id,
        record.task_identifier,
        str(record.id),
        record.correlation_id,
        record.attempt_number,
    )


def jobs(found):
    return {message: fields[0] for message, fields in found.items()}


def test_records_in_a_block_have_its_execution(memory, logger):
    logger.info("before")
    with memory.track(Job("1", "import", attempts=3), "w", "request-7"):
        logger.info("in it")
    logger.info("after")

    (record,) = memory.query()
    assert logger.found == {"before": NOTHING, "in it": fields_of(record), "after": NOTHING}
    assert logger.found["in it"][3:] == ("request-7", 3)


def test_the_innermost_execution_counts(memory, logger):
    with memory.track(Job("outer", "t"), "w"):
        with memory.track(Job("inner", "t"), "w"):
            logger.info("inner")
        logger.info("outer")

    assert jobs(logger.found) == {"inner": "inner", "outer": "outer"}


def test_a_decorated_function_and_its_failure(memory, logger):
    @memory.track(lambda name: Job(name, "t"), "w")
    def work(name):
        logger.info(name)
        raise KeyError(name)

    for name in ("a", "b"):
        with pytest.raises(KeyError):
            work(name)
        logger.info("after " + name)

    assert jobs(logger.found) == {"a": "a", "after a": "-", "b": "b", "after b": "-"}


@pytest.mark.parametrize("make_store", [create_store, create_async_store])
def test_tasks_do_not_see_each_other(make_store, logger):
    store = make_store()

    @store.track(lambda name, *_: Job(name, "t"), "w")
    async def work(name, started, other):
        started.set()
        await other.wait()
        logger.info(name)
        await asyncio.create_task(child(name))

    async def child(name):
        logger.info(f"child of {name}")

    async def both():
        a, b = asyncio.Event(), asyncio.Event()
        await asyncio.gather(work("a", a, b), work("b", b, a))
        logger.info("outside")

    asyncio.run(both())
    assert jobs(logger.found) == {
        "a": "a",
        "b": "b",
        "child of a": "a",
        "child of b": "b",
        "outside": "-",
    }


def test_a_task_that_outlives_its_execution_has_none(logger):
    store = create_async_store()

    async def late(ended):
        await ended.wait()
        logger.info("late")

    async def main():
        ended = asyncio.Event()
        async with store.track(Job("1", "t"), "w"):
            task = asyncio.create_task(late(ended))
        ended.set()
        await task

    asyncio.run(main())
    assert logger.found == {"late": NOTHING}


def test_threads(memory, logger):
    async def in_a_thread():
        await asyncio.to_thread(logger.info, "to_thread")

    with memory.track(Job("1", "t"), "w"):
        context = copy_context()
        for name, target in (
            ("plain", logger.info),
            ("copied", lambda text: context.run(logger.info, text)),
        ):
            thread = threading.Thread(target=target, args=(name,))
            thread.start()
            thread.join()
        asyncio.run(in_a_thread())

    assert jobs(logger.found) == {"plain": "-", "copied": "1", "to_thread": "1"}


def test_a_generator_has_the_execution_in_which_it_is_resumed(memory, logger):
    def numbers():
        for number in range(3):
            logger.info("number %d", number)
            yield

    running = numbers()
    next(running)
    with memory.track(Job("1", "t"), "w"):
        next(running)
    next(running)

    assert jobs(logger.found) == {"number 0": "-", "number 1": "1", "number 2": "-"}


def test_blocks_that_end_out_of_order(memory, logger):
    first, second = memory.track(Job("1", "t"), "w"), memory.track(Job("2", "t"), "w")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    logger.info("second")
    second.__exit__(None, None, None)
    logger.info("none")

    assert jobs(logger.found) == {"second": "2", "none": "-"}


def test_while_a_block_makes_its_job_the_one_around_it_counts(memory, logger):
    def make_job():
        logger.info("making")
        return Job("inner", "t")

    with memory.track(Job("outer", "t"), "w"):
        memory.track(make_job, "w")(lambda: None)()

    assert jobs(logger.found) == {"making": "outer"}


# -- executions that were begun --------------------------------------------------------------------


def test_a_begun_execution_in_a_block_of_its_own(store, logger):
    execution = store.begin(Job("1", "import"), "w")
    logger.info("begun")
    with log_context(execution):
        logger.info("in it")
    logger.info("after")
    execution.end()

    (record,) = store.query()
    assert logger.found == {"begun": NOTHING, "in it": fields_of(record), "after": NOTHING}


def test_a_begun_execution_beside_tracked_ones(memory, logger):
    begun = memory.begin(Job("begun", "t"), "w")
    with memory.track(Job("outer", "t"), "w"):
        with log_context(begun):
            logger.info("begun")
            with memory.track(Job("inner", "t"), "w"):
                logger.info("inner")
            logger.info("begun again")
        logger.info("outer")

    assert jobs(logger.found) == {
        "begun": "begun",
        "inner": "inner",
        "begun again": "begun",
        "outer": "outer",
    }


def test_the_block_may_be_left_in_another_context(memory, logger):
    block = log_context(memory.begin(Job("1", "t"), "w"))
    copy_context().run(block.__enter__)
    logger.info("outside")
    block.__exit__(None, None, None)

    assert logger.found == {"outside": NOTHING}


# -- other ways to log -----------------------------------------------------------------------------


def test_given_attributes_stay_as_they_are(memory, logger):
    with memory.track(Job("1", "t"), "w"):
        logger.info("given", extra={"job_id": "mine"})

    assert logger.found["given"][:2] == ("mine", "t")


def test_a_configuration_and_a_value_outside_of_executions(memory, capsys):
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"execution": {"()": "jobhistory.LogContext", "missing": None}},
            "formatters": {"short": {"format": "%(message)s %(task)s %(job_id)s"}},
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "filters": ["execution"],
                    "formatter": "short",
                }
            },
            "loggers": {"configured": {"handlers": ["out"], "level": "INFO"}},
        }
    )
    logger = logging.getLogger("configured.child")
    try:
        with memory.track(Job("1", "t"), "w"):
            logger.info("in")
        logger.info("out")
    finally:
        logging.getLogger("configured").handlers.clear()

    assert capsys.readouterr().out == "in t 1\nout None None\n"


def test_structlog(memory):
    logged = structlog.testing.LogCapture()
    logger = structlog.wrap_logger(None, processors=[add_log_context, logged])
    logger.info("outside")
    with memory.track(Job("1", "import"), "w"):
        logger.info("inside")
        logger.info("given", task="mine")

    outside, inside, given = logged.entries
    assert outside == {"event": "outside", "log_level": "info"}
    (record,) = memory.recent()
    assert tuple(inside[name] for name in FIELDS) == fields_of(record)
    assert given["task"] == "mine"
    assert given["job_id"] == "1"
