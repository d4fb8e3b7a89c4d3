"""The batches that a producer sends.

An event's record has a dozen headers, and to make them, each a tuple and a text to bytes, is a good part of a worker's
processor time. Where the package was built with a C compiler, `_layout` writes a whole batch at once, the same bytes.
"""

import struct
from collections.abc import Iterable

import google_crc32c
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from processor.kafka.outgoing import EventRecords, Outgoing

try:
    from processor.kafka._layout import lay_out
except ImportError:
    NATIVE = False
else:
    NATIVE = True

BATCH_BYTES = 512 * 1024

# Kafka's record batch, version 2: what its checksum covers, and what comes before.
_COVERED = struct.Struct(">hiqqqhii")
_HEAD = struct.Struct(">qiibI")
_LENGTH_FROM = 12
_LEADER_EPOCH, _VERSION, _ATTRIBUTES = -1, 2, 0


class EventBatch(BatchBuilder):  # type: ignore[misc]
    """A batch of events for aiokafka's producer, laid out already: uncompressed, with nothing to be added."""

    def __init__(self, records: EventRecords) -> None:
        self._laid, self._count, *self._times = lay_out(records.log.tenant, records.events, BATCH_BYTES)
        self._state = (-1, -1, -1)
        self._closed = True
        self._built: bytes | None = None

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._state = producer_id, producer_epoch, base_sequence

    def _build(self) -> bytes:
        if self._built is None:
            count = self._count
            covered = _COVERED.pack(_ATTRIBUTES, count - 1, *self._times, *self._state, count)
            checksum = google_crc32c.extend(google_crc32c.value(covered), self._laid)
            head = _HEAD.pack(0, self.size() - _LENGTH_FROM, _LEADER_EPOCH, _VERSION, checksum)
            self._built = b"".join((head, covered, self._laid))
        return self._built

    def size(self) -> int:
        """In bytes."""
        return _HEAD.size + _COVERED.size + len(self._laid)

    def record_count(self) -> int:
        """How many events there are."""
        return self._count


def batch_of(producer: AIOKafkaProducer, records: Iterable[Outgoing], *, compressed: bool) -> BatchBuilder:
    """A closed batch of as many of the records as it holds."""
    if NATIVE and isinstance(records, EventRecords) and not compressed:
        return EventBatch(records)
    batch = producer.create_batch()
    for key, value, headers, timestamp in records:
        if batch.append(key=key, value=value, timestamp=timestamp, headers=headers) is None:
            break
    batch.close()
    return batch
