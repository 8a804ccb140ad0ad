"""Record what Dramatiq's workers do, with a middleware: one row for each attempt at a message."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Unpack

from jobhistory.contrib.adapter import (
    HEADER,
    Adapter,
    Attempt,
    Carried,
    Options,
    Recording,
    Replay,
    StoreSource,
    not_installed,
)
from jobhistory.errors import InvalidInput
from jobhistory.failure import Cancelled

try:
    from dramatiq.errors import ActorNotFound
    from dramatiq.middleware import Middleware, TimeLimitExceeded
    from dramatiq.middleware.threading import Interrupt
except ImportError as error:
    raise not_installed("dramatiq", error) from error

if TYPE_CHECKING:
    from dramatiq import Broker, Message, Worker
    from dramatiq.broker import MessageProxy

__all__ = ["JobHistory", "enqueue"]

logger = logging.getLogger("jobhistory.contrib")

DUE = "jobhistory_due"
"""The option of a delayed message that keeps its `eta`, which Dramatiq deletes when it is due."""


@dataclass
class _Run:
    """An attempt that runs in this thread, and what is known about its outcome."""

    message: MessageProxy
    recording: Recording
    error: BaseException | None = None
    result: Any = None
    will_retry: bool = False


class _Current(threading.local):
    run: _Run | None = None


class JobHistory(Middleware):
    """Records each attempt at a message; add it last: `broker.add_middleware(JobHistory(store))`.

    The processes that send messages need it as well: it notes when a message was sent, and by
    which execution. If a broker has several, the last one records. A worker that boots ends the
    executions that processes of its host left without an outcome.

    Args:
        store: a store, a recorder, or a function that makes one in each process.
        options: see `jobhistory.contrib.adapter.Options`. The functions among them get the
            message.

    Raises:
        InvalidInput: if the store or an option cannot be used.
    """

    def __init__(self, store: StoreSource, **options: Unpack[Options]) -> None:
        self._adapter = Adapter(
            store,
            options,
            time_limits=(TimeLimitExceeded,),
            # A shutdown, and whatever else interrupts actors on purpose.
            cancellations=(Interrupt,),
        )
        self._current = _Current()
        self._is_closed = False

    def close(self) -> None:
        """Record nothing more, and write what a recorder has accepted."""
        self._is_closed = True
        self._adapter.close()

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int) -> None:
        """Note when a message is sent and by which execution, but not when a worker sends it again.

        A worker does so to try a message again, or when one with a delay is due. Its sender may not
        have this middleware.
        """
        run = self._current.run
        is_retry = run is not None and run.message.message_id == message.message_id
        if not is_retry and DUE not in message.options and self._records(broker):
            message.options.setdefault(HEADER, Carried.now().as_header())

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int) -> None:
        """Note that the message which this thread processes will be tried again."""
        run = self._current.run
        if run is not None and run.message.message_id == message.message_id:
            run.will_retry = True

    def before_delay_message(self, broker: Broker, message: MessageProxy) -> None:
        """Keep the time at which a delayed message is due."""
        message.options[DUE] = message.options.get("eta")

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Record the start, unless another middleware has rejected the message."""
        self._end()
        if not self._records(broker):
            return
        if message.failed:
            self._adapter.skip(_attempt(message), "a middleware rejected the message")
            return
        recording = self._adapter.begin(_attempt(message))
        if recording is not None:
            self._current.run = _Run(message, recording)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Keep the outcome until the other middleware has decided whether to try again."""
        run = self._run(message)
        if run is not None:
            run.error, run.result = exception, result

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Record a message that has begun as cancelled, and others if the options say so."""
        why = "the message was skipped"
        run = self._run(message)
        if run is not None:
            run.error = Cancelled(why)
        elif self._records(broker):
            self._adapter.skip(_attempt(message), why)

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Record the outcome. No time limit can interrupt that, unlike in the hooks before."""
        if self._run(message) is not None:
            self._end()

    before_nack = before_ack

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """End what processes that no longer exist left without an outcome."""
        if not self._records(broker):
            return
        later = broker.middleware[broker.middleware.index(self) + 1 :]
        may_skip = [
            type(each).__name__
            for each in later
            if type(each).before_process_message is not Middleware.before_process_message
        ]
        if may_skip:
            logger.warning(
                "add JobHistory last: messages that %s may skip are recorded as begun",
                " or ".join(may_skip),
            )
        self._adapter.end_leftovers()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Write what a recorder has accepted; worker processes run no `atexit` functions."""
        self._adapter.close()

    def _records(self, broker: Broker) -> bool:
        """Return whether this is the middleware that records, if there are several."""
        ours = (each for each in reversed(broker.middleware) if isinstance(each, JobHistory))
        return not self._is_closed and next(ours, None) is self

    def _run(self, message: MessageProxy) -> _Run | None:
        run = self._current.run
        return run if run is not None and run.message is message else None

    def _end(self) -> None:
        """Record the outcome of the attempt that ran in this thread, if there is one."""
        run, self._current.run = self._current.run, None
        if run is not None:
            will_retry = run.will_retry if run.error is not None else None
            run.recording.end(run.error, result=run.result, will_retry=will_retry)


def enqueue(broker: Broker, replay: Replay) -> str:
    """Send a message again, to the actor that the broker knows; return the new message's id.

    Raises:
        InvalidInput: if the broker has no actor of that name.
    """
    try:
        actor = broker.get_actor(replay.task_identifier)
    except ActorNotFound:
        known = ", ".join(sorted(broker.get_declared_actors())) or "none"
        raise InvalidInput(
            "task_identifier", replay.task_identifier, f"is no actor of the broker; it has: {known}"
        ) from None
    message = actor.message_with_options(
        args=tuple(replay.args),
        kwargs=replay.kwargs,
        **{HEADER: replay.carried.as_header()},
    )
    if replay.queue in broker.get_declared_queues():
        message = message.copy(queue_name=replay.queue)
    return broker.enqueue(message).message_id


def _attempt(message: MessageProxy) -> Attempt:
    options = message.options
    carried = Carried.read(options.get(HEADER))
    moments = [_moment(options.get(name)) for name in (DUE, "requeue_timestamp")]
    moments.append(carried.enqueued_at or _moment(message.message_timestamp))
    retries = options.get("retries")
    return Attempt(
        source=message,
        job_id=message.message_id,
        task_identifier=message.actor_name,
        args=message.args,
        kwargs=message.kwargs,
        number=retries + 1 if isinstance(retries, int) else 1,
        queue=message.queue_name,
        correlation_id=options.get("group_completion_uuid"),
        run_at=max((each for each in moments if each is not None), default=None),
        carried=carried,
    )


def _moment(milliseconds: Any) -> datetime | None:
    """Return the time of one of Dramatiq's timestamps; `None` if it is not one."""
    with suppress(Exception):
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    return None
