"""The hash chain of a log: each event's hash covers its fields, its payload's digest and the hash before it.

What is hashed is plain text, line by line, laid down in `docs/contract.md`: anyone can recompute it with `sha256sum`.
Where the package was built with a C compiler, `_chain` makes and hashes the events of a command. What is read back is
always hashed by this module, so that `verify` shows a mistake in either.
"""

from collections.abc import Sequence
from hashlib import sha256

from msgspec.structs import force_setattr

from processor.content import metadata_or_empty
from processor.messages import Command, Log, Record, RecordedEvent


def genesis(log: Log) -> bytes:
    """What stands for the hash before the first event of a log; 32 bytes."""
    return sha256(f"tidemark.chain.v1\n{log.tenant}\n{log.partition}\n".encode()).digest()


def payload_digest(data: bytes, metadata: bytes) -> bytes:
    """SHA-256 of the payload; 32 bytes. The chain covers this, not the payload, which may be erased by policy."""
    return sha256(b"%d\n%b%b" % (len(data), data, metadata)).digest()


def event_hash(previous: bytes, digest: bytes, event: RecordedEvent) -> bytes:
    """The hash of `event` (its `hash` is not looked at) after `previous`, with its payload's `digest`; 32 bytes.

    No name has a line break and none is empty (`codec`), so lines can't run into each other, and empty is absent.
    """
    return sha256(
        (
            f"{previous.hex()}\n{digest.hex()}\n{event.position}\n{event.stream}\n{event.version}\n{event.event_id}\n"
            f"{event.type}\n{event.schema_version}\n{event.time_ms}\n{event.offset}\n{event.command_id or ''}\n"
            f"{event.correlation_id or ''}\n{event.causation_id or ''}\n{event.traceparent or ''}\n"
        ).encode()
    ).digest()


def recorded_in_python(
    previous: bytes,
    command: Command,
    ids: Sequence[str],
    version: int,
    position: int,
    time_ms: int,
    offset: int,
    traceparent: str | None,
) -> list[RecordedEvent]:
    """The events of an accepted command, with their hashes, each after the one before and the first after `previous`.

    `version` is that of the stream before them, `position` the first that is theirs, `offset` the command's.
    """
    stream = command.stream
    command_id = command.command_id or None
    correlation_id = command.correlation_id or None
    causation_id = command.causation_id or None
    events: list[RecordedEvent] = []
    for index, (event_id, new) in enumerate(zip(ids, command.events, strict=True)):
        data, metadata = bytes(new.data), metadata_or_empty(new)
        event = RecordedEvent(
            stream, version + 1 + index, position + index, event_id, new.type, new.schema_version, data, metadata,
            time_ms, offset, command_id, correlation_id, causation_id, traceparent, b"",
        )  # fmt: skip
        previous = event_hash(previous, payload_digest(data, metadata), event)
        force_setattr(event, "hash", previous)
        events.append(event)
    return events


try:
    from processor import _chain
except ImportError:
    recorded = recorded_in_python
else:
    recorded = _chain.recorded


def fingerprint(record: Record) -> bytes:
    """What tells a command record from another at the same offset of another log; 16 bytes."""
    key, value = record.key or b"", record.value or b""
    head = b"%d\x00%d\x00%d\x00" % (record.offset, record.timestamp or 0, len(key))
    return sha256(head + key + value).digest()[:16]
