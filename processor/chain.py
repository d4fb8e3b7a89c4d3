"""The hash chain of a log: each event's hash covers its fields, its payload's digest and the hash before it.

What is hashed is plain text, line by line, laid down in `docs/contract.md`: anyone can recompute it with `sha256sum`.
"""

from hashlib import sha256

from processor.messages import Log, Record, RecordedEvent


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


def fingerprint(record: Record) -> bytes:
    """What tells a command record from another at the same offset of another log; 16 bytes."""
    key, value = record.key or b"", record.value or b""
    head = b"%d\x00%d\x00%d\x00" % (record.offset, record.timestamp or 0, len(key))
    return sha256(head + key + value).digest()[:16]
