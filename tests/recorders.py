"""Helpers for the tests of the `Recorder`."""

from __future__ import annotations

import threading

from jobhistory import Job

IDS = ("job-1", "worker-1", "request-1")


def record(recorder, job_id, outcome="completion", *more):
    recorder.record_start(Job(job_id, "t"), *IDS[1:])
    getattr(recorder, f"record_{outcome}")(job_id, *IDS[1:], 5, *more)


class Gate:
    """Holds back the writes of a store until a test lets them through, or makes them fail."""

    def __init__(self, store):
        self.open = threading.Event()
        self.error = None
        self.tries = 0
        self._tried = threading.Condition()
        self._write = store._history.write
        store._history.write = self.write

    def write(self, batch, *, may_exist, **named):
        with self._tried:
            self.tries += 1
            self._tried.notify_all()
        self.open.wait(30)
        if self.error is not None:
            raise self.error
        return self._write(batch, may_exist=may_exist, **named)

    def wait_for_tries(self, count):
        with self._tried:
            assert self._tried.wait_for(lambda: self.tries >= count, 30)
