"""UmaDB's Python client, in an environment of its own: `… URL SECONDS`; prints JSON.

A stream is a tag. The condition of an append is that no event with the tag came after the last one that the client
knows. One client object serves all threads: that is quicker than one each.
"""

import sys
from uuid import uuid4

from umadb import AppendCondition, Client, Event, Query, QueryItem

from benchmarks.peers.work import (
    CLIENTS,
    DATA,
    EVENT,
    LONG_STREAM,
    LONG_STREAMS,
    READ_FEED,
    READ_STREAM,
    by_threads,
    rate,
    tell,
    whole,
)


def main() -> None:
    client, seconds = Client(sys.argv[1]), float(sys.argv[2])
    told: dict[str, float] = {}
    for kind, clients in CLIENTS.items():
        told[kind] = by_threads(_Streams(client, f"order-{clients}").append, clients, seconds)
    for stream in range(LONG_STREAMS):
        client.append([_event(f"long-{stream}") for _ in range(LONG_STREAM)], AppendCondition(_of(f"long-{stream}")))
    told[READ_STREAM] = rate(lambda: _read(client, _of("long-0")), seconds)
    told[READ_FEED] = rate(lambda: _read(client, None), seconds)
    tell(told)


class _Streams:
    """Where each stream has its last event."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._last: dict[int, int] = {}

    def append(self, _: int, stream: int, version: int) -> None:
        name = f"{self._prefix}-{stream:04}"
        condition = AppendCondition(_of(name), self._last[stream] if version > 1 else None)
        self._last[stream] = self._client.append([_event(name)], condition)


def _event(stream: str) -> Event:
    return Event(EVENT, DATA, tags=[stream], uuid=uuid4())


def _of(stream: str) -> Query:
    return Query([QueryItem(tags=[stream])])


def _read(client: Client, query: Query | None) -> int:
    read, pages = 0, client.read(query)
    while page := pages.next_batch():
        read += whole(event.event.data for event in page)
    return read


if __name__ == "__main__":
    main()
