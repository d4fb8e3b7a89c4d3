"""The work that all are given, and how it is timed. Imports nothing that a peer's own environment may lack.

Durable conditional appends of one event on 2,000 streams, by 1 client and by 16, each with streams of its own and one
append at a time; a stream of 1,000 events, read whole; the whole feed, read in pages.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator

STREAMS = 2_000
CLIENTS = (1, 16)
LONG_STREAM = 1_000
PAGE = 1_000
DATA = json.dumps({"n": 1, "text": "the quick brown fox jumps over the lazy dog"}).encode()


def places(client: int, clients: int) -> Iterator[tuple[int, int]]:
    """Stream number and version to append at, for one of so many clients: round by round, each time one on."""
    for version in itertools.count(1):
        for stream in range(client, STREAMS, clients):
            yield stream, version


def rate(work: Callable[[], int], seconds: float) -> float:
    """Do it again and again for so long; what it counts, a second."""
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        done += work()
    return done / (time.perf_counter() - begin)
