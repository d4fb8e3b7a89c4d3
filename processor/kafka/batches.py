"""The batches that a producer sends.

An event's record has a dozen headers, and to make them, each a tuple and a text to bytes, is a good part of a worker's
processor time; a reply has none, but there is one for each command. Where the package was built with a C compiler,
`_layout` writes a whole batch at once, the same bytes.
"""

import struct
import time
from collections.abc import Iterable

import google_crc32c
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from processor.kafka.outgoing import EventRecords, Outgoing, ReplyRecords

try:
    from processor.kafka._layout import lay_out, lay_out_replies
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


_CODECS = {
    None: DefaultRecordBatch.CODEC_NONE,
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}


class LaidBatch(BatchBuilder):  # type: ignore[misc]
    """As aiokafka's builder makes them, of records that are laid out already: uncompressed, with nothing to be added.

    `first_ms` and `last_ms` are the first and the highest of their timestamps.
    """

    def __init__(self, laid: bytes, count: int, first_ms: int, last_ms: int) -> None:
        self._laid, self._count, self._times = laid, count, (first_ms, last_ms)
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
        """How many records there are."""
        return self._count


def batch_of(records: Iterable[Outgoing], compression: str | None) -> BatchBuilder:
    """A closed batch of as many of the records as it holds."""
    if NATIVE and compression is None and isinstance(records, EventRecords):
        return LaidBatch(*lay_out(records.log.tenant, records.events, BATCH_BYTES))
    if NATIVE and compression is None and isinstance(records, ReplyRecords):
        now_ms = int(time.time() * 1000)
        return LaidBatch(*lay_out_replies(records.answers, records.room_bytes, now_ms, BATCH_BYTES))
    batch = BatchBuilder(BATCH_BYTES, _CODECS[compression])
    for key, value, headers, timestamp in records:
        if batch.append(key=key, value=value, timestamp=timestamp, headers=headers) is None:
            break
    batch.close()
    return batch
