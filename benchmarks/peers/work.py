"""The work that all are given, and how it is timed. Imports nothing that a peer's own environment may lack.

Durable conditional appends of one event of 250 bytes on 2,000 streams, by 1 client and by 16, each with streams of its
own and one append at a time, and with 1,024 appends under way, where a peer can have so many; then `LONG_STREAMS`
streams of 1,000 events, one of them read whole, and the whole feed, in pages where it is read in pages.
"""

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

STREAMS = 2_000
ONE, MANY, PIPELINED = "append, 1 client", "append, 16 clients", "append, 1,024 under way"
READ_STREAM, READ_FEED = "read a stream", "read the feed"
KINDS = (ONE, MANY, PIPELINED, READ_STREAM, READ_FEED)
CLIENTS: Mapping[str, int] = {ONE: 1, MANY: 16, PIPELINED: 1_024}
"""How many appends are under way at a time, each of a client of its own."""
WAITING = (ONE, MANY)
"""For those whose every append takes a connection of its own."""

LONG_STREAM = 1_000
LONG_STREAMS = 100
PAGE = 5_000
EVENT = "OrderShipped"
_TEXT = "the quick brown fox jumps over the lazy dog".ljust(233, ".")
# As Tidemark's client writes JSON, so that what comes back is as large as what was appended, or larger.
DATA = json.dumps({"n": 1, "text": _TEXT}, separators=(",", ":")).encode()


def places(client: int, clients: int) -> Iterator[tuple[int, int]]:
    """Stream number and version to append at, for one of so many clients: round by round, each time one on."""
    for version in itertools.count(1):
        for stream in range(client, STREAMS, clients):
            yield stream, version


def by_threads(append: Callable[[int, int, int], None], clients: int, seconds: float) -> float:
    """Appends a second by so many threads: `append` is given the client, the stream's number and the version."""
    counts = [0] * clients
    failures: list[Exception] = []
    begin = time.perf_counter()

    def work(client: int) -> None:
        try:
            for stream, version in places(client, clients):
                if failures or time.perf_counter() >= begin + seconds:
                    return
                append(client, stream, version)
                counts[client] += 1
        except Exception as error:  # noqa: BLE001 - raised where the threads are waited for
            failures.append(error)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - begin)


def rate(work: Callable[[], int], seconds: float) -> float:
    """Do it again and again for so long; what it counts, a second."""
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        done += work()
    return done / (time.perf_counter() - begin)


def whole(data: Iterable[bytes]) -> int:
    """How many events there are, each with its payload looked at."""
    count = size = 0
    for payload in data:
        count += 1
        size += len(payload)
    if size < count * len(DATA):
        raise ValueError(f"{count} events came with {size} bytes, not {count * len(DATA)}")
    return count


def tell(told: Mapping[str, float]) -> None:
    """The rates by kind of work, to who asked for them."""
    json.dump(told, sys.stdout)
