from __future__ import annotations

import signal
import threading
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from jobhistory._runtime.ring import RingBuffer


@given(st.lists(st.integers()), st.integers(1, 10), st.none() | st.integers(0, 12))
def test_it_keeps_the_last_items_oldest_first(items, size, n):
    ring = RingBuffer(size)
    for item in items:
        ring.append(item)

    kept = items[-size:]
    assert ring.last(n) == (kept if n is None else kept[len(kept) - min(n, len(kept)) :])
    assert len(ring) == len(kept)


@given(st.lists(st.integers(0, 5)), st.integers(1, 10), st.integers(0, 5))
def test_discard_removes_what_is_unwanted_and_keeps_the_bound(items, size, unwanted):
    ring = RingBuffer(size)
    for item in items:
        ring.append(item)
    kept = items[-size:]

    assert ring.discard(lambda item: item == unwanted) == kept.count(unwanted)
    for item in items:
        ring.append(item)
    expected = deque([item for item in kept if item != unwanted] + items, maxlen=size)
    assert ring.last() == list(expected)


def test_threads_append_and_read_at_once_and_nothing_is_lost_or_out_of_order():
    ring, failures = RingBuffer(1000), []

    def append(thread):
        for number in range(5000):
            ring.append((thread, number))

    def read():
        for _ in range(2000):
            snapshot = ring.last()
            newest = {}
            for thread, number in snapshot:
                if number <= newest.get(thread, -1):
                    failures.append((thread, number))
                newest[thread] = number

    threads = [threading.Thread(target=append, args=(n,)) for n in range(8)]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(ring.last()) == 1000
    final = ring.last()
    last_of_each = dict(final)
    assert all(number == 4999 for number in last_of_each.values())


def test_a_signal_handler_may_read_what_its_own_thread_is_changing():
    ring = RingBuffer(3)
    seen = []

    def items():
        yield "a"
        signal.raise_signal(signal.SIGUSR1)
        yield "b"

    before = signal.signal(signal.SIGUSR1, lambda *_: seen.extend(ring.last()))
    try:
        ring.extend(items())
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert set(seen) <= {"a"}
    assert ring.last() == ["a", "b"]
