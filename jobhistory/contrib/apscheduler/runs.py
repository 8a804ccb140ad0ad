"""The runs of a job, as an executor of APScheduler executes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, overload
from uuid import uuid4

from apscheduler.util import iscoroutinefunction_partial

from jobhistory._runtime.fork import ForkSafeLock
from jobhistory.contrib.adapter import Adapter, Attempt, Options, StoreSource
from jobhistory.contrib.apscheduler.jobs import carried_by, run_id, task_of


@dataclass(frozen=True)
class Blueprint:
    """How a process of a pool makes an adapter. It can be pickled, which an adapter cannot."""

    store: StoreSource
    options: Options
    id: str = field(default_factory=lambda: uuid4().hex)  # copies of a partial are not equal

    def adapter(self) -> Adapter:
        """Return the adapter of this process, which all copies of this blueprint share."""
        adapter = _of_this_process.get(self.id)
        if adapter is None:
            adapter = _of_this_process[self.id] = Adapter(self.store, self.options)
            adapter.end_leftovers()  # such as those of a process that was killed
        return adapter


_of_this_process: dict[str, Adapter] = {}


class Running:
    """Counts the runs that go on in this process, each of which uses it as a context manager.

    Args:
        when_done: is called once none goes on any more, after `leave`.
    """

    def __init__(self, when_done: Callable[[], None]) -> None:
        self._when_done = when_done
        self._lock = ForkSafeLock()
        self._count = 0
        self._is_leaving = False

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            is_last = self._is_leaving and self._count == 0
        if is_last:
            self._when_done()

    def stay(self) -> None:
        """Take back `leave`."""
        with self._lock:
            self._is_leaving = False

    def leave(self) -> None:
        """Call the function when the last run has ended: now, or later in its thread or task."""
        with self._lock:
            self._is_leaving = True
            is_done = self._count == 0
        if is_done:
            self._when_done()


class Runs(Sequence[datetime]):
    """The times for which a job was submitted, and its function with a recording around it.

    An executor takes one time after the other. It calls the function of the job, unless the time is
    too long ago. A job that is submitted for several times runs once for each.
    """

    def __init__(
        self,
        job: Any,
        times: Sequence[datetime],
        source: Adapter | Blueprint,
        running: AbstractContextManager[None] | None = None,
    ) -> None:
        self._job = job
        self._times = tuple(times)
        self._source = source
        self._running = running or nullcontext()
        self._time = self._times[0]
        self._has_begun = False
        self._tasks: set[asyncio.Task[None]] = set()

    @overload
    def __getitem__(self, index: int) -> datetime: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[datetime]: ...

    def __getitem__(self, index: int | slice) -> datetime | Sequence[datetime]:
        return self._times[index]

    def __len__(self) -> int:
        return len(self._times)

    def __iter__(self) -> Iterator[datetime]:
        for time in self._times:
            self._time, self._has_begun = time, False
            yield time
            if not self._has_begun:
                self._skip(time, "the run time was missed")

    def skip(self, why: str) -> None:
        """Record that none of the runs has begun, if the options say so."""
        for time in self._times:
            self._skip(time, why)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function of the job, and record how that ends."""
        with self._running:
            recording = self._adapter.begin(self._begun(args, kwargs))
            try:
                result = self._job.func(*args, **kwargs)
            except BaseException as error:
                if recording is not None:
                    recording.end(error)
                raise
            if recording is not None:
                recording.end(result=result)
            return result

    async def call_async(self, *args: Any, **kwargs: Any) -> Any:
        """Do what `call` does without blocking the event loop; a function runs in a thread."""
        with self._running:
            recording = await self._adapter.begin_async(self._begun(args, kwargs))
            try:
                if iscoroutinefunction_partial(self._job.func):
                    result = await self._job.func(*args, **kwargs)
                else:
                    result = await asyncio.to_thread(self._job.func, *args, **kwargs)
            except BaseException as error:
                if recording is not None:
                    await recording.end_async(error)
                raise
            if recording is not None:
                await recording.end_async(result=result)
            return result

    @property
    def _adapter(self) -> Adapter:
        source = self._source
        return source if isinstance(source, Adapter) else source.adapter()

    def _begun(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Attempt:
        self._has_begun = True
        return _attempt(self._job, self._time, args, kwargs)

    def _skip(self, time: datetime, why: str) -> None:
        attempt = _attempt(self._job, time, self._job.args, self._job.kwargs)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._adapter.skip(attempt, why)
            return
        task = loop.create_task(self._adapter.skip_async(attempt, why))
        self._tasks.add(task)  # a loop keeps only weak references
        task.add_done_callback(self._tasks.discard)


class StandIn:
    """A job as an executor sees it: with another function, and otherwise as it is."""

    def __init__(self, job: Any, func: Callable[..., Any]) -> None:
        self._job = job
        self.func = func

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return StandIn, (self._job, self.func)

    def __str__(self) -> str:
        return str(self._job)


def _attempt(job: Any, time: datetime, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Attempt:
    return Attempt(
        source=job,
        job_id=run_id(job.id, time),
        task_identifier=task_of(job),
        args=args,
        kwargs=kwargs,
        queue=job.executor,
        run_at=time,
        carried=carried_by(job),
    )
