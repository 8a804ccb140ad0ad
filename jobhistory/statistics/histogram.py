"""A histogram of times, from which percentiles are known to 2 percent."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from math import ceil, log
from typing import Self

RELATIVE_ERROR = 0.02
"""The largest error of a percentile, relative to the exact one."""

# As in DDSketch (Masson, Rim and Lee, VLDB 2019): each bucket is wider than the one before it by a
# constant factor, so the value in the middle of a bucket has the same relative error in all.
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = log(_GAMMA)

_BITS_PER_COUNT = 64
_HEADER = struct.Struct("<BH")
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Histogram:
    """The number of times in each bucket. Bucket 0 holds times below 1 ms.

    The counts are one large integer with 64 bits for each bucket, so that adding two histograms is
    one addition.
    """

    __slots__ = ("_stored", "_sum")

    def __init__(self) -> None:
        self._sum = 0
        # Most series show each stored histogram as it is, so the first one is not added at once.
        self._stored: bytes | None = None

    @classmethod
    def of(cls, times: Iterable[int]) -> Self:
        """Return the histogram of times in milliseconds."""
        histogram = cls()
        found = Counter(times)  # many are equal, and a logarithm takes longer
        if found:
            counts = [0] * (_bucket_of(max(found)) + 1)
            for time, count in found.items():
                counts[_bucket_of(time)] += count
            lanes = struct.pack(f"<{len(counts)}Q", *counts)
            histogram._sum = int.from_bytes(lanes, "little")
        return histogram

    def add(self, other: Histogram) -> None:
        """Add the times of another histogram."""
        self._sum = self._counts + other._counts

    def add_bytes(self, data: bytes) -> None:
        """Add the times of a histogram as `to_bytes` writes it."""
        if self._sum or self._stored is not None:
            self._sum = self._counts + _lanes_of(data)
        else:
            self._stored = data

    def to_bytes(self) -> bytes:
        """Return the counts as bytes.

        One byte tells the size of a count (1, 2, 4 or 8), two the first bucket. The counts of this
        and the following buckets come next. All numbers are little-endian.
        """
        counts = self._dense()
        first = next((index for index, count in enumerate(counts) if count), 0)
        most = max(counts, default=0)
        size = next(size for size in _FORMATS if most < 1 << (8 * size))
        filled = counts[first:]
        return _HEADER.pack(size, first) + struct.pack(f"<{len(filled)}{_FORMATS[size]}", *filled)

    @property
    def count(self) -> int:
        """The number of times."""
        return sum(self._dense())

    def percentiles(self, percents: Iterable[int]) -> list[int | None]:
        """Return percentiles in milliseconds by nearest rank; `None` if there are no times.

        Each is within 2 percent of the exact one, rounded to whole milliseconds, and 0 for times
        below 1 ms.
        """
        first, counts = (0, self._dense()) if self._stored is None else _dense_of(self._stored)
        reached = list(accumulate(counts))
        if not reached or not reached[-1]:
            return [None for _ in percents]
        ranks = (-(-reached[-1] * percent // 100) for percent in percents)
        return [_middle_of(first + bisect_left(reached, rank)) for rank in ranks]

    def counts_up_to(self, limits: Iterable[int]) -> list[int]:
        """Return how many times are not above each limit in milliseconds.

        A time within 2 percent of a limit may be counted on the other side of it, always the same.
        """
        first, counts = (0, self._dense()) if self._stored is None else _dense_of(self._stored)
        reached = [0, *accumulate(counts)]
        places = (_last_bucket_up_to(limit) + 1 - first for limit in limits)
        return [reached[max(0, min(place, len(counts)))] for place in places]

    def __bool__(self) -> bool:
        return self._counts > 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self._counts == other._counts

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def _counts(self) -> int:
        if self._stored is not None:
            self._sum, self._stored = _lanes_of(self._stored), None
        return self._sum

    def _dense(self) -> tuple[int, ...]:
        lanes = -(-self._counts.bit_length() // _BITS_PER_COUNT)
        return struct.unpack(f"<{lanes}Q", self._counts.to_bytes(8 * lanes, "little"))


def _dense_of(data: bytes) -> tuple[int, tuple[int, ...]]:
    """Return the first bucket of stored counts, and these."""
    size, first = _HEADER.unpack_from(data)
    number = (len(data) - _HEADER.size) // size
    return first, struct.unpack_from(f"<{number}{_FORMATS[size]}", data, _HEADER.size)


def _lanes_of(data: bytes) -> int:
    """Return stored counts as one large integer."""
    size, first = _HEADER.unpack_from(data)
    dense = data[_HEADER.size :]
    lanes = bytearray(8 * (len(dense) // size))
    for place in range(size):
        lanes[place::8] = dense[place::size]
    counts = int.from_bytes(lanes, "little")
    return counts << (_BITS_PER_COUNT * int(first))


@lru_cache(maxsize=16_384)
def _bucket_of(time: int) -> int:
    return 0 if time < 1 else 1 + ceil(log(time) / _LOG_GAMMA)


@lru_cache(maxsize=2048)
def _middle_of(bucket: int) -> int:
    return 0 if bucket == 0 else round(2 * _GAMMA ** (bucket - 1) / (_GAMMA + 1))


@lru_cache(maxsize=128)
def _last_bucket_up_to(limit: int) -> int:
    """Return the last bucket whose middle is not above a limit."""
    bucket = _bucket_of(limit)
    return bucket if _middle_of(bucket) <= limit else bucket - 1
