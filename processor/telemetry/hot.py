"""Which streams are hot: those with a notable share of the commands of the last one to two minutes, in bounded memory.

The algorithm of Misra and Gries ("Finding repeated elements", 1982) for many keys at once: when there are more than
twice as many counters as wanted, all are lowered by the count of the first that is not wanted, and those at zero go. So
a stream with more than 1 / capacity of the commands is never missed, and its share is understated by no more than that.
"""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)

_CAPACITY = 512
_WINDOW_S = 60.0


class Hot(Generic[_Key]):
    """Counts keys, and says which had the largest shares of all that was counted lately."""

    def __init__(self, *, capacity: int = _CAPACITY, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._began_s = clock()
        self._now, self._before = _Window(), _Window()

    def count(self, keys: Iterable[_Key], times: int = 1) -> None:
        """So many more of each of these keys."""
        window = self._now
        for key, found in Counter(keys).items():
            window.counts[key] += found * times
            window.total += found * times
        if len(window.counts) > 2 * self._capacity:
            window.lower(self._capacity)

    def turn(self) -> None:
        """Begin another window if this one's time is over."""
        windows = int((self._clock() - self._began_s) / _WINDOW_S)
        if windows:
            self._before = self._now if windows == 1 else _Window()
            self._now = _Window()
            self._began_s += windows * _WINDOW_S

    def top(self, most: int, least_share: float) -> list[tuple[_Key, float]]:
        """Up to `most` keys with at least this share of all, largest first."""
        self.turn()
        counts = self._before.counts + self._now.counts
        total = self._before.total + self._now.total
        return [(key, count / total) for key, count in counts.most_common(most) if count / total >= least_share]


class _Window:
    """What was counted in a minute: `total` of all keys, `counts` of those that are kept."""

    def __init__(self) -> None:
        self.counts: Counter[Any] = Counter()
        self.total = 0

    def lower(self, capacity: int) -> None:
        """Keep this many counters at most."""
        by = sorted(self.counts.values(), reverse=True)[capacity]
        self.counts = Counter({key: count - by for key, count in self.counts.items() if count > by})
