"""Which streams are hot: those with a notable share of the commands of the last one to two minutes, in bounded memory.

A space-saving sketch: as many counters as it has room for; a newcomer takes over the smallest one and its count, so a
stream with more than 1 / capacity of the commands is never missed, and its share is never understated.
"""

import time
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)

_CAPACITY = 128
_WINDOW_S = 60.0


class Hot(Generic[_Key]):
    """Counts keys, and says which had the largest shares of all that was counted lately."""

    def __init__(self, *, capacity: int = _CAPACITY, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._began_s = clock()
        self._now: Counter[_Key] = Counter()
        self._before: Counter[_Key] = Counter()

    def count(self, key: _Key, times: int = 1) -> None:
        """So many more of this key."""
        counts = self._now
        if key in counts or len(counts) < self._capacity:
            counts[key] += times
        else:
            least = min(counts, key=counts.__getitem__)
            counts[key] = counts.pop(least) + times

    def turn(self) -> None:
        """Begin another window if this one's time is over."""
        windows = int((self._clock() - self._began_s) / _WINDOW_S)
        if windows:
            self._before = self._now if windows == 1 else Counter()
            self._now = Counter()
            self._began_s += windows * _WINDOW_S

    def top(self, most: int, least_share: float) -> list[tuple[_Key, float]]:
        """Up to `most` keys with at least this share of all, largest first."""
        self.turn()
        counts = self._before + self._now
        total = counts.total()
        return [(key, count / total) for key, count in counts.most_common(most) if count / total >= least_share]
