"""The hash chain of a log: each event's hash covers its fields, its payload's digest and the hash before it.

The bytes are laid down in `docs/contract.md`, so that anyone can recompute them. Text is UTF-8; numbers are big-endian.
"""

from hashlib import sha256
from struct import Struct

from processor.messages import Log, Record, RecordedEvent

_NUMBERS = Struct(">QQQqI")
_LENGTHS = Struct(">IIIIII")
_ABSENT = 0xFFFFFFFF


def genesis(log: Log) -> bytes:
    """What stands for the hash before the first event of a log; 32 bytes."""
    return sha256(b"tidemark.chain.v1\x00%b\x00%d" % (log.tenant.encode(), log.partition)).digest()


def payload_digest(data: bytes, metadata: bytes) -> bytes:
    """SHA-256 of the payload; 32 bytes. The chain covers this, not the payload, which may be erased by policy."""
    return sha256(b"%d\x00%b%b" % (len(data), data, metadata)).digest()


def event_hash(previous: bytes, digest: bytes, event: RecordedEvent) -> bytes:
    """The hash of `event` (its `hash` is not looked at) after `previous`, with its payload's `digest`; 32 bytes."""
    texts = (event.stream, event.type, event.command_id, event.correlation_id, event.causation_id, event.traceparent)
    parts = [None if text is None else text.encode() for text in texts]
    return sha256(
        b"".join(
            (
                previous,
                _NUMBERS.pack(event.position, event.version, event.offset, event.time_ms, event.schema_version),
                bytes.fromhex(event.event_id.replace("-", "")),
                digest,
                _LENGTHS.pack(*(_ABSENT if part is None else len(part) for part in parts)),
                *(part for part in parts if part),
            )
        )
    ).digest()


def fingerprint(record: Record) -> bytes:
    """What tells a command record from another at the same offset of another log; 16 bytes."""
    key, value = record.key or b"", record.value or b""
    head = b"%d\x00%d\x00%d\x00" % (record.offset, record.timestamp or 0, len(key))
    return sha256(head + key + value).digest()[:16]
