"""Python's `eventsourcing`, by its recorders, in an environment of its own: `… URL SECONDS`; prints JSON."""

import json
import sys
import threading
import time
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from eventsourcing.persistence import InfrastructureFactory, StoredEvent
from eventsourcing.utils import Environment

from benchmarks.peers.work import CLIENTS, DATA, LONG_STREAM, PAGE, STREAMS, places, rate


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

    def event(stream: UUID, version: int) -> StoredEvent:
        return StoredEvent(stream, version, "OrderShipped", DATA)

    def append(client: int, clients: int, streams: list[UUID], until: float, counts: list[int]) -> None:
        for stream, version in places(client, clients):
            if time.perf_counter() >= until:
                return
            recorder.insert_events([event(streams[stream], version)])
            counts[client] += 1

    told: dict[str, float] = {}
    for clients in CLIENTS:
        streams = [uuid4() for _ in range(STREAMS)]
        counts = [0] * clients
        begin = time.perf_counter()
        threads = [
            threading.Thread(target=append, args=(client, clients, streams, begin + seconds, counts))
            for client in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told[f"append, {clients}"] = sum(counts) / (time.perf_counter() - begin)
    long = uuid4()
    recorder.insert_events([event(long, version) for version in range(1, LONG_STREAM + 1)])
    told["read a stream"] = rate(lambda: len(recorder.select_events(long)), seconds)

    def feed() -> int:
        last = read = 0
        while page := recorder.select_notifications(last + 1, PAGE):
            last, read = page[-1].id, read + len(page)
        return read

    told["read the feed"] = rate(feed, seconds)
    factory.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
