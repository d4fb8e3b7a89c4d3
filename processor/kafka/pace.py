"""The pace of fetching: how long the broker gathers records before it answers.

A slice has its price however few records it holds: here, in the cycle and in the batches that come of it, and at the
broker. Fetched as they come, many partitions with a record each would take up the processors, and everyone would wait
longer. The busier the worker is, the longer is the line behind each slice, and the more it is worth to have fewer.
"""

import time
from collections.abc import Callable

_REST_MS_PER_SLICE, _REST_MS_PER_SLICE_WHEN_BUSY = 0.4, 2.0
_LEAST_REST_MS, _MOST_REST_MS = 2, 80
_LOOK_EVERY_S = 0.25


def rest_ms(slices: float, busy: float) -> float:
    """How long the broker gathers records for the fetch after one of so many slices.

    `busy` is the share of a processor that the worker uses, 0 to 1.
    """
    # By the square: what a slice costs is waited for by those behind it, who are more the busier the worker is.
    rest = max(_REST_MS_PER_SLICE, busy**2 * _REST_MS_PER_SLICE_WHEN_BUSY) * slices
    return min(rest, _MOST_REST_MS) if rest >= _LEAST_REST_MS else 0.0


class Utilization:
    """The share of a processor that this process uses, all threads together, 0 to 1: the mean of a quarter second."""

    def __init__(
        self, elapsed_s: Callable[[], float] = time.monotonic, used_s: Callable[[], float] = time.process_time
    ) -> None:
        self._elapsed_s = elapsed_s
        self._used_s = used_s
        self._last = elapsed_s(), used_s()
        self._share = 0.0

    @property
    def share(self) -> float:
        """Of late; 0 at first."""
        elapsed = self._elapsed_s()
        since, used_before = self._last
        if elapsed - since >= _LOOK_EVERY_S:
            used = self._used_s()
            self._share = min(1.0, (used - used_before) / (elapsed - since))
            self._last = elapsed, used
        return self._share
