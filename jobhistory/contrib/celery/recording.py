"""The signals of Celery, which tell when attempts begin and end, and the tasks to send again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, Unpack
from uuid import UUID, uuid4
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from celery import Celery, signals
from celery.app.task import Context
from celery.exceptions import Reject, TimeLimitExceeded

from jobhistory._runtime.clock import utc_now
from jobhistory.contrib.adapter import (
    HEADER,
    Adapter,
    Attempt,
    Carried,
    Options,
    Recording,
    Replay,
    StoreSource,
)
from jobhistory.contrib.celery.limits import (
    CANCELLATIONS,
    forget_limits,
    send_again,
    soft_limit_deferred,
    time_limits,
)
from jobhistory.contrib.celery.outcomes import cause, end, lost
from jobhistory.contrib.jobs import NOT_REPLAYABLE
from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import new_execution_id
from jobhistory.execution.values import read_boolean
from jobhistory.failure import Cancelled, WorkerLost


class _Begun(NamedTuple):
    recording: Recording | None
    """None if the task is not to be recorded, or could not be."""
    outer: BaseException | None
    """The exception that the caller of an eager task handles."""


_begun: WeakKeyDictionary[Any, _Begun] = WeakKeyDictionary()
"""By the request of a task that runs in this process, which is the user's to copy or print."""

_HOURS_BETWEEN_IDS = 20
"""The steps in which an id moves towards the start, which must be within a day of it."""

_POLLS = "celery.chord_unlock"
"""With some result backends, Celery runs this task each second until a chord is complete."""

_CHORD = "it is part of a chord, which would not get its result; send the chord again"

_recorded: dict[Any, RecordedTasks] = {}


def record_tasks(
    app: Celery, store: StoreSource, *, eager: bool = True, **options: Unpack[Options]
) -> RecordedTasks:
    """Record each attempt at each task of an app, in workers and in eager mode.

    Call it where the app is made, so that workers and the processes that send tasks run it. If it
    is called again for the same app, the last call counts. It connects to Celery's signals; those
    of other apps in the process are ignored. Calling a task directly, as in `add(1, 2)`, is no
    attempt.

    Args:
        app: the Celery app.
        store: a store or a recorder, or a function without arguments that makes one. Children that
            a worker forks have their own connections, also with an engine used before the fork.
        eager: whether to record tasks that `apply` or `task_always_eager` runs in the caller.
        options: as for all adapters. Functions among them get the task's request.

    Raises:
        InvalidInput: if an argument cannot be used.
    """
    if not isinstance(app, Celery):
        raise InvalidInput("app", app, "is not a Celery app")
    app = app.finalize.__self__  # of a proxy such as `current_app`, the app that it stands for now
    read_boolean(eager, "eager")
    adapter = Adapter(
        store,
        options,
        time_limits=time_limits(),
        cancellations=CANCELLATIONS,
    )
    if app in _recorded:
        _recorded[app].close()
    recorded = _recorded[app] = RecordedTasks(app, adapter, eager=eager)
    return recorded


class RecordedTasks:
    """An app whose tasks are recorded until `close` is called."""

    def __init__(self, app: Celery, adapter: Adapter, *, eager: bool) -> None:
        self._app = app
        self._adapter = adapter
        self._eager = eager
        self._node: str | None = None
        # Some signals of the main process have the id of a task only. Entries vanish with it.
        self._received: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._receivers = {
            signals.before_task_publish: self._stamp,
            signals.task_received: self._choose_id,
            signals.task_prerun: self._begin,
            signals.task_postrun: self._end,
            signals.task_failure: self._fail_elsewhere,
            signals.task_retry: self._retry_elsewhere,
            signals.task_revoked: self._revoke,
            signals.worker_ready: self._end_leftovers,
            signals.worker_process_shutdown: self._close_child,
        }
        for signal, receiver in self._receivers.items():
            signal.connect(receiver, weak=False, dispatch_uid=self._uid)

    def close(self) -> None:
        """Stop recording, and close the store if a function of yours made it."""
        for signal in self._receivers:
            signal.disconnect(dispatch_uid=self._uid)
        if _recorded.get(self._app) is self:
            del _recorded[self._app]
        self._adapter.close()

    @property
    def _uid(self) -> str:
        return f"jobhistory-{id(self)}"

    # Where tasks are sent, and in the main process of a worker.

    def _stamp(self, headers: dict[str, Any] | None = None, **_: Any) -> None:
        """Let a message carry who sends it. A retry carries what the first attempt did."""
        if headers is None:
            return
        given, job_id = _mapping(headers.get(HEADER)), str(headers.get("id"))
        if headers.get("retries") or given.get("id") == job_id:
            carried = replace(Carried.read(given), enqueued_at=utc_now())
        else:
            carried = Carried.now()
        headers[HEADER] = {**carried.as_header(), "id": job_id}

    def _choose_id(self, sender: Any, request: Any, **_: Any) -> None:
        """Choose the id of the row before a child runs the task: both may have to end it."""
        if sender.app != self._app:
            return
        self._received[request.id] = request
        request.request_dict[HEADER] = {
            **_mapping(request.request_dict.get(HEADER)),
            "execution_id": str(new_execution_id()),
            "worker_id": request.hostname,
        }
        if request.task.reject_on_worker_lost:  # then no signal tells of the loss
            request.on_reject = partial(self._reject, ref(request), request.on_reject)

    def _end_leftovers(self, sender: Any, **_: Any) -> None:
        if sender.app == self._app:
            self._adapter.end_leftovers(sender.hostname)

    # Where tasks run.

    def _begin(self, task: Any, **_: Any) -> None:
        if task.app != self._app:
            return
        request, recording = task.request, None
        with soft_limit_deferred() as came:
            try:
                if task.name != _POLLS and (self._eager or not request.is_eager):
                    recording = self._adapter.begin(self._attempt(task, request, utc_now()))
            except Exception as error:
                self._adapter.contain("start", task.name, error)
        send_again(came)
        _begun[request] = _Begun(recording, sys.exc_info()[1])

    def _end(self, task: Any, state: str | None = None, retval: Any = None, **_: Any) -> None:
        begun = _begun.pop(task.request, None) if task.app == self._app else None
        if begun is None:
            return
        raised = sys.exc_info()[1]  # passes through the worker's code, not only the task's
        if raised is begun.outer and state is not None:  # of the code that called an eager task
            raised = None
        with soft_limit_deferred() as came:
            if begun.recording is not None:
                end(begun.recording, raised, state, retval)
        if _begun:  # in a child, these are the tasks that run this one, and the limit is theirs
            send_again(came)
        else:
            forget_limits()

    def _close_child(self, **_: Any) -> None:
        self._adapter.close()  # these processes run no functions of atexit

    # In the main process, about children that were killed.

    def _fail_elsewhere(self, sender: Any, task_id: str, exception: Any, **_: Any) -> None:
        if sender.app != self._app or sender.request in _begun:
            return  # the task has failed in this process, and its end is yet to come
        received = self._received.get(task_id)
        if received is None or isinstance(exception, Reject):
            return
        in_signal = sender.request.id == task_id  # since Celery 5.7; twins have the same task id
        request = sender.request if in_signal else Context(received.request_dict)
        requeued = isinstance(exception, TimeLimitExceeded) and _is_requeued_on_timeout(sender)
        self._record(sender, request, lost(exception), will_retry=requeued or None)

    def _retry_elsewhere(self, sender: Any, request: Any, reason: Any = None, **_: Any) -> None:
        if sender.app != self._app or request in _begun:
            return
        if reason is None:  # the connection to the broker was lost, or the worker stops
            self._record(sender, request, Cancelled("stopped by the worker"))
        else:
            self._record(sender, request, lost(cause(reason)), will_retry=True)

    def _reject(
        self, received: ref[Any], reject: Any, logger: Any, errors: Any, requeue: bool
    ) -> None:
        reject(logger, errors, requeue)
        request = received()
        if requeue and request is not None and request.time_start:
            lost = WorkerLost("its process was lost; the message is back in the queue")
            self._record(request.task, Context(request.request_dict), lost, will_retry=True)

    def _revoke(
        self,
        sender: Any,
        request: Any,
        terminated: bool = False,
        expired: bool = False,
        **_: Any,
    ) -> None:
        if sender.app != self._app:
            return
        if terminated:
            self._record(sender, request, Cancelled("revoked while it ran"))
        else:
            attempt = self._attempt(sender, request, utc_now())
            self._adapter.skip(attempt, "expired" if expired else "revoked")

    def _record(
        self, task: Any, request: Any, error: Any, *, will_retry: bool | None = None
    ) -> None:
        # In this thread: while others run, the worker must not fork the next child.
        received = self._received.get(request.id)
        began, pid = getattr(received, "time_start", None), getattr(received, "worker_pid", None)
        started_at = datetime.fromtimestamp(began, UTC) if began else utc_now()
        attempt = self._attempt(task, request, started_at)
        if pid:
            attempt = replace(attempt, labels={**attempt.labels, "pid": str(pid)})
        self._adapter.record(attempt, error, started_at=started_at, will_retry=will_retry)

    def _attempt(self, task: Any, request: Any, started_at: datetime) -> Attempt:
        header = _mapping(request.get(HEADER) or (request.headers or {}).get(HEADER))
        execution_id = None if request.is_eager else header.get("execution_id")
        if not request.is_eager:  # a task that it applies is left in this worker as well
            self._node = header.get("worker_id") or request.hostname
        return Attempt(
            source=request,
            job_id=request.id,
            task_identifier=task.name,
            args=request.args or (),
            kwargs=request.kwargs or {},
            number=(request.retries or 0) + 1,
            queue=_queue(task.app, request.delivery_info or {}),
            worker_id=self._node,
            correlation_id=request.root_id,
            run_at=_moment(request.eta, task.app),
            carried=_carried(request, header),
            execution_id=execution_id and _id_for(UUID(execution_id), started_at),
            labels={NOT_REPLAYABLE: _CHORD} if request.chord else {},
        )


def enqueue(app: Celery, replay: Replay) -> str:
    """Send a task of the app again, and return the id of the new task.

    It is a task of its own: a chain, a chord or a callback that the first one was part of does not
    go on.

    Raises:
        InvalidInput: if the app has no such task.
    """
    name = replay.task_identifier
    if name not in app.tasks:
        app.loader.import_default_modules()  # what workers import, such as autodiscovered ones
    if name not in app.tasks:
        known = ", ".join(sorted(each for each in app.tasks if not each.startswith("celery.")))
        raise InvalidInput("task_identifier", name, f"is not a task of this app, which has {known}")
    job_id = str(uuid4())
    carried = replace(replay.carried, enqueued_at=utc_now())
    app.tasks[name].apply_async(
        replay.args,
        replay.kwargs,
        task_id=job_id,
        root_id=replay.correlation_id,
        headers={HEADER: {**carried.as_header(), "id": job_id}},
        **({} if replay.queue is None else {"queue": replay.queue}),
    )
    return job_id


def _carried(request: Any, header: Mapping[str, Any]) -> Carried:
    carried = Carried()
    if header.get("id") == request.id:  # otherwise, a task has copied its own headers
        carried = Carried.read(header)
    elif request.is_eager:
        carried = replace(Carried.now(), enqueued_at=None)
    # OpenTelemetry's instrumentation sends this header. In a worker, its span may begin too late.
    span = Carried.read({"traceparent": request.get("traceparent")}).traceparent
    return carried if span is None else replace(carried, traceparent=span)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_requeued_on_timeout(task: Any) -> bool:
    both = task.acks_on_failure_or_timeout  # the only option before Celery 5.6
    return bool(task.acks_late and not getattr(task, "acks_on_timeout", both))


def _id_for(chosen: UUID, started_at: datetime) -> UUID:
    """Return the id of an execution for which a worker has chosen one when it received the task.

    If the task has waited in the worker for long, the id moves by a multiple of a fixed time. So
    each process finds the same id from the time of the start.
    """
    step = _HOURS_BETWEEN_IDS * 3_600_000
    waited = int(started_at.timestamp() * 1000) - (chosen.int >> 80)
    return UUID(int=chosen.int + (round(waited / step) * step << 80))


def _queue(app: Any, delivery: Mapping[str, Any]) -> str | None:
    exchange, routing_key = delivery.get("exchange"), delivery.get("routing_key")
    if not exchange:  # the default exchange delivers to the queue of that name
        return routing_key
    for name, queue in app.amqp.queues.items():
        if queue.exchange.name == exchange and queue.routing_key == routing_key:
            return str(name)
    return None


def _moment(eta: str | None, app: Any) -> datetime | None:
    moment = None if eta is None else datetime.fromisoformat(eta)
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=app.timezone)
