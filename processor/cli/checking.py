"""The work of `tidemark verify`: the store by itself, then the feed against the store."""

from collections.abc import Mapping

from msgspec import Struct

from processor.chain import event_hash, genesis, payload_digest
from processor.cli.progress import progress
from processor.cli.reading import PAGE, opened_store
from processor.kafka.feed_check import check_feed
from processor.messages import Checkpoint, Log, RecordedEvent
from processor.settings import Settings
from processor.store import Store, StreamInfo

_MOST_PROBLEMS = 10


class LogReport(Struct):
    """What was found of one log; `chain` is the hash of its last event, `feed` the last position on the feed."""

    tenant: str
    partition: int
    events: int
    streams: int
    watermark: int
    chain: str
    feed: int | None
    problems: list[str]


async def check(settings: Settings, *, feed: bool) -> list[LogReport]:
    """Check every log of the store. Raises what the store and, with `feed`, the broker raise."""
    async with opened_store(settings) as store:
        checkpoints = await store.checkpoints()
        total = sum(checkpoint.next_position - 1 for checkpoint in checkpoints.values())
        reports: dict[Log, LogReport] = {}
        done = 0
        with progress("store", total) as bar:
            for log, checkpoint in checkpoints.items():
                reports[log] = await _check_log(store, log, checkpoint)
                bar.at(done := done + reports[log].events)
        if feed:
            await _check_feeds(settings, store, checkpoints, reports, total)
    return list(reports.values())


async def _check_feeds(
    settings: Settings,
    store: Store,
    checkpoints: Mapping[Log, Checkpoint],
    reports: dict[Log, LogReport],
    total: int,
) -> None:
    done = 0
    with progress("feed", total) as bar:

        def compared(count: int) -> None:
            nonlocal done
            bar.at(done := done + count)

        for tenant in settings.tenants:
            for log, found in (await check_feed(settings, tenant, store, checkpoints, compared)).items():
                report = reports.setdefault(log, LogReport(log.tenant, log.partition, 0, 0, 0, "", None, []))
                report.feed = found.position
                report.problems += found.problems


async def _check_log(store: Store, log: Log, checkpoint: Checkpoint) -> LogReport:
    walk = _Walk(log)
    watermark = checkpoint.next_position - 1
    while walk.position < watermark and len(walk.problems) < _MOST_PROBLEMS:
        page = await store.read_log(log, walk.position, min(PAGE, watermark - walk.position))
        if not page:
            walk.problems.append(f"there is nothing behind position {walk.position} of {watermark}")
            break
        for event in page:
            walk.take(event)
    if not walk.problems:
        if walk.chain != checkpoint.chain:
            walk.problems.append("the checkpoint's hash is not that of the last event")
        if len(walk.versions) != checkpoint.streams:
            walk.problems.append(f"the checkpoint says {checkpoint.streams} streams, there are {len(walk.versions)}")
        await _check_heads(store, log, checkpoint, walk)
    return LogReport(
        log.tenant, log.partition, walk.count, len(walk.versions), watermark, walk.chain.hex(), None, walk.problems
    )


class _Walk:
    """From event to event, with what the next one has to be."""

    def __init__(self, log: Log) -> None:
        self.position = 0
        self.count = 0
        self.chain = genesis(log)
        self.versions: dict[str, int] = {}
        self.problems: list[str] = []

    def take(self, event: RecordedEvent) -> None:
        if event.position != self.position + 1:
            self.problems.append(f"position {event.position} comes after {self.position}")
        version = self.versions.get(event.stream, 0)
        if event.version != version + 1:
            self.problems.append(f"position {event.position}: {event.stream} has v{event.version} after v{version}")
        if event_hash(self.chain, payload_digest(event.data, event.metadata), event) != event.hash:
            self.problems.append(f"position {event.position}: the event is not the one that was written")
        self.position, self.chain = event.position, event.hash
        self.versions[event.stream] = event.version
        self.count += 1


async def _check_heads(store: Store, log: Log, checkpoint: Checkpoint, walk: _Walk) -> None:
    """The streams as the store lists them: in the order in which they began, at the versions of their last events."""
    listed: dict[int, StreamInfo] = {}
    for number, (name, version) in enumerate(walk.versions.items(), 1):
        if number not in listed:
            listed = dict(await store.streams(log, number - 1, PAGE))
        info = listed.get(number)
        if info is None or info.stream != name:
            walk.problems.append(f"stream {number} is {info.stream if info else 'missing'}, and should be {name}")
            return
        # A worker may have gone on meanwhile.
        if info.version < version or (info.version > version and not await _moved(store, log, checkpoint)):
            walk.problems.append(f"{name} is listed at v{info.version}, its last event is v{version}")


async def _moved(store: Store, log: Log, checkpoint: Checkpoint) -> bool:
    return (await store.checkpoints())[log].next_position > checkpoint.next_position
