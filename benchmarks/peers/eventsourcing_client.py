"""Python's `eventsourcing`, by its recorders, in an environment of its own: `… URL SECONDS`; prints JSON."""

import sys
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from eventsourcing.persistence import InfrastructureFactory, StoredEvent
from eventsourcing.utils import Environment

from benchmarks.peers.work import (
    CLIENTS,
    DATA,
    EVENT,
    LONG_STREAM,
    LONG_STREAMS,
    PAGE,
    READ_FEED,
    READ_STREAM,
    STREAMS,
    WAITING,
    by_threads,
    rate,
    tell,
    whole,
)


def _environment(url: str) -> dict[str, str]:
    if url.startswith("sqlite:"):
        return {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": url.removeprefix("sqlite:///"),
            "SQLITE_LOCK_TIMEOUT": "30",
        }
    parts = urlsplit(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.lstrip("/"),
        "POSTGRES_HOST": str(parts.hostname),
        "POSTGRES_PORT": str(parts.port),
        "POSTGRES_USER": str(parts.username),
        "POSTGRES_PASSWORD": parts.password or "none",
        "POSTGRES_POOL_SIZE": "16",
    }


def main() -> None:
    url, seconds = sys.argv[1], float(sys.argv[2])
    factory = InfrastructureFactory.construct(Environment("bench", _environment(url)))
    recorder = factory.application_recorder()
    streams: list[UUID] = []

    def event(stream: UUID, version: int) -> StoredEvent:
        return StoredEvent(stream, version, EVENT, DATA)

    def append(_: int, stream: int, version: int) -> None:
        recorder.insert_events([event(streams[stream], version)])

    told: dict[str, float] = {}
    for kind in WAITING:
        streams[:] = [uuid4() for _ in range(STREAMS)]
        told[kind] = by_threads(append, CLIENTS[kind], seconds)
    long = [uuid4() for _ in range(LONG_STREAMS)]
    for stream in long:
        recorder.insert_events([event(stream, version) for version in range(1, LONG_STREAM + 1)])

    def feed() -> int:
        last = read = 0
        while page := recorder.select_notifications(last + 1, PAGE):
            last, read = page[-1].id, read + whole(event.state for event in page)
        return read

    told[READ_STREAM] = rate(lambda: whole(event.state for event in recorder.select_events(long[0])), seconds)
    told[READ_FEED] = rate(feed, seconds)
    factory.close()
    tell(told)


if __name__ == "__main__":
    main()
