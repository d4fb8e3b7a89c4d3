"""The records that are published: an event on the feed, a reply, a dead letter. Pure.

What a producer chose freely and no limit bounds (a key without a value, headers, an echoed id) is cut where the topic
could not take it: the rest of the record has to get through.
"""

from collections.abc import Iterable, Iterator, Sequence

from processor.codec import encode_outcome, event_headers, shared_headers
from processor.messages import Log, Outcome, Record, RecordedEvent, Rejected
from processor.replies import ReplyAddress

_Header = tuple[str, bytes | None]
Headers = Sequence[_Header]
Outgoing = tuple[bytes | None, bytes | None, Headers, int | None]
"""Key, value, headers, and the timestamp in milliseconds (None: now)."""

Answer = tuple[Record, Outcome, ReplyAddress]
"""A command's record, what came of it, and where its reply goes."""

_CUT_BYTES = 1024


class EventRecords(Iterable[Outgoing]):
    """Events of a log as the feed carries them, made one by one. What those of a command share is made once."""

    def __init__(self, log: Log, events: Iterable[RecordedEvent]) -> None:
        self.log = log
        self.events = events

    def __iter__(self) -> Iterator[Outgoing]:
        before, shared = None, None
        for event in self.events:
            if before is None or not _is_of_one_command(before, event):
                shared = shared_headers(self.log, event)
            before = event
            yield event.stream.encode(), event.data, event_headers(self.log, event, shared), event.time_ms


def event_record(log: Log, event: RecordedEvent) -> Outgoing:
    """An event as the feed carries it."""
    return next(iter(EventRecords(log, (event,))))


def _is_of_one_command(one: RecordedEvent, other: RecordedEvent) -> bool:
    # Behind a new log that an operator has started, offsets come again.
    return (
        one.offset == other.offset
        and one.stream == other.stream
        and one.time_ms == other.time_ms
        and one.command_id == other.command_id
        and one.correlation_id == other.correlation_id
        and one.causation_id == other.causation_id
        and one.traceparent == other.traceparent
    )


class ReplyRecords(Iterable[Outgoing]):
    """The replies to commands, made one by one; of a topic that takes records of `room_bytes`."""

    def __init__(self, room_bytes: int, answers: Iterable[Answer]) -> None:
        self.room_bytes = room_bytes
        self.answers = answers

    def __iter__(self) -> Iterator[Outgoing]:
        for record, outcome, address in self.answers:
            yield reply_record(record, outcome, list(address.echoed), self.room_bytes)


def reply_record(record: Record, outcome: Outcome, echoed: Headers, room_bytes: int) -> Outgoing:
    """The reply to a command record; its timestamp is now, so that a topic with retention keeps it."""
    key, value = record.key, encode_outcome(outcome)
    if echoed or len(value) + len(key or b"") > room_bytes:
        echoed = echoed if _size(None, value, echoed) <= room_bytes else []
        key = key if _size(key, value, echoed) <= room_bytes else None
    return key, value, echoed, None


def dead_letter(log: Log, topic: str, record: Record, outcome: Rejected, room_bytes: int) -> Outgoing:
    """The bytes as received, with their headers, and ours that say why and where from.

    Where something had to be cut, `tidemark_cut` names it.
    """
    headers: list[_Header] = [
        ("tidemark_reason", outcome.reason.encode()),
        ("tidemark_detail", outcome.detail.encode()),
        ("tidemark_topic", topic.encode()),
        ("tidemark_partition", b"%d" % log.partition),
        ("tidemark_offset", b"%d" % record.offset),
    ]
    if record.timestamp is not None:
        headers.append(("tidemark_timestamp", b"%d" % record.timestamp))
    received: list[_Header] = list(record.headers)
    if _size(record.key, record.value, received + headers) <= room_bytes:
        return record.key, record.value, received + headers, None
    if _size(record.key, record.value, headers) <= room_bytes:
        return record.key, record.value, [*headers, ("tidemark_cut", b"headers")], None
    headers.append(("tidemark_cut", b"headers,key,value"))
    return (record.key or b"")[:_CUT_BYTES], (record.value or b"")[:_CUT_BYTES], headers, None


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    # Kafka's varints take a few bytes for each part.
    size = len(key or b"") + len(value or b"")
    for name, text in headers:
        size += len(name) * 4 + len(text or b"") + 10
    return size
