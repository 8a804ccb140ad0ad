"""Whether history meets an expectation: a pure function of what was read and of the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import groupby
from uuid import UUID

from jobhistory._runtime.durations import took
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.facts import Facts, Run
from jobhistory.expectations.local_time import zone_of
from jobhistory.expectations.matching import LONGEST_EARLINESS, Matches, match
from jobhistory.expectations.verdicts import Checked, Problem, Verdict, worst_first

_FEWEST_FOR_RATE = 10
_MOST_IDS = 20
_FIRST = datetime.min.replace(tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def judge(expectation: Expectation, facts: Facts, now: datetime) -> Checked:
    """Return what is wrong with a task, and when its next start is due."""
    facts = facts.until(now + LONGEST_EARLINESS)
    schedule = expectation.schedule
    paused = expectation.paused_until
    next_slot = None if schedule is None else schedule.next_slot(facts.last_start, now)
    if paused is not None and paused > now:
        return Checked(
            expectation,
            now,
            next_slot=next_slot,
            last_start=facts.last_start,
            is_paused=True,
            last_success=facts.last_success,
        )
    judging = _Judge(expectation, facts, now)
    return Checked(
        expectation,
        now,
        worst_first([*judging.verdicts()]),
        judging.deadline(next_slot),
        next_slot,
        facts.last_start,
        last_success=facts.last_success,
    )


@dataclass(frozen=True)
class _Judge:
    expectation: Expectation
    facts: Facts
    now: datetime

    def verdicts(self) -> Iterator[Verdict]:
        facts = self.facts
        if facts.last_start is None and facts.searched_from is None and not facts.counted:
            yield from self._never_ran()
            return
        yield from self._missed()
        yield from self._late()
        yield from self._too_long()
        yield from self._too_short()
        yield from self._overlapping()
        yield from self._failing()
        yield from self._failing_often()
        yield from self._silent()

    def deadline(self, next_slot: datetime | None) -> datetime | None:
        waiting = self._matches.waiting
        due = waiting[0] if waiting else next_slot
        if due is None and self.expectation.every is not None:  # it has never started
            due = self._beginning + self.expectation.every
        times = [] if due is None else [due + self.expectation.grace]
        if self.expectation.max_success_age is not None:
            since = self.facts.last_success or self._beginning
            times.append(since + self.expectation.max_success_age)
        return min(times, default=None)

    @property
    def _beginning(self) -> datetime:
        """Since when something is expected."""
        return max(self.facts.declared_at, self.expectation.paused_until or _FIRST)

    @property
    def _checked_at(self) -> datetime:
        """Until when history was checked before."""
        return max(self._beginning, self.facts.checked_at or _FIRST)

    @cached_property
    def _matches(self) -> Matches:
        schedule = self.expectation.schedule
        if schedule is None:
            return Matches()
        facts = self.facts
        starts = sorted(run.started_at for run in facts.runs if run.is_first_attempt)
        from_ = self._beginning
        from_ = max(from_, facts.searched_from or _FIRST)
        if facts.rows_from is not None:  # before, only the last start is known
            from_ = max(from_, min(facts.rows_from, facts.last_start or facts.rows_from))
        newest = facts.runs[0].started_at if facts.runs else _FIRST
        if facts.last_start is not None and facts.last_start > newest:
            # Rows are gone, and with them the starts before it.
            from_ = max(from_, facts.last_start)
            starts.append(facts.last_start)
        slots = schedule.slots(starts, from_, self.now + LONGEST_EARLINESS)
        return match(slots, starts, self.expectation.grace, facts.counted)

    def _never_ran(self) -> Iterator[Verdict]:
        waiting = self._matches.overdue(self.expectation.grace, self.now)
        limit = self.expectation.max_success_age
        if waiting:
            summary = f"no start in history, due {self._list(waiting)}"
            yield Verdict(Problem.NEVER_RAN, summary, slots=waiting)
        elif limit is not None and self.now - self._beginning > limit:
            since = self._moment(self._beginning)
            yield Verdict(Problem.NEVER_RAN, f"no start in history, expected since {since}")

    def _missed(self) -> Iterator[Verdict]:
        """Yield the slots without a start: the last ones, and those that passed since the check."""
        grace = self.expectation.grace
        matches = self._matches
        last = matches.overdue(grace, self.now)
        passed = tuple(
            slot for slot in matches.missed(grace, self.now) if slot + grace >= self._checked_at
        )
        slots = tuple(sorted({*last, *passed}))
        if slots:
            yield Verdict(
                Problem.MISSED,
                f"{_count(len(slots), 'start')} missed, due {self._list(slots)}",
                slots=slots,
                is_over=not last,
            )

    def _late(self) -> Iterator[Verdict]:
        matches = self._matches
        late = [
            (slot, start)
            for slot, start in matches.met
            if start > slot + self.expectation.grace and start > self._checked_at
        ]
        is_over = not late or late[-1] != matches.met[-1]
        if not late and matches.met:
            slot, start = matches.met[-1]
            if start > slot + self.expectation.grace:
                late, is_over = [(slot, start)], False
        if late:
            slot, start = max(late, key=lambda pair: pair[1] - pair[0])
            summary = f"started {_length(start - slot)} late, due {self._moment(slot)}"
            yield Verdict(
                Problem.LATE, summary, slots=tuple(slot for slot, _ in late), is_over=is_over
            )

    def _too_long(self) -> Iterator[Verdict]:
        limit = self.expectation.max_runtime
        if limit is None:
            return
        running = [run for run in self.facts.running if self.now - run.started_at > limit]
        ended = [run for run in self._ended_since() if _time(run) > limit]
        last = self._last_ended()
        if not running and not ended and last is not None and _time(last) > limit:
            ended = [last]
        found = [*running, *ended]
        if not found:
            return
        longest = max(found, key=self._age)
        how = "has run for" if longest in running else "took"
        summary = f"{how} {_length(self._age(longest))}, at most {_length(limit)} expected"
        is_over = not running and (last is None or _time(last) <= limit)
        yield Verdict(Problem.TOO_LONG, summary, executions=_ids(found), is_over=is_over)

    def _too_short(self) -> Iterator[Verdict]:
        limit = self.expectation.min_runtime
        if limit is None:
            return
        completed = [run for run in self.facts.runs if run.status == "completed"]
        found = [run for run in completed if self._is_new(run) and _time(run) < limit]
        is_short_now = bool(completed) and _time(completed[0]) < limit
        found = found or completed[: 1 if is_short_now else 0]
        if found:
            shortest = min(map(_time, found))
            summary = f"took {_length(shortest)}, at least {_length(limit)} expected"
            is_over = not is_short_now
            yield Verdict(Problem.TOO_SHORT, summary, executions=_ids(found), is_over=is_over)

    def _overlapping(self) -> Iterator[Verdict]:
        limit = self.expectation.max_running
        if limit is None:
            return
        current = self.facts.running
        most, together = _most_together(
            [*current, *(run for run in self.facts.runs if self._is_new(run))], self.now
        )
        if len(current) > limit:
            summary = f"{len(current)} executions are running, at most {limit} expected"
            yield Verdict(Problem.OVERLAPPING, summary, executions=_ids(current))
        elif most > limit:
            summary = f"{most} executions ran at the same time, at most {limit} expected"
            yield Verdict(Problem.OVERLAPPING, summary, executions=_ids(together), is_over=True)

    def _failing(self) -> Iterator[Verdict]:
        least = self.expectation.failures_in_a_row
        if least is None:
            return
        final = [run for run in self.facts.runs if run.is_final]
        streaks = [*self._streaks(final)]
        if not streaks:
            return
        is_current = _has_failed(final[0]) and not self._has_unstored(final[0].started_at, self.now)
        for number, streak in enumerate(streaks):
            is_over = number > 0 or not is_current
            if len(streak) >= least and (not is_over or self._is_new(streak[0])):
                summary = f"failed {len(streak):,} times in a row"
                if len(streak) == 1:
                    summary = "a run failed" if is_over else "the last run failed"
                ids = _ids(streak)
                yield Verdict(Problem.FAILING, summary, executions=ids, is_over=is_over)
                return

    def _streaks(self, final: Sequence[Run]) -> Iterator[list[Run]]:
        """Yield failures in a row, newest first. What may lie between them ends a row."""
        for failed, runs in groupby(final, _has_failed):
            row: list[Run] = []
            for run in runs if failed else ():
                if row and self._has_unstored(run.started_at, row[-1].started_at):
                    yield row
                    row = []
                row.append(run)
            if row:
                yield row

    def _has_unstored(self, after: datetime, until: datetime) -> bool:
        """Return whether executions without a row may have started between two times."""
        return any(
            end > after and end.replace(minute=0, second=0, microsecond=0) < until
            for end in self.facts.counted
        )

    def _failing_often(self) -> Iterator[Verdict]:
        limit = self.expectation.max_failure_rate
        final = [run for run in self.facts.runs if run.is_final][:100]
        failed = [run for run in final if _has_failed(run)]
        if limit is None or len(final) < _FEWEST_FOR_RATE or len(failed) <= limit * len(final):
            return
        if self._has_unstored(final[-1].started_at, self.now):
            return  # rows show most failures, and few of the others
        rate = f"{len(failed) / len(final):.0%}"
        summary = f"{rate} of the last {len(final)} failed, at most {limit:.0%} expected"
        yield Verdict(Problem.FAILING_OFTEN, summary, executions=_ids(failed))

    def _silent(self) -> Iterator[Verdict]:
        limit = self.expectation.max_success_age
        last = self.facts.last_success
        since = max(last or _FIRST, self.expectation.paused_until or _FIRST)
        if last is None:
            since = max(self._beginning, self.facts.searched_from or _FIRST)
        if limit is not None and self.now - since > limit:
            when = "in history" if last is None else f"since {self._moment(last)}"
            summary = f"no success {when}, one expected every {_length(limit)}"
            yield Verdict(Problem.SILENT, summary)

    def _ended_since(self) -> list[Run]:
        return [run for run in self.facts.runs if run.is_ended and self._is_new(run)]

    def _last_ended(self) -> Run | None:
        return next((run for run in self.facts.runs if run.is_ended), None)

    def _is_new(self, run: Run) -> bool:
        """Return whether it has ended since the last check, or not at all."""
        return run.completed_at is None or run.completed_at > self._checked_at

    def _age(self, run: Run) -> timedelta:
        return _time(run) if run.is_ended else self.now - run.started_at

    def _moment(self, moment: datetime) -> str:
        """Return a time in the time zone of the schedule."""
        zone = self.expectation.timezone if self.expectation.cron else "UTC"
        local = moment.astimezone(zone_of(zone))
        return f"{local:%Y-%m-%d %H:%M} {local.tzname()}"

    def _list(self, slots: Sequence[datetime]) -> str:
        if len(slots) == 1:
            return self._moment(slots[0])
        return f"from {self._moment(slots[0])} to {self._moment(slots[-1])}"


def _has_failed(run: Run) -> bool:
    return run.is_final_failure


def _time(run: Run) -> timedelta:
    return (run.execution_time_ms or 0) * _MILLISECOND


def _ids(runs: Iterable[Run]) -> tuple[UUID, ...]:
    return tuple(dict.fromkeys(run.id for run in runs))[:_MOST_IDS]


def _length(duration: timedelta) -> str:
    return took(duration // _MILLISECOND)


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def _most_together(runs: Iterable[Run], now: datetime) -> tuple[int, list[Run]]:
    """Return the largest number of executions at any one time, and these."""
    found: list[Run] = []
    distinct = {run.id: run for run in runs}.values()
    together: list[Run] = []
    for run in sorted(distinct, key=lambda each: each.started_at):
        together = [each for each in together if (each.completed_at or now) > run.started_at]
        together.append(run)
        if len(together) > len(found):
            found = together
    return len(found), found[::-1]
