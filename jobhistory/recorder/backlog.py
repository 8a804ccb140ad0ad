"""What a `Recorder` holds in memory: waiting operations, and rows that have no outcome yet."""

from __future__ import annotations

import sys
from collections import deque
from itertools import islice
from typing import Any
from uuid import UUID

from jobhistory.execution.batch import Counted, Operation
from jobhistory.execution.outcome import ExecutionKey, Outcome
from jobhistory.execution.status import Status
from jobhistory.sanitize.json_text import JsonText

Row = dict[str, Any]

_SMALL = 1500
"""The approximate memory in bytes of an operation without large values."""

_PLAIN_OUTCOME = 3
"""The number of values of an outcome that consists of a status and two times."""


class Backlog:
    """Operations that wait to be written, in order. Not thread-safe.

    Args:
        most: the maximum number of operations.
        most_bytes: about how much memory they may take, in bytes. A single operation may take more.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        # Two queues, because the garbage collector would visit each pair.
        self._queue: deque[Operation] = deque()
        self._sizes: deque[int] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def has_room(self, size: int) -> bool:
        """Return whether there is room for an operation of this size."""
        return not self._queue or (
            len(self._queue) < self._most and self.bytes + size <= self._most_bytes
        )

    def add(self, operation: Operation, size: int) -> None:
        """Add an operation behind the others."""
        self._queue.append(operation)
        self._sizes.append(size)
        self.bytes += size

    def first(self, most: int, most_bytes: int) -> list[Operation]:
        """Return the first operations, up to a number and, unless it is only one, to a size."""
        operations: list[Operation] = []
        for operation, size in islice(zip(self._queue, self._sizes, strict=True), most):
            most_bytes -= size
            if operations and most_bytes < 0:
                break
            operations.append(operation)
        return operations

    def drop(self, count: int) -> None:
        """Remove the first operations."""
        if count == len(self._queue):
            self._queue.clear()
            self._sizes.clear()
            self.bytes = 0
            return
        for _ in range(count):
            self._queue.popleft()
            self.bytes -= self._sizes.popleft()

    def all(self) -> list[Operation]:
        """Return all operations."""
        return list(self._queue)


class StartedRows:
    """Started rows that have no outcome yet, up to a number and a size. Not thread-safe.

    New rows push out the oldest ones, whose outcomes then find them in history, by key.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._rows: dict[ExecutionKey, list[tuple[Row, int]]] = {}
        self._keys: dict[UUID, ExecutionKey] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._keys)

    def joined(self, operation: Operation, size: int) -> tuple[Operation, int]:
        """Remember a started row, or add the row to its outcome. Return what to queue."""
        if isinstance(operation, Outcome):
            id_ = operation.id
            key = operation.key if id_ is None else self._keys.get(id_)
            if key is None or key not in self._rows:
                return operation, size
            row, its_size = self._forget(key, id_)
            return Outcome(key, operation.values, row), size + its_size
        if isinstance(operation, Counted):
            return operation, size
        if operation["status"] is Status.STARTED:
            self._remember(operation, size)
        elif (key := self._keys.get(operation["id"])) is not None:
            self._forget(key, operation["id"])
        return operation, size

    def _remember(self, row: Row, size: int) -> None:
        if row["id"] in self._keys:  # a repeated call
            return
        key = ExecutionKey(row["job_id"], row["worker_id"], row["correlation_id"])
        self._rows.setdefault(key, []).append((row, size))
        self._keys[row["id"]] = key
        self.bytes += size
        while len(self) > self._most or self.bytes > self._most_bytes:
            oldest = next(iter(self._rows))
            self._forget(oldest, self._rows[oldest][0][0]["id"])

    def _forget(self, key: ExecutionKey, id_: UUID | None) -> tuple[Row, int]:
        """Remove the row with an id, or the newest one, and return it with its size."""
        rows = self._rows[key]
        place = -1
        if id_ is not None and len(rows) > 1:
            place = next(place for place, (row, _) in enumerate(rows) if row["id"] == id_)
        row, size = rows.pop(place)
        if not rows:
            del self._rows[key]
        del self._keys[row["id"]]
        self.bytes -= size
        return row, size


def memory_of(operation: Operation) -> int:
    """Return about how much memory an operation takes, in bytes."""
    if isinstance(operation, Counted):
        return _SMALL
    if isinstance(operation, Outcome):
        values = operation.values
        return _SMALL if len(values) == _PLAIN_OUTCOME else _SMALL + _memory_of(values)
    if operation["status"] is Status.STARTED:  # only its payload may be large
        payload = operation["payload"]
        return _SMALL if payload is None else _SMALL + sys.getsizeof(payload)
    return _SMALL + _memory_of(operation)


def _memory_of(values: Any) -> int:
    # An estimate, because `sys.getsizeof` of each value would take longer than everything else.
    total = 64 + 100 * len(values)
    for item in values.values() if type(values) is dict else values:
        kind = type(item)
        if kind is str or kind is JsonText:
            total += sys.getsizeof(item)
        elif kind is dict or kind is list:
            total += _memory_of(item)
    return total
