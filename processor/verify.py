"""Whether a store holds what it must: every log is read from its first event to its watermark and recomputed.

A store that is written to meanwhile is judged by what it was at the beginning.
"""

import struct
from collections.abc import Callable, Iterable

from msgspec import Struct

from processor.chain import event_hash, genesis, payload_digest
from processor.errors import StoreDamaged
from processor.messages import Checkpoint, Log, RecordedEvent
from processor.store import Store

_EVENTS_PAGE = 256  # each may have a megabyte
_STREAMS_PAGE = 2_000
_MANY_PROBLEMS = 20

Progress = Callable[[int], None]
"""Called with the number of events that were checked since it was last called."""


class LogReport(Struct):
    """What was found in one log: sound where there are no `problems`.

    `events` and `streams` were found, `watermark` is the checkpoint's, `chain` is the last event's hash in hex.
    """

    tenant: str
    partition: int
    events: int
    streams: int
    watermark: int
    chain: str
    problems: list[str]


class Report(Struct):
    """What was found in a store. `ok`: no log has a problem."""

    ok: bool
    events: int
    streams: int
    partitions: list[LogReport]


async def verify_store(
    store: Store, tenants: Iterable[str], partitions: int, progress: Progress | None = None
) -> Report:
    """Check all logs of the tenants, one after the other, in pages; kept in memory is one number per stream of a log.

    Raises `StoreUnreachable`.
    """
    checkpoints = await store.checkpoints()
    logs = [Log(tenant, partition) for tenant in tenants for partition in range(partitions)]
    reports = [await _verify(store, _Walk(log, checkpoints.get(log) or _untouched(log)), progress) for log in logs]
    return Report(
        ok=not any(report.problems for report in reports),
        events=sum(report.events for report in reports),
        streams=sum(report.streams for report in reports),
        partitions=reports,
    )


def _untouched(log: Log) -> Checkpoint:
    return Checkpoint(epoch=0, next_offset=0, next_position=1, streams=0, chain=genesis(log))


async def _verify(store: Store, walk: "_Walk", progress: Progress | None) -> LogReport:
    try:
        while page := await store.read_log(walk.log, walk.position, _EVENTS_PAGE):
            _check_types(walk, page)
            within = [event for event in page if event.position <= walk.watermark]
            for event in within:
                walk.on_event(event)
            if progress:
                progress(len(within))
            if len(within) < len(page):
                walk.beyond = page[len(within)].position
                break
        walk.on_last_event()
        number = 0
        while streams := await store.streams(walk.log, number, _STREAMS_PAGE):
            for number, info in streams:
                walk.on_stream(number, info.stream, info.version)
        walk.on_last_stream()
        if walk.beyond or walk.ahead:
            walk.on_now((await store.checkpoints()).get(walk.log))
    except StoreDamaged as fault:
        walk.problem(str(fault))
    return walk.report()


def _check_types(walk: "_Walk", page: Iterable[RecordedEvent]) -> None:
    # A column of SQLite takes anything, and what the walk itself counts by has to be what it says.
    for event in page:
        numbers = (event.position, event.version, event.offset)
        if not all(isinstance(number, int) for number in numbers) or not isinstance(event.hash, bytes):
            raise StoreDamaged(f"after position {walk.position}: an event's position, version, offset or hash is none")


def _is_hash(event: RecordedEvent, previous: bytes) -> bool:
    try:
        return event.hash == event_hash(previous, payload_digest(event.data, event.metadata), event)
    except (TypeError, ValueError, struct.error):
        # Text for bytes, or a number out of its bounds.
        return False


class _Walk:
    """One log, read in order."""

    def __init__(self, log: Log, checkpoint: Checkpoint) -> None:
        self.log = log
        self.checkpoint = checkpoint
        self.watermark = checkpoint.next_position - 1
        self.position = 0
        self.events = 0
        self.beyond = 0
        """The position of an event above the watermark."""
        self.ahead = ""
        """A stream with a version above that of its last event."""
        self._chain = genesis(log)
        self._offset = -1
        self._restarts = 0
        self._versions: dict[str, int] = {}
        self._streams = 0
        self._problems: list[str] = []

    def problem(self, text: str) -> None:
        if len(self._problems) < _MANY_PROBLEMS:
            self._problems.append(text)
        elif len(self._problems) == _MANY_PROBLEMS:
            self._problems.append("and more")

    def on_event(self, event: RecordedEvent) -> None:
        at = f"position {event.position}"
        if event.position != self.position + 1:
            self.problem(f"after position {self.position} comes {at}")
        version = self._versions.get(event.stream, 0)
        if event.version != version + 1:
            self.problem(f"{at}: after version {version} of {event.stream!r} comes version {event.version}")
        if not _is_hash(event, self._chain):
            self.problem(f"{at}: the hash is not that of the event and the one before it")
        if event.offset < self._offset:
            self._restarts += 1
            if self._restarts > self.checkpoint.incarnation:
                self.problem(f"{at}: the command's offset {event.offset} is below {self._offset}")
        self.events += 1
        self.position, self._offset, self._chain = event.position, event.offset, event.hash
        self._versions[event.stream] = event.version

    def on_last_event(self) -> None:
        if self.position != self.watermark:
            self.problem(f"the last event is at position {self.position}, the checkpoint says {self.watermark}")
        if self._chain != self.checkpoint.chain:
            self.problem("the last event's hash is not the checkpoint's")
        if self._restarts == self.checkpoint.incarnation and self._offset >= self.checkpoint.next_offset:
            self.problem(f"the last event's command has offset {self._offset}, which the checkpoint says is undecided")

    def on_stream(self, number: int, stream: str, version: int) -> None:
        if number > self.checkpoint.streams:
            self.ahead = stream
            return
        self._streams += 1
        if number != self._streams:
            self.problem(f"stream {stream!r} has number {number}, where {self._streams} is next")
        last = self._versions.pop(stream, 0)
        if version < last or not last:
            self.problem(f"stream {stream!r} is at version {version}, its last event has version {last}")
        elif version > last:
            self.ahead = stream

    def on_last_stream(self) -> None:
        for stream in self._versions:
            self.problem(f"there are events of {stream!r}, but no such stream")
        if self._streams != self.checkpoint.streams:
            self.problem(f"there are {self._streams} streams, the checkpoint says {self.checkpoint.streams}")

    def on_now(self, now: Checkpoint | None) -> None:
        """With the checkpoint as it is now: what goes beyond the old one has to be within it."""
        watermark = now.next_position - 1 if now else 0
        if self.beyond > watermark:
            self.problem(f"there is an event at position {self.beyond}, the checkpoint says {watermark}")
        if self.ahead and watermark == self.watermark:
            self.problem(f"stream {self.ahead!r} is at a version, or has a number, that no event brought about")

    def report(self) -> LogReport:
        return LogReport(
            tenant=self.log.tenant,
            partition=self.log.partition,
            events=self.events,
            streams=self._streams,
            watermark=self.watermark,
            chain=self._chain.hex(),
            problems=self._problems,
        )
