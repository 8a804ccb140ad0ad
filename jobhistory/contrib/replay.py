"""Replay: enqueue jobs again, with the arguments that history has of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Unpack
from uuid import UUID

from jobhistory._runtime.cancellation import run_to_completion
from jobhistory.base_store import AnyCriteria, Internals
from jobhistory.contrib.enqueuing import Enqueuer, enqueue_async, enqueue_function
from jobhistory.contrib.jobs import Replay
from jobhistory.contrib.replayer import Replayed, Replayer
from jobhistory.errors import InvalidInput, NotReplayable, check_count
from jobhistory.query.criteria import HistoryQuery, coerce, replace
from jobhistory.schema import HistoryRecord
from jobhistory.store import HistoryStore
from jobhistory.typing import CountCriteria

if TYPE_CHECKING:
    from jobhistory.aio import AsyncHistoryStore

    AnyStore: TypeAlias = HistoryStore | AsyncHistoryStore
else:
    AnyStore = Any
"""A store for threads or for asyncio."""

__all__ = [
    "NotReplayable",
    "Replay",
    "Replayed",
    "Replays",
    "replay",
    "replay_all",
    "replay_all_async",
    "replay_async",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Replays:
    """What `replay_all` did, or would do. In each list, the oldest execution comes first.

    Args:
        replayed: the executions whose jobs were enqueued again.
        refused: those whose jobs were not, each with its reason.
    """

    replayed: list[Replayed] = field(default_factory=list)
    refused: list[NotReplayable] = field(default_factory=list)

    def add(self, result: Replayed | NotReplayable) -> None:
        """Add one result."""
        if isinstance(result, Replayed):
            self.replayed.append(result)
        else:
            self.refused.append(result)


def replay(
    store: HistoryStore,
    app: Any,
    execution_id: UUID,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Replayed:
    """Enqueue the job of an execution again, with the same arguments and correlation id.

    The new execution gets the label `replay_of`, and the old one the label `replayed_at`, which is
    written first: of concurrent calls, one enqueues the job. If enqueueing raises an error, the
    label is removed. If the process dies or is interrupted meanwhile, it stays, so that no other
    call enqueues the job unless forced.

    Args:
        app: the framework's object that enqueues jobs, such as the Celery app. Its class decides
            which adapter enqueues the job. For a framework without an adapter, a function that
            takes a `Replay` and returns the id of the new job.
        execution_id: the `id` of the record.
        force: whether to enqueue the job although it was replayed before, will be tried again by
            its queue, or has a later execution.
        dry_run: only check what history knows. It does not ask the app, such as for the task.

    Raises:
        NotReplayable: if the execution is still running; if its payload is not exact, because it
            was redacted, cut or changed to fit JSON, or is not what adapters record; if the label
            cannot be written; and, without `force`, if it was replayed before, will be tried again,
            or has a later execution.
        ExecutionNotFound: if there is no such execution, or it has expired.
        InvalidInput: if an argument cannot be used, or the app does not know the task.
        Exception: what the framework raises if it cannot enqueue the job.
    """
    check_store(store)
    with Enqueuer(app) as enqueue:
        replayer = Replayer(store.internals, enqueue, force=force, dry_run=dry_run)
        return replayer.replay(execution_id)


def replay_all(
    store: HistoryStore,
    app: Any,
    criteria: AnyCriteria = None,
    *,
    limit: int | None = 100,
    force: bool = False,
    dry_run: bool = False,
    **named: Unpack[CountCriteria],
) -> Replays:
    """Enqueue the jobs of all executions that meet all criteria again, oldest first.

    Each job is taken once, by its newest execution. It is left out if its newest execution does not
    meet the criteria, such as after a retry that succeeded, or if its queue will try it again.
    Executions that start later than this call are left out, so that it ends even if the new jobs
    fail again. One that is refused, or cannot be enqueued, does not stop the others.

    Args:
        app: as for `replay`.
        criteria, named: as for `HistoryStore.query`, except `limit` and `order`. A status is
            required, such as `status="failed"`.
        limit: the maximum number of jobs to enqueue; `None` for no limit.
        force: whether to enqueue also those jobs that were replayed before.
        dry_run: enqueue nothing; return what would be enqueued, and what would be refused. It does
            not ask the app, such as for the tasks.

    Raises:
        InvalidInput: if an argument or a criterion cannot be used.
        sqlalchemy.exc.SQLAlchemyError: if history cannot be read or written. A note in it tells
            how many jobs were replayed before.
    """
    replays = Replays()
    with _counted(replays):
        for result in replaying(store, app, criteria, limit, force=force, dry_run=dry_run, **named):
            replays.add(result)
    return replays


def replaying(
    store: HistoryStore,
    app: Any,
    criteria: AnyCriteria,
    limit: int | None,
    *,
    force: bool,
    dry_run: bool,
    **named: Unpack[CountCriteria],
) -> Iterator[Replayed | NotReplayable]:
    """Do what `replay_all` does, one job after the other as the caller iterates."""
    check_store(store)
    query, count = _checked(store.internals, criteria, named, limit), 0
    with Enqueuer(app) as enqueue:
        replayer = Replayer(store.internals, enqueue, force=force, dry_run=dry_run)
        for record in store.iterate(query):
            result = replayer.take(record)
            if result is not None:
                yield result
            count += isinstance(result, Replayed)
            if count == limit:
                break


async def replay_async(
    store: AnyStore,
    app: Any,
    execution_id: UUID,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Replayed:
    """Do what `replay` does, without blocking the event loop.

    The store may be for asyncio or not, and so may the framework. A task that is cancelled
    meanwhile finishes this first.
    """
    steps = _AsyncSteps(store, app)
    replayer = Replayer(store.internals, steps.enqueue, force=force, dry_run=dry_run)
    return await steps.run(partial(replayer.replay, execution_id))


async def replay_all_async(
    store: AnyStore,
    app: Any,
    criteria: AnyCriteria = None,
    *,
    limit: int | None = 100,
    force: bool = False,
    dry_run: bool = False,
    **named: Unpack[CountCriteria],
) -> Replays:
    """Do what `replay_all` does, without blocking the event loop; see `replay_async`.

    A task that is cancelled meanwhile enqueues no further job.
    """
    steps = _AsyncSteps(store, app)
    query, replays = _checked(store.internals, criteria, named, limit), Replays()
    replayer = Replayer(store.internals, steps.enqueue, force=force, dry_run=dry_run)
    with _counted(replays):
        async for record in steps.iterate(query):
            result = await steps.run(partial(replayer.take, record))
            if result is not None:
                replays.add(result)
            if len(replays.replayed) == limit:
                break
    return replays


@contextmanager
def _counted(replays: Replays) -> Iterator[None]:
    """Tell in an error how many jobs were replayed before it."""
    try:
        yield
    except Exception as error:
        if replays.replayed:
            error.add_note(f"{len(replays.replayed)} jobs were replayed before this error")
        raise


class _AsyncSteps:
    """Runs the blocking steps of a replay in an event loop: for asyncio in greenlets, else threads.

    Raises:
        InvalidInput: if the store or the app cannot be used.
    """

    def __init__(self, store: AnyStore, app: Any) -> None:
        if not isinstance(store, HistoryStore) and not _is_async(store):
            raise InvalidInput("store", store, _NOT_A_STORE)
        self._store = store
        self._is_async = not isinstance(store, HistoryStore)
        self._function = enqueue_function(app)
        self._loop = asyncio.get_running_loop()

    def enqueue(self, job: Replay) -> str:
        """Enqueue a job, called by a step."""
        work = enqueue_async(self._function, job)
        if not self._is_async:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        from sqlalchemy.util import await_only

        return await_only(work)

    async def run(self, step: Callable[[], T]) -> T:
        """Run a step to its end, even if the task is cancelled meanwhile."""
        if not self._is_async:
            return await run_to_completion(asyncio.to_thread(step), cancellable=False)
        from sqlalchemy.util import greenlet_spawn

        return await run_to_completion(greenlet_spawn(step), cancellable=False)

    async def iterate(self, query: HistoryQuery) -> AsyncIterator[HistoryRecord]:
        """Yield the records that meet the criteria."""
        if not isinstance(self._store, HistoryStore):
            async for record in self._store.iterate(query):
                yield record
            return
        records = self._store.iterate(query)
        while (found := await asyncio.to_thread(next, records, None)) is not None:
            yield found


_NOT_A_STORE = "is neither a HistoryStore nor an AsyncHistoryStore; pass create_store(url)"


def check_store(store: object) -> None:
    """Check that a store can be used by the functions that block.

    Raises:
        InvalidInput: if it is for asyncio, in a session, or no store.
    """
    if isinstance(store, HistoryStore):
        return
    if _is_async(store):
        raise InvalidInput("store", store, "is for asyncio; await replay_async instead")
    raise InvalidInput("store", store, "is not a HistoryStore; pass create_store(url)")


def _is_async(store: object) -> bool:
    # Without greenlet, this module cannot be imported, and there is no such store.
    aio = sys.modules.get("jobhistory.aio")
    return aio is not None and isinstance(store, aio.AsyncHistoryStore)


def _checked(
    internals: Internals[Any], criteria: AnyCriteria, named: Mapping[str, Any], limit: int | None
) -> HistoryQuery:
    """Return the query for `replay_all`.

    Raises:
        InvalidInput: if a criterion or the limit cannot be used.
    """
    if limit is not None:
        check_count(limit, "limit")
    query = coerce(criteria, named, without=("limit", "order"))
    if query.status is None:
        raise InvalidInput(
            "status",
            None,
            "would also repeat the jobs that succeeded; choose one, such as 'failed'",
        )
    now = internals.rows.now()
    return replace(query, order="oldest", to=now if query.to is None else min(query.to, now))
